//! Storms, tokens and bounds.

use std::collections::BTreeSet;

use super::*;

const SMALL: &str = "[alerting]\nstorm = { when_open_in_group = 4 }\n";

#[test]
fn a_storm_speaks_for_its_group_and_ends_with_it() {
    let mut world = World::new(SMALL);
    for n in 0..6 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.raise(PRESSURE, "dev-0", Severity::Info);
    world.raise(BOILER, "dev-9", Severity::Critical);
    world.check(&[
        "raised boiler dev-0 warning :1",
        "raised boiler dev-1 warning :1",
        "raised boiler dev-2 warning :1",
        "raised pressure dev-0 info :1",
        // It goes out singly, and says that three others did not.
        "raised boiler dev-9 critical :1 +3",
    ]);
    world.pass(2 * SECOND);
    assert_eq!(
        world.told[0]["data"]["bySeverity"],
        serde_json::json!({ "info": 0, "warning": 6, "critical": 1 })
    );
    assert_eq!(world.told[0]["data"]["startedAt"], "2026-11-21T12:00:00Z");
    let devices = ["dev-9", "dev-0", "dev-1", "dev-2", "dev-3", "dev-4", "dev-5"];
    assert_eq!(world.told[0]["data"]["devices"], serde_json::json!(devices));
    assert_eq!(world.told[0]["subject"], "groups/tenant/acme/rule/boiler");
    assert_eq!(world.told[0]["tenant"], "acme");
    assert_eq!(world.told[0]["ruleid"], "boiler");
    world.check(&["storm raised acme boiler open=7 raised=7 critical :1"]);
    world.restart();
    world.pass(MINUTE - 1);
    for n in [0, 4, 5, 9] {
        world.clear(BOILER, &format!("dev-{n}"));
    }
    world.check(&["resolved boiler dev-0 warning :2", "resolved boiler dev-9 critical :2"]);
    world.pass(1);
    // Fewer are open, but some were raised within the interval: it may go on.
    world.check(&["storm updated acme boiler open=3 raised=7 critical :2"]);
    world.pass(MINUTE);
    world.check(&[
        "storm resolved acme boiler open=3 raised=7 critical :3",
        // What the storm covered and is open is told singly.
        "raised boiler dev-3 warning :1",
    ]);
    for n in 1..4 {
        world.clear(BOILER, &format!("dev-{n}"));
    }
    assert_eq!(world.told.len(), 3, "and so are the ends of all that were told");
    assert_eq!((world.lifecycle.open(), world.lifecycle.storms()), (1, 0), "the one of the other group");
}

#[test]
fn a_storm_that_does_not_change_is_told_again_after_the_repeat_interval_only() {
    let mut world = World::new("[alerting]\nstorm = { when_open_in_group = 2 }\nrepeat_interval = \"1h\"");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.raise(BOILER, "dev-2", Severity::Warning);
    world.pass(HOUR);
    world
        .check(&["raised boiler dev-1 warning :1", "storm raised acme boiler open=2 raised=2 warning :1 +1"]);
    world.pass(MINUTE);
    world.check(&["storm updated acme boiler open=2 raised=2 warning :2"]);
    // The repeat of the single alert waits behind the storm.
    world.clear(BOILER, "dev-2");
    world.pass(2 * MINUTE);
    world.check(&[
        "storm resolved acme boiler open=1 raised=2 warning :3",
        "updated boiler dev-1 warning :2 repeat",
    ]);
}

#[test]
fn a_flood_that_is_over_before_it_is_told_is_told_all_the_same() {
    let mut world = World::new(SMALL);
    for n in 0..10 {
        let device = format!("dev-{n}");
        world.raise(BOILER, &device, Severity::Warning);
        world.clear(BOILER, &device);
    }
    world.told.clear();
    world.pass(MINUTE);
    world.check(&["storm raised acme boiler open=0 raised=10 warning :1 +7"]);
    world.pass(2 * MINUTE);
    world.check(&["storm resolved acme boiler open=0 raised=10 warning :2"]);
}

