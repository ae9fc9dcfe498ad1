//! What Eclipse Paho and MQTT.js use: both versions, TCP and WebSocket, shared subscriptions, properties, aliases.

use std::collections::BTreeSet;

use serde_json::json;

use super::Site;
use super::agent::{Agent, Library};

#[test]
fn every_library_publishes_and_receives_at_every_quality_over_every_transport() {
    for library in Library::installed() {
        let site = Site::start();
        let transports = [
            (site.plain(), json!({})),
            (site.tls(), json!({ "authority": site.authority() })),
            (site.websocket(), json!({ "path": "/mqtt" })),
        ];
        for (address, transport) in transports {
            for version in [4, 5] {
                let mut order = transport.clone();
                order["client"] = json!("both");
                order["version"] = json!(version);
                order["clean"] = json!(true);
                let mut agent = Agent::connect(library, address, &order);
                assert!(!agent.connected());
                for (granted, filter) in [(0, "zero/#"), (1, "one/#"), (2, "two/#")] {
                    assert_eq!(agent.subscribe(filter, granted), json!([granted]), "{library:?} {version}");
                }
                for (granted, topic) in [(0, "zero/a"), (1, "one/a"), (2, "two/a")] {
                    for sent in [0, 1, 2] {
                        let payload = format!("{topic} at {sent}");
                        agent.publish(topic, &payload, sent);
                        let message = agent.message();
                        assert_eq!(message["topic"], topic, "{library:?} {order}");
                        assert_eq!(message["payload"], payload.as_str(), "{library:?} {order}");
                        assert_eq!(message["qos"], sent.min(granted), "{library:?} {order}");
                        assert_eq!((&message["retain"], &message["dup"]), (&json!(false), &json!(false)));
                    }
                }
                agent.leave();
            }
        }
    }
}

#[test]
fn a_large_message_passes_a_websocket_whole() {
    for library in Library::installed() {
        let site = Site::start();
        let order = json!({ "client": "large", "version": 5, "clean": true, "path": "/mqtt" });
        let mut agent = Agent::connect(library, site.websocket(), &order);
        agent.connected();
        agent.subscribe("large/#", 1);
        let payload: String = (0..200_000_u32)
            .map(|place| char::from(b'a' + u8::try_from(place % 26).expect("a letter")))
            .collect();
        agent.publish("large/1", &payload, 1);
        assert!(agent.message()["payload"] == payload.as_str(), "{library:?}");
        agent.leave();
    }
}

#[test]
fn libraries_share_a_subscription() {
    let libraries = Library::installed();
    if libraries.is_empty() {
        return;
    }
    let site = Site::start();
    let order = |client: &str| json!({ "client": client, "version": 5, "clean": true });
    let mut workers: Vec<Agent> = Vec::new();
    for (number, library) in libraries.iter().cycle().take(3).enumerate() {
        let mut worker = Agent::connect(*library, site.plain(), &order(&format!("worker-{number}")));
        worker.connected();
        assert_eq!(worker.subscribe("$share/workers/jobs/+", 1), json!([1]));
        assert_eq!(worker.subscribe("end", 1), json!([1]));
        workers.push(worker);
    }
    let mut publisher = Agent::connect(libraries[0], site.plain(), &order("boss"));
    publisher.connected();
    let jobs: BTreeSet<String> = (0..60).map(|number| format!("job {number}")).collect();
    for (number, job) in jobs.iter().enumerate() {
        publisher.publish(&format!("jobs/{number}"), job, 1);
    }
    publisher.publish("end", "end", 1);
    let mut taken = Vec::new();
    for worker in &mut workers {
        let payload = |worker: &mut Agent| worker.message()["payload"].as_str().expect("text").to_owned();
        let own: Vec<String> =
            std::iter::from_fn(|| Some(payload(worker)).filter(|payload| payload != "end")).collect();
        assert!(!own.is_empty(), "the work is shared");
        taken.extend(own);
    }
    assert_eq!(taken.len(), jobs.len(), "each once: {taken:?}");
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), jobs);
}

