//! Reads one lane from a position to its end and tells apart what is there, what is known to be
//! gone, and what is wrong.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use penstock_proto::{Lane, Seq};

use super::super::config::BodyCodec;
use super::super::error::StoreError;
use super::super::segment::{Header, Segment, SegmentError};
use super::Error;
use super::snapshot::{Hole, LaneView, Snapshot};

/// Read from the database at once; processed without an iterator in hand.
const CHUNK_BYTES: usize = 4 << 20;
/// So often damage is looked at twice; by then it is plain that a lane is badly damaged, and opening
/// again for each segment would take hours.
const DOUBTS_MAX: u32 = 16;
/// After this long a new snapshot lets go of files that the gateway deleted.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(30);

/// A lane, read in order up to where it ended when the walk began.
#[derive(Debug)]
pub struct Walk<'a> {
    snapshot: &'a mut Snapshot,
    lane: Lane,
    /// The position expected next.
    due: Seq,
    below: Seq,
    ahead: VecDeque<(Seq, Vec<u8>)>,
    /// The reading of `ahead` ended with this.
    failed: Option<StoreError>,
    /// A damaged segment whose end is not known yet.
    damaged: Option<(Seq, SegmentError)>,
    /// Where a new snapshot was taken because something looked wrong.
    doubted: Option<Seq>,
    /// How often it looked the same in the new snapshot.
    confirmed: u32,
    found: VecDeque<Found>,
    ended: bool,
}

/// What stands at some positions.
#[derive(Debug)]
pub enum Found {
    /// A segment, checked in full.
    Segment(Stored),
    /// Positions that are known to be gone, as far as they were met.
    Hole {
        /// The first one.
        first: Seq,
        /// The first position after it.
        end: Seq,
        /// What is known.
        hole: Hole,
    },
    /// Positions that should be there and are not, or cannot be read.
    Bad {
        /// The first one.
        first: Seq,
        /// The first position after it.
        end: Seq,
        /// What is wrong.
        reason: Reason,
    },
}

/// What is wrong with positions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No segment holds them.
    #[error("missing")]
    Missing,
    /// The segment that begins here is damaged.
    #[error("damaged: {0}")]
    Damaged(SegmentError),
    /// The database cannot read them.
    #[error("unreadable: {0}")]
    Unreadable(StoreError),
    /// A segment begins here though an earlier one holds these positions too.
    #[error("held by two segments")]
    Twice,
}

/// A segment and how it is stored.
#[derive(Debug)]
pub struct Stored {
    /// The segment.
    pub segment: Segment,
    /// Bytes of header and stored body.
    pub stored_bytes: usize,
    /// How the body is stored.
    pub codec: BodyCodec,
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// Reads `lane` from the segment that holds `from`; `None` reads it from its head.
    #[must_use]
    pub fn new(snapshot: &'a mut Snapshot, lane: Lane, from: Option<Seq>) -> Self {
        let (head, below) = (snapshot.lane(lane).head(), snapshot.lane(lane).next);
        let due = from.map_or(head, |from| snapshot.key_at(lane, from.max(head)));
        Self {
            snapshot,
            lane,
            due,
            below,
            ahead: VecDeque::new(),
            failed: None,
            damaged: None,
            doubted: None,
            confirmed: 0,
            found: VecDeque::new(),
            ended: false,
        }
    }

