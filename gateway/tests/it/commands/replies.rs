//! Replies, read by Microsoft's own libraries: in the session that the requester waits in, once, whatever happens to the
//! gateway in between.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::azure_clients::{Client, Library};
use testkit::cloud::service_bus::{Entities, Queue};

use super::{SENDERS, Site, command, send};
use crate::clients::agent::Library as Mqtt;
use crate::hub;

const INBOX: &str = "replies";
const ALLOWED: &str = "to = \"replies, desk-*\"";

/// A site that may send replies, with a queue for them that looks for duplicates.
fn site() -> Site {
    let site = Site::start_with(&json!({}), &[], &[("commands.replies", ALLOWED)]);
    let queue = Queue { duplicate_window_seconds: Some(600.0), ..Queue::with_sessions(INBOX) };
    site.cloud.control().service_bus().create(&Entities::queues([queue])).expect("it is made");
    site
}

fn asking(device: &str, id: &str, desk: &str) -> Value {
    let mut command = command(device, id, id);
    command["reply_to"] = json!(INBOX);
    command["reply_to_session"] = json!(desk);
    command
}

/// What is in a session of the replies' queue, completed, once there are so many.
fn read(client: &mut Client, desk: &str, many: usize) -> Vec<Value> {
    client.ok(json!({ "do": "accept", "receiver": desk, "entity": INBOX, "session": desk }));
    let mut found = Vec::new();
    while found.len() < many {
        let messages = client.receive(desk, many - found.len(), Duration::from_secs(20));
        assert!(!messages.is_empty(), "{} of {many} replies", found.len());
        messages.iter().for_each(|message| client.settle(desk, message, "complete"));
        found.extend(messages);
    }
    client.ok(json!({ "do": "close", "receiver": desk }));
    found
}

#[test]
fn whoever_asks_for_a_reply_gets_it_in_a_session_of_its_own() {
    let devices = Mqtt::installed();
    let Some(library) = devices.first().copied() else { return };
    for kind in Library::installed(&SENDERS) {
        let site = site();
        let mut device = site.device(library, "pump-7");
        let mut sender = site.sender(kind);
        let mut answered = asking("pump-7", "b", "desk-2");
        answered["properties"] = json!({ "penstock-completion": "answered" });
        let mut malformed = asking("pump-7", "c", "desk-1");
        malformed["properties"] = json!({ "penstock-completion": "some day" });
        let mut elsewhere = command("pump-7", "d", "d");
        elsewhere["reply_to"] = json!("sb://elsewhere.servicebus.windows.net/replies");
        let mut nowhere = command("pump-7", "e", "e");
        nowhere["reply_to"] = json!("desk-nobody");
        send(&mut sender, &[asking("pump-7", "a", "desk-1"), answered, malformed, elsewhere, nowhere]);
        assert_eq!(device.message()["payload"], "a", "{kind:?}");
        let second = device.message();
        let answer = json!({ "status": "failed", "code": 17, "detail": { "valve": "stuck" } });
        device.publish(second["response_topic"].as_str().expect("a topic"), &answer.to_string(), 1);
        for payload in ["d", "e"] {
            assert_eq!(device.message()["payload"], payload, "{kind:?}: what nobody can be told of goes on");
        }
        site.wait_for_active(0);

        let first = read(&mut sender, "desk-1", 2);
        let second = read(&mut sender, "desk-2", 1);
        let seen: Vec<_> = first
            .iter()
            .chain(&second)
            .map(|reply| json!([reply["correlation"], reply["subject"], reply["content_type"]]))
            .collect();
        let expected = [("a", "delivered"), ("c", "rejected"), ("b", "failed")];
        assert_eq!(seen, expected.map(|(id, status)| json!([id, status, "application/json"])), "{kind:?}");
        let body: Value = serde_json::from_str(second[0]["body"].as_str().expect("text")).expect("JSON");
        let events = site.events("pump-7", 5);
        let event = events
            .iter()
            .find(|event| event["data"]["commandId"] == "b" && event["data"]["final"] == true)
            .expect("it was told");
        assert_eq!(body, event["data"], "{kind:?}: the same as in the event hub");
        assert_eq!(second[0]["properties"]["cloudEvents:id"], event["id"], "{kind:?}");
        assert_eq!(second[0]["properties"]["cloudEvents:type"], "io.penstock.command.failed.v1");
        let metrics = site.gateway.health("/metrics").expect("it answers").expect("they are there");
        for line in [
            "penstock_commands_replies_sent_total 3",
            "penstock_commands_replies_failed_total{reason=\"foreign\"} 1",
            "penstock_commands_replies_failed_total{reason=\"not-found\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{kind:?}: {line} is not in\n{metrics}");
        }
    }
}

#[test]
fn a_gateway_that_dies_between_reply_and_settlement_is_heard_once() {
    let devices = Mqtt::installed();
    let Some(library) = devices.first().copied() else { return };
    for kind in Library::installed(&SENDERS) {
        let mut site = site();
        let mut device = site.device(library, "pump-7");
        let mut sender = site.sender(kind);
        let service = |site: &Site, order: Value| {
            site.cloud.control().service_bus().fault(&order).expect("it is known");
        };
        // No settlement comes to an end: what is left of a gateway then is what a crash leaves.
        service(&site, json!({ "fault": "delay-disposition", "ms": 120_000 }));
        send(&mut sender, &[asking("pump-7", "a", "desk-1")]);
        assert_eq!(device.message()["payload"], "a", "{kind:?}");
        let inbox = |site: &Site| site.cloud.control().service_bus().entity(INBOX).expect("it answers");
        hub::wait_for("the reply", || (inbox(&site).active == 1).then_some(()));
        assert_eq!(site.queue().active, 1, "{kind:?}: it is not settled");
        site.gateway.kill().expect("it can be killed");
        drop(device);
        service(&site, json!({ "fault": "delay-disposition", "ms": 0 }));
        site.gateway.restart().expect("it starts again");

        let mut device = site.device(library, "pump-7");
        site.wait_for_active(0);
        let sent_again = inbox(&site).settled["duplicates"];
        assert_eq!((inbox(&site).active, sent_again), (1, 1), "{kind:?}: it is sent again, and kept once");
        let replies = read(&mut sender, "desk-1", 1);
        assert_eq!(replies[0]["correlation"], "a", "{kind:?}");
        // The device has not seen the command again: what it gets next was sent after it.
        send(&mut sender, &[command("pump-7", "b", "b")]);
        assert_eq!(device.message()["payload"], "b", "{kind:?}");
        site.wait_for_active(0);
    }
}
