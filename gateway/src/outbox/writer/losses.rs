//! What the committer does about entries that are gone or have to go.
//!
//! **Damage** that a reader met at run time is looked at once: what cannot be read up to the next
//! sound segment becomes a hole, with evidence and an announcement, or stays an error if
//! `on_missing_range` is `refuse`.
//!
//! **Dropping** makes room when the quota is nearly used up, or the disk nearly full, and `on_full`
//! is `drop-oldest`. The
//! lane that matters least gives its oldest entries. Its consumers are asked first: what they have
//! confirmed is not counted as dropped. The trim and the record of it are one synced write; files
//! are deleted after it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_proto::{Lane, Seq};

use super::Writer;
use crate::outbox::config::{OnFull, OnMissingRange};
use crate::outbox::error::{StoreError, StoreErrorKind};
use crate::outbox::event::{Event, Speaker};
use crate::outbox::incident::{Cause, Incident, Range};
use crate::outbox::keys::{Head, HoleReason, MetaKey};
use crate::outbox::metrics::DropReason;
use crate::outbox::recovery::{self, LaneEnds, LaneHole};
use crate::outbox::segment::Header;
use crate::outbox::store::{Change, Store};
use crate::supervise::{chain, clock};

/// Consumers have this long to say what they have confirmed.
const ASK_TIME: Duration = Duration::from_secs(2);
/// Dropping begins when as much of the quota is used…
const BEGIN_PERCENT: u64 = 90;
/// …and goes down to this.
const END_PERCENT: u64 = 85;
/// While the disk is nearly full, this part of the backlog goes at once…
const SPACE_PERCENT: u64 = 5;
/// …but at least this, the size of a table, since only whole tables give space back…
const SPACE_BYTES_MIN: u64 = 64 << 20;
/// …and then the disk is looked at again.
const PAUSE: Duration = Duration::from_secs(5);
/// Which lanes give entries, first the one that matters least. Alerts, status and what an operator
/// has to look at are never dropped.
const GIVING: [Lane; 2] = [Lane::Bulk, Lane::Telemetry];

/// Entries that are about to be let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropping {
    lane: Lane,
    /// Where the lane will begin.
    head: Head,
    reason: DropReason,
    deadline: Instant,
}

impl Writer {
    /// Looks at reported damage and at what has to be dropped.
    pub(super) fn tend_losses(&mut self) -> Result<(), StoreError> {
        if !self.shared.damage.lock().is_empty() {
            self.look_at_damage()?;
        }
        self.tend_dropping(clock::now())
    }

    // --- damage ---

    fn look_at_damage(&mut self) -> Result<(), StoreError> {
        let reported = std::mem::take(&mut *self.shared.damage.lock());
        for (lane, first) in reported {
            if first >= self.lane(lane).next || first < self.lane(lane).trim.head().first {
                continue;
            }
            if self.shared.pass_holes(lane, first) > first {
                continue;
            }
            if self.shared.config.on_missing_range == OnMissingRange::Refuse {
                tracing::error!(%lane, first = first.0,
                    "stored entries are missing or damaged; on_missing_range = \"refuse\" holds the lane there");
                continue;
            }
            self.quarantine(lane, first)?;
        }
        Ok(())
    }

    /// Makes a hole of what cannot be read from `first` on.
    fn quarantine(&mut self, lane: Lane, first: Seq) -> Result<(), StoreError> {
        let findings = {
            let (store, holes) = (self.shared.store.read(), self.shared.holes.read());
            let store = store.as_deref().ok_or_else(closed)?;
            recovery::examine(store, lane, first, self.lane(lane).next, &holes)?
        };
        if findings.gaps.is_empty() {
            tracing::warn!(%lane, first = first.0, "entries that could not be read can be read again");
            return Ok(());
        }
        let now_ms = clock::unix_ms();
        let damaged = findings.gaps.iter().any(|gap| gap.reason == HoleReason::Damaged);
        let ranges = findings.ranges();
        let missing: u64 = ranges.iter().copied().map(Range::messages).sum();
        let incident = Incident {
            cause: if damaged { Cause::DamagedSegment } else { Cause::MissingSegment },
            log: self.shared.log,
            epoch: self.shared.epoch(),
            at_ms: now_ms,
            ranges,
            salvaged: Vec::new(),
            proven: true,
            detail: format!("{missing} positions have no readable entry"),
        };
        let folder = match incident.keep(&self.directory, self.engine.as_ref(), &findings.damaged) {
            Ok(folder) => folder,
            Err(error) => {
                // The reader comes back with it; meanwhile everything else goes on.
                tracing::error!(
                    error = chain(&error),
                    "damage cannot be reported yet, so it is not passed over"
                );
                return Ok(());
            }
        };
        let holes = findings.holes(self.shared.epoch(), now_ms);
        self.announce(&[incident.event(&folder)], holes.iter().map(|hole| hole.change()).collect())?;
        self.shared.metrics.missing(&incident.ranges);
        self.shared.holes.write().extend(holes);
        self.shared.commits.wake();
        Ok(())
    }

