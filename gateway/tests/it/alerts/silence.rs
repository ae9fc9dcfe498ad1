//! Devices that say nothing any more.

use super::{Site, alert_ids, outline};
use crate::hub;

const RULES: &str = r#"
[[rule]]
id = "silent"
kind = "deadman"
expect_every = "1s"
missed = 2
match = { device = "pump-*" }
"#;

#[test]
fn a_silent_device_is_told_of_and_its_return_too() {
    let site = Site::start(RULES);
    // Whatever it says is a sign of life.
    site.publish("pump-7", &["not JSON"]);
    let told = |count: usize| {
        hub::wait_for("an alert about the silence", || {
            let mut events = site.accepted();
            events.retain(|event| event["ruleid"] == "silent");
            (events.len() >= count).then_some(events)
        })
    };
    let raised = told(1);
    assert_eq!(outline(&raised), ["raised silent pump-7 1"]);
    assert_eq!(raised[0]["subject"], "devices/pump-7");
    assert!(raised[0]["data"]["observed"]["value"].is_null(), "{:#}", raised[0]);
    assert_eq!(raised[0]["data"]["origin"]["seq"], 1, "the last that was heard: {:#}", raised[0]);
    site.publish("pump-7", &[r#"{"temperature":20}"#]);
    let events = told(2);
    assert_eq!(outline(&events[..2]), ["raised silent pump-7 1", "resolved silent pump-7 2"]);
    assert_eq!(alert_ids(&events)[0], alert_ids(&events)[1]);
    assert!(outline(&events).iter().all(|line| line.contains(" pump-7 ")), "no rule watches others");
}

#[test]
fn a_gateway_that_was_away_waits_anew_before_it_calls_a_device_silent() {
    let mut site = Site::start(&RULES.replace("1s", "2s"));
    site.publish("pump-7", &["{}"]);
    site.gateway.kill().expect("killed");
    site.gateway.restart().expect("it starts again");
    let started_ms = penstock::supervise::clock::unix_ms();
    let event = hub::wait_for("an alert about the silence", || {
        site.accepted().into_iter().find(|event| event["ruleid"] == "silent")
    });
    // Twice what it usually waits; it was ready a moment before the clock was read.
    let waited_ms = penstock::supervise::clock::unix_ms() - started_ms;
    assert!(waited_ms >= 7000, "{waited_ms} ms after the start: {event:#}");
}
