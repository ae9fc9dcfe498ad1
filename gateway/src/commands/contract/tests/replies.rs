use std::time::Duration;

use serde_json::Value as Json;

use super::{ENQUEUED_MS, answer, property, received};
use crate::commands::contract::{
    Command, Completion, Defaults, Ending, Outcome, Phase, Record, Reply, StatusEvent, Voice,
};
use crate::commands::message::{Outgoing, Received, Value};

const HOUR: Duration = Duration::from_secs(3600);

fn voice() -> Voice {
    Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() }
}

fn asking() -> Received {
    Received {
        reply_to: Some("replies".to_owned()),
        reply_to_session_id: Some("desk-3".to_owned()),
        ..received()
    }
}

/// The reply to a message whose command ended like this, and the final event beside it.
fn reply(received: &Received, outcome: &Outcome) -> Option<(Outgoing, Json)> {
    let defaults = Defaults { completion: Completion::Answered, tenant: None };
    let about = Command::read(received, "commands", &defaults).expect("a command").about;
    let ending =
        about.reply_to.as_ref().map(|_| Box::new(Ending { outcome: outcome.clone(), redelivered: true }));
    let record = Record {
        identity: about.identity.clone(),
        completion: Completion::Answered,
        phase: Phase::Done(outcome.disposition()),
        at_ms: ENQUEUED_MS + 1500,
        ending,
    };
    // What is sent after a restart comes from the disk.
    let record = Record::decode(&record.encode()).expect("it is one");
    let reply = Reply::new(&about, &record)?;
    let event =
        StatusEvent { about: &about, outcome, is_final: true, redelivered: true, now_ms: record.at_ms };
    let event = serde_json::from_slice(&event.json(&voice())).expect("JSON");
    Some((reply.message(&voice(), HOUR), event))
}

fn id(received: &Received) -> String {
    reply(received, &Outcome::delivered()).and_then(|(message, _)| message.message_id).expect("it has an id")
}

#[test]
fn a_reply_is_the_final_event_in_binary_mode() {
    let traced = Received {
        properties: vec![property("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
        ..asking()
    };
    let answered = answer(r#"{"status":"succeeded","code":7,"detail":{"volts":12.5}}"#).outcome();
    for outcome in [answered, Outcome::no_answer(), Outcome::refused(0x87), Outcome::malformed("no")] {
        let (message, event) = reply(&traced, &outcome).expect("asked for");
        assert_eq!(message.subject.as_deref(), event["data"]["status"].as_str());
        assert_eq!(message.correlation_id.as_deref(), Some("c-1"), "the request's message id");
        assert_eq!(message.session_id.as_deref(), Some("desk-3"));
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert_eq!((message.time_to_live, message.reply_to), (Some(HOUR), None));
        assert_eq!(serde_json::from_slice::<Json>(&message.body).expect("JSON"), event["data"]);
        let said = |name: &str| {
            let found = message.properties.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let attributes = event.as_object().expect("an object").iter();
        let attributes: Vec<_> =
            attributes.filter(|(name, _)| !matches!(name.as_str(), "data" | "datacontenttype")).collect();
        for (name, value) in &attributes {
            let value = Value::Text(value.as_str().expect("text").to_owned());
            assert_eq!(said(&format!("cloudEvents:{name}")), Some(value), "{name}");
        }
        assert_eq!(said("Diagnostic-Id"), said("cloudEvents:traceparent"));
        assert_eq!(message.properties.len(), attributes.len() + 1);
    }
}

#[test]
fn nobody_gets_a_reply_who_did_not_ask() {
    assert!(reply(&received(), &Outcome::delivered()).is_none());
}

#[test]
fn a_request_without_a_message_id_is_known_by_its_sequence_number() {
    let (message, _) =
        reply(&Received { message_id: None, ..asking() }, &Outcome::delivered()).expect("asked for");
    assert_eq!(message.correlation_id.as_deref(), Some("42"));
}

#[test]
fn the_id_of_a_reply_follows_from_the_command_alone() {
    let first = id(&asking());
    assert_eq!(first, "42-1790000000000-77dd3bc3ba47778ead5b429039e7ba61", "it never changes");
    assert_eq!(id(&Received { delivery_count: 3, reply_to: Some("others".to_owned()), ..asking() }), first);
    let others = [
        Received { sequence: 43, ..asking() },
        Received { enqueued_ms: ENQUEUED_MS + 1, ..asking() },
        Received { message_id: Some("c-2".to_owned()), ..asking() },
        Received { message_id: None, ..asking() },
    ];
    for other in others {
        assert_ne!(id(&other), first, "{other:?}");
    }
    let long = Received { sequence: i64::MIN, message_id: Some("x".repeat(128)), ..asking() };
    assert!(id(&long).len() <= 128);
}
