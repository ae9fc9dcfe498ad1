//! Publishers at work on a real outbox, against cloud-sim's stand-in for Event Grid.

mod faults;
mod harness;
mod order;

use std::time::Duration;

use penstock_proto::Lane;
use serde_json::json;
use testkit::cloud::event_grid::KEYS;

use self::harness::{Sim, Site, TOPIC, named, until};
use super::config::Kind;
use super::credential::SignIn;
use super::envelope::Source;
use crate::alerts::Trouble;
use crate::azure::{Audience, Cloud, TokenHandle};

#[test]
fn everything_in_the_lane_is_sent_once_and_stays_sent() {
    let (sim, site) = (Sim::start(), Site::new());
    let running = site.start(&sim.config());
    running.raise("warning", &named("a", 3));
    running.publish(br#"{"severity":"info","temp":21.5}"#);
    running.publish(b"\xff\x00");
    running.wait_done();
    let accepted = sim.accepted();
    assert_eq!(sim.ids()[..3], named("a", 3));
    let [.., json, bytes] = &accepted[..] else { panic!("five events") };
    assert_eq!(json.event["data"], json!({ "payload": { "severity": "info", "temp": 21.5 } }));
    assert_eq!((&json.event["severity"], &json.event["tenant"]), (&json!("info"), &json!("contoso")));
    assert_eq!(bytes.event["data"], json!({ "payload_base64": "/wA=" }));
    let status = running.sink.status();
    assert_eq!((status.connected, status.sent, status.quarantined), (true, 5, 0));
    assert_eq!((status.held, status.held_since_ms, status.last_error), (None, None, None));
    running.stop();
    let again = site.start(&sim.config());
    again.raise("info", &named("b", 1));
    again.wait_done();
    assert_eq!((sim.count("/events/accepted"), sim.count("/events/duplicates")), (6, 0));
    again.stop();
}

#[test]
fn batches_keep_to_their_bounds() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    config.batch.events = 10;
    let opened = site.open(&config);
    opened.raise("info", &named("a", 95));
    let running = opened.publish(&config);
    running.wait_done();
    assert_eq!((sim.ids(), sim.count("/requests/answered")), (named("a", 95), 10));
    running.stop();
    config.batch.events = 500;
    config.batch.bytes = 2048;
    let running = site.start(&config);
    running.raise("info", &named("b", 50));
    running.publish(&vec![b'1'; 3000]);
    running.wait_done();
    let requests: Vec<u64> = sim.accepted().iter().map(|entry| entry.request).collect();
    let most = requests.iter().map(|one| requests.iter().filter(|other| *other == one).count()).max();
    assert!(most.is_some_and(|most| most <= 10), "some 250 bytes each: {most:?}");
    assert_eq!(sim.count("/events/accepted"), 146);
    running.stop();
}

#[test]
fn a_namespace_takes_the_same_with_a_key_or_a_signature() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config_of(Kind::Namespace);
    let running = site.start(&config);
    running.raise("info", &named("a", 2));
    running.wait_done();
    running.stop();
    let SignIn::Key(files) = config.sign_in.clone() else { panic!("a key") };
    config.sign_in = SignIn::Sas { files, lifetime: Duration::from_secs(600) };
    let running = site.start(&config);
    running.raise("info", &named("b", 2));
    running.wait_done();
    assert!(sim.accepted().iter().all(|entry| entry.topic.as_deref() == Some(TOPIC)));
    assert_eq!((sim.count("/events/accepted"), running.sink.status().last_error), (4, None));
    running.stop();
}

#[test]
fn a_topic_takes_signatures() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    let SignIn::Key(files) = config.sign_in.clone() else { panic!("a key") };
    config.sign_in = SignIn::Sas { files, lifetime: Duration::from_secs(600) };
    let running = site.start(&config);
    running.raise("info", &named("a", 2));
    running.wait_done();
    assert_eq!((sim.ids(), running.sink.status().last_error), (named("a", 2), None));
    running.stop();
}

