//! Pacing: how much may be sent now, so that the service need not refuse it.
//!
//! Event Hubs sells throughput units of 1,000,000 bytes and 1,000 records per second. What goes beyond is answered
//! late, with the delay in `throttle_time_ms`; what would wait longer than a request may is refused with
//! `POLICY_VIOLATION`, which ends the producer. The client library takes no notice of the delay, so it is kept
//! here. Four limits hold together, each a token bucket (see [`bucket`]):
//!
//! - the throughput units that the configuration names, for bytes and records;
//! - a limit of our own making, for both, which exists only while the service throttles or has done so lately
//!   (see [`adaptive`]);
//! - `backlog_rate`, for the bytes of backlog;
//! - a cap that an operator set for a time, for the bytes of telemetry and bulk, live and backlog alike.
//!
//! Without any limit a question costs two branches. Nothing here reads a clock or does I/O: the same calls give
//! the same answers. Why the numbers are what they are: `docs/decisions/0035`.

mod adaptive;
mod bucket;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use adaptive::Adaptive;
use bucket::Bucket;

/// Which of the two streams a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What just arrived, or everything where there is one stream.
    Live,
    /// What had to wait and is caught up beside the live records.
    Backlog,
}

/// The limits that the configuration sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Each one 1,000,000 bytes and 1,000 records per second; 0 for no limit.
    pub(crate) throughput_units: u32,
    /// Bytes of backlog per second; 0 for no limit.
    pub(crate) backlog_bytes_per_second: u64,
}

/// How much may go in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) bytes_per_second: u64,
    pub(crate) records_per_second: u64,
}

/// Says whether a record may go now.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The throughput units.
    fixed: Option<Rates>,
    adaptive: Adaptive,
    /// What both limits together allow; `None` when there is none.
    shared: Option<Shared>,
    backlog: Option<Bucket>,
    /// What was refused last and when, per [`Kind`], until something of that kind goes.
    refused: [Option<(Instant, Need)>; 2],
    cap: Option<Bucket>,
    /// What the cap refused last and when, until something goes under it.
    capped: Option<(Instant, u64)>,
    /// Whether the shared limit held something back since [`Pace::observe`] was called last.
    held_back: bool,
}

#[derive(Debug)]
struct Shared {
    bytes: Bucket,
    records: Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    records: u64,
    bytes: u64,
}

/// A topic may be held after its record was refused here; nobody is to be woken for that record for ever.
const INTEREST: Duration = Duration::from_secs(1);

// === impl Rates ===

impl Rates {
    /// What one throughput unit takes.
    pub(crate) const UNIT: Self = Self { bytes_per_second: 1_000_000, records_per_second: 1_000 };

    fn units(count: u32) -> Self {
        let count = u64::from(count);
        Self {
            bytes_per_second: Self::UNIT.bytes_per_second * count,
            records_per_second: Self::UNIT.records_per_second * count,
        }
    }

    /// The smaller of each.
    fn min(self, other: Self) -> Self {
        self.both(other, u64::min)
    }

    /// The greater of each.
    fn max(self, other: Self) -> Self {
        self.both(other, u64::max)
    }

    fn both(self, other: Self, choose: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            bytes_per_second: choose(self.bytes_per_second, other.bytes_per_second),
            records_per_second: choose(self.records_per_second, other.records_per_second),
        }
    }

    fn each(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            bytes_per_second: change(self.bytes_per_second),
            records_per_second: change(self.records_per_second),
        }
    }
}

// === impl Pace ===

