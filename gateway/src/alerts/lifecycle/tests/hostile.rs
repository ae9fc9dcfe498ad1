//! Names that devices and rule files may think of: every event stays valid and small.

use proptest::prelude::*;

use super::*;

fn tell_all(device: &str, tenant: &'static str, metric: &str) -> Vec<Value> {
    let mut rules = rules();
    let long = |n: usize| "\u{1}".repeat(n).into_boxed_str();
    rules[0].labels = (0..40).map(|n| (format!("{n}").into(), long(120))).collect();
    rules[0].id = long(100);
    rules[0].runbook = Some(long(1024));
    let mut world = World::new("[alerting]\nstorm = { when_open_in_group = 2 }");
    world.replace("[alerting]\nstorm = { when_open_in_group = 2 }", rules);
    world.tenant = Some(tenant);
    for name in [device.to_owned(), format!("{device}2"), format!("3{device}")] {
        for severity in [Severity::Warning, Severity::Critical] {
            let change = world.raised(severity);
            world.edge(BOILER, &name, Some(metric), change);
        }
    }
    world.restart();
    world.pass(5 * MINUTE);
    for name in [device.to_owned(), format!("{device}2"), format!("3{device}")] {
        world.edge(BOILER, &name, Some(metric), Change::Cleared);
    }
    world.pass(5 * MINUTE);
    assert_eq!(world.lifecycle.open(), 0);
    assert!(world.counts.labels_cut > 0);
    assert!(world.counts.told_storm >= 2 && world.counts.told_resolved == 3);
    world.told
}

#[test]
fn names_of_any_kind_give_valid_events() {
    let nasty = [
        "\0",
        "\u{1}\n\r\t",
        "\"\\/",
        "\u{fffe}\u{fdd0}\u{1ffff}",
        "ü😀\u{202e}",
        "%2F..%",
        "a b",
        "\u{7f}\u{85}",
    ];
    for name in nasty {
        tell_all(name, Box::leak(name.to_owned().into_boxed_str()), name);
        tell_all("dev", "", "");
    }
}

#[test]
fn the_largest_event_is_below_the_bound() {
    let long: &'static str = Box::leak("\u{1}".repeat(64 << 10).into_boxed_str());
    let told = tell_all(long, long, long);
    let largest = told.iter().map(|event| event.to_string().len()).max().unwrap_or_default();
    println!("the largest event has {largest} bytes");
    assert!((30 << 10..strict::BYTES_MAX).contains(&largest), "{largest}");
    // Cut names are still different.
    let devices: std::collections::BTreeSet<_> =
        told.iter().map(|event| event["data"]["origin"]["device"].to_string()).collect();
    assert_eq!(devices.len(), 4, "three and, of storms, none");
}

#[test]
fn numbers_that_are_none_and_traces_that_are_none_are_left_out() {
    let mut world = World::new("");
    let change = Change::Raised {
        severity: Severity::Info,
        threshold: Some(f64::NAN),
        score: Some(f64::INFINITY),
        episode: Position { log: LogId(1), epoch: Epoch(1), lane: Lane::Bulk, seq: Seq(u64::MAX) },
        started_ms: u64::MAX,
    };
    let edge = Edge {
        subject: Subject { rule: SILENT, device: "d", metric: None },
        change,
        observed: Some(f64::NEG_INFINITY),
        at_ms: u64::MAX,
        tenant: None,
        site: None,
        class: None,
        stream: None,
        traceparent: Some("00-not-a-trace"),
    };
    let now = world.now;
    world.commit(|lifecycle, out| lifecycle.take(&edge, now, out));
    world.restart();
    assert_eq!(world.told[0]["data"]["observed"], serde_json::json!({}));
    assert!(world.told[0].get("traceparent").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_name_gives_valid_events(device in ".{1,40}", metric in "\\PC{0,20}") {
        tell_all(&device, "acme", &metric);
    }
}

#[test]
fn a_name_that_was_cut_still_names_its_alert() {
    let mut world = World::new("");
    let change = world.raised(Severity::Warning);
    let (device, metric) = ("ü".repeat(1000), "m".repeat(1000));
    world.edge(PRESSURE, &device, Some(&metric), change);
    let holding = world.lifecycle.holding();
    let [(rule, device, metric)] = holding.as_slice() else { panic!("{holding:?}") };
    assert!(device.len() <= 512 && metric.as_deref().is_some_and(|metric| metric.len() <= 256));
    world.edge(*rule, device, metric.as_deref(), Change::Cleared);
    assert_eq!((world.lifecycle.open(), world.counts.told_resolved), (0, 1));
}
