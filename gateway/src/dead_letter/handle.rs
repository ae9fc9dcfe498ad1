//! What an operator may do about dead letters: send them again, or let them go.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{GatewayId, Lane, Seq};

use super::letter::Letter;
use super::metrics::Metrics;
use super::{CONSUMER, event};
use crate::outbox::{self, CommitFailed, Completion, Consumer, Encoded, Refused, Segment};
use crate::supervise::clock;

/// Letters that go back together take about this much.
const BATCH_BYTES: usize = 1 << 20;
/// Longest wait for a batch to be durable.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The dead letters of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Desk>);

#[derive(Debug)]
struct Desk {
    gateway: GatewayId,
    outbox: outbox::Handle,
    /// One operator at a time.
    consumer: Mutex<Consumer>,
    metrics: Metrics,
}

/// How many letters wait, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Letters that were neither retried nor discarded.
    pub entries: u64,
    /// Their bytes, counted by whole segments.
    pub bytes: u64,
    /// When the oldest was stored, in Unix milliseconds; up to a second old.
    pub oldest_ms: Option<u64>,
}

/// Which letters: from the oldest one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// All that are there now.
    All,
    /// Those up to this position in lane `dead`.
    Seq(Seq),
}

/// What was done, durably.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Positions in lane `dead` that are dealt with.
    pub entries: u64,
}

/// Something could not be done to the end.
#[derive(Debug, thiserror::Error)]
#[error("{} dead letters were dealt with, and then it could not go on", done.entries)]
pub struct Error {
    /// What was done before.
    pub done: Outcome,
    /// Why it could not go on.
    #[source]
    pub reason: Reason,
}

