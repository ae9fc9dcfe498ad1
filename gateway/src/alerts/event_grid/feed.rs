//! The lane as a sink reads it: twice, the critical events ahead of the others.

use std::sync::Arc;

use penstock_proto::Seq;

use super::batch::{Batch, Settled};
use super::config::BatchBounds;
use super::envelope::{Envelope, Unusable};
use super::progress::{Junk, Progress};
use crate::alerts::burial::Place;
use crate::alerts::durable::{self, Unsaved};
use crate::alerts::reaction::is_reaction;
use crate::outbox::{self, Consumer, Cursor, Encoded, Record, Segment};

/// Which of the two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Critical events, up to the end of the lane.
    Critical,
    /// The others, up to where the former came.
    Others,
}

/// What a reading found.
#[derive(Debug)]
pub(super) enum Found {
    /// It is at its end, for now.
    Nothing,
    /// Nothing to send so far; there may be more behind.
    Passed,
    /// Events to send.
    Batch(Batch),
    /// An entry that cannot be sent, and nothing before it.
    Unusable { seq: Seq, why: Unusable },
}

/// A consumer of the lane with its two readings.
pub(super) struct Feed {
    consumer: Consumer,
    critical: Reading,
    others: Reading,
    progress: Progress,
    /// What was given to the consumer last.
    saved: Progress,
}

/// A place of the lane being read.
struct Reading {
    cursor: Cursor,
    segment: Option<Arc<Segment>>,
    /// The first position not read.
    next: Seq,
}

/// Most bytes of segments asked for at once.
const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// Most segments that are looked through in one go; then the loop looks up.
const SEGMENTS_MAX: usize = 64;

// === impl Feed ===

impl Feed {
    /// # Errors
    ///
    /// When the outbox has no such consumer or it is in use. The flag says whether its progress could not be read, so that
    /// critical events may be sent again.
    pub(super) fn open(
        outbox: &outbox::Handle,
        id: &outbox::ConsumerId,
    ) -> Result<(Self, bool), outbox::Error> {
        let consumer = outbox.consumer(&id.name, id.lane)?;
        let (low, stored) = consumer.progress();
        let (progress, junk) = match Progress::decode(low, stored) {
            Ok(progress) => (progress, false),
            Err(Junk) => {
                tracing::error!(lane = %id.lane, %low, error = %Junk, "stored progress cannot be read; sending from low");
                (Progress::at(low), true)
            }
        };
        let reading = |next| Reading { cursor: consumer.cursor(next), segment: None, next };
        let (critical, others) = (reading(progress.ahead), reading(progress.low));
        Ok((Self { critical, others, progress, saved: progress, consumer }, junk))
    }

    pub(super) const fn progress(&self) -> Progress {
        self.progress
    }

    /// The next events of a reading.
    pub(super) fn read(
        &mut self,
        priority: Priority,
        envelope: &Envelope,
        bounds: BatchBounds,
    ) -> Result<Found, outbox::Error> {
        self.progress.raise(self.consumer.progress().0);
        let (reading, end) = match priority {
            Priority::Critical => (&mut self.critical, Seq(u64::MAX)),
            Priority::Others => (&mut self.others, self.progress.ahead),
        };
        let start = match priority {
            Priority::Critical => self.progress.ahead,
            Priority::Others => self.progress.low,
        };
        if reading.next < start {
            reading.seek(start);
        }
        let found = reading.fill(priority, envelope, bounds, end)?;
        match found {
            // It came forward without finding anything.
            Found::Batch(batch) if batch.is_empty() => {
                let settled = batch.next_settled();
                self.progress = self.with(priority, settled);
                Ok(if settled.position > start { Found::Passed } else { Found::Nothing })
            }
            found => Ok(found),
        }
    }

