//! The scrub: reads what is stored and not yet confirmed, slowly, and checks it.
//!
//! A backlog may lie for days before it is read for the cloud, and a disk that loses bits does not
//! say so. Whoever learns of it while the devices or a copy still have the messages can do
//! something about it. A pass goes through all lanes, from the oldest unconfirmed segment up to
//! where the lane ended when the pass began: the first one covers what was there at the start, the
//! next ones begin a day after the one before.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use penstock_proto::{Lane, Seq};

use super::error::StoreError;
use super::keys::{Head, MetaKey};
use super::segment::{Segment, SegmentError};
use super::shared::Shared;
use super::store::Store;

/// From the beginning of a pass to the next, in ticks of a second.
pub(super) const PASS_TICKS: u64 = 24 * 60 * 60;
/// Places that are remembered as reported.
const REPORTED_MAX: usize = 4096;

/// The state of the scrub. Driven by ticks, has no clock.
#[derive(Debug)]
pub(super) struct Scrub {
    /// Bytes that may be read now. A segment larger than what is left leaves a debt.
    credit: i64,
    pass: Option<Pass>,
    ticks: u64,
    reported: BTreeSet<(usize, Seq)>,
    /// What was read and checked since the start.
    checked_bytes: u64,
}

/// Where a pass is.
#[derive(Debug)]
struct Pass {
    lanes: std::slice::Iter<'static, Lane>,
    lane: Lane,
    at: Seq,
    /// Whether a segment must begin at `at`: behind a damaged one nobody knows where the next does.
    exact: bool,
    ends: [Seq; Lane::COUNT],
}

/// What is wrong at a position.
#[derive(Debug)]
enum Fault {
    Damaged(SegmentError),
    Missing { until: Seq },
    Unreadable(StoreError),
}

// === impl Scrub ===

