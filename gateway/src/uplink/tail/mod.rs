//! The tail read: what of this gateway's own arrived although nobody heard.
//!
//! A session that ended in doubt (a crash, a refused batch, a connection that broke) leaves records in flight that
//! may be stored or not. Before the next one sends them again, the end of each partition is read, from the first
//! offset that is not known, and every record of this gateway is shown to the caller.
//!
//! Its own records decide when that is enough, not the high watermark: on a shared event hub the watermark never
//! rests. A request that a dead process left in the network may land after the first look, so the partitions are
//! watched until nothing of our own came for a while (see [`watch`]). Everything is bounded, in bytes and in time,
//! and a bound costs duplicates, never a loss: what is not seen is sent again. Cost and reasons:
//! `docs/decisions/0034`.

mod watch;

#[cfg(test)]
mod tests;

use std::time::Duration;

use penstock_proto::{GatewayId, IDENTITY_HEADER, Identity, LogId, PACK_HEADER, packed};

use super::connection::Connection;
use super::reader::{Came, Edge, Fetched, ReadError, Reader, Trouble, wait_of};
use crate::supervise::clock;
use watch::{Answer, Step, Watch};

pub(crate) use watch::{Bounds, Ended, Outcome};

/// Whose records are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) gateway: GatewayId,
    pub(crate) log: LogId,
}

/// A partition to read. Each one once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// First offset to read: the one after the last that was confirmed.
    pub(crate) from: i64,
}

/// A record of this gateway: of its log, or of another log under the same name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Place of its partition in the list given.
    pub(crate) want: usize,
    pub(crate) offset: i64,
    /// For a packed record the identity of its last entry, with the `prev` of its first.
    pub(crate) identity: &'a Identity,
    /// How many entries it holds; 1 unless it is packed.
    pub(crate) count: u32,
}

/// What became of a tail read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Per partition, as in the list given.
    pub(crate) parts: Vec<Part>,
    pub(crate) ended: Ended,
    /// Keys, values and headers read, of everyone's records.
    pub(crate) bytes: u64,
    /// Everyone's records.
    pub(crate) records: u64,
    /// Records of this gateway and this log.
    pub(crate) own: u64,
    /// Records that begin like ours and cannot be read; none of these was shown.
    pub(crate) unreadable: u64,
}

