//! Cursors: independent reading positions of one lane.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use super::error::{Error, StoreError, StoreErrorKind};
use super::segment::{Header, Segment};
use super::shared::Shared;
use super::store::Store;
use super::trail::Trail;

/// A reading position in a consumer's lane; see [`super::Consumer::cursor`].
///
/// For threads: reading may touch the disk. What it hands out may be confirmed through its consumer.
/// Below what the consumer has confirmed entries are deleted, and a cursor goes on behind them.
#[derive(Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    place: usize,
    lane: Lane,
    trail: Arc<Mutex<Trail>>,
    next: Seq,
    /// Whether a segment is known to begin at `next`.
    aligned: bool,
    /// Segments read from the disk and not yet handed out.
    ahead: VecDeque<Arc<Segment>>,
}

impl Cursor {
    pub(super) fn new(
        shared: &Arc<Shared>,
        place: usize,
        lane: Lane,
        trail: &Arc<Mutex<Trail>>,
        at: Seq,
    ) -> Self {
        let mut cursor = Self {
            shared: Arc::clone(shared),
            place,
            lane,
            trail: Arc::clone(trail),
            next: at,
            aligned: false,
            ahead: VecDeque::new(),
        };
        cursor.seek(at);
        cursor
    }

    /// The lane it reads.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// The first position that was not handed out, or where it was sent last.
    #[must_use]
    pub const fn position(&self) -> Seq {
        self.next
    }

    /// Goes to `to`, which may lie within a segment, ahead or back, but not below the segments that
    /// its consumer still needs: then it goes to the first of them.
    pub fn seek(&mut self, to: Seq) {
        let floor = self.shared.slots.get(self.place).map_or(Seq::ZERO, |slot| slot.position().1.first);
        let to = to.max(floor);
        while self.ahead.front().is_some_and(|segment| segment.end() <= to) {
            self.ahead.pop_front();
        }
        if self.ahead.front().is_some_and(|segment| segment.first() > to) {
            self.ahead.clear();
        }
        self.next = to;
        self.aligned = false;
        self.trail.lock().reach(to.min(self.shared.lane(self.lane).next()));
    }

    /// The next committed segment, or `None` if there is none yet: wait with
    /// [`super::Handle::wait_commit`]. Also `None` while a failed store is opened again.
    ///
    /// The first segment after [`Self::seek`] is the one that holds the position and may begin below
    /// it: skip what stands before.
    ///
    /// A read from the disk fetches segments of up to `bytes_max` bytes, at least one, and hands
    /// them out one by one. What is known to be gone is passed over.
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
            match self.ahead.pop_front() {
                Some(segment) if segment.holds(self.next) => return Ok(Some(self.hand_out(segment))),
                _ => self.ahead.clear(),
            }
            if let Some(segment) = self.shared.tail.find(self.lane, self.next) {
                return Ok(Some(self.hand_out(segment)));
            }
            let behind = self.shared.pass_holes(self.lane, self.next);
            if behind > self.next {
                self.shared.hole_passed(self.place, self.next, behind);
                (self.next, self.aligned) = (behind, true);
                continue;
            }
            self.read(end, bytes_max)?;
            if self.ahead.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Entries were deleted or let go: it goes on where the lane begins now.
    fn follow_head(&mut self) {
        let head = self.shared.lane(self.lane).reclaimable();
        if self.next < head {
            (self.next, self.aligned) = (head, true);
            self.ahead.clear();
        }
    }

    fn hand_out(&mut self, segment: Arc<Segment>) -> Arc<Segment> {
        (self.next, self.aligned) = (segment.end(), true);
        self.trail.lock().note(&segment);
        segment
    }

    /// Reads segments from the one that holds `self.next` and below `end` from the store.
    fn read(&mut self, end: Seq, bytes_max: usize) -> Result<(), Error> {
        let store = self.shared.store.read();
        let Some(store) = store.as_deref() else {
            return if self.shared.queue.is_closed() { Err(Error::Closed) } else { Ok(()) };
        };
        self.shared.metrics.reads.increment(1);
        let lane = self.lane;
        let from = self.beginning(store).map_err(|source| Error::Store { lane, source })?;
        let ahead = &mut self.ahead;
        let (mut due, mut bytes, mut problem) = (from, 0, None);
        let scanned = store.scan(lane, from, end, &mut |first, stored| {
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

    /// Where the segment begins that holds `self.next`; `self.next` itself if none does.
    fn beginning(&self, store: &dyn Store) -> Result<Seq, StoreError> {
        if self.aligned {
            return Ok(self.next);
        }
        let head = self.shared.lane(self.lane).reclaimable();
        let mut beginning = self.next;
        store.scan_back(self.lane, self.next, &mut |first, stored| {
            let known = first >= head && self.shared.pass_holes(self.lane, first) == first;
            // One that cannot be read may be the one: reading it tells what is wrong.
            if known && Header::read(stored).map_or(true, |(header, ..)| header.end() > self.next) {
                beginning = first;
            }
            ControlFlow::Break(())
        })?;
        Ok(beginning)
    }
}
