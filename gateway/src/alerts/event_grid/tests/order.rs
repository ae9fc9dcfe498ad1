//! Critical events first; what a restart leaves; what an outage does not do.

use std::time::Duration;

use penstock_proto::Lane;

use super::harness::{Sim, Site, named, until};
use crate::alerts::Trouble;

#[test]
fn after_an_outage_the_critical_ones_come_first_and_each_kind_in_its_order() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    config.batch.events = 7;
    sim.orders().away(true).unwrap();
    let running = site.start(&config);
    running.raise("info", &named("a", 40));
    until("it was tried", || running.sink.status().last_error.is_some());
    running.raise("critical", &named("x", 12));
    running.raise("warning", &named("b", 40));
    running.raise("critical", &named("y", 9));
    assert!(!running.sink.status().connected && running.sink.status().backlog == 101);
    sim.orders().away(false).unwrap();
    running.wait_done();
    let ids = sim.ids();
    let critical = [named("x", 12), named("y", 9)].concat();
    assert_eq!(ids[..21], critical);
    assert_eq!(ids[21..], [named("a", 40), named("b", 40)].concat());
    assert_eq!(sim.count("/events/duplicates"), 0);
    running.stop();
}

#[test]
fn a_crash_forgets_nothing_of_what_was_sent_ahead() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    // The first of the others is refused and finds no place: everything behind it waits.
    config.dead_letter_bytes_max = 0;
    config.retry.probe_interval = Duration::from_secs(3600);
    let opened = site.open(&config);
    opened.raise("info", &named("a", 5));
    opened.raise("critical", &named("x", 5));
    opened.raise("info", &named("b", 5));
    sim.orders().reject_nth(6).unwrap();
    let running = opened.publish(&config);
    until("it waits", || running.sink.status().held == Some(Trouble::DeadLettersFull));
    assert_eq!((sim.ids(), running.sink.status().backlog), (named("x", 5), 10));
    let after = site.as_it_is();
    running.stop();
    sim.orders().clear().unwrap();
    let running = after.start(&config);
    running.wait_done();
    assert_eq!(sim.ids(), [named("x", 5), named("a", 5), named("b", 5)].concat());
    running.stop();
}

#[test]
fn only_what_was_in_flight_at_a_crash_comes_twice() {
    let (sim, site) = (Sim::start(), Site::new());
    let running = site.start(&sim.config());
    for (prefix, severity) in [("x", "critical"), ("a", "info"), ("b", "warning")] {
        running.raise(severity, &named(prefix, 10));
        running.wait_done();
    }
    sim.orders().delay(60_000).unwrap();
    running.raise("critical", &named("y", 10));
    until("the last are accepted", || sim.count("/events/accepted") == 40);
    let after = site.as_it_is();
    running.stop();
    sim.orders().delay(0).unwrap();
    let running = after.start(&sim.config());
    running.wait_done();
    let twice: Vec<_> = sim.orders().duplicates().unwrap();
    let mut ids: Vec<_> = twice.iter().map(|one| one.id.clone()).collect();
    ids.sort_unstable();
    assert_eq!((ids, sim.count("/events/distinct")), (named("y", 10), 40));
    assert!(twice.iter().all(|one| !one.differs && one.times == 2), "{twice:?}");
    running.stop();
}

#[test]
fn only_what_was_in_flight_at_a_stop_comes_twice() {
    let (sim, site) = (Sim::start(), Site::new());
    let mut config = sim.config();
    config.batch.events = 10;
    let opened = site.open(&config);
    opened.raise("info", &named("a", 30));
    // Accepted, and the answer comes when nobody waits for it any more.
    sim.orders().delay(60_000).unwrap();
    let running = opened.publish(&config);
    until("the first are there", || sim.count("/events/accepted") == 10);
    assert!(running.stop() < Duration::from_secs(5));
    sim.orders().delay(0).unwrap();
    let running = site.start(&config);
    running.wait_done();
    assert_eq!((sim.count("/events/distinct"), sim.count("/events/duplicates")), (30, 10));
    let twice: Vec<_> = sim.orders().duplicates().unwrap();
    assert!(twice.iter().all(|one| !one.differs && one.times == 2), "{twice:?}");
    running.stop();
}

#[test]
fn away_for_good_the_lane_grows_and_nothing_else_happens() {
    let (sim, site) = (Sim::start(), Site::new());
    sim.orders().away(true).unwrap();
    let running = site.start(&sim.config());
    for round in 0..20 {
        running.raise("critical", &named(&format!("x{round}"), 10));
        running.raise("info", &named(&format!("a{round}"), 40));
    }
    until("it was tried", || running.sink.status().last_error.is_some());
    let status = running.sink.status();
    assert_eq!((status.backlog, status.connected, status.held, status.sent), (1_000, false, None, 0));
    assert!(status.held_since_ms.is_some());
    let lanes = running.outbox.status().lanes;
    assert_eq!(lanes[Lane::Alerts.index()].backlog_messages, 1_000);
    assert_eq!(lanes[Lane::Dead.index()].backlog_messages, 0);
    running.stop();
    sim.orders().away(false).unwrap();
    let running = site.start(&sim.config());
    running.wait_done();
    assert_eq!((sim.count("/events/accepted"), sim.count("/events/distinct")), (1_000, 1_000));
    running.stop();
}

#[test]
fn a_stop_does_not_wait_for_an_answer_that_never_comes() {
    let (sim, site) = (Sim::start(), Site::new());
    sim.orders().black_hole(1_000).unwrap();
    let running = site.start(&sim.config());
    running.raise("critical", &named("x", 3));
    until("a request hangs", || sim.count("/requests/requests") == 1);
    assert!(running.stop() < Duration::from_secs(5));
    sim.orders().clear().unwrap();
    let running = site.start(&sim.config());
    running.wait_done();
    assert_eq!(sim.ids(), named("x", 3));
    running.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_pause_to_end() {
    let (sim, site) = (Sim::start(), Site::new());
    sim.orders().refuse_for(429, 1_000, 200).unwrap();
    let running = site.start(&sim.config());
    running.raise("critical", &named("x", 3));
    until("it is asked to wait", || sim.count("/requests/refused/429") == 1);
    assert!(running.stop() < Duration::from_secs(2));
}
