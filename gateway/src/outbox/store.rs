//! The store: where groups become durable. The only file that names RocksDB.
//!
//! One column family per lane, keys in ascending order only, `meta`, and `state` for the front end.
//! Nothing is ever overwritten in a lane; trimming deletes from its beginning.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use penstock_proto::{Lane, Seq};
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ChecksumType, ColumnFamily, ColumnFamilyDescriptor,
    CompactOptions, DB, DBCompactionStyle, DBCompressionType, DBRawIterator, DBRecoveryMode,
    DEFAULT_COLUMN_FAMILY_NAME, LogLevel, Options, PrefixRange, ReadOptions, WriteBatch, WriteOptions,
    properties,
};

use super::error::{StoreError, StoreErrorKind};
use super::keys::{MetaKey, segment_first, segment_key};
use super::segment::Segment;
use super::space::{Disk, FileSystem};
use super::state::{StateOp, StateOps, VisitState};

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

/// RocksDB.
#[derive(Debug)]
pub(super) struct RocksEngine;

struct Rocks {
    db: DB,
    /// Those of the database; the way to its counters.
    options: Options,
    path: PathBuf,
    synced: WriteOptions,
    unsynced: WriteOptions,
}

/// A store opened beside whoever owns it: it never writes, takes no lock, and sees the moment of its
/// opening. With [`BadFiles::Refuse`], files that its owner deletes afterwards stay readable, because
/// all are open.
#[derive(Debug)]
pub(super) struct ReadOnly(Rocks);

/// What a read-only opening does about files that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadFiles {
    /// It fails. Right where the owner may have deleted a file in this moment.
    Refuse,
    /// It opens, and reading fails where the file is needed.
    Accept,
}

const META: &str = "meta";
/// Directories of format 1 have no such family.
const STATE: &str = "state";

/// Tables that a read-only look keeps open if it cannot have all of them.
const TABLES_OPEN: i32 = 256;

/// Memory that a lane collects before it becomes a file: the floor of space that can be returned,
/// and what an opening after a crash replays.
const LANE_BUFFER_BYTES: usize = 16 << 20;
const META_BUFFER_BYTES: usize = 1 << 20;
/// State comes and goes: what is deleted before its buffer is full hardly reaches a file.
const STATE_BUFFER_BYTES: usize = 8 << 20;
const STATE_TABLE_BYTES: u64 = 8 << 20;
/// Below this much, a trim is likely to meet its segments before they reach a file.
pub(super) const IN_MEMORY_BYTES: u64 = LANE_BUFFER_BYTES as u64 / 2;
/// A lane with more than this in its files is trimmed by deleting files alone. A range deletion would make the next
/// file reach from the lane's beginning to its newest segment, and moving that file down would rewrite everything
/// between: the whole backlog, again and again while it drains.
const RANGE_DELETION_TABLE_BYTES_MAX: u64 = 64 << 20;
const BLOCK_BYTES: usize = 32 << 10;
const BLOCK_CACHE_BYTES: usize = 16 << 20;
/// Of a `state` that this opening created; the next one takes it from the common cache.
const STATE_CACHE_BYTES: usize = 1 << 20;
const READAHEAD_BYTES: usize = 1 << 20;
/// The database's default.
const LEVELS: usize = 7;
/// `ENOSPC` and `EDQUOT`.
const NO_SPACE: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

// === impl RocksEngine ===

impl Engine for RocksEngine {
    fn exists(&self, path: &Path) -> bool {
        // Every RocksDB directory has this file from the end of its creation on.
        path.join("CURRENT").exists()
    }

    fn files(&self, path: &Path) -> io::Result<Vec<(PathBuf, FileKind)>> {
        let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let paths = entries.collect::<io::Result<Vec<_>>>()?;
        Ok(paths
            .into_iter()
            .filter_map(|path| Some((kind_of(&path)?, path)))
            .map(|(kind, path)| (path, kind))
            .collect())
    }

    fn open(&self, path: &Path, how: Open) -> Result<Box<dyn Store>, StoreError> {
        let options = database_options(how);
        let db = open_database(&options, path, how)?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let path = path.to_owned();
        Ok(Box::new(Rocks { db, options, path, synced, unsynced: WriteOptions::default() }))
    }
}

