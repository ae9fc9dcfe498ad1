//! What tests may order: requests for tokens that fail, tokens that are worth nothing any more.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Tokens;
use crate::control::{Refusal, order};

/// Faults of tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    /// The next requests for tokens get 503; 0 ends it.
    fail: Option<u64>,
    /// Every token issued so far is refused from now on, and every connection is cut.
    #[serde(default)]
    expire: bool,
}

/// The orders, to be merged into the control API.
pub(crate) fn router(tokens: Arc<Tokens>) -> Router {
    Router::new().route("/v1/faults/tokens", post(faults)).with_state(tokens)
}

async fn faults(State(tokens): State<Arc<Tokens>>, body: Bytes) -> Result<Json<Value>, Refusal> {
    let order: Faults = order(&body)?;
    if let Some(times) = order.fail {
        tokens.fail(times);
    }
    let connections = if order.expire { tokens.revoke() } else { 0 };
    Ok(Json(json!({ "fail": order.fail, "expire": order.expire, "connections": connections })))
}
