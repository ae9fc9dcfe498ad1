//! What becomes of a message: completed, given back, set aside, buried; and how often it was tried.

use serde_json::{Value, json};
use testkit::azure_clients::{Client, Code, Library};

use super::{Sim, accept, bodies, commands, dead, drain, each, nothing, one, order, queue, send};

/// The order that settles a message.
fn settling(message: &Value, how: &str) -> Value {
    json!({ "do": "settle", "receiver": "it", "sequence": message["sequence"], "how": how })
}

/// Accepts session `pump-7` of `commands`.
fn accepted(client: &mut Client) {
    accept(client, "it", "commands", "pump-7");
}

#[test]
fn a_completed_message_is_gone() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2"]);
        accepted(&mut client);
        let message = one(&mut client, "it");
        client.settle("it", &message, "complete");
        client.ok(order("close", "it"));
        accepted(&mut client);
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["2"], "{library:?}");
        nothing(&mut client, "it");
        assert_eq!(dead(&mut client, "commands"), Vec::<Value>::new(), "{library:?}");
    });
}

#[test]
fn an_abandoned_message_is_the_next_again_and_counts() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2"]);
        accepted(&mut client);
        for count in 0..3 {
            let message = one(&mut client, "it");
            assert_eq!(
                (&message["body"], &message["delivery_count"]),
                (&json!("1"), &json!(count)),
                "{library:?}"
            );
            assert_eq!(message["sequence"], 1, "{library:?}");
            client.settle("it", &message, "abandon");
        }
        let drained = drain(&mut client, "it", 2);
        assert_eq!(bodies(&drained), ["1", "2"], "{library:?}");
        assert_eq!(drained[0]["delivery_count"], 3, "{library:?}");
        assert_eq!(drained[1]["delivery_count"], 0, "{library:?}");
    });
}

#[test]
fn what_was_not_settled_when_its_receiver_closed_comes_again_and_does_not_count() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2"]);
        for _ in 0..3 {
            accepted(&mut client);
            let message = one(&mut client, "it");
            assert_eq!(
                (&message["body"], &message["delivery_count"]),
                (&json!("1"), &json!(0)),
                "{library:?}"
            );
            client.ok(order("close", "it"));
        }
        accepted(&mut client);
        assert_eq!(bodies(&drain(&mut client, "it", 2)), ["1", "2"], "{library:?}");
    });
}

#[test]
fn a_message_that_is_tried_too_often_is_dead() {
    each(&commands(&json!({ "max_delivery_count": 3 })), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["poison", "good"]);
        accepted(&mut client);
        for _ in 0..3 {
            let message = one(&mut client, "it");
            assert_eq!(message["body"], "poison", "{library:?}");
            client.settle("it", &message, "abandon");
        }
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["good"], "{library:?}");
        let dead = dead(&mut client, "commands");
        assert_eq!(bodies(&dead), ["poison"], "{library:?}");
        assert_eq!(dead[0]["dead_reason"], "MaxDeliveryCountExceeded", "{library:?}");
        assert_eq!(dead[0]["session"], "pump-7", "{library:?}");
    });
}

#[test]
fn a_dead_letter_has_its_reason_and_everything_it_was_sent_with() {
    let sent = json!({
        "session": "pump-7", "id": "order-1", "body": "melt", "subject": "do",
        "properties": { "penstock-completion": "answered" },
    });
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        client.ok(json!({ "do": "send", "entity": "commands", "messages": [sent] }));
        send(&mut client, "commands", "pump-7", &["2"]);
        accepted(&mut client);
        let message = one(&mut client, "it");
        let mut bury = settling(&message, "dead_letter");
        bury["reason"] = json!("penstock-refused");
        bury["description"] = json!("the device said 0x87");
        client.ok(bury);
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["2"], "{library:?}");
        let dead = dead(&mut client, "commands");
        assert_eq!(bodies(&dead), ["melt"], "{library:?}");
        for (name, value) in [
            ("dead_reason", json!("penstock-refused")),
            ("dead_description", json!("the device said 0x87")),
            ("session", sent["session"].clone()),
            ("id", sent["id"].clone()),
            ("subject", sent["subject"].clone()),
        ] {
            assert_eq!(dead[0][name], value, "{library:?}: {name}");
        }
        assert_eq!(dead[0]["properties"]["penstock-completion"], "answered", "{library:?}");
    });
}

#[test]
fn a_deferred_message_is_had_by_its_number_only() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["later", "now"]);
        accepted(&mut client);
        let later = one(&mut client, "it");
        client.ok(settling(&later, "defer"));
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["now"], "{library:?}");
        nothing(&mut client, "it");
        let fetch = json!({ "do": "deferred", "receiver": "it", "sequences": [later["sequence"]] });
        let fetched = client.ok(fetch.clone());
        assert_eq!(fetched["messages"][0]["body"], "later", "{library:?}");
        assert_eq!(fetched["messages"][0]["state"], "deferred", "{library:?}");
        client.ok(settling(&later, "complete"));
        client.refused(Code::MessageNotFound, fetch);
    });
}

#[test]
fn a_message_received_and_deleted_at_once_does_not_come_again() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2"]);
        let mut accepting = super::accepting("it", "commands", "pump-7");
        accepting["mode"] = json!("delete");
        client.ok(accepting);
        assert_eq!(one(&mut client, "it")["body"], "1", "{library:?}");
        client.ok(order("close", "it"));
        accepted(&mut client);
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["2"], "{library:?}");
    });
}

#[test]
fn without_sessions_each_message_has_a_lock_of_its_own() {
    let entities = json!({ "queues": [queue("plain", false, &json!({ "lock_seconds": 2 }))] });
    for library in Library::installed(&super::TWO) {
        let sim = Sim::start(&entities);
        let mut client = sim.client(library);
        client.ok(json!({ "do": "send", "entity": "plain", "messages": [{ "body": "1" }] }));
        client.ok(json!({ "do": "open", "receiver": "it", "entity": "plain" }));
        let message = one(&mut client, "it");
        assert_eq!(message["delivery_count"], 0, "{library:?}");
        let renewed = client.ok(json!({ "do": "renew", "receiver": "it", "sequence": message["sequence"] }))
            ["locked_until_ms"]
            .as_i64()
            .unwrap();
        assert!(renewed > message["enqueued_ms"].as_i64().unwrap() + 2_000, "{library:?}");
        // It comes again when its lock is over, and the old lock is worth nothing.
        let again = client.receive("it", 1, super::SOON).remove(0);
        assert_eq!((&again["body"], &again["delivery_count"]), (&json!("1"), &json!(1)), "{library:?}");
        client.settle("it", &again, "complete");
        nothing(&mut client, "it");
    }
}

#[test]
fn a_message_whose_lock_is_over_is_not_settled() {
    let entities = json!({ "queues": [queue("plain", false, &json!({ "lock_seconds": 1 }))] });
    each(&entities, |sim, library| {
        let (mut first, mut second) = (sim.client(library), sim.client(library));
        first.ok(json!({ "do": "send", "entity": "plain", "messages": [{ "body": "1" }] }));
        first.ok(json!({ "do": "open", "receiver": "it", "entity": "plain" }));
        second.ok(json!({ "do": "open", "receiver": "it", "entity": "plain" }));
        let message = one(&mut first, "it");
        let again = one(&mut second, "it");
        assert_eq!(again["sequence"], message["sequence"], "{library:?}");
        first.refused(Code::MessageLockLost, settling(&message, "complete"));
        second.settle("it", &again, "complete");
        nothing(&mut second, "it");
    });
}