impl Pace {
    /// Nothing was sent yet; the buckets are full.
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let fixed = (limits.throughput_units > 0).then(|| Rates::units(limits.throughput_units));
        let backlog = limits.backlog_bytes_per_second;
        let mut pace = Self {
            fixed,
            adaptive: Adaptive::default(),
            shared: None,
            backlog: (backlog > 0).then(|| Bucket::new(backlog, now)),
            refused: [None; 2],
            cap: None,
            capped: None,
            held_back: false,
        };
        pace.apply(now);
        pace
    }

    /// Whether this may go now; if so, it is counted as sent.
    ///
    /// A record larger than the burst goes once the bucket is full and is paid off by those after it. So whatever
    /// is asked for again and again goes some time.
    #[inline]
    pub(crate) fn admit(&mut self, now: Instant, kind: Kind, records: u32, bytes: usize) -> bool {
        let limited = self.shared.is_some() || (kind == Kind::Backlog && self.backlog.is_some());
        !limited || self.take(now, kind, Need { records: records.into(), bytes: to_u64(bytes) })
    }

    fn take(&mut self, now: Instant, kind: Kind, need: Need) -> bool {
        let shared_has = self.shared.as_mut().is_none_or(|shared| shared.has(now, need));
        self.held_back |= !shared_has;
        let mut admitted = shared_has;
        if kind == Kind::Backlog
            && let Some(bucket) = &mut self.backlog
        {
            admitted = bucket.has(now, need.bytes) && shared_has;
            if admitted {
                bucket.take(need.bytes);
            }
        }
        if admitted && let Some(shared) = &mut self.shared {
            shared.bytes.take(need.bytes);
            shared.records.take(need.records);
        }
        self.refused[kind.index()] = (!admitted).then_some((now, need));
        admitted
    }

    /// Sets the cap in bytes per second, or lifts it. What was sent under the one before counts.
    pub(crate) fn set_cap(&mut self, now: Instant, bytes_per_second: Option<u64>) {
        match (bytes_per_second, &mut self.cap) {
            (Some(rate), Some(bucket)) => bucket.set_rate(now, rate),
            (Some(rate), cap @ None) => *cap = Some(Bucket::new(rate, now)),
            (None, cap) => (*cap, self.capped) = (None, None),
        }
    }

    /// Whether so many bytes may go under the cap; if so, they are counted as sent. What is larger than the burst goes
    /// once the bucket is full, and is paid off.
    #[inline]
    pub(crate) fn admit_capped(&mut self, now: Instant, bytes: usize) -> bool {
        let Some(bucket) = &mut self.cap else { return true };
        let bytes = to_u64(bytes);
        let admitted = bucket.has(now, bytes);
        if admitted {
            bucket.take(bytes);
        }
        self.capped = (!admitted).then_some((now, bytes));
        admitted
    }

    /// Of the bytes that [`Self::admit_capped`] counted so many went, which may also be more.
    pub(crate) fn settle_capped(&mut self, counted: usize, went: usize) {
        if let Some(bucket) = &mut self.cap {
            bucket.give_back(to_u64(counted.saturating_sub(went)));
            bucket.take(to_u64(went.saturating_sub(counted)));
        }
    }

    /// How long from `now` until what was refused last may go, whichever kind is first; `None` when nothing
    /// is refused. Zero means: ask again; who does not, within a second, is taken to have lost interest.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let kinds = [Kind::Live, Kind::Backlog].into_iter().filter_map(|kind| self.wait(now, kind));
        kinds.chain(self.wait_capped(now)).min()
    }

    fn wait_capped(&self, now: Instant) -> Option<Duration> {
        let ((at, bytes), bucket) = (self.capped?, self.cap.as_ref()?);
        let wait = bucket.wait(now, bytes);
        let stale = wait.is_zero() && now.saturating_duration_since(at) > INTEREST;
        (!stale).then_some(wait)
    }

    fn wait(&self, now: Instant, kind: Kind) -> Option<Duration> {
        let (at, need) = self.refused[kind.index()]?;
        let shared = self.shared.as_ref().map_or(Duration::ZERO, |shared| shared.wait(now, need));
        let backlog = self.backlog.as_ref().filter(|_| kind == Kind::Backlog);
        let wait = backlog.map_or(shared, |bucket| shared.max(bucket.wait(now, need.bytes)));
        let stale = wait.is_zero() && now.saturating_duration_since(at) > INTEREST;
        (!stale).then_some(wait)
    }

    /// Takes in what the service confirmed since the last call, and the longest delay that it announced in
    /// this time (zero when none). To be called about once a second.
    pub(crate) fn observe(&mut self, now: Instant, bytes: u64, records: u64, throttle: Duration) {
        let held_back = std::mem::take(&mut self.held_back);
        self.adaptive.observe(now, bytes, records, throttle, held_back, self.fixed);
        self.apply(now);
    }

    /// The service refused with `POLICY_VIOLATION`: the limit is halved. Several calls within two seconds
    /// count as one, because one refusal fails many records.
    pub(crate) fn violated(&mut self, now: Instant) {
        self.adaptive.violated(now, self.fixed);
        self.apply(now);
    }

    /// What may go in a second now, without `backlog_rate`; `None` when there is no limit.
    pub(crate) fn limit(&self) -> Option<Rates> {
        let adaptive = self.adaptive.limit();
        match (self.fixed, adaptive) {
            (Some(fixed), Some(adaptive)) => Some(fixed.min(adaptive)),
            (fixed, adaptive) => fixed.or(adaptive),
        }
    }

    fn apply(&mut self, now: Instant) {
        match (self.limit(), &mut self.shared) {
            (None, shared) => *shared = None,
            (Some(rates), Some(shared)) => shared.set(now, rates),
            (Some(rates), shared @ None) => {
                *shared = Some(Shared {
                    bytes: Bucket::new(rates.bytes_per_second, now),
                    records: Bucket::new(rates.records_per_second, now),
                });
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn has(&mut self, now: Instant, need: Need) -> bool {
        // Both are brought up to `now`, whatever the first one says.
        let bytes = self.bytes.has(now, need.bytes);
        self.records.has(now, need.records) && bytes
    }

    fn wait(&self, now: Instant, need: Need) -> Duration {
        self.bytes.wait(now, need.bytes).max(self.records.wait(now, need.records))
    }

    fn set(&mut self, now: Instant, rates: Rates) {
        self.bytes.set_rate(now, rates.bytes_per_second);
        self.records.set_rate(now, rates.records_per_second);
    }
}

// === impl Kind ===

impl Kind {
    const fn index(self) -> usize {
        match self {
            Self::Live => 0,
            Self::Backlog => 1,
        }
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
