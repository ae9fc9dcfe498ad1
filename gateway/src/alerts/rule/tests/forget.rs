//! Devices that are gone for good.

use super::{Bench, Seen};
use crate::alerts::rule::Limits;

const RULES: &str = r#"
[[rule]]
id = "hot"
metric = "x"
raise = "> 10"
min_samples = 2

[[rule]]
id = "silent"
kind = "deadman"
expect_every = "10h"
missed = 10
match = { device = "watched-*" }
"#;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The beginning of an hour.
const START_MS: u64 = 1_000 * DAY_MS;

fn bench(limits: Limits) -> Bench {
    Bench::limited(RULES, Limits { forget_after_ms: DAY_MS, ..limits })
}

fn devices(bench: &Bench) -> Vec<String> {
    let mut names: Vec<_> = bench.evaluator.names().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_device_that_says_nothing_for_long_begins_anew() {
    let mut bench = bench(Limits::default());
    bench.device("d", &[("x", 20.0, START_MS)]);
    bench.device("other", &[("x", 5.0, START_MS + HOUR_MS / 2)]);
    let series = bench.evaluator.series();
    bench.advance(START_MS + DAY_MS - 1);
    assert_eq!(devices(&bench), ["d", "other"]);
    bench.advance(START_MS + DAY_MS);
    assert_eq!((devices(&bench), bench.evaluator.series()), (vec!["other".to_owned()], series / 2));
    assert_eq!(bench.evaluator.counts().forgotten, 1);
    // The second in a row that is too high, were the first not forgotten.
    assert_eq!(bench.device("d", &[("x", 20.0, START_MS + DAY_MS + 1)]), []);
    assert_eq!(bench.device("d", &[("x", 20.0, START_MS + DAY_MS + 2)]).len(), 1);
}

#[test]
fn what_is_raised_and_who_is_watched_for_silence_is_remembered() {
    let mut bench = bench(Limits::default());
    for at_ms in [START_MS, START_MS + 1] {
        bench.device("raised", &[("x", 20.0, at_ms)]);
    }
    bench.device("watched-1", &[("x", 5.0, START_MS)]);
    bench.device("quiet", &[("x", 5.0, START_MS)]);
    let silent = bench.advance(START_MS + 50 * DAY_MS);
    assert_eq!(silent.len(), 1, "{silent:?}");
    assert_eq!(devices(&bench), ["raised", "watched-1"]);
    let at_ms = START_MS + 50 * DAY_MS + 1;
    assert_eq!(bench.device("raised", &[("x", 5.0, at_ms)]).len(), 1, "it is cleared");
    assert_eq!(bench.device("watched-1", &[]).len(), 1, "and so is that");
    bench.advance(START_MS + 52 * DAY_MS);
    assert_eq!(devices(&bench), ["watched-1"]);
}

#[test]
fn there_is_room_again_and_who_moves_up_keeps_its_timers() {
    let mut bench = bench(Limits { devices_max: 3, ..Limits::default() });
    for (device, at_ms) in [("a", START_MS), ("b", START_MS), ("watched-1", START_MS + 2 * HOUR_MS)] {
        bench.device(device, &[("x", 5.0, at_ms)]);
    }
    bench.device("c", &[("x", 5.0, START_MS + 2 * HOUR_MS)]);
    assert_eq!(bench.evaluator.counts().devices_refused, 1);
    bench.advance(START_MS + DAY_MS);
    assert_eq!(devices(&bench), ["watched-1"]);
    for device in ["c", "d"] {
        bench.device(device, &[("x", 5.0, START_MS + DAY_MS)]);
    }
    assert_eq!(bench.evaluator.counts().devices_refused, 1);
    let due_ms = START_MS + 2 * HOUR_MS + 100 * HOUR_MS;
    assert_eq!(bench.advance(due_ms - 1), []);
    let silent: Vec<String> = bench.advance(due_ms).into_iter().map(|seen| seen.device).collect();
    assert_eq!(silent, ["watched-1"]);
}

/// What comes out must not depend on when the clock was looked at between two entries: while the gateway is idle it is, and
/// when the log is read again it is not.
#[test]
fn reading_the_log_again_forgets_the_same_devices() {
    let entries: Vec<(String, f64, u64)> = (0..400_u64)
        .map(|n| {
            let (device, gap) = (n * 7 % 26, (n * 13 % 11) * HOUR_MS / 3);
            (format!("d{device}"), if n % 3 == 0 { 5.0 } else { 20.0 }, START_MS + n * HOUR_MS + gap)
        })
        .collect();
    let run = |idle: bool| {
        let mut bench = bench(Limits::default());
        let mut seen: Vec<Seen> = Vec::new();
        let mut now_ms = START_MS;
        for (device, value, at_ms) in &entries {
            while idle && now_ms + HOUR_MS / 4 < *at_ms {
                now_ms += HOUR_MS / 4;
                seen.extend(bench.advance(now_ms));
            }
            now_ms = now_ms.max(*at_ms);
            seen.extend(bench.advance(now_ms));
            seen.extend(bench.device(device, &[("x", *value, now_ms)]));
        }
        (seen, devices(&bench), bench.evaluator.counts().forgotten)
    };
    let (idle, again) = (run(true), run(false));
    assert!(idle.2 > 20, "{} were forgotten", idle.2);
    assert_eq!(idle, again);
}
