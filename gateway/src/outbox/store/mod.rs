//! The store: where groups become durable. The only folder that names RocksDB.
//!
//! One column family per lane, keys in ascending order only, `meta`, and `state` for the front end.
//! Nothing is ever overwritten in a lane; trimming deletes from its beginning. What a store has to do
//! stands here, how RocksDB does it in `rocks`, with which settings in `options`.

mod options;
mod rocks;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use penstock_proto::{Lane, Seq};

use super::error::StoreError;
use super::keys::MetaKey;
use super::segment::Segment;
use super::space::{Disk, FileSystem};
use super::state::{StateOps, VisitState};
pub(super) use options::IN_MEMORY_BYTES;
pub(super) use rocks::{BadFiles, ReadOnly, RocksEngine};

/// One change; all changes of a write become visible and durable together.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// A new segment; `first` is above every segment of the lane.
    Segment { lane: Lane, first: Seq, stored: &'a [u8] },
    /// A value in `meta`.
    Meta { key: MetaKey, value: Vec<u8> },
    /// A key in `meta` is gone.
    Forget { key: MetaKey },
    /// The segments that begin below `below` are not asked for any more, and go sooner or later.
    Trim { lane: Lane, below: Seq },
    /// Changes in `state`, in order.
    State { ops: &'a StateOps },
}

impl<'a> Change<'a> {
    /// The change that stores a segment which is not compressed.
    pub(super) fn segment(segment: &'a Segment) -> Self {
        Self::Segment { lane: segment.lane(), first: segment.first(), stored: segment.stored_as_is() }
    }
}

/// Looks at one segment's key and stored bytes, and says whether to go on.
pub(super) type Visit<'a> = dyn FnMut(Seq, &[u8]) -> ControlFlow<()> + 'a;

/// A place that keeps segments. Closed by dropping it.
pub(super) trait Store: fmt::Debug + Send + Sync {
    /// Writes all changes or none. With `sync` they and everything written before are durable when
    /// it returns. After an error it is unknown whether they are there.
    fn write(&self, changes: &[Change<'_>], sync: bool) -> Result<(), StoreError>;

    /// A value in `meta`.
    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError>;

    /// Everything in `meta` whose key this version knows.
    fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError>;

    /// Visits the segments of `lane` that begin at or above `from` and below `below`, in order.
    fn scan(&self, lane: Lane, from: Seq, below: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Visits the segments of `lane` that begin at or below `from`, in descending order.
    fn scan_back(&self, lane: Lane, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Visits what is in `state` below `prefix`, in key order, as of one moment.
    fn scan_state(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), StoreError>;

    /// Visits what is in `state`, in descending key order.
    fn scan_state_back(&self, visit: &mut VisitState<'_>) -> Result<(), StoreError>;

    /// Returns the space of what was trimmed below `below` to the file system. The trim must be
    /// durable: files are deleted at once, without a log record. Returns about how many were.
    fn reclaim(&self, lane: Lane, below: Seq) -> Result<u64, StoreError>;

    /// Gives back the memory and the files of a lane that was trimmed up to its end, `below`: what
    /// [`Self::reclaim`] cannot delete is flushed and compacted away. Blocks until that is done and
    /// does not hold writes up.
    fn clean(&self, lane: Lane, below: Seq) -> Result<(), StoreError>;

    /// How the store is doing. Cheap: no look at the content.
    fn condition(&self) -> Result<Condition, StoreError>;
}

/// What a store says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) lanes: [LaneCondition; Lane::COUNT],
    /// Bytes of the write-ahead log.
    pub(super) log_bytes: u64,
    /// Bytes written to table files from memory since the opening.
    pub(super) flushed_bytes: u64,
    /// Bytes written to table files by compaction since the opening.
    pub(super) compacted_bytes: u64,
    /// How long writes were held up since the opening, in microseconds.
    pub(super) stall_us: u64,
    pub(super) writes_stopped: bool,
    /// Failed flushes and compactions since the opening.
    pub(super) background_errors: u64,
}

/// What a store says of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LaneCondition {
    pub(super) table_bytes: u64,
    pub(super) table_files: u64,
    pub(super) level_zero_files: u64,
    /// Bytes in memory and in no table file.
    pub(super) buffer_bytes: u64,
}

/// Opens stores.
pub(super) trait Engine: fmt::Debug + Send {
    /// Whether a store stands at `path`.
    fn exists(&self, path: &Path) -> bool;

    /// The files that a store at `path` consists of. What an opening replays and then deletes is
    /// [`FileKind::Log`].
    fn files(&self, path: &Path) -> io::Result<Vec<(PathBuf, FileKind)>>;

    /// Opens the store at `path`.
    fn open(&self, path: &Path, how: Open) -> Result<Box<dyn Store>, StoreError>;

    /// Replaces all of `state` by what `content` puts, all or nothing, in a store at `path` that nobody
    /// has open. What was there before need not be readable.
    fn replace_state(&self, path: &Path, content: &StateOps) -> Result<(), StoreError>;

    /// What says how much space there is for stores below `path`.
    fn disk(&self, path: &Path) -> Box<dyn Disk> {
        Box::new(FileSystem::of(path))
    }
}

/// How to open a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// What is missing of it is created.
    Create,
    /// It is there. Its log is read up to the first bad record: a torn tail opens, and so does,
    /// silently and without the rest, a log that is damaged in the middle.
    Existing,
    /// It is there and every byte of its log is good; anything else is an error.
    Complete,
    /// Whatever can be read of it. For a copy: its log files are gone afterwards.
    Salvage,
}

/// What a file of a store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A part of the write-ahead log.
    Log,
    /// A table: never changed once it is written, and by far the largest.
    Table,
    /// Small and needed to make sense of the others.
    Catalogue,
}
