//! A destination that takes nothing until somebody changes something.

use std::fs;

use serde_json::Value;

use super::{HOT, Site, outline};
use crate::hub;

#[test]
fn a_key_that_is_refused_holds_alerts_until_the_file_has_the_new_one() {
    const NEW: &str = "YSBuZXcga2V5IGZvciB0aGUgc3RhbmQtaW4gb2YgR3JpZA==";
    let site = Site::start(HOT);
    site.publish("boiler-7", &[r#"{"temperature":95}"#]);
    site.told();
    site.event_grid().rotate_key(NEW).expect("it can");
    site.publish("boiler-7", &[r#"{"temperature":20}"#]);
    let sink = hub::wait_for("a held destination", || {
        let sink = site.sink();
        (sink["held"] == "credential" && sink["held_seconds"].is_f64()).then_some(sink)
    });
    assert_eq!(
        (&sink["backlog_messages"], &sink["connected"]),
        (&Value::from(1), &Value::Bool(false)),
        "{sink:#}"
    );
    assert!(sink["last_error"].as_str().is_some_and(|error| error.contains("401")), "{sink:#}");
    site.wait_for_metric("penstock_alerts_event_grid_held_destinations{reason=\"credential\"} 1");

    fs::write(&site.key, NEW).expect("written");
    assert_eq!(outline(&site.told()), ["raised hot boiler-7 1", "resolved hot boiler-7 2"]);
    site.wait_for_metric("penstock_alerts_event_grid_held_destinations{reason=\"credential\"} 0");
    let sink = site.sink();
    assert_eq!((&sink["held"], &sink["quarantined"]), (&Value::Null, &Value::from(0)), "{sink:#}");
}
