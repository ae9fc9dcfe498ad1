use penstock_proto::Lane;
use serde_json::{Value, json};

use super::{ENQUEUED_MS, answer, property, received};
use crate::commands::contract::{About, Command, Completion, Defaults, Outcome, StatusEvent, Voice};
use crate::outbox::Encoded;

fn voice() -> Voice {
    Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() }
}

fn about(rich: bool) -> About {
    let mut message = received();
    if rich {
        message.message_id = Some("order 5/7".to_owned());
        message.subject = Some("open".to_owned());
        message.delivery_count = 2;
        message.correlation_id = Some("r-9".to_owned());
        message.reply_to = Some("replies".to_owned());
        message.reply_to_session_id = Some("desk-3".to_owned());
        message.properties = vec![
            property("penstock-origin", "site-7/00c0ffee12345678/3/2/1041"),
            property("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            property("tracestate", "k=v"),
        ];
    }
    let defaults = Defaults { completion: Completion::Answered, tenant: rich.then_some("acme") };
    Command::read(&message, "commands", &defaults).expect("a command").about
}

fn event(about: &About, outcome: &Outcome, is_final: bool) -> Value {
    let now_ms = ENQUEUED_MS + 1500;
    let event = StatusEvent { about, outcome, is_final, redelivered: is_final, now_ms };
    let mut entries = Encoded::default();
    event.push(&voice(), &mut entries);
    let entries = entries.payloads(Lane::Status);
    let [(device, payload)] = &entries[..] else { panic!("{} entries", entries.len()) };
    assert_eq!((device.as_str(), payload), (&*about.device, &event.json(&voice())));
    let value = serde_json::from_slice(payload).expect("JSON");
    check_cloud_event(&value);
    value
}

/// The rules of CloudEvents 1.0 for attributes (section 3 of the specification, section 3 of the JSON format).
fn check_cloud_event(event: &Value) {
    let members = event.as_object().expect("an object");
    for required in ["specversion", "id", "source", "type"] {
        assert!(members.contains_key(required), "{required} is missing: {event}");
    }
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["datacontenttype"], "application/json");
    for (name, value) in members.iter().filter(|(name, _)| *name != "data") {
        assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')), "{name}");
        assert!((1..=20).contains(&name.len()), "{name}");
        let text = value.as_str().unwrap_or_else(|| panic!("{name} is no text"));
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{name} {text:?}");
    }
    let time = event["time"].as_str().expect("a time");
    assert!(penstock_proto::text::parse_time_ms(time).is_some(), "{time}");
}

