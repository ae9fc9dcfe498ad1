//! When to try again and when to renew. No clock and no chance of its own.

use std::time::{Duration, Instant};

/// Pauses that double while connecting keeps failing, with some chance in them so that gateways which lost their
/// connections together do not return together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

/// When an entity's token is put again.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    /// A connection that lived this long was a good one.
    const GOOD: Duration = Duration::from_secs(10);

    /// How long to wait at `now` before the next try; `None` if it may be now.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Notes at `now` that a connection did not come about. `pause_min` is what the service asked for; `chance` is
    /// from 0 to 1.
    pub(super) fn failed(&mut self, now: Instant, pause_min: Option<Duration>, chance: f64) {
        let turn = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Between half of the turn and all of it.
        let pause = turn.mul_f64(0.5 + chance / 2.0).max(pause_min.unwrap_or_default());
        self.until = Some(now + pause);
    }

    /// Notes at `now` that a connection ended which had lived for `life`. One that ends at once counts as failed.
    pub(super) fn ended(&mut self, now: Instant, life: Duration, pause_min: Option<Duration>, chance: f64) {
        if life >= Self::GOOD {
            self.failures = 0;
        }
        self.failed(now, pause_min, chance);
    }
}

// === impl Renewal ===

impl Renewal {
    /// Part of a token's life after which it is put again.
    const AT: f64 = 0.75;
    /// How much earlier or later, as part of its life.
    const SPREAD: f64 = 0.05;
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    /// The pause after a token was taken that lives for `life` from now. `chance` is from 0 to 1.
    pub(super) fn granted(&mut self, life: Duration, chance: f64) -> Duration {
        self.failures = 0;
        life.mul_f64(Self::AT + Self::SPREAD * (2.0 * chance - 1.0)).max(Self::SHORTEST)
    }

    /// The pause after a token was not taken. `pause_min` is what the service asked for; `chance` is from 0 to 1.
    pub(super) fn refused(&mut self, pause_min: Option<Duration>, chance: f64) -> Duration {
        let turn = Self::SHORTEST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        turn.max(pause_min.unwrap_or_default().min(Self::LONGEST)).mul_f64(1.0 + 0.5 * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    #[test]
    fn pauses_double_to_half_a_minute_and_are_never_all_alike() {
        let now = clock::now();
        let mut most = Backoff::default();
        let mut least = Backoff::default();
        assert_eq!(most.wait(now), None);
        let pauses: Vec<_> = (0..11)
            .map(|_| {
                most.failed(now, None, 1.0);
                least.failed(now, None, 0.0);
                assert_eq!(least.wait(now).unwrap() * 2, most.wait(now).unwrap());
                most.wait(now).unwrap().as_millis()
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(most.wait(now + Duration::from_secs(30)), None);
    }

    #[test]
    fn a_connection_that_lived_starts_the_pauses_over_and_one_that_did_not_goes_on() {
        let now = clock::now();
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.failed(now, None, 1.0);
        }
        backoff.ended(now, Duration::from_secs(9), None, 1.0);
        assert_eq!(backoff.wait(now), Some(Duration::from_millis(3_200)));
        backoff.ended(now, Duration::from_secs(10), None, 1.0);
        assert_eq!(backoff.wait(now), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_busy_service_gets_the_pause_it_asks_for() {
        let now = clock::now();
        let mut backoff = Backoff::default();
        backoff.failed(now, Some(Duration::from_secs(10)), 0.0);
        assert_eq!(backoff.wait(now), Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_token_is_put_again_at_three_quarters_of_its_life() {
        let mut renewal = Renewal::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(renewal.granted(hour, 0.5), Duration::from_secs(2700));
        assert_eq!(renewal.granted(hour, 0.0), Duration::from_secs(2520));
        assert_eq!(renewal.granted(hour, 1.0), Duration::from_secs(2880));
        assert_eq!(renewal.granted(Duration::from_millis(3), 0.5), Duration::from_secs(1), "not in a loop");
    }

    #[test]
    fn a_refused_token_is_tried_again_with_pauses_up_to_a_minute() {
        let mut renewal = Renewal::default();
        let pauses: Vec<u64> = (0..8).map(|_| renewal.refused(None, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        renewal.granted(Duration::from_secs(60), 0.5);
        assert_eq!(renewal.refused(Some(Duration::from_secs(10)), 1.0), Duration::from_secs(15));
    }
}
