//! Going on although entries are missing: what can be read is read, the rest is named.
//!
//! 1. The set-aside files are opened once more in the mode that skips what is damaged, and every
//!    sound segment that the database has given up is appended to it again, at its own position. The
//!    state of the front end becomes what these files say it was last.
//! 2. Every lane is read from its beginning. What is missing or damaged becomes a hole.
//! 3. Positions go on behind everything that was ever given out, as far as the mark, the consumers
//!    and this process know; without a mark, a wide step further. The new epoch makes identities
//!    unique even where nobody knows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::opening::Opening;
use super::state::LostState;
use super::{ConsumerId, LaneEnds, LaneHole, pass_holes, refused};
use crate::outbox::error::{OpenError, StoreError, StoreErrorKind};
use crate::outbox::incident::{Cause, Damaged, EVIDENCE_BYTES_MAX, Incident, Range};
use crate::outbox::keys::{self, Head, Hole, HoleReason, MetaKey, Progress};
use crate::outbox::segment::{Header, Segment};
use crate::outbox::state::StateOps;
use crate::outbox::store::{Change, Open, Store};

/// Without a high-water mark nobody knows which positions were given out behind the last entry.
const UNKNOWN_STEP: u64 = 1 << 20;
/// Bytes of segments that are salvaged in one write.
const SALVAGE_BYTES: usize = 4 << 20;
/// A segment has at most so many entries, whatever its damaged header says.
const SEGMENT_COUNT_MAX: u32 = 1 << 16;
/// Where a segment's header has the number of entries.
const COUNT_AT: usize = 12;

/// What was found to be gone.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Findings {
    pub(in crate::outbox) gaps: Vec<Gap>,
    /// Stored bytes that are no segments, as far as the bound allows.
    pub(in crate::outbox) damaged: Vec<Damaged>,
}

/// Positions of one lane without readable entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outbox) struct Gap {
    pub(in crate::outbox) range: Range,
    pub(in crate::outbox) reason: HoleReason,
    /// Whether these positions are known to have been given out.
    pub(in crate::outbox) given_out: bool,
}

/// What a repair did.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    cause: Option<Cause>,
    pub(super) findings: Findings,
    salvaged: Vec<Range>,
    /// Whether the findings are known to be all.
    proven: bool,
    /// What could not be read of the state of the front end.
    pub(super) lost_state: Option<LostState>,
}

/// Where reading a lane has come to.
#[derive(Debug, Clone, Copy)]
struct Reading {
    due: Seq,
    bytes: u64,
    /// The least position behind a damaged segment that was met since `due`.
    damaged_to: Option<Seq>,
    /// Whether to stop at the first sound segment, and whether one was met.
    until_sound: bool,
    met_sound: bool,
}

/// Salvages, reads everything, and says where the lanes end now.
pub(super) fn repair(
    opening: &mut Opening<'_>,
    consumers: &[ConsumerId],
    cause: Cause,
) -> Result<([LaneEnds; Lane::COUNT], Repaired), OpenError> {
    // Where a synced write is gone, the mark may be as old as the last power cut left it.
    let proven = cause != Cause::NoHighWaterMark && !opening.is_behind_its_mark()?;
    let salvaged = salvage(opening)?;
    // The log may have known of holes that the database did not.
    opening.holes = opening.stored_holes()?;
    let mut findings = Findings::default();
    let mut ends = [LaneEnds::EMPTY; Lane::COUNT];
    for (lane, ends) in Lane::ALL.into_iter().zip(&mut ends) {
        *ends = read_lane(opening, lane, consumers, proven, &mut findings)?;
    }
    Ok((ends, Repaired { cause: Some(cause), findings, salvaged, proven, lost_state: None }))
}

fn read_lane(
    opening: &Opening<'_>,
    lane: Lane,
    consumers: &[ConsumerId],
    proven: bool,
    findings: &mut Findings,
) -> Result<LaneEnds, OpenError> {
    let (head, low) = confirmed(opening, lane, consumers)?;
    let reading = Reading::new(head.first, head.bytes_before);
    let everything = Seq(u64::MAX);
    let read = read_on(opening.store, lane, reading, everything, &opening.holes, findings);
    let reading = read.map_err(|source| refused(opening.request.directory, source))?;
    let known = opening.expected(lane).max(low).max(reading.damaged_to.unwrap_or(Seq::ZERO));
    if known > reading.due {
        let range = Range { lane, first: reading.due, end: known };
        findings.gaps.push(Gap { range, reason: reading.reason(), given_out: true });
    }
    let mut next = reading.due.max(known);
    if !proven && next > LaneEnds::EMPTY.next {
        let end = Seq(next.0.saturating_add(UNKNOWN_STEP));
        let range = Range { lane, first: next, end };
        findings.gaps.push(Gap { range, reason: HoleReason::Missing, given_out: false });
        next = end;
    }
    Ok(LaneEnds { head, next, bytes: reading.bytes })
}

