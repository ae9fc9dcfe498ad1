//! Consumers: reading a lane in order, with durable progress.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use penstock_proto::{Lane, Seq};

use super::error::{Error, StoreErrorKind};
use super::keys::{Head, Progress};
use super::segment::Segment;
use super::shared::{DropAnswer, Shared};
use crate::supervise::clock;

/// Segments handed out and not confirmed that are remembered one by one; above, neighbours are
/// remembered together, so that trimming gets coarser.
const HANDED_MAX: usize = 4096;

/// Reads one lane in order and says how far it has been confirmed.
///
/// For threads: reading may touch the disk. A consumer is the only one of its name and lane; the
/// name is free again when it is dropped.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    place: usize,
    lane: Lane,
    /// Where the next segment begins.
    next: Seq,
    /// Segments read from the disk and not yet handed out.
    ahead: VecDeque<Arc<Segment>>,
    /// Segments handed out and not confirmed in full.
    handed: VecDeque<Handed>,
    progress: Progress,
}

/// One or more neighbouring segments that were handed out.
#[derive(Debug, Clone, Copy)]
struct Handed {
    end: Seq,
    bytes_after: u64,
}

impl Consumer {
    pub(super) fn claim(shared: &Arc<Shared>, name: &str, lane: Lane) -> Result<Self, Error> {
        let named = shared.slots_of(lane).find(|(_, slot)| slot.id.name == name);
        let Some((place, slot)) = named else {
            return Err(Error::UnknownConsumer { consumer: name.to_owned(), lane });
        };
        let Some(progress) = slot.claim() else {
            return Err(Error::ConsumerInUse { consumer: name.to_owned(), lane });
        };
        Ok(Self {
            shared: Arc::clone(shared),
            place,
            lane,
            next: progress.floor,
            ahead: VecDeque::new(),
            handed: VecDeque::new(),
            progress,
        })
    }

    /// The lane it reads.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
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
        self.follow_head();
        loop {
            let end = self.shared.lane(self.lane).next();
            if self.next >= end {
                return Ok(None);
            }
            if self.ahead.front().is_some_and(|segment| segment.first() == self.next) {
                break;
            }
            self.ahead.clear();
            if let Some(segment) = self.shared.tail.find(self.lane, self.next)
                && segment.first() == self.next
            {
                self.ahead.push_back(segment);
                break;
            }
            let behind = self.shared.pass_holes(self.lane, self.next);
            if behind > self.next {
                self.pass(behind);
                continue;
            }
            self.read(end, bytes_max)?;
            if self.ahead.is_empty() {
                return Ok(None);
            }
        }
        let Some(segment) = self.ahead.pop_front() else { return Ok(None) };
        self.next = segment.end();
        self.remember(&segment);
        Ok(Some(segment))
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
    /// dropped. Afterwards [`Self::try_next`] goes on at `below` or behind it.
    pub fn answer_drop(&self, below: Seq, unconfirmed: u64) {
        if let Some(slot) = self.shared.slots.get(self.place) {
            slot.answer_drop(DropAnswer { below, unconfirmed });
            self.shared.queue.set_timer(clock::now());
        }
    }

    /// Entries were let go: this consumer goes on where the lane begins now.
    fn follow_head(&mut self) {
        let Some(head) = self.shared.lane(self.lane).dropped_above(self.progress.floor) else { return };
        while self.handed.front().is_some_and(|handed| handed.end <= head.first) {
            self.handed.pop_front();
        }
        if self.next < head.first {
            self.next = head.first;
            self.ahead.clear();
        }
        self.progress.floor = head.first;
        self.progress.bytes_before = head.bytes_before;
        self.progress.low = self.progress.low.max(head.first);
        self.shared.progress_moved(self.place, &self.progress);
    }

    /// Goes on behind a hole.
    fn pass(&mut self, behind: Seq) {
        if self.handed.is_empty() && self.progress.low == self.next {
            // Nothing before it is open, so the hole is confirmed too.
            (self.progress.low, self.progress.floor) = (behind, behind);
            self.shared.progress_moved(self.place, &self.progress);
        }
        self.next = behind;
    }

    /// Goes back to the first position that is not confirmed.
    pub fn rewind(&mut self) {
        self.next = self.progress.floor;
        self.ahead.clear();
        self.handed.clear();
    }

    /// The first position not yet confirmed, and what was stored with it.
    #[must_use]
    pub fn progress(&self) -> (Seq, &[u8]) {
        (self.progress.low, &self.progress.state)
    }

    /// Everything below `low` is confirmed; `state` is kept with it for the next start. Becomes
    /// durable with the next group, or is written within 100 ms and synced when the outbox closes.
    /// After a crash an earlier progress may return, so that entries are read again.
    ///
    /// Never moves back: a lower `low` only replaces `state`. What was not handed out since opening
    /// or the last rewind cannot be confirmed.
    pub fn commit(&mut self, low: Seq, state: Vec<u8>) {
        if low > self.next && low > self.progress.low {
            tracing::error!(lane = %self.lane, low = low.0, next = self.next.0,
                "a consumer confirmed what it was not given");
        }
        let low = low.min(self.next).max(self.progress.low);
        while let Some(handed) = self.handed.front().copied().filter(|handed| handed.end <= low) {
            self.progress.floor = handed.end;
            self.progress.bytes_before = handed.bytes_after;
            self.handed.pop_front();
        }
        self.progress.low = low;
        self.progress.state = state;
        self.shared.progress_moved(self.place, &self.progress);
    }

    fn remember(&mut self, segment: &Segment) {
        let end = Handed { end: segment.end(), bytes_after: segment.header().bytes_after() };
        if self.handed.len() >= HANDED_MAX {
            self.handed.pop_back();
        }
        self.handed.push_back(end);
    }

    /// Reads segments that begin at `self.next` and below `end` from the store.
    fn read(&mut self, end: Seq, bytes_max: usize) -> Result<(), Error> {
        let store = self.shared.store.read();
        let Some(store) = store.as_deref() else {
            return if self.shared.queue.is_closed() { Err(Error::Closed) } else { Ok(()) };
        };
        self.shared.metrics.reads.increment(1);
        let (lane, ahead) = (self.lane, &mut self.ahead);
        let (mut due, mut bytes, mut problem) = (self.next, 0, None);
        let scanned = store.scan(lane, self.next, end, &mut |first, stored| {
            if first != due {
                problem = Some(Error::Gap { lane, expected: due, found: first });
                return ControlFlow::Break(());
            }
            match Segment::decode_at(lane, first, stored) {
                Ok(segment) => {
                    due = segment.end();
                    bytes += segment.memory();
                    ahead.push_back(Arc::new(segment));
                }
                Err(source) => problem = Some(Error::Damaged { lane, first, source }),
            }
            if problem.is_some() || bytes >= bytes_max {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if !ahead.is_empty() {
            // What is good is handed out first; the problem comes up again behind it.
            return Ok(());
        }
        if scanned.as_ref().err().is_none_or(|error| error.kind == StoreErrorKind::Corruption) {
            self.shared.report_damage(lane, due);
        }
        scanned.map_err(|source| Error::Store { lane, source })?;
        Err(problem.unwrap_or(Error::Gap { lane, expected: due, found: end }))
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
