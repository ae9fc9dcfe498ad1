//! One lane on its way out: its consumer, its tracker and the places where it is being read.
//!
//! A lane is read in two places at most: where live entries are, and where the backlog of a split is. Where a
//! reading goes on is the tracker's to say; a reading that is elsewhere moves there.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use penstock_proto::{Lane, Seq, Stream};

use super::backoff::Backoff;
use super::metrics::Metrics;
use super::route::Routes;
use super::share::Share;
use super::tracker::{ChainId, State, TopicId, Tracker, index};
use crate::outbox::{Completion, Consumer, Cursor, Encoded, Handle, Segment, Ticket};

/// Most bytes of segments asked for at once.
const SEGMENT_BYTES_MAX: usize = 1 << 20;

/// A lane's way out.
pub(crate) struct LaneFeed {
    pub(crate) lane: Lane,
    pub(crate) tracker: Tracker,
    consumer: Consumer,
    readings: [Reading; 2],
    /// What was given to the consumer last.
    committed: Seq,
    /// Whether anything worth saving happened since.
    dirty: bool,
    /// What must be durable before the lane goes on.
    awaited: Option<Awaited>,
    /// Whether a durable commit is to be tried again.
    owed: bool,
    /// After a read error, when to read again.
    resume_at: Option<Instant>,
    backoff: Backoff,
    /// When the last record of each topic was sent, for those that were sent something.
    sent_at: Vec<(TopicId, Instant)>,
    /// How live entries and backlog share what is sent.
    pub(crate) share: Share,
}

/// A place of the lane being read.
struct Reading {
    cursor: Cursor,
    segment: Option<Arc<Segment>>,
}

/// A commit on its way to the disk.
struct Awaited {
    ticket: Ticket,
    done: Arc<Completion>,
    /// An entry that leaves the lane with this commit.
    settled: Option<(ChainId, Seq)>,
}

