//! Token buckets: how many events may go out per second, and how many at once.

/// How fast tokens return, and how many a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Events per 1000 seconds, so that slow rates are whole numbers too; at least 1.
    pub(crate) per_1000_s: u64,
    /// Events that may go out at once after a calm; at least 1.
    pub(crate) burst: u64,
}

/// What is left, in millionths of a token: whole numbers, so that it makes no difference how often it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) level: u64,
    /// When `level` was right, in Unix milliseconds.
    pub(super) at_ms: u64,
}

/// A token, in the unit of [`Bucket::level`].
const TOKEN: u64 = 1_000_000;

// === impl Rate ===

impl Rate {
    /// Twice as fast, twice as large.
    pub(super) const fn doubled(self) -> Self {
        Self { per_1000_s: self.per_1000_s.saturating_mul(2), burst: self.burst.saturating_mul(2) }
    }

    const fn capacity(self) -> u64 {
        self.burst.saturating_mul(TOKEN)
    }
}

// === impl Bucket ===

impl Bucket {
    pub(super) const fn full(rate: Rate, now_ms: u64) -> Self {
        Self { level: rate.capacity(), at_ms: now_ms }
    }

    /// The bucket at `now_ms`. A bucket from the future, which only junk is, has gained nothing.
    #[must_use]
    fn at(self, rate: Rate, now_ms: u64) -> Self {
        let passed = now_ms.saturating_sub(self.at_ms);
        // Events per 1000 s are millionths of a token per millisecond.
        let level = self.level.saturating_add(passed.saturating_mul(rate.per_1000_s));
        Self { level: level.min(rate.capacity()), at_ms: now_ms }
    }

    pub(super) fn has_token(self, rate: Rate, now_ms: u64) -> bool {
        self.at(rate, now_ms).level >= TOKEN
    }

    pub(super) fn is_full(self, rate: Rate, now_ms: u64) -> bool {
        self.at(rate, now_ms).level == rate.capacity()
    }

    /// Takes one token; the caller saw that there is one.
    pub(super) fn spend(&mut self, rate: Rate, now_ms: u64) {
        *self = self.at(rate, now_ms);
        self.level = self.level.saturating_sub(TOKEN);
    }

    /// When there will be a token: `now_ms` if there is one.
    pub(super) fn ready_ms(self, rate: Rate, now_ms: u64) -> u64 {
        let missing = TOKEN.saturating_sub(self.at(rate, now_ms).level);
        now_ms.saturating_add(missing.div_ceil(rate.per_1000_s.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn looking_more_often_changes_nothing(
            per_1000_s in 1_u64..1_000_000_000,
            burst in 1_u64..1000,
            times in prop::collection::vec(0_u64..100_000, 1..20),
        ) {
            let rate = Rate { per_1000_s, burst };
            let mut bucket = Bucket { level: 0, at_ms: 0 };
            let end: u64 = times.iter().sum();
            let direct = bucket.at(rate, end);
            let mut now = 0;
            for step in times {
                now += step;
                bucket = bucket.at(rate, now);
            }
            prop_assert_eq!(bucket, direct);
        }

        #[test]
        fn a_token_is_there_when_it_was_promised_and_not_before(
            per_1000_s in 1_u64..1_000_000_000,
            burst in 1_u64..1000,
            level in 0_u64..3 * TOKEN,
        ) {
            let rate = Rate { per_1000_s, burst };
            let bucket = Bucket { level, at_ms: 5000 };
            let ready = bucket.ready_ms(rate, 5000);
            prop_assert!(bucket.has_token(rate, ready));
            prop_assert!(ready == 5000 || !bucket.has_token(rate, ready - 1));
        }
    }

    #[test]
    fn a_burst_goes_out_at_once_and_then_one_for_each_token() {
        let rate = Rate { per_1000_s: 2000, burst: 3 };
        let mut bucket = Bucket::full(rate, 1000);
        let mut sent = Vec::new();
        for now in (1000..=3000).step_by(100) {
            while bucket.has_token(rate, now) {
                bucket.spend(rate, now);
                sent.push(now);
            }
        }
        assert_eq!(sent, [1000, 1000, 1000, 1500, 2000, 2500, 3000]);
        assert!(!bucket.is_full(rate, 4499) && bucket.is_full(rate, 4500));
    }

    #[test]
    fn a_bucket_from_the_future_starts_anew() {
        let rate = Rate { per_1000_s: 1000, burst: 1 };
        let mut bucket = Bucket { level: u64::MAX, at_ms: u64::MAX };
        assert!(bucket.has_token(rate, 0));
        bucket.spend(rate, 0);
        assert_eq!((bucket, bucket.ready_ms(rate, 0)), (Bucket { level: 0, at_ms: 0 }, 1000));
    }
}
