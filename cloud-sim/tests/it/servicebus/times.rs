//! What has its time: messages that come later, and messages that are not wanted any more.

use std::time::Duration;

use serde_json::{Value, json};

use super::{accept, bodies, commands, dead, drain, each, nothing, send};

/// Sends one message that expires after so long.
fn perishable(body: &str, ttl_ms: u64) -> Value {
    let message = json!({ "session": "pump-7", "body": body, "ttl_ms": ttl_ms });
    json!({ "do": "send", "entity": "commands", "messages": [message] })
}

#[test]
fn what_expires_is_dead_where_that_is_wanted() {
    each(&commands(&json!({ "dead_letter_on_expiry": true })), |sim, library| {
        let mut client = sim.client(library);
        client.ok(perishable("stale", 500));
        send(&mut client, "commands", "pump-7", &["fresh"]);
        client.ok(json!({ "do": "open", "receiver": "watcher", "entity": "commands", "dead": true }));
        let dead = client.receive("watcher", 1, super::SOON);
        assert_eq!(bodies(&dead), ["stale"], "{library:?}");
        assert_eq!(dead[0]["dead_reason"], "TTLExpiredException", "{library:?}");
        assert_eq!(dead[0]["delivery_count"], 0, "{library:?}");
        client.settle("watcher", &dead[0], "complete");
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["fresh"], "{library:?}");
        nothing(&mut client, "it");
    });
}

#[test]
fn what_expires_is_gone_otherwise() {
    each(&commands(&json!({ "dead_letter_on_expiry": false })), |sim, library| {
        let mut client = sim.client(library);
        client.ok(perishable("stale", 500));
        accept(&mut client, "other", "commands", "pump-8");
        // A second passes.
        assert!(client.receive("other", 1, Duration::from_secs(1)).is_empty(), "{library:?}");
        send(&mut client, "commands", "pump-7", &["fresh"]);
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["fresh"], "{library:?}");
        assert_eq!(dead(&mut client, "commands"), Vec::<Value>::new(), "{library:?}");
    });
}

#[test]
fn the_queue_has_a_time_to_live_too() {
    each(&commands(&json!({ "ttl_seconds": 1, "dead_letter_on_expiry": true })), |sim, library| {
        let mut client = sim.client(library);
        // The shorter of the two counts.
        client.ok(perishable("long-lived", 3_600_000));
        client.ok(json!({ "do": "open", "receiver": "watcher", "entity": "commands", "dead": true }));
        let dead = client.receive("watcher", 1, super::SOON);
        assert_eq!(bodies(&dead), ["long-lived"], "{library:?}");
        assert_eq!(dead[0]["dead_reason"], "TTLExpiredException", "{library:?}");
    });
}

#[test]
fn a_scheduled_message_comes_when_it_is_due_and_not_when_it_was_cancelled() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        let schedule = |body: &str, in_ms: u64| {
            let message = json!({ "session": "pump-7", "body": body });
            json!({ "do": "schedule", "entity": "commands", "messages": [message], "in_ms": in_ms })
        };
        let never = client.ok(schedule("never", 1_500));
        client.ok(schedule("due", 2_000));
        send(&mut client, "commands", "pump-7", &["now"]);
        accept(&mut client, "it", "commands", "pump-7");
        let peeked = client.ok(json!({ "do": "peek", "receiver": "it", "max": 10 }));
        let states = peeked["messages"].as_array().unwrap().iter();
        let states: Vec<_> =
            states.map(|message| (message["body"].as_str(), message["state"].as_str())).collect();
        assert!(states.contains(&(Some("never"), Some("scheduled"))), "{library:?}: {states:?}");
        client.ok(json!({ "do": "cancel", "entity": "commands", "sequences": never["sequences"] }));
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["now"], "{library:?}");
        nothing(&mut client, "it");
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["due"], "{library:?}");
        nothing(&mut client, "it");
    });
}
