//! What changed in a file since its last sync: byte ranges, the size, and how short it was meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;

/// More ranges than this are replaced by "the whole file".
const RANGES_MAX: usize = 4096;

/// The state of one file between two syncs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    /// start -> end, disjoint and not adjacent.
    ranges: BTreeMap<u64, u64>,
    /// Everything may have changed.
    whole: bool,
    /// The shortest length since the last sync, if the file was ever cut: older bytes beyond it are gone.
    shortest: Option<u64>,
    /// The length now.
    size: u64,
}

impl Dirty {
    /// A file of which nothing is durable yet.
    pub(crate) fn whole(size: u64) -> Dirty {
        Dirty { whole: true, size, ..Dirty::default() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn shortest(&self) -> Option<u64> {
        self.shortest
    }

    /// Bytes to copy, in ascending order.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        if self.whole {
            return std::iter::once(0..self.size).collect();
        }
        self.ranges.iter().map(|(&start, &end)| start..end).collect()
    }

    pub(crate) fn wrote(&mut self, range: Range<u64>) {
        self.size = self.size.max(range.end);
        self.add(range);
    }

    pub(crate) fn cut_or_extended(&mut self, length: u64) {
        if length < self.size {
            self.shortest = Some(self.shortest.map_or(length, |shortest| shortest.min(length)));
            self.ranges.split_off(&length);
            if let Some((_, end)) = self.ranges.iter_mut().next_back() {
                *end = (*end).min(length);
            }
        }
        self.size = length;
    }

    pub(crate) fn all_changed(&mut self, size: u64) {
        *self = Dirty { shortest: self.shortest, ..Dirty::whole(size) };
    }

    /// Hands out what changed and starts anew at the same size.
    pub(crate) fn take(&mut self) -> Dirty {
        let fresh = Dirty { size: self.size, ..Dirty::default() };
        std::mem::replace(self, fresh)
    }

    /// Puts back what a failed sync took, below what changed since.
    pub(crate) fn restore(&mut self, taken: Dirty) {
        let mut merged = taken;
        if let Some(shortest) = self.shortest {
            merged.cut_or_extended(shortest.min(merged.size));
        }
        merged.whole |= self.whole;
        for range in self.ranges.iter().map(|(&start, &end)| start..end) {
            merged.add(range);
        }
        merged.size = self.size;
        *self = merged;
    }

    fn add(&mut self, range: Range<u64>) {
        if self.whole || range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Ranges are disjoint, so walking back from the last that starts within reach finds all that touch.
        while let Some((&other, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other);
            end = end.max(other_end);
            self.ranges.remove(&other);
        }
        self.ranges.insert(start, end);
        if self.ranges.len() > RANGES_MAX {
            self.whole = true;
            self.ranges.clear();
        }
    }
}
