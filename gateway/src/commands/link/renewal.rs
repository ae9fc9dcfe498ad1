//! When a lock is renewed. No I/O, no clock.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::commands::dispatch::Dice;

/// What is known of how long the locks of one entity last. Service Bus does not say it, only when a lock ends, by its own
/// clock; ours may be minutes off. But a message says when it was enqueued, by the same clock as its lock's end: the lock
/// was given at most as long before that as we have had it, and exactly as long if the message came at once.
#[derive(Debug)]
pub(crate) struct Lasting {
    most_ms: AtomicU64,
    /// A message came at once, so that this is what they last.
    sure: AtomicBool,
}

/// The plan for one lock.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    due: Instant,
    /// What is known of the lock's duration.
    lasts: Duration,
    /// When it was given, or renewed last.
    given: Instant,
    /// Until when, by the clock of the service.
    until_ms: u64,
    failures: u32,
    dice: Dice,
}

/// Service Bus takes lock durations from 5 s to 5 minutes.
const LASTS_LEAST: Duration = Duration::from_secs(5);
const LASTS_MOST: Duration = Duration::from_secs(300);
/// What may be left of such a lock when we hear of it, with clocks that agree by a few seconds.
const PLAUSIBLE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(310);
/// The usual minute, which is what a lock lasts unless somebody asked for something else. As long as only our own clock
/// says that it lasts longer, it is renewed as one of a minute.
const LASTS_USUALLY: Duration = Duration::from_secs(60);
/// Assumed where the clocks disagree: short enough for locks that are half of the usual minute.
const LASTS_ASSUMED: Duration = Duration::from_secs(30);
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);

impl Default for Lasting {
    fn default() -> Self {
        Self::new()
    }
}

impl Lasting {
    /// Nothing is known.
    pub(crate) const fn new() -> Self {
        Self { most_ms: AtomicU64::new(u64::MAX), sure: AtomicBool::new(false) }
    }

    /// A message came over a lock that lasts `most` at most; `at_once` if it cannot have waited in the queue.
    pub(crate) fn heard(&self, most: Duration, at_once: bool) {
        // What no lock can last says nothing: the annotation is missing, or clocks of the service disagree.
        if most < *PLAUSIBLE.start() {
            return;
        }
        let most_ms = u64::try_from(most.max(LASTS_LEAST).as_millis()).unwrap_or(u64::MAX);
        self.most_ms.fetch_min(most_ms, Ordering::Relaxed);
        if at_once && PLAUSIBLE.contains(&most) {
            self.sure.store(true, Ordering::Relaxed);
        }
    }

    /// What locks last, if that is known, and what they last at most.
    fn known(&self) -> (bool, Duration) {
        let most = Duration::from_millis(self.most_ms.load(Ordering::Relaxed));
        (self.sure.load(Ordering::Relaxed), most.min(LASTS_MOST))
    }

    /// How long a lock lasts that has `claimed` left when it is given, if our clock is right.
    fn lasts(&self, claimed: Duration) -> Duration {
        let (sure, most) = self.known();
        if sure {
            return most;
        }
        let plausible = PLAUSIBLE.contains(&claimed);
        let claimed = if plausible { claimed.clamp(LASTS_LEAST, LASTS_USUALLY) } else { LASTS_ASSUMED };
        claimed.min(most)
    }
}

impl Renewal {
    /// A lock that was given at `now` (`now_ms` by the wall clock) and lasts until `until_ms`, if our clock is right.
    pub(crate) fn new(until_ms: u64, now_ms: u64, now: Instant, seed: u64, lasting: &Lasting) -> Self {
        let dice = Dice::new(seed);
        let mut plan = Self { due: now, lasts: LASTS_ASSUMED, given: now, until_ms, failures: 0, dice };
        plan.renewed(until_ms, now_ms, now, lasting);
        plan
    }

    /// When it is to be renewed: between four and five tenths of its duration, so that locks given together are not
    /// renewed together.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// It was renewed at `now` and lasts until `until_ms`.
    pub(crate) fn renewed(&mut self, until_ms: u64, now_ms: u64, now: Instant, lasting: &Lasting) {
        (self.given, self.until_ms, self.failures) = (now, until_ms, 0);
        self.lasts = lasting.lasts(Duration::from_millis(until_ms.saturating_sub(now_ms)));
        self.due = self.planned();
    }

