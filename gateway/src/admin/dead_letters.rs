//! `POST /api/v1/dead-letter/retry` and `…/discard`: `{"through": SEQ}` or `{"all": true}`.
//!
//! Answers `{"entries": N, "waiting": M}`; an error has `error` besides, and `entries` counts what
//! was done before it.
//!
//! Who is on the box may decide; a web page that somebody on the box looks at may not. So the body
//! must be declared as JSON, which a page of another origin cannot do without asking first, and the
//! request must be made to a loopback address or `localhost`, not to a name that leads there.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
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

pub(super) async fn retry(
    State(sources): State<Arc<Sources>>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    decide(sources, &headers, request, Handle::retry).await
}

pub(super) async fn discard(
    State(sources): State<Arc<Sources>>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    decide(sources, &headers, request, Handle::discard).await
}

async fn decide(
    sources: Arc<Sources>,
    headers: &HeaderMap,
    request: Request,
    decision: fn(&Handle, Through) -> Result<Outcome, Error>,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_this_box) {
        let error = "ask a loopback address or localhost".to_owned();
        return answer(&sources, StatusCode::FORBIDDEN, Outcome::default(), Some(error));
    }
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

/// Whether a `Host` header names this box by address, or by the one name that is always its own.
fn is_this_box(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_box_is_meant() {
        let check = |host: &str, expected| assert_eq!(is_this_box(host), expected, "{host}");
        for host in ["127.0.0.1", "127.0.0.1:9181", "[::1]", "[::1]:9181", "localhost:9181", "LocalHost"] {
            check(host, true);
        }
        for host in [
            "",
            "example.com",
            "example.com:9181",
            "127.0.0.1.example.com",
            "192.0.2.7:9181",
            "localhost.example.com",
        ] {
            check(host, false);
        }
    }
}
