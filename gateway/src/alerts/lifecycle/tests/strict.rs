//! Whether an event is a CloudEvent 1.0 in JSON with the limits of Event Grid: our own checks, since no model of the format
//! rejects every bad event.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::alerts::lifecycle::ident::is_traceparent;

/// Bytes that an event may have at most.
pub(super) const BYTES_MAX: usize = 60 << 10;

const KNOWN: [&str; 18] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "gatewayid",
    "deviceid",
    "tenant",
    "ruleid",
    "correlationid",
    "traceparent",
    "tracestate",
    "sequence",
    "severity",
    "data",
    "dataschema",
];

/// The event, which is valid.
#[track_caller]
pub(super) fn check(device: &str, bytes: &[u8]) -> Value {
    assert!(bytes.len() <= BYTES_MAX, "{} bytes", bytes.len());
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let event: Value = serde_json::from_str(text).expect("JSON");
    let object = event.as_object().expect("an object");
    assert!(!device.is_empty() && device.len() < 1000);
    for (name, value) in object {
        assert!(KNOWN.contains(&name.as_str()), "{name}");
        assert!(
            name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
        if name != "data" {
            let value = value.as_str().unwrap_or_else(|| panic!("{name} is no text"));
            assert!(!value.is_empty(), "{name} is empty");
            assert!(!value.chars().any(forbidden), "{name} holds what an attribute cannot: {value:?}");
        }
    }
    let attribute =
        |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(attribute("specversion"), "1.0");
    assert_eq!(attribute("datacontenttype"), "application/json");
    assert_eq!(attribute("gatewayid"), "site-7");
    assert_eq!(attribute("source"), "/gateways/site-7");
    assert!(attribute("subject").bytes().all(is_uri), "{}", attribute("subject"));
    OffsetDateTime::parse(attribute("time"), &Rfc3339).expect("a time");
    assert!(["info", "warning", "critical"].contains(&attribute("severity")));
    if let Some(traceparent) = object.get("traceparent") {
        assert!(traceparent.as_str().is_some_and(is_traceparent));
    }
    check_names(&event, attribute("id"), attribute("correlationid"), attribute("sequence"));
    event
}

fn check_names(event: &Value, id: &str, correlation: &str, sequence: &str) {
    let data = event["data"].as_object().expect("data is an object");
    let state = data["state"].as_str().expect("a state");
    let storm = event["type"] == "io.penstock.alert.storm.v1";
    let prefix = if storm { "s1-" } else { "a1-" };
    let digits = correlation.strip_prefix(prefix).expect("the id of an alert or a storm");
    assert!(digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    assert_eq!(data["alertId"], correlation);
    assert_eq!(id, format!("{correlation}:{}", data["transition"]));
    assert_eq!(sequence, format!("{:020}", data["transition"].as_u64().expect("a number")));
    if !storm {
        assert_eq!(event["type"], format!("io.penstock.alert.{state}.v1"));
    }
    assert_eq!(state == "resolved", data.contains_key("endedAt"));
    assert_eq!(event["severity"], data["severity"]);
}

/// What the CloudEvents specification forbids in text: control characters and what is no character.
fn forbidden(c: char) -> bool {
    c.is_control() || u32::from(c) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c)
}

fn is_uri(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte)
}

#[test]
#[should_panic(expected = "holds what an attribute cannot")]
fn a_control_character_in_an_attribute_is_found() {
    check("d", br#"{"specversion":"1.0","id":"a\u0001b","data":{}}"#);
}
