//! When the ends of partitions were read for long enough. No I/O and no clock in here.
//!
//! A round asks where the partitions end and reads what is behind that. It is over for good once the ends were asked
//! for [`Bounds::quiet`] after the last record of our own, and after the first answer, and everything before them
//! is read: then nothing of our own landed for that long, however many others write.

use std::time::{Duration, Instant};

use super::super::reader::Stamp;
use super::Part;

/// How much is read at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// A record stamped later than this, in Unix milliseconds, ends its partition. At least two minutes after our
    /// last send, and [`u64::MAX`] when our clock was not set then. A service's stamp is believed at once; where the
    /// sender stamps, [`LATE_RECORDS`] in a row must agree, since others' clocks may be wrong.
    pub(crate) until_ms: u64,
    /// Keys, values and headers of all partitions together. The last record may pass it.
    pub(crate) bytes_max: usize,
    /// How long nothing of our own must have come.
    pub(crate) quiet: Duration,
    /// How long all of it may take.
    pub(crate) longest: Duration,
}

/// Why a tail read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Every partition that can be read was, and nothing of our own came for [`Bounds::quiet`].
    Settled,
    /// [`Bounds::bytes_max`] was reached.
    Bytes,
    /// [`Bounds::longest`] was reached.
    Time,
    /// The caller asked for it.
    Stopped,
}

/// What became of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Read to where it ended.
    End,
    /// Read until records came that are later than anything in doubt.
    Passed,
    /// A bound came first: what was not seen may be sent twice.
    Cut,
    /// No right to listen.
    Refused,
    /// The topic or the partition is not there.
    Missing,
    /// The partition ends before the offset asked for: the topic was made anew.
    OutOfRange,
}

/// What the service says about an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Offset(i64),
    Refused,
    Missing,
    /// Nothing for now.
    None,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask where the open partitions end.
    Ask,
    /// Read what is behind.
    Read,
    /// Nothing, for so long at most.
    Wait(Duration),
    Done(Ended),
}

/// The state of a tail read.
#[derive(Debug)]
pub(super) struct Watch {
    parts: Vec<Watched>,
    bounds: Bounds,
    began: Instant,
    /// When the first complete answer came.
    answered: Option<Instant>,
    /// When the newest complete answer was asked for.
    asked: Option<Instant>,
    /// When a record of our own came last.
    own: Option<Instant>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    next: i64,
    end: Option<i64>,
    /// Whether `next` is known to be no lower than the first offset kept.
    checked: bool,
    skipped: u64,
    /// Records in a row that their sender stamped later than `until_ms`.
    late: u32,
    /// When the client said that there is no more for now, and nothing came since.
    ended: Option<Instant>,
    closed: Option<Outcome>,
}

/// So many late records in a row end a partition whose records are stamped by their senders.
pub(super) const LATE_RECORDS: u32 = 32;
/// A partition said to be at its end is believed to be there after this time without a record.
const TRAILING: Duration = Duration::from_secs(1);