    /// A message came at `now` that was enqueued at `enqueued_ms` by the clock of the service.
    pub(crate) fn heard(&mut self, enqueued_ms: u64, at_once: bool, now: Instant, lasting: &Lasting) {
        // Since it was enqueued no more time has passed than since the lock was given, or the lock is younger.
        let left = Duration::from_millis(self.until_ms.saturating_sub(enqueued_ms));
        lasting.heard(left.saturating_add(now.saturating_duration_since(self.given)), at_once);
        let (_, most) = lasting.known();
        if most < self.lasts {
            self.lasts = most;
            self.due = self.planned().min(self.due);
        }
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

    fn planned(&mut self) -> Instant {
        self.given + self.dice.between(self.lasts * 2 / 5, self.lasts / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    /// When locks are renewed that are given at `now_ms` by our clock, in whole seconds.
    fn check_known(lasting: &Lasting, until_ms: u64, now_ms: u64, expected_seconds: RangeInclusive<u64>) {
        let now = clock::now();
        for seed in 0..100 {
            let due = Renewal::new(until_ms, now_ms, now, seed, lasting).due() - now;
            assert!(expected_seconds.contains(&due.as_secs()), "{until_ms} at {now_ms}: {due:?}");
        }
    }

    fn check(until_ms: u64, now_ms: u64, expected_seconds: RangeInclusive<u64>) {
        check_known(&Lasting::default(), until_ms, now_ms, expected_seconds);
    }

    #[test]
    fn a_lock_is_renewed_before_its_half_is_over() {
        check(1_060_000, 1_000_000, 24..=30);
        check(1_030_000, 1_000_000, 12..=15);
        check(1_005_000, 1_000_000, 2..=2);
        check(1_004_900, 1_000_000, 2..=2);
        check(1_300_100, 1_000_000, 24..=30);
    }

    #[test]
    fn clocks_that_disagree_do_not_lose_a_lock_of_the_usual_minute() {
        check(1_000_000, 2_000_000, 12..=15);
        check(2_000_000, 1_000_000, 12..=15);
        check(1_700_000_000_000, 86_400_000, 12..=15);
        // Ours is so many seconds behind.
        for behind in [1, 30, 90, 150, 200, 240, 250, 300] {
            check(1_060_000 + behind * 1000, 1_000_000, 12..=30);
        }
        // Or ahead: never more often than a lock of five seconds.
        for ahead in [1, 30, 55, 58, 60, 90, 300] {
            check(1_060_000, 1_000_000 + ahead * 1000, 2..=30);
        }
    }

    /// What is known after a message, of a lock that lasts a minute by the clock of the service, which shows
    /// `1_000_000` when it is given. Ours shows something else.
    fn lasting(enqueued_ms: u64, came_after: u64, at_once: bool) -> Lasting {
        let (lasting, now) = (Lasting::default(), clock::now());
        let mut plan = Renewal::new(1_060_000, 5, now, 7, &lasting);
        plan.heard(enqueued_ms, at_once, now + Duration::from_millis(came_after), &lasting);
        lasting
    }

    #[test]
    fn a_message_that_comes_at_once_tells_what_locks_last_whatever_our_clock_shows() {
        let minute = lasting(1_020_000, 20_040, true);
        for skew in [0, 1_000_000, 1_030_000, 1_055_000, 1_300_000, 700_000, 850_000, 2_000_000] {
            check_known(&minute, 1_060_000, skew, 24..=30);
        }
        // Another lock of the same entity, and a clock of ours that is two minutes behind.
        let five_minutes = Lasting::default();
        five_minutes.heard(Duration::from_millis(300_050), true);
        check_known(&five_minutes, 1_300_000, 880_000, 120..=150);
    }

    #[test]
    fn a_message_that_waited_tells_what_locks_last_at_most() {
        let known = lasting(995_000, 10, false);
        check_known(&known, 1_300_000, 1_000_000, 24..=30);
        let short = Lasting::default();
        short.heard(Duration::from_secs(10), false);
        check_known(&short, 1_250_000, 1_000_000, 4..=5);
        check_known(&short, 1_060_000, 1_000_000, 4..=5);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let known = Lasting::default();
        known.heard(Duration::ZERO, true);
        known.heard(Duration::from_secs(1), true);
        known.heard(Duration::from_secs(4000), true);
        assert!(!known.known().0);
        check_known(&known, 1_060_000, 1_000_000, 24..=30);
    }

    #[test]
    fn a_lock_that_turns_out_to_be_shorter_is_renewed_sooner() {
        let (lasting, now) = (Lasting::default(), clock::now());
        // Ours is two minutes behind, the lock lasts ten seconds.
        let mut plan = Renewal::new(1_130_000, 1_000_000, now, 7, &lasting);
        assert!(plan.due() - now >= Duration::from_secs(24));
        plan.heard(1_119_000, false, now, &lasting);
        assert!(plan.due() - now <= Duration::from_millis(5500), "{:?}", plan.due() - now);
    }

    #[test]
    fn many_locks_given_together_are_not_renewed_together() {
        let (lasting, now) = (Lasting::default(), clock::now());
        let mut seconds: Vec<_> = (0..1000)
            .map(|seed| (Renewal::new(60_000, 0, now, seed, &lasting).due() - now).as_secs())
            .collect();
        seconds.sort_unstable();
        seconds.dedup();
        assert_eq!(seconds, [24, 25, 26, 27, 28, 29]);
    }

    #[test]
    fn what_failed_is_tried_again_several_times_before_the_lock_is_over() {
        let (lasting, start) = (Lasting::default(), clock::now());
        let mut plan = Renewal::new(60_000, 0, start, 7, &lasting);
        let mut tries = 0;
        while plan.due() < start + Duration::from_secs(60) {
            plan.failed(plan.due());
            tries += 1;
        }
        assert!(tries >= 5, "{tries}");
        plan.renewed(120_000, 60_000, start, &lasting);
        assert!(plan.due() - start >= Duration::from_secs(24));
    }
}