/// Why letters cannot be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The outbox takes nothing in now; later it will.
    #[error("nothing can be stored now")]
    Refused(#[source] Refused),
    /// What is stored cannot be read.
    #[error("the dead letters cannot be read")]
    Unreadable(#[source] outbox::Error),
    /// The outbox is being opened again or closed.
    #[error("the outbox cannot be read now")]
    Away,
    /// An entry of lane `dead` that does not say where it belongs; it can be exported and discarded.
    #[error("entry {0} of lane dead does not say which lane it came from: export and discard it")]
    NoLetter(Seq),
    /// The write failed: it was not done.
    #[error("the write failed")]
    Failed(#[source] CommitFailed),
    /// The write takes too long: whether it was done shows when the outbox is well again.
    #[error("the write has not come to an end; look again when the outbox is well")]
    Undecided,
}

impl Handle {
    /// Takes the consumer of lane `dead`.
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with [`super::consumer`], or it is in use.
    pub fn open(gateway: GatewayId, outbox: &outbox::Handle) -> Result<Self, outbox::Error> {
        let consumer = Mutex::new(outbox.consumer(CONSUMER, Lane::Dead)?);
        let outbox = outbox.clone();
        Ok(Self(Arc::new(Desk { gateway, outbox, consumer, metrics: Metrics::new() })))
    }

    /// How many letters wait. Does not touch the disk.
    #[must_use]
    pub fn status(&self) -> Status {
        let lanes = self.0.outbox.status().lanes;
        let dead = Lane::Dead.pick(&lanes);
        Status { entries: dead.backlog_messages, bytes: dead.backlog_bytes, oldest_ms: dead.oldest_ms }
    }

    /// Puts letters back into the lanes they came from, as new entries at their ends. Blocks until
    /// that is durable.
    ///
    /// # Errors
    ///
    /// When it could not be done to the end; what was done before counts.
    pub fn retry(&self, through: Through) -> Result<Outcome, Error> {
        let mut consumer = self.0.consumer.lock();
        consumer.rewind();
        let mut done = Outcome::default();
        match self.0.retry(&mut consumer, self.0.end(through), &mut done) {
            Ok(()) => Ok(done),
            Err(reason) => Err(Error { done, reason }),
        }
    }

    /// Lets letters go for good. A loss record in lane `status` lists them. Blocks until that is
    /// durable.
    ///
    /// # Errors
    ///
    /// When nothing was done.
    pub fn discard(&self, through: Through) -> Result<Outcome, Error> {
        let mut consumer = self.0.consumer.lock();
        consumer.rewind();
        let (first, end) = (consumer.progress().0, self.0.end(through));
        let Some(last) = end.0.checked_sub(1).map(Seq).filter(|last| *last >= first) else {
            return Ok(Outcome::default());
        };
        let mut outputs = Encoded::default();
        event::discarded((&self.0.gateway, self.0.outbox.log()), (first, last), &mut outputs);
        // A consumer confirms what it was sent past, read or not.
        drop(consumer.cursor(end));
        let done = Outcome { entries: end.0 - first.0 };
        match self.0.commit(&mut consumer, end, &outputs) {
            Ok(()) => {
                self.0.metrics.discarded.increment(done.entries);
                tracing::info!(first = first.0, last = last.0, "dead letters were discarded");
                Ok(done)
            }
            Err(reason) => Err(Error { done: Outcome::default(), reason }),
        }
    }
}

impl Desk {
    /// The position behind the letters that are meant.
    fn end(&self, through: Through) -> Seq {
        let next = Lane::Dead.pick(&self.outbox.status().lanes).next;
        match through {
            Through::All => next,
            Through::Seq(last) => Seq(last.0.saturating_add(1)).min(next),
        }
    }

    fn retry(&self, consumer: &mut Consumer, end: Seq, done: &mut Outcome) -> Result<(), Reason> {
        while consumer.progress().0 < end {
            match consumer.try_next(BATCH_BYTES).map_err(Reason::Unreadable)? {
                Some(segment) => self.retry_segment(consumer, &segment, end, done)?,
                // What is left of them is known to be gone.
                None if consumer.progress().0 >= end => return Ok(()),
                None => return Err(Reason::Away),
            }
        }
        Ok(())
    }

    fn retry_segment(
        &self,
        consumer: &mut Consumer,
        segment: &Segment,
        end: Seq,
        done: &mut Outcome,
    ) -> Result<(), Reason> {
        let low = consumer.progress().0;
        let identity = (&self.gateway, segment.log());
        let (mut outputs, mut scratch) = (Encoded::default(), Vec::new());
        let mut behind = low;
        let wanted = segment.records().filter(|(seq, _)| (low..end).contains(seq));
        for (seq, record) in wanted {
            let Some((letter, user)) = Letter::read(&record) else {
                self.put_back(consumer, behind, &mut outputs, done)?;
                return Err(Reason::NoLetter(seq));
            };
            outputs.push(&letter.revived(&record, &user, identity, &mut scratch));
            behind = seq.next();
            if outputs.bytes() >= BATCH_BYTES {
                self.put_back(consumer, behind, &mut outputs, done)?;
            }
        }
        self.put_back(consumer, behind, &mut outputs, done)
    }

    /// Commits what `outputs` holds, and empties it.
    fn put_back(
        &self,
        consumer: &mut Consumer,
        behind: Seq,
        outputs: &mut Encoded,
        done: &mut Outcome,
    ) -> Result<(), Reason> {
        if outputs.is_empty() {
            return Ok(());
        }
        self.commit(consumer, behind, outputs)?;
        let entries = u64::from(outputs.count());
        done.entries += entries;
        self.metrics.retried.increment(entries);
        outputs.clear();
        Ok(())
    }

    fn commit(&self, consumer: &mut Consumer, low: Seq, outputs: &Encoded) -> Result<(), Reason> {
        let done = Arc::new(Completion::new());
        let ticket = consumer.commit_with(low, Vec::new(), outputs, &done).map_err(Reason::Refused)?;
        let deadline = clock::now().checked_add(DURABLE_TIMEOUT).unwrap_or_else(clock::now);
        match done.wait(ticket, deadline) {
            Some(Ok(())) => Ok(()),
            Some(Err(failed)) => Err(Reason::Failed(failed)),
            None => Err(Reason::Undecided),
        }
    }
}
