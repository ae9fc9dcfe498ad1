//! From conditions to alerts: what is told, when, and how often.
//!
//! [`Lifecycle`] takes the edges that rules and detectors find and keeps a table of the alerts that are open. What has to
//! be told becomes CloudEvents in lane `alerts`; what has to survive a crash becomes rows in the outbox's state. Both go
//! into [`Effects`], which the stage commits in one synced batch. Nothing here reads a clock or a disk: loaded from its
//! rows, a lifecycle does from there on exactly what the one before would have done.
//!
//! An alert knows what holds and what the cloud was told. The difference is what it *owes* ([`alert::Alert::owed`]): that
//! an alert was raised, that its severity is another, that it is over. What is owed is told unless something stands before
//! it, in this order:
//!
//! 1. An alert that is open is one: the same condition again is not told again.
//! 2. **Inhibition**: while an alert of a rule that the alert's rule names in `inhibited_by` is open for the same device,
//!    or for the gateway itself (its device is the gateway's name), nothing is told but ends.
//! 3. **Mutes**: as long as one is in force, nothing is told but ends.
//! 4. **Storms**: when a group has `storm.when_open_in_group` alerts that are open or were raised within its
//!    `group_interval`, one event speaks for all that are not critical: `group_wait` after it began, then at most every
//!    `group_interval`, and at the end. What is still open then is told singly.
//! 5. **Tokens**: of the gateway and of the tenant. Critical alerts have a bucket of their own, twice as large. What gets
//!    none waits in order. When more than `held_max` wait, the next one makes a storm of its group.
//!
//! So in the end every alert that is open and not silenced was told, or a storm covers it. The end of an alert is told if
//! and only if the alert was. An alert that changes more than `flapping.max_transitions` times within `flapping.window` is
//! told to flap, once; it stays the same alert, and quiet, until nothing changed for a whole window.
//!
//! What a rule has the gateway do itself does not wait for any of that but 2 and 3 ([`reacting`]).
//!
//! Bounds: `max_open_alerts` (a tenth more for critical ones; what comes on top is counted in a storm and not tracked), as
//! many subjects remembered for flapping, [`GROUPS_MAX`] idle groups, [`TENANTS_MAX`] buckets.

mod advance;
mod alert;
mod bucket;
mod edges;
mod event;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod group;
mod held;
mod ident;
mod machine;
mod policy;
mod reacting;
mod replace;
mod row;
mod rulebook;
mod storms;
mod telling;

#[cfg(test)]
mod tests;

use crate::outbox::{Encoded, StateOps};

pub(crate) use edges::shorter_device;
pub(crate) use event::Voice;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use machine::Lifecycle;
pub(crate) use policy::{Policy, PolicyError};
pub(crate) use reacting::Complaint;
pub(crate) use row::FAMILY as TABLE;
pub(crate) use rulebook::{RuleFacts, Rulebook};

/// Groups without an open alert that are remembered; also how many groups there may be before alerts that there is no
/// room to track are counted in a group of their own.
const GROUPS_MAX: usize = 10_000;
/// Tenants that have a bucket of their own at the same time; the others share that of alerts without a tenant.
const TENANTS_MAX: usize = 10_000;

/// What has to be committed in one batch, and what happened.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// CloudEvents and reactions, in lane alerts.
    pub(crate) entries: Encoded,
    /// Changes of the table.
    pub(crate) table: StateOps,
    pub(crate) counts: Counts,
    /// What could not be done, to be logged: at most one for each rule.
    pub(crate) complaints: Vec<Complaint>,
}

/// What happened, in numbers. They only grow, until whoever reads them sets them back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Edges that opened an alert.
    pub(crate) opened: u64,
    /// Edges that raised what is open.
    pub(crate) repeated: u64,
    /// Edges that cleared an alert.
    pub(crate) cleared: u64,
    /// Edges that change or clear what is not open: alerts that there was no room for, or whose rule changed.
    pub(crate) unmatched: u64,
    /// Edges of a rule that is not known.
    pub(crate) unknown_rule: u64,
    /// Alerts that there was no room to track.
    pub(crate) untracked: u64,
    /// Events, by what they tell.
    pub(crate) told_raised: u64,
    pub(crate) told_updated: u64,
    pub(crate) told_resolved: u64,
    pub(crate) told_flapping: u64,
    pub(crate) told_storm: u64,
    /// What was owed and had to wait, by what stood before it.
    pub(crate) inhibited: u64,
    pub(crate) muted: u64,
    pub(crate) gathered: u64,
    pub(crate) held: u64,
    /// Reactions decided, by what they are.
    pub(crate) reactions_mqtt: u64,
    pub(crate) reactions_service_bus: u64,
    /// Reactions that were not to be, because something silences the alert, or its rule was changed or removed.
    pub(crate) reactions_inhibited: u64,
    pub(crate) reactions_muted: u64,
    pub(crate) reactions_rule: u64,
    /// Reactions that cannot be carried out as the rule says, and those that there was no room for.
    pub(crate) reactions_unusable: u64,
    pub(crate) reactions_crowded: u64,
    /// Subjects whose changes were forgotten early, for want of room.
    pub(crate) forgotten: u64,
    /// Labels that an event had no room for.
    pub(crate) labels_cut: u64,
    /// Rows that could not be read, and are deleted.
    pub(crate) junk_rows: u64,
}

impl Effects {
    /// Whether there is nothing to commit. Rows that are not flushed yet do not count.
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.table.is_empty()
    }

    /// What a commit of it costs, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes() + self.table.bytes()
    }

    /// Forgets what was to be committed; what happened stays counted.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.table.clear();
    }
}

/// A row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Junk {
    #[error("not a key of the table of alerts")]
    Key,
    #[error("not a value that this version writes")]
    Value,
    #[error("more alerts than any policy allows")]
    TooMany,
}
