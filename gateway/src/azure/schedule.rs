//! When a token is asked for next. Pure: no clock, no chance of its own.

use std::time::Duration;

/// Pauses between requests for a token.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Failures since the last success.
    failures: u32,
}

/// Part of a token's life after which it is renewed at the earliest, and how much later at the latest.
const RENEW_FROM: f64 = 0.5;
const RENEW_SPREAD: f64 = 0.3;
/// Shortest pause after a success; an endpoint may hand out the rest of an old token again and again.
const RENEW_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Pauses after failures double from the first to the second of these.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// How much longer than its turn a pause may be, so that gateways which failed together do not return together.
const RETRY_SPREAD: f64 = 0.5;
/// Longest pause that an endpoint may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

impl Schedule {
    /// The pause after a token came that lives for `life` from now. `chance` is from 0 to 1.
    pub(super) fn fetched(&mut self, life: Duration, chance: f64) -> Duration {
        self.failures = 0;
        life.mul_f64(RENEW_FROM + RENEW_SPREAD * chance).max(RENEW_PAUSE_MIN)
    }

    /// The pause after a failure. `chance` is from 0 to 1.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, chance: f64) -> Duration {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        pause.max(asked).mul_f64(1.0 + RETRY_SPREAD * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_renewed_between_50_and_80_percent_of_its_life() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.fetched(HOUR, 0.0), Duration::from_secs(1800));
        assert_eq!(schedule.fetched(HOUR, 1.0), Duration::from_secs(2880));
        for _ in 0..1000 {
            let chance: f64 = rand::random();
            let pause = schedule.fetched(HOUR, chance);
            assert!(pause >= HOUR / 2 && pause <= HOUR * 4 / 5, "chance {chance}: {pause:?}");
        }
    }

    #[test]
    fn the_rest_of_an_old_token_is_not_asked_for_in_a_loop() {
        assert_eq!(Schedule::default().fetched(Duration::from_millis(20), 0.0), Duration::from_secs(1));
    }

    #[test]
    fn pauses_double_to_a_minute_and_start_over() {
        let mut schedule = Schedule::default();
        let pauses: Vec<u64> = (0..8).map(|_| schedule.failed(None, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(schedule.failed(None, 1.0), Duration::from_secs(90));
        schedule.fetched(HOUR, 0.5);
        assert_eq!(schedule.failed(None, 0.0), Duration::from_secs(1));
    }

    #[test]
    fn the_endpoint_may_ask_for_a_longer_pause_within_reason() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.failed(Some(Duration::from_secs(7)), 0.0), Duration::from_secs(7));
        assert_eq!(schedule.failed(Some(Duration::ZERO), 0.0), Duration::from_secs(2), "not a shorter one");
        assert_eq!(schedule.failed(Some(HOUR), 0.0), Duration::from_secs(300));
    }
}
