//! What rules promise, from text to edges.

mod deadman;
mod file;
mod forget;
mod guide;
mod kinds;
mod learned;
mod model;
mod snapshot;

use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::{Evaluator, Limits, RuleSet};
use crate::alerts::nouns::{Change, Edge, Origin, Position, Sample, Severity};

/// The rules of a text that has no mistake.
fn rules(text: &str) -> Arc<RuleSet> {
    let parsed = RuleSet::parse(text, "rules.toml").expect("TOML");
    assert_eq!(parsed.errors, [], "{text}");
    Arc::new(parsed.rules)
}

/// An edge that outlives its entry.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    rule: Box<str>,
    device: String,
    metric: Option<String>,
    change: Change,
    observed: Option<f64>,
    at_ms: u64,
}

impl Seen {
    fn new(edge: &Edge<'_>, rules: &RuleSet) -> Self {
        Self {
            rule: rules.rule(edge.subject.rule).id.clone(),
            device: edge.subject.device.to_owned(),
            metric: edge.subject.metric.map(str::to_owned),
            change: edge.change,
            observed: edge.observed,
            at_ms: edge.at_ms,
        }
    }

    /// `raised critical @1000 #3`: the time of the edge, and the entry that the episode began with.
    fn short(&self) -> String {
        match self.change {
            Change::Raised { severity, episode, .. } => {
                format!("raised {} @{} #{}", severity.name(), self.at_ms, episode.seq.0)
            }
            Change::Severity { severity, .. } => format!("{} @{}", severity.name(), self.at_ms),
            Change::Cleared => format!("cleared @{}", self.at_ms),
        }
    }
}

/// An evaluator that is fed by hand. Every entry has the next number.
#[derive(Debug)]
struct Bench {
    rules: Arc<RuleSet>,
    evaluator: Evaluator,
    seq: u64,
}

impl Bench {
    fn new(text: &str) -> Self {
        Self::limited(text, Limits::default())
    }

    fn limited(text: &str, limits: Limits) -> Self {
        let rules = rules(text);
        Self { evaluator: Evaluator::new(Arc::clone(&rules), limits), rules, seq: 0 }
    }

    /// An entry with samples by the names of their metrics; what no rule reads is left out, as a reader does.
    fn entry(&mut self, origin: Origin<'_>, samples: &[(&str, f64, u64)]) -> Vec<Seen> {
        self.seq += 1;
        let origin = Origin { position: position(self.seq), ..origin };
        let sample = |(name, value, at_ms): &(&str, f64, u64)| {
            Some(Sample { metric: self.rules.metric(name)?, value: *value, at_ms: *at_ms })
        };
        let samples: Vec<Sample> = samples.iter().filter_map(sample).collect();
        let mut seen = Vec::new();
        self.evaluator.observe(&origin, &samples, &mut |edge| seen.push(Seen::new(&edge, &self.rules)));
        seen
    }

    fn device(&mut self, device: &str, samples: &[(&str, f64, u64)]) -> Vec<Seen> {
        let now_ms = samples.iter().map(|(_, _, at_ms)| *at_ms).max().unwrap_or_default();
        self.entry(Origin { now_ms, ..origin(device) }, samples)
    }

    fn advance(&mut self, now_ms: u64) -> Vec<Seen> {
        let mut seen = Vec::new();
        self.evaluator.advance(now_ms, &mut |edge| seen.push(Seen::new(&edge, &self.rules)));
        seen
    }

    fn replace(&mut self, text: &str) -> Vec<Seen> {
        let mut seen = Vec::new();
        let new = rules(text);
        self.evaluator.replace(Arc::clone(&new), &mut |edge| seen.push(Seen::new(&edge, &self.rules)));
        self.rules = new;
        seen
    }
}

fn position(seq: u64) -> Position {
    Position { log: LogId(7), epoch: Epoch(2), lane: Lane::Telemetry, seq: Seq(seq) }
}

fn origin(device: &str) -> Origin<'_> {
    Origin {
        position: position(0),
        device,
        tenant: Some("acme"),
        site: Some("site-7"),
        class: Some("boiler"),
        stream: Some("main"),
        traceparent: None,
        now_ms: 0,
    }
}

fn shorts(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(Seen::short).collect()
}

/// Feeds one metric of one device with values a second apart, and expects these edges.
fn check(rule: &str, values: &[f64], expected: &[&str]) {
    let mut bench = Bench::new(&format!("[[rule]]\nid = \"r\"\n{rule}"));
    let mut seen = Vec::new();
    for (second, value) in (1..).zip(values) {
        seen.extend(bench.device("d", &[("x", *value, second * 1_000)]));
    }
    assert_eq!(shorts(&seen), expected, "{rule} {values:?}");
    let mut raised = false;
    for edge in &seen {
        let raises = matches!(edge.change, Change::Raised { .. });
        assert_ne!(raises, raised, "{seen:?}");
        raised = !matches!(edge.change, Change::Cleared);
        assert!(edge.observed.is_none_or(f64::is_finite));
    }
}

#[test]
fn states_are_as_small_as_promised() {
    let bytes = super::evaluator::state_bytes();
    assert!(bytes.0 + bytes.1 <= 64, "a state and its series take {bytes:?} bytes");
}

#[test]
fn severities_are_ordered() {
    assert!(Severity::ALL.is_sorted());
}
