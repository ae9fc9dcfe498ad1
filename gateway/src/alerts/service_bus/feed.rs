//! The lane as this sink reads it: once, in order, passing over what is for others.

use std::sync::Arc;

use penstock_proto::Seq;

use super::posting::{Letter, Whose};
use super::window::Window;
use crate::alerts::burial::{Place, Reason};
use crate::alerts::durable::{self, Unsaved};
use crate::outbox::{self, Consumer, Cursor, Encoded, Record, Segment};

/// A consumer of the lane.
pub(super) struct Feed {
    consumer: Consumer,
    cursor: Cursor,
    segment: Option<Arc<Segment>>,
    /// Up to where the outbox was told that everything is dealt with.
    saved: Seq,
}

/// What stopped the reading.
#[derive(Debug)]
pub(super) enum Stop {
    /// The end of the lane, for now.
    End,
    /// There is no more room in the window, or much was looked at; there may be more behind.
    Enough,
    /// A command that cannot be sent, with nothing in hand before it.
    Unsendable { seq: Seq, reason: Reason, expires_ms: u64 },
}

/// Most bytes of segments asked for at once.
const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// Most segments that are looked through in one go; then the loop looks up.
const SEGMENTS_MAX: usize = 64;

impl Feed {
    /// # Errors
    ///
    /// When there is no such consumer or it is in use.
    pub(super) fn open(outbox: &outbox::Handle, id: &outbox::ConsumerId) -> Result<Self, outbox::Error> {
        let consumer = outbox.consumer(&id.name, id.lane)?;
        let (low, _) = consumer.progress();
        Ok(Self { cursor: consumer.cursor(low), consumer, segment: None, saved: low })
    }

    /// The first position that is not dealt with, as the outbox was told.
    pub(super) const fn saved(&self) -> Seq {
        self.saved
    }

    /// Reads on until the window is full. `nobodys` is told of commands that nobody sends.
    pub(super) fn fill(
        &mut self,
        window: &mut Window,
        whose: impl Fn(&str) -> Whose,
        mut nobodys: impl FnMut(Seq, &'static str),
    ) -> Result<Stop, outbox::Error> {
        window.pass(self.consumer.progress().0);
        for _ in 0..SEGMENTS_MAX {
            if !window.has_room(0) {
                return Ok(Stop::Enough);
            }
            let Some(segment) = self.segment(window.next())? else { return Ok(Stop::End) };
            // What stood between is gone.
            window.pass(segment.first());
            for (seq, record) in segment.records_from(window.next()) {
                match Letter::open(&record, &whose) {
                    Letter::NotOurs => window.pass(seq.next()),
                    Letter::Nobodys(reason) => {
                        nobodys(seq, reason);
                        window.pass(seq.next());
                    }
                    Letter::Posting(posting) if window.has_room(posting.bytes()) => {
                        window.push(seq, *posting);
                    }
                    Letter::Unsendable(reason, expires_ms) if window.is_empty() => {
                        return Ok(Stop::Unsendable { seq, reason, expires_ms });
                    }
                    Letter::Posting(_) | Letter::Unsendable(..) => return Ok(Stop::Enough),
                }
            }
        }
        Ok(Stop::Enough)
    }

    /// Tells the outbox that everything below `low` is dealt with; written with the next group.
    pub(super) fn save(&mut self, low: Seq) {
        if low > self.saved {
            self.consumer.commit(low, Vec::new());
            self.saved = low;
        }
    }

    /// The same, in one batch with `outputs`, and durable on return. Blocks for as long as `wait` says.
    pub(super) fn save_durably(
        &mut self,
        low: Seq,
        outputs: &Encoded,
        wait: impl FnMut() -> bool,
    ) -> Result<(), Unsaved> {
        durable::save(&mut self.consumer, (low, Vec::new()), outputs, wait)?;
        self.saved = low;
        Ok(())
    }

    /// Entries may be about to be let go: says how many of them are not dealt with.
    pub(super) fn answer_drop_request(&self, low: Seq) {
        if let Some(below) = self.consumer.drop_request() {
            self.consumer.answer_drop(below, below.0.saturating_sub(low.0));
        }
    }

    /// Looks at one entry again.
    pub(super) fn look<T>(
        &self,
        seq: Seq,
        look: impl FnOnce(Place, &Record<'_>) -> T,
    ) -> Result<Option<T>, outbox::Error> {
        let Some(segment) = self.consumer.cursor(seq).try_next(SEGMENT_BYTES_MAX)? else { return Ok(None) };
        let mut records = segment.records_from(seq);
        let found = records.next().filter(|(found, _)| *found == seq);
        Ok(found.map(|(_, record)| look(Place::of(&segment), &record)))
    }

    /// The segment that holds the next position.
    fn segment(&mut self, next: Seq) -> Result<Option<Arc<Segment>>, outbox::Error> {
        if let Some(segment) = self.segment.as_ref().filter(|segment| segment.last() >= next) {
            return Ok(Some(Arc::clone(segment)));
        }
        if self.cursor.position() != next {
            self.cursor.seek(next);
        }
        self.segment = self.cursor.try_next(SEGMENT_BYTES_MAX)?;
        Ok(self.segment.clone())
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("saved", &self.saved).finish_non_exhaustive()
    }
}
