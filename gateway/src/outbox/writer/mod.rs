//! The committer: the one thread that writes.
//!
//! It takes what was submitted, makes one segment per lane of it (more if it is large), and writes
//! them in one synced batch together with the consumers' progress and due trims. Then, in this
//! order: the sidecar, the committed position and the tail cache for consumers, the tickets. A
//! write that fails poisons the outbox: nothing of the group is acknowledged, and the store is
//! closed and opened again with the checks of a start.

mod losses;
mod undecided;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use penstock_proto::{Lane, Seq};

use crate::outbox::arena::{Arena, Bound, LaneBuffer, Mode, Work};
use crate::outbox::commit::{Policy, Waiting};
use crate::outbox::directory::Directory;
use crate::outbox::error::{OpenError, StoreError, StoreErrorKind};
use crate::outbox::gate::State;
use crate::outbox::housekeeping;
use crate::outbox::keys::{self, Head, MetaKey, Progress};
use crate::outbox::reader::least;
use crate::outbox::record::parts;
use crate::outbox::recovery::{self, ConsumerId, LaneEnds, Recovered, Request};
use crate::outbox::segment::{Compressed, HEADER_LEN, Header, Segment};
use crate::outbox::shared::{Moved, Shared, Slot};
use crate::outbox::sidecar::{Mark, Sidecar};
use crate::outbox::store::{Change, Engine};
use crate::outbox::trim::{STEP_TIME, Trim};
use crate::supervise::{chain, clock};
use losses::Dropping;
use undecided::{Decided, Undecided};

/// Pauses between attempts to open a failed store again.
const REOPEN_PAUSE_MIN: Duration = Duration::from_secs(1);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Between looks at a disk that is too full to open the store.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    directory: Directory,
    engine: Box<dyn Engine>,
    consumers: Vec<ConsumerId>,
    policy: Policy,
    sidecar: Sidecar,
    lanes: [LaneWriter; Lane::COUNT],
    /// Floor and low of each consumer, as written last.
    written: Vec<(Head, Seq)>,
    arena: Arena,
    compressed: Vec<Compressed>,
    last_start: Option<Instant>,
    /// Whether something was written since the last sync.
    unsynced: bool,
    undecided: Undecided,
    /// Entries that are about to be let go.
    dropping: Option<Dropping>,
    /// Nothing is let go before.
    drop_not_before: Option<Instant>,
    /// Dropped last: when the directory is free again.
    _ended: Ended,
}

/// Says that the committer has ended, however it did.
struct Ended(Arc<Shared>);

/// What the committer knows about a lane.
#[derive(Debug, Clone, Copy)]
struct LaneWriter {
    next: Seq,
    bytes: u64,
    trim: Trim,
}

/// Segments of one group, ready to be written.
struct Sealed {
    segments: Vec<Arc<Segment>>,
    /// Per segment, which compressed buffer holds its stored bytes, if any does.
    stored: Vec<Option<usize>>,
}

/// Progress and trims that go into one batch.
struct Moves {
    /// With the consumer's place.
    progress: Vec<(usize, Moved)>,
    /// Progress that was submitted with what is in the group.
    bound: Vec<BoundMove>,
    trims: Vec<(Lane, Head)>,
}