/// How a durable commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There is none on its way.
    Nothing,
    /// It is not on the disk yet.
    Pending,
    /// It is durable; the seq of the entry that left the lane with it, if one did.
    Durable(Option<Seq>),
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
    pub(crate) fn open(
        outbox: &Handle,
        lane: Lane,
        routes: &Routes,
        share: u8,
    ) -> Result<Self, crate::outbox::Error> {
        let consumer = outbox.consumer(Self::CONSUMER, lane)?;
        let (low, stored) = consumer.progress();
        let state = State::decode(stored).unwrap_or_else(|error| {
            // Everything from `low` is sent again and chains begin anew; `verify` shows where.
            tracing::error!(%lane, %low, %error, "stored uplink progress cannot be read; sending from low");
            Metrics::bad_state();
            State::default()
        });
        let tracker = Tracker::new(routes.topics(), routes.fingerprint(), low, &state);
        let readings = [Stream::Live, Stream::Backlog].map(|stream| {
            let at = tracker.position(stream).unwrap_or(low);
            Reading { cursor: consumer.cursor(at), segment: None }
        });
        Ok(Self {
            lane,
            tracker,
            consumer,
            readings,
            committed: low,
            dirty: false,
            awaited: None,
            resume_at: None,
            backoff: Backoff::default(),
            owed: false,
            sent_at: Vec::new(),
            share: Share::new(share),
        })
    }

    /// Back to the last progress: the producer is gone with what it had in flight.
    pub(crate) fn restart(&mut self) {
        self.tracker.restart();
        self.readings.iter_mut().for_each(|reading| reading.segment = None);
    }

    /// The segment to send from and the position to begin with; `None` when there is nothing now.
    pub(crate) fn current(&mut self, stream: Stream, now: Instant) -> Option<(Arc<Segment>, Seq)> {
        let position = self.tracker.position(stream)?;
        let reading = &mut self.readings[index(stream)];
        if let Some(segment) = &reading.segment {
            if segment.first() <= position && position <= segment.last() {
                return Some((Arc::clone(segment), position));
            }
            reading.segment = None;
        }
        if self.resume_at.is_some_and(|at| now < at) {
            return None;
        }
        self.resume_at = None;
        if reading.cursor.position() != position {
            reading.cursor.seek(position);
        }
        match reading.cursor.try_next(SEGMENT_BYTES_MAX) {
            Ok(next) => {
                self.backoff.succeed();
                reading.segment = next;
            }
            Err(error) => self.pause(&error, now),
        }
        // It may begin above the position, where entries are gone.
        let segment = self.readings[index(stream)].segment.clone()?;
        Some((segment, position))
    }

    /// Whether everything read is dealt with.
    pub(crate) fn is_between_segments(&self) -> bool {
        self.readings.iter().all(|reading| reading.segment.is_none())
    }

    /// The segment being read is dealt with.
    pub(crate) fn finish_segment(&mut self, stream: Stream) {
        self.readings[index(stream)].segment = None;
    }

    /// Entries may be about to be let go: says how many of them are not confirmed.
    pub(crate) fn answer_drop_request(&self) {
        if let Some(below) = self.consumer.drop_request() {
            self.consumer.answer_drop(below, self.tracker.unconfirmed_below(below));
        }
    }

    pub(crate) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Gives the progress to the outbox if it changed.
    pub(crate) fn commit(&mut self) {
        let low = self.tracker.low();
        if self.is_waiting() || (!self.dirty && low == self.committed) {
            return;
        }
        let state = self.tracker.state().encode();
        self.consumer.commit(low, state);
        self.committed = low;
        self.dirty = false;
        Metrics::low(self.lane, low.0);
    }

    /// Gives the progress to the outbox and has [`Self::wait`] say when it is on the disk.
    ///
    /// With `outputs`, an entry leaves the lane: what becomes of it and the progress behind it are durable
    /// together or not at all. Returns `false` if the outbox takes nothing now; then nothing has changed, and a
    /// commit without outputs is tried again by [`Self::wait`].
    pub(crate) fn commit_durably(&mut self, outputs: &Encoded, settled: Option<(ChainId, Seq)>) -> bool {
        if let Some((chain, seq)) = settled {
            self.tracker.settle(chain, seq);
        }
        let low = self.tracker.low();
        let state = self.tracker.state().encode();
        let done = Arc::new(Completion::new());
        match self.consumer.commit_with(low, state, outputs, &done) {
            Ok(ticket) => {
                self.committed = low;
                self.dirty = false;
                self.awaited = Some(Awaited { ticket, done, settled });
                true
            }
            Err(refused) => {
                tracing::debug!(lane = %self.lane, %refused, "progress waits");
                match settled {
                    Some((chain, seq)) => self.tracker.unsettle(chain, seq),
                    None => self.owed = true,
                }
                false
            }
        }
    }

    /// Whether something must be durable before the lane goes on.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.owed || self.awaited.is_some()
    }

    /// Whether the last durable commit is on the disk. Never blocks.
    pub(crate) fn wait(&mut self) -> Waited {
        if std::mem::take(&mut self.owed) {
            self.commit_durably(&Encoded::default(), None);
            return Waited::Pending;
        }
        let Some(awaited) = &self.awaited else { return Waited::Nothing };
        let before = Ticket(awaited.ticket.0.saturating_sub(1));
        match awaited.done.poll_durable(before, &mut Context::from_waker(Waker::noop())) {
            Poll::Pending => return Waited::Pending,
            Poll::Ready(Ok(_)) => {
                let settled = awaited.settled.map(|(_, seq)| seq);
                self.awaited = None;
                return Waited::Durable(settled);
            }
            Poll::Ready(Err(_)) => {}
        }
        // The store is being opened again, and knows neither the progress nor what went with it.
        let settled = self.awaited.take().and_then(|awaited| awaited.settled);
        if let Some((chain, seq)) = settled {
            self.tracker.unsettle(chain, seq);
        }
        self.owed |= settled.is_none();
        Waited::Pending
    }

    /// Notes that records of a topic were sent.
    pub(crate) fn sent(&mut self, topic: TopicId, now: Instant) {
        match self.sent_at.iter_mut().find(|(known, _)| *known == topic) {
            Some((_, at)) => *at = now,
            None => self.sent_at.push((topic, now)),
        }
    }

    /// Closes the topics that got nothing since `before` and of which nothing is in flight, so that the next
    /// start need not look for what arrived there, let alone from where they were opened.
    pub(crate) fn close_quiet(&mut self, topics: impl Iterator<Item = TopicId>, before: Option<Instant>) {
        for topic in topics {
            let place = self.sent_at.iter().position(|(known, _)| *known == topic);
            let at = place.and_then(|place| self.sent_at.get(place));
            if before.is_none_or(|before| at.is_none_or(|(_, at)| *at <= before)) {
                self.dirty |= self.tracker.close(topic);
            }
        }
    }

    fn pause(&mut self, error: &crate::outbox::Error, now: Instant) {
        self.resume_at = Some(self.backoff.fail(now));
        Metrics::unreadable();
        let error = crate::supervise::chain(error);
        tracing::warn!(lane = %self.lane, error, "committed entries cannot be read; trying again");
    }
}
