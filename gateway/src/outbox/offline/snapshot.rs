//! A directory at one moment: who the log is, where its lanes begin and end, who reads them.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::super::directory::{DATABASE, HIGH_WATER};
use super::super::error::StoreError;
use super::super::keys::{self, Format, Head, MetaKey, Progress};
use super::super::segment::Header;
use super::super::sidecar::{Mark, Sidecar};
use super::super::state::StateSize;
use super::super::store::{BadFiles, Engine as _, ReadOnly, RocksEngine};
use super::Error;
use crate::supervise::clock;

/// The gateway may delete a file that is about to be opened; it does so every few seconds at most.
const TRIES: usize = 8;
/// The first position of a lane.
const FIRST: Seq = Seq(1);

/// What a directory held when it was opened.
#[derive(Debug)]
pub struct Snapshot {
    directory: PathBuf,
    pub(super) store: ReadOnly,
    format: Format,
    log: LogId,
    epoch: Epoch,
    /// The high-water mark from before the first opening, or why there is none.
    mark: Result<Mark, String>,
    lanes: [LaneView; Lane::COUNT],
    opened_at: Instant,
}

/// One lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneView {
    pub(super) head: Head,
    /// The position that the next entry gets.
    pub next: Seq,
    /// Bytes of all bodies ever appended, uncompressed.
    pub bytes: u64,
    /// Why the last segment cannot be read; `next` and `bytes` may be too small then.
    pub end_unreadable: Option<String>,
    /// Who reads it, by name.
    pub consumers: Vec<ConsumerView>,
    /// Positions that are known to be gone, in order.
    pub holes: Vec<Hole>,
}

/// How far a consumer has come in one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerView {
    /// Its name.
    pub name: String,
    pub(super) progress: Progress,
}

/// Positions that are known, and were announced, to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first one.
    pub first: Seq,
    /// The first position after it.
    pub end: Seq,
    /// When it was found, in Unix milliseconds.
    pub at_ms: u64,
    /// The opening that found it.
    pub epoch: Epoch,
    /// Why.
    pub reason: HoleReason,
}

/// Why positions are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoleReason {
    /// They were not there.
    Missing,
    /// They could not be read.
    Damaged,
}

// === impl Snapshot ===

