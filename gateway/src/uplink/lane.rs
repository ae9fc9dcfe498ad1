//! One lane on its way out: its consumer, its tracker and the segment being sent.

use std::sync::Arc;
use std::time::Instant;

use penstock_proto::{Lane, Seq};

use super::backoff::Backoff;
use super::metrics::Metrics;
use super::route::Routes;
use super::tracker::{State, Tracker};
use crate::outbox::{Consumer, Handle, Segment};

/// Most bytes of segments asked for at once.
const SEGMENT_BYTES_MAX: usize = 1 << 20;

/// A lane's way out.
pub(crate) struct LaneFeed {
    pub(crate) lane: Lane,
    pub(crate) tracker: Tracker,
    consumer: Consumer,
    current: Option<Cursor>,
    /// What was given to the consumer last.
    committed: Seq,
    /// Whether a confirmation came since.
    dirty: bool,
    /// After a read error, when to read again.
    resume_at: Option<Instant>,
    backoff: Backoff,
}

/// A place in a segment.
struct Cursor {
    segment: Arc<Segment>,
    /// Records of it that are dealt with.
    done: usize,
}

impl std::fmt::Debug for LaneFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneFeed")
            .field("lane", &self.lane)
            .field("low", &self.tracker.low())
            .finish_non_exhaustive()
    }
}

impl LaneFeed {
    /// The consumer's name in the outbox.
    pub(crate) const CONSUMER: &'static str = "uplink";

    /// # Errors
    ///
    /// When the outbox has no such consumer or it is in use.
    pub(crate) fn open(outbox: &Handle, lane: Lane, routes: &Routes) -> Result<Self, crate::outbox::Error> {
        let consumer = outbox.consumer(Self::CONSUMER, lane)?;
        let (low, stored) = consumer.progress();
        let state = State::decode(stored).unwrap_or_else(|error| {
            // Everything from `low` is sent again and chains begin anew; `verify` shows where.
            tracing::error!(%lane, %low, %error, "stored uplink progress cannot be read; sending from low");
            Metrics::bad_state();
            State::default()
        });
        let tracker = Tracker::new(routes.topics(), routes.fingerprint(), low, &state);
        Ok(Self {
            lane,
            tracker,
            consumer,
            current: None,
            committed: low,
            dirty: false,
            resume_at: None,
            backoff: Backoff::default(),
        })
    }

    /// Back to the last progress: the producer is gone with what it had in flight.
    pub(crate) fn restart(&mut self) {
        self.consumer.rewind();
        self.tracker.restart();
        self.current = None;
    }

    /// The segment to send from and how many of its records are dealt with; `None` when there is none now.
    pub(crate) fn current(&mut self, now: Instant) -> Option<(Arc<Segment>, usize)> {
        self.answer_drop_request();
        if self.current.is_none() {
            if self.resume_at.is_some_and(|at| now < at) {
                return None;
            }
            self.resume_at = None;
            match self.consumer.try_next(SEGMENT_BYTES_MAX) {
                Ok(next) => {
                    self.backoff.succeed();
                    self.current = next.map(|segment| Cursor { segment, done: 0 });
                }
                Err(error) => self.pause(&error, now),
            }
        }
        self.current.as_ref().map(|cursor| (Arc::clone(&cursor.segment), cursor.done))
    }

    /// Entries are about to be let go: says how many of them are not confirmed.
    fn answer_drop_request(&self) {
        if let Some(below) = self.consumer.drop_request() {
            self.consumer.answer_drop(below, self.tracker.unconfirmed_below(below));
        }
    }

    /// Notes that `done` records of the current segment are dealt with.
    pub(crate) fn advance(&mut self, done: usize) {
        let Some(cursor) = &mut self.current else { return };
        cursor.done = done;
        if u32::try_from(done).is_ok_and(|done| done >= cursor.segment.count()) {
            self.current = None;
        }
    }

    /// Whether everything read is dealt with.
    pub(crate) const fn is_between_segments(&self) -> bool {
        self.current.is_none()
    }

    pub(crate) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Gives the progress to the outbox if it changed.
    pub(crate) fn commit(&mut self) {
        let low = self.tracker.low();
        if !self.dirty && low == self.committed {
            return;
        }
        self.consumer.commit(low, self.tracker.state().encode());
        self.committed = low;
        self.dirty = false;
        Metrics::low(self.lane, low.0);
    }

    fn pause(&mut self, error: &crate::outbox::Error, now: Instant) {
        self.resume_at = Some(self.backoff.fail(now));
        Metrics::unreadable();
        let error = crate::supervise::chain(error);
        tracing::warn!(lane = %self.lane, error, "committed entries cannot be read; trying again");
    }
}
