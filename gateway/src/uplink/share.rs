//! How live records and backlog share the way out, and how long the backlog lasts.

use std::time::{Duration, Instant};

use super::pace::Kind;

/// Divides bytes between live records and backlog while both have something to send.
///
/// A deficit round robin of two: what is sent by one counts, weighed by the other's share, and whoever is behind
/// goes next. While both have something, live records get their share of the bytes but for one record, and so
/// does the backlog. What one does not use the other gets, and nobody saves up turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// Per cent of the bytes for live records, 1 to 99.
    live: u8,
    /// Above zero: the live records are ahead.
    balance: i64,
    contended: bool,
}

/// How long it takes until a backlog is sent, from how it shrinks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drain {
    last: Option<(Instant, u64, u64)>,
    /// Bytes per second, smoothed.
    drained: Option<i64>,
    arrived: Option<i64>,
}

/// Rates are smoothed over about this time.
const SMOOTH: Duration = Duration::from_secs(20);
/// An estimate beyond this says nothing.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

// === impl Share ===

impl Share {
    /// With `live` per cent for live records, at least 1 and at most 99.
    pub(crate) fn new(live: u8) -> Self {
        Self { live: live.clamp(1, 99), balance: 0, contended: false }
    }

    /// Whose turn it is, of those that have something that may go now. To be followed by [`Share::sent`] if
    /// something is sent.
    pub(crate) fn turn(&mut self, live: bool, backlog: bool) -> Option<Kind> {
        self.contended = live && backlog;
        match (live, backlog) {
            (true, true) if self.balance > 0 => Some(Kind::Backlog),
            (true, _) => Some(Kind::Live),
            (false, true) => Some(Kind::Backlog),
            (false, false) => None,
        }
    }

    /// Counts what went in the turn given last.
    pub(crate) fn sent(&mut self, kind: Kind, bytes: usize) {
        if !self.contended {
            return;
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 100);
        let live = i64::from(self.live);
        self.balance = match kind {
            Kind::Live => self.balance.saturating_add(bytes.saturating_mul(100 - live)),
            Kind::Backlog => self.balance.saturating_sub(bytes.saturating_mul(live)),
        };
    }
}

// === impl Drain ===

impl Drain {
    /// Takes in how many bytes of backlog were sent and how many were added since the start. To be called every
    /// few seconds; a total that went back begins anew.
    pub(crate) fn observe(&mut self, now: Instant, drained_total: u64, arrived_total: u64) {
        let last = self.last.replace((now, drained_total, arrived_total));
        let Some((at, drained, arrived)) = last else { return };
        let elapsed = now.saturating_duration_since(at);
        if elapsed.is_zero() {
            return;
        }
        if drained_total < drained || arrived_total < arrived {
            *self = Self { last: self.last, ..Self::default() };
            return;
        }
        self.drained = Some(smooth(self.drained, drained_total - drained, elapsed));
        self.arrived = Some(smooth(self.arrived, arrived_total - arrived, elapsed));
    }

    /// How long until `backlog` bytes are sent; `None` while that is not known, or never at this pace.
    pub(crate) fn left(&self, backlog: u64) -> Option<Duration> {
        if backlog == 0 {
            return Some(Duration::ZERO);
        }
        let shrinks = u64::try_from(self.drained? - self.arrived?).ok().filter(|rate| *rate > 0)?;
        Some(Duration::from_secs(backlog.div_ceil(shrinks))).filter(|left| *left <= LONGEST)
    }
}

fn smooth(old: Option<i64>, bytes: u64, elapsed: Duration) -> i64 {
    let elapsed_ms = i128::try_from(elapsed.as_millis().max(1)).unwrap_or(i128::MAX / 2);
    let rate = i128::from(bytes) * 1000 / elapsed_ms;
    let time_ms = i128::try_from(SMOOTH.as_millis()).unwrap_or(0);
    let smoothed = old.map_or(rate, |old| {
        (i128::from(old) * time_ms + rate * elapsed_ms.min(time_ms * 100))
            / (time_ms + elapsed_ms.min(time_ms * 100))
    });
    i64::try_from(smoothed).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::supervise::clock;

    proptest! {
        #[test]
        fn while_both_have_something_each_gets_its_share(
            live in 1u8..=99,
            sizes in prop::collection::vec((1usize..10_000, 1usize..10_000), 1..500),
        ) {
            let mut share = Share::new(live);
            let (mut of_live, mut of_backlog) = (0_u64, 0_u64);
            for (live_bytes, backlog_bytes) in sizes {
                let kind = share.turn(true, true).expect("both have something");
                let (bytes, sum) = match kind {
                    Kind::Live => (live_bytes, &mut of_live),
                    Kind::Backlog => (backlog_bytes, &mut of_backlog),
                };
                share.sent(kind, bytes);
                *sum += bytes as u64;
                let (total, one) = (of_live + of_backlog, 10_000);
                prop_assert!((of_live + one) * 100 >= total * u64::from(live));
                prop_assert!((of_backlog + one) * 100 >= total * u64::from(100 - live));
            }
        }
    }

    #[test]
    fn what_one_does_not_use_the_other_gets_and_nobody_saves_up_turns() {
        let mut share = Share::new(50);
        assert_eq!(share.turn(false, false), None);
        for _ in 0..1000 {
            let kind = share.turn(false, true).unwrap();
            assert_eq!(kind, Kind::Backlog);
            share.sent(kind, 1000);
        }
        let turns: Vec<_> = (0..6)
            .map(|_| {
                let kind = share.turn(true, true).unwrap();
                share.sent(kind, 1000);
                kind
            })
            .collect();
        assert_eq!(turns.iter().filter(|kind| **kind == Kind::Live).count(), 3, "{turns:?}");
    }

    #[test]
    fn the_time_left_follows_how_the_backlog_shrinks() {
        let start = clock::now();
        let mut drain = Drain::default();
        assert_eq!((drain.left(0), drain.left(1)), (Some(Duration::ZERO), None), "nothing is known");
        for second in 0..100_u32 {
            let total = u64::from(second);
            drain.observe(start + Duration::from_secs(1) * second, 3000 * total, 1000 * total);
        }
        assert_eq!(drain.left(200_000), Some(Duration::from_secs(100)));
        let mut total = 99;
        for second in 100..400_u32 {
            total += 1;
            drain.observe(start + Duration::from_secs(1) * second, 3000 * 99, 1000 * total);
        }
        assert_eq!(drain.left(200_000), None, "it grows");
        drain.observe(start + Duration::from_secs(500), 0, 0);
        assert_eq!(drain.left(200_000), None, "totals that begin anew tell nothing");
    }
}
