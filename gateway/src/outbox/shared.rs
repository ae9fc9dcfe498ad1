//! What the outbox's threads share: the queue and the gate in front, the committer, the consumers
//! behind, and the state that everybody may look at.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::arena::Queue;
use super::completion::Completion;
use super::config::Config;
use super::directory::QUARANTINE;
use super::gate::{Gate, State};
use super::keys::{Head, Progress};
use super::metrics::Metrics;
use super::recovery::{ConsumerId, LaneHole, Recovered, pass_holes};
use super::space::Space;
use super::store::Store;
use super::tail::TailCache;
use crate::supervise::clock;

/// A consumer's own state is large from here on.
const LARGE_STATE_BYTES: usize = 1 << 10;
/// A large state is written at most this often while groups come.
const LARGE_STATE_PAUSE: Duration = Duration::from_millis(10);
/// Reports of damage that wait for the committer; readers come back with those that do not fit.
const DAMAGE_REPORTS_MAX: usize = 64;
/// Progress of a consumer is written at the latest after this time without a group.
const PROGRESS_IDLE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) log: LogId,
    epoch: AtomicU32,
    pub(super) queue: Queue,
    pub(super) gate: Gate,
    pub(super) space: Space,
    pub(super) tail: TailCache,
    pub(super) commits: CommitSignal,
    pub(super) slots: Vec<Slot>,
    /// Closed while a failed store is opened again.
    pub(super) store: RwLock<Option<Box<dyn Store>>>,
    /// The sidecar's file, and whether it was written since it was last made durable.
    pub(super) sidecar: Mutex<Arc<File>>,
    pub(super) sidecar_dirty: AtomicBool,
    pub(super) poisoned: Mutex<Option<String>>,
    /// Positions that are known to be gone.
    pub(super) holes: RwLock<Vec<LaneHole>>,
    /// Segments that a reader found missing or damaged, for the committer to look at.
    pub(super) damage: Mutex<Vec<(Lane, Seq)>>,
    /// Incidents that no operator has acknowledged.
    pub(super) incidents: AtomicUsize,
    pub(super) quarantine: PathBuf,
    pub(super) realtime: AtomicBool,
    pub(super) ended: Latch,
    pub(super) metrics: Metrics,
    lanes: [LaneView; Lane::COUNT],
}

/// What everybody may know about a lane. Written by the committer and the housekeeper only.
#[derive(Debug, Default)]
pub(super) struct LaneView {
    /// The first position that is not committed. Everything below may be read.
    next: AtomicU64,
    /// The least position that some consumer has not confirmed.
    low: AtomicU64,
    /// Where the oldest segment begins that some consumer still needs.
    floor: AtomicU64,
    backlog_bytes: AtomicU64,
    /// Below this position the files may be deleted: the trim is durable.
    reclaim: AtomicU64,
    /// When the oldest unconfirmed entry was committed, in Unix milliseconds; 0 if there is none.
    oldest_ms: AtomicU64,
    /// Where the lane begins since entries were let go; 0 if none were.
    dropped_to: AtomicU64,
    dropped_head: Mutex<Head>,
    /// Entries below this position are about to be let go; 0 if none are.
    drop_request: AtomicU64,
}

/// A configured consumer: where it has come to, as it says and as it is written.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: ConsumerId,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    progress: Progress,
    /// Counts the changes of `progress`.
    version: u64,
    /// The version that was written last, and when.
    written: u64,
    written_at: Option<Instant>,
    in_use: bool,
    /// Progress submitted with outputs that is neither written nor failed. Until it is, no other
    /// progress of the consumer is written.
    bound: usize,
    /// What the consumer said after that.
    later: Option<Progress>,
    /// Where progress with outputs failed and the consumer has neither heard of it nor gone back:
    /// what it says meanwhile may lie behind outputs that are not there, and counts for nothing.
    unheard: Vec<Arc<Completion>>,
    /// Counts the failures.
    failures: u64,
    /// What the consumer said to the last request to let entries go.
    drop_answer: Option<DropAnswer>,
}

/// Where a consumer stands, and after how many failures.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) progress: Progress,
    pub(super) failures: u64,
}

/// How a consumer answers the request to let entries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DropAnswer {
    pub(super) below: Seq,
    /// How many entries below it the consumer has not confirmed.
    pub(super) unconfirmed: u64,
}

/// Progress that is to be written.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) progress: Progress,
    version: u64,
}

