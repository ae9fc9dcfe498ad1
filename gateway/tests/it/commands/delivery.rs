//! From a sender to its device: every command, once, in order, whenever the device comes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use testkit::azure_clients::Library;

use super::{QUEUE, SENDERS, Site, command, send};
use crate::clients::agent::Library as Mqtt;
use crate::clients::mosquitto::Subscriber;

const COMMANDS: usize = 20;

#[test]
fn commands_of_every_library_reach_their_devices_in_order() {
    let senders = Library::installed(&SENDERS);
    let devices = Mqtt::installed();
    if senders.is_empty() || devices.is_empty() {
        return;
    }
    let site = Site::start(&json!({}), &[]);
    let mut agents: BTreeMap<String, _> = BTreeMap::new();
    for library in devices {
        let name = format!("{library:?}").to_lowercase();
        agents.insert(name.clone(), site.device(library, &name));
    }
    let arguments = ["-V", "mqttv311", "-q", "1", "-i", "mosquitto", "-t", "devices/mosquitto/commands/#"];
    let mut old = Subscriber::start_at(site.gateway.mqtt(), &arguments);

    let names: Vec<String> = agents.keys().cloned().chain(["mosquitto".to_owned()]).collect();
    for library in &senders {
        let mut sender = site.sender(*library);
        for name in &names {
            let of = |place| command(name, &format!("{library:?}-{place}"), &format!("{library:?} {place}"));
            send(&mut sender, &(0..COMMANDS).map(of).collect::<Vec<_>>());
        }
    }
    let expected: Vec<String> = senders
        .iter()
        .flat_map(|library| (0..COMMANDS).map(move |place| format!("{library:?} {place}")))
        .collect();
    for (name, agent) in &mut agents {
        let mut payloads = Vec::new();
        for _ in 0..expected.len() {
            let message = agent.message();
            let payload = message["payload"].as_str().expect("text").to_owned();
            let id = payload.replace(' ', "-");
            assert_eq!(message["topic"], format!("devices/{name}/commands/{id}"), "{message}");
            let answer = format!("devices/{name}/commands/{id}/status");
            assert_eq!(message["response_topic"], answer, "{message}");
            assert_eq!((&message["qos"], &message["dup"]), (&json!(1), &json!(false)), "{message}");
            payloads.push(payload);
        }
        assert_eq!(payloads, expected, "{name}");
    }
    let payloads: Vec<String> = expected.iter().map(|_| old.payload()).collect();
    assert_eq!(payloads, expected, "with MQTT 3.1.1");

    // Every one is settled, and its one final event says so.
    site.wait_for_active(0);
    assert_eq!(site.queue().dead, 0, "{:?}", site.queue());
    for name in &names {
        let events = site.events(name, expected.len());
        let finals: Vec<&Value> = events.iter().filter(|event| event["data"]["final"] == true).collect();
        let ids: BTreeSet<&str> =
            finals.iter().filter_map(|event| event["data"]["commandId"].as_str()).collect();
        assert_eq!((finals.len(), ids.len()), (expected.len(), expected.len()), "{name}: one for each");
        assert!(finals.iter().all(|event| event["data"]["status"] == "delivered"), "{name}: {finals:#?}");
    }
}

#[test]
fn commands_wait_for_a_device_that_is_away_and_nothing_counts_against_them() {
    let (senders, devices) = (Library::installed(&SENDERS), Mqtt::installed());
    let Some(library) = devices.first().copied() else { return };
    for sender in senders {
        let site = Site::start(&json!({ "max_delivery_count": 2 }), &[]);
        let mut sender = site.sender(sender);
        send(&mut sender, &[command("pump-7", "a", "1"), command("pump-7", "b", "2")]);
        // It comes and goes more often than a command may be tried.
        for _ in 0..3 {
            let order = json!({ "client": "pump-7", "version": 5, "clean": true });
            let mut silent = crate::clients::agent::Agent::connect(library, site.gateway.mqtt(), &order);
            silent.connected();
            silent.leave();
        }
        // Who looks at them finds them as they were sent.
        sender.ok(json!({ "do": "accept", "receiver": "it", "entity": QUEUE, "session": "pump-7" }));
        let seen = sender.ok(json!({ "do": "peek", "receiver": "it", "max": 10 }));
        let counts: Vec<&Value> =
            seen["messages"].as_array().expect("a list").iter().map(|one| &one["delivery_count"]).collect();
        assert_eq!(counts, [&json!(0), &json!(0)], "{seen}");
        sender.ok(json!({ "do": "close", "receiver": "it" }));

        let mut device = site.device(library, "pump-7");
        for payload in ["1", "2"] {
            let message = device.message();
            assert_eq!(message["payload"], payload, "{message}");
            assert!(message["user"]["redelivered"].is_null(), "{message}");
        }
        site.wait_for_active(0);
        assert_eq!(site.queue().dead, 0, "{:?}", site.queue());
    }
}

#[test]
fn every_command_of_a_queue_that_was_made_anew_reaches_its_device() {
    let (senders, devices) = (Library::installed(&SENDERS), Mqtt::installed());
    let Some(library) = devices.first().copied() else { return };
    for kind in senders {
        let site = Site::start(&json!({}), &[]);
        let mut device = site.device(library, "pump-7");
        let mut sender = site.sender(kind);
        // The same ids each time, and sequence numbers that start at one each time.
        for round in ["first", "second", "third"] {
            let of = |place: usize| command("pump-7", &format!("order-{place}"), &format!("{round} {place}"));
            send(&mut sender, &(1..=5).map(of).collect::<Vec<_>>());
            for place in 1..=5 {
                assert_eq!(device.message()["payload"], format!("{round} {place}"), "{kind:?}");
            }
            site.wait_for_active(0);
            site.remake_queue();
            sender = site.sender(kind);
        }
        let events = site.events("pump-7", 15);
        assert_eq!(events.len(), 15, "{kind:?}: {events:#?}");
    }
}
