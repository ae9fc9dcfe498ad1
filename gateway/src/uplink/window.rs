//! What is in flight: bounded in count and in bytes.
//!
//! Each record sent holds a slot until its delivery report comes. The slot's number travels through the
//! client library as the record's opaque value, so a report needs no search and sending needs no
//! allocation.

use std::collections::VecDeque;

use penstock_proto::Seq;

use super::tracker::ChainId;

/// What a record takes besides key, payload and header until it is confirmed: about 270 bytes in the client library,
/// with what its allocations cost, and 110 here.
const RECORD_OVERHEAD: usize = 384;

/// The records in flight.
#[derive(Debug)]
pub(crate) struct Window {
    slots: Vec<Option<Flight>>,
    /// In the order given back, so that neighbours in time are neighbours in memory.
    free: VecDeque<usize>,
    bytes: usize,
    bytes_max: usize,
}

/// A record in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    /// The place of its lane.
    pub(crate) place: usize,
    pub(crate) chain: ChainId,
    /// Its last entry.
    pub(crate) last: Seq,
    /// How many entries it carries.
    pub(crate) count: u32,
    /// When the newest of them was received.
    pub(crate) received_ms: u64,
    /// Key, payload and header.
    pub(crate) bytes: usize,
}

impl Window {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { slots: vec![None; count_max], free: (0..count_max).collect(), bytes: 0, bytes_max }
    }

    /// Whether a record of this size may be sent now, while `reserved` bytes more are about to be. A single
    /// one always may, or it could never go.
    pub(crate) fn has_room(&self, bytes: usize, reserved: usize) -> bool {
        let wanted = bytes.saturating_add(RECORD_OVERHEAD).saturating_add(reserved);
        let fits = self.bytes.saturating_add(wanted) <= self.bytes_max;
        !self.free.is_empty() && (fits || (self.is_empty() && reserved == 0))
    }

    /// Takes a slot, or `None` when all are taken.
    pub(crate) fn enter(&mut self, flight: Flight) -> Option<usize> {
        let slot = self.free.pop_front()?;
        self.slots[slot] = Some(flight);
        self.bytes += flight.bytes + RECORD_OVERHEAD;
        Some(slot)
    }

    /// Gives a slot back; `None` if it was not taken.
    pub(crate) fn leave(&mut self, slot: usize) -> Option<Flight> {
        let flight = self.slots.get_mut(slot)?.take()?;
        self.bytes -= flight.bytes + RECORD_OVERHEAD;
        self.free.push_back(slot);
        Some(flight)
    }

    /// Forgets everything in flight: its producer is gone.
    pub(crate) fn clear(&mut self) {
        for slot in 0..self.slots.len() {
            self.leave(slot);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use penstock_proto::Stream;

    use super::super::tracker::{Target, TopicId};
    use super::*;

    fn flight(bytes: usize) -> Flight {
        let chain = ChainId { target: Target { topic: TopicId(0), partition: 0 }, stream: Stream::Live };
        Flight { place: 2, chain, last: Seq(1), count: 1, received_ms: 0, bytes }
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        let mut window = Window::new(2, 2_000);
        assert!(window.has_room(400, 0));
        let first = window.enter(flight(400)).unwrap();
        let left = 2_000 - 2 * RECORD_OVERHEAD - 400;
        assert!(window.has_room(left, 0) && !window.has_room(left + 1, 0));
        let second = window.enter(flight(10)).unwrap();
        assert!(!window.has_room(0, 0), "both slots are taken");
        assert_eq!(window.enter(flight(1)), None);
        assert_eq!(window.leave(first), Some(flight(400)));
        assert_eq!(window.leave(first), None, "a slot is given back once");
        assert_eq!((window.count(), window.bytes()), (1, 10 + RECORD_OVERHEAD));
        assert_eq!(window.leave(second), Some(flight(10)));
        assert_eq!((window.count(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_record_larger_than_the_window_goes_alone() {
        let mut window = Window::new(2, 1_000);
        assert!(window.has_room(5_000, 0));
        window.enter(flight(5_000)).unwrap();
        assert!(!window.has_room(0, 0));
        window.clear();
        assert!(window.has_room(5_000, 0) && !window.has_room(5_000, 1));
        let left = 1_000 - RECORD_OVERHEAD - 400;
        assert!(window.has_room(400, left) && !window.has_room(400, left + 1));
        assert_eq!((window.count(), window.bytes()), (0, 0));
        assert_eq!(window.leave(0), None);
    }
}