/// Wakes those who wait for commits: in any lane, or in one of them.
#[derive(Debug, Default)]
pub(super) struct CommitSignal {
    any: Signal,
    lanes: [Signal; Lane::ALL.len()],
}

/// Counts, and wakes those who wait for the next.
#[derive(Debug, Default)]
struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

/// Set once, when the committer has ended.
#[derive(Debug, Default)]
pub(super) struct Latch {
    set: Mutex<bool>,
    changed: Condvar,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        config: Config,
        consumers: &[ConsumerId],
        space: Space,
        recovered: &mut Recovered,
    ) -> Self {
        let progress = std::mem::take(&mut recovered.progress);
        let slots = consumers.iter().cloned().zip(progress).map(|(id, progress)| Slot::new(id, progress));
        Self {
            log: recovered.log,
            epoch: AtomicU32::new(recovered.epoch.0),
            queue: Queue::new(),
            gate: Gate::new(config.queue_bytes_max, config.bytes_max),
            space,
            tail: TailCache::new(config.tail_cache_bytes),
            commits: CommitSignal::default(),
            slots: slots.collect(),
            store: RwLock::new(None),
            sidecar: Mutex::new(recovered.sidecar.file()),
            sidecar_dirty: AtomicBool::new(false),
            poisoned: Mutex::new(None),
            holes: RwLock::new(std::mem::take(&mut recovered.holes)),
            damage: Mutex::default(),
            incidents: AtomicUsize::new(0),
            quarantine: config.directory.join(QUARANTINE),
            realtime: AtomicBool::new(false),
            ended: Latch::default(),
            metrics: Metrics::new(),
            lanes: Default::default(),
            config,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(super) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneView {
        lane.pick(&self.lanes)
    }

    /// The consumers of `lane`, with their places.
    pub(super) fn slots_of(&self, lane: Lane) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(move |(_, slot)| slot.id.lane == lane)
    }

    /// A consumer moved on: its progress rides the next group, or is written soon without one.
    pub(super) fn progress_moved(&self, place: usize, progress: &Progress) {
        if self.slots.get(place).is_some_and(|slot| slot.moved(progress)) {
            self.write_soon();
        }
    }

    /// A reader passes a hole: its consumer need not wait for what was there.
    pub(super) fn hole_passed(&self, place: usize, first: Seq, behind: Seq) {
        if self.slots.get(place).is_some_and(|slot| slot.pass_hole(first, behind)) {
            self.write_soon();
        }
    }

    /// Makes sure that progress is written soon, also without a group.
    pub(super) fn write_soon(&self) {
        if let Some(due) = clock::now().checked_add(PROGRESS_IDLE) {
            self.queue.set_timer(due);
        }
    }

    /// The first position at or above `seq` that is in no hole of `lane`.
    pub(super) fn pass_holes(&self, lane: Lane, seq: Seq) -> Seq {
        pass_holes(&self.holes.read(), lane, seq)
    }

    /// A reader found that the segment at `first` is missing or damaged. The committer decides what
    /// becomes of it.
    pub(super) fn report_damage(&self, lane: Lane, first: Seq) {
        let mut damage = self.damage.lock();
        if !damage.contains(&(lane, first)) && damage.len() < DAMAGE_REPORTS_MAX {
            damage.push((lane, first));
            drop(damage);
            self.queue.set_timer(clock::now());
        }
    }

    /// Nothing will be committed any more.
    pub(super) fn end(&self) {
        self.gate.set_state(State::Closed);
        self.queue.close();
        self.ended.set();
        self.commits.wake();
    }
}

// === impl LaneView ===

impl LaneView {
    pub(super) fn next(&self) -> Seq {
        Seq(self.next.load(Ordering::Acquire))
    }

    pub(super) fn low(&self) -> Seq {
        Seq(self.low.load(Ordering::Acquire))
    }

    pub(super) fn floor(&self) -> Seq {
        Seq(self.floor.load(Ordering::Acquire))
    }

    pub(super) fn reclaimable(&self) -> Seq {
        Seq(self.reclaim.load(Ordering::Acquire))
    }

    pub(super) fn backlog_bytes(&self) -> u64 {
        self.backlog_bytes.load(Ordering::Acquire)
    }

    pub(super) fn backlog_messages(&self) -> u64 {
        self.next().0.saturating_sub(self.low().0)
    }

    pub(super) fn oldest_ms(&self) -> Option<u64> {
        Some(self.oldest_ms.load(Ordering::Acquire)).filter(|ms| *ms != 0)
    }

