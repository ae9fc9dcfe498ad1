//! What a message to the gateway asks for. Strict: whatever is not understood is refused, with the field, what it was
//! and what it may be, so that nobody relies on a setting that was never made.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::commands::contract::parse_time;

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Say how you are.
    Health,
    /// Use at most so much of the uplink.
    Cap { bytes_per_second: u64, end: End },
    /// Use it as configured again.
    Uncap,
    /// Send nothing of this upward.
    Pause { subject: Subject, end: End },
    /// Send it again; `None` stands for all that is paused.
    Resume { subject: Option<Subject> },
}

/// When a limit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// So many milliseconds after it was set.
    After(u64),
    /// At this moment, in Unix milliseconds.
    At(u64),
}

/// What a pause is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A stream of telemetry, which must have event hubs of its own.
    Stream(String),
    /// An event hub.
    EventHub(String),
}

/// Longest time that a limit lasts, in seconds: seven days.
pub(crate) const SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;
/// Longest name of a stream or an event hub, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Lowest and highest cap: below it not one common message would pass in a while.
const CAP_BYTES_PER_SECOND: (u64, u64) = (1000, 1_000_000_000);

/// The members of a JSON object in their order, repeated ones among them.
struct Members(Vec<(String, Value)>);

/// The members of a body, to be taken out one by one.
struct Body {
    known: &'static [&'static str],
    members: Vec<(String, Value)>,
}

// === impl Operation ===

impl Operation {
    /// Every name.
    pub(crate) const NAMES: [&str; 5] =
        ["health", "uplink.cap", "uplink.uncap", "stream.pause", "stream.resume"];

    /// Reads a message with this subject and body.
    ///
    /// # Errors
    ///
    /// A sentence that names what is wrong and what is expected.
    pub(crate) fn parse(name: Option<&str>, body: &[u8]) -> Result<Self, String> {
        match name {
            Some("health") => Body::read(body, &[]).map(|_| Self::Health),
            Some("uplink.cap") => {
                let mut body = Body::read(body, &["bytes_per_second", "for_seconds", "until"])?;
                let bytes_per_second = body.number("bytes_per_second", CAP_BYTES_PER_SECOND)?;
                let bytes_per_second = bytes_per_second
                    .ok_or_else(|| missing("bytes_per_second", &range(CAP_BYTES_PER_SECOND)))?;
                Ok(Self::Cap { bytes_per_second, end: body.end()? })
            }
            Some("uplink.uncap") => Body::read(body, &[]).map(|_| Self::Uncap),
            Some("stream.pause") => {
                let mut body = Body::read(body, &["stream", "event_hub", "for_seconds", "until"])?;
                let subject = body.subject()?.ok_or("one of stream and event_hub is required")?;
                Ok(Self::Pause { subject, end: body.end()? })
            }
            Some("stream.resume") => {
                let mut body = Body::read(body, &["stream", "event_hub"])?;
                Ok(Self::Resume { subject: body.subject()? })
            }
            None => Err(format!("no subject: it names the operation, one of {}", Self::NAMES.join(", "))),
            Some(other) => Err(format!(
                "the subject {} names no operation; it is one of {}",
                shown(&Value::from(other)),
                Self::NAMES.join(", ")
            )),
        }
    }

    /// Its name, which is the subject of its message and the label of a counter.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Health => Self::NAMES[0],
            Self::Cap { .. } => Self::NAMES[1],
            Self::Uncap => Self::NAMES[2],
            Self::Pause { .. } => Self::NAMES[3],
            Self::Resume { .. } => Self::NAMES[4],
        }
    }
}

// === impl Body ===

