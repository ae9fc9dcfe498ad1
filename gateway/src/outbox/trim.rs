//! When a lane is trimmed: a pure function of what could go and of the clock.
//!
//! A trim is one range deletion from the lane's beginning (the store leaves it to the deletion of
//! files where a lane has large ones). Many small ones would slow every read
//! down, so they are collected: by bytes, or for a second. While the lane is small enough to lie in
//! memory, less is collected, so that the deletion meets its segments before they reach a file and
//! neither is ever written to one.

use std::time::{Duration, Instant};

use penstock_proto::Seq;

use super::keys::Head;
use super::store::IN_MEMORY_BYTES;

/// Collected before a trim of a lane that reaches files.
const STEP_BYTES: u64 = 16 << 20;
/// Collected before a trim of a lane that lies in memory.
const STEP_IN_MEMORY_BYTES: u64 = 2 << 20;
/// Collected for at most this long.
pub(super) const STEP_TIME: Duration = Duration::from_secs(1);

/// Where one lane begins, and where it could begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trim {
    head: Head,
    last: Option<Instant>,
}

impl Trim {
    pub(super) const fn new(head: Head) -> Self {
        Self { head, last: None }
    }

    /// Where the lane begins.
    pub(super) const fn head(&self) -> Head {
        self.head
    }

    /// Whether to trim up to `floor` now. `backlog_bytes` is what stays behind it.
    pub(super) fn is_due(&self, floor: Head, backlog_bytes: u64, now: Instant) -> bool {
        if floor.first <= self.head.first {
            return false;
        }
        let collected = floor.bytes_before.saturating_sub(self.head.bytes_before);
        let in_memory = collected.saturating_add(backlog_bytes) <= IN_MEMORY_BYTES;
        let step = if in_memory { STEP_IN_MEMORY_BYTES } else { STEP_BYTES };
        let waited = self.last.is_none_or(|last| now.saturating_duration_since(last) >= STEP_TIME);
        collected >= step || waited
    }

    /// The lane was trimmed up to `head`. Returns how many entries went.
    pub(super) fn done(&mut self, head: Head, now: Instant) -> u64 {
        let Seq(before) = self.head.first;
        self.head = head;
        self.last = Some(now);
        head.first.0.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    #[test]
    fn trims_are_collected_by_bytes_and_time() {
        let start = clock::now();
        let head = |first, bytes_before| Head { first: Seq(first), bytes_before };
        let mut trim = Trim::new(head(1, 0));
        assert!(trim.is_due(head(2, 1), 0, start), "the first trim need not wait");
        assert_eq!(trim.done(head(2, 1), start), 1);
        let check = |bytes, backlog, after_ms, expected| {
            let now = start + Duration::from_millis(after_ms);
            assert_eq!(
                trim.is_due(head(9, 1 + bytes), backlog, now),
                expected,
                "{bytes} {backlog} {after_ms}"
            );
        };
        check(100, 0, 999, false);
        check(100, 0, 1000, true);
        check(STEP_IN_MEMORY_BYTES - 1, 0, 0, false);
        check(STEP_IN_MEMORY_BYTES, 0, 0, true);
        check(STEP_IN_MEMORY_BYTES, IN_MEMORY_BYTES, 0, false);
        check(STEP_BYTES - 1, IN_MEMORY_BYTES, 0, false);
        check(STEP_BYTES, IN_MEMORY_BYTES, 0, true);
        assert!(!trim.is_due(head(2, 1), 0, start + STEP_TIME), "nothing to trim");
    }
}
