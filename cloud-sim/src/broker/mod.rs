//! The state behind the protocol: topics and their logs, producer numbers, counters, faults.
//!
//! Enters: checked batches from `server`, orders from `control`. Leaves: offsets, file bytes, counts.
//! Bounds: the quota of the namespace, partitions (512), index entries and producers per partition; the logs themselves grow on disk.

mod counters;
mod faults;
mod index;
mod log;
mod producers;
mod quota;
mod topics;

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::counters::{Counters, Snapshot};
pub(crate) use self::faults::{Faults, ProduceErrors, Unauthorized};
pub use self::quota::Quota;
pub(crate) use self::quota::{Charge, Meter};
pub use self::topics::TopicSpec;
pub(crate) use self::topics::Topics;
use crate::error::Error;

/// What the broker takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest batch, in bytes.
    pub(crate) batch_bytes_max: usize,
    /// Whether batches may be compressed with gzip.
    pub(crate) gzip: bool,
    /// What may come in per second.
    pub(crate) quota: Quota,
    /// The longest time an answer may be held back for the quota.
    pub(crate) quota_delay_max: Duration,
}

/// Everything the connections share.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) topics: Topics,
    pub(crate) counters: Counters,
    pub(crate) faults: Faults,
    /// Wakes fetches that wait for records.
    pub(crate) appended: Notify,
    pub(crate) meter: Meter,
    pub(crate) limits: Limits,
    started: Instant,
    next_producer_id: AtomicI64,
    /// Held for as long as the broker lives, so that no two of them share a directory.
    lock: File,
}

impl Broker {
    /// Opens the data directory and creates the topics that are missing. Reads every log once.
    pub(crate) fn open(data: &Path, topics: &[TopicSpec], limits: Limits) -> Result<Self, Error> {
        let failed = |source| Error::Data { path: data.to_owned(), source };
        fs::create_dir_all(data).map_err(failed)?;
        let lock = File::create(data.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|_held| Error::Locked(data.to_owned()))?;
        let opened = Topics::open(&data.join("topics"))?;
        for topic in topics {
            opened.create(topic)?;
        }
        // Numbers must not come twice, not even across restarts. A random start out of 2^32 makes that
        // as good as certain without a file that would have to be kept.
        let first_producer_id = i64::from(rand::random::<u32>()) << 20;
        Ok(Self {
            topics: opened,
            counters: Counters::default(),
            faults: Faults::default(),
            appended: Notify::new(),
            meter: Meter::new(limits.quota, limits.quota_delay_max),
            limits,
            started: Instant::now(),
            next_producer_id: AtomicI64::new(first_producer_id),
            lock,
        })
    }

    /// Takes what a produce request brings from the quota, now.
    pub(crate) fn charge(&self, events: u64, bytes: u64) -> Charge {
        self.meter.charge(self.started.elapsed(), events, bytes)
    }

    /// A number for an idempotent producer, never given out before by this process.
    pub(crate) fn new_producer_id(&self) -> i64 {
        self.next_producer_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Broker {
    /// Closing the file would not do: a child that is being started in this moment has it open, too, until it
    /// becomes its program.
    fn drop(&mut self) {
        drop(self.lock.unlock());
    }
}
