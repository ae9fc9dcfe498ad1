//! How often something may be done in a second.

use std::time::{Duration, Instant};

/// A token bucket that knows only one moment: when it is full again. It holds a quarter of a second's worth of tokens,
/// at least one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Time's worth of one token.
    each: Duration,
    /// How far ahead of the clock `full_at` may run.
    burst: Duration,
    full_at: Instant,
}

/// How much may be done at once, in time's worth of tokens.
const BURST: Duration = Duration::from_millis(250);

impl Bucket {
    /// A full one that takes in `rate` tokens per second, at least 1.
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        let each = Duration::from_secs(1) / rate.max(1);
        Self { each, burst: BURST.max(each), full_at: now }
    }

    /// When a token can be taken: `now`, or a later time.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        let ahead = self.full_at.saturating_duration_since(now) + self.each;
        now + ahead.saturating_sub(self.burst)
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let there = self.ready_at(now) <= now;
        if there {
            self.reserve(now);
        }
        there
    }

    /// Takes a token in advance and says when it is there.
    pub(super) fn reserve(&mut self, now: Instant) -> Instant {
        let at = self.ready_at(now);
        self.full_at = self.full_at.max(now) + self.each;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    #[test]
    fn a_second_carries_the_rate_and_at_most_a_quarter_more() {
        let start = clock::now();
        let mut bucket = Bucket::new(100, start);
        let taken = (0..=1000).filter(|ms| bucket.take(start + Duration::from_millis(*ms))).count();
        assert!((120..=126).contains(&taken), "{taken}");
        let later = start + Duration::from_secs(1);
        let taken = (1..=1000).filter(|ms| bucket.take(later + Duration::from_millis(*ms))).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn a_slow_bucket_has_one_token_and_says_when_the_next_comes() {
        let start = clock::now();
        let mut bucket = Bucket::new(1, start);
        assert!(bucket.take(start) && !bucket.take(start));
        assert_eq!(bucket.ready_at(start), start + Duration::from_secs(1));
        assert_eq!(bucket.reserve(start), start + Duration::from_secs(1));
        assert_eq!(bucket.reserve(start), start + Duration::from_secs(2));
    }
}