#[test]
fn groups_are_what_the_policy_says() {
    let check = |group_by: &str, storms: &[&str]| {
        let text = format!("[alerting]\ngroup_by = {group_by}\nstorm = {{ when_open_in_group = 3 }}");
        let mut world = World::new(&text);
        for tenant in [Some("acme"), None] {
            world.tenant = tenant;
            for rule in [SILENT, PRESSURE] {
                let name = tenant.unwrap_or("nobody");
                world.raise(rule, &format!("{name}-1"), Severity::Info);
                world.raise(rule, &format!("{name}-2"), Severity::Warning);
            }
        }
        world.pass(3 * SECOND);
        world.told.retain(|event| event["type"] == "io.penstock.alert.storm.v1");
        for event in &mut world.told {
            event["data"]["suppressed"] = 0.into();
        }
        world.check(storms);
    };
    check("[]", &["storm raised open=8 raised=8 warning :1"]);
    check(
        "[\"tenant\"]",
        &["storm raised acme open=4 raised=4 warning :1", "storm raised open=4 raised=4 warning :1"],
    );
    let by_severity = [
        "storm raised paris info open=4 raised=4 info :1",
        "storm raised paris warning open=4 raised=4 warning :1",
    ];
    check("[\"severity\", \"site\"]", &by_severity);
    check("[\"tenant\", \"rule\"]", &[]);
    check("\"class\"", &["storm raised boiler open=8 raised=8 warning :1"]);
}

#[test]
fn a_severity_that_makes_it_critical_breaks_through_a_storm() {
    let mut world = World::new(SMALL);
    for n in 0..8 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.told.clear();
    world.severity(BOILER, "dev-7", Severity::Critical);
    world.check(&["raised boiler dev-7 critical :1 +4"]);
    world.severity(BOILER, "dev-7", Severity::Warning);
    world.check(&[]);
    world.clear(BOILER, "dev-7");
    world.check(&["resolved boiler dev-7 warning :2"]);
}

#[test]
fn a_new_grouping_ends_storms_and_tells_what_they_covered() {
    let mut world = World::new(SMALL);
    for n in 0..5 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.pass(2 * SECOND);
    world.told.clear();
    world.replace("[alerting]\ngroup_by = [\"tenant\"]", rules());
    world.check(&[
        "storm resolved acme boiler open=5 raised=5 warning :2 regrouped",
        "raised boiler dev-3 warning :1",
        "raised boiler dev-4 warning :1",
    ]);
    assert!(world.rows.keys().all(|key| key[1] != 3), "no group has anything to remember");

    // And when that was changed while the gateway was away.
    let mut world = World::new(SMALL);
    for n in 0..5 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.pass(2 * SECOND);
    world.told.clear();
    world.policy = policy("[alerting]\ngroup_by = [\"tenant\"]");
    world.restart();
    world.pass(MINUTE);
    world.check(&[
        "raised boiler dev-3 warning :1",
        "raised boiler dev-4 warning :1",
        "storm resolved acme boiler open=0 raised=5 warning :2",
    ]);
}

const SLOW: &str =
    "[alerting]\nmax_rate = { events_per_s = 1, burst = 3 }\nstorm = { when_open_in_group = 100 }\n";

#[test]
fn what_gets_no_token_is_told_in_order_when_tokens_return() {
    let mut world = World::new(SLOW);
    for n in 0..6 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.check(&[
        "raised boiler dev-0 warning :1",
        "raised boiler dev-1 warning :1",
        "raised boiler dev-2 warning :1",
    ]);
    assert_eq!((world.lifecycle.held(), world.counts.held), (3, 3));
    world.clear(BOILER, "dev-4");
    world.clear(BOILER, "dev-0");
    world.restart();
    world.pass(SECOND);
    world.check(&["resolved boiler dev-0 warning :2 +3"]);
    world.raise(BOILER, "dev-6", Severity::Warning);
    world.pass(3 * SECOND);
    world.check(&[
        "raised boiler dev-3 warning :1",
        "raised boiler dev-5 warning :1",
        "raised boiler dev-6 warning :1",
    ]);
    assert_eq!(world.lifecycle.held(), 0);
}

