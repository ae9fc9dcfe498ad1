//! The part of the control API that is about Event Grid: what was accepted, counters, faults.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::Fault;
use super::server::Shared;
use crate::control::{Refusal, order};

/// Largest body: a list of ids.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Most duplicates that are named.
const DUPLICATES_MAX: usize = 10_000;

type Answer = Result<Json<Value>, Refusal>;

/// The orders, to be merged into the control API.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/eventgrid/events", get(events))
        .route("/eventgrid/duplicates", get(duplicates))
        .route("/eventgrid/counters", get(counters))
        .route("/eventgrid/faults", post(fault))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn events(State(shared): State<Arc<Shared>>, query: Result<Query<After>, QueryRejection>) -> Answer {
    let wrong = |error: QueryRejection| Refusal::new(StatusCode::BAD_REQUEST, error.body_text());
    let Query(After { after }) = query.map_err(wrong)?;
    let page = shared.read_log(|log| log.page(after));
    let entries = page.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(json!({ "entries": entries, "accepted": shared.totals().accepted })))
}

async fn duplicates(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "duplicates": shared.read_log(|log| log.duplicates(DUPLICATES_MAX)) }))
}

async fn counters(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "events": shared.totals(), "requests": shared.requests() }))
}

async fn fault(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let fault: Fault = order(&body)?;
    let met = shared.order(&fault).map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
    Ok(Json(json!({ "met": met })))
}
