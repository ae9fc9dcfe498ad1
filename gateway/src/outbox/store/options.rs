//! With which settings RocksDB runs, each with its reason.

use penstock_proto::Lane;
use rocksdb::statistics::StatsLevel;
use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, DBCompactionStyle, DBCompressionType,
    DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME, LogLevel, Options,
};

use super::Open;

pub(super) const META: &str = "meta";
/// The state of the front end, unless it was replaced; directories of format 1 have no such family.
pub(super) const STATE: &str = "state";
/// Memory that a lane collects before it becomes a file: the floor of space that can be returned,
/// and what an opening after a crash replays.
const LANE_BUFFER_BYTES: usize = 16 << 20;
const META_BUFFER_BYTES: usize = 1 << 20;
/// State comes and goes: what is deleted before its buffer is full hardly reaches a file.
const STATE_BUFFER_BYTES: usize = 8 << 20;
const STATE_TABLE_BYTES: u64 = 8 << 20;
/// Below this much, a trim is likely to meet its segments before they reach a file.
pub(in crate::outbox) const IN_MEMORY_BYTES: u64 = LANE_BUFFER_BYTES as u64 / 2;
const BLOCK_BYTES: usize = 32 << 10;
const BLOCK_CACHE_BYTES: usize = 16 << 20;

/// Most bytes per second that flushes and compactions write, and the step in which they get them.
const FILES_BYTES_PER_SECOND: i64 = 256 << 20;
const FILES_STEP_MICROS: i64 = 4_000;
/// How often, of so many times, a compaction is let before a flush that waits: RocksDB's own value.
const FILES_FAIRNESS: i32 = 10;

// Each option says why it has its value.

pub(super) fn database_options(how: Open) -> Options {
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
    // Nor may it have the disk to itself: a buffer written at full speed holds up the syncs of the next
    // commits by 3 to 6 ms. More than this no log here takes in; if one does, publishes are withheld.
    options.set_ratelimiter(FILES_BYTES_PER_SECOND, FILES_STEP_MICROS, FILES_FAIRNESS);
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

/// A family per lane, `meta`, these of `state`, and the one that every database has, which stays empty: left to
/// itself it would have a buffer of 64 MiB, and a log file's room on the disk is taken ahead for the largest buffer.
pub(super) fn families(state: &[String]) -> Vec<ColumnFamilyDescriptor> {
    families_with(state, &Cache::new_lru_cache(BLOCK_CACHE_BYTES), Compaction::Automatic)
}

/// The same for [`super::rocks::RocksEngine`] when it replaces the state: no compaction may meet what is damaged.
pub(super) fn families_at_rest(state: &[String]) -> Vec<ColumnFamilyDescriptor> {
    families_with(state, &Cache::new_lru_cache(BLOCK_CACHE_BYTES), Compaction::Never)
}

/// Whether `state` is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compaction {
    Automatic,
    Never,
}

fn families_with(state: &[String], cache: &Cache, compaction: Compaction) -> Vec<ColumnFamilyDescriptor> {
    let lanes = Lane::ALL.map(|lane| ColumnFamilyDescriptor::new(lane.name(), lane_options(cache)));
    let others = [META, DEFAULT_COLUMN_FAMILY_NAME];
    let others = others.map(|name| ColumnFamilyDescriptor::new(name, meta_options(cache)));
    let state = state.iter().map(|name| {
        let mut options = state_options(cache);
        options.set_disable_auto_compactions(compaction == Compaction::Never);
        ColumnFamilyDescriptor::new(name, options)
    });
    lanes.into_iter().chain(others).chain(state).collect()
}

/// Options for a family of `state` that is created beside those that are open: its blocks are cached with the
/// others' from the next opening on.
pub(super) fn new_state_options() -> Options {
    const CACHE_BYTES: usize = 1 << 20;
    state_options(&Cache::new_lru_cache(CACHE_BYTES))
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