/// Opens the database; one that was created without `state` gets it.
fn open_database(options: &Options, path: &Path, how: Open) -> Result<DB, rocksdb::Error> {
    if how == Open::Create {
        return DB::open_cf_descriptors(options, path, families());
    }
    let there = DB::list_cf(options, path)?;
    let families = families().filter(|family| is_wanted(family, &there));
    let mut db = DB::open_cf_descriptors(options, path, families)?;
    if db.cf_handle(STATE).is_none() {
        db.create_cf(STATE, &state_options(&Cache::new_lru_cache(STATE_CACHE_BYTES)))?;
    }
    Ok(db)
}

/// Whether to ask for a family where these are. That another than `state` is missing is an error,
/// which asking for it brings up.
fn is_wanted(family: &ColumnFamilyDescriptor, there: &[String]) -> bool {
    family.name() != STATE || there.iter().any(|name| name == STATE)
}

/// What a file is by its name; `None` for its lock and for what it writes for people.
fn kind_of(path: &Path) -> Option<FileKind> {
    match (path.file_name()?.to_str()?, path.extension().and_then(OsStr::to_str)) {
        (_, Some("log")) => Some(FileKind::Log),
        (_, Some("sst")) => Some(FileKind::Table),
        ("CURRENT" | "IDENTITY", _) => Some(FileKind::Catalogue),
        (name, _) if name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-") => {
            Some(FileKind::Catalogue)
        }
        _ => None,
    }
}

// Each option says why it has its value. There is no limit on the rate of flushes: they write what
// the log has written already, and a limit would only let memory fill up.

fn database_options(how: Open) -> Options {
    let mut options = Options::default();
    options.create_if_missing(how == Open::Create);
    options.create_missing_column_families(how == Open::Create);
    options.set_wal_recovery_mode(match how {
        // A torn tail is normal after a power cut and must open. A hole in the middle would open
        // too, silently, which is why the high-water mark is checked after every opening.
        Open::Create | Open::Existing => DBRecoveryMode::PointInTime,
        Open::Complete => DBRecoveryMode::AbsoluteConsistency,
        Open::Salvage => DBRecoveryMode::SkipAnyCorruptedRecord,
    });
    // Finds a missing or short log file that was closed in full.
    options.set_track_and_verify_wals_in_manifest(how != Open::Salvage);
    // Recycled logs would be faster, but with several column families a power cut can leave a
    // directory that this recovery mode refuses. `Options::default` has it off; this says so.
    options.set_recycle_log_file_num(0);
    // All lanes share one log, and a quiet lane would keep it growing. Also the most that an
    // opening after a crash replays.
    options.set_max_total_wal_size(128 << 20);
    // There is one writer: what serves many only costs.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_enable_pipelined_write(false);
    // Faster for many writers, and a reader could see a later group without an earlier one.
    options.set_unordered_write(false);
    // No gain, and one more step that a sync could miss.
    options.set_manual_wal_flush(false);
    // A flush must not pile up dirty pages in front of the next commit's sync.
    options.set_bytes_per_sync(1 << 20);
    // One flush and one compaction: more would take a small box's cores away from the devices.
    options.set_max_background_jobs(2);
    // Bodies are compressed already, and log compression would do it twice.
    options.set_wal_compression_type(DBCompressionType::None);
    // Files of its own that grow without a bound otherwise.
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_max_manifest_file_size(16 << 20);
    options.set_log_level(LogLevel::Warn);
    // Reading statistics of every file makes opening a large backlog slow.
    options.set_skip_stats_update_on_db_open(true);
    // The housekeeper reads the counters; nobody reads a dump in the database's own log.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // Counters only. They cost some additions per group and per flush; timers would read the clock
    // in every write.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    // All stay open, since a backlog of 64 GiB has about a thousand files, and a reader that must
    // open one first stands still.
    options.set_max_open_files(-1);
    options
}

/// A family per lane, `meta`, `state`, and the one that every database has, which stays empty: left to itself it
/// would have a buffer of 64 MiB, and a log file's room on the disk is taken ahead for the largest buffer.
fn families() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let lanes = Lane::ALL.map(|lane| ColumnFamilyDescriptor::new(lane.name(), lane_options(&cache)));
    let others = [META, DEFAULT_COLUMN_FAMILY_NAME];
    let others = others.map(|name| ColumnFamilyDescriptor::new(name, meta_options(&cache)));
    let state = ColumnFamilyDescriptor::new(STATE, state_options(&cache));
    lanes.into_iter().chain(others).chain([state])
}