    /// The snapshot that was taken last.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        self.snapshot
    }

    /// What comes next, or `None` at the end. What the gateway trimmed since the walk began is
    /// passed over.
    ///
    /// # Errors
    ///
    /// When a new snapshot cannot be taken.
    pub fn step(&mut self) -> Result<Option<Found>, Error> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok(Some(found));
            }
            if self.ended {
                return Ok(None);
            }
            self.advance()?;
        }
    }

    fn advance(&mut self) -> Result<(), Error> {
        if let Some(hole) = self.view().hole_at(self.due).filter(|_| self.due < self.below) {
            self.pass_over(hole.end.min(self.below));
            self.ahead.retain(|(key, _)| *key >= hole.end);
            return Ok(());
        }
        let Some((key, stored)) = self.ahead.pop_front() else { return self.fill() };
        if key != self.due {
            if self.damaged.is_none() && self.doubt()? {
                return Ok(());
            }
            if key < self.due {
                self.bad(key, self.due, Reason::Twice);
            }
            self.pass_over(key);
        }
        self.end_damaged(key);
        match Stored::decode(self.lane, key, &stored) {
            Ok(stored) => {
                self.due = self.due.max(stored.segment.end());
                self.found.push_back(Found::Segment(stored));
            }
            Err(reason) => {
                if !self.doubt()? {
                    self.damaged = Some((key, reason));
                    self.due = self.due.max(key.next());
                }
            }
        }
        Ok(())
    }

    /// Reads on, at the end of what was read.
    fn fill(&mut self) -> Result<(), Error> {
        if self.due >= self.below {
            self.finish();
            return Ok(());
        }
        if self.snapshot.age() > SNAPSHOT_AGE_MAX {
            self.renew()?;
        }
        if self.failed.is_none() {
            self.read();
        }
        if !self.ahead.is_empty() {
            return Ok(());
        }
        if self.due >= self.below || (self.damaged.is_none() && self.doubt()?) {
            return Ok(());
        }
        match self.failed.take() {
            None => self.finish(),
            Some(error) => {
                let (from, to) = (self.due, self.readable_after(self.due));
                self.end_damaged(from);
                self.bad(from, to, Reason::Unreadable(error));
                self.due = to;
            }
        }
        Ok(())
    }

    fn read(&mut self) {
        let (ahead, mut bytes) = (&mut self.ahead, 0);
        let scanned = self.snapshot.store.scan(self.lane, self.due, self.below, &mut |key, stored| {
            bytes += stored.len();
            ahead.push_back((key, stored.to_vec()));
            if bytes < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.failed = scanned.err();
    }

    /// Takes a new snapshot if what was met at this position is not confirmed by one yet. Returns
    /// whether it did, so that the position is looked at again.
    fn doubt(&mut self) -> Result<bool, Error> {
        if self.doubted == Some(self.due) {
            self.confirmed += 1;
            return Ok(false);
        }
        if self.confirmed >= DOUBTS_MAX {
            return Ok(false);
        }
        self.doubted = Some(self.due);
        self.renew()?;
        Ok(true)
    }

    fn renew(&mut self) -> Result<(), Error> {
        self.snapshot.reopen()?;
        self.ahead.clear();
        self.failed = None;
        // What was trimmed meanwhile is nobody's loss.
        self.due = self.due.max(self.view().head()).min(self.below);
        Ok(())
    }

    /// Tells what is missing before `to`, and goes on there.
    fn pass_over(&mut self, to: Seq) {
        let holed = self.view().hole_at(self.due).map_or(to, |_| self.due);
        let known = self.view().hole_after(self.due).map_or(to, |hole| hole.first.min(to));
        let mut from = self.end_damaged(holed.min(known)).max(self.due);
        while from < to {
            let end = match self.view().hole_at(from) {
                Some(hole) => {
                    let end = hole.end.min(to);
                    self.found.push_back(Found::Hole { first: from, end, hole });
                    end
                }
                None => {
                    let end = self.view().hole_after(from).map_or(to, |hole| hole.first.min(to));
                    self.bad(from, end, Reason::Missing);
                    end
                }
            };
            from = end;
        }
        self.due = self.due.max(to);
    }

    /// Tells about a damaged segment that ends at `end` at the latest; returns where it ended.
    fn end_damaged(&mut self, end: Seq) -> Seq {
        let Some((first, reason)) = self.damaged.take() else { return Seq::ZERO };
        self.bad(first, end.max(first.next()), Reason::Damaged(reason));
        end
    }

    fn bad(&mut self, first: Seq, end: Seq, reason: Reason) {
        self.found.push_back(Found::Bad { first, end, reason });
    }

    fn finish(&mut self) {
        self.pass_over(self.below);
        self.ended = true;
    }

    /// The first position behind `bad` at which something can be read, or the end. Keys are looked
    /// for at growing distances, then in between.
    fn readable_after(&self, bad: Seq) -> Seq {
        let (mut unreadable, mut step) = (bad.0, 1_u64);
        let mut readable = loop {
            let at = bad.0.saturating_add(step);
            if at >= self.below.0 {
                break self.below.0;
            }
            if self.probe(at).is_some() {
                break at;
            }
            (unreadable, step) = (at, step.saturating_mul(2));
        };
        while readable - unreadable > 1 {
            let middle = unreadable + (readable - unreadable) / 2;
            if self.probe(middle).is_some() {
                readable = middle;
            } else {
                unreadable = middle;
            }
        }
        self.probe(readable).unwrap_or(self.below)
    }

    /// The first segment at or above `from`, or the end if there is none; `None` if it cannot be read.
    fn probe(&self, from: u64) -> Option<Seq> {
        let mut key = self.below;
        let scanned = self.snapshot.store.scan(self.lane, Seq(from), self.below, &mut |first, _| {
            key = first;
            ControlFlow::Break(())
        });
        scanned.is_ok().then_some(key)
    }

    fn view(&self) -> &LaneView {
        self.snapshot.lane(self.lane)
    }
}

// === impl Stored ===

impl Stored {
    fn decode(lane: Lane, key: Seq, stored: &[u8]) -> Result<Self, SegmentError> {
        let segment = Segment::decode_at(lane, key, stored)?;
        let (_, codec, _) = Header::read(stored)?;
        Ok(Self { segment, stored_bytes: stored.len(), codec })
    }

    /// Bytes of all bodies of the lane before this one, uncompressed.
    #[must_use]
    pub const fn bytes_before(&self) -> u64 {
        self.segment.header().bytes_before
    }
}
