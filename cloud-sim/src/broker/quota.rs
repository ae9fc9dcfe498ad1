//! The quota of a namespace: events and bytes per second over all topics, paid on arrival.
//!
//! Two token buckets, each filled for at most one second. A request takes what it needs at once and may
//! overdraw; its answer is held back until the debt is paid, as Event Hubs does. A request that would wait
//! longer than the limit takes nothing and is refused. No clock here: the time is an argument.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A bucket holds what comes in this time.
const BURST: Duration = Duration::from_secs(1);

/// What a namespace may take in per second, over all topics. Zero sets no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Records per second. A record counts once, whatever is packed in it.
    pub events: u64,
    /// Bytes of record batches per second, as they travel.
    pub bytes: u64,
}

/// What became of a request that came to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// It is taken; its answer is held back this long, possibly not at all.
    Paid(Duration),
    /// It would have to wait longer than the limit; nothing was taken.
    Violation,
}

/// What was taken so far.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Lets the produce path skip the mutex while there is no quota.
    limited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    quota: Quota,
    /// The longest time an answer may be held back.
    delay_max: Duration,
    /// When what was taken will be paid for, on the clock of the caller plus [`BURST`].
    events_paid: Duration,
    bytes_paid: Duration,
}

impl Meter {
    pub(crate) fn new(quota: Quota, delay_max: Duration) -> Self {
        let (events_paid, bytes_paid) = (Duration::ZERO, Duration::ZERO);
        let state = State { quota, delay_max, events_paid, bytes_paid };
        Self { limited: AtomicBool::new(quota != Quota::default()), state: Mutex::new(state) }
    }

    /// Whether there is any quota.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// Sets another quota, with full buckets, and another limit if there is one.
    pub(crate) fn set(&self, quota: Quota, delay_max: Option<Duration>) {
        let mut state = self.state.lock();
        let delay_max = delay_max.unwrap_or(state.delay_max);
        *state = State { quota, delay_max, events_paid: Duration::ZERO, bytes_paid: Duration::ZERO };
        self.limited.store(quota != Quota::default(), Ordering::Relaxed);
    }

    /// Takes `events` and `bytes` at `now`, a time since some fixed moment.
    pub(crate) fn charge(&self, now: Duration, events: u64, bytes: u64) -> Charge {
        let mut state = self.state.lock();
        // One burst later, so that the buckets are full at time zero too.
        let now = now + BURST;
        let events_paid = paid_after(state.events_paid, now, state.quota.events, events);
        let bytes_paid = paid_after(state.bytes_paid, now, state.quota.bytes, bytes);
        let delay = events_paid.max(bytes_paid).saturating_sub(now);
        if delay > state.delay_max {
            return Charge::Violation;
        }
        state.events_paid = events_paid;
        state.bytes_paid = bytes_paid;
        Charge::Paid(delay)
    }
}

/// When a bucket of `rate` per second is paid for once `amount` more is taken.
fn paid_after(paid: Duration, now: Duration, rate: u64, amount: u64) -> Duration {
    if rate == 0 {
        return paid;
    }
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate);
    let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    paid.max(now.saturating_sub(BURST)).saturating_add(cost)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop_assert, proptest};

    use super::{Charge, Meter, Quota};

    const LIMIT: Duration = Duration::from_secs(60);

    fn meter(events: u64, bytes: u64) -> Meter {
        Meter::new(Quota { events, bytes }, LIMIT)
    }

    /// Charges `(at ms, events, bytes)` in turn; returns the delays in ms, `None` for a violation.
    #[track_caller]
    fn check(meter: &Meter, charges: &[(u64, u64, u64)], expected: &[Option<u64>]) {
        let delays = charges.iter().map(|(at, events, bytes)| {
            match meter.charge(Duration::from_millis(*at), *events, *bytes) {
                Charge::Paid(delay) => Some(u64::try_from(delay.as_millis()).unwrap()),
                Charge::Violation => None,
            }
        });
        assert_eq!(delays.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn one_second_of_quota_is_free_and_debt_is_waited_for() {
        check(&meter(1_000, 0), &[(0, 1_000, 9), (0, 500, 9), (0, 1, 9)], &[Some(0), Some(500), Some(501)]);
    }

    #[test]
    fn buckets_refill_to_one_second_and_no_further() {
        let charges = [(0, 1_000, 0), (500, 500, 0), (500, 100, 0), (100_000, 1_000, 0), (100_000, 10, 0)];
        check(&meter(1_000, 0), &charges, &[Some(0), Some(0), Some(100), Some(0), Some(10)]);
    }

    #[test]
    fn the_scarcer_of_events_and_bytes_decides() {
        check(&meter(1_000, 1_000_000), &[(0, 1, 3_000_000)], &[Some(2_000)]);
        check(&meter(1_000, 1_000_000), &[(0, 5_000, 1)], &[Some(4_000)]);
    }

    #[test]
    fn a_violation_takes_nothing() {
        let charges = [(0, 61_001, 0), (0, 61_000, 0), (0, 1, 0), (10, 1, 0)];
        check(&meter(1_000, 0), &charges, &[None, Some(60_000), None, Some(59_991)]);
    }

    #[test]
    fn a_new_quota_starts_with_full_buckets() {
        let meter = meter(1, 0);
        check(&meter, &[(0, 30, 0)], &[Some(29_000)]);
        meter.set(Quota { events: 100, bytes: 0 }, Some(Duration::from_millis(5)));
        check(&meter, &[(0, 100, 0), (0, 1, 0)], &[Some(0), None]);
        assert!(meter.is_limited());
        meter.set(Quota::default(), None);
        assert!(!meter.is_limited());
        check(&meter, &[(0, u64::MAX, u64::MAX)], &[Some(0)]);
    }

    proptest! {
        /// Whoever waits for each answer never gets more than the quota and one second of burst.
        #[test]
        fn no_pattern_beats_the_quota(charges in proptest::collection::vec((0u64..400, 1u64..3_000), 1..50)) {
            let meter = meter(1_000, 0);
            let (mut now, mut taken) = (Duration::ZERO, 0);
            for (pause, events) in charges {
                now += Duration::from_millis(pause);
                if let Charge::Paid(delay) = meter.charge(now, events, 0) {
                    now += delay;
                    taken += events;
                }
                prop_assert!(u128::from(taken) <= now.as_millis() + 1_001, "{taken} after {now:?}");
            }
        }
    }
}
