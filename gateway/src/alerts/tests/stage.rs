//! The stage from committed telemetry to events in lane alerts.

use std::time::Duration;

use penstock_proto::{Lane, Seq};

use super::super::Config;
use super::super::snapshot::{Folder, Snapshot};
use super::site::{HOT, Site, damage_snapshots, expected, parse, told, until};
use crate::outbox::{ConsumerId, Fault};
use crate::supervise::clock;

#[test]
fn a_breach_is_told_and_its_end_and_both_are_one_alert() {
    let mut site = Site::new();
    let mut running = site.start(HOT);
    for value in [80.0, 91.0, 95.0, 87.0] {
        site.publish(&running.outbox, "d1", value);
    }
    site.publish(&running.outbox, "d2", 99.0);
    site.publish(&running.outbox, "d1", 84.0);
    let events = running.wait_events(3);
    assert_eq!(told(&events), expected(&[("raised", "d1", 1), ("raised", "d2", 1), ("resolved", "d1", 2)]));
    assert_eq!(events[0]["correlationid"], events[2]["correlationid"], "one alert");
    assert_ne!(events[0]["correlationid"], events[1]["correlationid"]);
    assert_eq!(events[0]["data"]["origin"]["seq"], 2, "the first entry that showed it");
    running.stop();
}

#[test]
fn a_start_tells_nothing_again_and_ends_what_was_raised_before() {
    for power_cut in [None, Some(false), Some(true)] {
        let mut site = Site::new();
        let mut running = site.start(HOT);
        site.publish(&running.outbox, "d1", 95.0);
        let raised = running.wait_events(1);
        match power_cut {
            None => running.stop(),
            Some(power_cut) => running.kill(&site, power_cut),
        }
        let mut running = site.start(HOT);
        site.publish(&running.outbox, "d1", 96.0);
        site.publish(&running.outbox, "d1", 80.0);
        let events = running.wait_events(2);
        assert_eq!(told(&events), expected(&[("raised", "d1", 1), ("resolved", "d1", 2)]), "{power_cut:?}");
        assert_eq!(events[0], raised[0]);
        assert_eq!(events[0]["correlationid"], events[1]["correlationid"]);
        running.stop();
    }
}

#[test]
fn what_fails_to_become_durable_is_told_all_the_same_and_once() {
    for fault in [Fault::Lost, Fault::Kept] {
        let mut site = Site::new();
        let mut running = site.start(HOT);
        site.publish(&running.outbox, "d1", 80.0);
        assert!(running.events().is_empty());
        // The publish itself is written first; the batch with the alert is the next one.
        let before = running.outbox.epoch();
        site.publish(&running.outbox, "d1", 95.0);
        site.memory.fail_writes(&[fault]);
        until("the fault is met", || running.outbox.epoch() > before || !running.read().is_empty());
        site.memory.fail_writes(&[]);
        until("the store is open again", || running.outbox.status().poisoned.is_none());
        while !site.try_publish(&running.outbox, "d1", 80.0) {}
        let events = running.wait_events(2);
        assert_eq!(told(&events), expected(&[("raised", "d1", 1), ("resolved", "d1", 2)]), "{fault:?}");
        running.stop();
    }
}

#[test]
fn without_its_snapshot_an_alert_that_is_over_ends_and_one_that_holds_is_raised_anew() {
    let mut site = Site::new();
    let mut running = site.start(HOT);
    for device in ["over", "holds"] {
        site.publish(&running.outbox, device, 95.0);
    }
    running.wait_events(2);
    running.stop();
    assert_eq!(damage_snapshots(&site.snapshots()), 1, "a stop leaves one");
    let mut running = site.start(HOT);
    site.publish(&running.outbox, "holds", 95.0);
    site.publish(&running.outbox, "over", 80.0);
    let events = running.wait_events(5);
    let again = [("resolved", "over", 2), ("resolved", "holds", 2), ("raised", "holds", 1)];
    assert_eq!(told(&events[2..]), expected(&again));
    assert_ne!(events[1]["correlationid"], events[4]["correlationid"], "it is another alert");
    running.stop();
}

#[test]
fn an_alert_that_a_damaged_part_of_a_snapshot_forgot_ends() {
    let mut site = Site::new();
    let mut running = site.start(HOT);
    site.publish(&running.outbox, "d1", 95.0);
    running.wait_events(1);
    let log = running.outbox.log();
    running.stop();
    let folder = Folder::open(&site.snapshots()).expect("the folder");
    let snapshot = folder.read(Seq(2), log).expect("a stop leaves one");
    let damaged = Snapshot { evaluator: b"nothing".to_vec(), ..snapshot };
    folder.write(&damaged).expect("written");
    let mut running = site.start(HOT);
    site.publish(&running.outbox, "d1", 80.0);
    let events = running.wait_events(2);
    assert_eq!(told(&events), expected(&[("raised", "d1", 1), ("resolved", "d1", 2)]));
    running.stop();
}