/// The last progress that a consumer submitted with outputs to this group.
struct BoundMove {
    place: usize,
    progress: Progress,
    /// How many it submitted.
    count: usize,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: Directory,
        engine: Box<dyn Engine>,
        recovered: Recovered,
    ) -> Self {
        let policy = Policy { floor: shared.config.commit_floor };
        shared.metrics.missing(&recovered.missing);
        let consumers = shared.slots.iter().map(|slot| slot.id.clone()).collect();
        let mut writer = Self {
            lanes: recovered.lanes.map(LaneWriter::new),
            sidecar: recovered.sidecar,
            written: Vec::new(),
            arena: Arena::default(),
            compressed: Vec::new(),
            last_start: None,
            unsynced: false,
            undecided: Undecided::default(),
            dropping: None,
            drop_not_before: None,
            _ended: Ended(Arc::clone(&shared)),
            shared,
            directory,
            engine,
            consumers,
            policy,
        };
        *writer.shared.store.write() = Some(recovered.store);
        writer.resume();
        writer
    }

    /// Works until the outbox is closed and everything taken in is written.
    pub(super) fn run(mut self) {
        loop {
            let work = self.shared.queue.next(&mut self.arena, &self.policy, self.last_start);
            let result = match work {
                Work::Group => self.commit_group(),
                Work::Timer => self.commit_progress(false),
                Work::Closed => break,
            };
            if let Err(error) = result.and_then(|()| self.tend_losses()) {
                self.recover(&error);
            }
        }
        self.close();
    }

    // --- groups ---

    fn commit_group(&mut self) -> Result<(), StoreError> {
        let started = clock::now();
        let waiting = self.arena.waiting();
        let since = self.arena.since().unwrap_or(started);
        self.last_start = Some(started);
        let sealed = self.seal();
        let moves = self.moves(started, Some(started), bound_moves(self.arena.bound()));
        let mut changes = sealed.changes(&self.compressed);
        changes.extend(state_change(&self.arena));
        moves.add_to(&mut changes, &self.shared);
        self.undecided.begin(&sealed.segments);
        write(&self.shared, &changes, true)?;
        let durable = clock::now();
        self.shared.space.wrote(waiting.bytes, &self.shared.gate, &self.shared.metrics);
        self.unsynced = false;
        self.publish(&sealed.segments);
        self.moved(moves, durable);
        self.update_backlog();
        self.complete_arena();
        self.measure(waiting, &sealed, [since, started, durable]);
        Ok(())
    }

    /// Tells everybody whose submission is in the arena that it is written, and empties it.
    fn complete_arena(&mut self) {
        let state = self.arena.state();
        self.shared.metrics.state_changes.increment(state.len() as u64);
        self.shared.metrics.state_bytes.increment(state.bytes() as u64);
        // Room first: whoever is woken by its ticket reads on at once.
        self.shared.gate.release(self.arena.waiting().bytes);
        for submission in self.arena.submissions() {
            submission.done.complete(submission.ticket);
        }
        self.arena.clear();
    }

    /// Makes segments of what the arena holds.
    fn seal(&mut self) -> Sealed {
        let committed_ms = clock::unix_ms();
        let mut sealed = Sealed { segments: Vec::new(), stored: Vec::new() };
        for lane in Lane::ALL {
            let Some(buffer) = self.arena.take_lane(lane) else { continue };
            let mut ends = self.lane(lane);
            for (bytes, count) in self.cut(buffer) {
                // A body is smaller than the queue, which is smaller than 4 GiB.
                let raw_len = u32::try_from(bytes.len() - HEADER_LEN).unwrap_or(u32::MAX);
                let header = Header {
                    lane,
                    log: self.shared.log,
                    epoch: self.shared.epoch(),
                    first: ends.next,
                    count,
                    raw_len,
                    bytes_before: ends.bytes,
                    committed_ms,
                };
                (ends.next, ends.bytes) = (header.end(), header.bytes_after());
                self.seal_one(header, bytes, &mut sealed);
            }
        }
        sealed
    }

    fn seal_one(&mut self, header: Header, bytes: Vec<u8>, sealed: &mut Sealed) {
        let used = sealed.stored.iter().flatten().count();
        if self.compressed.len() == used {
            self.compressed.push(Compressed::default());
        }
        let Some(room) = self.compressed.get_mut(used) else { return };
        let codec = self.shared.config.body_codec;
        let (segment, compressed) = Segment::seal(header, bytes, codec, room);
        sealed.segments.push(Arc::new(segment));
        sealed.stored.push(compressed.then_some(used));
    }

    /// Cuts what is too large for one segment.
    fn cut(&self, buffer: LaneBuffer) -> Vec<(Vec<u8>, u32)> {
        let bytes_max = self.shared.config.segment_bytes_max;
        let count_max = self.shared.config.segment_messages_max;
        if buffer.body().len() <= bytes_max && buffer.count <= count_max {
            return vec![(buffer.bytes, buffer.count)];
        }
        let with_room = |(part, count): (&[u8], u32)| {
            let mut bytes = Vec::with_capacity(HEADER_LEN + part.len());
            bytes.resize(HEADER_LEN, 0);
            bytes.extend_from_slice(part);
            (bytes, count)
        };
        parts(buffer.body(), bytes_max, count_max).map(with_room).collect()
    }

    /// Shows durable segments to the sidecar and then to consumers.
    fn publish(&mut self, segments: &[Arc<Segment>]) {
        for segment in segments {
            if let Some(lane) = self.lanes.get_mut(segment.lane().index()) {
                lane.next = segment.end();
                lane.bytes = segment.header().bytes_after();
            }
        }
        self.mark();
        let read = |segment: &&Arc<Segment>| self.shared.slots_of(segment.lane()).next().is_some();
        self.shared.tail.extend(segments.iter().filter(read).cloned());
        for lane in Lane::ALL {
            self.shared.lane(lane).publish(self.lane(lane).next);
        }
        let has_news = |lane: &Lane| segments.iter().any(|segment| segment.lane() == *lane);
        self.shared.commits.committed(Lane::ALL.into_iter().filter(has_news));
    }

    fn mark(&mut self) {
        let next = self.lanes.map(|lane| lane.next);
        let mark = Mark { log: self.shared.log, epoch: self.shared.epoch(), next };
        match self.sidecar.write(&mark) {
            Ok(()) => self.shared.sidecar_dirty.store(true, Ordering::Release),
            // The mark may lag: the commit is durable, and the check after a crash gets weaker.
            Err(error) => {
                tracing::debug!(%error, "cannot write the high-water mark");
                self.shared.metrics.sidecar_errors.increment(1);
            }
        }
    }

    // --- progress and trims ---

    /// Writes progress without a group, and state that waited for one in vain.
    fn commit_progress(&mut self, sync: bool) -> Result<(), StoreError> {
        let now = clock::now();
        let moves = self.moves(now, None, Vec::new());
        let mut changes: Vec<Change<'_>> = state_change(&self.arena).into_iter().collect();
        moves.add_to(&mut changes, &self.shared);
        if sync && changes.is_empty() && self.unsynced {
            // Nothing new, but what was written last is to be durable: any synced write does it.
            let value = keys::encode_epoch(self.shared.epoch());
            changes.push(Change::Meta { key: MetaKey::Epoch, value });
        }
        if !changes.is_empty() {
            // Files are deleted below a trim, so it must be durable.
            let sync = sync || !moves.trims.is_empty();
            write(&self.shared, &changes, sync)?;
            self.unsynced = !sync;
        }
        drop(changes);
        self.moved(moves, now);
        self.update_backlog();
        self.complete_arena();
        Ok(())
    }

    /// What is to be written besides segments. With `sparing`, large states may wait.
    fn moves(&self, now: Instant, sparing: Option<Instant>, bound: Vec<BoundMove>) -> Moves {
        let slots = self.shared.slots.iter().enumerate();
        let progress: Vec<_> =
            slots.filter_map(|(place, slot)| Some((place, slot.unwritten(sparing)?))).collect();
        let mut floors = self.written.clone();
        let moved = progress.iter().map(|(place, moved)| (*place, &moved.progress));
        for (place, progress) in moved.chain(bound.iter().map(|moved| (moved.place, &moved.progress))) {
            if let Some(written) = floors.get_mut(place) {
                *written = (progress.floor(), progress.low);
            }
        }
        let due = |lane: &Lane| {
            let (floor, _) = self.least(*lane, &floors)?;
            let LaneWriter { trim, bytes, .. } = self.lane(*lane);
            trim.is_due(floor, bytes.saturating_sub(floor.bytes_before), now).then_some((*lane, floor))
        };
        let trims = Lane::ALL.iter().filter_map(due).collect();
        Moves { progress, bound, trims }
    }

    /// Notes that `moves` were written.
    fn moved(&mut self, moves: Moves, now: Instant) {
        for (place, moved) in moves.progress {
            if self.shared.slots.get(place).is_some_and(|slot| slot.written(&moved, now)) {
                self.shared.write_soon();
            }
            self.note_written(place, &moved.progress);
        }
        for BoundMove { place, progress, count } in moves.bound {
            if self.shared.slots.get(place).is_some_and(|slot| slot.bound_written(&progress, count, now)) {
                self.shared.write_soon();
            }
            self.note_written(place, &progress);
        }
        for (lane, head) in moves.trims {
            if let Some(writer) = self.lanes.get_mut(lane.index()) {
                let metrics = self.shared.metrics.lane(lane);
                let bytes_before = writer.trim.head().bytes_before;
                metrics.trimmed_bytes.increment(head.bytes_before.saturating_sub(bytes_before));
                metrics.trimmed.increment(writer.trim.done(head, now));
            }
            self.shared.lane(lane).set_reclaimable(head.first);
            self.shared.holes.write().retain(|hole| !hole.is_behind(lane, head));
        }
        self.schedule_trim(now);
    }

    fn note_written(&mut self, place: usize, progress: &Progress) {
        if let Some(slot) = self.shared.slots.get(place) {
            self.shared.tail.forget_below(slot.id.lane, self.tail_floor(slot.id.lane));
        }
        if let Some(written) = self.written.get_mut(place) {
            *written = (progress.floor(), progress.low);
        }
    }

    /// What every consumer of the lane has confirmed needs no memory.
    fn tail_floor(&self, lane: Lane) -> Seq {
        let floors = self.shared.slots_of(lane).map(|(_, slot)| slot.progress().floor);
        floors.min().unwrap_or(Seq::ZERO)
    }

    /// Makes sure that a trim which is not due yet happens without a group.
    fn schedule_trim(&self, now: Instant) {
        let could = |lane: &Lane| {
            let floor = self.least(*lane, &self.written).map(|(floor, _)| floor.first);
            floor > Some(self.lane(*lane).trim.head().first)
        };
        if Lane::ALL.iter().any(could)
            && let Some(due) = now.checked_add(STEP_TIME)
        {
            self.shared.queue.set_timer(due);
        }
    }

    fn update_backlog(&self) {
        let mut total = 0_u64;
        for lane in Lane::ALL {
            let LaneWriter { next, bytes, trim } = self.lane(lane);
            let (floor, low) = self.least(lane, &self.written).unwrap_or((trim.head(), trim.head().first));
            let backlog = bytes.saturating_sub(floor.bytes_before);
            let view = self.shared.lane(lane);
            view.set_backlog(low.min(next), floor.first, backlog);
            total = total.saturating_add(backlog);
            let metrics = self.shared.metrics.lane(lane);
            metrics.backlog_bytes.set(lossy(backlog));
            metrics.backlog_messages.set(lossy(view.backlog_messages()));
        }
        self.shared.gate.set_backlog(total);
    }

    /// Where the slowest consumer of a lane is, but not below what was let go.
    fn least(&self, lane: Lane, floors: &[(Head, Seq)]) -> Option<(Head, Seq)> {
        let (floor, low) =
            least(self.shared.slots_of(lane).filter_map(|(place, _)| floors.get(place).copied()))?;
        let head = self.lane(lane).trim.head();
        let floor = if head.first > floor.first { head } else { floor };
        Some((floor, low.max(head.first)))
    }

    // --- the store ---

    fn lane(&self, lane: Lane) -> LaneWriter {
        *lane.pick(&self.lanes)
    }

    // --- failure ---

    /// Fails everybody whose entries are in the arena but the consumers, whose commits are returned.
    fn fail_arena(&mut self) -> Vec<Bound> {
        let waiting = self.arena.waiting();
        self.shared.gate.release(waiting.bytes);
        let bound = self.arena.take_bound();
        for submission in self.arena.submissions() {
            if !bound.iter().any(|bound| Arc::ptr_eq(&bound.done, &submission.done)) {
                submission.done.fail();
            }
        }
        self.arena.clear();
        self.shared.metrics.failed.increment(waiting.messages.into());
        bound
    }

    /// Takes nothing in until the store was closed, opened again and found complete.
    fn recover(&mut self, error: &StoreError) {
        tracing::error!(%error, "the outbox cannot write; nothing is acknowledged until it was opened again");
        self.shared.metrics.poisoned.increment(1);
        self.shared.metrics.poisoned_now.set(1.0);
        *self.shared.poisoned.lock() = Some(error.to_string());
        self.shared.gate.set_state(State::Poisoned);
        // The group that failed, then what was submitted since.
        let written = self.fail_arena();
        self.undecided.written(written);
        self.shared.queue.set_mode(Mode::Poisoned, &mut self.arena);
        let waiting = self.fail_arena();
        self.undecided.waiting(waiting);
        if error.kind == StoreErrorKind::NoSpace {
            // Before the store is closed: deleting files needs it, and needs no space.
            housekeeping::make_room(&self.shared);
        }
        drop(self.shared.store.write().take());
        let mut pause = REOPEN_PAUSE_MIN;
        while let Err(error) = self.reopen() {
            let reason = chain(&error);
            tracing::error!(error = %reason, "the outbox does not open again yet");
            *self.shared.poisoned.lock() = Some(reason);
            let no_space = error.is_no_space();
            if no_space && self.shared.space.release_ballast() {
                continue;
            }
            if self.closed_within(pause, no_space) {
                return self.give_up_undecided();
            }
            pause = (pause * 2).min(REOPEN_PAUSE_MAX);
        }
        self.shared.space.look(&self.shared.gate, &self.shared.metrics);
        tracing::info!(epoch = self.shared.epoch().0, "the outbox is open again and complete");
        *self.shared.poisoned.lock() = None;
        self.shared.metrics.poisoned_now.set(0.0);
        self.shared.queue.set_mode(Mode::Open, &mut self.arena);
        self.shared.gate.set_state(State::Open);
    }

    /// Waits before the next attempt to open; for want of space only until there seems to be some.
    /// Returns whether the outbox was closed meanwhile.
    fn closed_within(&self, pause: Duration, no_space: bool) -> bool {
        let Some(end) = clock::now().checked_add(pause) else { return true };
        loop {
            let next = if no_space { clock::now().checked_add(LOOK_PAUSE) } else { None };
            if self.shared.queue.closed_by(next.map_or(end, |next| next.min(end))) {
                return true;
            }
            let room = || {
                let Shared { space, gate, metrics, .. } = &*self.shared;
                space.may_open(space.look(gate, metrics))
            };
            if clock::now() >= end || (no_space && room()) {
                return false;
            }
        }
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        let started = clock::now();
        self.shared.metrics.reopens.increment(1);
        let published = self.lanes.map(|lane| lane.next);
        let recovered = recovery::open(Request {
            directory: &self.directory,
            engine: self.engine.as_ref(),
            config: &self.shared.config,
            consumers: &self.consumers,
            published: Some(&published),
        })?;
        if recovered.log != self.shared.log {
            return Err(OpenError::OtherLog {
                directory: self.directory.root().to_owned(),
                mark: self.shared.log,
                database: recovered.log,
            });
        }
        // The group whose outcome was unknown is either there, and then it is published like any
        // other, or it is not, and then its positions were never shown to anybody.
        self.shared.set_epoch(recovered.epoch);
        self.lanes = recovered.lanes.map(LaneWriter::new);
        *self.shared.sidecar.lock() = recovered.sidecar.file();
        self.sidecar = recovered.sidecar;
        *self.shared.store.write() = Some(recovered.store);
        self.shared.slots.iter().for_each(Slot::write_again);
        *self.shared.holes.write() = recovered.holes;
        self.shared.metrics.missing(&recovered.missing);
        self.dropping = None;
        let decided = self.decide(&recovered.progress);
        self.resume();
        decided.into_iter().for_each(Decided::tell);
        let took = clock::now().saturating_duration_since(started);
        self.shared.metrics.recovery.set(took.as_secs_f64());
        Ok(())
    }

    /// Shows the state of a store that was just opened.
    fn resume(&mut self) {
        let progress = self.shared.slots.iter().map(|slot| slot.progress());
        self.written = progress.map(|progress| (progress.floor(), progress.low)).collect();
        for lane in Lane::ALL {
            let LaneWriter { next, trim, .. } = self.lane(lane);
            self.shared.lane(lane).publish(next);
            self.shared.lane(lane).set_reclaimable(trim.head().first);
        }
        self.update_backlog();
        self.shared.commits.wake();
        let now = clock::now();
        self.schedule_trim(now);
        self.shared.queue.set_timer(now);
    }

    fn close(&mut self) {
        if self.shared.store.read().is_none() {
            return;
        }
        if let Err(error) = self.commit_progress(true) {
            tracing::warn!(%error, "the last progress of the consumers is not durable");
        }
        if let Err(error) = self.sidecar.file().sync_data() {
            tracing::warn!(%error, "the high-water mark is not durable");
        }
    }

    fn measure(&self, waiting: Waiting, sealed: &Sealed, times: [Instant; 3]) {
        let [since, started, durable] = times;
        let metrics = &self.shared.metrics;
        metrics.commits.increment(1);
        metrics.group_messages.record(waiting.messages);
        metrics.queue_wait.record(started.saturating_duration_since(since));
        metrics.commit.record(durable.saturating_duration_since(started));
        metrics.queue_bytes.set(lossy(self.shared.gate.queue_bytes() as u64));
        let stored = sealed.iter(&self.compressed).map(|(_, stored)| stored.len() as u64).sum();
        metrics.group_bytes.record(lossy(stored));
        for (segment, stored) in sealed.iter(&self.compressed) {
            let lane = metrics.lane(segment.lane());
            lane.appended.increment(segment.count().into());
            lane.appended_bytes.increment(segment.bytes().into());
            lane.stored_bytes.increment(stored.len() as u64);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when the thread panics: nobody may wait for a committer that is gone.
        self.shared.gate.set_state(State::Closed);
        self.shared.queue.close();
        let written = self.fail_arena();
        self.undecided.written(written);
        self.shared.queue.set_mode(Mode::Poisoned, &mut self.arena);
        let waiting = self.fail_arena();
        self.undecided.waiting(waiting);
        self.give_up_undecided();
        drop(self.shared.store.write().take());
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl LaneWriter {
    const fn new(ends: LaneEnds) -> Self {
        Self { next: ends.next, bytes: ends.bytes, trim: Trim::new(ends.head) }
    }
}

impl Sealed {
    /// Each segment with its stored bytes.
    fn iter<'a>(&'a self, compressed: &'a [Compressed]) -> impl Iterator<Item = (&'a Segment, &'a [u8])> {
        self.segments.iter().zip(&self.stored).map(|(segment, place)| {
            let compressed = place.and_then(|place| compressed.get(place));
            (segment.as_ref(), compressed.map_or_else(|| segment.stored_as_is(), Compressed::stored))
        })
    }

    fn changes<'a>(&'a self, compressed: &'a [Compressed]) -> Vec<Change<'a>> {
        let segments = self.iter(compressed);
        let change = |(segment, stored): (&'a Segment, &'a [u8])| Change::Segment {
            lane: segment.lane(),
            first: segment.first(),
            stored,
        };
        segments.map(change).collect()
    }
}

impl Moves {
    fn add_to(&self, changes: &mut Vec<Change<'_>>, shared: &Shared) {
        let moved = self.progress.iter().map(|(place, moved)| (*place, &moved.progress));
        for (place, progress) in moved.chain(self.bound.iter().map(|moved| (moved.place, &moved.progress))) {
            let Some(slot) = shared.slots.get(place) else { continue };
            let key = MetaKey::Progress(slot.id.lane, slot.id.name.clone());
            changes.push(Change::Meta { key, value: progress.encode() });
        }
        for (lane, head) in &self.trims {
            changes.push(Change::Trim { lane: *lane, below: head.first });
            changes.push(Change::Meta { key: MetaKey::Head(*lane), value: head.encode() });
            let holes = shared.holes.read();
            changes
                .extend(holes.iter().filter(|hole| hole.is_behind(*lane, *head)).map(|hole| hole.forget()));
        }
    }
}

/// The changes of state in an arena, if there are any.
fn state_change(arena: &Arena) -> Option<Change<'_>> {
    (!arena.state().is_empty()).then(|| Change::State { ops: arena.state() })
}

/// The last progress of each consumer in a group.
fn bound_moves(bound: &[Bound]) -> Vec<BoundMove> {
    let mut moves: Vec<BoundMove> = Vec::new();
    for Bound { place, progress, .. } in bound {
        match moves.iter_mut().find(|known| known.place == *place) {
            Some(known) => {
                known.progress.clone_from(progress);
                known.count += 1;
            }
            None => moves.push(BoundMove { place: *place, progress: progress.clone(), count: 1 }),
        }
    }
    moves
}

fn write(shared: &Shared, changes: &[Change<'_>], sync: bool) -> Result<(), StoreError> {
    match shared.store.read().as_deref() {
        Some(store) => store.write(changes, sync),
        None => Err(StoreError { kind: StoreErrorKind::Other, message: "the store is closed".to_owned() }),
    }
}

/// For gauges, which are floating point: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge of more than 2^53 need not be exact")]
const fn lossy(value: u64) -> f64 {
    value as f64
}
