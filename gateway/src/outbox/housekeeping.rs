//! The housekeeper: once per second, what must not hold up a commit.
//!
//! It makes the sidecar durable, deletes files below durable trims, and looks up how old the oldest
//! unconfirmed entry is.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use penstock_proto::{Lane, Seq};

use super::incident;
use super::segment::Header;
use super::shared::Shared;
use crate::supervise::clock;

const TICK: Duration = Duration::from_secs(1);
/// Deleting files writes to the database's manifest: not at every tick.
const TICKS_PER_RECLAIM: u64 = 5;

/// A lane that begins at its first position was never trimmed.
const NOTHING: [Seq; Lane::COUNT] = [Seq(1); Lane::COUNT];

/// Works until the committer has ended.
pub(super) fn run(shared: &Shared) {
    let mut reclaimed = NOTHING;
    for tick in 1_u64.. {
        let Some(until) = clock::now().checked_add(TICK) else { return };
        let ended = shared.ended.wait(until);
        sync_sidecar(shared);
        if ended {
            return;
        }
        if tick.is_multiple_of(TICKS_PER_RECLAIM) {
            reclaim(shared, &mut reclaimed);
        }
        note_oldest(shared);
        note_incidents(shared);
    }
}

/// Everything a tick may do, for tests that do not wait for one.
#[cfg(test)]
pub(super) fn everything(shared: &Shared) {
    sync_sidecar(shared);
    reclaim(shared, &mut NOTHING.clone());
    note_oldest(shared);
    note_incidents(shared);
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
            Ok(()) => *reclaimed = below,
            Err(error) => tracing::warn!(%error, %lane, "trimmed files cannot be deleted yet"),
        }
    }
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
