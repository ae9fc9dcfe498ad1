//! Refusals, with the status and the body of the real service.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that is not carried out. Nothing of it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The code of the only detail; that of the error follows from the status.
    pub(super) detail: &'static str,
    pub(super) message: String,
    /// Seconds after which the client may come again.
    pub(super) retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, detail: &'static str, message: impl Into<String>) -> Self {
        Self { status, detail, message: message.into(), retry_after: None }
    }

    /// The JSON is not what the service takes.
    pub(super) fn input(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InputJsonInvalid", message)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// A status that was ordered.
    pub(super) fn ordered(status: StatusCode, retry_after: Option<u64>) -> Self {
        let message = "The request was refused on order.";
        Self { retry_after, ..Self::new(status, "Ordered", message) }
    }

    /// `BadRequest`, `Unauthorized`: the reason phrase without its blanks.
    pub(super) fn code(&self) -> String {
        let phrase = self.status.canonical_reason().unwrap_or("Unknown");
        phrase.chars().filter(char::is_ascii_alphanumeric).collect()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, message) = (self.code(), self.message);
        let details = json!([{ "code": self.detail, "message": message }]);
        let body = json!({ "error": { "code": code, "message": message, "details": details } });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_reason_without_blanks() {
        let code = |status| Refusal::ordered(status, None).code();
        assert_eq!(code(StatusCode::BAD_REQUEST), "BadRequest");
        assert_eq!(code(StatusCode::PAYLOAD_TOO_LARGE), "PayloadTooLarge");
        assert_eq!(code(StatusCode::TOO_MANY_REQUESTS), "TooManyRequests");
    }

    #[test]
    fn what_to_wait_is_a_header() {
        let response = Refusal::ordered(StatusCode::TOO_MANY_REQUESTS, Some(7)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
        let response = Refusal::input("no").into_response();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
