//! A rule as the evaluator uses it: checked and complete.

use std::sync::Arc;

use ring::digest;

use super::comparison::Comparison;
use super::expression::Expression;
use super::learned::Learned;
use super::selector::Selector;
use crate::alerts::nouns::Severity;
use crate::alerts::reaction::Action;

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`; no two rules have the same.
    pub(crate) id: Box<str>,
    /// As configured, else made from what the rule means. Below 2^53, so that it is a number in JSON too.
    pub(crate) version: u64,
    /// The least that it raises.
    pub(crate) severity: Severity,
    /// Names and values, by name; at most 16.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// Where it says what to do.
    pub(crate) runbook: Option<Box<str>>,
    /// What the gateway does itself when it raises or clears; not part of what it means.
    pub(crate) actions: Arc<[Action]>,
    /// Places of the rules whose open alerts silence those of this one.
    pub(crate) inhibited_by: Box<[u16]>,
    pub(super) kind: Kind,
    pub(super) selector: Selector,
    /// Of everything that decides when it raises and clears what. State is kept for rules that have the same.
    pub(crate) fingerprint: u64,
}

/// What a rule looks at. Metrics are places in [`super::RuleSet::metrics`].
#[derive(Debug)]
pub(super) enum Kind {
    Threshold { metric: u16, watch: Watch },
    Rate { metric: u16, watch: Watch, rate: Rate },
    Stuck { metric: u16, watch: Watch, stuck: Stuck },
    Drift { metric: u16, watch: Watch, drift: Drift },
    Deadman(Deadman),
    Expression { watch: Watch, expression: Box<Expression> },
    Learned { metrics: Box<[u16]>, learned: Box<Learned> },
}

/// When something is raised and cleared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watch {
    /// One to three, the least severe first.
    pub(super) levels: Box<[Level]>,
    /// Samples in a row that must show it.
    pub(super) min_samples: u32,
    /// How long it must be over before it is cleared.
    pub(super) keep_ms: u64,
}

/// What makes one severity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    pub(super) severity: Severity,
    pub(super) raise: Comparison,
    /// Never holds together with `raise`.
    pub(super) clear: Comparison,
    /// How long `raise` must have held.
    pub(super) for_ms: u64,
    /// Whether the limit of `raise` is one that people know, and not just the difference between 1 and 0.
    pub(super) is_limit: bool,
}

/// A change over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Two values are compared only if they are at least so far apart.
    pub(super) over_ms: u64,
    /// The unit of the limits, in milliseconds.
    pub(super) per_ms: f64,
}

/// A value that does not move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stuck {
    pub(super) epsilon: f64,
    pub(super) for_ms: u64,
    pub(super) min_samples: u32,
    /// Counts only while this holds for the last value of that metric.
    pub(super) when: Option<(u16, Comparison)>,
}

/// A recent average that leaves the long one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drift {
    pub(super) fast_ms: f64,
    pub(super) slow_ms: f64,
    pub(super) warmup_s: u32,
    /// Whether limits are in units of the mean absolute deviation.
    pub(super) in_deviations: bool,
}

/// A device that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadman {
    /// How long it may be silent.
    pub(super) patience_ms: u64,
}

impl Rule {
    /// The metrics whose series it looks at one by one.
    pub(super) fn metrics(&self) -> &[u16] {
        match &self.kind {
            Kind::Threshold { metric, .. }
            | Kind::Rate { metric, .. }
            | Kind::Stuck { metric, .. }
            | Kind::Drift { metric, .. } => std::slice::from_ref(metric),
            Kind::Learned { metrics, .. } => metrics,
            Kind::Deadman(_) | Kind::Expression { .. } => &[],
        }
    }
}

impl Kind {
    /// Every metric that it reads.
    pub(super) fn each_metric(&mut self, see: &mut dyn FnMut(&mut u16)) {
        match self {
            Self::Threshold { metric, .. } | Self::Rate { metric, .. } | Self::Drift { metric, .. } => {
                see(metric)
            }
            Self::Stuck { metric, stuck, .. } => {
                see(metric);
                if let Some((metric, _)) = &mut stuck.when {
                    see(metric);
                }
            }
            Self::Deadman(_) => {}
            Self::Expression { expression, .. } => expression.metrics.iter_mut().for_each(see),
            Self::Learned { metrics, .. } => metrics.iter_mut().for_each(see),
        }
    }

    /// Every metric whose last value it needs at another's sample.
    pub(super) fn each_kept(&self, see: &mut dyn FnMut(u16)) {
        match self {
            Self::Stuck { stuck, .. } => stuck.when.iter().for_each(|(metric, _)| see(*metric)),
            Self::Expression { expression, .. } => expression.metrics.iter().for_each(|metric| see(*metric)),
            Self::Threshold { .. }
            | Self::Rate { .. }
            | Self::Drift { .. }
            | Self::Deadman(_)
            | Self::Learned { .. } => {}
        }
    }
}

/// Everything that decides what a rule does, as bytes that do not depend on the order of the file.
#[derive(Debug, Default)]
pub(super) struct Meaning(Vec<u8>);

impl Meaning {
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn real(&mut self, number: f64) -> &mut Self {
        // The two zeros mean the same.
        self.number((number + 0.0).to_bits())
    }

    pub(super) fn comparison(&mut self, comparison: Comparison) -> &mut Self {
        self.text(comparison.operator.sign()).real(comparison.limit)
    }

    pub(super) fn watch(&mut self, watch: &Watch) -> &mut Self {
        self.number(u64::from(watch.min_samples)).number(watch.keep_ms).number(watch.levels.len() as u64);
        for level in &watch.levels {
            self.text(level.severity.name()).comparison(level.raise).comparison(level.clear);
            self.number(level.for_ms);
        }
        self
    }

    pub(super) fn selector(&mut self, selector: &Selector) -> &mut Self {
        for patterns in selector.properties() {
            let texts: Vec<String> = patterns.texts().collect();
            self.number(texts.len() as u64);
            for text in &texts {
                self.text(text);
            }
        }
        self
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let hash = digest::digest(&digest::SHA256, &self.0);
        hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
