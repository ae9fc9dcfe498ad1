//! The ranges whose entries go as backlog: ascending, disjoint, few.

use penstock_proto::Seq;

/// Most spans; a lane with as many goes on in order.
pub(super) const SPANS_MAX: usize = 16;

/// Ranges, end excluded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(Seq, Seq)>);

impl Spans {
    pub(super) fn new(spans: &[(Seq, Seq)]) -> Self {
        Self(spans.to_vec())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn list(&self) -> Vec<(Seq, Seq)> {
        self.0.clone()
    }

    /// Adds a range above all others; `false` if there is no room for it.
    pub(super) fn push(&mut self, from: Seq, end: Seq) -> bool {
        let has_room = self.0.len() < SPANS_MAX;
        match self.0.last_mut() {
            Some((_, last)) if *last == from => *last = end,
            Some((_, last)) if *last > from => return false,
            _ if has_room => self.0.push((from, end)),
            _ => return false,
        }
        true
    }

    /// Forgets what lies below `low` as a whole.
    pub(super) fn retire(&mut self, low: Seq) {
        self.0.retain(|(_, end)| *end > low);
    }

    /// The first position at or above `seq` inside a span.
    pub(super) fn first_from(&self, seq: Seq) -> Option<Seq> {
        self.0.iter().find(|(_, end)| *end > seq).map(|(from, _)| (*from).max(seq))
    }

    /// The first position at or above `seq` outside all spans.
    pub(super) fn behind(&self, seq: Seq) -> Seq {
        self.0.iter().fold(seq, |at, (from, end)| if *from <= at && at < *end { *end } else { at })
    }

    /// Positions inside spans at or above `seq`.
    pub(super) fn count_from(&self, seq: Seq) -> u64 {
        self.count_between(seq, Seq(u64::MAX))
    }

    /// Positions inside spans from `from` to below `below`.
    pub(super) fn count_between(&self, from: Seq, below: Seq) -> u64 {
        let inside = self.0.iter().map(|(first, end)| (first.0.max(from.0), end.0.min(below.0)));
        inside.map(|(first, end)| end.saturating_sub(first)).sum()
    }

    /// Positions outside spans from `from` to below `below`.
    pub(super) fn live_between(&self, from: Seq, below: Seq) -> u64 {
        below.0.saturating_sub(from.0).saturating_sub(self.count_between(from, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans() -> Spans {
        Spans::new(&[(Seq(5), Seq(8)), (Seq(10), Seq(20))])
    }

    #[test]
    fn positions_are_inside_or_behind() {
        let check = |seq, inside: Option<u64>, behind| {
            assert_eq!(spans().first_from(Seq(seq)), inside.map(Seq), "{seq}");
            assert_eq!(spans().behind(Seq(seq)), Seq(behind), "{seq}");
        };
        check(1, Some(5), 1);
        check(5, Some(5), 8);
        check(7, Some(7), 8);
        check(8, Some(10), 8);
        check(19, Some(19), 20);
        check(20, None, 20);
        assert_eq!((spans().count_from(Seq(7)), spans().count_between(Seq(0), Seq(11))), (11, 4));
        assert_eq!(spans().live_between(Seq(4), Seq(11)), 3);
    }

    #[test]
    fn spans_grow_at_their_end_only_and_are_bounded() {
        let mut spans = spans();
        assert!(!spans.push(Seq(19), Seq(30)), "it overlaps");
        assert!(spans.push(Seq(20), Seq(25)));
        assert_eq!(spans.list().len(), 2);
        for round in 0..SPANS_MAX - 2 {
            let from = 100 + 10 * round as u64;
            assert!(spans.push(Seq(from), Seq(from + 5)));
        }
        assert!(!spans.push(Seq(9_000), Seq(9_001)));
        spans.retire(Seq(8));
        assert!(spans.push(Seq(9_000), Seq(9_001)));
        assert_eq!(spans.first_from(Seq(1)), Some(Seq(10)));
    }
}
