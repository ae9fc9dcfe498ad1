//! SIGHUP: other rules under a running gateway.

use serde_json::Value;

use super::{HOT, MARKER, Site, alert_ids, outline};
use crate::hub;

const PRESSED: &str = r#"
[[rule]]
id = "pressed"
metric = "pressure"
raise = "> 5"
"#;
const GONE: &str = r#"
[[rule]]
id = "gone"
metric = "humidity"
raise = "> 5"
"#;
const USED: &str = "penstock_alerts_reloads_total{result=\"used\"} 1";
const REFUSED: &str = "penstock_alerts_reloads_total{result=\"refused\"} 1";

#[test]
fn alerts_of_a_rule_that_changed_end_and_begin_anew_and_others_stay() {
    let mut site = Site::start(&format!("{HOT}{PRESSED}{GONE}"));
    site.publish("boiler-7", &[r#"{"temperature":95,"pressure":6,"humidity":6}"#]);
    let before = site.told();
    let mut raised = outline(&before);
    raised.sort_unstable();
    assert_eq!(raised, ["raised gone boiler-7 1", "raised hot boiler-7 1", "raised pressed boiler-7 1"]);

    let changed = HOT.replace("> 90", "> 92");
    site.reread(&format!("{changed}{PRESSED}{MARKER}"));
    site.wait_for_metric(USED);
    let ended = site.told().split_off(3);
    let reasons = |events: &[Value]| {
        let mut reasons: Vec<_> = events
            .iter()
            .map(|event| format!("{} {}", event["data"]["rule"]["id"], event["data"]["reason"]))
            .collect();
        reasons.sort_unstable();
        reasons
    };
    assert_eq!(reasons(&ended), [r#""gone" "rule-removed""#, r#""hot" "rule-changed""#]);
    assert!(ended.iter().all(|event| event["data"]["state"] == "resolved"), "{ended:#?}");

    site.publish("boiler-7", &[r#"{"temperature":95,"pressure":7,"humidity":7}"#]);
    let anew = site.told().split_off(5);
    assert_eq!(outline(&anew), ["raised hot boiler-7 1"], "what did not change goes on");
    assert_eq!(anew[0]["data"]["observed"]["threshold"], 92.0);
    assert!(!alert_ids(&before).contains(&alert_ids(&anew)[0]), "another rule, another alert");

    site.publish("boiler-7", &[r#"{"temperature":80,"pressure":1}"#]);
    let mut ends = outline(&site.told().split_off(6));
    ends.sort_unstable();
    assert_eq!(ends, ["resolved hot boiler-7 2", "resolved pressed boiler-7 2"]);
}

#[test]
fn a_file_that_is_not_toml_changes_nothing_and_is_logged() {
    let mut site = Site::start(HOT);
    site.publish("boiler-7", &[r#"{"temperature":95}"#]);
    site.told();
    site.reread("[[rule]\nid = \"hot\"\n");
    site.wait_for_metric(REFUSED);
    let log = site.log();
    let line = log.lines().find(|line| line.contains("the old stay")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("rules.toml:1:"), "the place is named: {line}");
    assert_eq!(site.status()["rules"], 2);
    site.publish("boiler-7", &[r#"{"temperature":96}"#, r#"{"temperature":80}"#]);
    assert_eq!(outline(&site.told()), ["raised hot boiler-7 1", "resolved hot boiler-7 2"]);
}

#[test]
fn one_bad_rule_keeps_only_itself_out_until_it_is_mended() {
    let bad = PRESSED.replace("> 5", "much");
    let mut site = Site::start(&format!("{HOT}{bad}"));
    let status = site.status();
    assert_eq!(status["rules"], 2, "the good one and the marker: {status:#}");
    let errors: Vec<&str> =
        status["rule_errors"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let [error] = errors[..] else { panic!("one error: {errors:?}") };
    for part in ["rules.toml:", "pressed", "much"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    site.wait_for_metric("penstock_alerts_rules{state=\"in-force\"} 2");
    site.wait_for_metric("penstock_alerts_rules{state=\"left-out\"} 1");
    assert!(site.log().contains("a rule is left out"), "{}", site.log());
    site.publish("boiler-7", &[r#"{"temperature":95,"pressure":6}"#]);
    assert_eq!(outline(&site.told()), ["raised hot boiler-7 1"]);

    site.reread(&format!("{HOT}{PRESSED}{MARKER}"));
    site.wait_for_metric("penstock_alerts_rules{state=\"left-out\"} 0");
    hub::wait_for("no errors", || (site.status()["rule_errors"] == Value::Array(Vec::new())).then_some(()));
    site.publish("boiler-7", &[r#"{"temperature":95,"pressure":6}"#]);
    assert_eq!(outline(&site.told()), ["raised hot boiler-7 1", "raised pressed boiler-7 1"]);
}