impl Snapshot {
    /// Opens what stands in `directory`.
    ///
    /// # Errors
    ///
    /// When there is no outbox that this version can read, or its database does not open.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        check_outbox(directory)?;
        // Before the database: what was acknowledged by now must be found in it.
        let mark = Sidecar::read(&directory.join(HIGH_WATER)).map_err(|error| error.to_string());
        let snapshot = Self::load(directory, mark.clone())?;
        // A log file may have been deleted between two steps of the opening.
        if snapshot.is_short() { Self::load(directory, mark) } else { Ok(snapshot) }
    }

    /// Whether something is missing that was acknowledged.
    fn is_short(&self) -> bool {
        let Ok(mark) = &self.mark else { return false };
        self.lanes.iter().zip(mark.next).any(|(lane, marked)| lane.next < marked)
    }

    /// Replaces the snapshot by one of this moment; the high-water mark stays the first one.
    pub(super) fn reopen(&mut self) -> Result<(), Error> {
        *self = Self::load(&self.directory, self.mark.clone())?;
        Ok(())
    }

    fn load(directory: &Path, mark: Result<Mark, String>) -> Result<Self, Error> {
        let store = open_store(&directory.join(DATABASE));
        let store = store.map_err(|source| failed(directory, source))?;
        let format = check_format(directory, &store)?;
        let read = |key: &MetaKey| store.meta(key).map_err(|source| failed(directory, source));
        let log = read(&MetaKey::Log)?.and_then(|value| keys::decode_log(&value));
        let log = log.ok_or_else(|| bad_meta(directory, "log id"))?;
        let epoch = match read(&MetaKey::Epoch)? {
            None => Epoch(0),
            Some(value) => keys::decode_epoch(&value).ok_or_else(|| bad_meta(directory, "epoch"))?,
        };
        let mut lanes = read_meta(directory, &store)?;
        for (lane, view) in Lane::ALL.into_iter().zip(&mut lanes) {
            let marked = mark.as_ref().ok().and_then(|mark| mark.next.get(lane.index()).copied());
            view.find_end(&store, lane, marked.unwrap_or(FIRST));
        }
        let directory = directory.to_owned();
        let opened_at = clock::now();
        Ok(Self { directory, store, format, log, epoch, mark, lanes, opened_at })
    }

    /// The directory given.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The random identity of the directory.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// Counts the openings of the directory.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The version that wrote the format, and the least version that may read it.
    #[must_use]
    pub const fn format(&self) -> (u16, u16) {
        (self.format.writer_version, self.format.min_reader_version)
    }

    /// The high-water mark: log, epoch and the next position of each lane.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub fn mark(&self) -> Result<(LogId, Epoch, [Seq; Lane::COUNT]), &str> {
        match &self.mark {
            Ok(mark) => Ok((mark.log, mark.epoch, mark.next)),
            Err(reason) => Err(reason),
        }
    }

    /// One lane.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> &LaneView {
        let [first, ..] = &self.lanes;
        self.lanes.get(lane.index()).unwrap_or(first)
    }

    /// How much state of the front end there is.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn state(&self) -> Result<StateSize, Error> {
        let mut size = StateSize::default();
        let scanned = self.store.scan_state(&[], &mut |key, value| {
            size.keys += 1;
            size.bytes += (key.len() + value.len()) as u64;
            ControlFlow::Continue(())
        });
        scanned.map(|()| size).map_err(|source| self.failed(source))
    }

    /// When the oldest entry that some consumer has not confirmed was committed, in Unix milliseconds.
    #[must_use]
    pub fn oldest_ms(&self, lane: Lane) -> Option<u64> {
        let view = self.lane(lane);
        let low = view.low();
        if low >= view.next {
            return None;
        }
        let header = self.header_at(lane, low).ok().flatten()?;
        Some(header.committed_ms)
    }

    pub(super) fn age(&self) -> Duration {
        clock::now().saturating_duration_since(self.opened_at)
    }

    /// The header of the segment that begins at or before `seq`, the last such one.
    pub(super) fn header_at(&self, lane: Lane, seq: Seq) -> Result<Option<Header>, StoreError> {
        let (head, mut found) = (self.lane(lane).head.first, None);
        self.store.scan_back(lane, seq, &mut |first, stored| {
            if first >= head {
                found = Header::read(stored).ok().map(|(header, ..)| header);
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The key of the segment that begins at or before `seq`, or `seq` if there is none.
    pub(super) fn key_at(&self, lane: Lane, seq: Seq) -> Seq {
        let head = self.lane(lane).head.first;
        let mut found = seq.max(head);
        // What cannot be read is met again, and told, by whoever reads on from here.
        drop(self.store.scan_back(lane, seq, &mut |first, _| {
            if first >= head {
                found = first;
            }
            ControlFlow::Break(())
        }));
        found
    }

    pub(super) fn failed(&self, source: StoreError) -> Error {
        failed(&self.directory, source)
    }
}

/// Refuses what is not there and what is something else, before anything is opened.
pub(super) fn check_outbox(directory: &Path) -> Result<(), Error> {
    let directory_of = || directory.to_owned();
    match std::fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoDirectory { directory: directory_of() });
        }
        Err(source) => {
            return Err(Error::Io { path: directory_of(), action: "look at the directory", source });
        }
        Ok(found) if !found.is_dir() => {
            return Err(Error::NotAnOutbox { directory: directory_of(), reason: "it is a file" });
        }
        Ok(_) => {}
    }
    if RocksEngine.exists(&directory.join(DATABASE)) {
        return Ok(());
    }
    let reason = if directory.join(HIGH_WATER).exists() {
        "its database is missing, and only its high-water mark is there"
    } else {
        "there is no database in it"
    };
    Err(Error::NotAnOutbox { directory: directory_of(), reason })
}

fn open_store(database: &Path) -> Result<ReadOnly, StoreError> {
    let mut last = None;
    for _ in 0..TRIES {
        match ReadOnly::open(database, BadFiles::Refuse) {
            Ok(store) => return Ok(store),
            Err(error) => last = Some(error),
        }
    }
    // A file is really bad; what does not need it can still be read.
    ReadOnly::open(database, BadFiles::Accept).map_err(|error| last.unwrap_or(error))
}

fn check_format(directory: &Path, store: &ReadOnly) -> Result<Format, Error> {
    let value = store.meta(&MetaKey::Format).map_err(|source| failed(directory, source))?;
    let Some(value) = value else {
        let reason = "its creation was not finished; the next start of the gateway finishes it";
        return Err(Error::NotAnOutbox { directory: directory.to_owned(), reason });
    };
    let format = Format::decode(&value).ok_or_else(|| bad_meta(directory, "format"))?;
    let ours = keys::FORMAT.writer_version;
    if format.min_reader_version > ours {
        let Format { writer_version: written, min_reader_version: needed } = format;
        return Err(Error::Newer { directory: directory.to_owned(), written, needed, ours });
    }
    Ok(format)
}

/// The lanes as far as `meta` knows them.
fn read_meta(directory: &Path, store: &ReadOnly) -> Result<[LaneView; Lane::COUNT], Error> {
    let mut lanes = [const { LaneView::EMPTY }; Lane::COUNT];
    for (key, value) in store.metas().map_err(|source| failed(directory, source))? {
        let (MetaKey::Head(lane) | MetaKey::Progress(lane, _) | MetaKey::Hole(lane, _)) = key else {
            continue;
        };
        let Some(view) = lanes.get_mut(lane.index()) else { continue };
        let what = match key {
            MetaKey::Hole(_, first) => {
                Hole::read(first, &value).map(|hole| view.holes.push(hole)).ok_or("known hole")
            }
            MetaKey::Progress(_, name) => {
                let progress = Progress::decode(&value);
                let consumer = progress.map(|progress| ConsumerView { name, progress });
                consumer.map(|consumer| view.consumers.push(consumer)).ok_or("consumer progress")
            }
            _ => Head::decode(&value).map(|head| view.head = head).ok_or("lane head"),
        };
        what.map_err(|what| bad_meta(directory, what))?;
    }
    Ok(lanes)
}

