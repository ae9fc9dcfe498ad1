//! The arena: what was submitted and is not yet being committed.
//!
//! Submitters copy their records into one arena under one short lock; the committer swaps it for an
//! empty one and works on what it took without the lock. The order of submission is therefore the
//! order of positions. A completion that submits several times to one group stands in the arena
//! once, so that it is woken once. No allocation happens per message: buffers grow to the size of a
//! group and are handed on to its segment.
//!
//! Progress that a consumer submits with its outputs lies in the arena beside them, and so does
//! state of the front end, so that one batch writes both and a failure takes both out.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use penstock_proto::Lane;

use super::commit::{Policy, RELAXED_MAX, Verdict, Waiting};
use super::completion::{Completion, Ticket};
use super::error::Refused;
use super::keys::Progress;
use super::record::Encoded;
use super::segment::HEADER_LEN;
use super::shared::Slot;
use super::state::{StateOps, Urgency};
use crate::supervise::clock;

/// Everything submitted since the last swap.
#[derive(Debug)]
pub(super) struct Arena {
    lanes: [LaneBuffer; Lane::COUNT],
    submissions: Vec<Submission>,
    bound: Vec<Bound>,
    state: StateOps,
    waiting: Waiting,
    /// When the first of it was submitted.
    since: Option<Instant>,
}

/// Records of one lane, after room for a segment's header.
#[derive(Debug)]
pub(super) struct LaneBuffer {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
}

/// The last ticket of one completion in the group.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) done: Arc<Completion>,
    pub(super) ticket: Ticket,
}

/// Progress of a consumer that is written together with the outputs it was submitted with.
#[derive(Debug)]
pub(super) struct Bound {
    /// The consumer's place.
    pub(super) place: usize,
    pub(super) progress: Progress,
    pub(super) done: Arc<Completion>,
    pub(super) ticket: Ticket,
}

/// The arena that submitters fill, and the signal that wakes the committer.
#[derive(Debug)]
pub(super) struct Queue {
    front: Mutex<Front>,
    signal: Condvar,
}

#[derive(Debug)]
struct Front {
    arena: Arena,
    /// Counts the swaps; with the place in `submissions` it says whether a completion is in there.
    generation: u32,
    mode: Mode,
    committer: Committer,
    /// When the committer must write progress though nothing was submitted.
    timer: Option<Instant>,
}

/// What happens to a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is taken in.
    Open,
    /// It fails: the store is not usable.
    Poisoned,
    /// It fails: nothing will be committed any more. What was taken in before still is.
    Closed,
}

/// What the committer does, so that a submission wakes it only if that changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committer {
    /// It looks at the arena before it sleeps again.
    Busy,
    /// It sleeps until anything comes.
    Idle,
    /// It sleeps until the floor has passed or enough has come.
    Lingering,
}

/// Why [`Queue::next`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The arena was swapped and holds a group.
    Group,
    /// The timer is due and nothing was submitted but state that may wait, which was swapped.
    Timer,
    /// Closed, and nothing is left.
    Closed,
}

// === impl Arena ===

impl Default for Arena {
    fn default() -> Self {
        Self {
            lanes: std::array::from_fn(|_| LaneBuffer::with_room(LaneBuffer::BYTES_MIN)),
            submissions: Vec::new(),
            bound: Vec::new(),
            state: StateOps::default(),
            waiting: Waiting::default(),
            since: None,
        }
    }
}

impl Arena {
    /// Takes the records of `lane` and leaves an empty buffer of about that size.
    pub(super) fn take_lane(&mut self, lane: Lane) -> Option<LaneBuffer> {
        let buffer = self.lanes.get_mut(lane.index()).filter(|buffer| buffer.count > 0)?;
        let next = LaneBuffer::with_room(buffer.bytes.len());
        Some(std::mem::replace(buffer, next))
    }

    /// Takes out everybody who waits, in order of their first submission.
    pub(super) fn submissions(&mut self) -> impl Iterator<Item = Submission> {
        self.submissions.drain(..)
    }

    /// The progress in it, in order of submission.
    pub(super) fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Takes the progress out.
    pub(super) fn take_bound(&mut self) -> Vec<Bound> {
        std::mem::take(&mut self.bound)
    }

    /// The changes of state in it, in order of submission.
    pub(super) const fn state(&self) -> &StateOps {
        &self.state
    }

    /// How much it holds.
    pub(super) const fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// When the first of it was submitted.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Forgets what is left and keeps the buffers.
    pub(super) fn clear(&mut self) {
        for buffer in self.lanes.iter_mut().filter(|buffer| buffer.count > 0) {
            *buffer = LaneBuffer::with_room(LaneBuffer::BYTES_MIN);
        }
        self.submissions.clear();
        self.bound.clear();
        self.state.clear();
        self.waiting = Waiting::default();
        self.since = None;
    }

