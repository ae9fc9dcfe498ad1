//! The chain of one lane in one partition, judged by its own headers.
//!
//! A record claims that `prev` went to the same partition before it and nothing in between. So a record
//! covers the whole range above `prev` up to its own seq, whether or not other partitions hold seqs of that
//! range, and an intact chain is one covered range, however long it is. What remains open between ranges is
//! a gap: at least its last seq was sent there and is missing. Memory is one range per open gap. Of a packed record
//! each entry is a link of its own.

use std::collections::BTreeMap;

use serde::Serialize;

/// Most ranges kept per set. Beyond it the two lowest are joined, which may hide old gaps; it is counted.
const RANGES_MAX: usize = 65_536;

/// A set of seqs as ranges, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    by_first: BTreeMap<u64, u64>,
    joined: u64,
}

/// What a record meant to its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one, or one that follows a gap.
    New,
    /// A seq seen before.
    Duplicate,
    /// Seen for the first time after a later one.
    Reordered,
}

/// One chain: a gateway's log and lane in one partition and stream.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    covered: Ranges,
    /// Lowest seq seen, 0 before the first.
    first: u64,
    records: u64,
    duplicates: u64,
    reordered: u64,
}

/// The counts of a chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records read, the entries of packs each for itself.
    pub records: u64,
    /// Lowest seq seen.
    pub first: u64,
    /// Highest seq seen.
    pub last: u64,
    /// Gaps that no named loss explains.
    pub gaps: u64,
    /// Gaps whose missing record lies in a named loss.
    pub explained: u64,
    /// Records seen before.
    pub duplicates: u64,
    /// First occurrences after a later record.
    pub reordered: u64,
}

// === impl Ranges ===

