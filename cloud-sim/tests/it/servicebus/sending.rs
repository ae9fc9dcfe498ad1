//! What is sent: many, in order, whole, as it was.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::azure_clients::Library;

use super::{Sim, accept, accept_next, bodies, commands, drain, each, nothing, one, order, queue, send};

const SESSIONS: usize = 10;
const EACH: usize = 100;

#[test]
fn a_thousand_messages_over_ten_sessions_arrive_once_and_in_order() {
    for library in Library::installed(&Library::ALL) {
        let sim = Sim::start(&commands(&json!({})));
        let mut client = sim.client(library);
        let message = |place: usize| {
            let session = format!("pump-{}", place % SESSIONS);
            json!({ "session": session, "body": (place / SESSIONS).to_string() })
        };
        let messages: Vec<Value> = (0..SESSIONS * EACH).map(message).collect();
        let sent =
            client.ok(json!({ "do": "send", "entity": "commands", "messages": messages, "batch": true }));
        assert!(sent["batches"].as_u64().is_some_and(|batches| batches >= 1), "{sent}");

        // Half by their ids, the others as they come.
        let mut found = BTreeMap::new();
        for place in 0..SESSIONS {
            let session = if place < SESSIONS / 2 {
                let session = format!("pump-{place}");
                let accepted = accept(&mut client, "it", "commands", &session);
                assert_eq!(accepted["session"], session.as_str(), "{library:?}");
                session
            } else {
                accept_next(&mut client, "it", "commands")
            };
            found.insert(session, drain(&mut client, "it", EACH));
            nothing(&mut client, "it");
            client.ok(order("close", "it"));
        }
        let expected: Vec<String> = (0..EACH).map(|number| number.to_string()).collect();
        assert_eq!(found.len(), SESSIONS, "{library:?}");
        for (session, messages) in &found {
            assert_eq!(bodies(messages), expected, "{library:?} {session}");
            assert!(messages.iter().all(|message| message["session"] == session.as_str()), "{library:?}");
            let numbers: Vec<i64> =
                messages.iter().filter_map(|message| message["sequence"].as_i64()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{library:?} {session}: {numbers:?}");
        }
    }
}

#[test]
fn a_message_arrives_as_it_was_sent() {
    let sent = json!({
        "session": "pump-7", "id": "order-1", "body": "{\"speed\": 7}", "subject": "set-speed",
        "content_type": "application/json", "correlation": "c-9", "to": "somewhere",
        "reply_to": "answers", "reply_to_session": "backend-3", "ttl_ms": 3_600_000,
        "properties": { "penstock-completion": "answered", "priority": 3, "urgent": true, "weight": 1.5 },
    });
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        client.ok(json!({ "do": "send", "entity": "commands", "messages": [sent] }));
        accept(&mut client, "it", "commands", "pump-7");
        let message = one(&mut client, "it");
        for name in [
            "session",
            "id",
            "body",
            "subject",
            "content_type",
            "correlation",
            "to",
            "reply_to",
            "reply_to_session",
            "properties",
        ] {
            assert_eq!(message[name], sent[name], "{library:?}: {name} of {message}");
        }
        assert_eq!((&message["sequence"], &message["delivery_count"]), (&json!(1), &json!(0)), "{library:?}");
        assert_eq!(message["state"], "active", "{library:?}");
        let time = |name: &str| message[name].as_i64().unwrap();
        assert_eq!(time("expires_ms") - time("enqueued_ms"), 3_600_000, "{library:?}: {message}");
    });
}

#[test]
fn a_large_message_arrives_whole() {
    const SIZE: usize = 700_000;
    // What both scripts send for a size.
    let first: Vec<usize> = (0..3).map(|place| place * 31 % 251).collect();
    assert_eq!(first, [0, 31, 62]);
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        let messages = json!([{ "session": "pump-7", "size": SIZE }, { "session": "pump-7", "size": 1_000 }]);
        client.ok(json!({ "do": "send", "entity": "commands", "messages": messages }));
        accept(&mut client, "it", "commands", "pump-7");
        let messages = drain(&mut client, "it", 2);
        assert_eq!(messages[0]["size"], SIZE, "{library:?}");
        // SHA-256 of the pattern, computed beside these tests.
        assert_eq!(messages[0]["sha256"], LARGE_SHA256, "{library:?}");
        assert_eq!(messages[1]["size"], 1_000, "the next one is not disturbed, {library:?}");
    });
}

/// Of 700,000 bytes, each its place times 31, modulo 251.
const LARGE_SHA256: &str = "d9a849079769d2b381cb4c584b69df3cac7b800a6d7c92915b6623e30155f727";

#[test]
fn a_queue_with_sessions_takes_no_message_without_one() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        let refused =
            client.ask(&json!({ "do": "send", "entity": "commands", "messages": [{ "body": "lost" }] }));
        assert!(refused.is_err(), "{library:?}: {refused:?}");
        send(&mut client, "commands", "pump-7", &["kept"]);
        assert_eq!(accept_next(&mut client, "it", "commands"), "pump-7", "{library:?}");
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["kept"], "{library:?}");
        nothing(&mut client, "it");
    });
}

#[test]
fn a_message_with_an_id_that_was_seen_is_taken_and_forgotten() {
    let settings = json!({ "duplicate_window_seconds": 600 });
    each(&commands(&settings), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["first", "second", "first"]);
        // Also if it comes in a batch, and after the first was completed.
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(bodies(&drain(&mut client, "it", 2)), ["first", "second"], "{library:?}");
        let again = json!([
            { "session": "pump-7", "id": "first", "body": "again" },
            { "session": "pump-7", "id": "third", "body": "third" },
        ]);
        client.ok(json!({ "do": "send", "entity": "commands", "messages": again, "batch": true }));
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["third"], "{library:?}");
        nothing(&mut client, "it");
    });
}

#[test]
fn without_a_window_the_same_id_comes_twice() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["same", "same"]);
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(bodies(&drain(&mut client, "it", 2)), ["same", "same"], "{library:?}");
    });
}

#[test]
fn a_queue_without_sessions_gives_its_messages_to_any_receiver() {
    let entities = json!({ "queues": [queue("plain", false, &json!({}))] });
    each(&entities, |sim, library| {
        let mut client = sim.client(library);
        let messages = json!([{ "body": "1" }, { "body": "2" }, { "body": "3" }]);
        client.ok(json!({ "do": "send", "entity": "plain", "messages": messages, "batch": true }));
        client.ok(json!({ "do": "open", "receiver": "it", "entity": "plain" }));
        assert_eq!(bodies(&drain(&mut client, "it", 3)), ["1", "2", "3"], "{library:?}");
        nothing(&mut client, "it");
    });
}