fn lane_options(cache: &Cache) -> Options {
    let mut options = family_options(cache);
    options.set_write_buffer_size(LANE_BUFFER_BYTES);
    // Three may wait for a slow disk's flush before writes are held up.
    options.set_max_write_buffer_number(4);
    // Keys only grow, so files move down without being rewritten. Other styles gain nothing, and
    // in a queue of files (FIFO) nothing leaves level 0.
    options.set_compaction_style(DBCompactionStyle::Level);
    // Files that stay in level 0 cannot be deleted by range: down with them. Two are the least that
    // starts a compaction.
    options.set_level_zero_file_num_compaction_trigger(2);
    // What one deletion of a file gives back, and how many files a large backlog has.
    options.set_target_file_size_base(64 << 20);
    // A lane fills the lowest level, and one more for each multiple of this: few levels, few moves.
    options.set_max_bytes_for_level_base(1 << 30);
    options
}

fn meta_options(cache: &Cache) -> Options {
    let mut options = family_options(cache);
    // A few keys that are written again and again: small buffers flush often, and so do not pin
    // the log.
    options.set_write_buffer_size(META_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options
}

fn state_options(cache: &Cache) -> Options {
    let mut options = family_options(cache);
    options.set_write_buffer_size(STATE_BUFFER_BYTES);
    // Two may wait for a slow disk's flush before writes are held up.
    options.set_max_write_buffer_number(3);
    // Keys are written and deleted again in any order. Few files, so that deletions meet what they
    // delete soon, and a scan at the start does not wade through both.
    options.set_compaction_style(DBCompactionStyle::Level);
    options.set_level_zero_file_num_compaction_trigger(2);
    options.set_target_file_size_base(STATE_TABLE_BYTES);
    options.set_max_bytes_for_level_base(8 * STATE_TABLE_BYTES);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut options = Options::default();
    // Bodies are compressed already.
    options.set_compression_type(DBCompressionType::None);
    let mut table = BlockBasedOptions::default();
    // Values are whole segments, and reads are scans: large blocks, no filters.
    table.set_block_size(BLOCK_BYTES);
    // Fixed, so that another version of the library does not change the files by itself.
    table.set_format_version(6);
    // The cheapest to compute.
    table.set_checksum_type(ChecksumType::XXH3);
    // One cache for all lanes bounds what a large backlog's indexes take; otherwise every open file
    // keeps its own in memory.
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    options.set_block_based_table_factory(&table);
    options
}

// === impl ReadOnly ===

impl ReadOnly {
    /// Opens the store that stands at `path` as it is. Nothing is created or changed there.
    pub(super) fn open(path: &Path, bad_files: BadFiles) -> Result<Self, StoreError> {
        let mut options = database_options(Open::Existing);
        if bad_files == BadFiles::Accept {
            options.set_paranoid_checks(false);
            // Tables are opened when they are needed, also where only so many may be open at once.
            options.set_max_open_files(TABLES_OPEN);
        }
        let there = DB::list_cf(&options, path)?;
        let families = families().filter(|family| is_wanted(family, &there));
        // The gateway's log is there and in use.
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false)?;
        let (synced, unsynced) = (WriteOptions::default(), WriteOptions::default());
        Ok(Self(Rocks { db, options, path: path.to_owned(), synced, unsynced }))
    }

    /// As [`Store::meta`].
    pub(super) fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.meta(key)
    }

    /// As [`Store::metas`].
    pub(super) fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError> {
        self.0.metas()
    }

    /// As [`Store::scan`].
    pub(super) fn scan(
        &self,
        lane: Lane,
        from: Seq,
        below: Seq,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.scan(lane, from, below, visit)
    }

    /// As [`Store::scan_state`].
    pub(super) fn scan_state(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        self.0.scan_state(prefix, visit)
    }

    /// As [`Store::scan_back`].
    pub(super) fn scan_back(&self, lane: Lane, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan_back(lane, from, visit)
    }
}

// === impl Rocks ===

