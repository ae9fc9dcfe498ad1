//! Rules that learn: when they raise and clear, and that what they have learned outlives everything it should.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::evaluator::state_bytes;
use super::super::{Evaluator, Limits};
use super::{Bench, Seen, origin, rules, shorts};
use crate::alerts::nouns::{Change, Origin};

const MINUTE: u64 = 60_000;
/// At midnight, in UTC.
const START: u64 = 1_767_225_600_000;
const RULE: &str = "[[rule]]\nid = \"l\"\nkind = \"learned\"\nmetrics = [\"x\", \"y\"]\nwarmup = \"1h\"\n\
                    cooldown = \"10m\"\nseason = \"none\"\nseverity = \"info\"\n";

/// Noise of about 1 around 20, the same wherever it is made.
fn noise(seed: u64, at: u64) -> f64 {
    let mut sum = 0.0;
    for part in 0..12_u64 {
        let mut z =
            seed.wrapping_mul(1_000_003).wrapping_add(at * 12 + part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        sum += ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    }
    20.0 + sum - 6.0
}

/// A sample a minute from one minute to another, each with the value that `value` makes of the noise.
fn minutes(bench: &mut Bench, from: u64, to: u64, value: impl Fn(u64, f64) -> f64) -> Vec<Seen> {
    let mut seen = Vec::new();
    for minute in from..to {
        let at_ms = START + minute * MINUTE;
        seen.extend(bench.device("d", &[("x", value(minute, noise(1, minute)), at_ms)]));
    }
    seen
}

/// The minute of an edge, and what it says.
fn told(seen: &[Seen]) -> Vec<(u64, &'static str)> {
    let tell = |edge: &Seen| {
        let what = match edge.change {
            Change::Raised { .. } => "raised",
            Change::Severity { .. } => "severity",
            Change::Cleared => "cleared",
        };
        ((edge.at_ms - START) / MINUTE, what)
    };
    seen.iter().map(tell).collect()
}

fn encoded(evaluator: &Evaluator) -> Vec<u8> {
    let mut bytes = Vec::new();
    evaluator.encode(&mut bytes);
    bytes
}

fn restored(bench: &Bench, bytes: &[u8], limits: Limits) -> Bench {
    let mut evaluator = Evaluator::new(Arc::clone(&bench.rules), limits);
    evaluator.decode(bytes).expect("bytes of a snapshot");
    Bench { rules: Arc::clone(&bench.rules), evaluator, seq: bench.seq }
}

#[test]
fn a_spike_raises_once_and_clears_when_the_cooldown_is_over() {
    let mut bench = Bench::new(RULE);
    let seen = minutes(&mut bench, 0, 700, |minute, noise| if minute == 600 { noise + 12.0 } else { noise });
    // The window of minute 600 is complete with the sample of 601. Ten minutes after that of 600 is the one of 610.
    assert_eq!(told(&seen), [(601, "raised"), (611, "cleared")], "{seen:?}");
    let Change::Raised { severity, threshold, score, episode, started_ms } = seen[0].change else { panic!() };
    assert_eq!((severity.name(), started_ms), ("info", START + 600 * MINUTE));
    // The first entry of the window, which is the 601st of all.
    assert_eq!(episode.seq.0, 601);
    let (threshold, score) = (threshold.expect("a limit"), score.expect("a score"));
    assert!(threshold > 0.5 && score >= threshold && score < 1.0, "{score} {threshold}");
    assert_eq!((seen[0].metric.as_deref(), seen[0].observed), (Some("x"), Some(noise(1, 600) + 12.0)));
    assert_eq!((bench.evaluator.learned(), bench.evaluator.series()), (1, 1));
}

#[test]
fn a_shift_raises_once_and_is_the_new_normal_in_the_end() {
    let mut bench = Bench::new(RULE);
    let seen = minutes(&mut bench, 0, 2_000, |minute, noise| if minute >= 600 { noise + 6.0 } else { noise });
    let told = told(&seen);
    assert_eq!(told.first(), Some(&(601, "raised")), "{told:?}");
    assert_eq!(told.len(), 2, "raised once and cleared once: {told:?}");
    assert_eq!(told[1].1, "cleared");
    assert!((611..700).contains(&told[1].0), "{told:?}");
}

#[test]
fn nothing_is_raised_during_the_warm_up() {
    let wild = |minute: u64, noise: f64| if minute % 50 == 49 { noise * 100.0 } else { noise };
    let mut bench = Bench::new(&RULE.replace("1h", "1d"));
    assert_eq!(minutes(&mut bench, 0, 1_440, wild), []);
    // Without one it is as long as forty windows.
    let mut bench = Bench::new(&RULE.replace("1h", "0s"));
    assert_eq!(minutes(&mut bench, 0, 40, |minute, noise| if minute == 38 { 1e6 } else { noise }), []);
}

#[test]
fn samples_of_a_window_become_one() {
    for (aggregate, expected) in [("mean", 26.0), ("min", 12.0), ("max", 52.0), ("last", 22.0)] {
        let rule =
            format!("{RULE}input = {{ aggregate = \"{aggregate}\", every = \"1m\" }}\nsensitivity = 100\n");
        let mut bench = Bench::new(&rule);
        let mut seen = Vec::new();
        for minute in 0..605_u64 {
            let values = if minute == 600 { [12.0, 52.0, 18.0, 22.0] } else { [1.0, 1.0, 1.0, 1.0] };
            for (quarter, value) in (0..).zip(values) {
                // Not at the same places of each window.
                let at_ms = START + minute * MINUTE + quarter * 15_000 + minute % 7 * 1_000;
                seen.extend(bench.device("d", &[("x", value, at_ms)]));
            }
        }
        assert_eq!(seen.first().and_then(|edge| edge.observed), Some(expected), "{aggregate}");
        assert_eq!(shorts(&seen[..1]), [format!("raised info @{} #2401", START + 601 * MINUTE + 6_000)]);
    }
}

#[test]
fn missing_windows_and_late_samples_are_no_reason_for_alarm() {
    let mut bench = Bench::new(RULE);
    let (mut seen, mut late) = (Vec::new(), 0);
    for minute in 0..3_000_u64 {
        // Every third is missing, and once a whole day.
        if minute % 3 == 1 || (1_000..2_440).contains(&minute) {
            continue;
        }
        let at_ms = START + minute * MINUTE + noise(3, minute).to_bits() % 50_000;
        seen.extend(bench.device("d", &[("x", noise(1, minute), at_ms)]));
        // What comes late is counted and means nothing.
        seen.extend(bench.device("d", &[("x", 1e6, at_ms - 1)]));
        late += 1;
    }
    assert_eq!(seen, []);
    assert_eq!(bench.evaluator.counts().late, late);
}

#[test]
fn a_clock_that_jumps_ends_and_begins_nothing_by_itself() {
    let mut bench = Bench::new(RULE);
    assert_eq!(minutes(&mut bench, 0, 600, |_, noise| noise), []);
    // A month ahead, and back: what is earlier is late until it is not.
    assert_eq!(minutes(&mut bench, 43_800, 43_810, |_, noise| noise), []);
    assert_eq!(minutes(&mut bench, 610, 700, |_, _| 1e9), []);
    assert_eq!(bench.evaluator.counts().late, 90);
    assert_eq!(minutes(&mut bench, 43_810, 44_000, |_, noise| noise), []);
    let seen =
        minutes(&mut bench, 44_000, 44_020, |minute, noise| if minute == 44_000 { 40.0 } else { noise });
    assert_eq!(told(&seen), [(44_001, "raised"), (44_011, "cleared")]);
}

#[test]
fn as_many_series_are_learned_as_there_may_be() {
    let mut bench = Bench::limited(RULE, Limits { learned_max: 3, ..Limits::default() });
    for minute in 0..3 {
        for device in ["a", "b", "c"] {
            let at_ms = START + minute * MINUTE;
            bench.device(device, &[("x", 1.0, at_ms), ("y", 1.0, at_ms)]);
        }
    }
    // The second of b and both of c, three times.
    assert_eq!((bench.evaluator.learned(), bench.evaluator.counts().learned_refused), (3, 9));
    let bytes = encoded(&bench.evaluator);
    let small = restored(&bench, &bytes, Limits { learned_max: 2, ..Limits::default() });
    assert_eq!((small.evaluator.learned(), small.evaluator.counts().learned_refused), (2, 1));
    assert_eq!(restored(&bench, &bytes, Limits::default()).evaluator.learned(), 3);
}

#[test]
fn a_rule_that_means_the_same_goes_on_and_another_begins_anew() {
    let spiked = |minute: u64, noise: f64| if minute == 600 { noise + 12.0 } else { noise };
    let mut bench = Bench::new(RULE);
    assert_eq!(told(&minutes(&mut bench, 0, 605, spiked)), [(601, "raised")]);
    let same = format!("{}labels = {{ a = \"b\" }}\n", RULE.replace("[\"x\", \"y\"]", "[\"y\", \"x\"]"));
    let more = "[[rule]]\nid = \"other\"\nmetric = \"a\"\nraise = \"> 1\"\n";
    assert_eq!(bench.replace(&format!("{more}{same}")), []);
    assert_eq!(bench.evaluator.learned(), 1);
    assert_eq!(told(&minutes(&mut bench, 605, 700, spiked)), [(611, "cleared")]);
    // Still warm.
    let seen =
        minutes(&mut bench, 700, 703, |minute, noise| if minute == 700 { noise + 60.0 } else { noise });
    assert_eq!(told(&seen), [(701, "raised")]);
    let ended = bench.replace(&RULE.replace("10m", "11m"));
    assert_eq!((told(&ended), bench.evaluator.learned()), (vec![(702, "cleared")], 0));
    assert_eq!(minutes(&mut bench, 703, 740, |minute, noise| if minute == 735 { 1e6 } else { noise }), []);
    assert_eq!(bench.evaluator.learned(), 1);
}

#[test]
fn what_raises_and_what_clears_follows_the_meaning() {
    let version = |text: &str| rules(text).rule(0).version;
    let plain = version(RULE);
    for same in ["\"y\", \"x\"", "\"x\", \"y\""] {
        assert_eq!(version(&RULE.replace("\"x\", \"y\"", same)), plain);
    }
    for more in
        ["input = { every = \"1m\" }", "budget = \"1 per series per 7d\"", "learn_while_firing = false"]
    {
        assert_eq!(version(&format!("{RULE}{more}\n")), plain, "{more}");
    }
    for more in [
        "input = { every = \"2m\" }",
        "input = { aggregate = \"max\" }",
        "budget = \"1 per series per 8d\"",
        "sensitivity = 90",
        "learn_while_firing = true",
        "version = 2",
    ] {
        assert_ne!(version(&format!("{RULE}{more}\n")), plain, "{more}");
    }
    for (old, new) in
        [("10m", "11m"), ("1h", "2h"), ("none", "hour_of_day"), ("info", "warning"), (", \"y\"", "")]
    {
        assert_ne!(version(&RULE.replace(old, new)), plain, "{new}");
    }
}

#[test]
fn a_damaged_series_is_learned_anew_and_the_others_go_on() {
    let mut whole = Bench::new(RULE);
    let value = |minute: u64, seed: u64| noise(seed, minute) + if minute == 600 { 12.0 } else { 0.0 };
    let feed = |bench: &mut Bench, from: u64, to: u64| {
        let mut seen = Vec::new();
        for minute in from..to {
            let at_ms = START + minute * MINUTE;
            for (device, seed) in [("a", 1), ("b", 2)] {
                seen.extend(bench.device(device, &[("x", value(minute, seed), at_ms)]));
            }
        }
        seen
    };
    assert_eq!(feed(&mut whole, 0, 605).len(), 2, "both raised");
    let bytes = encoded(&whole.evaluator);
    let sound = restored(&whole, &bytes, Limits::default());
    // The state of b stands at the end, behind it are only its empty lists.
    let at = bytes.len() - 200;
    let mut bytes = bytes;
    bytes[at] ^= 0x40;
    let mut hurt = restored(&whole, &bytes, Limits::default());
    assert_eq!((hurt.evaluator.learned(), hurt.evaluator.counts().damaged), (2, 1));
    assert_eq!(sound.evaluator.counts().damaged, 0);
    let (seen, expected) = (feed(&mut hurt, 605, 660), feed(&mut whole, 605, 660));
    let of = |seen: &[Seen], device: &str| -> Vec<Seen> {
        seen.iter().filter(|edge| edge.device == device).cloned().collect()
    };
    assert_eq!(of(&seen, "a"), of(&expected, "a"));
    // What was raised ends with the first complete window, and nothing follows.
    assert_eq!(told(&of(&seen, "b")), [(606, "cleared")]);
}

/// Samples of two metrics of three devices, some late, some missing, some wild; with further rules beside.
fn several() -> String {
    format!(
        "{RULE}[[rule]]\nid = \"m\"\nkind = \"learned\"\nmetrics = \"x\"\nwarmup = \"0s\"\ncooldown = \"3m\"\n\
         input = {{ aggregate = \"max\", every = \"30s\" }}\nlearn_while_firing = true\nsensitivity = 100\n\
         [[rule]]\nid = \"t\"\nmetric = \"x\"\nraise = \"> 40\"\n"
    )
}

fn step(bench: &mut Bench, seed: u64, at: u64) -> Vec<Seen> {
    let random = noise(seed, at).to_bits() >> 8;
    let device = ["a", "b", "c"][usize::try_from(random % 3).expect("small")];
    let late = if random.is_multiple_of(97) { 45_000 } else { 0 };
    let gap = at / 500 * 1_800_000;
    let at_ms = START + at * 7_000 + gap + random % 5_000 - late;
    let wild = if random.is_multiple_of(211) { 30.0 } else { 0.0 };
    let from = Origin { now_ms: START + at * 7_000 + gap, ..origin(device) };
    bench.entry(from, &[("x", noise(seed + 1, at) + wild, at_ms), ("y", noise(seed + 2, at), at_ms)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn snapshots_at_random_points_change_nothing(
        seed in any::<u32>(),
        cuts in prop::collection::vec(0..4_000_u64, 1..6),
    ) {
        let seed = u64::from(seed);
        let mut whole = Bench::new(&several());
        let mut cut = Bench::new(&several());
        let mut edges = 0;
        for at in 0..4_000 {
            if cuts.contains(&at) {
                let bytes = encoded(&cut.evaluator);
                let again = restored(&cut, &bytes, Limits::default());
                prop_assert_eq!(encoded(&again.evaluator), bytes);
                prop_assert_eq!(again.evaluator.learned(), cut.evaluator.learned());
                cut = again;
            }
            let seen = step(&mut whole, seed, at);
            edges += seen.len();
            prop_assert_eq!(step(&mut cut, seed, at), seen, "seed {}, at {}", seed, at);
        }
        prop_assert!(edges > 0, "seed {}: nothing was tested", seed);
        prop_assert_eq!(encoded(&cut.evaluator), encoded(&whole.evaluator));
    }
}

#[test]
fn a_learned_series_is_as_small_as_promised() {
    let (entry, head) = state_bytes();
    // The box of the detector's state has eight bytes more at its allocator.
    let learned = entry + head + size_of::<crate::alerts::learned::Series>() + 8;
    assert!(learned <= 640, "{learned} bytes");
}