const fn milliseconds(stamp: Stamp) -> u64 {
    match stamp {
        Stamp::Service(ms) | Stamp::Sender(ms) => ms,
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(from: impl Iterator<Item = i64>, bounds: &Bounds, now: Instant) -> Self {
        let part = |from: i64| Watched {
            next: from.max(0),
            end: None,
            checked: false,
            skipped: 0,
            late: 0,
            ended: None,
            closed: None,
        };
        let parts = from.map(part).collect();
        Self { parts, bounds: *bounds, began: now, answered: None, asked: None, own: None, bytes: 0 }
    }

    pub(super) fn step(&self, now: Instant) -> Step {
        if self.parts.iter().all(|part| part.closed.is_some()) {
            return Step::Done(Ended::Settled);
        }
        let deadline = self.began + self.bounds.longest;
        if now >= deadline {
            return Step::Done(Ended::Time);
        }
        let (Some(asked), Some(answered)) = (self.asked, self.answered) else { return Step::Ask };
        if self.bytes >= self.bounds.bytes_max && self.is_any_behind(now) {
            return Step::Done(Ended::Bytes);
        }
        if self.is_any_behind(now) {
            return Step::Read;
        }
        let due = self.own.map_or(answered, |own| own.max(answered)) + self.bounds.quiet;
        if asked >= due {
            Step::Done(Ended::Settled)
        } else if now >= due {
            Step::Ask
        } else {
            Step::Wait((due - now).min(deadline - now))
        }
    }

    /// The partitions that are not closed.
    pub(super) fn open(&self) -> Vec<usize> {
        self.select(|part| part.closed.is_none())
    }

    /// Those whose first offset is not known although they are behind.
    pub(super) fn unchecked(&self) -> Vec<usize> {
        self.select(|part| {
            part.closed.is_none() && !part.checked && part.end.is_some_and(|end| part.next < end)
        })
    }

    /// Those with something to read.
    pub(super) fn behind(&self, now: Instant) -> Vec<usize> {
        self.select(|part| part.is_behind(now))
    }

    pub(super) fn is_behind(&self, now: Instant, want: usize) -> bool {
        self.parts[want].is_behind(now)
    }

    pub(super) fn next_offset(&self, want: usize) -> i64 {
        self.parts[want].next
    }

    /// Whether no complete answer came yet.
    pub(super) const fn is_unanswered(&self) -> bool {
        self.answered.is_none()
    }

    /// Takes in high watermarks. Returns whether all open partitions have one.
    pub(super) fn ends(&mut self, answers: &[(usize, Answer)]) -> bool {
        let mut complete = !answers.is_empty();
        for (want, answer) in answers {
            let part = &mut self.parts[*want];
            match answer {
                Answer::Offset(end) if *end < part.next => {
                    part.end = Some(*end);
                    part.closed = Some(Outcome::OutOfRange);
                }
                Answer::Offset(end) => {
                    if part.end.is_some_and(|known| known < *end) {
                        part.ended = None;
                    }
                    part.end = part.end.max(Some(*end));
                }
                other => complete &= part.close(*other),
            }
        }
        complete
    }

    /// Takes in the first offsets kept. Returns whether all are known.
    pub(super) fn firsts(&mut self, answers: &[(usize, Answer)]) -> bool {
        let mut complete = !answers.is_empty();
        for (want, answer) in answers {
            let part = &mut self.parts[*want];
            match answer {
                Answer::Offset(first) => {
                    part.checked = true;
                    part.skipped += u64::try_from(first.saturating_sub(part.next)).unwrap_or(0);
                    part.next = part.next.max(*first);
                }
                other => complete &= part.close(*other),
            }
        }
        complete
    }

    /// All open partitions have their ends; `asked` is when that was asked.
    pub(super) fn answered(&mut self, asked: Instant, now: Instant) {
        self.answered = self.answered.or(Some(now));
        self.asked = Some(asked);
    }

    /// Some offset was not there: where the partitions begin and end is asked again before anything is read.
    pub(super) fn forget_firsts(&mut self) {
        self.asked = None;
        for part in self.parts.iter_mut().filter(|part| part.closed.is_none()) {
            part.checked = false;
        }
    }

    /// Takes in a record. Returns whether its partition is not to be read further for now.
    pub(super) fn record(
        &mut self,
        now: Instant,
        want: usize,
        offset: i64,
        stamp: Option<Stamp>,
        bytes: usize,
        own: bool,
    ) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if own {
            self.own = Some(now);
        }
        let part = &mut self.parts[want];
        part.next = part.next.max(offset + 1);
        part.ended = None;
        part.judge(stamp, self.bounds.until_ms);
        !part.is_behind(now)
    }

    /// The client says that there is no more of this partition for now.
    pub(super) fn at_end(&mut self, now: Instant, want: usize) {
        self.parts[want].ended.get_or_insert(now);
    }

    /// This partition may not be read.
    pub(super) fn refuse(&mut self, want: usize) {
        self.parts[want].closed.get_or_insert(Outcome::Refused);
    }

    pub(super) fn parts(&self, now: Instant) -> Vec<Part> {
        let part = |part: &Watched| {
            let read = part.end.is_some() && !part.is_behind(now);
            let open = if read { Outcome::End } else { Outcome::Cut };
            let Watched { next, end, skipped, .. } = *part;
            Part { outcome: part.closed.unwrap_or(open), end, next, skipped }
        };
        self.parts.iter().map(part).collect()
    }

    fn is_any_behind(&self, now: Instant) -> bool {
        self.parts.iter().any(|part| part.is_behind(now))
    }

    fn select(&self, choose: impl Fn(&Watched) -> bool) -> Vec<usize> {
        let chosen = self.parts.iter().enumerate().filter(|(_, part)| choose(part));
        chosen.map(|(want, _)| want).collect()
    }
}

// === impl Watched ===

impl Watched {
    fn is_behind(&self, now: Instant) -> bool {
        let trailing = self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= TRAILING);
        self.closed.is_none() && !trailing && self.end.is_some_and(|end| self.next < end)
    }

    /// Takes in an answer without an offset. Returns whether it settles the partition.
    fn close(&mut self, answer: Answer) -> bool {
        self.closed = match answer {
            Answer::Refused => Some(Outcome::Refused),
            Answer::Missing => Some(Outcome::Missing),
            Answer::Offset(_) | Answer::None => return false,
        };
        true
    }

    fn judge(&mut self, stamp: Option<Stamp>, until_ms: u64) {
        let late = stamp.is_some_and(|stamp| milliseconds(stamp) > until_ms);
        self.late = if late { self.late + 1 } else { 0 };
        if late && (matches!(stamp, Some(Stamp::Service(_))) || self.late >= LATE_RECORDS) {
            self.closed = Some(Outcome::Passed);
        }
    }
}
