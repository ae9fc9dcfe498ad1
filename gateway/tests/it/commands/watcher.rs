//! What Service Bus gives up by itself, told of by the gateway that watches the dead-letter queue.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testkit::azure_clients::Library;

use super::{Site, command, dead, send};
use crate::hub;

/// What the gateway's status says of the dead-letter queue.
fn watched(site: &Site) -> Value {
    let status = site.gateway.admin("/api/v1/status").expect("it answers").expect("a status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["commands"]["dead_letters"][0].clone()
}

/// The identities of the records with events about commands of a device: one that was sent twice is there once.
fn told(site: &Site, device: &str) -> BTreeSet<String> {
    let records = hub::records(&site.cloud).into_iter().filter(|record| record.key == device);
    records.map(|record| record.headers).collect()
}

#[test]
fn a_command_for_a_device_that_never_comes_ends_as_expired_and_once() {
    for kind in Library::installed(&[Library::Python]) {
        let queue = json!({ "dead_letter_on_expiry": true });
        let mut site = Site::start(&queue, &["dead_letters = { interval = \"1s\" }"]);
        let mut sender = site.sender(kind);
        let late = |device: &str, id: &str| {
            let mut late = command(device, id, "too late");
            late["ttl_ms"] = json!(1000);
            late
        };
        send(&mut sender, &[late("pump-7", "a")]);
        let events = site.events("pump-7", 1);
        let data = &events[0]["data"];
        let seen =
            ["commandId", "status", "final", "reason", "deadLetterReason", "name"].map(|key| &data[key]);
        let expected = ["a", "expired", "", "expired", "TTLExpiredException", "set-speed"].map(Value::from);
        for (place, (seen, expected)) in seen.into_iter().zip(&expected).enumerate() {
            assert_eq!(seen, if place == 2 { &Value::Bool(true) } else { expected }, "{data:#}");
        }
        assert_eq!(events[0]["type"], "io.penstock.command.expired.v1");

        // Killed and started again it tells of what is new, and of nothing twice.
        site.gateway.kill().expect("killed");
        send(&mut sender, &[late("pump-8", "b")]);
        site.gateway.restart().expect("it starts again");
        site.events("pump-8", 1);
        hub::wait_for("a look from end to end", || (watched(&site)["told"] == 2).then_some(()));
        assert_eq!((told(&site, "pump-7").len(), told(&site, "pump-8").len()), (1, 1));
        // The letters stay for others.
        let ids: Vec<_> = dead(&mut sender, 2).iter().map(|letter| letter["id"].clone()).collect();
        assert_eq!(ids, ["a", "b"]);
    }
}