    fn append(
        &mut self,
        generation: u32,
        entries: &Encoded,
        state: &StateOps,
        done: &Arc<Completion>,
    ) -> Ticket {
        for (buffer, records) in self.lanes.iter_mut().zip(entries.lanes()) {
            if records.count > 0 {
                buffer.bytes.extend_from_slice(&records.bytes);
                buffer.count += records.count;
            }
        }
        if !state.is_empty() {
            self.state.append(state);
        }
        let alerts = entries.lanes().get(Lane::Alerts.index());
        self.waiting.messages += entries.count();
        self.waiting.bytes += entries.bytes() + state.bytes();
        self.waiting.urgent |= alerts.is_some_and(|records| records.count > 0);
        let ticket = done.issue();
        self.note(generation, ticket, done);
        ticket
    }

    /// Remembers to complete `ticket`, in the entry that `done` already has if there is one.
    fn note(&mut self, generation: u32, ticket: Ticket, done: &Arc<Completion>) {
        let (known, place) = split(done.place());
        let known = if known == generation { self.submissions.get_mut(place) } else { None };
        // Generations wrap around, so the number alone proves nothing.
        if let Some(submission) = known.filter(|submission| Arc::ptr_eq(&submission.done, done)) {
            submission.ticket = ticket;
        } else {
            done.set_place(join(generation, self.submissions.len()));
            self.submissions.push(Submission { done: Arc::clone(done), ticket });
        }
    }
}

/// A generation and a place in one number.
const fn join(generation: u32, place: usize) -> u64 {
    (generation as u64) << 32 | (place as u64 & 0xffff_ffff)
}

const fn split(joined: u64) -> (u32, usize) {
    ((joined >> 32) as u32, (joined & 0xffff_ffff) as usize)
}

// === impl LaneBuffer ===

impl LaneBuffer {
    const BYTES_MIN: usize = 4 << 10;

    fn with_room(bytes: usize) -> Self {
        let mut room = Vec::with_capacity(bytes.max(Self::BYTES_MIN));
        room.resize(HEADER_LEN, 0);
        Self { bytes: room, count: 0 }
    }

