//! State that is written and read goes on as if nothing had happened.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Evaluator, Junk, Limits};
use super::{Bench, Seen, origin, rules};
use crate::alerts::nouns::Origin;

/// A rule or more of every kind, quick to be raised.
pub(super) const EVERY_KIND: &str = r#"
[[rule]]
id = "threshold"
metric = "x"
raise = "> 1"
clear = "< 0"
critical = { raise = "> 50" }
for = "2s"
keep_firing_for = "3s"

[[rule]]
id = "boilers"
metric = "x"
raise = "> 0"
match = { class = "boiler", device = ["a", "b*"] }

[[rule]]
id = "rate"
kind = "rate"
metric = "y"
raise = "> 1 per s"
over = "2s"

[[rule]]
id = "stuck"
kind = "stuck"
metric = "y"
for = "5s"
when = "z > 0"

[[rule]]
id = "drift"
kind = "drift"
metric = "x"
fast = "2s"
slow = "60s"
raise = "> 1 deviations"
warmup = "20s"

[[rule]]
id = "silent"
kind = "deadman"
expect_every = "5s"
missed = 2

[[rule]]
id = "joint"
kind = "expr"
expr = "x > 0 && y > 0 && z != 1"
max_staleness = "20s"
for = "1s"

[[rule]]
id = "learned"
kind = "learned"
metrics = ["x", "z"]
input = { every = "2s" }
warmup = "0s"
cooldown = "20s"
sensitivity = 100
"#;

type Record = (u8, u8, i8, u64, u8);

fn records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec((0..4_u8, 0..3_u8, -3..3_i8, 0..5_000_u64, 0..40_u8), 2..200)
}

fn feed(bench: &mut Bench, now_ms: &mut u64, (device, metric, value, step, what): Record) -> Vec<Seen> {
    *now_ms += step;
    let mut edges = bench.advance(*now_ms);
    let device = ["a", "b", "c", "d"][usize::from(device)];
    let metric = ["x", "y", "z"][usize::from(metric)];
    let class = if what == 0 { "pump" } else { "boiler" };
    let from = Origin { now_ms: *now_ms, class: Some(class), ..origin(device) };
    let value = f64::from(value) * if what > 30 { 100.0 } else { 1.0 };
    edges.extend(bench.entry(from, &[(metric, value, *now_ms)]));
    if what == 3 {
        bench.evaluator.hold(*now_ms);
    }
    edges
}

fn encoded(evaluator: &Evaluator) -> Vec<u8> {
    let mut bytes = vec![9];
    evaluator.encode(&mut bytes);
    assert_eq!(bytes.remove(0), 9, "appended");
    bytes
}

/// A new evaluator that goes on from the state of another.
fn restored(bench: &Bench, limits: Limits) -> Bench {
    let bytes = encoded(&bench.evaluator);
    let mut evaluator = Evaluator::new(Arc::clone(&bench.rules), limits);
    evaluator.decode(&bytes).expect("our own bytes");
    assert_eq!(encoded(&evaluator), bytes);
    assert_eq!(evaluator.series(), bench.evaluator.series());
    Bench { rules: Arc::clone(&bench.rules), evaluator, seq: bench.seq }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_restored_state_goes_on_exactly(records in records(), cut in any::<prop::sample::Index>()) {
        let mut whole = Bench::new(EVERY_KIND);
        let cut = cut.index(records.len());
        let mut now_ms = 1_000_000;
        for record in &records[..cut] {
            feed(&mut whole, &mut now_ms, *record);
        }
        let mut again = restored(&whole, Limits::default());
        let mut then_ms = now_ms;
        for record in &records[cut..] {
            prop_assert_eq!(feed(&mut again, &mut then_ms, *record), feed(&mut whole, &mut now_ms, *record));
        }
        prop_assert_eq!(again.advance(now_ms + 100_000), whole.advance(now_ms + 100_000));
        prop_assert_eq!(encoded(&again.evaluator), encoded(&whole.evaluator));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic(
        records in records(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bench = Bench::new(EVERY_KIND);
        let mut now_ms = 1_000_000;
        for record in records {
            feed(&mut bench, &mut now_ms, record);
        }
        let mut bytes = encoded(&bench.evaluator);
        let at = at.index(bytes.len());
        let mut evaluator = Evaluator::new(Arc::clone(&bench.rules), Limits::default());
        if cut {
            prop_assert!(evaluator.decode(&bytes[..at]).is_err());
            prop_assert_eq!(evaluator.devices(), 0);
        } else {
            bytes[at] = byte;
            if evaluator.decode(&bytes).is_ok() {
                let mut read = Bench { rules: Arc::clone(&bench.rules), evaluator, seq: bench.seq };
                read.advance(now_ms + 1_000_000);
                read.device("a", &[("x", 1.0, now_ms), ("y", 2.0, now_ms), ("z", 3.0, now_ms)]);
            }
        }
    }
}

#[test]
fn states_of_rules_that_changed_are_left_out_and_counted() {
    let mut bench = Bench::new(EVERY_KIND);
    let mut now_ms = 1_000_000;
    for second in 0..20_u8 {
        for (device, metric) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)] {
            feed(&mut bench, &mut now_ms, (device, metric, 2, 1_000, second + 4));
        }
    }
    let bytes = encoded(&bench.evaluator);
    let text =
        EVERY_KIND.replace("> 1\"", "> 1.5\"").replace("expect_every = \"5s\"", "expect_every = \"6s\"");
    let mut other = Evaluator::new(rules(&text), Limits::default());
    other.decode(&bytes).expect("our own bytes");
    // Of the threshold two devices have more than nothing to tell, of the silence three.
    assert_eq!(other.counts().outdated, 5);
    assert_eq!(other.devices(), 3);
    let mut none = Evaluator::new(rules(""), Limits::default());
    none.decode(&bytes).expect("our own bytes");
    assert_eq!((none.series(), none.devices()), (0, 3));
}

#[test]
fn a_snapshot_larger_than_the_bounds_is_read_as_far_as_they_go() {
    let mut bench = Bench::new(EVERY_KIND);
    for device in ["a", "b", "c", "d"] {
        bench.device(device, &[("x", 1.0, 1_000)]);
    }
    let bytes = encoded(&bench.evaluator);
    let series = bench.evaluator.series();
    let mut small = Evaluator::new(
        Arc::clone(&bench.rules),
        Limits { series_max: series - 1, devices_max: 3, ..Limits::default() },
    );
    small.decode(&bytes).expect("our own bytes");
    assert_eq!((small.devices(), small.counts().devices_refused, small.counts().series_refused), (3, 1, 0));
    let mut smaller = Evaluator::new(
        Arc::clone(&bench.rules),
        Limits { series_max: 7, devices_max: 9, ..Limits::default() },
    );
    smaller.decode(&bytes).expect("our own bytes");
    assert!(smaller.series() <= 7 && smaller.devices() == 4 && smaller.counts().series_refused > 0);
}

#[test]
fn versions_and_lengths_are_checked() {
    let mut evaluator = Evaluator::new(rules(EVERY_KIND), Limits::default());
    let mut bytes = encoded(&evaluator);
    bytes.push(0);
    assert_eq!(evaluator.decode(&bytes), Err(Junk::Long));
    bytes[0] = 2;
    assert_eq!(evaluator.decode(&bytes), Err(Junk::Version(2)));
    assert_eq!(evaluator.decode(&[]), Err(Junk::Short));
}
