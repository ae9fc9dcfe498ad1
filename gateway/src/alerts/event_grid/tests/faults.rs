//! Every row of the table of answers, by its fault.

use std::time::Duration;

use penstock_proto::Lane;
use serde_json::json;

use super::harness::{Sim, Site, TOPIC, named, until};
use crate::alerts::Trouble;
use crate::alerts::event_grid::config::Kind;
use crate::supervise::clock;

const COUNT: usize = 20;

/// Some events, of which half are critical, through a fault that passes.
fn through<T>(kind: Kind, fault: impl FnOnce(&Sim) -> T) -> Sim {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config_of(kind);
    config.endpoint.timeout = Duration::from_secs(2);
    let opened = site.open(&config);
    opened.raise("info", &named("a", COUNT));
    opened.raise("critical", &named("x", COUNT));
    drop(fault(&sim));
    let running = opened.publish(&config);
    running.wait_done();
    assert_eq!(sim.count("/events/distinct"), 2 * COUNT as u64);
    assert_eq!(sim.count("/events/conflicting"), 0);
    let status = running.sink.status();
    assert_eq!((status.connected, status.held, status.held_since_ms), (true, None, None));
    assert_eq!((status.quarantined, running.outbox.status().lanes[Lane::Dead.index()].next.0), (0, 1));
    running.stop();
    sim
}

#[test]
fn refusals_of_a_whole_request_lose_nothing_and_repeat_nothing() {
    for kind in [Kind::Topic, Kind::Namespace] {
        for status in [401, 403, 404, 408, 410, 413, 429, 500, 502, 503, 302, 405] {
            let sim = through(kind, |sim| sim.orders().refuse(status, 3).unwrap());
            assert_eq!(sim.count(&format!("/requests/refused/{status}")), 3, "{kind:?}");
            assert_eq!(sim.count("/events/duplicates"), 0, "{kind:?} {status}");
        }
    }
}

#[test]
fn a_pause_that_is_asked_for_is_kept() {
    let begun_ms = clock::unix_ms();
    let sim = through(Kind::Topic, |sim| sim.orders().refuse_for(429, 1, 1).unwrap());
    assert!(sim.accepted()[0].at_ms >= begun_ms + 1_000);
}

#[test]
fn what_may_have_been_accepted_comes_again_under_the_same_id() {
    for kind in [Kind::Topic, Kind::Namespace] {
        let batch = COUNT as u64;
        let sim = through(kind, |sim| sim.orders().lose_answers(2).unwrap());
        assert_eq!(sim.count("/events/duplicates"), 2 * batch);
        let sim = through(kind, |sim| sim.orders().refuse_what_is_accepted(500, 2).unwrap());
        assert_eq!(sim.count("/events/duplicates"), 2 * batch);
        let sim = through(kind, |sim| sim.orders().cut_requests(2).unwrap());
        assert_eq!(sim.count("/events/duplicates"), 0);
        let sim = through(kind, |sim| sim.orders().black_hole(1).unwrap());
        assert_eq!(sim.count("/events/duplicates"), 0);
        assert_eq!(sim.count("/requests/unanswered"), 1);
    }
}

#[test]
fn events_that_are_refused_are_found_and_go_to_the_dead_letters() {
    let (sim, site) = (Sim::start(), Site::new());
    let config = sim.config();
    let opened = site.open(&config);
    opened.raise("info", &named("a", 50));
    opened.raise("critical", &named("x", 50));
    sim.orders().reject_ids(&["a-7", "a-8", "a-49", "x-0"]).unwrap();
    let running = opened.publish(&config);
    running.wait_done();
    let good = |prefix: &str, bad: &[&str]| {
        let mut all = named(prefix, 50);
        all.retain(|id| !bad.contains(&id.as_str()));
        all
    };
    let expected = [good("x", &["x-0"]), good("a", &["a-7", "a-8", "a-49"])].concat();
    assert_eq!(sim.ids(), expected);
    let status = running.sink.status();
    assert_eq!((status.sent, status.quarantined, status.held), (96, 4, None));
    let (letters, told) = running.dead();
    assert_eq!(letters, 4);
    let codes: Vec<_> = told.iter().map(|event| (&event["type"], &event["data"]["code"])).collect();
    let expected = (&json!("io.penstock.alerts.dead-letter.v1"), &json!("InputJsonInvalid"));
    assert_eq!(codes, [expected; 4]);
    let seqs: Vec<_> = told.iter().filter_map(|event| event["data"]["seq"].as_u64()).collect();
    assert_eq!(seqs, [51, 8, 9, 50], "the critical one first");
    running.stop();
}