impl Body {
    fn read(body: &[u8], known: &'static [&'static str]) -> Result<Self, String> {
        if body.len() > BODY_BYTES_MAX {
            return Err(format!("the body has {} bytes; at most {BODY_BYTES_MAX}", body.len()));
        }
        let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
        let members = if text.trim_ascii().is_empty() {
            Vec::new()
        } else {
            let read: Result<Members, _> = serde_json::from_str(text);
            read.map_err(|error| format!("the body is not one JSON object: {error}"))?.0
        };
        for (place, (name, _)) in members.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!("unknown field {}; known here: {known}", shown(&Value::from(&**name))));
            }
            if members.iter().take(place).any(|(before, _)| before == name) {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self { known, members })
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        debug_assert!(self.known.contains(&name), "{name} is refused as unknown");
        let place = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.swap_remove(place).1)
    }

    fn number(&mut self, name: &'static str, bounds: (u64, u64)) -> Result<Option<u64>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| (bounds.0..=bounds.1).contains(number));
        number.map(Some).ok_or_else(|| wrong(name, &value, &range(bounds)))
    }

    fn end(&mut self) -> Result<End, String> {
        const EITHER: &str = "for_seconds or until is required, one of them";
        let seconds = self.number("for_seconds", (1, SECONDS_MAX))?;
        match (seconds, self.take("until")) {
            (Some(seconds), None) => Ok(End::After(seconds * 1000)),
            (None, Some(value)) => {
                let at = value.as_str().and_then(parse_time);
                at.map(End::At).ok_or_else(|| wrong("until", &value, "a time as 2026-11-21T14:30:00Z"))
            }
            (None, None) | (Some(_), Some(_)) => Err(EITHER.to_owned()),
        }
    }

    fn subject(&mut self) -> Result<Option<Subject>, String> {
        let (stream, event_hub) = (self.text("stream")?, self.text("event_hub")?);
        match (stream, event_hub) {
            (Some(_), Some(_)) => Err("one of stream and event_hub, not both".to_owned()),
            (stream, event_hub) => Ok(stream.map(Subject::Stream).or(event_hub.map(Subject::EventHub))),
        }
    }

    fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let fits =
            |text: &&str| (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
        let text = value.as_str().filter(fits).map(ToOwned::to_owned);
        text.map(Some).ok_or_else(|| {
            wrong(name, &value, &format!("a text of 1 to {NAME_BYTES_MAX} bytes without control characters"))
        })
    }
}

fn range((least, most): (u64, u64)) -> String {
    format!("a whole number from {least} to {most}")
}

fn missing(name: &str, expected: &str) -> String {
    format!("{name} is required: {expected}")
}

fn wrong(name: &str, value: &Value, expected: &str) -> String {
    format!("{name} is {}; it has to be {expected}", shown(value))
}

/// A value from outside, as a sentence can hold it.
fn shown(value: &Value) -> String {
    const BYTES_MAX: usize = 64;
    let text = value.to_string();
    match text.get(..text.floor_char_boundary(BYTES_MAX)) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text,
    }
}

