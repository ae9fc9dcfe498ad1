//! Checks everything a directory claims: every checksum, every lane's continuity and byte count, and
//! that what was acknowledged and what was confirmed is within what is there.

use std::fmt;

use penstock_proto::{Lane, Seq};

use super::super::error::StoreError;
use super::super::segment::Header;
use super::Error;
use super::snapshot::{ConsumerView, Hole, Snapshot};
use super::walk::{Found, Reason, Stored, Walk};

/// What a verification meets.
#[derive(Debug)]
pub enum Event {
    /// Bytes of records that were read, uncompressed.
    Read(u64),
    /// Positions that are known to be gone.
    Hole {
        /// The lane.
        lane: Lane,
        /// What is known.
        hole: Hole,
    },
    /// Something is wrong.
    Problem(Problem),
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, in words.
    pub what: String,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Not in a lane.
    Directory,
    /// In a lane as a whole.
    Lane(Lane),
    /// At positions of a lane: the first one, and the first one after them.
    At(Lane, Seq, Seq),
}

/// What one lane holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneTotals {
    /// Segments that are good.
    pub segments: u64,
    /// Their records.
    pub messages: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Their bytes as stored.
    pub stored_bytes: u64,
    /// Positions known to be gone.
    pub in_holes: u64,
}

/// What stood before a segment.
#[derive(Debug, Clone, Copy)]
struct Before {
    end: Seq,
    bytes: u64,
    epoch: u32,
}

/// Checks `snapshot` and tells `on_event` what it meets. Returns what each lane holds.
///
/// # Errors
///
/// When the database cannot be read at all.
pub fn verify(
    snapshot: &mut Snapshot,
    on_event: &mut dyn FnMut(Event),
) -> Result<[LaneTotals; Lane::COUNT], Error> {
    let mut totals = [LaneTotals::default(); Lane::COUNT];
    let mut problems = check_positions(snapshot)?;
    if !problems.is_empty() {
        snapshot.reopen()?;
        problems = check_positions(snapshot)?;
    }
    problems.into_iter().for_each(|problem| on_event(Event::Problem(problem)));
    for (lane, totals) in Lane::ALL.into_iter().zip(&mut totals) {
        *totals = check_lane(snapshot, lane, on_event)?;
    }
    Ok(totals)
}

/// What `meta` and the high-water mark say about the lanes.
fn check_positions(snapshot: &Snapshot) -> Result<Vec<Problem>, Error> {
    let mut problems = check_mark(snapshot);
    for lane in Lane::ALL {
        problems.extend(check_consumers(snapshot, lane).map_err(|source| snapshot.failed(source))?);
    }
    Ok(problems)
}

fn check_lane(
    snapshot: &mut Snapshot,
    lane: Lane,
    on_event: &mut dyn FnMut(Event),
) -> Result<LaneTotals, Error> {
    let mut totals = LaneTotals::default();
    let mut before = None;
    let mut walk = Walk::new(snapshot, lane, None);
    while let Some(found) = walk.step()? {
        match found {
            Found::Segment(stored) => {
                if let Some(what) = check_segment(walk.snapshot(), lane, &stored, before) {
                    let place = Place::At(lane, stored.segment.first(), stored.segment.end());
                    on_event(Event::Problem(Problem { place, what }));
                }
                let header = stored.segment.header();
                before =
                    Some(Before { end: header.end(), bytes: header.bytes_after(), epoch: header.epoch.0 });
                totals.add(&stored);
                on_event(Event::Read(stored.segment.bytes().into()));
            }
            Found::Hole { first, end, hole } => {
                totals.in_holes += end.0.saturating_sub(first.0);
                on_event(Event::Hole { lane, hole });
            }
            Found::Bad { first, end, reason } => {
                let what = reason.to_string();
                on_event(Event::Problem(Problem { place: Place::At(lane, first, end), what }));
                if reason == Reason::Twice {
                    before = None;
                }
            }
        }
    }
    Ok(totals)
}

/// What is wrong with a good segment at its place.
fn check_segment(snapshot: &Snapshot, lane: Lane, stored: &Stored, before: Option<Before>) -> Option<String> {
    let header = stored.segment.header();
    if header.log != snapshot.log() {
        return Some(format!("belongs to log {}, not to {}", header.log, snapshot.log()));
    }
    if header.epoch > snapshot.epoch() {
        return Some(format!("is of epoch {}, and there were only {}", header.epoch, snapshot.epoch()));
    }
    if before.is_some_and(|before| before.epoch > header.epoch.0) {
        return Some(format!("is of epoch {}, before the segment in front of it", header.epoch));
    }
    check_bytes(snapshot, lane, header, before)
}

