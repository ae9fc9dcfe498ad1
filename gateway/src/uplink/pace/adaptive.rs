//! The limit that follows what the service says: down quickly when it throttles, up slowly when it does not.
//!
//! | the service | the limit |
//! |---|---|
//! | never throttled, or not for five minutes | none |
//! | announces a delay | times 0.7 (a delay of a second or more) to 1.0, at most every two seconds, but not below 0.9 (0.5, for a delay of ten seconds or more) of what is being confirmed |
//! | answers `POLICY_VIOLATION` | half, at most every two seconds |
//! | announces none for two seconds, and the limit held something back | up by a twentieth per second: of where it was when it fell, of itself or of one throughput unit, whichever is most |
//! | announces none, and the limit held nothing back | as it is: nothing was learned |
//!
//! It never falls below a twentieth of a throughput unit, so that something always moves and can show that the
//! service has recovered.

use std::time::{Duration, Instant};

use super::Rates;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Adaptive {
    limit: Option<Limit>,
    /// What is confirmed per second, smoothed.
    confirmed: Option<Rates>,
    /// The most of it lately: while answers are delayed nothing is confirmed, and then too much at once.
    recent: Option<Rates>,
    observed: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    rates: Rates,
    /// Where it was when it fell last, or a little below: growth goes by it.
    reference: Rates,
    /// When it fell last.
    fell: Option<Instant>,
    /// When the service throttled last.
    throttled: Instant,
}

/// Never below this: something always moves.
pub(super) const FLOOR: Rates = Rates { bytes_per_second: 50_000, records_per_second: 50 };
/// Time that a change takes to show in what the service announces.
pub(super) const REACTION: Duration = Duration::from_secs(2);
/// The limit goes when the service did not throttle for so long.
pub(super) const FORGET: Duration = Duration::from_secs(300);
/// A delay of this length or more takes all of [`FALL`], in thousandths of the limit.
const SEVERE: Duration = Duration::from_secs(1);
const FALL: u64 = 300;
/// A delay of this length or more takes all of [`DRAIN`], in thousandths of what is being confirmed: so much waits
/// at the service already that it stays busy while the queue shrinks.
const QUEUED: Duration = Duration::from_secs(10);
const DRAIN: u64 = 400;
/// Shorter delays are no reason to slow down: the service's own accounts wobble.
const MILD: Duration = Duration::from_millis(5);
/// Confirmations are smoothed over about this time.
const SMOOTH: Duration = Duration::from_secs(3);
/// What a longer time than this says is about a session that was not there.
const GAP: Duration = Duration::from_secs(5);
/// The most of what was confirmed is forgotten over about this time.
const RECENT: Duration = Duration::from_secs(20);

impl Adaptive {
    pub(super) const fn limit(&self) -> Option<Rates> {
        match &self.limit {
            Some(limit) => Some(limit.rates),
            None => None,
        }
    }

    pub(super) fn observe(
        &mut self,
        now: Instant,
        bytes: u64,
        records: u64,
        throttle: Duration,
        held_back: bool,
        fixed: Option<Rates>,
    ) {
        let Some(elapsed) = self.observed.map(|at| now.saturating_duration_since(at)) else {
            self.observed = Some(now);
            return;
        };
        if elapsed.is_zero() {
            return;
        }
        self.observed = Some(now);
        let measured = Rates {
            bytes_per_second: per_second(bytes, elapsed),
            records_per_second: per_second(records, elapsed),
        };
        if elapsed <= GAP {
            let confirmed = self.confirmed.map_or(measured, |old| smooth(old, measured, elapsed, SMOOTH));
            self.confirmed = Some(confirmed);
            let idle = Rates { bytes_per_second: 0, records_per_second: 0 };
            let recent =
                self.recent.map_or(confirmed, |old| smooth(old, idle, elapsed, RECENT).max(confirmed));
            self.recent = Some(recent);
        }
        let confirmed = self.confirmed.unwrap_or(measured);
        if throttle >= MILD {
            self.fall(now, throttle, confirmed, fixed);
        } else {
            self.rise(now, elapsed, held_back, fixed);
        }
    }

    pub(super) fn violated(&mut self, now: Instant, fixed: Option<Rates>) {
        let limit = self.limit.get_or_insert_with(|| first(now, self.recent, fixed));
        limit.throttled = now;
        if limit.may_fall(now) {
            limit.lower(now, limit.rates.each(|rate| rate / 2));
        }
    }

    fn fall(&mut self, now: Instant, throttle: Duration, confirmed: Rates, fixed: Option<Rates>) {
        let limit = self.limit.get_or_insert_with(|| first(now, self.recent, fixed));
        limit.throttled = now;
        if !limit.may_fall(now) {
            return;
        }
        let target = limit.rates.each(|rate| scale(rate, 1000 - FALL * part(throttle, SEVERE) / 1000, 1000));
        let kept = 900 - DRAIN * part(throttle, QUEUED) / 1000;
        let kept = confirmed.each(|rate| scale(rate, kept, 1000)).min(limit.rates);
        limit.lower(now, target.max(kept));
    }

    fn rise(&mut self, now: Instant, elapsed: Duration, held_back: bool, fixed: Option<Rates>) {
        let Some(limit) = &mut self.limit else { return };
        let calm = now.saturating_duration_since(limit.throttled);
        if calm >= FORGET {
            self.limit = None;
            return;
        }
        if calm < REACTION || !held_back {
            return;
        }
        // A pause in the calls is no reason for a leap.
        let millis = u64::try_from(elapsed.min(REACTION).as_millis()).unwrap_or(0);
        let step =
            limit.reference.max(limit.rates).max(Rates::UNIT).each(|rate| scale(rate, millis, 20_000).max(1));
        let raised = limit.rates.both(step, u64::saturating_add);
        // Beyond the fixed limit there is nothing to learn.
        limit.rates = fixed.map_or(raised, |fixed| raised.min(fixed.max(FLOOR)));
    }
}

impl Limit {
    /// Whether the last fall had the time to show.
    fn may_fall(&self, now: Instant) -> bool {
        self.fell.is_none_or(|fell| now.saturating_duration_since(fell) >= REACTION)
    }

    fn lower(&mut self, now: Instant, rates: Rates) {
        self.reference = self.rates.max(self.reference.each(|rate| scale(rate, 9, 10)));
        self.rates = rates.max(FLOOR);
        self.fell = Some(now);
    }
}

/// Where the limit begins: what was being confirmed is what the service takes, and more is unknown. Where that was
/// little because there was little to send, at one unit: no namespace has less.
fn first(now: Instant, recent: Option<Rates>, fixed: Option<Rates>) -> Limit {
    let known = recent.map_or(Rates::UNIT, |recent| recent.max(Rates::UNIT));
    let rates = fixed.map_or(known, |fixed| known.min(fixed));
    Limit { rates, reference: rates, fell: None, throttled: now }
}

fn smooth(old: Rates, new: Rates, elapsed: Duration, time: Duration) -> Rates {
    let (elapsed, time) = (elapsed.as_millis(), time.as_millis());
    old.both(new, |old, new| {
        let sum = u128::from(old) * time + u128::from(new) * elapsed;
        u64::try_from(sum / (time + elapsed).max(1)).unwrap_or(u64::MAX)
    })
}

/// How much of `whole` a delay is, in thousandths; 1000 at most.
fn part(delay: Duration, whole: Duration) -> u64 {
    u64::try_from(delay.min(whole).as_millis() * 1000 / whole.as_millis().max(1)).unwrap_or(0)
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

fn scale(rate: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = u128::from(rate) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