#[test]
fn an_answered_command_is_told_with_everything() {
    let outcome = answer(r#"{"status":"succeeded","code":0,"detail":{"volts":12.5}}"#).outcome();
    assert_eq!(
        event(&about(true), &outcome, true),
        json!({
            "specversion": "1.0",
            "id": "order%205%2F7/42-1790000000000/final",
            "source": "/gateways/site-7",
            "type": "io.penstock.command.succeeded.v1",
            "subject": "press-7",
            "time": "2026-09-21T14:13:21.5Z",
            "datacontenttype": "application/json",
            "gatewayid": "site-7",
            "deviceid": "press-7",
            "tenant": "acme",
            "correlationid": "order 5/7",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tracestate": "k=v",
            "sequence": "00000000000000000042.2",
            "severity": "info",
            "data": {
                "commandId": "order%205%2F7",
                "messageId": "order 5/7",
                "name": "open",
                "device": "press-7",
                "status": "succeeded",
                "final": true,
                "code": 0,
                "detail": {"volts": 12.5},
                "entity": "commands",
                "sequence": 42,
                "deliveryCount": 2,
                "redelivered": true,
                "enqueuedTime": "2026-09-21T14:13:20Z",
                "origin": "site-7/00c0ffee12345678/3/2/1041",
                "correlationId": "r-9",
                "replyTo": "replies",
                "replyToSessionId": "desk-3",
            },
        })
    );
}

#[test]
fn what_is_not_known_is_not_there() {
    assert_eq!(
        event(&about(false), &Outcome::delivered(), false),
        json!({
            "specversion": "1.0",
            "id": "c-1/42-1790000000000/delivered",
            "source": "/gateways/site-7",
            "type": "io.penstock.command.delivered.v1",
            "subject": "press-7",
            "time": "2026-09-21T14:13:21.5Z",
            "datacontenttype": "application/json",
            "gatewayid": "site-7",
            "deviceid": "press-7",
            "correlationid": "c-1",
            "sequence": "00000000000000000042.1",
            "severity": "info",
            "data": {
                "commandId": "c-1",
                "messageId": "c-1",
                "device": "press-7",
                "status": "delivered",
                "final": false,
                "entity": "commands",
                "sequence": 42,
                "deliveryCount": 0,
                "redelivered": false,
                "enqueuedTime": "2026-09-21T14:13:20Z",
            },
        })
    );
}

#[test]
fn every_outcome_has_its_words() {
    let about = about(false);
    let check = |outcome: &Outcome, status: &str, reason: Value, code: Value, detail: Value| {
        let event = event(&about, outcome, true);
        assert_eq!(event["type"], format!("io.penstock.command.{status}.v1"));
        let data = &event["data"];
        assert_eq!((&data["status"], &data["reason"], &data["code"]), (&json!(status), &reason, &code));
        assert_eq!(data["detail"], detail);
        let severity = if ["delivered", "succeeded"].contains(&status) { "info" } else { "warning" };
        assert_eq!(event["severity"], severity);
    };
    let null = Value::Null;
    check(&Outcome::delivered(), "delivered", null.clone(), null.clone(), null.clone());
    let failed = answer(r#"{"status":"failed","code":-3,"detail":"no power"}"#).outcome();
    check(&failed, "failed", null.clone(), json!(-3), json!("no power"));
    let rejected = answer(r#"{"status":"rejected"}"#).outcome();
    check(&rejected, "rejected", null.clone(), null.clone(), null.clone());
    let silent = "the device has not answered by the deadline";
    check(&Outcome::no_answer(), "failed", json!("no-answer"), null.clone(), json!(silent));
    let refused = "the device refused it with reason code 0x87";
    check(&Outcome::refused(0x87), "rejected", json!("refused"), json!(0x87), json!(refused));
    check(&Outcome::malformed("no body"), "rejected", json!("malformed"), null.clone(), json!("no body"));
    let large = "300 bytes, where the device takes at most 256";
    check(&Outcome::too_large(300, 256), "rejected", json!("too-large"), null.clone(), json!(large));
    let late = "its deadline or time to live passed before it was delivered";
    check(&Outcome::expired(), "expired", json!("expired"), null, json!(late));
}

#[test]
fn a_detail_that_was_left_out_says_how_long_it_was() {
    let long = format!(r#"{{"status":"succeeded","detail":"{}"}}"#, "x".repeat(5000));
    let event = event(&about(false), &answer(&long).outcome(), true);
    assert_eq!((&event["data"]["detail"], &event["data"]["detailBytes"]), (&Value::Null, &json!(5002)));
}

/// What senders write freely cannot make an event invalid.
#[test]
fn attributes_hold_nothing_that_they_cannot() {
    let mut message = received();
    message.message_id = Some("a\u{1}b".to_owned());
    message.correlation_id = Some("\u{ffff}".to_owned());
    message.session_id = Some("de\u{7}vice".to_owned());
    let defaults = Defaults { completion: Completion::Delivered, tenant: Some("") };
    let about = match Command::read(&message, "commands", &defaults) {
        Ok(command) => command.about,
        Err(poison) => poison.about,
    };
    let event = event(&about, &Outcome::delivered(), true);
    for absent in ["correlationid", "subject", "deviceid", "tenant"] {
        assert!(event.get(absent).is_none(), "{absent}");
    }
    assert_eq!(event["data"]["messageId"], "a\u{1}b");
}