/// Where a lane begins for all its consumers, and how far all have come. What they have confirmed
/// is not missed, even if the log that said it was trimmed is lost.
fn confirmed(opening: &Opening<'_>, lane: Lane, consumers: &[ConsumerId]) -> Result<(Head, Seq), OpenError> {
    let head = opening.head(lane)?;
    let mut all: Vec<Progress> = Vec::new();
    for ConsumerId { name, .. } in consumers.iter().filter(|consumer| consumer.lane == lane) {
        match opening.stored_progress(lane, name)? {
            Some(progress) => all.push(progress),
            // A new consumer reads from the beginning.
            None => return Ok((head, head.first)),
        }
    }
    let low = all.iter().map(|progress| progress.low).max().unwrap_or(head.first);
    let floor = all.iter().map(Progress::floor).min_by_key(|floor| floor.first);
    let floor = floor.filter(|floor| floor.first > head.first).unwrap_or(head);
    Ok((floor, low))
}

/// Reads the segments of `lane` from `from` on up to the first sound one, at most up to `below`, and
/// notes what is wrong with those before it.
pub(in crate::outbox) fn examine(
    store: &dyn Store,
    lane: Lane,
    from: Seq,
    below: Seq,
    holes: &[LaneHole],
) -> Result<Findings, StoreError> {
    let mut findings = Findings::default();
    let reading = Reading { until_sound: true, ..Reading::new(pass_holes(holes, lane, from), 0) };
    let reading = read_on(store, lane, reading, below, holes, &mut findings)?;
    if !reading.met_sound && reading.due < below {
        let range = Range { lane, first: reading.due, end: below };
        findings.gaps.push(Gap { range, reason: reading.reason(), given_out: true });
    }
    Ok(findings)
}

