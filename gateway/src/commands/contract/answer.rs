//! What a device says became of its command.

use penstock_proto::json;
use serde_json::Value;

use super::outcome::{Outcome, Status};

/// A device's answer: `{"status": "succeeded", "code": 0, "detail": {}}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Answer {
    pub(crate) status: AnswerStatus,
    pub(crate) code: Option<i64>,
    /// Any JSON, as text; `null` counts as none.
    pub(crate) detail: Option<Box<str>>,
    /// How long the detail was, in bytes, if it was too long to keep.
    pub(crate) detail_bytes: Option<u32>,
}

/// The word of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AnswerStatus {
    Succeeded,
    Failed,
    Rejected,
}

/// Why a payload is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// It is longer than any answer.
    #[error("an answer has at most {PAYLOAD_BYTES_MAX} bytes")]
    TooLong,
    /// It is no JSON object.
    #[error("an answer is a JSON object")]
    NotAnObject,
    /// The status is none.
    #[error("status is one of succeeded, failed, rejected")]
    Status,
    /// The code is none.
    #[error("code is a whole number of 64 bits")]
    Code,
}

/// Longest answer, in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Longest detail that is kept, in bytes of JSON.
pub(crate) const DETAIL_BYTES_MAX: usize = 4 << 10;

// === impl Answer ===

impl Answer {
    /// Reads the payload of an answer. Members that are not known are passed over.
    ///
    /// # Errors
    ///
    /// When it is not what the contract says.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, AnswerError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(AnswerError::TooLong);
        }
        let text = std::str::from_utf8(payload).map_err(|_| AnswerError::NotAnObject)?;
        // Refuses what some reader of the event would refuse, and what nests without end.
        json::scan_whole(text).ok_or(AnswerError::NotAnObject)?;
        let Ok(Value::Object(mut members)) = serde_json::from_str(text) else {
            return Err(AnswerError::NotAnObject);
        };
        let status = members.get("status").and_then(Value::as_str);
        let status = status.and_then(AnswerStatus::from_word).ok_or(AnswerError::Status)?;
        let code = match members.get("code") {
            None | Some(Value::Null) => None,
            Some(code) => Some(code.as_i64().ok_or(AnswerError::Code)?),
        };
        let detail = members.remove("detail").filter(|detail| !detail.is_null());
        let detail = detail.map(|detail| detail.to_string().into_boxed_str());
        let too_long = detail.as_ref().map(|text| text.len()).filter(|bytes| *bytes > DETAIL_BYTES_MAX);
        let detail = detail.filter(|_| too_long.is_none());
        Ok(Self { status, code, detail, detail_bytes: too_long.and_then(|bytes| u32::try_from(bytes).ok()) })
    }

    /// What becomes of the command.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::answered(self)
    }
}

// === impl AnswerStatus ===

impl AnswerStatus {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Succeeded, "succeeded"), (Self::Failed, "failed"), (Self::Rejected, "rejected")];

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == word).map(|(status, _)| status)
    }

    /// The number that stands for it in a record.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Succeeded => 1,
            Self::Failed => 2,
            Self::Rejected => 3,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().map(|(status, _)| status).find(|status| status.number() == number)
    }
}

impl From<AnswerStatus> for Status {
    fn from(status: AnswerStatus) -> Self {
        match status {
            AnswerStatus::Succeeded => Self::Succeeded,
            AnswerStatus::Failed => Self::Failed,
            AnswerStatus::Rejected => Self::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, expected: Result<(AnswerStatus, Option<i64>, Option<&str>), AnswerError>) {
        let found = Answer::read(payload.as_bytes());
        let found = found.as_ref().map(|answer| (answer.status, answer.code, answer.detail.as_deref()));
        assert_eq!(found, expected.as_ref().map(|answer| *answer), "{payload}");
    }

    #[test]
    fn an_answer_says_status_code_and_detail() {
        use AnswerStatus::{Failed, Rejected, Succeeded};
        check(r#"{"status":"succeeded"}"#, Ok((Succeeded, None, None)));
        check(
            r#" {"code": 0, "status": "succeeded", "detail": {"a": [1]}} "#,
            Ok((Succeeded, Some(0), Some(r#"{"a":[1]}"#))),
        );
        check(
            r#"{"status":"failed","code":-7,"detail":"no power","more":1}"#,
            Ok((Failed, Some(-7), Some(r#""no power""#))),
        );
        check(r#"{"status":"rejected","code":null,"detail":null}"#, Ok((Rejected, None, None)));
        check(r#"{"status":"rejected","code":9223372036854775807}"#, Ok((Rejected, Some(i64::MAX), None)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for payload in
            ["", "succeeded", "[]", "{", "\"succeeded\"", "{\"status\":\"succeeded\"} {}", "{\"a\":1e999}"]
        {
            check(payload, Err(AnswerError::NotAnObject));
        }
        for payload in ["{}", r#"{"status":"Succeeded"}"#, r#"{"status":"delivered"}"#, r#"{"status":1}"#] {
            check(payload, Err(AnswerError::Status));
        }
        for code in ["1.5", "1.0", "\"1\"", "true", "9223372036854775808", "{}"] {
            check(&format!(r#"{{"status":"failed","code":{code}}}"#), Err(AnswerError::Code));
        }
        assert_eq!(Answer::read(&[0xff]), Err(AnswerError::NotAnObject));
        assert_eq!(Answer::read(&vec![b' '; PAYLOAD_BYTES_MAX + 1]), Err(AnswerError::TooLong));
    }

    #[test]
    fn a_long_detail_is_left_out_and_told() {
        let answer = |bytes: usize| {
            let payload = format!(r#"{{"status":"succeeded","detail":"{}"}}"#, "x".repeat(bytes - 2));
            Answer::read(payload.as_bytes()).expect("an answer")
        };
        let kept = answer(DETAIL_BYTES_MAX);
        assert_eq!((kept.detail.map(|text| text.len()), kept.detail_bytes), (Some(DETAIL_BYTES_MAX), None));
        let cut = answer(DETAIL_BYTES_MAX + 1);
        assert_eq!((cut.detail, cut.detail_bytes), (None, Some(4097)));
    }
}
