//! What operators see of the path: what came in, what was told, what was sent.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{HOT, Site};
use crate::hub;

fn metrics(site: &Site) -> HashMap<String, f64> {
    let text = site.gateway.health("/metrics").expect("it answers").expect("metrics");
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

#[test]
fn status_and_metrics_account_for_everything_between_reading_and_event_grid() {
    let site = Site::start(HOT);
    // Five messages with eight numbers in four of them; two conditions, of which one ends.
    site.publish("boiler-1", &[r#"{"temperature":95}"#, r#"{"temperature":96}"#, r#"{"temperature":20}"#]);
    site.publish("boiler-2", &[r#"{"temperature":"91"}"#, r#"{"temperature":95}"#, "junk"]);
    assert_eq!(site.told().len(), 3);
    let expected = json!({
        "rules": 2, "rule_errors": [], "series": 3, "open": 2, "lag_messages": 0, "skipped_messages": 0,
    });
    // What the rules stand at is shown a moment later than what was sent.
    let status = hub::wait_for("all to be sent and shown", || {
        let status = site.status();
        (status["sinks"][0]["sent"] == 4 && status["open"] == 2).then_some(status)
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(status[key], *value, "{key} of {status:#}");
    }
    let sink = &status["sinks"][0];
    for (key, value) in [
        ("name", json!("event-grid")),
        ("host", json!("127.0.0.1")),
        ("connected", json!(true)),
        ("held", Value::Null),
        ("held_seconds", Value::Null),
        ("quarantined", json!(0)),
        ("backlog_messages", json!(0)),
    ] {
        assert_eq!(sink[key], value, "{key} of {sink:#}");
    }
    let found = metrics(&site);
    let check = |name: &str, expected: f64| {
        let value = found.get(name).copied();
        assert_eq!(value, Some(expected), "{name}");
    };
    // Six of the boilers and one marker.
    check("penstock_alerts_records_total", 7.0);
    check("penstock_alerts_messages_read_total{form=\"json\"}", 6.0);
    check("penstock_alerts_lag_messages", 0.0);
    check("penstock_alerts_conditions_total{change=\"raised\"}", 3.0);
    check("penstock_alerts_conditions_total{change=\"cleared\"}", 1.0);
    check("penstock_alerts_events_total{what=\"raised\"}", 3.0);
    check("penstock_alerts_events_total{what=\"resolved\"}", 1.0);
    check("penstock_alerts_events_total{what=\"storm\"}", 0.0);
    check("penstock_alerts_open", 2.0);
    check("penstock_alerts_series", 3.0);
    check("penstock_alerts_rules{state=\"in-force\"}", 2.0);
    check("penstock_alerts_event_grid_events_sent_total", 4.0);
    check("penstock_alerts_event_grid_connected_destinations", 1.0);
    let page = site.event_grid().events_after(u64::MAX).expect("it answers");
    assert_eq!(page.accepted, 4, "and Event Grid has as many");
    let unread: f64 = found
        .iter()
        .filter(|(name, _)| {
            name.starts_with("penstock_alerts_messages_untouched_total")
                || name.starts_with("penstock_alerts_messages_refused_total")
        })
        .map(|(_, value)| value)
        .sum();
    assert_eq!(unread, 1.0, "the junk is counted by its reason");
}
