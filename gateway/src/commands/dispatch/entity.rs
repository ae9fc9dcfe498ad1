//! What the dispatcher knows of one entity: its queues of devices, its state of health, its receivers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Counts, LinkNo};

/// Sessions remembered that were closed because their devices are not here.
const COOLING_MAX: usize = 4096;

/// One entity. The maps from marks to devices are in the order in which devices came into that state.
#[derive(Debug, Default)]
pub(super) struct Entity {
    pub(super) ready: BTreeMap<u64, Arc<str>>,
    pub(super) passive: BTreeMap<u64, Arc<str>>,
    pub(super) pausing: BTreeMap<(Instant, u64), Arc<str>>,
    /// Links that get commands, those that were idle the longest first.
    pub(super) linked: BTreeMap<u64, Arc<str>>,
    pub(super) accepting: usize,
    pub(super) closing: usize,
    pub(super) down: Option<Down>,
    pub(super) discovery: Discovery,
}

/// Nothing is accepted for now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Down {
    pub(super) until: Instant,
    pub(super) failures: u32,
    /// The one that tries whether it is over.
    pub(super) probe: Option<LinkNo>,
}

/// The receivers that wait for any session, and what they found.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// Receivers at work.
    pub(super) asking: BTreeSet<LinkNo>,
    /// Receivers that rest until then.
    pub(super) resting: BTreeSet<(Instant, LinkNo)>,
    /// Sessions held for devices that are not here.
    pub(super) parked: HashMap<Arc<str>, Parked>,
    pub(super) expiries: BTreeSet<(Instant, LinkNo, Arc<str>)>,
    /// Sessions closed lately for the same reason, and until when they should not come again.
    cooling: HashMap<Arc<str>, Instant>,
    cooling_order: BTreeSet<(Instant, Arc<str>)>,
}

/// A session that is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    pub(super) link: LinkNo,
    pub(super) until: Instant,
}

impl Entity {
    /// Links, those being opened and closed included.
    pub(super) fn links(&self) -> usize {
        self.linked.len() + self.accepting + self.closing
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            linked: self.linked.len(),
            accepting: self.accepting,
            closing: self.closing,
            ready: self.ready.len(),
            pausing: self.pausing.len(),
            passive: self.passive.len(),
            asking: self.discovery.asking.len(),
            parked: self.discovery.parked.len(),
        }
    }

    /// Whether an accept may go out now as far as the entity's health goes.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.down.is_none_or(|down| down.until <= now && down.probe.is_none())
    }

    /// Notes that an accept goes out; if the entity is down, it is the one that tries.
    pub(super) const fn note_try(&mut self, link: LinkNo) {
        if let Some(down) = &mut self.down {
            down.probe = Some(link);
        }
    }

    /// Nothing is accepted until `until`. Only the first of many that failed together counts.
    pub(super) fn shut(&mut self, link: LinkNo, until: impl FnOnce(u32) -> Instant) {
        let failures = match self.down {
            None => 1,
            Some(down) if down.probe == Some(link) => down.failures.saturating_add(1),
            Some(_) => return,
        };
        self.down = Some(Down { until: until(failures), failures, probe: None });
    }

    /// The service answered.
    pub(super) const fn open(&mut self) {
        self.down = None;
    }

    /// The one that tried ended without an answer.
    pub(super) fn forget_try(&mut self, link: LinkNo) {
        if let Some(down) = &mut self.down
            && down.probe == Some(link)
        {
            down.probe = None;
        }
    }
}

impl Discovery {
    /// Receivers at work or at rest.
    pub(super) fn receivers(&self) -> usize {
        self.asking.len() + self.resting.len()
    }

    /// Whether all of `most` receivers are at rest: nothing comes of asking now.
    pub(super) fn is_resting(&self, most: usize) -> bool {
        self.asking.is_empty() && self.resting.len() >= most
    }

    pub(super) fn park(&mut self, session: Arc<str>, link: LinkNo, until: Instant) {
        self.expiries.insert((until, link, Arc::clone(&session)));
        self.parked.insert(session, Parked { link, until });
    }

    /// Takes a session out of those that are held.
    pub(super) fn unpark(&mut self, session: &str) -> Option<Parked> {
        let (session, parked) = self.parked.remove_entry(session)?;
        self.expiries.remove(&(parked.until, parked.link, session));
        Some(parked)
    }

    /// Takes out a session whose time is over.
    pub(super) fn expired(&mut self, now: Instant) -> Option<(Arc<str>, LinkNo)> {
        let (until, link, session) = self.expiries.first()?.clone();
        if until > now {
            return None;
        }
        self.unpark(&session);
        Some((session, link))
    }

    /// Until when `session` should not have come again, if it is too early.
    pub(super) fn cooling_until(&self, session: &str, now: Instant) -> Option<Instant> {
        self.cooling.get(session).copied().filter(|until| *until > now)
    }

    /// Remembers that `session` was closed.
    pub(super) fn cool(&mut self, session: Arc<str>, now: Instant, time: Duration) {
        while let Some((until, _)) = self.cooling_order.first()
            && (*until <= now || self.cooling.len() >= COOLING_MAX)
        {
            if let Some((_, old)) = self.cooling_order.pop_first() {
                self.cooling.remove(&old);
            }
        }
        let until = now + time;
        if let Some(before) = self.cooling.insert(Arc::clone(&session), until) {
            self.cooling_order.remove(&(before, Arc::clone(&session)));
        }
        self.cooling_order.insert((until, session));
    }

    /// Ends the rest of receivers whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        while self.resting.first().is_some_and(|(until, _)| *until <= now) {
            self.resting.pop_first();
        }
    }
}