    pub(super) fn publish(&self, next: Seq) {
        self.next.store(next.0, Ordering::Release);
    }

    pub(super) fn set_backlog(&self, low: Seq, floor: Seq, bytes: u64) {
        self.low.store(low.0, Ordering::Release);
        self.floor.store(floor.0, Ordering::Release);
        self.backlog_bytes.store(bytes, Ordering::Release);
    }

    pub(super) fn set_reclaimable(&self, below: Seq) {
        self.reclaim.store(below.0, Ordering::Release);
    }

    /// Where the lane begins, if entries were let go and it begins above `floor`.
    pub(super) fn dropped_above(&self, floor: Seq) -> Option<Head> {
        (self.dropped_to.load(Ordering::Acquire) > floor.0).then(|| *self.dropped_head.lock())
    }

    pub(super) fn set_dropped(&self, head: Head) {
        *self.dropped_head.lock() = head;
        self.dropped_to.store(head.first.0, Ordering::Release);
    }

    pub(super) fn drop_request(&self) -> Option<Seq> {
        Some(self.drop_request.load(Ordering::Acquire)).filter(|below| *below != 0).map(Seq)
    }

    pub(super) fn set_drop_request(&self, below: Option<Seq>) {
        self.drop_request.store(below.map_or(0, |below| below.0), Ordering::Release);
    }

    pub(super) fn set_oldest_ms(&self, ms: Option<u64>) {
        self.oldest_ms.store(ms.unwrap_or(0), Ordering::Release);
    }
}

// === impl Slot ===

impl Slot {
    fn new(id: ConsumerId, progress: Progress) -> Self {
        let state = SlotState {
            progress,
            version: 0,
            written: 0,
            written_at: None,
            in_use: false,
            bound: 0,
            later: None,
            unheard: Vec::new(),
            failures: 0,
            drop_answer: None,
        };
        Self { id, state: Mutex::new(state) }
    }

