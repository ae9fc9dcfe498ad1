//! The sparse index of a partition's log: from an offset or a time to a place in the file a little before.
//!
//! One entry stands for at least `interval` bytes. When the list is full, every second entry goes and the
//! interval doubles, so memory stays the same however long the log grows.

/// Most entries kept: about 1.5 MiB per partition at the very worst.
const ENTRIES_MAX: usize = 65_536;
/// The first interval, in bytes of log.
const INTERVAL_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    position: u64,
    /// Largest timestamp of all batches before this place.
    timestamp_before: i64,
}

#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    interval: u64,
    entries_max: usize,
    timestamp_max: i64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            interval: INTERVAL_BYTES,
            entries_max: ENTRIES_MAX,
            timestamp_max: i64::MIN,
        }
    }
}

impl Index {
    /// Notes a batch. Batches come in the order of the log.
    pub(super) fn note(&mut self, offset: i64, position: u64, timestamp: i64) {
        let due = self.entries.last().is_none_or(|last| position - last.position >= self.interval);
        if due {
            if self.entries.len() >= self.entries_max {
                let mut keep = false;
                self.entries.retain(|_entry| {
                    keep = !keep;
                    keep
                });
                self.interval *= 2;
            }
            self.entries.push(Entry { offset, position, timestamp_before: self.timestamp_max });
        }
        self.timestamp_max = self.timestamp_max.max(timestamp);
    }

    /// A place at or before the batch that holds `offset`.
    pub(super) fn before_offset(&self, offset: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        self.entries.get(after.saturating_sub(1)).map_or(0, |entry| entry.position)
    }

    /// A place at or before the first batch with a timestamp of at least `timestamp`.
    pub(super) fn before_time(&self, timestamp: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.timestamp_before < timestamp);
        self.entries.get(after.saturating_sub(1)).map_or(0, |entry| entry.position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::Index;

    proptest! {
        #[test]
        fn the_place_is_never_too_late_and_memory_is_bounded(
            sizes in proptest::collection::vec(1u64..200_000, 1..200),
            wanted in 0i64..200,
        ) {
            let mut index = Index { entries_max: 8, ..Index::default() };
            let mut position = 0;
            let mut places = Vec::new();
            for (offset, size) in sizes.iter().enumerate() {
                let offset = i64::try_from(offset).unwrap();
                index.note(offset, position, offset * 10);
                places.push(position);
                position += size;
            }
            let place = places.get(usize::try_from(wanted).unwrap()).copied().unwrap_or(u64::MAX);
            prop_assert!(index.before_offset(wanted) <= place);
            prop_assert!(index.before_time(wanted * 10) <= place);
            prop_assert!(index.entries.len() <= 8);
        }
    }
}