#[test]
fn an_alert_that_comes_back_before_its_end_was_told_is_the_same() {
    let mut world = World::new("[alerting]\nmax_rate = { events_per_s = 1, burst = 1 }");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.clear(BOILER, "dev-1");
    world.raise(BOILER, "dev-1", Severity::Warning);
    world.pass(HOUR);
    world.check(&["raised boiler dev-1 warning :1"]);
    world.clear(BOILER, "dev-1");
    world.check(&["resolved boiler dev-1 warning :2"]);
}

#[test]
fn critical_alerts_have_their_own_bucket_and_wait_in_order() {
    let mut world = World::new(SLOW);
    for n in 0..5 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.told.clear();
    for n in 5..15 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Critical);
    }
    assert_eq!(world.told.len(), 6, "twice the burst");
    world.told.clear();
    world.pass(SECOND);
    world.check(&[
        "raised boiler dev-11 critical :1 +3",
        "raised boiler dev-12 critical :1",
        "raised boiler dev-3 warning :1",
    ]);
    world.pass(10 * SECOND);
    assert_eq!((world.lifecycle.held(), world.counts.told_raised), (0, 15));
}

#[test]
fn a_tenant_has_a_share_and_does_not_hold_up_others() {
    let mut world = World::new("[alerting]\ntenant_rate = { events_per_s = 0.5, burst = 2 }");
    for n in 0..4 {
        world.raise(BOILER, &format!("dev-{n}"), Severity::Warning);
    }
    world.tenant = Some("other");
    world.raise(BOILER, "dev-9", Severity::Warning);
    world.check(&[
        "raised boiler dev-0 warning :1",
        "raised boiler dev-1 warning :1",
        "raised boiler dev-9 warning :1",
    ]);
    world.pass(2 * SECOND);
    world.check(&["raised boiler dev-2 warning :1 +1"]);
}

#[test]
fn more_than_may_wait_makes_a_storm_of_its_group() {
    let mut world = World::new(&format!("{SLOW}held_max = 5"));
    for n in 0..20 {
        world.raise(BOILER, &format!("dev-{n:02}"), Severity::Warning);
    }
    assert_eq!(
        (world.lifecycle.held(), world.lifecycle.storms()),
        (0, 1),
        "the storm covers those that waited"
    );
    world.told.clear();
    world.pass(2 * SECOND);
    world.check(&["storm raised acme boiler open=20 raised=20 warning :1 +17"]);
    for n in 0..20 {
        world.clear(BOILER, &format!("dev-{n:02}"));
    }
    world.pass(HOUR);
    assert_eq!((world.lifecycle.open(), world.counts.told_resolved, world.counts.told_storm), (0, 3, 2));
}

#[test]
fn what_there_is_no_room_for_is_told_as_a_number() {
    let mut world = World::new("[alerting]\nmax_open_alerts = 10");
    for n in 0..15 {
        world.raise(BOILER, &format!("dev-{n:02}"), Severity::Warning);
    }
    world.raise(BOILER, "worse-1", Severity::Critical);
    world.raise(BOILER, "worse-2", Severity::Critical);
    assert_eq!((world.lifecycle.open(), world.counts.untracked), (11, 6), "one more if it is critical");
    world.told.drain(..10);
    world.pass(2 * SECOND);
    world.check(&[
        "raised boiler worse-1 critical :1 +5",
        "storm raised acme boiler open=11 raised=17 untracked=6 critical :1 +1",
    ]);
    world.clear(BOILER, "dev-14");
    assert_eq!(world.counts.unmatched, 1);
    world.pass(2 * MINUTE);
    world.check(&["storm resolved acme boiler open=11 raised=17 untracked=6 critical :2"]);
}