    /// Gives the slot to one consumer; `None` if another has it, or had it and something that it
    /// submitted is still on its way.
    pub(super) fn claim(&self) -> Option<Standing> {
        let mut state = self.state.lock();
        if state.in_use || state.bound > 0 {
            return None;
        }
        state.in_use = true;
        Some(Standing { progress: state.progress.clone(), failures: state.failures })
    }

    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        state.in_use = false;
        state.unheard.clear();
    }

    /// Where the consumer stands, if progress with outputs has failed since there were `failures`.
    pub(super) fn failed_since(&self, failures: u64) -> Option<Standing> {
        let state = self.state.lock();
        let (progress, now) = (&state.progress, state.failures);
        (now != failures).then(|| Standing { progress: progress.clone(), failures: now })
    }

    /// The first position that the consumer has not confirmed, and where the segments begin that it
    /// still needs.
    pub(super) fn position(&self) -> (Seq, Head) {
        let state = self.state.lock();
        (state.progress.low, state.progress.floor())
    }

    /// Whether what the consumer says counts for nothing now.
    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().is_broken()
    }

    /// The consumer goes back to its progress, after a failure or without one.
    pub(super) fn mend(&self) {
        self.state.lock().unheard.clear();
    }

    /// Progress is submitted with outputs.
    pub(super) fn bind(&self) {
        let mut state = self.state.lock();
        state.bound += 1;
        state.later = None;
    }

    /// `count` submitted ones were written, the last with `progress`. Returns whether the consumer
    /// has said more since, so that a timer is needed.
    pub(super) fn bound_written(&self, progress: &Progress, count: usize, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.bound = state.bound.saturating_sub(count);
        state.progress.clone_from(progress);
        state.version += 1;
        state.written = state.version;
        state.written_at = Some(now);
        let later = if state.bound == 0 { state.later.take() } else { None };
        let more = later.is_some();
        if let Some(later) = later {
            state.progress = later;
            state.version += 1;
        }
        more
    }

    /// A submitted one failed, and with it everything that was said after it. `done` tells of it.
    pub(super) fn bound_failed(&self, done: &Arc<Completion>) {
        let mut state = self.state.lock();
        state.bound = state.bound.saturating_sub(1);
        state.later = None;
        if !state.unheard.iter().any(|known| Arc::ptr_eq(known, done)) {
            state.unheard.push(Arc::clone(done));
        }
        state.failures += 1;
    }

    /// Everything from `first` up to `behind` is gone: a consumer that has confirmed everything
    /// below `first` has nothing to wait for there. Returns whether a timer is needed.
    pub(super) fn pass_hole(&self, first: Seq, behind: Seq) -> bool {
        let mut state = self.state.lock();
        if state.bound > 0 || state.is_broken() || state.progress.low != first {
            return false;
        }
        let was_written = state.version == state.written;
        if state.progress.floor == first {
            state.progress.floor = behind;
        }
        state.progress.low = behind;
        state.version += 1;
        was_written
    }

    pub(super) fn progress(&self) -> Progress {
        self.state.lock().progress.clone()
    }

    /// Notes progress. Returns whether the one before it was written, so that a timer is needed.
    fn moved(&self, progress: &Progress) -> bool {
        let mut state = self.state.lock();
        if state.is_broken() {
            return false;
        }
        if state.bound > 0 {
            state.later = Some(progress.clone());
            return false;
        }
        let was_written = state.version == state.written;
        state.progress.clone_from(progress);
        state.version += 1;
        was_written
    }

    /// Progress that was not written yet. A large state does not ride every group, or it would be
    /// most of what is written: it waits until [`LARGE_STATE_PAUSE`] has passed since `last`, unless
    /// `now` is `None`.
    pub(super) fn unwritten(&self, now: Option<Instant>) -> Option<Moved> {
        let state = self.state.lock();
        if state.version == state.written || state.bound > 0 {
            return None;
        }
        if let (Some(now), Some(last)) = (now, state.written_at)
            && state.progress.state.len() > LARGE_STATE_BYTES
            && now.saturating_duration_since(last) < LARGE_STATE_PAUSE
        {
            return None;
        }
        Some(Moved { progress: state.progress.clone(), version: state.version })
    }

    /// Notes the answer to a request to let entries go.
    pub(super) fn answer_drop(&self, answer: DropAnswer) {
        self.state.lock().drop_answer = Some(answer);
    }

    /// The consumer's answer about entries below `below`, if it gave one.
    pub(super) fn drop_answer(&self, below: Seq) -> Option<DropAnswer> {
        self.state.lock().drop_answer.filter(|answer| answer.below == below)
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.state.lock().in_use
    }

    /// `moved` was written.
    ///
    /// Returns whether the consumer moved on while that was being written: then nobody has set a timer for it.
    pub(super) fn written(&self, moved: &Moved, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.written = state.written.max(moved.version);
        state.written_at = Some(now);
        state.version != state.written
    }

    /// The store was opened again and may not know what was written last.
    pub(super) fn write_again(&self) {
        self.state.lock().version += 1;
    }
}

impl SlotState {
    fn is_broken(&mut self) -> bool {
        self.unheard.retain(|done| !done.failure_was_heard());
        !self.unheard.is_empty()
    }
}

impl Progress {
    /// Where the segments begin that this consumer still needs.
    pub(super) const fn floor(&self) -> Head {
        Head { first: self.floor, bytes_before: self.bytes_before }
    }
}

// === impl CommitSignal ===

impl CommitSignal {
    /// Something changed that everybody has to look at.
    pub(super) fn wake(&self) {
        self.any.wake();
        self.lanes.iter().for_each(Signal::wake);
    }

    /// A group was committed, with entries of these lanes.
    pub(super) fn committed(&self, lanes: impl Iterator<Item = Lane>) {
        self.any.wake();
        lanes.for_each(|lane| lane.pick(&self.lanes).wake());
    }

    /// Waits until the count of all commits differs from `seen`, at most until `deadline`; returns the count.
    pub(super) fn wait(&self, seen: u64, deadline: Option<Instant>) -> u64 {
        self.any.wait(seen, deadline)
    }

    /// The same for commits with entries of one lane, which have a count of their own.
    pub(super) fn wait_in(&self, lane: Lane, seen: u64, deadline: Option<Instant>) -> u64 {
        lane.pick(&self.lanes).wait(seen, deadline)
    }
}

// === impl Signal ===

impl Signal {
    fn wake(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    fn wait(&self, seen: u64, deadline: Option<Instant>) -> u64 {
        let mut count = self.count.lock();
        while *count == seen {
            match deadline {
                Some(deadline) => {
                    if self.changed.wait_until(&mut count, deadline).timed_out() {
                        break;
                    }
                }
                None => self.changed.wait(&mut count),
            }
        }
        *count
    }
}

// === impl Latch ===

impl Latch {
    pub(super) fn set(&self) {
        *self.set.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until it is set, at most until `deadline`; returns whether it is.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let mut set = self.set.lock();
        while !*set {
            if self.changed.wait_until(&mut set, deadline).timed_out() {
                break;
            }
        }
        *set
    }
}

#[cfg(test)]
mod tests {
    use super::super::completion::{CommitFailed, Ticket};
    use super::*;

