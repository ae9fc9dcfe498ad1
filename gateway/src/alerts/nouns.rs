//! What the parts of this stage hand to each other.

use std::fmt;

use penstock_proto::{Epoch, Lane, LogId, Seq};
use serde::Deserialize;

/// Where an entry stands in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Position {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    pub(crate) lane: Lane,
    pub(crate) seq: Seq,
}

/// The entry that samples came from: where it stands and whom it is about. Borrowed from its segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) position: Position,
    /// The device key.
    pub(crate) device: &'a str,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) site: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
    pub(crate) stream: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    /// The stage's clock: when the entry was committed, in Unix milliseconds, and never less than before.
    pub(crate) now_ms: u64,
}

/// A number that a device reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Which metric: its place in the list that [`super::measure::Reader`] was made with.
    pub(crate) metric: u16,
    /// Finite.
    pub(crate) value: f64,
    /// When it was measured, in Unix milliseconds: the device's time where it is known and can be true, else when the
    /// gateway took the message in.
    pub(crate) at_ms: u64,
}

/// How bad it is. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Info,
    Warning,
    Critical,
}

/// What an alert is about: one rule and one series of one device. Two with the same key are never open together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subject<'a> {
    /// The rule's place in its [`super::rule::RuleSet`].
    pub(crate) rule: u16,
    /// The device key.
    pub(crate) device: &'a str,
    /// The metric, where the rule is about one metric of several; a rule about the device as a whole has none.
    pub(crate) metric: Option<&'a str>,
}

/// A condition began to hold, became worse or better, or ended. What rules and detectors tell the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Edge<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) change: Change,
    /// What was seen, finite; a silent device shows nothing.
    pub(crate) observed: Option<f64>,
    /// When, in Unix milliseconds: the time of the sample, or of the stage's clock where there is none.
    pub(crate) at_ms: u64,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) site: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
    pub(crate) stream: Option<&'a str>,
    /// Trace context of the entry that showed it.
    pub(crate) traceparent: Option<&'a str>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// It holds, and has held for as long as the rule asks.
    Raised {
        severity: Severity,
        /// The limit that was passed, where there is one.
        threshold: Option<f64>,
        /// The score of a learned detector, from 0 to 1.
        score: Option<f64>,
        /// The first entry that showed it; for a silent device the last one seen. Makes the alert's id, so that a
        /// replay of the log finds the same one.
        episode: Position,
        /// When that was, in Unix milliseconds.
        started_ms: u64,
    },
    /// It still holds at another severity.
    Severity { severity: Severity, threshold: Option<f64> },
    /// It ended, and has for as long as the rule asks.
    Cleared,
}

impl<'a> Edge<'a> {
    /// An end that no entry showed.
    pub(crate) const fn cleared(subject: Subject<'a>, at_ms: u64) -> Self {
        Self {
            subject,
            change: Change::Cleared,
            observed: None,
            at_ms,
            tenant: None,
            site: None,
            class: None,
            stream: None,
            traceparent: None,
        }
    }
}

impl Severity {
    pub(crate) const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.log, self.epoch, self.lane, self.seq.0)
    }
}