#[test]
fn the_number_of_groups_is_bounded() {
    let names: Vec<&'static str> =
        (0..11_000).map(|n| &*Box::leak(format!("tenant-{n}").into_boxed_str())).collect();
    let mut world = World::new("[alerting]\nmax_open_alerts = 1\nmax_rate = { burst = 1000000 }");
    for tenant in &names {
        world.tenant = Some(tenant);
        world.raise(BOILER, tenant, Severity::Warning);
        world.clear(BOILER, tenant);
    }
    assert_eq!(world.lifecycle.groups.len(), super::super::GROUPS_MAX);
    assert!(world.lifecycle.tenants.len() <= super::super::TENANTS_MAX + 1);
    assert_eq!(world.counts.told_raised, 10_100, "tenants that come later share a bucket");
    let mut world = World::new("[alerting]\nmax_open_alerts = 1");
    world.raise(BOILER, "dev-0", Severity::Warning);
    for tenant in &names {
        world.tenant = Some(tenant);
        world.raise(BOILER, "dev-1", Severity::Warning);
    }
    let groups = world.lifecycle.groups.len();
    assert_eq!((groups, world.lifecycle.storms()), (super::super::GROUPS_MAX + 1, super::super::GROUPS_MAX));
}

/// A hundred thousand devices are the figure to meet; ten thousand are enough to reach every bound here.
#[test]
fn ten_thousand_devices_in_a_second() {
    let mut world = World::new("");
    let mut critical = 0;
    for n in 0..10_000 {
        let severity = if n % 20 == 0 { Severity::Critical } else { Severity::Warning };
        critical += usize::from(severity == Severity::Critical);
        world.raise(if n % 2 == 0 { BOILER } else { PRESSURE }, &format!("dev-{n:05}"), severity);
        if n % 10 == 0 {
            world.pass(1);
        }
    }
    world.pass(4 * SECOND);
    let storms = world.told.iter().filter(|event| event["type"] == "io.penstock.alert.storm.v1");
    assert_eq!(storms.clone().count(), 2, "one for each group");
    for storm in storms {
        assert_eq!(storm["data"]["devices"].as_array().map(Vec::len), Some(20));
        assert_eq!(storm["data"]["open"], 5000);
    }
    world.pass(MINUTE);
    let mut told = BTreeSet::new();
    for event in &world.told {
        if event["severity"] == "critical" && event["data"]["state"] == "raised" {
            told.insert(event["deviceid"].to_string());
        }
    }
    // Without the storm of rule boiler, which is critical and has no device.
    told.remove("null");
    assert_eq!(told.len(), critical, "every critical one goes out");
    let single = world.told.len() - critical;
    assert!(single <= 500 + 65 * 50, "{single}: the burst, and 50 in each second");
    assert_eq!(world.lifecycle.held(), 0);
}

/// What ten thousand open alerts cost; the time is printed only, since tests share the machine.
#[test]
fn an_open_alert_costs_little() {
    let mut world = World::new("");
    let devices: Vec<_> = (0..10_000).map(|n| format!("dev-{n:05}")).collect();
    let begin = crate::supervise::clock::steady_ms();
    let mut out = Effects::default();
    for device in &devices {
        let change = world.raised(Severity::Warning);
        let subject = Subject { rule: BOILER, device, metric: Some("temp_c") };
        let edge = Edge {
            subject,
            change,
            observed: Some(106.5),
            at_ms: NOON,
            tenant: Some("acme"),
            site: Some("paris"),
            class: None,
            stream: None,
            traceparent: None,
        };
        world.lifecycle.take(&edge, NOON, &mut out);
    }
    world.lifecycle.flush(&mut out);
    let took = crate::supervise::clock::steady_ms() - begin;
    let alert = size_of::<super::super::alert::Alert>();
    println!(
        "10,000 raises in {took} ms, {} bytes of rows, {alert} bytes an alert and its texts",
        out.table.bytes()
    );
    assert!(alert <= 400 && out.table.bytes() < 4_000_000);
}