#[test]
fn properties_and_subscription_identifiers_pass_between_libraries() {
    for library in Library::installed() {
        let site = Site::start();
        let order = |client: &str| json!({ "client": client, "version": 5, "clean": true });
        let mut service = Agent::connect(library, site.plain(), &order("service"));
        service.connected();
        service.subscribe_as(&json!({ "filter": "requests/#", "qos": 1, "id": 7 }));
        service.subscribe_as(&json!({ "filter": "requests/+", "qos": 1, "id": 9 }));
        let mut client = Agent::connect(library, site.plain(), &order("client"));
        client.connected();
        client.subscribe("replies/client", 1);
        client.publish_as(&json!({
            "topic": "requests/1", "payload": "question", "qos": 1, "response_topic": "replies/client",
            "correlation": "42", "content_type": "text/plain", "user": { "a": "1", "b": "2" },
        }));
        // Overlapping subscriptions: one message with both identifiers, or one for each.
        let mut identifiers = BTreeSet::new();
        while identifiers.len() < 2 {
            let request = service.message();
            assert_eq!(request["payload"], "question", "{request}");
            assert_eq!(request["user"], json!({ "a": "1", "b": "2" }), "{request}");
            assert_eq!(request["content_type"], "text/plain", "{request}");
            assert_eq!(
                (&request["response_topic"], &request["correlation"]),
                (&json!("replies/client"), &json!("42"))
            );
            let new =
                request["subscriptions"].as_array().expect("a list").iter().filter_map(|id| id.as_u64());
            let before = identifiers.len();
            identifiers.extend(new);
            assert!(
                identifiers.len() > before,
                "{library:?}: an identifier that was not seen yet: {request}"
            );
        }
        assert_eq!(identifiers, BTreeSet::from([7, 9]), "{library:?}");
        service.publish_as(
            &json!({ "topic": "replies/client", "payload": "answer", "qos": 1, "correlation": "42" }),
        );
        let answer = client.message();
        assert_eq!(
            (&answer["payload"], &answer["correlation"]),
            (&json!("answer"), &json!("42")),
            "{library:?}"
        );
    }
}

#[test]
fn a_client_that_wants_no_echo_gets_none() {
    for library in Library::installed() {
        let site = Site::start();
        let mut agent =
            Agent::connect(library, site.plain(), &json!({ "client": "a", "version": 5, "clean": true }));
        agent.connected();
        agent.subscribe_as(&json!({ "filter": "talk", "qos": 1, "no_local": true }));
        let mut other =
            Agent::connect(library, site.plain(), &json!({ "client": "b", "version": 5, "clean": true }));
        other.connected();
        agent.publish("talk", "own", 1);
        other.publish("talk", "other's", 1);
        assert_eq!(agent.message()["payload"], "other's", "{library:?}");
    }
}

#[test]
fn unsubscribing_ends_deliveries() {
    for library in Library::installed() {
        for version in [4, 5] {
            let site = Site::start();
            let order = json!({ "client": "a", "version": version, "clean": true });
            let mut agent = Agent::connect(library, site.plain(), &order);
            agent.connected();
            agent.subscribe("hall/#", 1);
            agent.subscribe("yard/#", 1);
            agent.tell(&json!({ "do": "unsubscribe", "filter": "hall/#" }));
            agent.event("unsubscribed");
            agent.publish("hall/1", "unsubscribed", 1);
            agent.publish("yard/1", "subscribed", 1);
            assert_eq!(agent.message()["payload"], "subscribed", "{library:?}, version {version}");
        }
    }
}

/// MQTT.js resolves the gateway's aliases and uses aliases of its own; Paho for Python does neither.
#[test]
fn aliases_stand_for_topics_in_both_directions() {
    if !Library::installed().contains(&Library::MqttJs) {
        return;
    }
    let site = Site::start();
    let order = json!({ "client": "a", "version": 5, "clean": true, "aliases": 2 });
    let mut agent = Agent::connect(Library::MqttJs, site.plain(), &order);
    agent.connected();
    agent.subscribe("hall/#", 1);
    // More topics than aliases, each several times.
    for round in 0..3 {
        for topic in ["hall/1", "hall/2", "hall/3"] {
            agent.publish(topic, &format!("{topic} {round}"), 1);
            let message = agent.message();
            assert_eq!(message["topic"], topic, "{message}");
            assert_eq!(message["payload"], format!("{topic} {round}"), "{message}");
        }
    }
    agent.leave();
}
