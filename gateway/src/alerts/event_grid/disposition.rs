//! What follows from an answer of Event Grid: one pure function that the loop obeys.

use std::time::Duration;

use serde::Deserialize;

use super::config::Kind;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The service answered.
    Answer {
        /// The status of HTTP.
        status: u16,
        /// The header `Retry-After`, as it came.
        retry_after: Option<String>,
        /// The beginning of the body.
        body: Vec<u8>,
    },
    /// No connection came about: nothing was accepted.
    Unreachable(String),
    /// The connection was lost before the answer: the events may have been accepted.
    Lost(String),
    /// There was no answer in time: the events may have been accepted.
    TimedOut,
}

/// What is to be done with the events of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disposition {
    /// They are sent.
    Confirm,
    /// One of them is refused, or they are too much together: they are sent again by halves.
    Split(Cause),
    /// The only one is refused for good.
    Quarantine(Cause),
    /// The credential is refused: it is renewed once, and then everything waits.
    Credential {
        /// Whether half as much may be taken.
        halve: bool,
    },
    /// Nothing will be accepted until somebody changes something: everything waits.
    Configuration,
    /// They are sent again later.
    Retry {
        /// When at the earliest, if the service says it.
        after: Option<Duration>,
        /// Why, for the metrics.
        why: Why,
    },
}

/// Why events are refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The service does not take an event of that form.
    Refused,
    /// It is too large.
    TooLarge,
}

/// Why events are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The service asked for a pause.
    Throttled,
    /// The service failed.
    Failed,
    Unreachable,
    Lost,
    TimedOut,
}

/// The service's own words, in one line, without what cannot be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) code: String,
    pub(super) message: String,
}

/// Longest pause that the service can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Most bytes of a code or a message that are kept.
const WORDS_BYTES_MAX: usize = 512;

/// Decides what follows from `reply` to a request of `events` events.
pub(super) fn judge(kind: Kind, reply: &Reply, events: usize) -> Disposition {
    let retry = |why| Disposition::Retry { after: None, why };
    let (status, retry_after, body) = match reply {
        Reply::Unreachable(_) => return retry(Why::Unreachable),
        Reply::Lost(_) => return retry(Why::Lost),
        Reply::TimedOut => return retry(Why::TimedOut),
        Reply::Answer { status, retry_after, body } => (*status, retry_after.as_deref(), body),
    };
    let refuse = |cause| {
        if events > 1 { Disposition::Split(cause) } else { Disposition::Quarantine(cause) }
    };
    let namespace = kind == Kind::Namespace;
    match status {
        200 => Disposition::Confirm,
        400 if Words::of(body).is_about_the_request() => Disposition::Configuration,
        400 => refuse(Cause::Refused),
        401 => Disposition::Credential { halve: false },
        // In a namespace it also means that the message is too large, or a quota is used up.
        403 if namespace && Words::of(body).is_about_size() => refuse(Cause::TooLarge),
        403 => Disposition::Credential { halve: namespace },
        413 => refuse(Cause::TooLarge),
        429 => Disposition::Retry { after: pause(retry_after), why: Why::Throttled },
        408 | 500..=599 => Disposition::Retry { after: pause(retry_after), why: Why::Failed },
        // 404 and 410: no such topic. Others, redirects among them: that is not the service.
        _ => Disposition::Configuration,
    }
}

/// The pause that a header asks for, in seconds; a date is not understood.
fn pause(retry_after: Option<&str>) -> Option<Duration> {
    let seconds = retry_after?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

// === impl Reply ===

impl Reply {
    /// Whether events of a request that is sent again may have been accepted already.
    pub(super) const fn may_have_been_accepted(&self) -> bool {
        match self {
            Self::Lost(_) | Self::TimedOut => true,
            Self::Answer { status, .. } => matches!(status, 408 | 500..=599),
            Self::Unreachable(_) => false,
        }
    }

    /// What happened, in one line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unreachable(error) => format!("it cannot be reached: {error}"),
            Self::Lost(error) => format!("the connection was lost: {error}"),
            Self::TimedOut => "it did not answer in time".to_owned(),
            Self::Answer { status, body, .. } => {
                let Words { code, message } = Words::of(body);
                match (code.is_empty(), message.is_empty()) {
                    (true, true) => format!("it answered {status}"),
                    (false, true) => format!("it answered {status}: {code}"),
                    (true, false) => format!("it answered {status}: {message}"),
                    (false, false) => format!("it answered {status}: {code}: {message}"),
                }
            }
        }
    }
}