#[test]
fn a_domain_gets_a_topic_per_tenant() {
    let (sim, site) = (Sim::domain(), Site::new());
    let mut config = sim.config_of(Kind::Domain);
    config.source = Source::PerTenant { others: "everybody".to_owned() };
    let running = site.start(&config);
    running.raise("info", &named("a", 1));
    running.publish(b"1");
    running.wait_done();
    let topics: Vec<_> = sim.accepted().into_iter().map(|entry| entry.topic.unwrap_or_default()).collect();
    assert_eq!(topics, ["everybody", "contoso"]);
    assert!(sim.accepted().iter().all(|entry| entry.event["gatewayid"] == "site-7"));
    running.stop();
}

#[test]
fn it_speaks_tls_to_whom_it_trusts() {
    let sim = Sim::start_with(|side| side.tls = Some(([127, 0, 0, 1], 0).into()));
    let site = Site::new();
    let config = sim.config_tls();
    let running = site.start(&config);
    running.raise("info", &named("a", 2));
    running.wait_done();
    assert_eq!(sim.ids(), named("a", 2));
    running.stop();
    let mut stranger = config;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    stranger.endpoint.ca_file = Some(sim.file("stranger.pem", &made.cert.pem()));
    let running = site.start(&stranger);
    running.raise("info", &named("b", 1));
    until("it says why", || {
        running.sink.status().last_error.is_some_and(|error| error.contains("cannot be reached"))
    });
    assert_eq!(sim.count("/events/accepted"), 2);
    running.stop();
}

#[test]
fn a_rotated_key_gives_way_to_the_other_and_to_what_its_file_holds_then() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    let (first, second) = (sim.file("first", KEYS[0]), sim.file("second", KEYS[1]));
    config.sign_in = SignIn::Key(vec![first.clone(), second]);
    let running = site.start(&config);
    running.raise("info", &named("a", 1));
    running.wait_done();
    let replaced = "cmVwbGFjZWQgcmVwbGFjZWQgcmVwbGFjZWQgcmVwbGE=";
    sim.orders().rotate_key(replaced).unwrap();
    running.raise("info", &named("b", 1));
    running.wait_done();
    assert_eq!((running.sink.status().held, sim.count("/requests/refused/401")), (None, 1));
    running.stop();
    config.sign_in = SignIn::Key(vec![first.clone()]);
    let running = site.start(&config);
    running.raise("info", &named("c", 1));
    until("the circuit opens", || running.sink.status().held == Some(Trouble::Credential));
    assert_eq!(running.outbox.status().lanes[Lane::Alerts.index()].backlog_messages, 1);
    std::fs::write(&first, replaced).unwrap();
    running.wait_done();
    assert_eq!((running.sink.status().held, sim.count("/events/duplicates")), (None, 0));
    running.stop();
}

#[test]
fn a_token_opens_topics_and_namespaces() {
    let (sim, site) = (Sim::start_with(|side| side.local_auth = false), Site::new());
    for (kind, prefix) in [(Kind::Topic, "a"), (Kind::Namespace, "b")] {
        let mut config = sim.config_of(kind);
        config.sign_in = SignIn::Entra(TokenHandle::new(Audience::event_grid(Cloud::Public)));
        let running = site.open(&config).publish_as(&config, Some(&sim.identity()));
        running.raise("info", &named(prefix, 2));
        running.wait_done();
        assert_eq!(sim.count("/requests/refused/401"), 0, "without a token nothing is sent");
        running.stop();
    }
    assert_eq!(sim.ids(), [named("a", 2), named("b", 2)].concat());
}

#[test]
fn where_keys_are_not_taken_everything_waits() {
    let (sim, site) = (Sim::start_with(|side| side.local_auth = false), Site::new());
    let running = site.start(&sim.config());
    running.raise("critical", &named("x", 2));
    until("it waits", || running.sink.status().held == Some(Trouble::Credential));
    let status = running.sink.status();
    assert_eq!((status.backlog, status.quarantined, status.connected), (2, 0, false));
    assert!(status.last_error.is_some_and(|error| error.contains("Local authentication is disabled")));
    running.stop();
}