    /// Writes `changes` and entries for `events` in one synced batch and shows the entries.
    fn announce(&mut self, events: &[Event], changes: Vec<Change<'static>>) -> Result<(), StoreError> {
        let mut ends = Lane::ALL.map(|lane| self.ends(lane));
        let speaker = Speaker {
            gateway: &self.shared.config.gateway,
            log: self.shared.log,
            epoch: self.shared.epoch(),
            now_ms: clock::unix_ms(),
        };
        let segments = Event::segments(events, speaker, &mut ends);
        let mut changes: Vec<Change<'_>> = changes;
        changes.extend(segments.iter().map(Change::segment));
        super::write(&self.shared, &changes, true)?;
        drop(changes);
        self.unsynced = false;
        let segments: Vec<_> = segments.into_iter().map(Arc::new).collect();
        self.publish(&segments);
        self.update_backlog();
        Ok(())
    }

    fn ends(&self, lane: Lane) -> LaneEnds {
        let writer = self.lane(lane);
        LaneEnds { head: writer.trim.head(), next: writer.next, bytes: writer.bytes }
    }

    // --- dropping ---

    fn tend_dropping(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.shared.config.on_full != OnFull::DropOldest {
            return Ok(());
        }
        let Some(dropping) = self.dropping else { return self.ask_to_drop(now) };
        let asked = self.shared.slots_of(dropping.lane).filter(|(_, slot)| slot.is_in_use());
        let answered =
            asked.map(|(_, slot)| slot.drop_answer(dropping.head.first)).all(|answer| answer.is_some());
        if !answered && now < dropping.deadline {
            self.shared.queue.set_timer(dropping.deadline);
            return Ok(());
        }
        self.dropping = None;
        self.shared.lane(dropping.lane).set_drop_request(None);
        self.drop_entries(dropping)?;
        // There may be more to do in another lane.
        self.shared.queue.set_timer(now);
        Ok(())
    }

    /// Chooses what has to go, if anything has, and asks its consumers.
    fn ask_to_drop(&mut self, now: Instant) -> Result<(), StoreError> {
        if let Some(due) = self.drop_not_before.filter(|due| now < *due) {
            self.shared.queue.set_timer(due);
            return Ok(());
        }
        let Some((wanted, reason)) = self.excess() else { return Ok(()) };
        let Some((lane, floor)) = GIVING.into_iter().find_map(|lane| Some((lane, self.oldest(lane)?))) else {
            return Ok(());
        };
        let head = {
            let store = self.shared.store.read();
            let store = store.as_deref().ok_or_else(closed)?;
            let end = Head { first: self.lane(lane).next, bytes_before: self.lane(lane).bytes };
            boundary(store, lane, floor, end, floor.bytes_before.saturating_add(wanted))
        };
        let head = match head {
            Ok(head) => head,
            Err(error) => {
                // Damage is the readers' business; nothing else suffers from it here.
                tracing::warn!(%error, %lane, "cannot look for entries to let go");
                self.drop_not_before = now.checked_add(PAUSE);
                return Ok(());
            }
        };
        if reason == DropReason::Space {
            // What a drop gives back shows after a while; until then more would go than needed.
            self.drop_not_before = now.checked_add(PAUSE);
        }
        if head.first <= floor.first {
            return Ok(());
        }
        let deadline = now.checked_add(ASK_TIME).unwrap_or(now);
        self.dropping = Some(Dropping { lane, head, reason, deadline });
        self.shared.lane(lane).set_drop_request(Some(head.first));
        self.shared.commits.wake();
        self.shared.queue.set_timer(if self.shared.slots_of(lane).any(|(_, slot)| slot.is_in_use()) {
            deadline
        } else {
            now
        });
        Ok(())
    }

    /// How many bytes have to go, and why.
    fn excess(&self) -> Option<(u64, DropReason)> {
        let (backlog, bytes_max) = (self.shared.gate.backlog_bytes(), self.shared.config.bytes_max);
        if let Some(bytes) = over_quota(backlog, bytes_max) {
            return Some((bytes, DropReason::Quota));
        }
        let full = self.shared.gate.is_disk_full(Lane::Telemetry);
        full.then(|| ((backlog / 100 * SPACE_PERCENT).max(SPACE_BYTES_MIN), DropReason::Space))
    }

