//! One alert at a time: raised, changed, told again, resolved.

use super::*;

#[test]
fn an_alert_is_raised_once_and_resolved_once() {
    let mut world = World::new("");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.pass(MINUTE);
    world.check(&["raised boiler dev-1 warning :1"]);
    world.clear(BOILER, "dev-1");
    world.clear(BOILER, "dev-1");
    world.check(&["resolved boiler dev-1 warning :2"]);
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.check(&[]);
    let Counts { opened, repeated, cleared, unmatched, .. } = world.counts;
    assert_eq!((opened, repeated, cleared, unmatched), (1, 1, 1, 2));
}

#[test]
fn an_event_says_what_happened() {
    let mut world = World::new("");
    world.raise(BOILER, "dev 1/ü", Severity::Critical);
    let event = world.told.pop().expect("an event");
    // The digest of these parts, each behind its length, computed by another program.
    let id = "a1-b4b38a01c1aeae4e35ea14555ca41716";
    assert_eq!(event["data"]["alertId"], id);
    let expected = serde_json::json!({
        "specversion": "1.0",
        "id": format!("{id}:1"),
        "source": "/gateways/site-7",
        "type": "io.penstock.alert.raised.v1",
        "subject": "devices/dev%201%2F%C3%BC/metrics/temp_c",
        "time": "2026-11-21T11:59:59.9Z",
        "datacontenttype": "application/json",
        "gatewayid": "site-7",
        "deviceid": "dev 1/ü",
        "tenant": "acme",
        "ruleid": "boiler",
        "correlationid": id,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "sequence": "00000000000000000001",
        "severity": "critical",
        "data": {
            "alertId": id,
            "state": "raised",
            "transition": 1,
            "rule": { "id": "boiler", "version": 3, "runbook": "https://runbooks.example/boiler" },
            "severity": "critical",
            "startedAt": "2026-11-21T11:59:55Z",
            "observed": { "metric": "temp_c", "value": 106.5, "threshold": 105.0 },
            "origin": {
                "gateway": "site-7", "log": "00000000c0ffee12", "epoch": 3, "lane": "telemetry", "seq": 1001,
                "device": "dev 1/ü", "stream": "fast", "class": "boiler", "site": "paris", "tenant": "acme"
            },
            "labels": { "team": "ops" },
            "suppressed": 0
        }
    });
    assert_eq!(event, expected);
}

#[test]
fn subjects_with_and_without_a_metric_are_different() {
    let mut world = World::new("");
    for metric in [None, Some(""), Some("temp_c")] {
        let change = world.raised(Severity::Info);
        world.edge(SILENT, "dev-1", metric, change);
    }
    assert_eq!(world.lifecycle.open(), 3);
    let subjects: Vec<_> = world.told.iter().map(|event| event["subject"].as_str()).collect();
    let expected = ["devices/dev-1", "devices/dev-1/metrics/", "devices/dev-1/metrics/temp_c"];
    assert_eq!(subjects, expected.map(Some));
}

