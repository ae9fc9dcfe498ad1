//! The housekeeper: once per second, what must not hold up a commit.
//!
//! It makes the sidecar durable, watches the space on the disk, deletes files below durable trims,
//! cleans up lanes that are empty and idle, reads stored segments to check them, and notes how the
//! database is doing and how old the oldest unconfirmed entry is.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use penstock_proto::{Lane, Seq};

use super::config::OnFull;
use super::incident;
use super::metrics::lossy;
use super::scrub::Scrub;
use super::segment::Header;
use super::shared::Shared;
use super::space::Occasion;
use super::store::Condition;
use crate::supervise::clock;

const TICK: Duration = Duration::from_secs(1);
/// Deleting files writes to the database's manifest: not at every tick.
const TICKS_PER_RECLAIM: u64 = 5;
/// Whoever filled the disk may be at it still.
pub(super) const TICKS_PER_BALLAST: u64 = 10;
/// A lane that was empty for so long is idle.
pub(super) const IDLE_TICKS: u64 = 60;

/// A lane that begins at its first position was never trimmed.
const NOTHING: [Seq; Lane::COUNT] = [Seq(1); Lane::COUNT];

/// What is remembered from tick to tick. Has no clock: whoever calls [`Self::tick`] is the clock.
#[derive(Debug)]
pub(super) struct Housekeeper {
    ticks: u64,
    reclaimed: [Seq; Lane::COUNT],
    idle: [Idle; Lane::COUNT],
    scrub: Scrub,
    /// The condition as counted last.
    counted: Condition,
}

/// How long a lane was empty.
#[derive(Debug, Clone, Copy, Default)]
struct Idle {
    next: Seq,
    ticks: u64,
}

/// Works until the committer has ended.
pub(super) fn run(shared: &Shared) {
    let mut housekeeper = Housekeeper::new(shared);
    loop {
        let Some(until) = clock::now().checked_add(TICK) else { return };
        let ended = shared.ended.wait(until);
        if ended {
            sync_sidecar(shared);
            return;
        }
        housekeeper.tick(shared);
    }
}

/// What every tick may do, for tests that do not wait for one.
#[cfg(test)]
pub(super) fn everything(shared: &Shared) {
    let mut housekeeper = Housekeeper::new(shared);
    (0..TICKS_PER_RECLAIM).for_each(|_| housekeeper.tick(shared));
}

/// Deletes what it may at once: the disk is full.
pub(super) fn make_room(shared: &Shared) {
    reclaim(shared, &mut NOTHING.clone());
    shared.space.release_ballast();
}

impl Housekeeper {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            ticks: 0,
            reclaimed: NOTHING,
            idle: Default::default(),
            scrub: Scrub::new(shared),
            counted: Condition::default(),
        }
    }

    /// A second's work.
    pub(super) fn tick(&mut self, shared: &Shared) {
        self.ticks += 1;
        sync_sidecar(shared);
        shared.space.look(&shared.gate, &shared.metrics);
        if shared.gate.is_disk_full(Lane::Telemetry) && shared.config.on_full == OnFull::DropOldest {
            // Nothing is appended, so the committer has to be told that it may let entries go.
            shared.queue.set_timer(clock::now());
        }
        if self.ticks.is_multiple_of(TICKS_PER_RECLAIM) {
            reclaim(shared, &mut self.reclaimed);
        }
        if self.ticks.is_multiple_of(TICKS_PER_BALLAST) {
            shared.space.keep_ballast(Occasion::Running);
        }
        note_oldest(shared);
        note_positions(shared);
        note_incidents(shared);
        self.note_condition(shared);
        self.clean_idle(shared);
        self.scrub.tick(shared);
    }

    fn note_condition(&mut self, shared: &Shared) {
        let store = shared.store.read();
        let Some(store) = store.as_deref() else { return };
        let now = match store.condition() {
            Ok(now) => now,
            Err(error) => return tracing::debug!(%error, "the store does not say how it is doing"),
        };
        for (lane, now) in Lane::ALL.into_iter().zip(&now.lanes) {
            let metrics = shared.metrics.lane(lane);
            metrics.table_bytes.set(lossy(now.table_bytes));
            metrics.table_files.set(lossy(now.table_files));
            metrics.level_zero_files.set(lossy(now.level_zero_files));
            metrics.buffer_bytes.set(lossy(now.buffer_bytes));
        }
        let metrics = &shared.metrics.database;
        metrics.log_bytes.set(lossy(now.log_bytes));
        metrics.stall_seconds.set(Duration::from_micros(now.stall_us).as_secs_f64());
        metrics.writes_stopped.set(if now.writes_stopped { 1.0 } else { 0.0 });
        metrics.background_errors.set(lossy(now.background_errors));
        metrics.flushed_bytes.increment(grown(self.counted.flushed_bytes, now.flushed_bytes));
        metrics.compacted_bytes.increment(grown(self.counted.compacted_bytes, now.compacted_bytes));
        self.counted = now;
    }

    /// Lets go of what an empty and idle lane still has in memory and in files: in memory it keeps
    /// the log of all lanes from being deleted. Once, until the lane moves again.
    fn clean_idle(&mut self, shared: &Shared) {
        for (lane, idle) in Lane::ALL.into_iter().zip(&mut self.idle) {
            let view = shared.lane(lane);
            let next = view.next();
            let empty = view.backlog_messages() == 0 && view.reclaimable() == next && next > Seq(1);
            if !empty || next != idle.next {
                *idle = Idle { next, ticks: 0 };
                continue;
            }
            // While the store is being opened again, the last tick comes again.
            if idle.ticks + 1 < IDLE_TICKS || (idle.ticks < IDLE_TICKS && clean(shared, lane, next)) {
                idle.ticks += 1;
            }
        }
    }
}

