//! Caps on events, as a judge counts them: by arrival, without a look at the gateway.

use serde::Serialize;

/// How many events may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cap {
    /// Per second.
    pub events_per_s: u64,
    /// At once, after a calm.
    pub burst: u64,
}

/// A bucket of tokens. A thousandth of one is the unit, so that events per second are units per millisecond.
#[derive(Debug)]
struct Bucket {
    cap: Cap,
    capacity: u64,
    level: u64,
    at_ms: u64,
}

/// A token in the unit of [`Bucket::level`].
const TOKEN: u64 = 1000;

// === impl Cap ===

impl Cap {
    /// How many of the events that came at these times, in order, came over the cap. Those of the last `slack_ms` may
    /// have come together.
    pub(super) fn over(self, times_ms: impl IntoIterator<Item = u64>, slack_ms: u64) -> u64 {
        let mut bucket = Bucket::full(self, self.events_per_s.saturating_mul(slack_ms));
        let taken = times_ms.into_iter().map(|at_ms| bucket.take(at_ms));
        taken.map(|taken| u64::from(!taken)).sum()
    }

    /// When events that are wanted at these times, in order, get their tokens one after the other.
    pub(super) fn ready_ms(self, wanted_ms: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut bucket = Bucket::full(self, 0);
        wanted_ms.into_iter().map(|at_ms| bucket.wait(at_ms)).collect()
    }
}

// === impl Bucket ===

impl Bucket {
    fn full(cap: Cap, more: u64) -> Self {
        let capacity = cap.burst.saturating_mul(TOKEN).saturating_add(more);
        Self { cap, capacity, level: capacity, at_ms: 0 }
    }

    fn fill(&mut self, at_ms: u64) {
        let gained = at_ms.saturating_sub(self.at_ms).saturating_mul(self.cap.events_per_s);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        self.at_ms = self.at_ms.max(at_ms);
    }

    fn take(&mut self, at_ms: u64) -> bool {
        self.fill(at_ms);
        let left = self.level.checked_sub(TOKEN);
        self.level = left.unwrap_or(self.level);
        left.is_some()
    }

    fn wait(&mut self, at_ms: u64) -> u64 {
        self.fill(at_ms);
        let missing = TOKEN.saturating_sub(self.level);
        let ready_ms = self.at_ms.saturating_add(missing.div_ceil(self.cap.events_per_s.max(1)));
        self.take(ready_ms);
        ready_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Cap = Cap { events_per_s: 10, burst: 5 };

    fn check(times_ms: &[u64], slack_ms: u64, expected: u64) {
        assert_eq!(CAP.over(times_ms.iter().copied(), slack_ms), expected, "{times_ms:?}");
    }

    #[test]
    fn a_burst_and_then_one_per_token_keep_the_cap() {
        check(&[1000; 5], 0, 0);
        check(&[1000, 1000, 1000, 1000, 1000, 1100, 1200, 1300], 0, 0);
    }

    #[test]
    fn one_event_more_is_over_the_cap() {
        check(&[1000; 6], 0, 1);
        check(&[1000, 1000, 1000, 1000, 1000, 1100, 1100, 1200, 1300], 0, 1);
        check(&[1000; 9], 0, 4);
    }

    #[test]
    fn what_came_together_for_the_slack_is_no_excess() {
        check(&[1000; 7], 200, 0);
        check(&[1000; 8], 200, 1);
    }

    #[test]
    fn tokens_come_one_after_the_other() {
        assert_eq!(CAP.ready_ms([1000; 8]), [1000, 1000, 1000, 1000, 1000, 1100, 1200, 1300]);
        assert_eq!(CAP.ready_ms([1000, 2000]), [1000, 2000]);
    }
}