/// What is known of one partition after a tail read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) outcome: Outcome,
    /// The newest high watermark known.
    pub(crate) end: Option<i64>,
    /// First offset that was not read.
    pub(crate) next: i64,
    /// Offsets at the beginning that are gone: retention passed them.
    pub(crate) skipped: u64,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TailError {
    /// The client library cannot be set up, or does not take a partition.
    #[error(transparent)]
    Client(#[from] ReadError),
    /// No answer about any offset came in [`Bounds::longest`]. What is sent now may be a duplicate, so the caller
    /// may want to try again.
    #[error("no answer about the ends of {0} partitions in {1:?}")]
    Unreachable(usize, Duration),
}

/// Longest wait for an event, and so the longest time until a stop is noticed while records are read.
const POLL: Duration = Duration::from_millis(100);

/// Reads the ends of these partitions and shows every record of `own.gateway` to `found`, in order of offsets
/// within a partition.
///
/// Shown are also records of the same gateway under another log or a later epoch than the caller's: whether they
/// mean that another process uses this gateway's name is for the caller to say. Only records of `own.log` keep
/// the read going.
///
/// Blocks, for [`Bounds::longest`] at most and one answer more; `stopped` is looked at before every answer and every
/// 100 ms, and ends it with [`Ended::Stopped`]. Nothing changes in the cloud: no group is joined and no offset
/// committed.
///
/// # Errors
///
/// [`TailError`]. A refused or missing topic is none: [`Part::outcome`] tells.
pub(crate) fn read(
    connection: &Connection,
    wants: &[Want],
    own: &Own,
    bounds: &Bounds,
    stopped: &dyn Fn() -> bool,
    found: &mut dyn FnMut(Found<'_>),
) -> Result<Summary, TailError> {
    let watch = Watch::new(wants.iter().map(|want| want.from), bounds, clock::now());
    let mut tail = Tail {
        wants,
        own,
        watch,
        counts: Counts::default(),
        round: None,
        paused: Vec::new(),
        one_by_one: false,
        attempt: 0,
        last: 0,
    };
    if wants.is_empty() {
        return Ok(tail.summary(Ended::Settled));
    }
    let reader = Reader::new(connection)?;
    let ended = loop {
        if stopped() {
            break Ended::Stopped;
        }
        match tail.watch.step(clock::now()) {
            Step::Ask => tail.ask(&reader),
            Step::Read => tail.advance(&reader, found)?,
            Step::Wait(wait) => {
                tail.end_round(&reader)?;
                reader.next(wait.min(POLL), &mut |_| ());
            }
            Step::Done(ended) => break ended,
        }
    };
    if tail.watch.is_unanswered() && ended == Ended::Time {
        return Err(TailError::Unreachable(wants.len(), bounds.longest));
    }
    Ok(tail.summary(ended))
}

/// A tail read at work.
struct Tail<'a> {
    wants: &'a [Want],
    own: &'a Own,
    watch: Watch,
    counts: Counts,
    /// What is being fetched.
    round: Option<Vec<usize>>,
    /// What is at its end, while others of the round are not.
    paused: Vec<usize>,
    /// After a refusal that did not say of which topic.
    one_by_one: bool,
    /// Asks without an answer in a row.
    attempt: usize,
    /// The want of the record before: records come in runs of one partition.
    last: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    bytes: u64,
    records: u64,
    own: u64,
    unreadable: u64,
}

// === impl Tail ===

impl Tail<'_> {
    /// Asks where the partitions end, and for those that are to be read where they begin.
    fn ask(&mut self, reader: &Reader) {
        let asked = clock::now();
        let wait = wait_of(self.attempt);
        let open = self.watch.open();
        let ends = self.offsets(reader, &open, Edge::End, wait);
        let mut complete = self.watch.ends(&ends);
        let unchecked = self.watch.unchecked();
        if complete && !unchecked.is_empty() {
            let firsts = self.offsets(reader, &unchecked, Edge::First, wait);
            complete = self.watch.firsts(&firsts);
        }
        if complete {
            self.attempt = 0;
            self.watch.answered(asked, clock::now());
        } else {
            self.attempt += 1;
        }
    }

    /// One request for all of them; when that is refused, one per topic.
    fn offsets(&self, reader: &Reader, wants: &[usize], edge: Edge, wait: Duration) -> Vec<(usize, Answer)> {
        match self.offsets_of(reader, wants, edge, wait) {
            Ok(answers) => answers,
            Err(Trouble::Passing) => Vec::new(),
            Err(trouble @ (Trouble::Refused | Trouble::Missing)) => {
                let mut topics = self.by_topic(wants);
                if topics.len() == 1 {
                    return wants.iter().map(|want| (*want, trouble.into())).collect();
                }
                let each = topics.drain(..).flat_map(|wants| {
                    self.offsets_of(reader, &wants, edge, wait)
                        .unwrap_or_else(|trouble| wants.iter().map(|want| (*want, trouble.into())).collect())
                });
                each.collect()
            }
        }
    }

    fn offsets_of(
        &self,
        reader: &Reader,
        wants: &[usize],
        edge: Edge,
        wait: Duration,
    ) -> Result<Vec<(usize, Answer)>, Trouble> {
        let place = |want: &usize| (self.wants[*want].topic.as_str(), self.wants[*want].partition);
        let places: Vec<_> = wants.iter().map(place).collect();
        let offsets = reader.offsets(&places, edge, wait).map_err(|error| {
            tracing::debug!(error = crate::supervise::chain(&error), ?edge, "no offsets");
            error.trouble()
        })?;
        let answer = |offset: Result<i64, Trouble>| offset.map_or_else(Into::into, Answer::Offset);
        Ok(wants.iter().copied().zip(offsets.into_iter().map(answer)).collect())
    }

    fn by_topic(&self, wants: &[usize]) -> Vec<Vec<usize>> {
        let mut topics: Vec<Vec<usize>> = Vec::new();
        for want in wants {
            let topic = &self.wants[*want].topic;
            match topics.iter_mut().find(|wants| self.wants[wants[0]].topic == *topic) {
                Some(wants) => wants.push(*want),
                None => topics.push(vec![*want]),
            }
        }
        topics
    }

    /// Takes in one event, after it has begun to fetch what is behind.
    fn advance(&mut self, reader: &Reader, found: &mut dyn FnMut(Found<'_>)) -> Result<(), TailError> {
        if self.round.is_none() {
            self.begin_round(reader)?;
        }
        let (wants, own, last) = (self.wants, self.own, self.last);
        let (watch, counts) = (&mut self.watch, &mut self.counts);
        let mut read = None;
        let came = reader.next(POLL, &mut |record| {
            let Some(want) = want_of(wants, last, record) else { return };
            if record.offset() < watch.next_offset(want) {
                return;
            }
            let is_own = show(own, want, record, counts, found);
            let bytes = record.bytes();
            counts.records += 1;
            counts.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
            let at_end = watch.record(clock::now(), want, record.offset(), record.stamp(), bytes, is_own);
            read = Some((want, at_end));
        });
        match came {
            Came::Nothing | Came::Record => {}
            Came::End(partition) => self.at_end(partition),
            Came::OutOfRange => {
                self.watch.forget_firsts();
                self.round = None;
            }
            Came::Refused => self.refused(),
        }
        if let Some((want, at_end)) = read {
            self.last = want;
            if at_end {
                reader.pause(&self.wants[want].topic, self.wants[want].partition)?;
                self.paused.push(want);
            }
        }
        // One topic after another: the next one may be behind while this one is not.
        let now = clock::now();
        if self.round.as_ref().is_some_and(|round| !round.iter().any(|want| self.watch.is_behind(now, *want)))
        {
            self.round = None;
        }
        Ok(())
    }

    fn begin_round(&mut self, reader: &Reader) -> Result<(), TailError> {
        let mut round = self.watch.behind(clock::now());
        if self.one_by_one {
            round = self.by_topic(&round).swap_remove(0);
        }
        let paused = std::mem::take(&mut self.paused);
        if !paused.is_empty() {
            let place = |want: &usize| (self.wants[*want].topic.as_str(), self.wants[*want].partition);
            reader.resume(&paused.iter().map(place).collect::<Vec<_>>())?;
        }
        let place = |want: &usize| {
            let Want { topic, partition, .. } = &self.wants[*want];
            (topic.as_str(), *partition, self.watch.next_offset(*want))
        };
        let places: Vec<_> = round.iter().map(place).collect();
        reader.fetch(&places)?;
        self.round = Some(round);
        Ok(())
    }

    fn end_round(&mut self, reader: &Reader) -> Result<(), TailError> {
        if self.round.take().is_some() {
            reader.fetch(&[])?;
        }
        Ok(())
    }

    /// The last offsets of a partition may hold no record. Where the number alone says which partition is
    /// meant, it is noted; else the bounds end the read.
    fn at_end(&mut self, partition: u32) {
        let now = clock::now();
        let behind = self.watch.behind(now);
        let mut meant = behind.iter().filter(|want| self.wants[**want].partition == partition);
        if let (Some(want), None) = (meant.next(), meant.next()) {
            self.watch.at_end(now, *want);
        }
    }

    fn refused(&mut self) {
        let round = self.round.take().unwrap_or_default();
        if self.by_topic(&round).len() > 1 {
            self.one_by_one = true;
            return;
        }
        if let Some(first) = round.first() {
            let topic = &self.wants[*first].topic;
            let same = self.wants.iter().enumerate().filter(|(_, want)| want.topic == *topic);
            for (want, _) in same {
                self.watch.refuse(want);
            }
        }
    }

    fn summary(&self, ended: Ended) -> Summary {
        let Counts { bytes, records, own, unreadable } = self.counts;
        Summary { parts: self.watch.parts(clock::now()), ended, bytes, records, own, unreadable }
    }
}

impl From<Trouble> for Answer {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused => Self::Refused,
            Trouble::Missing => Self::Missing,
            Trouble::Passing => Self::None,
        }
    }
}

