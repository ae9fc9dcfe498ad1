//! Consumers: reading a lane in order, with durable progress.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use super::completion::{Completion, Ticket};
use super::cursor::Cursor;
use super::error::{Error, Refused};
use super::keys::{Head, Progress};
use super::record::Encoded;
use super::segment::{Header, Segment};
use super::shared::{DropAnswer, Shared, Slot, Standing};
use super::state::StateOps;
use super::trail::{Extent, Trail};
use crate::supervise::clock;

/// Reads one lane in order and says how far it has been confirmed.
///
/// For threads: reading may touch the disk. A consumer is the only one of its name and lane; the
/// name is free again when it is dropped and nothing that it committed is on its way any more.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    place: usize,
    lane: Lane,
    /// What [`Self::try_next`] reads with.
    own: Cursor,
    trail: Arc<Mutex<Trail>>,
    /// What it said last.
    progress: Progress,
    /// How many of its commits have failed as far as it knows.
    failures: u64,
}

impl Consumer {
    pub(super) fn claim(shared: &Arc<Shared>, name: &str, lane: Lane) -> Result<Self, Error> {
        let named = shared.slots_of(lane).find(|(_, slot)| slot.id.name == name);
        let Some((place, slot)) = named else {
            return Err(Error::UnknownConsumer { consumer: name.to_owned(), lane });
        };
        let Some(Standing { progress, failures }) = slot.claim() else {
            return Err(Error::ConsumerInUse { consumer: name.to_owned(), lane });
        };
        let trail = Arc::new(Mutex::new(Trail::new(progress.low)));
        let own = Cursor::new(shared, place, lane, &trail, progress.floor);
        Ok(Self { shared: Arc::clone(shared), place, lane, own, trail, progress, failures })
    }

    /// The lane it reads.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// A reading position of its own at `at`. Any number of them may be used at a time, beside
    /// [`Self::try_next`] and by other threads; what they hand out is confirmed here.
    ///
    /// `at` may lie within a segment: the first segment handed out is the one that holds it.
    #[must_use]
    pub fn cursor(&self, at: Seq) -> Cursor {
        Cursor::new(&self.shared, self.place, self.lane, &self.trail, at)
    }

    /// The next committed segment, or `None` if there is none yet: wait with
    /// [`super::Handle::wait_commit`]. Also `None` while a failed store is opened again.
    ///
    /// The first segment after opening and after [`Self::rewind`] may begin below the first
    /// position that is not confirmed: skip records below [`Self::progress`].
    ///
    /// A read from the disk fetches segments of up to `bytes_max` bytes, at least one, and hands
    /// them out one by one.
    ///
    /// # Errors
    ///
    /// When a stored segment is damaged or missing, or cannot be read; calling again tries again.
    pub fn try_next(&mut self, bytes_max: usize) -> Result<Option<Arc<Segment>>, Error> {
        let next = self.own.try_next(bytes_max);
        if self.catch_up() {
            self.shared.progress_moved(self.place, &self.progress);
        }
        next
    }

    /// A position below which entries are about to be let go to make room, as `on_full =
    /// "drop-oldest"` says: answer with [`Self::answer_drop`] within two seconds.
    #[must_use]
    pub fn drop_request(&self) -> Option<Seq> {
        let slot = self.shared.slots.get(self.place)?;
        let below = self.shared.lane(self.lane).drop_request()?;
        slot.drop_answer(below).is_none().then_some(below)
    }

    /// Says how many entries below `below` this consumer has not confirmed: as many are counted as
    /// dropped. Afterwards reading goes on at `below` or behind it.
    pub fn answer_drop(&self, below: Seq, unconfirmed: u64) {
        if let Some(slot) = self.shared.slots.get(self.place) {
            slot.answer_drop(DropAnswer { below, unconfirmed });
            self.shared.queue.set_timer(clock::now());
        }
    }

