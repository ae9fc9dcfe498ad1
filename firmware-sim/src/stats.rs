//! What the fleet counts while it runs, shared by all devices.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use testkit::report::AckMs;

/// Devices spread their times over this many histograms, so that they rarely wait for each other.
const SHARDS: usize = 8;
/// The longest time a histogram tells apart, in microseconds: ten minutes.
const MICROS_MAX: u64 = 600_000_000;
/// Significant decimal digits of a time.
const DIGITS: u8 = 3;

/// Live counters of a fleet.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) connected: AtomicU64,
    /// Publishes handed over, resends included.
    pub(crate) sent: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    pub(crate) skipped: AtomicU64,
    /// Connections on which the gateway still had the session.
    pub(crate) resumed: AtomicU64,
    /// Connections on which it should have had it.
    pub(crate) sessions_lost: AtomicU64,
    /// Connections opened while the one before was still open.
    pub(crate) takeovers: AtomicU64,
    /// Deliveries of commands.
    pub(crate) commands: AtomicU64,
    /// Commands handed to Service Bus, and those that it has settled.
    pub(crate) commands_sent: AtomicU64,
    pub(crate) commands_settled: AtomicU64,
    /// Answers to commands that the gateway refused.
    pub(crate) answers_refused: AtomicU64,
    /// Publishes to devices that are no commands of theirs.
    pub(crate) wrong_commands: AtomicU64,
    times: Vec<Mutex<Histogram<u64>>>,
    last_error: Mutex<Option<String>>,
}

/// Acknowledgement times, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct AckTimes(Histogram<u64>);

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) reconnects: u64,
    pub(crate) commands_sent: u64,
    pub(crate) commands_settled: u64,
}

// === impl Stats ===

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            connected: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            sessions_lost: AtomicU64::new(0),
            takeovers: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            commands_sent: AtomicU64::new(0),
            commands_settled: AtomicU64::new(0),
            answers_refused: AtomicU64::new(0),
            wrong_commands: AtomicU64::new(0),
            times: (0..SHARDS).map(|_| Mutex::new(histogram())).collect(),
            last_error: Mutex::new(None),
        }
    }

    /// Records an acknowledgement of the device with this number.
    pub(crate) fn ack(&self, device: usize, time: Duration) {
        self.acked.fetch_add(1, Relaxed);
        if let Some(times) = self.times.get(device % SHARDS) {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            times.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        }
    }

    /// Records why a connection ended.
    pub(crate) fn error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Counts a publish that is no command for its device; returns what is wrong with it.
    pub(crate) fn wrong(&self, error: impl std::fmt::Display) -> String {
        self.wrong_commands.fetch_add(1, Relaxed);
        error.to_string()
    }

    /// Why the latest connection ended.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            connected: self.connected.load(Relaxed),
            sent: self.sent.load(Relaxed),
            acked: self.acked.load(Relaxed),
            reconnects: self.reconnects.load(Relaxed),
            commands_sent: self.commands_sent.load(Relaxed),
            commands_settled: self.commands_settled.load(Relaxed),
        }
    }

    /// Moves the times recorded since the last call into `total`; returns their 99th percentile.
    pub(crate) fn collect(&self, total: &mut AckTimes) -> Option<Duration> {
        let mut recent = histogram();
        for times in &self.times {
            let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
            recent.add(&*times).expect("all histograms have the same bounds");
            times.reset();
        }
        total.0.add(&recent).expect("all histograms have the same bounds");
        (!recent.is_empty()).then(|| Duration::from_micros(recent.value_at_quantile(0.99)))
    }
}

// === impl AckTimes ===

impl AckTimes {
    pub(crate) fn new() -> Self {
        Self(histogram())
    }

    pub(crate) fn quantiles(&self) -> AckMs {
        let milliseconds = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        if self.0.is_empty() {
            return AckMs::default();
        }
        AckMs {
            p50: milliseconds(self.0.value_at_quantile(0.5)),
            p99: milliseconds(self.0.value_at_quantile(0.99)),
            max: milliseconds(self.0.max()),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).expect("the bounds are constants that fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_devices_are_merged_once() {
        let stats = Stats::new();
        let mut total = AckTimes::new();
        for device in 0..100 {
            stats.ack(device, Duration::from_millis(2));
        }
        assert_eq!(stats.collect(&mut total).map(|p99| p99.as_millis()), Some(2));
        assert_eq!(stats.collect(&mut total), None, "collected times are gone");
        stats.ack(0, Duration::from_secs(100_000));
        stats.collect(&mut total);
        let AckMs { p50, max, .. } = total.quantiles();
        assert!((p50 - 2.0).abs() < 0.1 && max > 599_000.0, "{p50} {max}");
        assert_eq!(stats.snapshot().acked, 101);
    }
}
