//! How fast one connection is read.
//!
//! All devices share one disk and one group commit. A client that sends as fast as it can makes every
//! group larger, and what the others wait for is its bytes on their way to the disk. A token bucket per
//! connection keeps that in bounds; a client within its rate costs no look at the clock.

use std::time::{Duration, Instant};

/// The bucket holds what the rate yields in this part of a second,
const BURST_SHARE: u64 = 16;
/// but at least so many bytes.
const BURST_BYTES_MIN: u64 = 64 << 10;
/// Who waits, waits until the bucket holds what the rate yields in this part of a second.
const STEP_SHARE: u64 = 500;

const NANOS: i128 = 1_000_000_000;

/// A token bucket of bytes.
#[derive(Debug)]
pub(super) struct Pace {
    /// May be below zero: a read is counted when its size is known.
    left: i64,
    filled: Instant,
}

impl Pace {
    /// A full bucket for `rate` bytes per second.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self { left: burst(rate), filled: now }
    }

    /// Counts bytes that were read.
    #[inline]
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub_unsigned(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// How long not to read: nothing while the bucket holds something. Looks at the clock when it does not.
    #[inline]
    pub(super) fn wait(&mut self, rate: u64, now: impl FnOnce() -> Instant) -> Option<Duration> {
        if self.left > 0 { None } else { self.fill(rate, now()) }
    }

    #[cold]
    fn fill(&mut self, rate: u64, now: Instant) -> Option<Duration> {
        let elapsed =
            i128::try_from(now.saturating_duration_since(self.filled).as_nanos()).unwrap_or(i128::MAX);
        let earned = elapsed.saturating_mul(i128::from(rate)) / NANOS;
        let left = (i128::from(self.left).saturating_add(earned)).min(i128::from(burst(rate)));
        self.left = i64::try_from(left).unwrap_or(0);
        self.filled = now;
        if self.left > 0 {
            return None;
        }
        let lacking = i128::from((rate / STEP_SHARE).max(1)) - left;
        let nanos = lacking.saturating_mul(NANOS) / i128::from(rate.max(1));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

fn burst(rate: u64) -> i64 {
    i64::try_from((rate / BURST_SHARE).max(BURST_BYTES_MIN)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    const RATE: u64 = 16 << 20;

    #[test]
    fn a_client_within_its_rate_is_not_looked_at() {
        let mut pace = Pace::new(RATE, clock::now());
        pace.spend((1 << 20) - 1);
        assert_eq!(pace.wait(RATE, || unreachable!("the bucket holds a byte")), None);
    }

    #[test]
    fn a_burst_is_a_sixteenth_of_a_second_and_then_the_rate_holds() {
        let start = clock::now();
        let (mut now, mut pace) = (start, Pace::new(RATE, start));
        let (mut read, mut waits) = (0_u64, 0_u32);
        while now < start + Duration::from_secs(1) {
            while let Some(wait) = pace.wait(RATE, || now) {
                assert!(wait > Duration::ZERO && wait < Duration::from_millis(10), "{wait:?}");
                now += wait;
                waits += 1;
            }
            pace.spend(64 << 10);
            read += 64 << 10;
        }
        let expected = RATE + RATE / 16;
        assert!((expected..expected + 3 * (64 << 10)).contains(&read), "{read} bytes in a second");
        assert!((200..=500).contains(&waits), "{waits} waits");
    }

    #[test]
    fn what_is_not_used_is_not_saved() {
        let start = clock::now();
        let mut pace = Pace::new(RATE, start);
        pace.spend(2 << 20);
        let later = start + Duration::from_secs(3600);
        assert_eq!(pace.wait(RATE, || later), None);
        pace.spend(1 << 20);
        let wait = pace.wait(RATE, || later).expect("an hour of silence saves one burst");
        assert_eq!(wait.as_micros(), 2_000 - 1);
    }

    #[test]
    fn the_slowest_rate_takes_a_whole_read() {
        let start = clock::now();
        let mut pace = Pace::new(1, start);
        assert_eq!(pace.wait(1, || start), None);
        pace.spend(64 << 10);
        assert_eq!(pace.wait(1, || start), Some(Duration::from_secs(1)));
        pace.spend(usize::MAX);
        assert!(pace.wait(1, || start).is_some_and(|wait| wait > Duration::from_hours(24)));
    }
}