impl Scrub {
    /// The first pass ends where the lanes end now.
    pub(super) fn new(shared: &Shared) -> Self {
        let pass = Pass::new(shared);
        Self { credit: 0, pass, ticks: 0, reported: BTreeSet::new(), checked_bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn checked_bytes(&self) -> u64 {
        self.checked_bytes
    }

    #[cfg(test)]
    pub(super) fn reported(&self) -> Vec<(Lane, u64)> {
        self.reported.iter().map(|(lane, seq)| (Lane::ALL[*lane], seq.0)).collect()
    }

    /// Reads at most as much as a second allows, and the rest of the segment in which that ends.
    pub(super) fn tick(&mut self, shared: &Shared) {
        let rate = i64::try_from(shared.config.scrub_rate).unwrap_or(i64::MAX);
        if rate == 0 {
            return;
        }
        self.ticks += 1;
        if self.pass.is_none() && self.ticks >= PASS_TICKS {
            self.pass = Pass::new(shared);
            self.ticks = 0;
        }
        self.credit = self.credit.saturating_add(rate).min(rate);
        while self.credit > 0 && self.step(shared) {}
    }

    /// Reads on in one lane. Returns whether there may be more to read.
    fn step(&mut self, shared: &Shared) -> bool {
        let Some(pass) = &mut self.pass else { return false };
        if !pass.skip(shared) {
            if !pass.next_lane(shared) {
                self.pass = None;
                shared.metrics.scrubs.increment(1);
                tracing::debug!(bytes = self.checked_bytes, "all unconfirmed messages were checked");
            }
            return true;
        }
        let store = shared.store.read();
        let Some(store) = store.as_deref() else { return false };
        let (lane, before) = (pass.lane, self.credit);
        let mut fault = pass.read(store, &mut self.credit);
        if let Some((at, _)) = fault {
            // What is known to be gone may lie in the middle of what was read.
            let behind = shared.pass_holes(lane, at);
            if behind > at {
                (pass.at, pass.exact) = (behind, true);
                fault = None;
            }
        }
        let bytes = before.saturating_sub(self.credit).unsigned_abs();
        self.checked_bytes = self.checked_bytes.saturating_add(bytes);
        shared.metrics.scrubbed.increment(bytes);
        if let Some((at, fault)) = fault {
            self.report(shared, lane, at, &fault);
        }
        true
    }

    fn report(&mut self, shared: &Shared, lane: Lane, first: Seq, fault: &Fault) {
        if !self.reported.insert((lane.index(), first)) {
            return;
        }
        if self.reported.len() > REPORTED_MAX {
            self.reported.pop_first();
        }
        let metrics = &shared.metrics;
        match fault {
            Fault::Damaged(error) => {
                metrics.scrub_damaged.increment(1);
                tracing::error!(%lane, first = first.0, %error, "a stored segment is damaged");
            }
            Fault::Missing { until } => {
                metrics.scrub_missing.increment(1);
                tracing::error!(%lane, first = first.0, until = until.0, "stored messages are missing");
            }
            Fault::Unreadable(error) => {
                metrics.scrub_unreadable.increment(1);
                tracing::error!(%lane, first = first.0, %error, "stored messages cannot be read");
            }
        }
        shared.report_damage(lane, first);
    }
}

// === impl Pass ===

impl Pass {
    fn new(shared: &Shared) -> Option<Self> {
        let mut lanes = Lane::ALL.iter();
        let lane = *lanes.next()?;
        let ends = Lane::ALL.map(|lane| shared.lane(lane).next());
        Some(Self { lanes, lane, at: shared.lane(lane).floor(), exact: true, ends })
    }

    /// Goes on to the next lane; `false` after the last.
    fn next_lane(&mut self, shared: &Shared) -> bool {
        let Some(lane) = self.lanes.next() else { return false };
        (self.lane, self.at, self.exact) = (*lane, shared.lane(*lane).floor(), true);
        true
    }

    fn end(&self) -> Seq {
        self.ends.get(self.lane.index()).copied().unwrap_or(Seq::ZERO)
    }

    /// What was confirmed meanwhile or is known to be gone needs no check. Returns whether anything is left of the lane.
    fn skip(&mut self, shared: &Shared) -> bool {
        let floor = shared.lane(self.lane).floor();
        if floor > self.at {
            (self.at, self.exact) = (floor, true);
        }
        let behind = shared.pass_holes(self.lane, self.at);
        if behind > self.at {
            (self.at, self.exact) = (behind, true);
        }
        self.at < self.end()
    }

    /// Reads and checks until `credit` is used up, the lane ends, or something is wrong; then says
    /// where and what, and stands behind it.
    fn read(&mut self, store: &dyn Store, credit: &mut i64) -> Option<(Seq, Fault)> {
        let (lane, end) = (self.lane, self.end());
        let (at, exact) = (&mut self.at, &mut self.exact);
        let mut fault = None;
        let scanned = store.scan(lane, *at, end, &mut |first, stored| {
            if *exact && first != *at {
                fault = Some((*at, Fault::Missing { until: first }));
                return ControlFlow::Break(());
            }
            *credit = credit.saturating_sub(i64::try_from(stored.len()).unwrap_or(i64::MAX));
            match Segment::decode_at(lane, first, stored) {
                Ok(segment) => (*at, *exact) = (segment.end(), true),
                Err(error) => {
                    (*at, *exact) = (first.next(), false);
                    fault = Some((first, Fault::Damaged(error)));
                }
            }
            if fault.is_some() || *credit <= 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(error) = scanned {
            // Nobody knows how far the bad stretch goes: the rest is left to the next pass.
            return Some((std::mem::replace(at, end), Fault::Unreadable(error)));
        }
        if fault.is_none() && *credit > 0 {
            // The scan came to its end, and so should the segments have.
            if *exact && *at < end {
                fault = Some((*at, Fault::Missing { until: end }));
            }
            *at = end;
        }
        match fault {
            Some((from, fault)) => self.unless_trimmed(store, from, fault),
            None => None,
        }
    }

    /// What was trimmed since the floor was looked up is no fault. The trim and the lane's head are
    /// written together, so the head knows.
    fn unless_trimmed(&mut self, store: &dyn Store, from: Seq, fault: Fault) -> Option<(Seq, Fault)> {
        if let Fault::Missing { until } = fault {
            (self.at, self.exact) = (until, true);
        }
        let head = match store.meta(&MetaKey::Head(self.lane)) {
            Ok(value) => value.and_then(|value| Head::decode(&value)),
            Err(error) => return Some((from, Fault::Unreadable(error))),
        };
        match head.filter(|head| head.first > from) {
            Some(head) => {
                (self.at, self.exact) = (head.first, true);
                None
            }
            None => Some((from, fault)),
        }
    }
}
