//! What people write into rules files, and what may stand in a snapshot; see [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};

use super::tests_file;
use super::{Evaluator, Limits, RuleSet};
use crate::alerts::nouns::{Change, Edge};
use crate::fuzzing::Decoder;

/// The decoders of this folder.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "rules_file", decode: file, weight: 1 },
    Decoder { name: "rules_tests", decode: tests, weight: 1 },
    Decoder { name: "rules_snapshot", decode: snapshot, weight: 8 },
];

/// One rule of every kind, under which snapshots are read.
const RULES: &str = r#"
[[rule]]
id = "threshold"
metric = "x"
raise = "> 1"
critical = { raise = "> 50" }
for = "2s"
keep_firing_for = "3s"

[[rule]]
id = "rate"
kind = "rate"
metric = "x"
raise = "> 1 per s"
match = { class = ["boiler", "p*"] }

[[rule]]
id = "stuck"
kind = "stuck"
metric = "y"
for = "5s"
when = "x > 0"

[[rule]]
id = "drift"
kind = "drift"
metric = "x"
raise = "> 1 deviations"
fast = "2s"
slow = "60s"
warmup = "2s"

[[rule]]
id = "silent"
kind = "deadman"
expect_every = "5s"

[[rule]]
id = "joint"
kind = "expr"
expr = "x / y > 0.5 && !(y < 2)"

[[rule]]
id = "learned"
kind = "learned"
metrics = ["x", "y"]
input = { every = "1s" }
warmup = "0s"
cooldown = "5s"
"#;

static COMPILED: LazyLock<Arc<RuleSet>> =
    LazyLock::new(|| Arc::new(RuleSet::parse(RULES, "rules").expect("TOML").rules));

/// A rules file: whatever is read can be used, and errors say where.
fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(parsed) = RuleSet::parse(text, "rules") else { return };
    let lines = text.lines().count() + 1;
    assert!(parsed.errors.iter().all(|error| (1..=lines).contains(&error.line) && error.column > 0));
    assert!(parsed.rules.metrics().is_sorted_by(|one, two| one < two));
    for (place, rule) in parsed.rules.places() {
        assert_eq!(parsed.rules.find(&rule.id), Some(place));
        assert!(rule.inhibited_by.iter().all(|other| usize::from(*other) < parsed.rules.len()));
    }
    drop(Evaluator::new(Arc::new(parsed.rules), Limits::default()));
}

/// A file of tests.
fn tests(bytes: &[u8]) {
    // Long series are run as well, and take their time.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() < 2_000
        && let Ok(report) = tests_file::run((RULES, "rules"), (text, "tests"))
    {
        assert!(!report.to_string().is_empty());
    }
}

/// A snapshot: what was read is written, and read as the same; then the evaluator goes on.
fn snapshot(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut evaluator = Evaluator::new(Arc::clone(&COMPILED), Limits::default());
        evaluator.decode(bytes).map(|()| evaluator)
    };
    let Ok(mut evaluator) = read(bytes) else { return };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    evaluator.encode(&mut once);
    read(&once).expect("our own bytes").encode(&mut twice);
    assert_eq!(once, twice);
    let mut check = |edge: Edge<'_>| {
        assert!(edge.observed.is_none_or(f64::is_finite));
        assert!(!matches!(edge.change, Change::Raised { score: Some(_), .. }));
    };
    evaluator.advance(u64::MAX / 2, &mut check);
    evaluator.replace(Arc::new(RuleSet::default()), &mut check);
    assert_eq!(evaluator.series(), 0);
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    match name {
        "rules_file" => rules_of_every_kind(),
        "rules_tests" => vec![
            b"[[test]]\nname = \"t\"\nseries = [{ device = \"d\", metric = \"x\", values = \"1 2x3 _ 0+5x4\" }]\n\
              expect = [{ at = \"9s\", alerts = [{ rule = \"rate\", device = \"d\" }] }]\n"
                .to_vec(),
            b"[[test]]\nname = \"t\"\n[[test.series]]\ndevice = \"d\"\nevery = \"10s\"\nvalues = [1, 2.5]\n".to_vec(),
        ],
        "rules_snapshot" => snapshots(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
fn rules_of_every_kind() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = RULES.split("\n\n").map(|rule| rule.as_bytes().to_vec()).collect();
    files.push(RULES.as_bytes().to_vec());
    let others: &[&[u8]] = &[
        b"[defaults]\nseverity = \"info\"\nfor = \"1s\"\nkeep_firing_for = \"1m\"\nmin_samples = 2\nresolve = \"auto\"\n",
        b"[[rule]]\nid = \"a\"\nmetric = \"x\"\nraise = \"> 1\"\ninhibited_by = [\"b\"]\nlabels = { a = \"b\" }\nversion = 3\n",
        b"[[rule]]\nid = \"l\"\nkind = \"learned\"\nmetrics = [\"x\"]\nbudget = \"1 per series per 7d\"\ninput = { every = \"1m\" }\n",
        b"[alerting]\ngroup_wait = \"5s\"\n[[mute]]\nmode = \"record-only\"\n",
    ];
    files.extend(others.iter().map(|file| file.to_vec()));
    files
}

/// Of nothing, and of three devices in the middle of things.
#[cfg(test)]
fn snapshots() -> Vec<Vec<u8>> {
    use crate::alerts::nouns::{Origin, Position, Sample};
    use penstock_proto::{Epoch, Lane, LogId, Seq};
    let mut evaluator = Evaluator::new(Arc::clone(&COMPILED), Limits::default());
    let mut seeds = Vec::new();
    for second in 0..40_u8 {
        if second % 13 == 0 {
            let mut bytes = Vec::new();
            evaluator.encode(&mut bytes);
            seeds.push(bytes);
        }
        let now_ms = 1_790_000_000_000 + u64::from(second) * 1_000;
        let (log, epoch, lane, seq) =
            (LogId(7), Epoch(u32::from(second / 20)), Lane::Telemetry, Seq(second.into()));
        let origin = Origin {
            position: Position { log, epoch, lane, seq },
            device: ["d-1", "d-2", "d-3"][usize::from(second % 3)],
            tenant: Some("acme"),
            site: None,
            class: (second < 30).then_some("boiler"),
            stream: None,
            traceparent: None,
            now_ms,
        };
        let value = f64::from(second % 7) * 9.0;
        let samples =
            [Sample { metric: 0, value, at_ms: now_ms }, Sample { metric: 1, value: 3.0, at_ms: now_ms }];
        evaluator.observe(&origin, &samples, &mut |_| {});
        evaluator.advance(now_ms, &mut |_| {});
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decoder_has_seeds_that_it_accepts() {
        for decoder in DECODERS {
            let seeds = fuzzing_seeds(decoder.name);
            assert!(!seeds.is_empty(), "{}", decoder.name);
            for seed in seeds {
                (decoder.decode)(&seed);
                if decoder.name == "rules_snapshot" {
                    let mut evaluator = Evaluator::new(Arc::clone(&COMPILED), Limits::default());
                    evaluator.decode(&seed).expect("our own bytes");
                }
            }
        }
    }
}