#[test]
fn another_severity_is_an_update_of_the_same_alert() {
    let mut world = World::new("");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.clear(BOILER, "dev-1");
    let ids: std::collections::BTreeSet<_> =
        world.told.iter().map(|event| event["correlationid"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    world.check(&[
        "raised boiler dev-1 warning :1",
        "updated boiler dev-1 critical :2 severity",
        "updated boiler dev-1 warning :3 severity",
        "resolved boiler dev-1 warning :4",
    ]);
}

#[test]
fn an_open_alert_is_told_again_after_the_interval() {
    let mut world = World::new("[alerting]\nrepeat_interval = \"1h\"");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.pass(30 * MINUTE);
    world.severity(BOILER, "dev-1", Severity::Critical);
    world.pass(59 * MINUTE);
    world.check(&["raised boiler dev-1 warning :1", "updated boiler dev-1 critical :2 severity"]);
    world.pass(MINUTE);
    let time = world.told[0]["time"].as_str().expect("a time").to_owned();
    assert_eq!(time, "2026-11-21T13:30:00Z", "no edge made it, so the stage's clock tells when");
    world.check(&["updated boiler dev-1 critical :3 repeat"]);
    world.pass(2 * HOUR);
    world.check(&["updated boiler dev-1 critical :4 repeat", "updated boiler dev-1 critical :5 repeat"]);
    world.clear(BOILER, "dev-1");
    world.pass(10 * HOUR);
    world.check(&["resolved boiler dev-1 critical :6"]);
    assert_eq!(world.lifecycle.next_due_ms(), None, "nothing is left to do");
    assert!(world.rows.keys().all(|key| key[1] >= 4), "closed alerts leave nothing but buckets");

    let mut world = World::new("[alerting]\nrepeat_interval = \"0s\"");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.pass(1000 * HOUR);
    world.check(&["raised boiler dev-1 warning :1"]);
}

#[test]
fn the_next_episode_is_another_alert() {
    let mut world = World::new("");
    for _ in 0..2 {
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.clear(BOILER, "dev-1");
    }
    assert_ne!(world.told[0]["correlationid"], world.told[2]["correlationid"]);
    let told: Vec<_> = world.told.iter().map(|event| event["sequence"].as_str()).collect();
    let [one, two] = ["00000000000000000001", "00000000000000000002"].map(Some);
    assert_eq!(told, [one, two, one, two]);
}

const FLAPPING: &str = "[alerting]\nflapping = { max_transitions = 4, window = \"1min\" }";

#[test]
fn an_alert_that_flaps_says_so_once_and_is_quiet_until_it_is_calm() {
    let mut world = World::new(FLAPPING);
    for _ in 0..20 {
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.pass(SECOND);
        world.clear(BOILER, "dev-1");
        world.pass(SECOND);
    }
    world.check(&[
        "raised boiler dev-1 warning :1",
        "resolved boiler dev-1 warning :2",
        "raised boiler dev-1 warning :1",
        "resolved boiler dev-1 warning :2",
        "flapping boiler dev-1 warning :1",
    ]);
    world.pass(58 * SECOND);
    world.check(&[]);
    world.pass(SECOND);
    world.check(&["resolved boiler dev-1 warning :2"]);
    world.pass(MINUTE);
    assert!(world.rows.keys().all(|key| key[1] >= 4), "what flapping needed is forgotten");

    // The same, but it holds when it calms down; and the table carries it over a restart.
    for _ in 0..3 {
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.restart();
        world.clear(BOILER, "dev-1");
    }
    world.raise(BOILER, "dev-1", Severity::Critical);
    world.told.drain(..4);
    world.pass(MINUTE);
    world.clear(BOILER, "dev-1");
    world.check(&[
        "flapping boiler dev-1 warning :1",
        "updated boiler dev-1 critical :2 calm",
        "resolved boiler dev-1 critical :3",
    ]);
}

#[test]
fn changes_that_are_far_apart_are_no_flapping() {
    let mut world = World::new(FLAPPING);
    for _ in 0..20 {
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.pass(13 * SECOND);
        world.clear(BOILER, "dev-1");
        world.pass(13 * SECOND);
    }
    assert_eq!((world.counts.told_flapping, world.counts.told_resolved), (1, 2), "five changes in 52 s");
    let mut world = World::new(FLAPPING);
    for _ in 0..20 {
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.pass(15 * SECOND);
        world.clear(BOILER, "dev-1");
        world.pass(15 * SECOND);
    }
    assert_eq!((world.counts.told_flapping, world.counts.told_resolved), (0, 20), "four changes in 60 s");
    let mut world = World::new("[alerting]\nflapping = { max_transitions = 0 }");
    for _ in 0..50 {
        world.raise(BOILER, "dev-1", Severity::Warning);
        world.clear(BOILER, "dev-1");
    }
    assert_eq!(world.counts.told_flapping, 0, "switched off");
    assert!(world.rows.keys().all(|key| key[1] != 2));
}

#[test]
fn what_is_remembered_for_flapping_is_bounded() {
    let mut world = World::new("[alerting]\nmax_open_alerts = 10");
    for n in 0..15 {
        let device = format!("dev-{n}");
        world.raise(BOILER, &device, Severity::Warning);
        world.clear(BOILER, &device);
        world.pass(SECOND);
    }
    assert_eq!((world.lifecycle.past.len(), world.counts.forgotten), (10, 5));
    assert_eq!(world.rows.keys().filter(|key| key[1] == 2).count(), 10);
}

#[test]
fn alerts_of_rules_that_are_gone_or_changed_are_resolved() {
    let mut world = World::new("");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(SILENT, "dev-2", Severity::Warning);
    world.raise(PRESSURE, "dev-3", Severity::Warning);
    world.told.clear();
    let mut rules = rules();
    rules.remove(0);
    rules[0].version = 9;
    rules[2].meaning = 8;
    world.pass(SECOND);
    world.replace("", rules.clone());
    world.check(&[
        "resolved boiler dev-1 warning :2 rule-removed",
        "resolved pressure dev-3 warning :2 rule-changed",
    ]);
    // Places are those of the new rules now.
    world.clear(0, "dev-2");
    world.check(&["resolved silent dev-2 warning :2"]);
    world.raise(0, "dev-2", Severity::Warning);
    assert_eq!(world.told[0]["data"]["rule"]["version"], 9);
    world.raise(9, "dev-2", Severity::Warning);
    assert_eq!(world.counts.unknown_rule, 1);

    // The same when they changed while the gateway was away.
    world.told.clear();
    rules.clear();
    world.rules = Arc::new(Rulebook::new(rules));
    world.restart();
    world.pass(0);
    world.check(&["resolved silent dev-2 warning :2 rule-removed"]);
}