#[test]
fn a_device_with_a_name_beyond_what_the_table_keeps_is_found_again() {
    let name = "ü".repeat(300);
    let mut site = Site::new();
    let mut running = site.start(HOT);
    for device in [name.as_str(), "d1"] {
        site.publish(&running.outbox, device, 95.0);
    }
    running.wait_events(2);
    running.kill(&site, false);
    // No snapshot was taken: the numbers are built from the whole log.
    let mut running = site.start(HOT);
    site.publish(&running.outbox, "d1", 96.0);
    assert_eq!(running.events().len(), 2, "both hold");
    for device in [name.as_str(), "d1"] {
        site.publish(&running.outbox, device, 80.0);
    }
    let events = running.wait_events(4);
    let words: Vec<_> = told(&events).into_iter().map(|(word, _, number)| (word, number)).collect();
    let both = |word: &str, number| vec![(word.to_owned(), number); 2];
    assert_eq!(words, [both("raised", 1), both("resolved", 2)].concat());
    assert_eq!(events[0]["correlationid"], events[2]["correlationid"], "one alert");
    running.stop();
}

#[test]
fn silence_is_not_counted_while_something_is_on_its_way_to_the_log() {
    const SILENT: &str = "[[rule]]\nid = \"silent\"\nkind = \"deadman\"\nexpect_every = \"1s\"\nmissed = 1\n";
    let mut site = Site::new();
    let mut running = site.start(SILENT);
    site.publish(&running.outbox, "d1", 1.0);
    // It may be the sign of life of any device.
    let on_its_way = running.outbox.appender().reserve(Lane::Telemetry, 100).expect("there is room");
    // After a start it is twice what the rule says.
    let due_ms = clock::unix_ms() + 2_000;
    until("the device would be silent", || clock::unix_ms() > due_ms + 200);
    assert_eq!(running.read(), [] as [serde_json::Value; 0]);
    drop(on_its_way);
    let events = running.wait_events(1);
    assert_eq!(told(&events), expected(&[("raised", "d1", 1)]));
    running.stop();
}

#[test]
fn rules_that_lag_too_far_behind_skip_and_say_so() {
    let mut site = Site::new();
    // The rules are not there while all this comes in.
    let silent = site.open(&super::super::consumers(&site.config()));
    for _ in 0..300 {
        site.publish(&silent, "d1", 95.0);
    }
    assert!(silent.close(clock::now() + Duration::from_secs(10)));
    let hasty = Config { lag_max: Duration::ZERO, ..site.config() };
    let mut running = site.start_with(HOT, &hasty);
    until("something is skipped", || running.alerts.status().skipped > 0);
    let skipped = |event: &serde_json::Value| event["type"] == "io.penstock.alerts.skipped.v1";
    let events = running.events();
    let messages: u64 = events
        .iter()
        .filter(|event| skipped(event))
        .filter_map(|event| event["data"]["messages"].as_u64())
        .sum();
    assert_eq!(messages, running.alerts.status().skipped, "all that was skipped is told");
    running.stop();
}

#[test]
fn another_limit_ends_what_the_old_one_raised() {
    let mut site = Site::new();
    let mut running = site.start(HOT);
    site.publish(&running.outbox, "d1", 95.0);
    running.wait_events(1);
    running.alerts.reload(Ok(parse(&HOT.replace("90", "94"))));
    let events = running.wait_events(2);
    assert_eq!(told(&events), expected(&[("raised", "d1", 1), ("resolved", "d1", 2)]));
    assert_eq!(running.alerts.status().rules, 1);
    site.publish(&running.outbox, "d1", 95.0);
    let events = running.wait_events(3);
    assert_eq!(told(&events[2..]), expected(&[("raised", "d1", 1)]));
    assert_ne!(events[0]["correlationid"], events[2]["correlationid"]);
    running.stop();
}

#[test]
fn a_table_of_an_earlier_life_is_no_storm() {
    let mut site = Site::new();
    let mut running = site.start(HOT);
    site.publish(&running.outbox, "d1", 95.0);
    running.wait_events(1);
    running.stop();
    // Without the section, the place of its consumer is forgotten.
    let silent = site.open(&[] as &[ConsumerId]);
    assert!(silent.close(clock::now() + Duration::from_secs(10)));
    let mut running = site.start("");
    assert_eq!(running.events().len(), 1);
    assert_eq!(running.alerts.status().open, 0);
    running.stop();
}
