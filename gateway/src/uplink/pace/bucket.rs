//! A token bucket in whole numbers: what fills it in a second is its rate, and it holds a quarter of that.

use std::time::{Duration, Instant};

/// Tokens come in at a rate and are taken out by what is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Tokens per second, at least 1.
    rate: u64,
    /// A thousand-millionth of a token each. Below zero after something larger than the bucket.
    level: i128,
    /// When `level` was right.
    at: Instant,
}

/// How much time's worth of tokens a bucket holds. Long enough that a thread which wakes every 50 ms loses
/// nothing; short enough that a second never carries more than 1.25 times the rate.
pub(super) const BURST: Duration = Duration::from_millis(250);

const NANOS: i128 = 1_000_000_000;

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1);
        Self { rate, level: capacity(rate), at: now }
    }

    /// Whether so many tokens may be taken: they are there, or the bucket is full and cannot hold as many.
    pub(super) fn has(&mut self, now: Instant, tokens: u64) -> bool {
        if now > self.at {
            self.level = self.level_at(now);
            self.at = now;
        }
        self.level >= self.needed(tokens)
    }

    /// Takes them out.
    pub(super) fn take(&mut self, tokens: u64) {
        self.level -= i128::from(tokens) * NANOS;
    }

    /// Puts some back that were taken for what was not sent.
    pub(super) fn give_back(&mut self, tokens: u64) {
        self.level = (self.level + i128::from(tokens) * NANOS).min(capacity(self.rate));
    }

    /// How long until [`Bucket::has`] says yes, if nothing is taken.
    pub(super) fn wait(&self, now: Instant, tokens: u64) -> Duration {
        let missing = self.needed(tokens) - self.level_at(now);
        if missing <= 0 {
            return Duration::ZERO;
        }
        let nanos = missing.div_euclid(i128::from(self.rate)) + 1;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Changes the rate. What is in it stays, as far as the new bucket holds it.
    pub(super) fn set_rate(&mut self, now: Instant, rate: u64) {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
        self.rate = rate.max(1);
        self.level = self.level.min(capacity(self.rate));
    }

    fn level_at(&self, now: Instant) -> i128 {
        let waited = now.saturating_duration_since(self.at).as_nanos();
        // No debt is longer than this: a record of at most 1 MB at no less than 1 byte per second.
        let waited = i128::try_from(waited).unwrap_or(i128::MAX).min(i128::from(u64::MAX));
        (self.level + waited * i128::from(self.rate)).min(capacity(self.rate))
    }

    fn needed(&self, tokens: u64) -> i128 {
        (i128::from(tokens) * NANOS).min(capacity(self.rate))
    }
}

/// At least one token, so that a slow bucket fills at all.
fn capacity(rate: u64) -> i128 {
    let burst = i128::try_from(BURST.as_nanos()).unwrap_or(NANOS);
    (i128::from(rate) * burst).max(NANOS)
}
