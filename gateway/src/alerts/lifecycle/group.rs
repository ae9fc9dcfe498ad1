//! Groups of alerts, and their storms.

use std::collections::BTreeSet;

use super::ident::Digest;
use super::policy::Facet;
use crate::alerts::nouns::Severity;

/// Alerts that have something in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Group {
    /// What they have in common, in the policy's order.
    pub(super) facets: Vec<(Facet, Option<Box<str>>)>,
    /// The alerts that count, in the order they were opened: those open and neither muted nor inhibited.
    pub(super) members: BTreeSet<(u64, Digest)>,
    /// Alerts that were opened lately and are closed: from when on, and how many; in order.
    pub(super) recent: Vec<(u64, u32)>,
    /// Alerts held back since the last event of the group.
    pub(super) suppressed: u64,
    pub(super) storm: Option<Storm>,
    /// When it can be forgotten, where it stands in the list of those; not in its row.
    pub(super) idle_ms: Option<u64>,
}

/// A group has too much to tell: one event speaks for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storm {
    pub(super) id: Digest,
    pub(super) since_ms: u64,
    /// Events told.
    pub(super) transition: u32,
    /// When it is looked at again, in Unix milliseconds.
    pub(super) due_ms: u64,
    /// Alerts raised since it began, with those that began it.
    pub(super) raised: u64,
    /// Those among them that there was no room to track.
    pub(super) untracked: u64,
    pub(super) worst: Severity,
    pub(super) told: Tally,
    pub(super) told_ms: u64,
}

/// What a storm has told last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) raised: u64,
    pub(super) untracked: u64,
    pub(super) open: u64,
}

/// Pieces of the interval that recent alerts are counted in.
const PIECES: u64 = 8;
/// Most pieces that are kept.
pub(super) const RECENT_MAX: usize = 16;

impl Group {
    /// Whether there is more to it than its members show.
    pub(super) const fn has_row(&self) -> bool {
        !self.recent.is_empty() || self.suppressed > 0 || self.storm.is_some()
    }

    /// Alerts that are open, or were raised within the last `interval_ms`, to an eighth of it.
    pub(super) fn count(&self, interval_ms: u64, now_ms: u64) -> u64 {
        let fresh = |&&(from, _): &&(u64, u32)| expiry(from, interval_ms) > now_ms;
        let recent: u64 = self.recent.iter().filter(fresh).map(|(_, count)| u64::from(*count)).sum();
        (self.members.len() as u64).saturating_add(recent)
    }

    /// Notes that an alert is closed that was opened at `opened_ms`.
    pub(super) fn closed(&mut self, opened_ms: u64, interval_ms: u64, now_ms: u64) {
        self.recent.retain(|(from, _)| expiry(*from, interval_ms) > now_ms);
        let piece = (interval_ms / PIECES).max(1);
        let from = opened_ms - opened_ms % piece;
        if expiry(from, interval_ms) <= now_ms {
            return;
        }
        match self.recent.binary_search_by_key(&from, |(from, _)| *from) {
            Ok(place) => {
                if let Some((_, count)) = self.recent.get_mut(place) {
                    *count = count.saturating_add(1);
                }
            }
            Err(place) => {
                self.recent.insert(place, (from, 1));
                if self.recent.len() > RECENT_MAX {
                    self.recent.remove(0);
                }
            }
        }
    }

    /// When nothing recent will be left, in Unix milliseconds.
    pub(super) fn calm_ms(&self, interval_ms: u64) -> u64 {
        self.recent.last().map_or(0, |(from, _)| expiry(*from, interval_ms))
    }
}

/// When alerts raised in the piece that begins at `from` are no longer recent.
fn expiry(from: u64, interval_ms: u64) -> u64 {
    from.saturating_add(interval_ms).saturating_add((interval_ms / PIECES).max(1))
}
