//! The trail: which segments were handed out and not confirmed, so that a confirmed position becomes a
//! place to trim to without a look at the disk.
//!
//! All cursors of a consumer leave one trail, in whatever order they read.

use std::collections::BTreeMap;

use penstock_proto::Seq;

use super::keys::Head;
use super::segment::{Header, Segment};

/// Segments remembered. With more, those furthest ahead are forgotten; by the time they are
/// confirmed the store has to be asked for one.
const SEGMENTS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Trail {
    /// By the position where they begin.
    segments: BTreeMap<Seq, Extent>,
    /// Everything below was handed out, or a cursor began above it.
    reached: Seq,
}

/// Where a segment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    begin: Head,
    end: Head,
}

impl Trail {
    pub(super) const fn new(reached: Seq) -> Self {
        Self { segments: BTreeMap::new(), reached }
    }

    /// A segment was handed out.
    pub(super) fn note(&mut self, segment: &Segment) {
        self.reach(segment.end());
        self.segments.insert(segment.first(), Extent::of(segment.header()));
        if self.segments.len() > SEGMENTS_MAX {
            self.segments.pop_last();
        }
    }

    /// A cursor begins at `at`.
    pub(super) fn reach(&mut self, at: Seq) {
        self.reached = self.reached.max(at);
    }

    /// Above this position nothing can be confirmed.
    pub(super) const fn reached(&self) -> Seq {
        self.reached
    }

    /// Where to trim to if everything below `low` is confirmed, if a remembered segment tells.
    pub(super) fn floor(&self, low: Seq) -> Option<Head> {
        self.segments.range(..=low).next_back().and_then(|(_, extent)| extent.floor(low))
    }

    /// Forgets the segments that end at or below `low`.
    pub(super) fn forget_below(&mut self, low: Seq) {
        while self.segments.first_key_value().is_some_and(|(_, extent)| extent.end.first <= low) {
            self.segments.pop_first();
        }
    }
}

impl Extent {
    pub(super) const fn of(header: &Header) -> Self {
        Self {
            begin: Head { first: header.first, bytes_before: header.bytes_before },
            end: Head { first: header.end(), bytes_before: header.bytes_after() },
        }
    }

    /// The first position after it, and the bytes before that.
    pub(super) const fn end(&self) -> Head {
        self.end
    }

    /// Where to trim to if everything below `low` is confirmed and `low` lies in this segment or
    /// right behind it.
    pub(super) fn floor(&self, low: Seq) -> Option<Head> {
        if low == self.end.first {
            Some(self.end)
        } else {
            (self.begin.first..self.end.first).contains(&low).then_some(self.begin)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::segment;
    use super::*;

    #[test]
    fn a_position_becomes_the_beginning_of_its_segment() {
        let mut trail = Trail::new(Seq(5));
        let segments = [segment(5, 10, b"x"), segment(20, 4, b"x"), segment(15, 5, b"x")];
        segments.iter().for_each(|segment| trail.note(segment));
        let after = segments[1].header().bytes_after();
        let check = |trail: &Trail, low, expected: Option<(u64, u64)>| {
            let floor = trail.floor(Seq(low)).map(|head| (head.first.0, head.bytes_before));
            assert_eq!(floor, expected, "{low}");
        };
        check(&trail, 4, None);
        check(&trail, 5, Some((5, 77)));
        check(&trail, 14, Some((5, 77)));
        check(&trail, 15, Some((15, 77)));
        check(&trail, 23, Some((20, 77)));
        check(&trail, 24, Some((24, after)));
        check(&trail, 25, None);
        assert_eq!(trail.reached(), Seq(24));
        trail.forget_below(Seq(15));
        check(&trail, 14, None);
        check(&trail, 15, Some((15, 77)));
    }

    #[test]
    fn memory_is_bounded_and_the_nearest_are_kept() {
        let mut trail = Trail::new(Seq(1));
        for first in (1..=SEGMENTS_MAX as u64 + 10).rev() {
            trail.note(&segment(first, 1, b"x"));
        }
        assert_eq!(trail.segments.len(), SEGMENTS_MAX);
        assert!(trail.floor(Seq(1)).is_some() && trail.floor(Seq(SEGMENTS_MAX as u64 + 5)).is_none());
        assert_eq!(trail.reached(), Seq(SEGMENTS_MAX as u64 + 11), "that is no matter of memory");
    }
}