/// The count of bytes goes on exactly where segments touch, and never back.
fn check_bytes(snapshot: &Snapshot, lane: Lane, header: &Header, before: Option<Before>) -> Option<String> {
    let head = snapshot.lane(lane).head;
    let start = Before { end: head.first, bytes: head.bytes_before, epoch: 0 };
    let before = before.filter(|before| before.end >= head.first).unwrap_or(start);
    let right = if before.end == header.first {
        before.bytes == header.bytes_before
    } else {
        before.bytes <= header.bytes_before
    };
    let (found, due) = (header.bytes_before, before.bytes);
    (!right).then(|| format!("counts {found} bytes before it, expected {due}"))
}

/// What was acknowledged must be there.
fn check_mark(snapshot: &Snapshot) -> Vec<Problem> {
    let whole = |what| vec![Problem { place: Place::Directory, what }];
    let (log, epoch, next) = match snapshot.mark() {
        Ok(mark) => mark,
        Err(reason) => return whole(format!("the high-water mark cannot be used: {reason}")),
    };
    if log != snapshot.log() {
        return whole(format!("the high-water mark is of log {log}, the database of log {}", snapshot.log()));
    }
    let mut problems = Vec::new();
    if epoch > snapshot.epoch() {
        let what =
            format!("the high-water mark is of epoch {epoch}, the database of epoch {}", snapshot.epoch());
        problems.push(Problem { place: Place::Directory, what });
    }
    for (lane, marked) in Lane::ALL.into_iter().zip(next) {
        let found = snapshot.lane(lane).next;
        if found < marked {
            let what = "acknowledged and missing: the log ends before its high-water mark".to_owned();
            problems.push(Problem { place: Place::At(lane, found, marked), what });
        }
    }
    problems
}

fn check_consumers(snapshot: &Snapshot, lane: Lane) -> Result<Vec<Problem>, StoreError> {
    let view = snapshot.lane(lane);
    let mut problems = Vec::new();
    for consumer in &view.consumers {
        if let Some(what) = check_consumer(snapshot, lane, consumer)? {
            let what = format!("progress of consumer {}: {what}", consumer.name);
            problems.push(Problem { place: Place::Lane(lane), what });
        }
    }
    Ok(problems)
}

fn check_consumer(
    snapshot: &Snapshot,
    lane: Lane,
    consumer: &ConsumerView,
) -> Result<Option<String>, StoreError> {
    let (view, progress) = (snapshot.lane(lane), &consumer.progress);
    if progress.floor > progress.low {
        return Ok(Some(format!("its segment begins at {}, above {}", progress.floor, progress.low)));
    }
    // The end is at least every position of progress; beyond the segments nothing was ever confirmed.
    let stored_end = match snapshot.header_at(lane, Seq(u64::MAX)) {
        Ok(last) => last.map_or(view.head(), |last| last.end()),
        // Whoever reads the lane tells what is wrong there.
        Err(_) => return Ok(None),
    };
    let known = view.holes.iter().map(|hole| hole.end).fold(stored_end, Seq::max);
    if progress.low > known && view.end_unreadable.is_none() {
        return Ok(Some(format!("{} is confirmed, and the lane ends at {known}", progress.low)));
    }
    if progress.floor < view.head() || view.hole_at(progress.floor).is_some() {
        return Ok(None);
    }
    let Some(header) = snapshot.header_at(lane, progress.floor)? else { return Ok(None) };
    let inside = header.first < progress.floor && progress.floor < header.end();
    if inside {
        return Ok(Some(format!("{} is not the beginning of a segment", progress.floor)));
    }
    if header.first == progress.floor && header.bytes_before != progress.bytes_before {
        let (found, due) = (progress.bytes_before, header.bytes_before);
        return Ok(Some(format!("counts {found} bytes before {}, expected {due}", progress.floor)));
    }
    Ok(None)
}

// === impl LaneTotals ===

impl LaneTotals {
    fn add(&mut self, stored: &Stored) {
        self.segments += 1;
        self.messages += u64::from(stored.segment.count());
        self.bytes += u64::from(stored.segment.bytes());
        self.stored_bytes += stored.stored_bytes as u64;
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("directory"),
            Self::Lane(lane) => lane.fmt(f),
            Self::At(lane, first, end) if end.0 > first.0.saturating_add(1) => {
                write!(f, "{lane} {first} to {}", end.0 - 1)
            }
            Self::At(lane, first, _) => write!(f, "{lane} {first}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}