    /// Goes back to the first position that is not confirmed. After a failed [`Self::commit_with`]
    /// that is where it stood before. Cursors stay where they are.
    pub fn rewind(&mut self) {
        self.catch_up();
        if let Some(slot) = self.slot() {
            slot.mend();
        }
        self.own.seek(self.progress.floor);
    }

    /// The first position not yet confirmed, and what was stored with it. After a failed
    /// [`Self::commit_with`]: as of the next call that changes anything, such as [`Self::rewind`].
    #[must_use]
    pub fn progress(&self) -> (Seq, &[u8]) {
        (self.progress.low, &self.progress.state)
    }

    /// Everything below `low` is confirmed; `state` is kept with it for the next start. Becomes
    /// durable with the next group, or is written within 100 ms and synced when the outbox closes.
    /// After a crash an earlier progress may return, so that entries are read again.
    ///
    /// Never moves back: a lower `low` only replaces `state`. What no cursor handed out or began
    /// behind cannot be confirmed. After a failed [`Self::commit_with`] nothing happens until its
    /// completion has told somebody, or [`Self::rewind`]: `low` may lie behind what it was about.
    pub fn commit(&mut self, low: Seq, state: Vec<u8>) {
        self.catch_up();
        if self.slot().is_some_and(Slot::is_broken) {
            return;
        }
        self.advance(low, state);
        self.shared.progress_moved(self.place, &self.progress);
    }

    /// As [`Self::commit`], in one synced batch with `outputs`, entries of any lanes: whatever
    /// crashes, neither is there without the other. The ticket becomes durable or fails on `done`.
    /// Without outputs it tells when the progress is durable.
    ///
    /// What was committed before is written before or is part of it; what is committed later is
    /// written later. Several may be on their way. When one fails, all that came after it fail too,
    /// and the consumer stands where it stood before: try again with a new completion. Until the
    /// failed one has told somebody ([`Completion::poll_durable`] or [`Completion::wait`]), or
    /// [`Self::rewind`], calls are refused: what was built on a commit that failed must not be
    /// taken in. After a write that failed the ticket waits until the store is open again, which
    /// tells whether both are there.
    ///
    /// Outputs to lanes `dead`, `alerts` and `status` pass a full quota, the latter two as far as
    /// their reserve goes twice; whoever fills lane `dead` sees to its bound, with
    /// [`super::LaneStatus::backlog_bytes`].
    ///
    /// # Errors
    ///
    /// Why nothing was taken in. Nothing has changed then; try again later. Also while `done` tells
    /// of a failure.
    pub fn commit_with(
        &mut self,
        low: Seq,
        state: Vec<u8>,
        outputs: &Encoded,
        done: &Arc<Completion>,
    ) -> Result<Ticket, Refused> {
        self.commit_all(low, state, (outputs, &StateOps::default()), done)
    }

    /// As [`Self::commit_with`], with changes of state in the same batch. The caller bounds that
    /// state; its changes pass a full quota and count to the queue's bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::commit_with`].
    pub fn commit_all(
        &mut self,
        low: Seq,
        state: Vec<u8>,
        (outputs, changes): (&Encoded, &StateOps),
        done: &Arc<Completion>,
    ) -> Result<Ticket, Refused> {
        self.catch_up();
        let bytes = outputs.bytes() + changes.bytes();
        if self.slot().is_some_and(Slot::is_broken) {
            return Err(Refused::Poisoned);
        }
        if let Err(reason) = self.shared.gate.admit(outputs.lane_bytes()) {
            self.shared.metrics.refused(reason);
            return Err(reason);
        }
        self.shared.gate.settle(0, changes.bytes());
        let before = self.progress.clone();
        self.advance(low, state);
        let slot = self.shared.slots.get(self.place).ok_or(Refused::Closed);
        let submitted = slot.and_then(|slot| {
            let progress = self.progress.clone();
            self.shared.queue.submit_bound((self.place, slot), progress, (outputs, changes), done)
        });
        if submitted.is_err() {
            self.progress = before;
            self.shared.gate.release(bytes);
        }
        submitted
    }

