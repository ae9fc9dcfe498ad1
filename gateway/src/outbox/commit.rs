//! When a group commits: a pure function of what waits and of the clock.
//!
//! A commit that starts as soon as the last one ended wastes processor time and flash on a fast
//! disk, because each tiny sync rewrites a page and a journal block. So a commit starts at least
//! [`Policy::floor`] after the previous start, unless enough waits to be worth it or an alert waits.
//! On a disk whose sync takes longer than the floor, the floor has no effect.

use std::time::{Duration, Instant};

/// When to start the next group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Least time between two starts.
    pub(super) floor: Duration,
}

/// What waits to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) messages: u32,
    pub(super) bytes: usize,
    /// Whether lane `alerts` has something.
    pub(super) urgent: bool,
    /// Progress of consumers that somebody waits for.
    pub(super) commits: u32,
    /// Submissions of state alone that somebody waits for. State that may wait is in `bytes` only:
    /// it does not start a group.
    pub(super) prompts: u32,
}

/// The policy's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing waits.
    Idle,
    /// Start then, unless more arrives before.
    At(Instant),
    /// Start now.
    Now,
}

/// As many messages make a group worth its sync.
pub(super) const ENOUGH_MESSAGES: u32 = 256;
/// State that may wait for a group is written at the latest after this time without one.
pub(super) const RELAXED_MAX: Duration = Duration::from_millis(100);
/// As many bytes make a group worth its sync.
pub(super) const ENOUGH_BYTES: usize = 64 << 10;

impl Policy {
    /// When to start the group that holds `waiting`, if the previous one started at `last_start`.
    pub(super) fn decide(&self, waiting: Waiting, last_start: Option<Instant>, now: Instant) -> Verdict {
        if waiting.is_empty() {
            return Verdict::Idle;
        }
        let Some(earliest) = last_start.and_then(|start| start.checked_add(self.floor)) else {
            return Verdict::Now;
        };
        if waiting.is_enough() || now >= earliest { Verdict::Now } else { Verdict::At(earliest) }
    }
}

impl Waiting {
    /// Whether there is nothing to do.
    pub(super) const fn is_empty(self) -> bool {
        self.messages == 0 && self.commits == 0 && self.prompts == 0
    }

    /// Whether it need not wait for the floor.
    pub(super) const fn is_enough(self) -> bool {
        let many = self.messages.saturating_add(self.prompts) >= ENOUGH_MESSAGES;
        self.urgent || many || self.bytes >= ENOUGH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    #[test]
    fn the_floor_holds_unless_it_is_worth_starting() {
        let floor = Duration::from_millis(1);
        let policy = Policy { floor };
        let start = clock::now();
        let check = |messages, bytes, urgent, since_start: Option<u64>, expected: Verdict| {
            let now = start + Duration::from_micros(since_start.unwrap_or(0));
            let last_start = since_start.map(|_| start);
            assert_eq!(
                policy.decide(Waiting { messages, bytes, urgent, ..Waiting::default() }, last_start, now),
                expected
            );
        };
        check(0, 0, false, None, Verdict::Idle);
        check(0, 0, false, Some(5000), Verdict::Idle);
        check(1, 200, false, None, Verdict::Now);
        check(1, 200, false, Some(0), Verdict::At(start + floor));
        check(1, 200, false, Some(999), Verdict::At(start + floor));
        check(1, 200, false, Some(1000), Verdict::Now);
        check(1, 200, true, Some(0), Verdict::Now);
        check(255, 200, false, Some(0), Verdict::At(start + floor));
        check(256, 200, false, Some(0), Verdict::Now);
        check(1, (64 << 10) - 1, false, Some(0), Verdict::At(start + floor));
        check(1, 64 << 10, false, Some(0), Verdict::Now);
        let progress = Waiting { commits: 1, ..Waiting::default() };
        assert_eq!(policy.decide(progress, None, start), Verdict::Now, "progress alone is a group");
        assert_eq!(policy.decide(progress, Some(start), start), Verdict::At(start + floor));
        let state = |prompts, bytes| Waiting { prompts, bytes, ..Waiting::default() };
        assert_eq!(policy.decide(state(0, 1 << 20), None, start), Verdict::Idle, "state that may wait");
        assert_eq!(policy.decide(state(1, 50), None, start), Verdict::Now, "state that may not");
        assert_eq!(policy.decide(state(255, 50), Some(start), start), Verdict::At(start + floor));
        assert_eq!(policy.decide(state(256, 50), Some(start), start), Verdict::Now);
    }

    #[test]
    fn without_a_floor_groups_follow_each_other() {
        let now = clock::now();
        let waiting = Waiting { messages: 1, bytes: 1, ..Waiting::default() };
        assert_eq!(Policy { floor: Duration::ZERO }.decide(waiting, Some(now), now), Verdict::Now);
    }
}
