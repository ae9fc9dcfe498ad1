//! The store as RocksDB keeps it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use penstock_proto::{Lane, Seq};
use rocksdb::statistics::Ticker;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBRawIterator,
    Options, PrefixRange, ReadOptions, WriteBatch, WriteOptions, properties,
};

use super::options::{META, STATE, database_options, families, families_at_rest, new_state_options};
use super::{Change, Condition, Engine, FileKind, LaneCondition, Open, Store, Visit};
use crate::outbox::error::{StoreError, StoreErrorKind};
use crate::outbox::keys::{self, MetaKey, segment_first, segment_key};
use crate::outbox::state::{StateOp, StateOps, VisitState};

/// RocksDB.
#[derive(Debug)]
pub(in crate::outbox) struct RocksEngine;

struct Rocks {
    db: DB,
    /// Those of the database; the way to its counters.
    options: Options,
    path: PathBuf,
    /// The family that is the state.
    state: String,
    synced: WriteOptions,
    unsynced: WriteOptions,
}

/// A store opened beside whoever owns it: it never writes, takes no lock, and sees the moment of its
/// opening. With [`BadFiles::Refuse`], files that its owner deletes afterwards stay readable, because
/// all are open.
#[derive(Debug)]
pub(in crate::outbox) struct ReadOnly(Rocks);

/// What a read-only opening does about files that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outbox) enum BadFiles {
    /// It fails. Right where the owner may have deleted a file in this moment.
    Refuse,
    /// It opens, and reading fails where the file is needed.
    Accept,
}

/// Tables that a read-only look keeps open if it cannot have all of them.
const TABLES_OPEN: i32 = 256;

/// A lane with more than this in its files is trimmed by deleting files alone. A range deletion would make the next
/// file reach from the lane's beginning to its newest segment, and moving that file down would rewrite everything
/// between: the whole backlog, again and again while it drains.
const RANGE_DELETION_TABLE_BYTES_MAX: u64 = 64 << 20;
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
        let (db, state) = open_database(&options, path, families)?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let path = path.to_owned();
        Ok(Box::new(Rocks { db, options, path, state, synced, unsynced: WriteOptions::default() }))
    }

    fn replace_state(&self, path: &Path, content: &StateOps) -> Result<(), StoreError> {
        let (mut db, state) = open_database(&database_options(Open::Existing), path, families_at_rest)?;
        let number = number_of(&state).unwrap_or(0).saturating_add(1);
        let name = name_of(number);
        db.create_cf(&name, &new_state_options())?;
        let missing = |name: &str| StoreError {
            kind: StoreErrorKind::Corruption,
            message: format!("column family {name} is missing"),
        };
        let family = db.cf_handle(&name).ok_or_else(|| missing(&name))?;
        let meta = db.cf_handle(META).ok_or_else(|| missing(META))?;
        let mut batch = WriteBatch::default();
        put_state(&mut batch, family, content);
        batch.put_cf(meta, MetaKey::State.encode(), keys::encode_state(number));
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        db.write_opt(batch, &synced)?;
        // In files at once: the log may be lost, the family in it may not.
        db.flush_cf(family)?;
        db.flush_cf(meta)?;
        db.cancel_all_background_work(true);
        Ok(())
    }
}

/// Opens the database with the families that `with` describes, and says which one of them the state is: created if
/// it is missing, and alone, since those that it replaced are dropped.
fn open_database(
    options: &Options,
    path: &Path,
    with: fn(&[String]) -> Vec<ColumnFamilyDescriptor>,
) -> Result<(DB, String), StoreError> {
    let there = if RocksEngine.exists(path) { states_in(&DB::list_cf(options, path)?) } else { Vec::new() };
    let mut db = DB::open_cf_descriptors(options, path, with(&there))?;
    let mut state = state_of(&db)?;
    if !there.contains(&state)
        && let Some(newest) = there.iter().max_by_key(|name| number_of(name))
    {
        // Its name was lost, which is no reason to lose it.
        state.clone_from(newest);
    }
    if db.cf_handle(&state).is_none() {
        db.create_cf(&state, &new_state_options())?;
    }
    for old in there.iter().filter(|name| **name != state) {
        db.drop_cf(old)?;
    }
    Ok((db, state))
}

/// The families among these that are the state, or were.
fn states_in(there: &[String]) -> Vec<String> {
    there.iter().filter(|name| number_of(name).is_some()).cloned().collect()
}

/// The name of the state's family after so many replacements.
fn name_of(number: u32) -> String {
    if number == 0 { STATE.to_owned() } else { format!("{STATE}-{number}") }
}

/// How often the state was replaced if this is its family.
fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix(STATE)?;
    if number.is_empty() { Some(0) } else { number.strip_prefix('-')?.parse().ok() }
}

/// The name of the family that is the state.
fn state_of(db: &DB) -> Result<String, StoreError> {
    let Some(meta) = db.cf_handle(META) else { return Ok(STATE.to_owned()) };
    let value = db.get_cf(meta, MetaKey::State.encode())?;
    Ok(name_of(value.as_deref().and_then(keys::decode_state).unwrap_or(0)))
}

fn put_state(batch: &mut WriteBatch, family: &ColumnFamily, ops: &StateOps) {
    ops.iter().for_each(|op| match op {
        StateOp::Put { key, value } => batch.put_cf(family, key, value),
        StateOp::Delete { key } => batch.delete_cf(family, key),
    });
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

// === impl ReadOnly ===

impl ReadOnly {
    /// Opens the store that stands at `path` as it is. Nothing is created or changed there.
    pub(in crate::outbox) fn open(path: &Path, bad_files: BadFiles) -> Result<Self, StoreError> {
        let mut options = database_options(Open::Existing);
        if bad_files == BadFiles::Accept {
            options.set_paranoid_checks(false);
            // Tables are opened when they are needed, also where only so many may be open at once.
            options.set_max_open_files(TABLES_OPEN);
        }
        let there = states_in(&DB::list_cf(&options, path)?);
        // The gateway's log is there and in use.
        let db = DB::open_cf_descriptors_read_only(&options, path, families(&there), false)?;
        let state = state_of(&db)?;
        let (synced, unsynced) = (WriteOptions::default(), WriteOptions::default());
        Ok(Self(Rocks { db, options, path: path.to_owned(), state, synced, unsynced }))
    }

    /// As [`Store::meta`].
    pub(in crate::outbox) fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.meta(key)
    }

    /// As [`Store::metas`].
    pub(in crate::outbox) fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError> {
        self.0.metas()
    }

    /// As [`Store::scan`].
    pub(in crate::outbox) fn scan(
        &self,
        lane: Lane,
        from: Seq,
        below: Seq,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.scan(lane, from, below, visit)
    }

    /// As [`Store::scan_state`].
    pub(in crate::outbox) fn scan_state(
        &self,
        prefix: &[u8],
        visit: &mut VisitState<'_>,
    ) -> Result<(), StoreError> {
        self.0.scan_state(prefix, visit)
    }

    /// As [`Store::scan_back`].
    pub(in crate::outbox) fn scan_back(
        &self,
        lane: Lane,
        from: Seq,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
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
                    put_state(&mut batch, self.family(&self.state)?, ops);
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
        let Some(family) = self.db.cf_handle(&self.state) else { return Ok(()) };
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

    fn scan_state_back(&self, visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        let Some(family) = self.db.cf_handle(&self.state) else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut entries = self.db.raw_iterator_cf_opt(family, options);
        entries.seek_to_last();
        while let Some((key, value)) = entries.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            entries.prev();
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
        self.db.flush_cf(self.family(&self.state)?)?;
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