fn want_of(wants: &[Want], last: usize, record: &Fetched<'_>) -> Option<usize> {
    let is = |want: &Want| record.is_of(want.partition) && record.topic() == want.topic;
    if wants.get(last).is_some_and(is) { Some(last) } else { wants.iter().position(is) }
}

/// Shows a record to the caller if it is of this gateway. Returns whether it is of this log too.
fn show(
    own: &Own,
    want: usize,
    record: &Fetched<'_>,
    counts: &mut Counts,
    found: &mut dyn FnMut(Found<'_>),
) -> bool {
    let Some(header) = record.header(IDENTITY_HEADER) else { return false };
    let of_gateway =
        header.strip_prefix(own.gateway.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'));
    if !of_gateway {
        return false;
    }
    let identity = std::str::from_utf8(header).ok().and_then(|text| text.parse::<Identity>().ok());
    let count = identity.as_ref().and_then(|identity| entries(identity, record.header(PACK_HEADER)));
    let (Some(identity), Some(count)) = (identity, count) else {
        counts.unreadable += 1;
        return false;
    };
    let offset = record.offset();
    found(Found { want, offset, identity: &identity, count });
    let is_own = identity.log == own.log;
    counts.own += u64::from(is_own);
    is_own
}

/// How many entries a record holds; `None` for a header that does not fit the identity.
fn entries(identity: &Identity, pack: Option<&[u8]>) -> Option<u32> {
    let Some(pack) = pack else { return Some(1) };
    let pack: packed::Header = std::str::from_utf8(pack).ok()?.parse().ok()?;
    pack.agrees_with(identity).ok()?;
    Some(pack.count)
}
