//! From a reading to an event.

use serde_json::{Value, json};

use super::{HOT, Site, alert_ids, outline};
use crate::hub;

#[test]
fn a_breach_is_told_once_and_its_end_under_the_same_id() {
    let rules = format!("{HOT}runbook = \"https://wiki.example/boilers\"\nlabels = {{ team = \"heat\" }}\n",);
    let site = Site::start(&rules);
    let readings =
        [80, 95, 97, 89, 99].map(|value| format!("{{\"reading\":{value},\"temperature\":{value}}}"));
    site.publish("boiler-7", &readings.each_ref().map(String::as_str));
    let raised = site.told();
    assert_eq!(outline(&raised), ["raised hot boiler-7 1"], "however long it lasts");
    site.publish("boiler-7", &[r#"{"reading":86,"temperature":86}"#, r#"{"reading":84,"temperature":84}"#]);
    let events = site.told();
    assert_eq!(outline(&events), ["raised hot boiler-7 1", "resolved hot boiler-7 2"]);
    let [raised, resolved] = &events[..] else { unreachable!() };

    let ids = alert_ids(&events);
    assert_eq!(ids[0], ids[1]);
    assert!(ids[0].starts_with("a1-") && ids[0].len() == 35, "{}", ids[0]);
    for (event, transition) in [(raised, 1), (resolved, 2)] {
        let check = |pointer: &str, expected: Value| {
            assert_eq!(event.pointer(pointer), Some(&expected), "{pointer} of {event:#}");
        };
        check("/specversion", json!("1.0"));
        check("/id", json!(format!("{}:{transition}", ids[0])));
        check("/source", json!("/gateways/edge-01"));
        check("/subject", json!("devices/boiler-7/metrics/temperature"));
        check("/deviceid", json!("boiler-7"));
        check("/gatewayid", json!("edge-01"));
        check("/correlationid", json!(ids[0]));
        check("/sequence", json!(format!("{transition:020}")));
        check("/severity", json!("critical"));
        check("/data/severity", json!("critical"));
        check("/data/state", json!(if transition == 1 { "raised" } else { "resolved" }));
        check("/data/rule/runbook", json!("https://wiki.example/boilers"));
        check("/data/labels", json!({ "team": "heat" }));
        check("/data/observed/metric", json!("temperature"));
        check("/data/observed/value", json!(if transition == 1 { 95.0 } else { 84.0 }));
        check("/data/observed/threshold", json!(90.0));
        check("/data/startedAt", raised["data"]["startedAt"].clone());
    }
    // The second entry of telemetry showed it.
    assert_eq!(raised["data"]["origin"]["lane"], "telemetry");
    assert_eq!(raised["data"]["origin"]["seq"], 2, "{raised:#}");
    // Telemetry itself takes its own way, all of it.
    let arrived = || hub::readings(&site.cloud, "boiler-7");
    let all = [80, 84, 86, 89, 95, 97, 99];
    hub::wait_for("the readings", || arrived().into_keys().eq(all).then_some(()));
}

#[test]
fn an_alert_that_gets_worse_is_told_again_as_the_same() {
    let rules = r#"
[[rule]]
id = "warm"
metric = "temperature"
raise = "> 70"
clear = "< 65"
critical = { raise = "> 90", clear = "< 85" }
"#;
    let site = Site::start(rules);
    for value in [75, 95, 80, 60] {
        site.publish("boiler-7", &[&format!("{{\"temperature\":{value}}}")]);
        // One after the other: critical ones may overtake others on their way.
        site.told();
    }
    let events = site.told();
    let expected = [
        "raised warm boiler-7 1",
        "updated warm boiler-7 2",
        "updated warm boiler-7 3",
        "resolved warm boiler-7 4",
    ];
    assert_eq!(outline(&events), expected);
    let severities: Vec<&Value> = events.iter().map(|event| &event["data"]["severity"]).collect();
    assert_eq!(severities[..3], ["warning", "critical", "warning"], "{severities:?}");
    assert!(alert_ids(&events).iter().all(|id| *id == alert_ids(&events)[0]));
}
