//! Silent devices.

use super::{Bench, Seen, origin, shorts};
use crate::alerts::nouns::{Change, Origin};

const RULE: &str = "[[rule]]\nid = \"r\"\nkind = \"deadman\"\nexpect_every = \"10s\"\nmissed = 3\n";

/// A record without samples at a second.
fn heard(bench: &mut Bench, device: &str, second: u64) -> Vec<Seen> {
    bench.entry(Origin { now_ms: second * 1_000, ..origin(device) }, &[])
}

#[test]
fn a_device_that_missed_its_records_is_silent_until_the_next() {
    let mut bench = Bench::new(RULE);
    assert!(heard(&mut bench, "d", 100).is_empty());
    assert!(heard(&mut bench, "d", 120).is_empty());
    assert!(bench.advance(149_999).is_empty());
    let edges = bench.advance(160_000);
    assert_eq!(shorts(&edges), ["raised warning @150000 #2"]);
    assert_eq!((edges[0].observed, edges[0].metric.as_deref()), (None, None));
    let Change::Raised { started_ms, threshold, .. } = edges[0].change else { panic!("{edges:?}") };
    assert_eq!((started_ms, threshold), (120_000, None));
    assert!(bench.advance(900_000).is_empty());
    assert_eq!(shorts(&heard(&mut bench, "d", 1_000)), ["cleared @1000000"]);
    assert_eq!(shorts(&bench.advance(1_030_000)), ["raised warning @1030000 #3"]);
}

#[test]
fn only_devices_that_the_rule_selects_are_watched_and_any_record_is_a_sign_of_life() {
    let mut bench = Bench::new(&format!("{RULE}match = {{ class = \"boiler\", stream = \"main\" }}"));
    let at = |device, stream, class, second: u64| Origin {
        stream: Some(stream),
        class: Some(class),
        now_ms: second * 1_000,
        ..origin(device)
    };
    bench.entry(at("pump", "main", "pump", 100), &[]);
    bench.entry(at("aux", "aux", "boiler", 100), &[]);
    bench.entry(at("d", "main", "boiler", 100), &[]);
    bench.entry(at("d", "aux", "boiler", 120), &[]);
    assert!(bench.advance(140_000).is_empty());
    let edges = bench.advance(1_000_000);
    assert_eq!(edges.iter().map(|edge| &*edge.device).collect::<Vec<_>>(), ["d"]);
    assert_eq!(shorts(&edges), ["raised warning @150000 #4"]);
}

#[test]
fn silence_is_told_in_the_order_in_which_it_began_however_often_one_asks() {
    let feed = |bench: &mut Bench| {
        for (device, second) in [("z", 90), ("c", 100), ("b", 101), ("a", 101)] {
            heard(bench, device, second);
        }
    };
    let (mut often, mut once) = (Bench::new(RULE), Bench::new(RULE));
    feed(&mut often);
    feed(&mut once);
    let mut seen = Vec::new();
    while let Some(due_ms) = often.evaluator.next_due_ms() {
        seen.extend(often.advance(due_ms));
    }
    assert_eq!(seen, once.advance(1_000_000));
    assert_eq!(seen.iter().map(|edge| &*edge.device).collect::<Vec<_>>(), ["z", "c", "a", "b"]);
    assert_eq!(once.evaluator.next_due_ms(), None);
}

#[test]
fn after_a_hold_silence_counts_from_there_and_twice() {
    let mut bench = Bench::new(RULE);
    heard(&mut bench, "d", 100);
    heard(&mut bench, "e", 100);
    bench.evaluator.hold(500_000);
    assert!(bench.advance(559_999).is_empty());
    heard(&mut bench, "e", 559);
    let edges = bench.advance(560_000);
    assert_eq!(
        edges.iter().map(|edge| (&*edge.device, edge.short())).collect::<Vec<_>>(),
        [("d", "raised warning @560000 #1".to_owned())]
    );
    assert_eq!(shorts(&bench.advance(600_000)), ["raised warning @589999 #3"]);
}

#[test]
fn a_rule_that_comes_later_watches_from_the_next_record() {
    let mut bench = Bench::new("");
    heard(&mut bench, "d", 100);
    assert!(bench.replace(RULE).is_empty());
    assert!(bench.advance(1_000_000).is_empty());
    heard(&mut bench, "d", 1_000);
    assert_eq!(bench.advance(2_000_000).len(), 1);
    // A rule that means the same goes on; one that does not is cleared, and watches anew.
    assert!(bench.replace(&format!("{RULE}runbook = \"x\"")).is_empty());
    assert_eq!(shorts(&bench.replace(&RULE.replace("missed = 3", "missed = 4"))), ["cleared @2000000"]);
    assert!(bench.advance(3_000_000).is_empty());
    assert!(heard(&mut bench, "d", 3_000).is_empty());
    assert_eq!(shorts(&bench.advance(3_040_000)), ["raised warning @3040000 #3"]);
}

#[test]
fn timers_go_on_when_rules_are_replaced() {
    let mut bench = Bench::new(RULE);
    heard(&mut bench, "d", 100);
    assert!(bench.replace(&format!("{RULE}labels = {{ a = \"b\" }}")).is_empty());
    assert_eq!(shorts(&bench.advance(130_000)), ["raised warning @130000 #1"]);
}

#[test]
fn timers_of_rules_that_a_device_left_are_forgotten_when_they_are_due() {
    let mut bench = Bench::new(&format!("{RULE}match = {{ class = \"boiler\" }}"));
    for round in 0..20_u64 {
        for class in ["boiler", "a", "b", "c", "d", "e", "f", "g", "h"] {
            let from = Origin { class: Some(class), now_ms: 100_000 + round * 1_000, ..origin("d") };
            bench.entry(from, &[]);
        }
    }
    // The class was left each time.
    assert_eq!(bench.evaluator.series(), 0);
    heard(&mut bench, "d", 120);
    assert_eq!(bench.evaluator.timers(), 21);
    assert!(bench.advance(149_999).is_empty());
    assert_eq!(bench.evaluator.timers(), 1);
    assert_eq!(shorts(&bench.advance(150_000)), ["raised warning @150000 #181"]);
}