// === impl Members ===

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(name: &str, body: &str, expected: Operation) {
        assert_eq!(Operation::parse(Some(name), body.as_bytes()), Ok(expected), "{name} {body}");
    }

    fn refused(name: &str, body: &str, expected: &str) {
        let found = Operation::parse(Some(name), body.as_bytes());
        assert!(matches!(&found, Err(why) if why.contains(expected)), "{name} {body}: {found:?}");
    }

    #[test]
    fn operations_are_read() {
        check("health", "", Operation::Health);
        check("health", " {} ", Operation::Health);
        let end = End::After(7_200_000);
        let cap = r#"{"bytes_per_second": 200000, "for_seconds": 7200}"#;
        check("uplink.cap", cap, Operation::Cap { bytes_per_second: 200_000, end });
        let until = r#"{"until": "2026-09-21T14:13:20Z", "bytes_per_second": 1000}"#;
        let end = End::At(1_790_000_000_000);
        check("uplink.cap", until, Operation::Cap { bytes_per_second: 1000, end });
        check("uplink.uncap", "{}", Operation::Uncap);
        let stream = || Subject::Stream("vibration".to_owned());
        let end = End::After(604_800_000);
        let pause = r#"{"stream":"vibration","for_seconds":604800}"#;
        check("stream.pause", pause, Operation::Pause { subject: stream(), end });
        let hub = Subject::EventHub("plant-7".to_owned());
        let pause = r#"{"event_hub":"plant-7","for_seconds":1}"#;
        check("stream.pause", pause, Operation::Pause { subject: hub, end: End::After(1000) });
        let resume = r#"{"stream":"vibration"}"#;
        check("stream.resume", resume, Operation::Resume { subject: Some(stream()) });
        check("stream.resume", "", Operation::Resume { subject: None });
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        refused("uplink.cap", "{}", "bytes_per_second is required: a whole number from 1000 to 1000000000");
        for (number, said) in [("999", "999"), ("1000000001", "1000000001"), ("-1", "-1"), ("2e3", "2000.0")]
        {
            let body = format!(r#"{{"bytes_per_second":{number},"for_seconds":1}}"#);
            refused("uplink.cap", &body, &format!("bytes_per_second is {said}; it has to be a whole number"));
        }
        let cap = |rest: &str| format!(r#"{{"bytes_per_second":5000{rest}}}"#);
        refused("uplink.cap", &cap(""), "for_seconds or until is required");
        refused("uplink.cap", &cap(r#","for_seconds":1,"until":"2026-09-21T14:13:20Z""#), "one of them");
        refused("uplink.cap", &cap(r#","for_seconds":0"#), "for_seconds is 0");
        refused("uplink.cap", &cap(r#","for_seconds":604801"#), "a whole number from 1 to 604800");
        refused("uplink.cap", &cap(r#","for_seconds":"7200""#), r#"for_seconds is "7200""#);
        refused("uplink.cap", &cap(r#","until":"tomorrow""#), r#"until is "tomorrow"; it has to be a time"#);
        refused(
            "uplink.cap",
            &cap(r#","for_second":1"#),
            r#"unknown field "for_second"; known here: bytes_per_second"#,
        );
        refused("stream.pause", r#"{"for_seconds":1}"#, "one of stream and event_hub is required");
        refused("stream.pause", r#"{"stream":"a","event_hub":"b","for_seconds":1}"#, "not both");
        refused("stream.pause", r#"{"stream":"","for_seconds":1}"#, "stream is \"\"");
        refused("stream.pause", r#"{"stream":"a\u0000","for_seconds":1}"#, "without control characters");
        refused("stream.resume", r#"{"all":true}"#, "unknown field \"all\"");
        refused("health", r#"{"a":1}"#, "known here: none");
    }

    #[test]
    fn hostile_bodies_are_refused() {
        refused(
            "uplink.cap",
            r#"{"bytes_per_second":1000,"bytes_per_second":900000,"for_seconds":1}"#,
            "twice",
        );
        for body in ["[]", "null", "1", "\"a\"", "{", "{}{}", "{\"a\":1e999}", "{'a':1}", "// {}"] {
            refused("health", body, "the body is not one JSON object");
        }
        refused("health", &format!("{}{}", "[".repeat(2000), "]".repeat(2000)), "not one JSON object");
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
        refused("health", &deep, "not one JSON object");
        refused("health", &" ".repeat(BODY_BYTES_MAX + 1), "the body has 4097 bytes; at most 4096");
        assert!(Operation::parse(Some("health"), &[0xff]).is_err_and(|why| why.contains("UTF-8")));
        refused(
            "reboot",
            "{}",
            r#"the subject "reboot" names no operation; it is one of health, uplink.cap"#,
        );
        refused("Health", "{}", "names no operation");
        assert!(Operation::parse(None, b"").is_err_and(|why| why.contains("no subject")));
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(3000));
        let why = Operation::parse(Some("health"), long.as_bytes()).expect_err("unknown");
        assert!(why.len() < 200, "{why}");
    }

    proptest! {
        #[test]
        fn no_body_panics_and_no_sentence_is_long(
            name in "health|uplink.cap|uplink.uncap|stream.pause|stream.resume|\\PC{0,9}",
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Err(why) = Operation::parse(Some(&name), &body) {
                prop_assert!(why.len() < 400 && !why.contains('\0'), "{}", why);
            }
        }
    }
}
