//! CloudEvents 1.0, judged strictly: the attributes of the specification and its JSON format. Where the specification
//! says SHOULD, an event that does not is refused too, since a publisher of ours has no reason for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::timestamp;

/// Longest name of an attribute: SHOULD in the specification.
const NAME_MAX: usize = 20;

/// The members of a JSON object in their order, those that are there twice included.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Members(pub(crate) Vec<(String, Value)>);

impl Members {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// As JSON, to be kept.
    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an event, which is a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Reads an event and says what is wrong with it.
#[cfg(any(test, fuzzing))]
pub(crate) fn judge(bytes: &[u8]) -> Result<Members, String> {
    let event: Members = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check(&event).map(|()| event)
}

/// What is wrong with an event.
pub(super) fn check(event: &Members) -> Result<(), String> {
    let mut names: Vec<&str> = event.0.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.array_windows().find(|[one, next]| one == next) {
        return Err(format!("property '{name}' is there twice"));
    }
    for name in ["id", "source", "type", "specversion"] {
        if event.get(name).is_none_or(Value::is_null) {
            return Err(format!("Required property '{name}' was not found"));
        }
    }
    for (name, value) in &event.0 {
        member(name, value).map_err(|reason| format!("property '{name}' {reason}"))?;
    }
    let some = |name| event.get(name).is_some_and(|value| !value.is_null());
    if some("data") && some("data_base64") {
        return Err("both 'data' and 'data_base64' are there".to_owned());
    }
    Ok(())
}

fn member(name: &str, value: &Value) -> Result<(), &'static str> {
    if name == "data" {
        return Ok(());
    }
    if name == "data_base64" {
        let bytes = value.as_str().is_some_and(|text| STANDARD.decode(text).is_ok());
        return if bytes || value.is_null() { Ok(()) } else { Err("is not Base64") };
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(plain) {
        return Err("has a name of other characters than a to z and 0 to 9");
    }
    if name.len() > NAME_MAX {
        return Err("has a name longer than 20 characters");
    }
    match value {
        // Not set.
        Value::Null => Ok(()),
        Value::String(text) => attribute(name, text),
        Value::Bool(_) | Value::Number(_) if is_known(name) => Err("is not text"),
        Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            if fits { Ok(()) } else { Err("is not a whole number of 32 bits") }
        }
        Value::Array(_) | Value::Object(_) => Err("is neither text nor a number nor a Boolean"),
    }
}

fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 8] =
        ["id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"];
    KNOWN.contains(&name)
}

fn attribute(name: &str, text: &str) -> Result<(), &'static str> {
    if text.chars().any(is_forbidden) {
        return Err("has a control character or a noncharacter");
    }
    if is_known(name) && text.is_empty() {
        return Err("is empty");
    }
    let (right, wrong) = match name {
        "specversion" => (text == "1.0", "is not 1.0"),
        "source" => (is_uri_reference(text), "is not a URI reference"),
        "dataschema" => (is_uri_reference(text) && scheme(text).is_some(), "is not an absolute URI"),
        "time" => (timestamp::rfc3339(text).is_some(), "is not a time of RFC 3339"),
        "datacontenttype" => (is_media_type(text), "is not a media type"),
        _ => (true, ""),
    };
    if right { Ok(()) } else { Err(wrong) }
}

/// What the type String must not have. Surrogates are no `char`.
fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

/// The scheme of an absolute URI.
pub(super) fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
    (begins && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))).then_some(scheme)
}

/// RFC 3986: the characters, the percent-encoding, and where a colon, a number sign and brackets may stand.
fn is_uri_reference(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(hex(bytes.next()) && hex(bytes.next())) {
            return false;
        }
        if !(byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)) {
            return false;
        }
    }
    if text.matches('#').count() > 1 {
        return false;
    }
    let rest = scheme(text).map_or(text, |scheme| text.get(scheme.len() + 1..).unwrap_or_default());
    let relative = rest.len() == text.len();
    let before_query = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = match before_query.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", before_query),
    };
    // The first segment of a relative path has no colon, or it would be a scheme.
    let first = path.split('/').next().unwrap_or_default();
    let brackets = |text: &str| text.contains(['[', ']']);
    let tail = rest.get(before_query.len()..).unwrap_or_default();
    let begins_well = !relative || !first.contains(':');
    begins_well && !brackets(path) && !brackets(tail) && has_brackets_for_an_address(authority)
}

fn has_brackets_for_an_address(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(address, port)| {
            !address.is_empty() && !address.contains('[') && !port.contains(['[', ']'])
        }),
        None => !authority.contains(['[', ']']),
    }
}

