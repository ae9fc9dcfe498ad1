//! Pauses that grow while something keeps failing.

use std::time::{Duration, Instant};

/// Doubles from 100 ms to 30 s; success starts over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    /// Notes a failure at `now` and says when to try again.
    pub(crate) fn fail(&mut self, now: Instant) -> Instant {
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        now + pause
    }

    /// Notes a success.
    pub(crate) const fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    #[test]
    fn pauses_double_to_their_longest_and_start_over() {
        let now = clock::now();
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| (backoff.fail(now) - now).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
        backoff.succeed();
        assert_eq!(backoff.fail(now) - now, Backoff::FIRST);
    }
}
