//! One alert: what holds, what was told, and therefore what is owed.

use std::sync::Arc;

use super::ident::Digest;
use super::policy::{Facet, Flapping, Matched, Policy};
use crate::alerts::nouns::{Position, Severity};

/// An alert that is open, or whose end is still to be told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alert {
    pub(super) id: Digest,
    /// Greater for alerts that were opened later.
    pub(super) order: u64,
    /// When it was opened, by the stage's clock, in Unix milliseconds.
    pub(super) opened_ms: u64,
    pub(super) rule: Arc<str>,
    pub(super) version: u64,
    pub(super) meaning: u64,
    pub(super) device: Box<str>,
    pub(super) metric: Option<Arc<str>>,
    pub(super) tenant: Option<Arc<str>>,
    pub(super) site: Option<Arc<str>>,
    pub(super) class: Option<Arc<str>>,
    pub(super) stream: Option<Arc<str>>,
    pub(super) severity: Severity,
    pub(super) threshold: Option<f64>,
    pub(super) observed: Option<f64>,
    pub(super) score: Option<f64>,
    pub(super) episode: Position,
    pub(super) started_ms: u64,
    /// The time of the last edge, in Unix milliseconds.
    pub(super) changed_ms: u64,
    pub(super) traceparent: Option<Box<str>>,
    /// The number of the last event told.
    pub(super) transition: u32,
    /// The number of the last transition that something was done about, or would have been.
    pub(super) acted: u32,
    /// Whether what is to be done when it is raised is done, and its end is not.
    pub(super) acted_open: bool,
    pub(super) told: Told,
    /// When that was, by the stage's clock, in Unix milliseconds.
    pub(super) told_ms: u64,
    /// Whether it is time to tell it again.
    pub(super) repeat: bool,
    /// Whether the condition holds.
    pub(super) holds: bool,
    pub(super) flapping: bool,
    pub(super) ending: Ending,
    pub(super) gate: Gate,
    /// When it was raised, changed or cleared lately, by the stage's clock; while it flaps, only the last time.
    pub(super) changes: Vec<u64>,
    /// Its group under the policy in force; not in its row.
    pub(super) group: Digest,
}

/// What the cloud knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Raised(Severity),
    Flapping,
}

/// Why it does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Cleared,
    RuleRemoved,
    RuleChanged,
}

/// What keeps that which is owed from being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Nothing: nothing is owed.
    Clear,
    Inhibited,
    Muted,
    /// Its group has a storm, which speaks for it.
    Storm,
    /// There was no token.
    Held,
}

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    Raised,
    Updated(Update),
    Flapping,
    Resolved,
}

/// Why an alert is told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    Severity,
    Repeat,
    /// It has stopped flapping, and holds.
    Calm,
}

// === impl Alert ===

impl Alert {
    /// What the cloud should know and does not.
    pub(super) fn owed(&self) -> Option<Owed> {
        match (self.told, self.flapping, self.holds) {
            (Told::Flapping, true, _) | (Told::Nothing, false, false) => None,
            (Told::Nothing | Told::Raised(_), true, _) => Some(Owed::Flapping),
            (Told::Nothing, false, true) => Some(Owed::Raised),
            (Told::Raised(_) | Told::Flapping, false, false) => Some(Owed::Resolved),
            (Told::Flapping, false, true) => Some(Owed::Updated(Update::Calm)),
            (Told::Raised(told), false, true) if told != self.severity => {
                Some(Owed::Updated(Update::Severity))
            }
            (Told::Raised(_), false, true) => self.repeat.then_some(Owed::Updated(Update::Repeat)),
        }
    }

    /// The number of the next event: that of what was done and is not told yet, or a new one.
    pub(super) fn next_transition(&self) -> u32 {
        if self.acted > self.transition { self.acted } else { self.transition.saturating_add(1) }
    }

    /// What is to be done about it as it is now is done, as the transition of this number.
    pub(super) fn note_acted(&mut self, transition: u32) {
        self.acted = transition;
        self.acted_open = self.is_open();
    }

    /// Nothing is to be done about it as it is now. Where something was done that is not told yet, the next event tells
    /// something else and must not have its number.
    pub(super) fn note_idle(&mut self) {
        let untold = !self.is_open() && self.acted > self.transition;
        self.note_acted(self.acted.saturating_add(u32::from(untold)).max(u32::from(self.is_open())));
    }

    /// Whether it holds, or does now and then.
    pub(super) const fn is_open(&self) -> bool {
        self.holds || self.flapping
    }

    /// Whether it counts in its group: open, and to be told.
    pub(super) const fn is_member(&self) -> bool {
        self.is_open() && !matches!(self.gate, Gate::Inhibited | Gate::Muted)
    }

    pub(super) const fn is_critical(&self) -> bool {
        matches!(self.severity, Severity::Critical)
    }

    /// Whether it was written by a clock that is ahead of `now_ms`.
    pub(super) fn is_ahead_of(&self, now_ms: u64) -> bool {
        self.told_ms.max(self.opened_ms).max(self.changes.last().copied().unwrap_or_default()) > now_ms
    }

    /// When it next needs attention without an edge, in Unix milliseconds.
    pub(super) fn due_ms(&self, policy: &Policy) -> Option<u64> {
        if self.flapping {
            let last = self.changes.last().copied().unwrap_or(self.opened_ms);
            return Some(last.saturating_add(policy.flapping.window_ms));
        }
        let told = matches!(self.told, Told::Raised(_)) && self.holds && !self.repeat;
        let interval = policy.repeat_interval_ms.filter(|_| told)?;
        Some(self.told_ms.saturating_add(interval))
    }

    /// Notes that it was raised, changed or cleared at `now_ms`.
    pub(super) fn note_change(&mut self, now_ms: u64, flapping: Flapping) {
        if flapping.max_transitions == 0 {
            return;
        }
        let begin = now_ms.saturating_sub(flapping.window_ms);
        self.changes.retain(|at| *at > begin);
        // Most alerts have one change or two, and there may be very many of them.
        self.changes.reserve_exact(1);
        self.changes.push(now_ms);
        self.flapping |= self.changes.len() > flapping.max_transitions;
        if self.flapping {
            self.changes = vec![now_ms];
        }
    }

    /// The parts that alerts are grouped by, under `policy`.
    pub(super) fn facet(&self, facet: Facet) -> Option<&str> {
        match facet {
            Facet::Tenant => self.tenant.as_deref(),
            Facet::Site => self.site.as_deref(),
            Facet::Class => self.class.as_deref(),
            Facet::Rule => Some(&self.rule),
            Facet::Severity => Some(self.severity.name()),
        }
    }

    pub(super) fn matched(&self) -> Matched<'_> {
        Matched {
            tenant: self.tenant.as_deref(),
            site: self.site.as_deref(),
            class: self.class.as_deref(),
            device: &self.device,
            rule: &self.rule,
        }
    }
}

// === impl Ending ===

impl Ending {
    /// The reason in the event; an alert that was just cleared needs none.
    pub(super) const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Cleared => None,
            Self::RuleRemoved => Some("rule-removed"),
            Self::RuleChanged => Some("rule-changed"),
        }
    }
}

// === impl Owed ===

impl Owed {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Updated(_) => "updated",
            Self::Flapping => "flapping",
            Self::Resolved => "resolved",
        }
    }
}

// === impl Update ===

impl Update {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Severity => "severity",
            Self::Repeat => "repeat",
            Self::Calm => "calm",
        }
    }
}
