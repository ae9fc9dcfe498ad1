//! Deadlines of connections, on one coarse clock.
//!
//! A connection does not own a timer. It stores the tick of its deadline in its [`Link`], and a wheel
//! looks at each link at most [`HORIZON`] ticks apart and at its deadline. A deadline that moved
//! away costs one look; one that moved closer is at most [`HORIZON`] ticks late.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::link::{Link, Signal};

/// Ticks between two looks at one link.
const HORIZON: u32 = 4;
const SLOTS: usize = 8;

/// The coarse clock and its wheel.
#[derive(Debug)]
pub(super) struct Clock {
    /// Length of a tick: one second, except in tests.
    length: Duration,
    now: AtomicU32,
    slots: Mutex<[Vec<Weak<Link>>; SLOTS]>,
}

impl Clock {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, now: AtomicU32::new(0), slots: Mutex::default() }
    }

    /// Length of a tick.
    pub(super) const fn length(&self) -> Duration {
        self.length
    }

    /// Ticks since the start.
    #[inline]
    pub(super) fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// The tick at which `ticks` whole ticks have passed from now.
    pub(super) fn after(&self, ticks: u32) -> u32 {
        // One more, since part of the current tick is over.
        self.now().saturating_add(ticks).saturating_add(1)
    }

    /// Watches a link until it is dropped.
    pub(super) fn watch(&self, link: &Arc<Link>) {
        let next = self.next_look(link.deadline());
        place(&mut self.slots.lock(), next, Arc::downgrade(link));
    }

    /// Moves on by one tick and signals every link whose deadline is there.
    pub(super) fn tick(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let due = std::mem::take(&mut self.slots.lock()[slot(now)]);
        let mut again = Vec::with_capacity(due.len());
        for watched in due {
            let Some(link) = watched.upgrade() else { continue };
            let deadline = link.deadline();
            if deadline <= now {
                link.raise(Signal::Deadline);
            }
            again.push((self.next_look(deadline), watched));
        }
        let mut slots = self.slots.lock();
        for (next, watched) in again {
            place(&mut slots, next, watched);
        }
    }

    /// Ticks for ever.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn run(&self) {
        let mut interval = tokio::time::interval(self.length);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        interval.tick().await;
        loop {
            interval.tick().await;
            self.tick();
        }
    }

    fn next_look(&self, deadline: u32) -> u32 {
        let now = self.now();
        deadline.clamp(now.saturating_add(1), now.saturating_add(HORIZON))
    }
}

fn slot(tick: u32) -> usize {
    usize::try_from(tick).unwrap_or(0) % SLOTS
}

fn place(slots: &mut [Vec<Weak<Link>>; SLOTS], tick: u32, watched: Weak<Link>) {
    slots[slot(tick)].push(watched);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_signals_at_its_tick_and_a_moved_one_later() {
        let clock = Clock::new(Duration::from_secs(1));
        let link = Arc::new(Link::new("c".into()));
        link.set_deadline(clock.after(9));
        clock.watch(&link);
        let signalled = |ticks: u32| {
            (0..ticks).find(|_| {
                clock.tick();
                link.take_signals() != 0
            })
        };
        assert_eq!(signalled(9), None);
        link.set_deadline(clock.after(4));
        assert_eq!(signalled(20), Some(4), "it moved from tick 10 to tick 14");
        link.set_deadline(Link::NEVER);
        assert_eq!(signalled(50), None);
        link.set_deadline(clock.after(0));
        assert!(signalled(HORIZON).is_some(), "late by the horizon at most");
    }

    #[test]
    fn links_that_are_gone_leave_the_wheel() {
        let clock = Clock::new(Duration::from_secs(1));
        for _ in 0..100 {
            clock.watch(&Arc::new(Link::new("c".into())));
        }
        for _ in 0..HORIZON {
            clock.tick();
        }
        assert!(clock.slots.lock().iter().all(Vec::is_empty));
    }
}
