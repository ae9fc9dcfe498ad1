//! The tail cache: recent segments in memory, so that a consumer that keeps up never reads the disk.
//!
//! Bounded by bytes over all lanes. What every consumer has confirmed goes first; then the oldest
//! segments of the lane that takes most.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use super::segment::Segment;

#[derive(Debug)]
pub(super) struct TailCache {
    bytes_max: usize,
    lanes: Mutex<[LaneTail; Lane::COUNT]>,
}

/// The end of one lane: segments without a gap between them.
#[derive(Debug, Default)]
struct LaneTail {
    segments: VecDeque<Arc<Segment>>,
    bytes: usize,
}

impl TailCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, lanes: Mutex::default() }
    }

    /// Adds segments that were just committed.
    pub(super) fn extend(&self, segments: impl Iterator<Item = Arc<Segment>>) {
        if self.bytes_max == 0 {
            return;
        }
        let mut lanes = self.lanes.lock();
        for segment in segments {
            if let Some(tail) = lanes.get_mut(segment.lane().index()) {
                tail.push(segment);
            }
        }
        while lanes.iter().map(|tail| tail.bytes).sum::<usize>() > self.bytes_max {
            let Some(largest) = lanes.iter_mut().max_by_key(|tail| tail.bytes) else { break };
            largest.pop();
        }
    }

    /// The segment that holds `seq`.
    pub(super) fn find(&self, lane: Lane, seq: Seq) -> Option<Arc<Segment>> {
        let lanes = self.lanes.lock();
        let segments = &lanes.get(lane.index())?.segments;
        let after = segments.partition_point(|segment| segment.first() <= seq);
        let found = segments.get(after.checked_sub(1)?)?;
        (seq < found.end()).then(|| Arc::clone(found))
    }

    /// Forgets the segments that end at or below `floor`.
    pub(super) fn forget_below(&self, lane: Lane, floor: Seq) {
        let mut lanes = self.lanes.lock();
        let Some(tail) = lanes.get_mut(lane.index()) else { return };
        while tail.segments.front().is_some_and(|segment| segment.end() <= floor) {
            tail.pop();
        }
    }
}

impl LaneTail {
    fn push(&mut self, segment: Arc<Segment>) {
        if self.segments.back().is_some_and(|last| last.end() != segment.first()) {
            // A reopened database may hold segments that never came through here.
            self.segments.clear();
            self.bytes = 0;
        }
        self.bytes += segment.memory();
        self.segments.push_back(segment);
    }

    fn pop(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            self.bytes -= segment.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::segment;
    use super::*;

    fn first(cache: &TailCache, seq: u64) -> Option<u64> {
        cache.find(Lane::Telemetry, Seq(seq)).map(|segment| segment.first().0)
    }

    #[test]
    fn finds_by_any_position_and_forgets_what_is_confirmed() {
        let cache = TailCache::new(1 << 20);
        cache.extend(
            [segment(5, 10, b"x"), segment(15, 1, b"x"), segment(16, 4, b"x")].map(Arc::new).into_iter(),
        );
        let check = |seq, expected| assert_eq!(first(&cache, seq), expected, "{seq}");
        check(4, None);
        check(5, Some(5));
        check(14, Some(5));
        check(15, Some(15));
        check(19, Some(16));
        check(20, None);
        cache.forget_below(Lane::Telemetry, Seq(15));
        check(14, None);
        check(15, Some(15));
        assert!(cache.find(Lane::Bulk, Seq(15)).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stay() {
        let one = Arc::new(segment(1, 1, &[0; 1000]));
        let cache = TailCache::new(3 * one.memory());
        cache.extend((1..=10).map(|first| Arc::new(segment(first, 1, &[0; 1000]))));
        let held: Vec<_> = (1..=10).filter(|seq| first(&cache, *seq).is_some()).collect();
        assert!(held == [8, 9, 10] || held == [9, 10], "{held:?}");
        let nothing = TailCache::new(0);
        nothing.extend([one].into_iter());
        assert_eq!(first(&nothing, 1), None);
    }

    #[test]
    fn a_gap_starts_the_tail_anew() {
        let cache = TailCache::new(1 << 20);
        cache.extend([segment(1, 3, b"x"), segment(9, 1, b"x")].map(Arc::new).into_iter());
        assert_eq!((first(&cache, 1), first(&cache, 9)), (None, Some(9)));
    }
}
