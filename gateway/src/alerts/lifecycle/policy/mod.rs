//! What `[alerting]` and `[[mute]]` of the rules file say.

mod mute;
mod read;
mod section;
mod window;

use crate::alerts::nouns::Severity;

use super::bucket::Rate;
pub(super) use mute::{Matched, Mute, Mutes};

/// How alerts are told: together or one by one, how often, how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What the alerts of a group have in common, in the order of [`Facet::ALL`].
    pub(super) group_by: Vec<Facet>,
    /// How long a storm gathers before it is told, in milliseconds.
    pub(super) group_wait_ms: u64,
    /// How often a storm is told anew at most, and for how long an alert counts after it was raised, in milliseconds.
    pub(super) group_interval_ms: u64,
    /// After how long an open alert is told again, in milliseconds; never if there is none.
    pub(super) repeat_interval_ms: Option<u64>,
    /// Alerts that are tracked at the same time.
    pub(super) max_open_alerts: usize,
    /// Alerts that wait for a token; what comes on top makes a storm of its group.
    pub(super) held_max: usize,
    /// For all events of the gateway that are not critical; critical ones have twice as much of their own.
    pub(super) max_rate: Rate,
    /// For the events of one tenant that are not critical.
    pub(super) tenant_rate: Rate,
    pub(super) flapping: Flapping,
    /// That many alerts of a group, open or raised within its interval, are a storm.
    pub(super) storm_when: u64,
    pub(super) mutes: Vec<Mute>,
}

/// What an alert that flaps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flapping {
    /// More changes than that; 0 switches it off.
    pub(super) max_transitions: usize,
    /// In that many milliseconds.
    pub(super) window_ms: u64,
}

/// What alerts of a group can have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Facet {
    Tenant,
    Site,
    Class,
    Rule,
    Severity,
}

/// The policy cannot be used. Names the file, the key, the value, and what it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {key} = {value}: expected {expected}")]
pub(crate) struct PolicyError {
    pub(crate) file: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) expected: String,
}

/// Most changes that can be allowed in a window; bounds what is remembered of an alert.
pub(super) const TRANSITIONS_MAX: usize = 100;
/// Most alerts that can be tracked at the same time, whatever the policy says.
pub(super) const OPEN_MAX: usize = 1_000_000;

impl Policy {
    /// Reads both tables; what is missing has its default.
    ///
    /// # Errors
    ///
    /// The first key that is not known or whose value cannot be used.
    pub(crate) fn read(
        alerting: Option<&toml::Table>,
        mutes: &[toml::Table],
        file: &str,
    ) -> Result<Self, PolicyError> {
        read::policy(alerting, mutes, file)
    }

    /// How many alerts of a severity may be open: a tenth is kept for critical ones.
    pub(super) const fn open_max(&self, severity: Severity) -> usize {
        match severity {
            Severity::Critical => self.max_open_alerts.saturating_add(self.max_open_alerts.div_ceil(10)),
            Severity::Info | Severity::Warning => self.max_open_alerts,
        }
    }
}

impl Facet {
    pub(super) const ALL: [Self; 5] = [Self::Tenant, Self::Site, Self::Class, Self::Rule, Self::Severity];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Site => "site",
            Self::Class => "class",
            Self::Rule => "rule",
            Self::Severity => "severity",
        }
    }
}

#[cfg(test)]
mod tests;