fn read_on(
    store: &dyn Store,
    lane: Lane,
    mut reading: Reading,
    below: Seq,
    holes: &[LaneHole],
    findings: &mut Findings,
) -> Result<Reading, StoreError> {
    reading.due = pass_holes(holes, lane, reading.due);
    let mut from = reading.due;
    loop {
        let scanned = store.scan(lane, from, below, &mut |first, stored| {
            if !holes.iter().any(|hole| hole.contains(lane, first)) {
                reading.meet(lane, first, stored, holes, findings);
            }
            if reading.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let after = reading.due.max(from);
        match scanned {
            Ok(()) => return Ok(reading),
            Err(_) if reading.is_done() => return Ok(reading),
            Err(error) if error.kind == StoreErrorKind::Corruption => {
                tracing::error!(%lane, %error, "a part of the lane cannot be read");
                reading.damaged_to = reading.damaged_to.max(Some(after.next()));
                match next_readable(store, lane, after, below) {
                    Some(readable) => from = readable,
                    None => return Ok(reading),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The first segment above `after` that can be read where reading from `after` fails.
fn next_readable(store: &dyn Store, lane: Lane, after: Seq, below: Seq) -> Option<Seq> {
    let probe = |from: Seq| {
        let mut found = None;
        let scanned = store.scan(lane, from, below, &mut |first, _| {
            found = Some(first);
            ControlFlow::Break(())
        });
        scanned.is_ok().then_some(found)
    };
    let (mut bad, mut step) = (after.0, 1_u64);
    let mut good = loop {
        let at = after.0.checked_add(step).filter(|at| *at < below.0)?;
        if probe(Seq(at)).is_some() {
            break at;
        }
        (bad, step) = (at, step.checked_mul(2)?);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if probe(Seq(middle)).is_some() { good = middle } else { bad = middle }
    }
    probe(Seq(good)).flatten()
}

// === salvage ===

/// Appends to the database what the set-aside log still has behind its ends.
fn salvage(opening: &Opening<'_>) -> Result<Vec<Range>, OpenError> {
    let (directory, engine) = (opening.request.directory, opening.request.engine);
    let path = directory.prepare_salvage(engine)?;
    let salvaged = match engine.open(&path, Open::Salvage) {
        Ok(found) => bring_over(opening, found.as_ref()).map_err(|source| refused(directory, source)),
        Err(error) => {
            tracing::error!(%error, "the set-aside log cannot be opened; only what the database has is left");
            Ok(Vec::new())
        }
    };
    directory.remove_salvage()?;
    salvaged
}

fn bring_over(opening: &Opening<'_>, found: &dyn Store) -> Result<Vec<Range>, StoreError> {
    let store = opening.store;
    if epoch_of(found)?.is_some_and(|epoch| Some(epoch) >= epoch_of(store).ok().flatten()) {
        bring_state(store, found)?;
    }
    let changes: Vec<Change<'_>> = found.metas()?.into_iter().filter_map(|meta| later(store, meta)).collect();
    store.write(&changes, false)?;
    let mut ranges: Vec<Range> = Vec::new();
    for lane in Lane::ALL {
        // Where either cannot be read there is nothing to bring over; what is missing is found later.
        let Ok(mut from) = end_of(store, lane) else { continue };
        loop {
            let segments = read_some(found, lane, from);
            let Some((_, _, end)) = segments.last() else { break };
            from = *end;
            let changes =
                segments.iter().map(|(first, stored, _)| Change::Segment { lane, first: *first, stored });
            store.write(&changes.collect::<Vec<_>>(), false)?;
            for (first, _, end) in segments {
                match ranges.last_mut().filter(|last| last.lane == lane && last.end == first) {
                    Some(last) => last.end = end,
                    None => ranges.push(Range { lane, first, end }),
                }
            }
        }
    }
    Ok(ranges)
}

/// Up to which opening a store knows; `None` if it knows nothing.
fn epoch_of(store: &dyn Store) -> Result<Option<Epoch>, StoreError> {
    Ok(store.meta(&MetaKey::Epoch)?.as_deref().and_then(keys::decode_epoch))
}

/// Makes the state what the set-aside log says it was last: the database has given up the end of it.
/// All of it is in memory for that, which whoever writes it bounds.
fn bring_state(store: &dyn Store, found: &dyn Store) -> Result<(), StoreError> {
    let mut last: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut note = |key: &[u8], value: &[u8]| {
        last.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    if let Err(error) = found.scan_state(&[], &mut note) {
        // The database's own stays: a part of the last state is no state that ever was.
        tracing::error!(%error, "the state in the set-aside log cannot be read");
        return Ok(());
    }
    let mut ops = StateOps::default();
    store.scan_state(&[], &mut |key, value| {
        match last.remove(key) {
            Some(last) if last == value => {}
            Some(last) => ops.put(key, &last),
            None => ops.delete(key),
        }
        ControlFlow::Continue(())
    })?;
    last.iter().for_each(|(key, value)| ops.put(key, value));
    if ops.is_empty() {
        return Ok(());
    }
    tracing::warn!(changes = ops.len(), "the state of sessions was brought over from the set-aside log");
    store.write(&[Change::State { ops: &ops }], false)
}

/// The first position that no stored segment of the lane covers from behind.
fn end_of(store: &dyn Store, lane: Lane) -> Result<Seq, StoreError> {
    let mut end = Seq::ZERO;
    store.scan_back(lane, Seq(u64::MAX), &mut |first, stored| {
        // A damaged last segment keeps its place.
        end = Header::read(stored).map_or(first.next(), |(header, ..)| header.end());
        ControlFlow::Break(())
    })?;
    Ok(end)
}

/// Sound segments at and above `from`, up to the bound: first position, bytes and end of each.
fn read_some(found: &dyn Store, lane: Lane, from: Seq) -> Vec<(Seq, Vec<u8>, Seq)> {
    let (mut segments, mut bytes) = (Vec::new(), 0);
    let scanned = found.scan(lane, from, Seq(u64::MAX), &mut |first, stored| {
        if let Ok(segment) = Segment::decode_at(lane, first, stored) {
            bytes += stored.len();
            segments.push((first, stored.to_vec(), segment.end()));
        }
        if bytes < SALVAGE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = scanned {
        tracing::error!(%lane, %error, "the set-aside log cannot be read to its end");
    }
    segments
}

/// What the log knew of `meta` and the database does not.
fn later(store: &dyn Store, (key, value): (MetaKey, Vec<u8>)) -> Option<Change<'static>> {
    let ours = store.meta(&key).ok().flatten();
    let is_later = match &key {
        MetaKey::Format | MetaKey::Log => ours.is_none(),
        MetaKey::Epoch => keys::decode_epoch(&value) > ours.as_deref().and_then(keys::decode_epoch),
        MetaKey::Head(_) => {
            let first = |value: &[u8]| Head::decode(value).map(|head| head.first);
            first(&value) > ours.as_deref().and_then(first)
        }
        MetaKey::Progress(..) => {
            let low = |value: &[u8]| Progress::decode(value).map(|progress| progress.low);
            low(&value) > ours.as_deref().and_then(low)
        }
        // Names a family of the database that it was written to.
        MetaKey::State => false,
        MetaKey::Hole(..) => ours.is_none() && Hole::decode(&value).is_some(),
    };
    is_later.then_some(Change::Meta { key, value })
}

// === impl Reading ===

impl Reading {
    const fn new(due: Seq, bytes: u64) -> Self {
        Self { due, bytes, damaged_to: None, until_sound: false, met_sound: false }
    }

    const fn is_done(&self) -> bool {
        self.until_sound && self.met_sound
    }

    fn meet(&mut self, lane: Lane, first: Seq, stored: &[u8], holes: &[LaneHole], findings: &mut Findings) {
        match Segment::decode_at(lane, first, stored) {
            Ok(segment) => {
                if first > self.due {
                    let range = Range { lane, first: self.due, end: first };
                    findings.gaps.push(Gap { range, reason: self.reason(), given_out: true });
                }
                self.due = pass_holes(holes, lane, segment.end());
                self.bytes = segment.header().bytes_after();
                self.damaged_to = None;
                self.met_sound = true;
            }
            Err(error) => {
                tracing::error!(%lane, first = first.0, %error, "a stored segment is damaged");
                findings.keep(lane, first, stored);
                self.damaged_to = self.damaged_to.max(Some(Seq(first.0 + u64::from(count_of(stored)))));
            }
        }
    }

    const fn reason(&self) -> HoleReason {
        if self.damaged_to.is_some() { HoleReason::Damaged } else { HoleReason::Missing }
    }
}

/// How many entries a damaged segment says it has, if that can be.
fn count_of(stored: &[u8]) -> u32 {
    let count = stored.get(COUNT_AT..).and_then(|rest| rest.first_chunk::<4>());
    count.map_or(1, |count| u32::from_le_bytes(*count)).clamp(1, SEGMENT_COUNT_MAX)
}

// === impl Findings ===

impl Findings {
    fn keep(&mut self, lane: Lane, first: Seq, stored: &[u8]) {
        let kept: usize = self.damaged.iter().map(|damaged| damaged.stored.len()).sum();
        if kept + stored.len() <= EVIDENCE_BYTES_MAX {
            self.damaged.push(Damaged { lane, first, stored: stored.to_vec() });
        }
    }

    /// The holes that the gaps are from now on.
    pub(in crate::outbox) fn holes(&self, epoch: Epoch, at_ms: u64) -> Vec<LaneHole> {
        let hole = |gap: &Gap| LaneHole {
            lane: gap.range.lane,
            first: gap.range.first,
            hole: Hole { end: gap.range.end, at_ms, epoch, reason: gap.reason },
        };
        self.gaps.iter().map(hole).collect()
    }

    /// What is known to be gone.
    pub(in crate::outbox) fn ranges(&self) -> Vec<Range> {
        self.gaps.iter().filter(|gap| gap.given_out).map(|gap| gap.range).collect()
    }
}

// === impl Repaired ===

impl Repaired {
    /// Whether groups of the log are gone, and with them changes of state.
    const fn is_log_short(&self) -> bool {
        matches!(self.cause, Some(Cause::ShortLog | Cause::UnreadableLog | Cause::NoHighWaterMark))
    }

    /// What is to be said; `None` if in the end nothing is missing.
    pub(super) fn incident(&self, log: LogId, epoch: Epoch, at_ms: u64) -> Option<Incident> {
        let cause = self.cause.or_else(|| self.lost_state.as_ref().map(|_| Cause::DamagedState))?;
        // Without another cause nothing else is missed.
        let (ranges, proven) = (self.findings.ranges(), self.proven || self.cause.is_none());
        if ranges.is_empty() && proven && self.lost_state.is_none() {
            tracing::warn!(?cause, salvaged = ?self.salvaged, "everything that was acknowledged could be read after all");
            return None;
        }
        let missing: u64 = ranges.iter().map(|range| range.messages()).sum();
        let mut detail = format!("{missing} positions have no readable entry");
        if !proven {
            detail.push_str(", and nobody knows what was acknowledged behind them");
        }
        if self.is_log_short() {
            detail.push_str(
                "; sessions, queued and retained messages may be as old as the last group before what is missing",
            );
        }
        if let Some(lost) = &self.lost_state {
            detail.push_str("; ");
            detail.push_str(&lost.detail());
        }
        let salvaged = self.salvaged.clone();
        Some(Incident { cause, log, epoch, at_ms, ranges, salvaged, proven, detail })
    }
}