    /// Where the oldest entries of a lane are, if it has any.
    fn oldest(&self, lane: Lane) -> Option<Head> {
        let writer = self.lane(lane);
        let floor = self.least(lane, &self.written).map_or(writer.trim.head(), |(floor, _)| floor);
        (floor.first < writer.next).then_some(floor)
    }

    fn drop_entries(&mut self, dropping: Dropping) -> Result<(), StoreError> {
        let Dropping { lane, head, reason, .. } = dropping;
        let Some(floor) = self.oldest(lane).filter(|floor| floor.first < head.first) else { return Ok(()) };
        let dropped = self.unconfirmed(lane, floor, head.first);
        let bytes = head.bytes_before.saturating_sub(floor.bytes_before);
        let range = Range { lane, first: floor.first, end: head.first };
        let event = Event::Dropped { range: range.report(), dropped, bytes, reason: reason.name() };
        let passed: Vec<LaneHole> = {
            let holes = self.shared.holes.read();
            holes.iter().copied().filter(|hole| hole.is_behind(lane, head)).collect()
        };
        let mut changes = vec![
            Change::Trim { lane, below: head.first },
            Change::Meta { key: MetaKey::Head(lane), value: head.encode() },
        ];
        changes.extend(passed.iter().map(|hole| hole.forget()));
        self.announce(&[event], changes)?;
        tracing::warn!(%lane, first = floor.first.0, end = head.first.0, dropped, bytes, reason = reason.name(),
            "the oldest entries were let go to make room");
        let metrics = self.shared.metrics.lane(lane);
        metrics.dropped(reason).increment(dropped);
        metrics.dropped_bytes.increment(bytes);
        if let Some(writer) = self.lanes.get_mut(lane.index()) {
            writer.trim.done(head, clock::now());
        }
        self.shared.holes.write().retain(|hole| !passed.contains(hole));
        let view = self.shared.lane(lane);
        view.set_dropped(head);
        view.set_reclaimable(head.first);
        self.shared.tail.forget_below(lane, head.first);
        self.update_backlog();
        self.shared.commits.wake();
        // The trim is durable: the space can go back at once.
        if let Some(store) = self.shared.store.read().as_deref()
            && let Err(error) = store.reclaim(lane, head.first)
        {
            tracing::warn!(%error, %lane, "files of dropped entries cannot be deleted yet");
        }
        Ok(())
    }

    /// How many entries from `floor` up to `below` some consumer has not confirmed.
    fn unconfirmed(&self, lane: Lane, floor: Head, below: Seq) -> u64 {
        let of = |(place, slot): (usize, &crate::outbox::shared::Slot)| {
            let low = self.written.get(place).map_or(floor.first, |(_, low)| *low).max(floor.first);
            let upper = below.0.saturating_sub(low.0);
            slot.drop_answer(below).map_or(upper, |answer| answer.unconfirmed.min(upper))
        };
        let all = below.0.saturating_sub(floor.first.0);
        self.shared.slots_of(lane).map(of).max().unwrap_or(all)
    }
}

/// How many bytes have to go when `backlog` of `bytes_max` is used.
fn over_quota(backlog: u64, bytes_max: u64) -> Option<u64> {
    let percent = |percent: u64| bytes_max / 100 * percent;
    (backlog >= percent(BEGIN_PERCENT)).then(|| backlog - percent(END_PERCENT))
}

/// The first beginning of a segment with at least `bytes` before it, from `from` up to `end`.
fn boundary(store: &dyn Store, lane: Lane, from: Head, end: Head, bytes: u64) -> Result<Head, StoreError> {
    let at = |seq: Seq| {
        let mut found = end;
        store.scan(lane, seq, end.first, &mut |first, stored| {
            if let Ok((header, ..)) = Header::read(stored) {
                found = Head { first, bytes_before: header.bytes_before };
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok::<Head, StoreError>(found)
    };
    let (mut low, mut high) = (from.first.0, end.first.0);
    while low < high {
        let middle = low + (high - low) / 2;
        if at(Seq(middle))?.bytes_before >= bytes { high = middle } else { low = middle + 1 }
    }
    at(Seq(low))
}

fn closed() -> StoreError {
    StoreError { kind: StoreErrorKind::Other, message: "the store is closed".to_owned() }
}