impl Rocks {
    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or_else(|| StoreError {
            kind: StoreErrorKind::Corruption,
            message: format!("column family {name} is missing"),
        })
    }

    /// An iterator for one scan. It pins what it sees, so it must not outlive the scan.
    fn iterator(&self, lane: Lane, below: Option<Seq>) -> Result<DBRawIterator<'_>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(below) = below {
            options.set_iterate_upper_bound(segment_key(below));
        }
        // A backlog is read once: it must not push the index out of the cache.
        options.fill_cache(false);
        options.set_readahead_size(READAHEAD_BYTES);
        Ok(self.db.raw_iterator_cf_opt(self.family(lane.name())?, options))
    }

    fn number(&self, name: &properties::PropName) -> Result<u64, StoreError> {
        Ok(self.db.property_int_value(name)?.unwrap_or(0))
    }

    fn lane_condition(&self, lane: Lane) -> Result<LaneCondition, StoreError> {
        let family = self.family(lane.name())?;
        let number = |name: &properties::PropName| -> Result<u64, StoreError> {
            Ok(self.db.property_int_value_cf(family, name)?.unwrap_or(0))
        };
        Ok(LaneCondition {
            table_bytes: number(properties::LIVE_SST_FILES_SIZE)?,
            table_files: self.files(family, 0..LEVELS)?,
            level_zero_files: self.files(family, 0..1)?,
            buffer_bytes: number(properties::CUR_SIZE_ALL_MEM_TABLES)?,
        })
    }

    /// Table files in these levels.
    fn files(&self, family: &ColumnFamily, levels: Range<usize>) -> Result<u64, StoreError> {
        let mut files = 0;
        for level in levels {
            // Text, unlike other numbers.
            let count = self.db.property_value_cf(family, properties::num_files_at_level(level))?;
            files += count.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(files)
    }

    fn log_bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| kind_of(&entry.path()) == Some(FileKind::Log));
        // One that goes meanwhile is none.
        logs.filter_map(|log| log.metadata().ok()).map(|found| found.len()).sum()
    }

    fn table_bytes(&self, family: &ColumnFamily) -> Result<u64, StoreError> {
        Ok(self.db.property_int_value_cf(family, properties::LIVE_SST_FILES_SIZE)?.unwrap_or(0))
    }

    fn batch(&self, changes: &[Change<'_>]) -> Result<WriteBatch, StoreError> {
        let bytes = |change: &Change<'_>| match change {
            Change::Segment { stored, .. } => stored.len(),
            Change::Meta { value, .. } => value.len(),
            Change::State { ops } => ops.bytes() + ops.len() * OVERHEAD_BYTES,
            Change::Forget { .. } | Change::Trim { .. } => 0,
        };
        const OVERHEAD_BYTES: usize = 64;
        let bytes: usize = changes.iter().map(|change| bytes(change) + OVERHEAD_BYTES).sum();
        let mut batch = WriteBatch::with_capacity_bytes(bytes);
        for change in changes {
            match change {
                Change::Segment { lane, first, stored } => {
                    batch.put_cf(self.family(lane.name())?, segment_key(*first), stored);
                }
                Change::Meta { key, value } => batch.put_cf(self.family(META)?, key.encode(), value),
                Change::Forget { key } => batch.delete_cf(self.family(META)?, key.encode()),
                Change::Trim { lane, below } => {
                    let family = self.family(lane.name())?;
                    if self.table_bytes(family)? <= RANGE_DELETION_TABLE_BYTES_MAX {
                        batch.delete_range_cf(family, segment_key(Seq::ZERO), segment_key(*below));
                    }
                }
                Change::State { ops } => {
                    let family = self.family(STATE)?;
                    ops.iter().for_each(|op| match op {
                        StateOp::Put { key, value } => batch.put_cf(family, key, value),
                        StateOp::Delete { key } => batch.delete_cf(family, key),
                    });
                }
            }
        }
        Ok(batch)
    }
}