    /// The records.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn new() -> Self {
        let front = Front {
            arena: Arena::default(),
            // Fresh completions have place 0, which must not look like an entry.
            generation: 1,
            mode: Mode::Open,
            committer: Committer::Busy,
            timer: None,
        };
        Self { front: Mutex::new(front), signal: Condvar::new() }
    }

    /// Takes entries and state in, or fails them at once. Returns whether they were taken, and their
    /// ticket. Entries never wait, whatever `urgency` says.
    pub(super) fn submit(
        &self,
        entries: &Encoded,
        state: &StateOps,
        urgency: Urgency,
        done: &Arc<Completion>,
    ) -> (bool, Ticket) {
        let mut front = self.front.lock();
        if front.mode != Mode::Open {
            let ticket = done.issue();
            done.fail();
            return (false, ticket);
        }
        if entries.is_empty() && urgency == Urgency::Relaxed {
            return (true, self.append_relaxed(&mut front, entries, state, done));
        }
        (true, self.append(&mut front, entries, state, done))
    }

    /// Takes in state that may wait, and sees to it that it does not wait for ever.
    fn append_relaxed(
        &self,
        front: &mut Front,
        entries: &Encoded,
        state: &StateOps,
        done: &Arc<Completion>,
    ) -> Ticket {
        let is_first = front.arena.state.is_empty();
        let ticket = front.arena.append(front.generation, entries, state, done);
        if is_first && let Some(due) = clock::now().checked_add(RELAXED_MAX) {
            self.set_timer_in(front, due);
        }
        ticket
    }

    /// Takes in the outputs and changes of state of the consumer in `slot` at `place`, and the progress
    /// that goes with them.
    pub(super) fn submit_bound(
        &self,
        (place, slot): (usize, &Slot),
        progress: Progress,
        (outputs, changes): (&Encoded, &StateOps),
        done: &Arc<Completion>,
    ) -> Result<Ticket, Refused> {
        let mut front = self.front.lock();
        match front.mode {
            // Whoever has not noticed yet that an earlier one failed must not go on behind it.
            Mode::Open if done.has_failed() => return Err(Refused::Poisoned),
            Mode::Open => {}
            Mode::Poisoned => return Err(Refused::Poisoned),
            Mode::Closed => return Err(Refused::Closed),
        }
        // Before the committer can see it, which writes no progress of this slot but this one.
        slot.bind();
        let ticket = self.append(&mut front, outputs, changes, done);
        front.arena.bound.push(Bound { place, progress, done: Arc::clone(done), ticket });
        front.arena.waiting.commits += 1;
        Ok(ticket)
    }

    fn append(
        &self,
        front: &mut Front,
        entries: &Encoded,
        state: &StateOps,
        done: &Arc<Completion>,
    ) -> Ticket {
        if front.arena.waiting.is_empty() {
            front.arena.since = Some(clock::now());
        }
        let ticket = front.arena.append(front.generation, entries, state, done);
        front.arena.waiting.prompts += u32::from(entries.is_empty() && !state.is_empty());
        let wake = match front.committer {
            Committer::Busy => false,
            Committer::Idle => true,
            Committer::Lingering => front.arena.waiting.is_enough(),
        };
        if wake {
            front.committer = Committer::Busy;
            self.signal.notify_one();
        }
        ticket
    }

    /// Makes [`Self::next`] return [`Work::Timer`] at `due` if nothing else happens before.
    pub(super) fn set_timer(&self, due: Instant) {
        self.set_timer_in(&mut self.front.lock(), due);
    }

    fn set_timer_in(&self, front: &mut Front, due: Instant) {
        if front.timer.is_none_or(|timer| due < timer) {
            front.timer = Some(due);
            if front.committer != Committer::Busy {
                front.committer = Committer::Busy;
                self.signal.notify_one();
            }
        }
    }

    /// Waits for work; swaps the arena with `spare`, which must be empty, if there is a group, or
    /// state that has waited long enough for one.
    pub(super) fn next(&self, spare: &mut Arena, policy: &Policy, last_start: Option<Instant>) -> Work {
        let mut front = self.front.lock();
        loop {
            let now = clock::now();
            let waiting = front.arena.waiting;
            let closed = front.mode == Mode::Closed;
            let verdict = policy.decide(waiting, last_start, now);
            let wake_at = match verdict {
                Verdict::Now => return front.swap(spare),
                Verdict::At(_) if closed => return front.swap(spare),
                Verdict::Idle if closed && !front.arena.state.is_empty() => return front.swap(spare),
                Verdict::Idle if closed => return Work::Closed,
                Verdict::At(at) => Some(at),
                Verdict::Idle if front.timer.is_some_and(|due| due <= now) => {
                    front.timer = None;
                    if !front.arena.state.is_empty() {
                        front.swap(spare);
                    }
                    return Work::Timer;
                }
                Verdict::Idle => front.timer,
            };
            front.committer = if verdict == Verdict::Idle { Committer::Idle } else { Committer::Lingering };
            match wake_at {
                Some(at) => {
                    self.signal.wait_until(&mut front, at);
                }
                None => self.signal.wait(&mut front),
            }
            front.committer = Committer::Busy;
        }
    }

    /// Changes what happens to submissions, and takes out what waits if it will not be committed.
    pub(super) fn set_mode(&self, mode: Mode, spare: &mut Arena) {
        let mut front = self.front.lock();
        // Closing is for good.
        if front.mode != Mode::Closed {
            front.mode = mode;
        }
        if mode == Mode::Poisoned {
            front.swap(spare);
        }
    }

    /// Refuses submissions from now on and wakes the committer to finish.
    pub(super) fn close(&self) {
        let mut front = self.front.lock();
        front.mode = Mode::Closed;
        front.committer = Committer::Busy;
        self.signal.notify_one();
    }

    /// Whether it is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.front.lock().mode == Mode::Closed
    }

    /// Waits until closed, or until `deadline`.
    pub(super) fn closed_by(&self, deadline: Instant) -> bool {
        let mut front = self.front.lock();
        while front.mode != Mode::Closed {
            front.committer = Committer::Busy;
            if self.signal.wait_until(&mut front, deadline).timed_out() {
                return front.mode == Mode::Closed;
            }
        }
        true
    }
}