impl Ranges {
    /// Adds `first..=last`, joining what it touches.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        if first > last {
            return;
        }
        // From the right, everything that begins no later than just after the new end.
        while let Some((&start, &end)) = self.by_first.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            first = first.min(start);
            last = last.max(end);
            self.by_first.remove(&start);
        }
        self.by_first.insert(first, last);
        if self.by_first.len() > RANGES_MAX {
            self.join_lowest();
        }
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.by_first.range(..=seq).next_back().is_some_and(|(_, end)| seq <= *end)
    }

    /// The highest seq, 0 when empty.
    pub(crate) fn last(&self) -> u64 {
        self.by_first.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// How many seqs it holds.
    pub(crate) fn count(&self) -> u64 {
        self.by_first.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How often two ranges were joined for lack of room.
    pub(crate) const fn joined(&self) -> u64 {
        self.joined
    }

    /// The ranges between this set's ranges, and the one before the first from 1, as `first..=last`.
    fn holes(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut expected = 1;
        self.by_first.iter().filter_map(move |(first, last)| {
            let hole = (expected, first - 1);
            expected = last.saturating_add(1);
            (hole.0 <= hole.1).then_some(hole)
        })
    }

    fn join_lowest(&mut self) {
        let Some((first, _)) = self.by_first.pop_first() else { return };
        if let Some((_, last)) = self.by_first.pop_first() {
            self.by_first.insert(first, last);
            self.joined += 1;
        }
    }
}

// === impl Chain ===

impl Chain {
    /// Takes the next record of the chain, in order of offsets; `prev` is below `seq`.
    ///
    /// `trimmed` says that the partition no longer begins at offset 0: then what the first record claims to
    /// follow was there once.
    pub(crate) fn push(&mut self, seq: u64, prev: u64, trimmed: bool) -> Verdict {
        let is_first = self.records == 0;
        self.records += 1;
        if is_first {
            self.first = seq;
            self.covered.insert(if trimmed { 1 } else { prev + 1 }, seq);
            return Verdict::New;
        }
        if self.covered.contains(seq) {
            self.duplicates += 1;
            return Verdict::Duplicate;
        }
        let late = seq < self.covered.last();
        // A chain that begins anew (`prev` 0) above what was seen proves nothing about what lay between.
        self.covered.insert(if prev == 0 { seq } else { prev + 1 }, seq);
        self.first = self.first.min(seq);
        if late {
            self.reordered += 1;
            return Verdict::Reordered;
        }
        Verdict::New
    }

    /// Counts what is still open. A gap is explained when its last seq, the one known to be missing, lies
    /// in a named loss.
    pub(crate) fn summary(&self, losses: Option<&Ranges>) -> Summary {
        let ends = self.covered.holes().map(|(_, last)| last);
        let (explained, gaps): (Vec<u64>, Vec<u64>) =
            ends.partition(|last| losses.is_some_and(|losses| losses.contains(*last)));
        Summary {
            records: self.records,
            first: self.first,
            last: self.covered.last(),
            gaps: gaps.len() as u64,
            explained: explained.len() as u64,
            duplicates: self.duplicates,
            reordered: self.reordered,
        }
    }

    /// How often old gaps were joined for lack of room.
    pub(crate) const fn joined(&self) -> u64 {
        self.covered.joined()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Records as (prev, seq), and the counts (gaps, explained, duplicates, reordered).
    fn check(records: &[(u64, u64)], losses: &[(u64, u64)], expected: (u64, u64, u64, u64)) {
        check_from(false, records, losses, expected);
    }

    fn check_from(
        trimmed: bool,
        records: &[(u64, u64)],
        losses: &[(u64, u64)],
        expected: (u64, u64, u64, u64),
    ) {
        let mut chain = Chain::default();
        for (prev, seq) in records {
            chain.push(*seq, *prev, trimmed);
        }
        let mut named = Ranges::default();
        for (first, last) in losses {
            named.insert(*first, *last);
        }
        let Summary { gaps, explained, duplicates, reordered, records: count, .. } =
            chain.summary(Some(&named));
        assert_eq!((gaps, explained, duplicates, reordered), expected, "{records:?} {losses:?}");
        assert_eq!(count, records.len() as u64);
    }

    #[test]
    fn an_intact_chain_is_one_range() {
        check(&[], &[], (0, 0, 0, 0));
        check(&[(0, 3), (3, 4), (4, 90)], &[], (0, 0, 0, 0));
    }

    #[test]
    fn a_missing_record_is_a_gap() {
        check(&[(0, 3), (4, 7)], &[], (1, 0, 0, 0));
        check(&[(0, 3), (4, 7), (9, 10), (10, 11)], &[], (2, 0, 0, 0));
        check(&[(2, 3), (3, 4)], &[], (1, 0, 0, 0));
    }

    #[test]
    fn retention_is_not_a_gap() {
        check_from(true, &[(2, 3), (3, 4)], &[], (0, 0, 0, 0));
        check_from(true, &[(2, 3), (4, 5)], &[], (1, 0, 0, 0));
    }

    #[test]
    fn a_named_loss_explains_the_gap_whose_record_it_names() {
        check(&[(0, 3), (9, 12)], &[(8, 9)], (0, 1, 0, 0));
        check(&[(0, 3), (9, 12)], &[(7, 8)], (1, 0, 0, 0));
        check(&[(0, 3), (9, 12), (14, 15)], &[(8, 9)], (1, 1, 0, 0));
    }

    #[test]
    fn a_repeated_record_is_a_duplicate_and_harms_nothing() {
        check(&[(0, 3), (3, 4), (3, 4), (0, 3), (4, 5)], &[], (0, 0, 2, 0));
    }

    #[test]
    fn a_late_first_occurrence_is_reordered_and_closes_its_gap() {
        check(&[(0, 1), (2, 3), (1, 2)], &[], (0, 0, 0, 1));
        check(&[(0, 1), (3, 4), (1, 2), (2, 3)], &[], (0, 0, 0, 2));
        check(&[(0, 1), (3, 4), (2, 3)], &[], (1, 0, 0, 1));
    }

    #[test]
    fn a_chain_that_begins_anew_proves_nothing_about_what_lay_between() {
        check(&[(0, 3), (0, 9), (9, 10)], &[], (1, 0, 0, 0));
        check(&[(0, 3), (0, 4)], &[], (0, 0, 0, 0));
        check(&[(0, 3), (3, 5), (0, 3), (3, 5)], &[], (0, 0, 2, 0));
    }

    #[test]
    fn many_gaps_take_bounded_memory() {
        let mut chain = Chain::default();
        for gap in 0..100_000_u64 {
            chain.push(gap * 3 + 3, gap * 3 + 2, false);
        }
        assert_eq!((chain.covered.by_first.len(), chain.joined()), (RANGES_MAX, 100_000 - RANGES_MAX as u64));
    }

    proptest! {
        #[test]
        fn ranges_behave_like_a_set(inserts in prop::collection::vec((1u64..80, 0u64..12), 0..40)) {
            let mut ranges = Ranges::default();
            let mut model = std::collections::BTreeSet::new();
            for (first, length) in inserts {
                ranges.insert(first, first + length);
                model.extend(first..=first + length);
            }
            for seq in 0..100 {
                prop_assert_eq!(ranges.contains(seq), model.contains(&seq));
            }
            prop_assert_eq!(ranges.count(), model.len() as u64);
            prop_assert_eq!(ranges.last(), model.last().copied().unwrap_or(0));
            let ends: Vec<u64> = ranges.by_first.values().copied().collect();
            let starts: Vec<u64> = ranges.by_first.keys().copied().skip(1).collect();
            prop_assert!(ends.iter().zip(starts).all(|(end, start)| end + 1 < start), "neighbours are joined");
        }

        /// Any history of an honest gateway that resends from some earlier point shows duplicates only.
        #[test]
        fn replays_of_an_intact_chain_are_duplicates_only(
            steps in prop::collection::vec(1u64..9, 1..40),
            rewinds in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
        ) {
            let seqs: Vec<u64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
            let record = |place: usize| (if place == 0 { 0 } else { seqs[place - 1] }, seqs[place]);
            let mut chain = Chain::default();
            let mut sent = 0;
            let mut repeats = 0;
            for (from, to) in rewinds {
                let to = (to.index(seqs.len()) + 1).max(sent);
                for place in from.index(sent + 1)..to {
                    let (prev, seq) = record(place);
                    chain.push(seq, prev, false);
                    repeats += u64::from(place < sent);
                }
                sent = to;
            }
            let summary = chain.summary(None);
            prop_assert_eq!((summary.gaps, summary.reordered, summary.duplicates), (0, 0, repeats));
        }
    }
}