    /// The progress when this is dealt with too.
    pub(super) fn with(&self, priority: Priority, settled: Settled) -> Progress {
        let Settled { position, events, passed } = settled;
        let mut progress = self.progress;
        match priority {
            Priority::Critical => {
                progress.ahead = progress.ahead.max(position);
                progress.beyond += events;
            }
            Priority::Others => {
                progress.beyond = progress.beyond.saturating_sub(passed);
                progress.raise(position);
            }
        }
        progress
    }

    /// Gives the progress to the outbox, if it changed, to be written with the next group.
    pub(super) fn save(&mut self) {
        if self.progress != self.saved {
            self.consumer.commit(self.progress.low, self.progress.encode());
            self.saved = self.progress;
        }
    }

    /// Makes `progress` durable in one batch with `outputs`. Blocks until it is, or it is known that it is not, or for as
    /// long as `wait` says.
    pub(super) fn save_durably(
        &mut self,
        progress: Progress,
        outputs: &Encoded,
        wait: impl FnMut() -> bool,
    ) -> Result<(), Unsaved> {
        durable::save(&mut self.consumer, (progress.low, progress.encode()), outputs, wait)?;
        (self.progress, self.saved) = (progress, progress);
        Ok(())
    }

    /// Entries may be about to be let go: says how many of them are not dealt with.
    pub(super) fn answer_drop_request(&self) {
        if let Some(below) = self.consumer.drop_request() {
            self.consumer.answer_drop(below, self.progress.open_below(below));
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
        Ok(records
            .next()
            .filter(|(found, _)| *found == seq)
            .map(|(_, record)| look(Place::of(&segment), &record)))
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("progress", &self.progress).finish_non_exhaustive()
    }
}

// === impl Reading ===

impl Reading {
    fn seek(&mut self, to: Seq) {
        self.next = to;
        if !self.segment.as_ref().is_some_and(|segment| (segment.first()..=segment.last()).contains(&to)) {
            self.segment = None;
            self.cursor.seek(to);
        }
    }

    /// Reads on below `end` until a batch is full. An empty batch may have come forward.
    fn fill(
        &mut self,
        priority: Priority,
        envelope: &Envelope,
        bounds: BatchBounds,
        end: Seq,
    ) -> Result<Found, outbox::Error> {
        let start = self.next;
        let mut batch = Batch::new(start);
        for _ in 0..SEGMENTS_MAX {
            if self.next >= end {
                break;
            }
            let Some(segment) = self.segment(&batch)? else { break };
            if segment.first() > self.next {
                // What stood between is gone.
                self.next = segment.first();
                batch.skip_to(self.next);
            }
            for (seq, record) in segment.records_from(self.next).take_while(|(seq, _)| *seq < end) {
                if is_reaction(&record) {
                    // Others carry it out.
                    batch.pass(seq, false);
                    self.next = seq.next();
                    continue;
                }
                if envelope.is_critical(&record) != (priority == Priority::Critical) {
                    batch.pass(seq, priority == Priority::Others);
                    self.next = seq.next();
                    continue;
                }
                match envelope.event(Place::of(&segment), seq, &record) {
                    Ok(event) if batch.has_room(event.len(), bounds) => {
                        batch.push(seq, event, record.received_ms);
                    }
                    Err(why) if self.next == start => return Ok(Found::Unusable { seq, why }),
                    Ok(_) | Err(_) => return Ok(Found::Batch(batch)),
                }
                self.next = seq.next();
            }
        }
        Ok(Found::Batch(batch))
    }

    /// The segment that holds the next position. An error waits until what was read before is sent.
    fn segment(&mut self, batch: &Batch) -> Result<Option<Arc<Segment>>, outbox::Error> {
        if let Some(segment) = self.segment.as_ref().filter(|segment| segment.last() >= self.next) {
            return Ok(Some(Arc::clone(segment)));
        }
        if self.cursor.position() != self.next {
            self.cursor.seek(self.next);
        }
        match self.cursor.try_next(SEGMENT_BYTES_MAX) {
            Ok(segment) => self.segment = segment,
            Err(error) if batch.is_empty() => return Err(error),
            Err(_) => self.segment = None,
        }
        Ok(self.segment.clone())
    }
}
