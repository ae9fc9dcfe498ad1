//! Event Grid goes away and comes back.

use std::time::Duration;

use penstock::supervise::clock;
use serde_json::Value;

use super::{Site, outline};
use crate::client::Device;
use crate::hub::{self, NOTHING};

const RULES: &str = r#"
[[rule]]
id = "warm"
metric = "temperature"
raise = "> 70"
match = { device = "boiler-*" }

[[rule]]
id = "leak"
metric = "leak"
raise = "> 0"
severity = "critical"
"#;
/// Readings of each measurement of how fast they are acknowledged.
const READINGS: u16 = 2000;

#[test]
fn an_outage_of_event_grid_delays_alerts_and_nothing_else() {
    let site = Site::start(RULES);
    let mut pump = Device::connect(site.gateway.mqtt(), "pump-7");
    let mut took = |upto: u16| {
        let start = clock::now();
        assert_eq!(pump.pump(32, upto, |_| ()), upto);
        clock::now() - start
    };
    let usual = took(READINGS);
    site.event_grid().away(true).expect("it can go away");
    for device in ["boiler-1", "boiler-2", "boiler-3"] {
        site.publish(device, &[r#"{"temperature":75}"#]);
    }
    for device in ["pump-1", "pump-2"] {
        site.publish(device, &[r#"{"leak":1}"#]);
    }
    let during = took(2 * READINGS);
    // One that waited for Event Grid would wait for ever.
    let bound = usual * 4 + Duration::from_secs(3);
    assert!(during < bound, "{READINGS} readings took {usual:?} before and {during:?} during the outage");
    let sink = hub::wait_for("five alerts that wait", || {
        let sink = site.sink();
        (sink["backlog_messages"] == 5 && sink["connected"] == false && sink["last_error"].is_string())
            .then_some(sink)
    });
    assert_eq!((&sink["sent"], &sink["held"]), (&Value::from(0), &Value::Null), "{sink:#}");
    assert!(site.accepted().is_empty());
    assert!(site.gateway.health("/readyz").expect("it answers").is_some(), "an outage never fails readiness");

    site.event_grid().away(false).expect("it can come back");
    let expected = [
        "raised leak pump-1 1",
        "raised leak pump-2 1",
        "raised warm boiler-1 1",
        "raised warm boiler-2 1",
        "raised warm boiler-3 1",
    ];
    assert_eq!(outline(&site.told()), expected, "the worst first, then the oldest");
    let sink = hub::wait_for("an empty backlog", || {
        let sink = site.sink();
        (sink["backlog_messages"] == 0).then_some(sink)
    });
    assert_eq!(sink["connected"], true, "{sink:#}");
    assert_eq!(hub::missing(&site.cloud, "pump-7", 2 * READINGS), NOTHING);
}

#[test]
fn an_answer_that_is_lost_repeats_an_event_and_changes_nothing_of_it() {
    let site = Site::start(RULES);
    site.event_grid().lose_answers(2).expect("it can");
    site.publish("boiler-1", &[r#"{"temperature":75}"#]);
    // The same contents each time, or this fails.
    assert_eq!(outline(&site.told()), ["raised warm boiler-1 1"]);
    let repeats = site.event_grid().duplicates().expect("it answers");
    assert_eq!(repeats.iter().map(|one| (one.times, one.differs)).collect::<Vec<_>>(), [(3, false)]);
}
