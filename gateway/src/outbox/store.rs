//! The store: where groups become durable. The only file that names RocksDB.
//!
//! One column family per lane, keys in ascending order only, and `meta`. Nothing is ever
//! overwritten in a lane; trimming deletes from its beginning.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use penstock_proto::{Lane, Seq};
use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, DBRawIterator, DBRecoveryMode, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::error::{StoreError, StoreErrorKind};
use super::keys::{MetaKey, segment_first, segment_key};
use super::segment::Segment;

/// One change; all changes of a write become visible and durable together.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// A new segment; `first` is above every segment of the lane.
    Segment { lane: Lane, first: Seq, stored: &'a [u8] },
    /// A value in `meta`.
    Meta { key: MetaKey, value: Vec<u8> },
    /// A key in `meta` is gone.
    Forget { key: MetaKey },
    /// The segments that begin below `below` are gone.
    Trim { lane: Lane, below: Seq },
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

    /// Returns the space of what was trimmed below `below` to the file system. The trim must be
    /// durable: files are deleted at once, without a log record.
    fn reclaim(&self, lane: Lane, below: Seq) -> Result<(), StoreError>;
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
    path: PathBuf,
    synced: WriteOptions,
    unsynced: WriteOptions,
}

/// A store opened beside whoever owns it: it never writes, takes no lock, and sees the moment of its
/// opening. Files that its owner deletes afterwards stay readable, because all are open.
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

/// Memory that a lane collects before it becomes a file: the floor of space that can be returned,
/// and what an opening after a crash replays.
const LANE_BUFFER_BYTES: usize = 16 << 20;
const META_BUFFER_BYTES: usize = 1 << 20;
/// Below this much, a trim is likely to meet its segments before they reach a file.
pub(super) const IN_MEMORY_BYTES: u64 = LANE_BUFFER_BYTES as u64 / 2;
const BLOCK_BYTES: usize = 32 << 10;
const BLOCK_CACHE_BYTES: usize = 16 << 20;
const READAHEAD_BYTES: usize = 1 << 20;

// === impl RocksEngine ===

impl Engine for RocksEngine {
    fn exists(&self, path: &Path) -> bool {
        // Every RocksDB directory has this file from the end of its creation on.
        path.join("CURRENT").exists()
    }

    fn files(&self, path: &Path) -> io::Result<Vec<(PathBuf, FileKind)>> {
        let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let paths = entries.collect::<io::Result<Vec<_>>>()?;
        Ok(paths
            .into_iter()
            .filter_map(|path| Some((kind_of(&path)?, path)))
            .map(|(kind, path)| (path, kind))
            .collect())
    }

    fn open(&self, path: &Path, how: Open) -> Result<Box<dyn Store>, StoreError> {
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let families = Lane::ALL.map(|lane| ColumnFamilyDescriptor::new(lane.name(), lane_options(&cache)));
        let meta = ColumnFamilyDescriptor::new(META, meta_options(&cache));
        let db = DB::open_cf_descriptors(&database_options(how), path, families.into_iter().chain([meta]))?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Box::new(Rocks { db, path: path.to_owned(), synced, unsynced: WriteOptions::default() }))
    }
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
    // All lanes share one log, and a quiet lane would keep it growing.
    options.set_max_total_wal_size(128 << 20);
    // There is one writer: what serves many only costs.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_enable_pipelined_write(false);
    options.set_unordered_write(false);
    options.set_manual_wal_flush(false);
    // A flush must not pile up dirty pages in front of the next commit's sync.
    options.set_bytes_per_sync(1 << 20);
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
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // A backlog of 64 GiB has about a thousand files.
    options.set_max_open_files(-1);
    options
}

fn lane_options(cache: &Cache) -> Options {
    let mut options = family_options(cache);
    options.set_write_buffer_size(LANE_BUFFER_BYTES);
    options.set_max_write_buffer_number(4);
    // Keys only grow, so files move down without being rewritten. Two files are enough to start
    // that; files that stay in level 0 cannot be deleted by range.
    options.set_compaction_style(DBCompactionStyle::Level);
    options.set_level_zero_file_num_compaction_trigger(2);
    options.set_target_file_size_base(64 << 20);
    options.set_max_bytes_for_level_base(1 << 30);
    options
}

fn meta_options(cache: &Cache) -> Options {
    let mut options = family_options(cache);
    options.set_write_buffer_size(META_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::None);
    let mut table = BlockBasedOptions::default();
    // Values are whole segments, and reads are scans: large blocks, no filters.
    table.set_block_size(BLOCK_BYTES);
    table.set_format_version(6);
    table.set_checksum_type(ChecksumType::XXH3);
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
        options.set_paranoid_checks(bad_files == BadFiles::Refuse);
        let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
        let families = Lane::ALL.map(|lane| ColumnFamilyDescriptor::new(lane.name(), lane_options(&cache)));
        let meta = ColumnFamilyDescriptor::new(META, meta_options(&cache));
        let families = families.into_iter().chain([meta]);
        // The gateway's log is there and in use.
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false)?;
        let (synced, unsynced) = (WriteOptions::default(), WriteOptions::default());
        Ok(Self(Rocks { db, path: path.to_owned(), synced, unsynced }))
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

    fn batch(&self, changes: &[Change<'_>]) -> Result<WriteBatch, StoreError> {
        let bytes = |change: &Change<'_>| match change {
            Change::Segment { stored, .. } => stored.len(),
            Change::Meta { value, .. } => value.len(),
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
                    batch.delete_range_cf(
                        self.family(lane.name())?,
                        segment_key(Seq::ZERO),
                        segment_key(*below),
                    );
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

    fn reclaim(&self, lane: Lane, below: Seq) -> Result<(), StoreError> {
        // The end is inclusive: a file whose last segment begins at `below` must stay.
        let Some(last) = below.0.checked_sub(1) else { return Ok(()) };
        let family = self.family(lane.name())?;
        Ok(self.db.delete_file_in_range_cf(family, segment_key(Seq::ZERO), segment_key(Seq(last)))?)
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
            _ if message.contains("No space left on device") => StoreErrorKind::NoSpace,
            _ => StoreErrorKind::Other,
        };
        Self { kind, message }
    }
}