#[test]
fn what_is_too_large_is_given_up_without_asking() {
    let (sim, site) = (Sim::start(), Site::new());
    let running = site.start(&sim.config());
    running.raise("info", &named("a", 1));
    running.publish(&vec![b'7'; 1 << 20]);
    running.raise("info", &named("b", 1));
    running.wait_done();
    assert_eq!(sim.ids(), ["a-0", "b-0"]);
    let refused = sim.orders().counters().unwrap()["requests"]["refused"].clone();
    assert_eq!((running.sink.status().quarantined, refused), (1, json!({})));
    assert_eq!(running.dead().1[0]["data"]["reason"], "too-large");
    running.stop();
}

#[test]
fn what_a_namespace_finds_too_many_is_halved() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config_of(Kind::Namespace);
    (config.batch.events, config.batch.bytes) = (2_000, 1 << 20);
    let opened = site.open(&config);
    opened.raise("info", &named("a", 2_000));
    let running = opened.publish(&config);
    running.wait_done();
    assert_eq!((sim.count("/requests/refused/403"), sim.count("/requests/answered")), (1, 2));
    let status = running.sink.status();
    assert_eq!((sim.ids(), status.quarantined, status.held), (named("a", 2_000), 0, None));
    running.stop();
}

#[test]
fn what_the_service_finds_too_large_alone_is_given_up() {
    let (sim, site) = (Sim::start(), Site::new());
    let config = sim.config();
    let opened = site.open(&config);
    opened.raise("info", &named("a", 3));
    sim.orders().refuse(413, 2).unwrap();
    let running = opened.publish(&config);
    running.wait_done();
    assert_eq!((sim.ids(), running.sink.status().quarantined), (named("a", 3)[1..].to_vec(), 1));
    assert_eq!(running.dead().1[0]["data"]["reason"], "too-large");
    running.stop();
}

#[test]
fn with_the_dead_letters_full_everything_waits() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    config.dead_letter_bytes_max = 0;
    let opened = site.open(&config);
    opened.raise("info", &named("a", 3));
    sim.orders().reject_ids(&["a-1"]).unwrap();
    let running = opened.publish(&config);
    until("it waits", || running.sink.status().held == Some(Trouble::DeadLettersFull));
    assert_eq!((sim.ids(), running.sink.status().backlog), (named("a", 1), 2));
    sim.orders().clear().unwrap();
    running.wait_done();
    assert_eq!(sim.ids(), named("a", 3));
    running.stop();
}

#[test]
fn when_every_event_is_refused_only_some_are_given_up() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    config.retry.probe_interval = Duration::from_secs(3600);
    let opened = site.open(&config);
    opened.raise("info", &named("a", 100));
    let all = named("a", 100);
    let ids: Vec<&str> = all.iter().map(String::as_str).collect();
    sim.orders().reject_ids(&ids).unwrap();
    let running = opened.publish(&config);
    until("it waits", || running.sink.status().held == Some(Trouble::EverythingRefused));
    let status = running.sink.status();
    assert_eq!((status.quarantined, status.backlog, status.connected), (10, 90, false));
    running.stop();
    sim.orders().clear().unwrap();
    let running = site.start(&config);
    running.wait_done();
    assert_eq!(sim.ids(), all[10..]);
    running.stop();
}

#[test]
fn a_topic_that_is_gone_is_probed_and_everything_kept() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config_of(Kind::Namespace);
    let path = config.endpoint.url.path().replace(TOPIC, "other");
    config.endpoint.url.set_path(&path);
    let running = site.start(&config);
    running.raise("critical", &named("x", 5));
    until("it is probed", || sim.count("/requests/refused/410") >= 3);
    let status = running.sink.status();
    assert_eq!((status.held, status.backlog), (Some(Trouble::Configuration), 5));
    assert!(status.last_error.is_some_and(|error| error.contains("410") && error.contains("TopicNotFound")));
    running.stop();
    let running = site.start(&sim.config_of(Kind::Namespace));
    running.wait_done();
    assert_eq!(sim.ids(), named("x", 5));
    running.stop();
}