impl Front {
    fn swap(&mut self, spare: &mut Arena) -> Work {
        std::mem::swap(&mut self.arena, spare);
        self.generation = self.generation.wrapping_add(1);
        Work::Group
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::{Entry, Properties};
    use super::*;

    fn encoded(lane: Lane, count: u32) -> Encoded {
        let mut encoded = Encoded::default();
        for _ in 0..count {
            encoded.push(&Entry {
                lane,
                device: "d",
                topic: "t",
                received_ms: 1,
                qos: 1,
                retain: false,
                clock_synced: true,
                properties: Properties::default(),
                payload: b"payload",
            });
        }
        encoded
    }

    fn submit(queue: &Queue, entries: &Encoded, done: &Arc<Completion>) -> (bool, Ticket) {
        queue.submit(entries, &StateOps::default(), Urgency::Prompt, done)
    }

    fn submit_state(queue: &Queue, key: &[u8], urgency: Urgency, done: &Arc<Completion>) -> (bool, Ticket) {
        let mut state = StateOps::default();
        state.put(key, b"value");
        queue.submit(&Encoded::default(), &state, urgency, done)
    }

    const POLICY: Policy = Policy { floor: Duration::ZERO };

    #[test]
    fn a_completion_stands_in_a_group_once_with_its_last_ticket() {
        let queue = Queue::new();
        let (a, b) = (Arc::new(Completion::new()), Arc::new(Completion::new()));
        let entries = encoded(Lane::Telemetry, 2);
        for done in [&a, &b, &a] {
            assert!(submit(&queue, &entries, done).0);
        }
        let mut spare = Arena::default();
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group);
        assert_eq!(
            spare.waiting(),
            Waiting { messages: 6, bytes: 3 * entries.bytes(), ..Waiting::default() }
        );
        let tickets: Vec<_> = spare.submissions().map(|s| (Arc::ptr_eq(&s.done, &a), s.ticket)).collect();
        assert_eq!(tickets, [(true, Ticket(2)), (false, Ticket(1))]);
        let telemetry = spare.take_lane(Lane::Telemetry).expect("it has records");
        assert_eq!((telemetry.count, telemetry.body().len()), (6, 3 * entries.bytes()));
        assert!(spare.take_lane(Lane::Telemetry).is_none() && spare.take_lane(Lane::Alerts).is_none());

        // The next group is another generation: the completion gets an entry of its own there.
        spare.clear();
        assert_eq!(submit(&queue, &encoded(Lane::Alerts, 1), &a).1, Ticket(3));
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group);
        assert!(spare.waiting().urgent);
        assert_eq!(spare.submissions().map(|s| s.ticket).collect::<Vec<_>>(), [Ticket(3)]);
    }

    #[test]
    fn submissions_fail_at_once_when_poisoned_or_closed() {
        let queue = Queue::new();
        let done = Arc::new(Completion::new());
        let entries = encoded(Lane::Telemetry, 1);
        submit(&queue, &entries, &done);
        let mut spare = Arena::default();
        queue.set_mode(Mode::Poisoned, &mut spare);
        assert_eq!(spare.submissions().count(), 1, "what waited comes out to be failed");
        spare.clear();
        assert!(!submit(&queue, &entries, &done).0);
        queue.set_mode(Mode::Open, &mut spare);
        assert!(submit(&queue, &entries, &done).0);
        queue.close();
        assert!(!submit(&queue, &entries, &done).0);
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group, "what was taken in is committed");
        spare.clear();
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Closed);
        queue.set_mode(Mode::Open, &mut spare);
        assert!(queue.is_closed(), "closing is for good");
    }

    #[test]
    fn the_timer_fires_when_nothing_comes() {
        let queue = Queue::new();
        queue.set_timer(clock::now());
        let mut spare = Arena::default();
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Timer);
        queue.set_timer(clock::now() + Duration::from_secs(60));
        submit(&queue, &encoded(Lane::Telemetry, 1), &Arc::new(Completion::new()));
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group, "a group comes before the timer");
    }

    #[test]
    fn state_that_may_wait_rides_a_group_or_comes_with_the_timer() {
        let (queue, done) = (Queue::new(), Arc::new(Completion::new()));
        let mut spare = Arena::default();
        assert_eq!(submit_state(&queue, b"a", Urgency::Relaxed, &done), (true, Ticket(1)));
        submit(&queue, &encoded(Lane::Telemetry, 1), &done);
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group);
        assert_eq!((spare.state().len(), spare.waiting().messages), (1, 1));
        spare.clear();

        submit_state(&queue, b"b", Urgency::Relaxed, &done);
        submit_state(&queue, b"c", Urgency::Relaxed, &done);
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Timer, "it starts no group");
        assert_eq!(spare.state().len(), 2);
        assert_eq!(spare.submissions().map(|s| s.ticket).collect::<Vec<_>>(), [Ticket(4)]);
        spare.clear();

        submit_state(&queue, b"d", Urgency::Relaxed, &done);
        queue.close();
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group, "a close does not leave it behind");
        assert_eq!(spare.state().len(), 1);
        spare.clear();
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Closed);
    }

    #[test]
    fn state_that_may_not_wait_starts_a_group() {
        let (queue, done) = (Queue::new(), Arc::new(Completion::new()));
        let mut spare = Arena::default();
        submit_state(&queue, b"a", Urgency::Prompt, &done);
        assert_eq!(queue.next(&mut spare, &POLICY, None), Work::Group);
        assert_eq!((spare.state().len(), spare.waiting().prompts), (1, 1));
        assert!(spare.since().is_some() && spare.waiting().bytes == spare.state().bytes());
        spare.clear();
        assert!(spare.state().is_empty() && spare.waiting() == Waiting::default());
        queue.set_mode(Mode::Poisoned, &mut spare);
        assert!(!submit_state(&queue, b"a", Urgency::Relaxed, &done).0 && done.has_failed());
    }
}
