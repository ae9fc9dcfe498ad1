//! What kind of payload a message has: by its content type, then by its topic, then by its first byte.

use super::counts::{Form, Untouched};
use super::sparkplug::NAMESPACE;
use super::telemetry;

/// Decides without looking further into the payload than its first byte. `wants_scalar` says whether a rule wants a
/// payload that is nothing but a number.
pub(super) fn of(
    topic: &str,
    content_type: Option<&str>,
    payload: &[u8],
    wants_scalar: bool,
) -> Result<Form, Untouched> {
    let is_sparkplug = topic.strip_prefix(NAMESPACE).is_some_and(|rest| rest.starts_with('/'));
    match content_type.map(str::trim).filter(|text| !text.is_empty()) {
        Some(content_type) => match by_content_type(content_type) {
            Err(_) if is_sparkplug => Ok(Form::Sparkplug),
            decided => decided,
        },
        None if is_sparkplug => Ok(Form::Sparkplug),
        None => by_first_byte(payload, wants_scalar),
    }
}

/// Media types are compared without regard to case (RFC 2045 5.1).
fn by_content_type(content_type: &str) -> Result<Form, Untouched> {
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let media_type = media_type.trim();
    let is = |name: &str| media_type.eq_ignore_ascii_case(name);
    if is("application/json") || is("text/json") || ends_with(media_type, "+json") {
        return Ok(Form::Json);
    }
    if is("application/x-protobuf") || is("application/protobuf") {
        let named = message(parameters) == Some(telemetry::MESSAGE);
        return if named { Ok(Form::Telemetry) } else { Err(Untouched::OtherMessage) };
    }
    Err(Untouched::ContentType)
}

fn ends_with(text: &str, end: &str) -> bool {
    let start = text.len().saturating_sub(end.len());
    text.get(start..).is_some_and(|found| found.eq_ignore_ascii_case(end))
}

/// The value of the parameter `messageType`.
fn message(parameters: &str) -> Option<&str> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        Some(value).filter(|_| name.trim().eq_ignore_ascii_case("messageType"))
    })
}

fn by_first_byte(payload: &[u8], wants_scalar: bool) -> Result<Form, Untouched> {
    let white_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    match payload.iter().find(|byte| !white_space(byte)) {
        Some(b'{' | b'[') => Ok(Form::Json),
        Some(b'-' | b'0'..=b'9') if wants_scalar => Ok(Form::Json),
        // A byte order mark is refused as JSON, and not passed over as something else, if JSON follows.
        Some(0xef) if payload.starts_with(b"\xef\xbb\xbf{") || payload.starts_with(b"\xef\xbb\xbf[") => {
            Ok(Form::Json)
        }
        _ => Err(Untouched::NotRecognised),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(topic: &str, content_type: Option<&str>, payload: &[u8], expected: Result<Form, Untouched>) {
        assert_eq!(of(topic, content_type, payload, true), expected, "{topic} {content_type:?} {payload:?}");
    }

    #[test]
    fn the_content_type_decides_before_everything_else() {
        for text in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "application/senml+json",
            "application/cloudevents+JSON;charset=utf-8",
        ] {
            check("spBv1.0/g/NDATA/n", Some(text), b"\x08", Ok(Form::Json));
        }
        for text in [
            "application/x-protobuf; messageType=\"penstock.v1.Reading\"",
            "application/protobuf;charset=x; messagetype=penstock.v1.Reading",
            "APPLICATION/X-PROTOBUF;MessageType=penstock.v1.Reading ",
        ] {
            check("d/p", Some(text), b"{", Ok(Form::Telemetry));
        }
        for text in [
            "application/x-protobuf",
            "application/x-protobuf; messageType=\"penstock.v1.Other\"",
            "application/protobuf; messageType",
            "application/protobuf; messageType=\"penstock.v1.Reading",
            "application/protobuf; type=penstock.v1.Reading",
        ] {
            check("d/p", Some(text), b"{", Err(Untouched::OtherMessage));
        }
        for text in [
            "text/plain",
            "application/octet-stream",
            "json",
            "application/jsonl",
            "+jso",
            ";",
            "image/é+json_",
        ] {
            check("d/p", Some(text), b"{}", Err(Untouched::ContentType));
        }
    }

    #[test]
    fn sparkplug_is_known_by_its_topic() {
        check("spBv1.0/g/NDATA/n", None, b"{", Ok(Form::Sparkplug));
        check("spBv1.0/g/NDATA/n", Some(""), b"", Ok(Form::Sparkplug));
        check("spBv1.0/g/NDATA/n", Some("application/octet-stream"), b"", Ok(Form::Sparkplug));
        check("spBv1.0/g/NDATA/n", Some("application/x-protobuf"), b"", Ok(Form::Sparkplug));
        check("spBv1.0", None, b"\x08", Err(Untouched::NotRecognised));
        check("spBv1.00/g/NDATA/n", None, b"\x08", Err(Untouched::NotRecognised));
        check("a/spBv1.0/g/NDATA/n", None, b"{", Ok(Form::Json));
    }

    #[test]
    fn json_is_known_by_its_first_byte() {
        for payload in ["{", " \r\n\t[", "-1", "0", "21.5 C", "\u{feff}{}", "\u{feff}["] {
            check("d/p", None, payload.as_bytes(), Ok(Form::Json));
            check("d/p", Some("  "), payload.as_bytes(), Ok(Form::Json));
        }
        for payload in ["", " ", "true", "null", "\"a\"", "<a/>", "\u{feff}", "\u{feff}1", "\0", "+1"] {
            check("d/p", None, payload.as_bytes(), Err(Untouched::NotRecognised));
        }
    }

    #[test]
    fn a_number_alone_is_looked_at_only_where_it_is_wanted() {
        assert_eq!(of("d/p", None, b"21.5", true), Ok(Form::Json));
        assert_eq!(of("d/p", None, b"21.5", false), Err(Untouched::NotRecognised));
        assert_eq!(of("d/p", None, b"{}", false), Ok(Form::Json));
        assert_eq!(of("d/p", Some("application/json"), b"21.5", false), Ok(Form::Json));
    }
}
