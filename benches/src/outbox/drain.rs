//! A backlog and the consumer that drains it while messages come in: what both do to each other, what is left on
//! the disk, and how long the first read takes after all of it was trimmed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use penstock::outbox::{Consumer, Handle};
use penstock_proto::Lane;

use super::accounts::{Accounts, disk_bytes};
use super::job::{Figures, PACED_PRODUCERS, Timing, alone, fill, named};
use super::load::{Load, Pace};
use super::log::{CONSUMER, Outbox, Setup};
use super::telemetry::{PAYLOAD_BYTES, Telemetry};
use crate::clock::now;
use crate::load::count as float;
use crate::stats;

/// Between two looks at whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// What a consumer reads at once, and how often it confirms, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// How long it waits for a commit before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(20);

/// Space that was trimmed is back within this time.
const SPACE_WITHIN: Duration = Duration::from_secs(10);

/// A trim without new messages happens within this time.
const TRIM_WITHIN: Duration = Duration::from_secs(2);

/// Segments of one message behind the trimmed ones, and reads of the first of them.
const SEEKS: u32 = 200;

/// A consumer at work in a thread of its own, as the uplink's is.
#[derive(Debug)]
pub struct Drain {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Consumer>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    messages: AtomicU64,
}

// === impl Drain ===

impl Drain {
    /// Starts to drain lane `telemetry`; `once` ends it as soon as everything committed was read, and `rate` is the
    /// most messages per second it takes, as an uplink would.
    ///
    /// # Errors
    /// The consumer or the thread cannot be had.
    pub fn start(handle: &Handle, once: bool, rate: Option<u32>) -> Result<Self> {
        let consumer = handle.consumer(CONSUMER, Lane::Telemetry)?;
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, handle) = (Arc::clone(&shared), handle.clone());
            std::thread::Builder::new()
                .name("bench-consumer".to_owned())
                .spawn(move || shared.follow(&handle, consumer, once, rate))?
        };
        Ok(Self { shared, thread })
    }

    /// Messages read so far.
    fn messages(&self) -> u64 {
        self.shared.messages.load(Ordering::Relaxed)
    }

    fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it.
    ///
    /// # Errors
    /// It failed to read, or read something else than was written.
    pub fn stop(self) -> Result<Consumer> {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))?
    }
}

impl Shared {
    fn follow(
        &self,
        handle: &Handle,
        mut consumer: Consumer,
        once: bool,
        rate: Option<u32>,
    ) -> Result<Consumer> {
        let start = now();
        let (mut seen, mut due) = (0, consumer.progress().0);
        let mut unconfirmed = 0;
        while !self.stop.load(Ordering::Acquire) {
            let count = handle.wait_commit(seen, Duration::ZERO);
            if let Some(segment) = consumer.try_next(BATCH_BYTES)? {
                if segment.first() != due {
                    bail!("position {} is missing", due.0);
                }
                let payload: usize = segment.records().map(|(_, record)| record.payload.len()).sum();
                if payload != segment.count() as usize * PAYLOAD_BYTES {
                    bail!("the segment at {} has {payload} bytes of payload", due.0);
                }
                due = penstock_proto::Seq(segment.last().0 + 1);
                let read = self.messages.fetch_add(segment.count().into(), Ordering::Relaxed);
                if let Some(rate) = rate {
                    let due = Duration::from_secs_f64(float(read) / f64::from(rate));
                    std::thread::park_timeout(due.saturating_sub(start.elapsed()));
                }
                unconfirmed += segment.bytes() as usize;
                if unconfirmed >= BATCH_BYTES {
                    consumer.commit(due, Vec::new());
                    unconfirmed = 0;
                }
                continue;
            }
            if unconfirmed > 0 {
                consumer.commit(due, Vec::new());
                unconfirmed = 0;
            }
            if once {
                break;
            }
            seen = count;
            // The count that is waited for was read before the look, so nothing is missed.
            let _woken = handle.wait_commit(seen, WAIT);
        }
        Ok(consumer)
    }
}

