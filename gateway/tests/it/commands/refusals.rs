//! What no device can get, as the backend finds it: in the dead-letter queue with a reason, and as an event.

use serde_json::{Value, json};
use testkit::azure_clients::Library;

use super::{SENDERS, Site, command, dead, send};
use crate::clients::agent::Library as Mqtt;

#[test]
fn what_is_no_command_is_found_in_the_dead_letter_queue() {
    let devices = Mqtt::installed();
    let Some(library) = devices.first().copied() else { return };
    for kind in Library::installed(&SENDERS) {
        let site = Site::start(&json!({}), &[]);
        let mut device = site.device(library, "pump-7");
        let mut sender = site.sender(kind);
        let with = |id: &str, property: &str, value: &str| {
            let mut command = command("pump-7", id, id);
            command["properties"] = json!({ property: value });
            command
        };
        send(
            &mut sender,
            &[
                with("a", "penstock-completion", "some day"),
                with("b", "penstock-deadline", "2020-01-01T00:00:00Z"),
                command("pump-7", "c", "good"),
            ],
        );
        // What cannot be delivered does not stand in the way of what can.
        assert_eq!(device.message()["payload"], "good", "{kind:?}");
        let dead = dead(&mut sender, 2);
        let found: Vec<_> =
            dead.iter().map(|letter| (letter["id"].as_str(), letter["dead_reason"].as_str())).collect();
        let expected = [("a", "penstock-malformed"), ("b", "penstock-expired")];
        assert_eq!(found, expected.map(|(id, reason)| (Some(id), Some(reason))), "{kind:?}");
        assert!(dead.iter().all(|letter| letter["body"] == letter["id"]), "{kind:?}: {dead:#?}");
        assert!(
            dead.iter()
                .all(|letter| letter["dead_description"].as_str().is_some_and(|text| !text.is_empty())),
            "{kind:?}: {dead:#?}"
        );
        let events = site.events("pump-7", 3);
        let finals: Vec<Value> = events
            .iter()
            .map(|event| &event["data"])
            .filter(|data| data["final"] == true)
            .map(|data| json!([data["commandId"], data["status"], data["reason"]]))
            .collect();
        let expected = [
            json!(["a", "rejected", "malformed"]),
            json!(["b", "expired", "expired"]),
            json!(["c", "delivered", null]),
        ];
        assert_eq!(finals, expected, "{kind:?}");
    }
}

#[test]
fn a_command_too_large_for_the_gateway_is_a_dead_letter() {
    let devices = Mqtt::installed();
    let Some(library) = devices.first().copied() else { return };
    for kind in Library::installed(&SENDERS) {
        let site = Site::start(&json!({}), &[]);
        let mut device = site.device(library, "pump-7");
        let mut sender = site.sender(kind);
        let large = json!({ "session": "pump-7", "id": "large", "size": 300_000 });
        send(&mut sender, &[large, command("pump-7", "small", "small")]);
        assert_eq!(device.message()["payload"], "small", "{kind:?}");
        let dead = dead(&mut sender, 1);
        assert_eq!(
            (&dead[0]["id"], &dead[0]["dead_reason"]),
            (&json!("large"), &json!("penstock-too-large"))
        );
        assert_eq!(dead[0]["size"], 300_000, "{kind:?}");
    }
}
