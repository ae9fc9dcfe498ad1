//! When a lock is renewed. No I/O, no clock.

use std::time::{Duration, Instant};

use crate::commands::dispatch::Dice;

/// The plan for one lock.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    due: Instant,
    /// What is known of the lock's duration.
    lasts: Duration,
    failures: u32,
    dice: Dice,
}

/// Service Bus takes lock durations from 5 s to 5 minutes. A difference of the two clocks that is far from that says
/// nothing about the lock.
const LASTS_LEAST: Duration = Duration::from_secs(2);
const LASTS_MOST: Duration = Duration::from_secs(310);
/// Assumed where the clocks disagree: short enough for locks that are half of the usual minute.
const LASTS_ASSUMED: Duration = Duration::from_secs(30);
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);

impl Renewal {
    /// A lock that was given at `now` (`now_ms` by the wall clock) and lasts until `until_ms`, if our clock is right.
    pub(crate) fn new(until_ms: u64, now_ms: u64, now: Instant, seed: u64) -> Self {
        let mut plan = Self { due: now, lasts: LASTS_ASSUMED, failures: 0, dice: Dice::new(seed) };
        plan.renewed(until_ms, now_ms, now);
        plan
    }

    /// When it is to be renewed: between four and five tenths of its duration, so that locks given together are not
    /// renewed together.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// It was renewed at `now` and lasts until `until_ms`.
    pub(crate) fn renewed(&mut self, until_ms: u64, now_ms: u64, now: Instant) {
        let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
        self.lasts = if left >= LASTS_LEAST && left <= LASTS_MOST { left } else { LASTS_ASSUMED };
        self.failures = 0;
        self.due = now + self.dice.between(self.lasts * 2 / 5, self.lasts / 2);
    }

    /// Renewing failed at `now`, and the lock may live: it is tried again soon.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.due = now
            + self.dice.pause(
                self.failures,
                AGAIN_FIRST.min(self.lasts / 10),
                AGAIN_LONGEST.min(self.lasts / 4),
            );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    fn check(until_ms: u64, now_ms: u64, expected_seconds: std::ops::RangeInclusive<u64>) {
        let now = clock::now();
        for seed in 0..100 {
            let due = Renewal::new(until_ms, now_ms, now, seed).due() - now;
            assert!(expected_seconds.contains(&due.as_secs()), "{until_ms} at {now_ms}: {due:?}");
        }
    }

    #[test]
    fn a_lock_is_renewed_before_its_half_is_over() {
        check(1_060_000, 1_000_000, 24..=30);
        check(1_300_000, 1_000_000, 120..=150);
        check(1_005_000, 1_000_000, 2..=2);
    }

    #[test]
    fn clocks_that_disagree_do_not_lose_a_lock_of_the_usual_minute() {
        check(1_000_000, 2_000_000, 12..=15);
        check(2_000_000, 1_000_000, 12..=15);
        check(1_700_000_000_000, 86_400_000, 12..=15);
    }

    #[test]
    fn many_locks_given_together_are_not_renewed_together() {
        let now = clock::now();
        let mut seconds: Vec<_> =
            (0..1000).map(|seed| (Renewal::new(60_000, 0, now, seed).due() - now).as_secs()).collect();
        seconds.sort_unstable();
        seconds.dedup();
        assert_eq!(seconds, [24, 25, 26, 27, 28, 29]);
    }

    #[test]
    fn what_failed_is_tried_again_several_times_before_the_lock_is_over() {
        let start = clock::now();
        let mut plan = Renewal::new(60_000, 0, start, 7);
        let mut tries = 0;
        while plan.due() < start + Duration::from_secs(60) {
            plan.failed(plan.due());
            tries += 1;
        }
        assert!(tries >= 5, "{tries}");
        plan.renewed(120_000, 60_000, start);
        assert!(plan.due() - start >= Duration::from_secs(24));
    }
}