    // --- progress ---

    fn slot(&self) -> Option<&Slot> {
        self.shared.slots.get(self.place)
    }

    /// Takes over what others know of its progress: that a commit failed, that a hole was passed,
    /// that entries were let go. Returns whether it stands elsewhere by the latter.
    fn catch_up(&mut self) -> bool {
        let Some(slot) = self.shared.slots.get(self.place) else { return false };
        if let Some(Standing { progress, failures }) = slot.failed_since(self.failures) {
            (self.progress, self.failures) = (progress, failures);
        }
        let (low, floor) = slot.position();
        self.raise(low, floor);
        let Some(head) = self.shared.lane(self.lane).dropped_above(self.progress.floor) else { return false };
        self.raise(head.first, head);
        true
    }

    fn raise(&mut self, low: Seq, floor: Head) {
        self.progress.low = self.progress.low.max(low);
        if floor.first > self.progress.floor {
            (self.progress.floor, self.progress.bytes_before) = (floor.first, floor.bytes_before);
        }
    }

    fn advance(&mut self, low: Seq, state: Vec<u8>) {
        let low = self.confirmable(low);
        let behind = self.shared.pass_holes(self.lane, low);
        self.progress.state = state;
        if behind == self.progress.low {
            return;
        }
        if let Some(floor) = self.floor(low) {
            // A hole begins where a segment ends; behind it nothing more is to be kept than before.
            let first = if floor.first == low { behind } else { floor.first };
            self.raise(behind, Head { first, ..floor });
        }
        self.progress.low = behind;
        self.trail.lock().forget_below(behind);
    }

    /// `low`, but not below what is confirmed nor above what was read.
    fn confirmable(&self, low: Seq) -> Seq {
        let reached = self.trail.lock().reached();
        if low > reached && low > self.progress.low {
            tracing::error!(lane = %self.lane, low = low.0, reached = reached.0,
                "a consumer confirmed what it was not given");
        }
        low.min(reached).max(self.progress.low)
    }

    /// Where to trim to if everything below `low` is confirmed.
    fn floor(&self, low: Seq) -> Option<Head> {
        if low == self.progress.floor {
            return Some(self.progress.floor());
        }
        if let Some(floor) = self.trail.lock().floor(low) {
            return Some(floor);
        }
        let cached = [Some(low), low.0.checked_sub(1).map(Seq)].into_iter().flatten();
        let mut cached = cached.filter_map(|seq| self.shared.tail.find(self.lane, seq));
        cached.find_map(|segment| Extent::of(segment.header()).floor(low)).or_else(|| self.stored_floor(low))
    }

    /// As [`Self::floor`], by a look at the store. Rare: for a position far ahead of what this
    /// consumer read last, and after a hole.
    fn stored_floor(&self, low: Seq) -> Option<Head> {
        let store = self.shared.store.read();
        let mut found = None;
        let scanned = store.as_deref()?.scan_back(self.lane, low, &mut |_, stored| {
            found = Header::read(stored).ok().map(|(header, ..)| Extent::of(&header));
            ControlFlow::Break(())
        });
        if let Err(error) = scanned {
            tracing::debug!(%error, lane = %self.lane, "where to trim to is not known yet");
            return None;
        }
        let extent = found?;
        let behind = Head { first: low, bytes_before: extent.end().bytes_before };
        // Nothing is stored between its end and `low`: that was a hole.
        extent.floor(low).or_else(|| (extent.end().first < low).then_some(behind))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(slot) = self.shared.slots.get(self.place) {
            slot.release();
        }
    }
}

/// The least floor and the least low of the consumers of a lane; `None` if it has none.
pub(super) fn least(progress: impl Iterator<Item = (Head, Seq)>) -> Option<(Head, Seq)> {
    progress.reduce(|(head, low), (other, other_low)| {
        let head = if other.first < head.first { other } else { head };
        (head, low.min(other_low))
    })
}