/// Returns whether it was tried.
fn clean(shared: &Shared, lane: Lane, below: Seq) -> bool {
    let store = shared.store.read();
    let Some(store) = store.as_deref() else { return false };
    match store.clean(lane, below) {
        Ok(()) => shared.metrics.lane(lane).cleaned.increment(1),
        Err(error) => tracing::warn!(%error, %lane, "an idle lane keeps its files for now"),
    }
    true
}

/// What a counter gained that starts again from 0 with each opening of the store.
const fn grown(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}

/// How many incidents nobody has looked at yet.
fn note_incidents(shared: &Shared) {
    let open = incident::count(&shared.quarantine).open;
    shared.incidents.store(open, Ordering::Release);
    shared.metrics.incidents.set(u32::try_from(open).map_or(f64::INFINITY, f64::from));
}

fn sync_sidecar(shared: &Shared) {
    if !shared.sidecar_dirty.swap(false, Ordering::AcqRel) {
        return;
    }
    let file = Arc::clone(&shared.sidecar.lock());
    if let Err(error) = file.sync_data() {
        shared.metrics.sidecar_errors.increment(1);
        tracing::warn!(%error, "the high-water mark cannot be made durable; a loss after a power cut may go unnoticed");
    }
}

fn reclaim(shared: &Shared, reclaimed: &mut [Seq; Lane::COUNT]) {
    let store = shared.store.read();
    let Some(store) = store.as_deref() else { return };
    for (lane, reclaimed) in Lane::ALL.into_iter().zip(reclaimed) {
        let below = shared.lane(lane).reclaimable();
        if below <= *reclaimed {
            continue;
        }
        match store.reclaim(lane, below) {
            Ok(files) => {
                *reclaimed = below;
                shared.metrics.lane(lane).deleted_files.increment(files);
            }
            Err(error) => tracing::warn!(%error, %lane, "trimmed files cannot be deleted yet"),
        }
    }
}

fn note_positions(shared: &Shared) {
    for lane in Lane::ALL {
        let metrics = shared.metrics.lane(lane);
        metrics.head.set(lossy(shared.lane(lane).reclaimable().0));
        metrics.next.set(lossy(shared.lane(lane).next().0));
    }
    let (used, quota) = (shared.gate.backlog_bytes(), shared.config.bytes_max);
    shared.metrics.quota_ratio.set(lossy(used) / lossy(quota.max(1)));
}

fn note_oldest(shared: &Shared) {
    let now_ms = clock::unix_ms();
    for lane in Lane::ALL {
        let oldest_ms = oldest(shared, lane);
        shared.lane(lane).set_oldest_ms(oldest_ms);
        let age = oldest_ms.map_or(Duration::ZERO, |ms| Duration::from_millis(now_ms.saturating_sub(ms)));
        shared.metrics.lane(lane).oldest.set(age.as_secs_f64());
    }
}

/// When the oldest unconfirmed entry of `lane` was committed.
fn oldest(shared: &Shared, lane: Lane) -> Option<u64> {
    let (floor, next) = (shared.lane(lane).floor(), shared.lane(lane).next());
    if shared.lane(lane).backlog_messages() == 0 {
        return None;
    }
    if let Some(segment) = shared.tail.find(lane, floor) {
        return Some(segment.committed_ms());
    }
    let store = shared.store.read();
    let mut oldest = None;
    let scanned = store.as_deref()?.scan(lane, floor, next, &mut |_, stored| {
        oldest = Header::read(stored).ok().map(|(header, ..)| header.committed_ms);
        ControlFlow::Break(())
    });
    if let Err(error) = scanned {
        tracing::warn!(%error, %lane, "the age of the oldest entry is not known");
    }
    oldest
}