// === impl Disposition ===

impl Disposition {
    /// Its word in the metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Confirm => "confirmed",
            Self::Split(_) => "split",
            Self::Quarantine(_) => "quarantined",
            Self::Credential { .. } => "credential",
            Self::Configuration => "configuration",
            Self::Retry { why, .. } => why.name(),
        }
    }
}

impl Why {
    const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::TimedOut => "timed-out",
        }
    }
}

impl Cause {
    /// Its word in the metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TooLarge => "too-large",
        }
    }
}

// === impl Words ===

impl Words {
    /// Reads the body of a refusal; empty if it is of another form.
    pub(super) fn of(body: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Refusal {
            error: Detail,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Detail {
            code: Option<String>,
            message: Option<String>,
            details: Vec<Self>,
        }
        let Refusal { error } = serde_json::from_slice(body).unwrap_or_default();
        // The code of the first detail says more than that of the whole, which follows from the status.
        let detail = error.details.into_iter().find_map(|detail| detail.code);
        let code = detail.or(error.code).unwrap_or_default();
        Self { code: shown(&code), message: shown(&error.message.unwrap_or_default()) }
    }

    /// Whether the request is wrong, rather than one of its events: then it is so for all of them.
    fn is_about_the_request(&self) -> bool {
        const CODES: [&str; 3] = ["InvalidApiVersion", "MissingApiVersion", "InvalidContentType"];
        // A topic that was made for another schema refuses everything in these words.
        let other_schema = ["'EventGridEvent' schema", "'CustomInputEvent' schema", "'CustomEvent' schema"];
        CODES.iter().any(|code| self.code.eq_ignore_ascii_case(code))
            || other_schema.iter().any(|words| self.message.contains(words))
    }

    fn is_about_size(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        self.code.to_ascii_lowercase().contains("toolarge")
            || ["too large", "maximum size", "maximum allowed size"]
                .iter()
                .any(|words| message.contains(words))
    }
}

/// The beginning of a text without line breaks and the like.
fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(WORDS_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(code: &str, detail: &str, message: &str) -> Vec<u8> {
        let details = serde_json::json!([{ "code": detail, "message": message }]);
        let error = serde_json::json!({ "code": code, "message": message, "details": details });
        serde_json::json!({ "error": error }).to_string().into_bytes()
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &[u8]) -> Reply {
        Reply::Answer { status, retry_after: retry_after.map(str::to_owned), body: body.to_vec() }
    }

    fn retry(after: Option<u64>, why: Why) -> Disposition {
        Disposition::Retry { after: after.map(Duration::from_secs), why }
    }

    /// For one kind: what follows for a batch, and for a single event.
    fn check(kind: Kind, reply: &Reply, batch: &Disposition, single: &Disposition) {
        assert_eq!(&judge(kind, reply, 2), batch, "{kind:?} {reply:?} of two");
        assert_eq!(&judge(kind, reply, 1), single, "{kind:?} {reply:?} of one");
    }

    #[test]
    fn every_answer_has_its_disposition() {
        const ALL: [Kind; 3] = [Kind::Topic, Kind::Domain, Kind::Namespace];
        let same = |kinds: &[Kind], reply: &Reply, expected: &Disposition| {
            kinds.iter().for_each(|kind| check(*kind, reply, expected, expected));
        };
        let credential = Disposition::Credential { halve: false };
        same(&ALL, &answer(200, None, b""), &Disposition::Confirm);
        same(&ALL, &answer(401, None, b""), &credential);
        same(&ALL[..2], &answer(403, None, b""), &credential);
        same(&ALL[2..], &answer(403, None, b""), &Disposition::Credential { halve: true });
        for status in [404, 410, 405, 415, 301, 302, 307, 204, 202, 100] {
            same(&ALL, &answer(status, None, b""), &Disposition::Configuration);
        }
        same(&ALL, &answer(408, None, b""), &retry(None, Why::Failed));
        for status in [500, 502, 503, 504, 599] {
            same(&ALL, &answer(status, None, b""), &retry(None, Why::Failed));
        }
        same(&ALL, &answer(503, Some("7"), b""), &retry(Some(7), Why::Failed));
        same(&ALL, &answer(429, None, b""), &retry(None, Why::Throttled));
        same(&ALL, &Reply::Unreachable(String::new()), &retry(None, Why::Unreachable));
        same(&ALL, &Reply::Lost(String::new()), &retry(None, Why::Lost));
        same(&ALL, &Reply::TimedOut, &retry(None, Why::TimedOut));
        for kind in ALL {
            let split = |cause| (Disposition::Split(cause), Disposition::Quarantine(cause));
            let (batch, single) = split(Cause::Refused);
            check(kind, &answer(400, None, b"<html>"), &batch, &single);
            let invalid = body("BadRequest", "InputJsonInvalid", "Event [1]: property 'id' is empty.");
            check(kind, &answer(400, None, &invalid), &batch, &single);
            let (batch, single) = split(Cause::TooLarge);
            check(kind, &answer(413, None, b""), &batch, &single);
        }
    }

    #[test]
    fn a_pause_is_taken_in_seconds_and_bounded() {
        for (header, expected) in [
            ("0", Some(0)),
            (" 30 ", Some(30)),
            ("300", Some(300)),
            ("301", Some(300)),
            ("86400", Some(300)),
            ("-1", None),
            ("1.5", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            let judged = judge(Kind::Topic, &answer(429, Some(header), b""), 5);
            assert_eq!(judged, retry(expected, Why::Throttled), "{header}");
        }
    }

    #[test]
    fn a_namespace_says_403_to_what_is_too_large() {
        let large = body("Forbidden", "RequestTooLarge", "The maximum size has been exceeded: 9 bytes.");
        check(
            Kind::Namespace,
            &answer(403, None, &large),
            &Disposition::Split(Cause::TooLarge),
            &Disposition::Quarantine(Cause::TooLarge),
        );
        let credential = Disposition::Credential { halve: false };
        check(Kind::Topic, &answer(403, None, &large), &credential, &credential);
        let quota = body("Forbidden", "QuotaExceeded", "The quota of throughput units is used up.");
        let halve = Disposition::Credential { halve: true };
        check(Kind::Namespace, &answer(403, None, &quota), &halve, &halve);
    }

    #[test]
    fn a_request_that_is_wrong_as_such_condemns_no_event() {
        for (code, message) in [
            ("InvalidApiVersion", "The api-version '1' is not supported."),
            ("MissingApiVersion", "The api-version query parameter is required."),
            ("InvalidContentType", "Received: none."),
            ("InputJsonInvalid", "This resource is configured to receive event in 'EventGridEvent' schema."),
        ] {
            let reply = answer(400, None, &body("BadRequest", code, message));
            check(Kind::Topic, &reply, &Disposition::Configuration, &Disposition::Configuration);
        }
    }

    #[test]
    fn the_services_words_are_shown_in_one_bounded_line() {
        let invalid = body("BadRequest", "InputJsonInvalid", "line\none\u{7}");
        let said = answer(400, None, &invalid).describe();
        assert_eq!(said, "it answered 400: InputJsonInvalid: line one");
        assert_eq!(answer(502, None, b"<html>").describe(), "it answered 502");
        assert_eq!(answer(401, None, br#"{"error":{"code":"x"}}"#).describe(), "it answered 401: x");
        assert_eq!(Words::of(&body("c", "d", &"\u{fc}".repeat(999))).message.len(), 512);
        for junk in [&b"null"[..], b"[]", b"{\"error\":1}", b"{\"error\":{\"details\":{}}}", b"\xff"] {
            assert_eq!(Words::of(junk), Words::default());
        }
    }

    #[test]
    fn only_what_was_sent_whole_may_have_been_accepted() {
        for (reply, expected) in [
            (answer(500, None, b""), true),
            (answer(408, None, b""), true),
            (answer(429, None, b""), false),
            (answer(400, None, b""), false),
            (Reply::TimedOut, true),
            (Reply::Lost(String::new()), true),
            (Reply::Unreachable(String::new()), false),
        ] {
            assert_eq!(reply.may_have_been_accepted(), expected, "{reply:?}");
        }
    }
}
