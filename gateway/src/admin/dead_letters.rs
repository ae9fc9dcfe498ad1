//! `POST /api/v1/dead-letter/retry` and `…/discard`: `{"through": SEQ}` or `{"all": true}`.
//!
//! Answers `{"entries": N, "waiting": M}`; an error has `error` besides, and `entries` counts what
//! was done before it. The body must be declared as JSON, which a web page cannot do to a loopback
//! address without asking first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use penstock_proto::Seq;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::dead_letter::{Error, Handle, Outcome, Reason, Through};
use crate::supervise::chain;

/// Which letters.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    through: Option<Seq>,
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    entries: u64,
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn retry(State(sources): State<Arc<Sources>>, Json(request): Json<Request>) -> Response {
    decide(sources, request, Handle::retry).await
}

pub(super) async fn discard(State(sources): State<Arc<Sources>>, Json(request): Json<Request>) -> Response {
    decide(sources, request, Handle::discard).await
}

async fn decide(
    sources: Arc<Sources>,
    request: Request,
    decision: fn(&Handle, Through) -> Result<Outcome, Error>,
) -> Response {
    let through = match request {
        Request { through: Some(seq), all: false } => Through::Seq(seq),
        Request { through: None, all: true } => Through::All,
        _ => {
            let error = r#"expected {"through": SEQ} or {"all": true}"#.to_owned();
            return answer(&sources, StatusCode::BAD_REQUEST, Outcome::default(), Some(error));
        }
    };
    let letters = sources.dead_letters.clone();
    // It reads the disk and waits for it.
    let decided = tokio::task::spawn_blocking(move || decision(&letters, through)).await;
    match decided {
        Ok(Ok(done)) => answer(&sources, StatusCode::OK, done, None),
        Ok(Err(error)) => answer(&sources, status_of(&error.reason), error.done, Some(chain(&error))),
        Err(error) => {
            let error = Some(error.to_string());
            answer(&sources, StatusCode::INTERNAL_SERVER_ERROR, Outcome::default(), error)
        }
    }
}

const fn status_of(reason: &Reason) -> StatusCode {
    match reason {
        Reason::Refused(_) | Reason::Away | Reason::Failed(_) | Reason::Undecided => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::NoLetter(_) => StatusCode::CONFLICT,
        Reason::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn answer(sources: &Sources, status: StatusCode, done: Outcome, error: Option<String>) -> Response {
    let waiting = sources.dead_letters.status().entries;
    (status, Json(Answer { entries: done.entries, waiting, error })).into_response()
}