fn failed(directory: &Path, source: StoreError) -> Error {
    Error::Store { directory: directory.to_owned(), source }
}

fn bad_meta(directory: &Path, what: &'static str) -> Error {
    Error::BadMeta { directory: directory.to_owned(), what }
}

// === impl LaneView ===

impl LaneView {
    const EMPTY: Self = Self {
        head: Head { first: FIRST, bytes_before: 0 },
        next: FIRST,
        bytes: 0,
        end_unreadable: None,
        consumers: Vec::new(),
        holes: Vec::new(),
    };

    /// The first position that is not trimmed.
    #[must_use]
    pub const fn head(&self) -> Seq {
        self.head.first
    }

    /// The first position that some consumer has not confirmed; the head if there is no consumer.
    #[must_use]
    pub fn low(&self) -> Seq {
        let lows = self.consumers.iter().map(|consumer| consumer.progress.low);
        lows.min().unwrap_or(self.head.first).max(self.head.first)
    }

    /// Entries that some consumer has not confirmed, known holes included.
    #[must_use]
    pub fn backlog_messages(&self) -> u64 {
        self.next.0.saturating_sub(self.low().0)
    }

    /// Their bytes, uncompressed, counted by whole segments.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        let least = self.consumers.iter().map(|consumer| consumer.progress.bytes_before).min();
        let least = least.unwrap_or(0).max(self.head.bytes_before);
        if self.backlog_messages() == 0 { 0 } else { self.bytes.saturating_sub(least) }
    }

    /// Bytes that are there to be read, uncompressed.
    #[must_use]
    pub const fn stored_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.head.bytes_before)
    }

    /// The known hole that holds `seq`.
    #[must_use]
    pub fn hole_at(&self, seq: Seq) -> Option<Hole> {
        self.holes.iter().copied().find(|hole| (hole.first..hole.end).contains(&seq))
    }

    /// The known hole that begins above `seq`, the first such one.
    pub(super) fn hole_after(&self, seq: Seq) -> Option<Hole> {
        self.holes.iter().copied().filter(|hole| hole.first > seq).min_by_key(|hole| hole.first)
    }

    /// Fills in where the lane ends.
    fn find_end(&mut self, store: &ReadOnly, lane: Lane, marked: Seq) {
        let head = self.head;
        let (mut next, mut bytes, mut problem) = (head.first.max(FIRST), head.bytes_before, None);
        let scanned = store.scan_back(lane, Seq(u64::MAX), &mut |first, stored| {
            if first >= head.first {
                match Header::read(stored) {
                    Ok((header, ..)) => {
                        next = next.max(header.end());
                        bytes = bytes.max(header.bytes_after());
                    }
                    Err(error) => {
                        next = next.max(Seq(first.0.saturating_add(1)));
                        problem = Some(error.to_string());
                    }
                }
            }
            ControlFlow::Break(())
        });
        if let Err(error) = scanned {
            problem = Some(error.to_string());
        }
        for consumer in &self.consumers {
            next = next.max(consumer.progress.low);
            bytes = bytes.max(consumer.progress.bytes_before);
        }
        next = self.holes.iter().map(|hole| hole.end).fold(next, Seq::max);
        if problem.is_some() {
            next = next.max(marked);
        }
        (self.next, self.bytes, self.end_unreadable) = (next, bytes, problem);
    }
}

// === impl ConsumerView ===

impl ConsumerView {
    /// The first position it has not confirmed.
    #[must_use]
    pub const fn low(&self) -> Seq {
        self.progress.low
    }

    /// Bytes of what it keeps with its position.
    #[must_use]
    pub const fn state_bytes(&self) -> usize {
        self.progress.state.len()
    }

    /// Entries of `lane` that are there and that it has not confirmed.
    #[must_use]
    pub fn lag_messages(&self, lane: &LaneView) -> u64 {
        lane.next.0.saturating_sub(self.progress.low.max(lane.head.first).0)
    }

    /// Their bytes, uncompressed, counted by whole segments.
    #[must_use]
    pub fn lag_bytes(&self, lane: &LaneView) -> u64 {
        if self.lag_messages(lane) == 0 {
            return 0;
        }
        lane.bytes.saturating_sub(self.progress.bytes_before.max(lane.head.bytes_before))
    }
}

// === impl Hole ===

impl Hole {
    /// How many positions.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.end.0.saturating_sub(self.first.0)
    }

    fn read(first: Seq, value: &[u8]) -> Option<Self> {
        let keys::Hole { end, at_ms, epoch, reason } = keys::Hole::decode(value)?;
        let reason = match reason {
            keys::HoleReason::Missing => HoleReason::Missing,
            keys::HoleReason::Damaged => HoleReason::Damaged,
        };
        (end > first).then_some(Self { first, end, at_ms, epoch, reason })
    }
}