/// RFC 2045: `type/subtype` and perhaps parameters.
fn is_media_type(text: &str) -> bool {
    let token = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    };
    let mut parts = text.split(';');
    let kind = parts.next().and_then(|kind| kind.trim().split_once('/'));
    let parameter = |part: &str| {
        part.trim().split_once('=').is_some_and(|(name, value)| {
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            token(name) && (quoted.is_some() || token(value))
        })
    };
    kind.is_some_and(|(kind, subtype)| token(kind) && token(subtype)) && parts.all(parameter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    use super::{is_uri_reference, judge};

    fn good() -> Value {
        json!({
            "specversion": "1.0", "id": "a1-9f3c:2", "source": "/gateways/gw01", "type": "io.penstock.alert.raised.v1",
            "subject": "devices/dev-42", "time": "2026-11-20T21:00:00.123Z", "datacontenttype": "application/json",
            "dataschema": "urn:penstock:alert:1", "severity": "warning", "severitynumber": 13, "test": true,
            "data": {"state": "raised"}
        })
    }

    #[test]
    fn a_whole_event_is_good() {
        let event = judge(good().to_string().as_bytes()).unwrap();
        assert_eq!(event.text("id"), Some("a1-9f3c:2"));
        assert_eq!(event.into_value(), good());
    }

    /// The good event with one member changed, or without it.
    fn check(name: &str, value: Value, expected: Result<(), &str>) {
        let mut event = good();
        event[name] = value;
        let said = judge(event.to_string().as_bytes()).map(drop);
        match (said, expected) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err(expected)) if said.contains(expected) && said.contains(name) => {}
            (said, _) => panic!("{}: {said:?}, not {expected:?}", event[name]),
        }
    }

    #[test]
    fn required_attributes_must_be_there() {
        for name in ["id", "source", "type", "specversion"] {
            let mut event = good();
            event.as_object_mut().unwrap().remove(name);
            let said = judge(event.to_string().as_bytes()).unwrap_err();
            assert_eq!(said, format!("Required property '{name}' was not found"));
            check(name, Value::Null, Err("Required"));
            check(name, json!(""), Err("empty"));
            check(name, json!(7), Err("not text"));
        }
        check("specversion", json!("0.3"), Err("not 1.0"));
    }

    #[test]
    fn attributes_have_their_types() {
        check("subject", json!(""), Err("empty"));
        check("subject", Value::Null, Ok(()));
        check("subject", json!("a\u{7}"), Err("control"));
        check("subject", json!("a\u{fffe}"), Err("noncharacter"));
        check("time", json!("yesterday"), Err("RFC 3339"));
        check("time", json!("2026-11-20T21:00:00+01:00"), Ok(()));
        check("source", json!("a b"), Err("URI"));
        check("source", json!("urn:penstock:gw"), Ok(()));
        check("dataschema", json!("/relative"), Err("absolute"));
        check("datacontenttype", json!("json"), Err("media type"));
        check("datacontenttype", json!("text/plain; charset=\"utf-8\""), Ok(()));
        check("datacontenttype", json!("text/plain; charset"), Err("media type"));
    }

    #[test]
    fn extensions_are_short_lower_case_and_flat() {
        check("TraceParent", json!("x"), Err("name of other characters"));
        check("trace_parent", json!("x"), Err("name of other characters"));
        check("abcdefghijklmnopqrstu", json!("x"), Err("longer than 20"));
        check("abcdefghijklmnopqrst", json!("x"), Ok(()));
        check("origin", json!({"a": 1}), Err("neither"));
        check("origin", json!([1]), Err("neither"));
        check("score", json!(0.5), Err("whole number"));
        check("score", json!(2_147_483_648_u64), Err("whole number"));
        check("score", json!(-2_147_483_648), Ok(()));
    }

    #[test]
    fn data_comes_in_one_way() {
        check("data_base64", json!("AAA="), Err("both"));
        let mut event = good();
        event.as_object_mut().unwrap().remove("data");
        event["data_base64"] = json!("AAA=");
        judge(event.to_string().as_bytes()).unwrap();
        event["data_base64"] = json!("AAA");
        assert!(judge(event.to_string().as_bytes()).unwrap_err().contains("not Base64"));
        check("data", json!("text"), Ok(()));
    }

    #[test]
    fn nothing_is_there_twice() {
        let text = good().to_string().replacen('{', "{\"id\":\"other\",", 1);
        assert_eq!(judge(text.as_bytes()).unwrap_err(), "property 'id' is there twice");
        assert!(judge(b"[]").is_err() && judge(b"{").is_err() && judge(b"").is_err());
    }

    #[test]
    fn uri_references_are_those_of_rfc_3986() {
        for right in
            ["/a", "a/b:c", "http://h/p?q=/?#f", "urn:a:b", "//[::1]:80/x", "a%20b", "?q", "#f", "mailto:a@b"]
        {
            assert!(is_uri_reference(right), "{right}");
        }
        for wrong in [
            "a b",
            "1:b",
            "a%2",
            "a%zz",
            "<a>",
            "a#b#c",
            "http://h/[",
            "//[::1",
            "//[]/",
            "é",
            "a\\b",
            "?[a]",
        ] {
            assert!(!is_uri_reference(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,40}") {
            drop(judge(&bytes));
            is_uri_reference(&text);
            for name in ["source", "time", "dataschema", "datacontenttype"] {
                let mut event = good();
                event[name] = json!(text);
                drop(judge(event.to_string().as_bytes()));
            }
        }
    }
}