impl Store for Rocks {
    fn write(&self, changes: &[Change<'_>], sync: bool) -> Result<(), StoreError> {
        let options = if sync { &self.synced } else { &self.unsynced };
        Ok(self.db.write_opt(self.batch(changes)?, options)?)
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(META)?, key.encode())?)
    }

    fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        let mut entries = self.db.raw_iterator_cf(self.family(META)?);
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            found.extend(MetaKey::decode(key).map(|key| (key, value.to_vec())));
            entries.next();
        }
        entries.status()?;
        Ok(found)
    }

    fn scan(&self, lane: Lane, from: Seq, below: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut segments = self.iterator(lane, Some(below))?;
        segments.seek(segment_key(from));
        while let Some((key, stored)) = segments.item() {
            if visit(first_of(key)?, stored).is_break() {
                return Ok(());
            }
            segments.next();
        }
        Ok(segments.status()?)
    }

    fn scan_back(&self, lane: Lane, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut segments = self.iterator(lane, None)?;
        segments.seek_for_prev(segment_key(from));
        while let Some((key, stored)) = segments.item() {
            if visit(first_of(key)?, stored).is_break() {
                return Ok(());
            }
            segments.prev();
        }
        Ok(segments.status()?)
    }

    fn scan_state(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        // Read-only, a directory of format 1 has none.
        let Some(family) = self.db.cf_handle(STATE) else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.set_iterate_range(PrefixRange(prefix));
        // It is read once, at the start.
        options.fill_cache(false);
        let mut entries = self.db.raw_iterator_cf_opt(family, options);
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            entries.next();
        }
        Ok(entries.status()?)
    }

    fn reclaim(&self, lane: Lane, below: Seq) -> Result<u64, StoreError> {
        // The end is inclusive: a file whose last segment begins at `below` must stay.
        let Some(last) = below.0.checked_sub(1) else { return Ok(0) };
        let family = self.family(lane.name())?;
        // Files come and go beside this, and the database does not say which it deleted.
        let before = self.files(family, 1..LEVELS)?;
        self.db.delete_file_in_range_cf(family, segment_key(Seq::ZERO), segment_key(Seq(last)))?;
        Ok(before.saturating_sub(self.files(family, 1..LEVELS)?))
    }

    fn clean(&self, lane: Lane, below: Seq) -> Result<(), StoreError> {
        self.reclaim(lane, below)?;
        // By default a flush waits rather than hold writes up. `meta` and `state` as well: they are
        // small, and all who were written to must be flushed before the log can go.
        let family = self.family(lane.name())?;
        // What a trim left in small files because there were large ones.
        self.db.delete_range_cf_opt(family, segment_key(Seq::ZERO), segment_key(below), &self.unsynced)?;
        self.db.flush_cf(family)?;
        self.db.flush_cf(self.family(META)?)?;
        self.db.flush_cf(self.family(STATE)?)?;
        let mut options = CompactOptions::default();
        // The other lanes' compactions go on.
        options.set_exclusive_manual_compaction(false);
        // What is moved down as it is would keep its range deletion, in a file that nothing ever
        // touches again.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_cf_opt(family, None::<&[u8]>, Some(segment_key(below)), &options);
        Ok(())
    }

    fn condition(&self) -> Result<Condition, StoreError> {
        let mut lanes = [LaneCondition::default(); Lane::COUNT];
        for (lane, condition) in Lane::ALL.into_iter().zip(&mut lanes) {
            *condition = self.lane_condition(lane)?;
        }
        Ok(Condition {
            lanes,
            log_bytes: self.log_bytes(),
            flushed_bytes: self.options.get_ticker_count(Ticker::FlushWriteBytes),
            compacted_bytes: self.options.get_ticker_count(Ticker::CompactWriteBytes),
            stall_us: self.options.get_ticker_count(Ticker::StallMicros),
            writes_stopped: self.number(properties::IS_WRITE_STOPPED)? != 0,
            background_errors: self.number(properties::BACKGROUND_ERRORS)?,
        })
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        // Otherwise closing may wait for a compaction that nobody needs.
        self.db.cancel_all_background_work(true);
    }
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rocks").field(&self.path).finish()
    }
}

fn first_of(key: &[u8]) -> Result<Seq, StoreError> {
    segment_first(key).ok_or_else(|| StoreError {
        kind: StoreErrorKind::Corruption,
        message: format!("a lane holds a key of {} bytes", key.len()),
    })
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        let message = error.to_string();
        let kind = match error.kind() {
            rocksdb::ErrorKind::Corruption => StoreErrorKind::Corruption,
            // RocksDB passes the operating system's word on as text only.
            _ if NO_SPACE.iter().any(|text| message.contains(text)) => StoreErrorKind::NoSpace,
            _ => StoreErrorKind::Other,
        };
        Self { kind, message }
    }
}