    fn at(low: u64) -> Progress {
        Progress { low: Seq(low), floor: Seq(low), ..Progress::default() }
    }

    fn slot() -> Slot {
        Slot::new(ConsumerId { name: "uplink".to_owned(), lane: Lane::Bulk }, at(1))
    }

    /// The position that a timer or a group of others would write.
    fn unwritten(slot: &Slot) -> Option<u64> {
        slot.unwritten(None).map(|moved| moved.progress.low.0)
    }

    #[test]
    fn progress_that_comes_while_earlier_one_is_written_is_written_soon() {
        let (slot, now) = (slot(), clock::now());
        assert!(slot.moved(&at(2)), "a timer is set");
        let first = slot.unwritten(None).expect("it is new");
        assert!(!slot.moved(&at(3)), "a write is due or under way");
        assert!(slot.written(&first, now), "a timer for what came meanwhile");
        let second = slot.unwritten(None).expect("it came meanwhile");
        assert!(!slot.written(&second, now));
    }

    #[test]
    fn nothing_of_a_consumer_is_written_around_its_bound_progress() {
        let (slot, now) = (slot(), clock::now());
        slot.moved(&at(2));
        slot.bind();
        assert_eq!(unwritten(&slot), None, "what was before it is part of it");
        assert!(!slot.moved(&at(4)));
        slot.bind();
        assert!(!slot.moved(&at(6)));
        assert!(!slot.bound_written(&at(3), 1, now), "one is left");
        assert_eq!(unwritten(&slot), None);
        assert!(slot.bound_written(&at(5), 1, now), "a timer for what came later");
        assert_eq!(unwritten(&slot), Some(6));
    }

    #[test]
    fn after_a_failure_nothing_counts_until_the_consumer_knows() {
        let slot = slot();
        let [first, second] = [(); 2].map(|()| Arc::new(Completion::new()));
        let hear = |done: &Completion| {
            done.fail();
            assert_eq!(done.wait(Ticket(1), clock::now()), Some(Err(CommitFailed)));
        };
        slot.moved(&at(2));
        slot.bind();
        slot.bind();
        slot.moved(&at(4));
        slot.bound_failed(&first);
        assert!(slot.claim().is_none(), "the second is on its way");
        slot.bound_failed(&second);
        slot.moved(&at(4));
        assert_eq!((unwritten(&slot), slot.position().0), (Some(2), Seq(2)));
        let standing = slot.failed_since(0).expect("two failures");
        assert_eq!((standing.progress.low, standing.failures), (Seq(2), 2));
        assert!(slot.failed_since(2).is_none());
        hear(&first);
        assert!(slot.is_broken(), "of the first only");
        hear(&second);
        assert!(!slot.is_broken());
        slot.moved(&at(3));
        assert_eq!(unwritten(&slot), Some(3));
        slot.bind();
        slot.bound_failed(&Arc::default());
        assert!(slot.is_broken());
        slot.mend();
        assert!(!slot.is_broken(), "going back is as good");
    }

    #[test]
    fn a_large_state_does_not_ride_every_group() {
        for (bytes, spared) in [(LARGE_STATE_BYTES, false), (LARGE_STATE_BYTES + 1, true)] {
            let slot =
                Slot::new(ConsumerId { name: "uplink".to_owned(), lane: Lane::Bulk }, Progress::default());
            let progress = Progress { state: vec![0; bytes], ..Progress::default() };
            let (start, almost) = (clock::now(), LARGE_STATE_PAUSE - Duration::from_micros(1));
            assert!(slot.moved(&progress), "a timer makes sure that it is written without groups");
            let first = slot.unwritten(Some(start)).expect("nothing was written yet");
            assert!(!slot.written(&first, start));
            assert!(slot.unwritten(Some(start + LARGE_STATE_PAUSE)).is_none(), "nothing changed");
            slot.moved(&progress);
            assert_eq!(slot.unwritten(Some(start + almost)).is_none(), spared);
            assert!(slot.unwritten(Some(start + LARGE_STATE_PAUSE)).is_some());
            assert!(slot.unwritten(None).is_some(), "without a group it does not wait");
        }
    }
}