/// Fills, sends at `rate` without and with the consumer, looks at the disk, and reads at the watermark.
///
/// # Errors
/// A producer or the consumer fails.
pub async fn run(
    folder: &Path,
    setup: Setup,
    payloads: &Arc<Telemetry>,
    backlog_bytes: u64,
    rate: u32,
    drain_rate: Option<u32>,
    timing: Timing,
) -> Result<Figures> {
    let directory = folder.join("outbox");
    let (log, _) = Outbox::open(&directory, setup, &[Lane::Telemetry], |config| {
        // Without a cache in memory every read is the store's.
        config.tail_cache_bytes = 0;
        // Space that is kept on purpose is not space that is left behind.
        config.ballast = 0;
    })?;
    let log = Arc::new(log);
    let begin = Accounts::now()?;
    let (load, filled) = fill(&log, payloads, backlog_bytes).await?;
    load.stop().await?;
    let full_bytes = disk_bytes(&directory, "")?;

    let mut load = Load::new(&log, payloads)?;
    load.start(PACED_PRODUCERS, Lane::Telemetry, Pace::Rate(rate / PACED_PRODUCERS));
    tokio::time::sleep(timing.warm_up()).await;
    let alone_seen = load.measure(timing.measure()).await?;
    let (window, before) = (load.window()?, Accounts::now()?);
    let drain = Drain::start(log.handle(), true, drain_rate)?;
    while !drain.ended() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let seen = load.seen(&window)?;
    let (drained, took) = (drain.messages(), seen.elapsed);
    load.stop().await?;
    drop(drain.stop()?);
    let total = alone_seen.acked + seen.acked + filled.acked;
    let (spent, draining) = (Accounts::now()?.since(&begin), Accounts::now()?.since(&before));
    let left = space_left(&log, &directory).await?;
    let seek = seek_at_watermark(&log, payloads).await?;
    alone(log)?.close()?;
    let ingested = float(total) * float(PAYLOAD_BYTES as u64);
    let mut figures = named([
        ("fill_per_second", filled.per_second()),
        ("full_disk_bytes", float(full_bytes)),
        ("alone_per_second", alone_seen.per_second()),
        ("alone_p50_us", alone_seen.micros(50.0)),
        ("alone_p99_us", alone_seen.micros(99.0)),
        ("with_per_second", seen.per_second()),
        ("with_p50_us", seen.micros(50.0)),
        ("with_p99_us", seen.micros(99.0)),
        ("drained", float(drained)),
        ("drain_compaction_bytes", float(draining.compaction_bytes)),
        ("drain_flush_bytes", float(draining.flush_bytes)),
        ("drained_per_second", float(drained) / took.as_secs_f64().max(1e-9)),
        ("compaction_ratio", float(spent.compaction_bytes) / ingested),
        ("flush_ratio", float(spent.flush_bytes) / ingested),
    ]);
    figures.extend(left);
    figures.extend(seek);
    Ok(figures)
}

/// Confirms everything and watches the directory shrink.
async fn space_left(log: &Outbox, directory: &Path) -> Result<Figures> {
    drop(Drain::start(log.handle(), true, None)?.stop_when_read().await?);
    let start = now();
    let (mut least, mut after) = (disk_bytes(directory, "")?, Duration::ZERO);
    while start.elapsed() < SPACE_WITHIN {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let bytes = disk_bytes(directory, "")?;
        if bytes < least {
            (least, after) = (bytes, start.elapsed());
        }
    }
    let wal = disk_bytes(directory, ".log")?;
    Ok(named([
        ("left_bytes", float(least)),
        ("left_wal_bytes", float(wal)),
        ("left_after_s", after.as_secs_f64()),
    ]))
}

impl Drain {
    /// Waits until everything was read; only for one that was started with `once`.
    async fn stop_when_read(self) -> Result<Consumer> {
        while !self.ended() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.stop()
    }
}

/// Reads the first segment behind everything that was trimmed, again and again.
async fn seek_at_watermark(log: &Arc<Outbox>, payloads: &Arc<Telemetry>) -> Result<Figures> {
    tokio::time::sleep(TRIM_WITHIN).await;
    let before = log.handle().status();
    let lane =
        before.lanes.into_iter().find(|lane| lane.lane == Lane::Telemetry).context("every lane is there")?;
    let mut load = Load::new(log, payloads)?;
    load.start(1, Lane::Telemetry, Pace::Window(1));
    while load.acked() < SEEKS.into() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    load.stop().await?;
    let mut consumer = log.handle().consumer(CONSUMER, Lane::Telemetry)?;
    let mut micros = Vec::new();
    for _ in 0..SEEKS {
        consumer.rewind();
        let start = now();
        let segment = consumer.try_next(1)?.context("it was just appended")?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
        if segment.first() != lane.next {
            bail!("position {} was expected at the watermark, not {}", lane.next.0, segment.first().0);
        }
    }
    Ok(named([
        ("trimmed", float(lane.low.0)),
        ("seek_us", stats::median(&micros).unwrap_or_default()),
        ("seek_max_us", stats::range(&micros).unwrap_or_default().1),
    ]))
}
