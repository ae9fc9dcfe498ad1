//! Starting: numbering goes on, nothing acknowledged is missing, and every refusal names its reason.

use std::fs;
use std::path::PathBuf;

use penstock_proto::LogId;

use super::super::OnMissingRange;
use super::super::keys::{self, Format, MetaKey};
use super::super::sidecar::{Mark, Sidecar};
use super::super::store::{Change, Open, Store as _};
use super::*;

#[test]
fn numbering_goes_on_in_a_new_epoch() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a", "b"]).unwrap();
    running.append(Lane::Alerts, &["c"]).unwrap();
    let before = running.outbox.status();
    let running = running.restarted();
    let after = running.outbox.status();
    assert_eq!((after.log, after.epoch.0), (before.log, before.epoch.0 + 1));
    assert_eq!(after.lanes.map(|lane| lane.next), before.lanes.map(|lane| lane.next));
    assert_eq!(after.backlog_bytes, before.backlog_bytes);
    running.append(Lane::Telemetry, &["d"]).unwrap();
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["a", "b", "d"]));
}

#[test]
fn an_empty_lane_keeps_its_numbering() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a", "b"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    consumer.commit(Seq(3), Vec::new());
    drop(consumer);
    running.memory.wait_firsts(Lane::Telemetry, &[]);
    let running = running.restarted();
    running.append(Lane::Telemetry, &["c"]).unwrap();
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(3, &["c"]));
    let backlog = running.outbox.status().backlog_bytes;
    assert_eq!(backlog, encoded(Lane::Telemetry, &["c"]).bytes() as u64);
}

#[test]
fn two_logs_differ_in_their_id() {
    assert_ne!(Running::new().outbox.log(), Running::new().outbox.log());
}

/// Runs some traffic on RocksDB and returns a copy of the directory as a killed process leaves it.
pub(super) fn killed(segments: u64) -> (TempDir, LogId) {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outbox = open_rocks(directory.path()).unwrap();
    let done = Arc::default();
    for n in 0..segments {
        append(&outbox, &done, Lane::Telemetry, &[&format!("{n} {}", "x".repeat(2000))]).unwrap();
    }
    let mut consumer = outbox.consumer("uplink", Lane::Telemetry).unwrap();
    consumer.try_next(1).unwrap().expect("the first segment");
    consumer.commit(Seq(2), b"state".to_vec());
    let last = format!("{segments} this group carries the progress");
    append(&outbox, &done, Lane::Telemetry, &[&last]).unwrap();
    copy_directory(directory.path(), copy.path());
    let log = outbox.log();
    close(&outbox);
    (copy, log)
}

pub(super) fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_killed_process_leaves_everything_acknowledged() {
    let (directory, log) = killed(50);
    let outbox = open_rocks(directory.path()).unwrap();
    assert_eq!((outbox.log(), outbox.epoch().0), (log, 2));
    let mut consumer = outbox.consumer("uplink", Lane::Telemetry).unwrap();
    assert_eq!(consumer.progress(), (Seq(2), b"state".as_slice()));
    let all = read(&mut consumer);
    assert!(all.iter().map(|(seq, _)| *seq).eq(2..=51), "all but what was trimmed");
    assert!(all.iter().all(|(seq, payload)| payload.starts_with(&format!("{} ", seq - 1))));
    append(&outbox, &Arc::default(), Lane::Telemetry, &["new"]).unwrap();
    assert_eq!(read(&mut consumer), expected(52, &["new"]));
    assert!(!directory.path().join("wal-aside").exists());
    close(&outbox);
}

#[test]
fn a_torn_tail_that_was_never_acknowledged_is_no_loss() {
    let (directory, _) = killed(10);
    let log = only_log(directory.path());
    let mut bytes = fs::read(&log).unwrap();
    bytes.extend_from_slice(&[0x5a; 3000]);
    fs::write(&log, bytes).unwrap();
    let outbox = open_rocks(directory.path()).expect("all that was acknowledged is there");
    assert_eq!(outbox.status().lanes[Lane::Telemetry.index()].next, Seq(12));
    close(&outbox);
}

pub(super) fn only_log(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory.join("database")).unwrap().flatten();
    let largest = entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        .max_by_key(|entry| entry.metadata().unwrap().len());
    largest.expect("there is a write-ahead log").path()
}

fn check_refused(damage: impl FnOnce(&Running), expected: impl FnOnce(&OpenError) -> bool) -> String {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    close(&running.outbox);
    damage(&running);
    let refuse = |config: &mut Config| config.on_missing_range = OnMissingRange::Refuse;
    let again = Running::again(Arc::clone(&running.directory), running.memory.clone(), refuse);
    let error = again.map(|_| ()).expect_err("refused");
    assert!(expected(&error), "{error}");
    let text = error.to_string();
    assert!(text.contains(&running.directory.path().display().to_string()), "{text}");
    text
}

fn mark_file(running: &Running) -> PathBuf {
    running.directory.path().join("high-water")
}

#[test]
fn a_missing_high_water_mark_is_refused_once_the_log_is_used() {
    check_refused(
        |running| fs::remove_file(mark_file(running)).unwrap(),
        |error| matches!(error, OpenError::NoHighWaterMark { .. }),
    );
    let unused = Running::new();
    close(&unused.outbox);
    fs::remove_file(mark_file(&unused)).unwrap();
    let again = Running::again(Arc::clone(&unused.directory), unused.memory.clone(), |_| {});
    assert_eq!(again.expect("creation was interrupted").outbox.log(), unused.outbox.log());
}

#[test]
fn a_damaged_high_water_mark_is_refused() {
    check_refused(
        |running| fs::write(mark_file(running), [7; 8192]).unwrap(),
        |error| matches!(error, OpenError::BadHighWaterMark { .. }),
    );
}

fn write_mark(running: &Running, log: LogId, telemetry: u64) {
    let (mut sidecar, mark) = Sidecar::open(&mark_file(running)).unwrap();
    let mut next = mark.next;
    next[Lane::Telemetry.index()] = Seq(telemetry);
    sidecar.write(&Mark { log, next, ..mark }).unwrap();
}

#[test]
fn the_high_water_mark_of_another_log_is_refused() {
    check_refused(
        |running| write_mark(running, LogId(1), 3),
        |error| matches!(error, OpenError::OtherLog { mark: LogId(1), .. }),
    );
}

#[test]
fn less_than_the_high_water_mark_is_refused_with_lane_and_positions() {
    let text = check_refused(
        |running| write_mark(running, running.outbox.log(), 8),
        |error| matches!(error, OpenError::Missing { expected: Seq(8), found: Seq(3), .. }),
    );
    assert!(text.contains("lane telemetry") && text.contains("at least 8, found 3"), "{text}");
}

#[test]
fn a_mark_without_its_database_is_refused() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    close(&running.outbox);
    let error = Running::again(Arc::clone(&running.directory), Memory::default(), |_| {}).map(|_| ());
    let error = error.expect_err("refused");
    assert!(matches!(error, OpenError::NoDatabase { .. }), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let newer = Format { writer_version: 7, min_reader_version: 6 };
    let text = check_refused(
        |running| running.memory.put_meta(&MetaKey::Format, newer.encode()),
        |error| matches!(error, OpenError::Newer { written: 7, needed: 6, ours: 2, .. }),
    );
    assert!(text.contains("needs a reader of version 6"), "{text}");
    let readable = Format { writer_version: 7, min_reader_version: 1 };
    let running = Running::new();
    running.memory.put_meta(&MetaKey::Format, readable.encode());
    let running = running.restarted();
    assert_eq!(running.memory.meta(&MetaKey::Format), Ok(Some(readable.encode())), "and not made older");
}

#[test]
fn an_older_format_is_opened_and_made_ours() {
    let older = Format { writer_version: 1, min_reader_version: 1 };
    let running = Running::new();
    running.memory.put_meta(&MetaKey::Format, older.encode());
    let running = running.restarted();
    assert_eq!(running.memory.meta(&MetaKey::Format), Ok(Some(keys::FORMAT.encode())));
}

#[test]
fn damaged_records_of_the_database_itself_are_refused() {
    for key in [MetaKey::Format, MetaKey::Log, MetaKey::Epoch, MetaKey::Head(Lane::Telemetry)] {
        check_refused(
            |running| running.memory.put_meta(&key, vec![99]),
            |error| matches!(error, OpenError::BadMeta { .. }),
        );
    }
}

#[test]
fn a_damaged_or_missing_segment_at_the_end_is_refused() {
    check_refused(
        |running| running.memory.damage(Lane::Telemetry, Seq(2), |stored| Some(stored[..70].to_vec())),
        |error| matches!(error, OpenError::Damaged { lane: Lane::Telemetry, first: Seq(2), .. }),
    );
    check_refused(
        |running| {
            let directory = Arc::clone(&running.directory);
            let again = Running::again(directory, running.memory.clone(), |_| {}).unwrap();
            again.append(Lane::Telemetry, &["c"]).unwrap();
            close(&again.outbox);
            running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
        },
        |error| matches!(error, OpenError::Gap { from: Seq(2), to: Seq(3), .. }),
    );
}

#[test]
fn a_directory_in_use_is_refused() {
    let running = Running::new();
    let again = Running::again(Arc::clone(&running.directory), running.memory.clone(), |_| {});
    assert!(matches!(again.map(|_| ()), Err(OpenError::Locked { .. })));
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("holiday.jpg"), "beach").unwrap();
    let error = open_rocks(directory.path()).expect_err("not ours");
    assert!(matches!(&error, OpenError::NotAnOutbox { found, .. } if found == "holiday.jpg"), "{error}");
}

#[test]
fn a_creation_that_was_interrupted_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    // A database that has its files and nothing in it: the mark is written last.
    let store = RocksEngine.open(&directory.path().join("database"), Open::Create).unwrap();
    drop(store);
    let outbox = open_rocks(directory.path()).expect("created to the end");
    assert_eq!(outbox.epoch().0, 1);
    close(&outbox);
    assert!(directory.path().join("high-water").exists());
}

#[test]
fn a_consumer_that_was_away_goes_on_at_the_oldest_entry() {
    let running = Running::new();
    for payload in ["a", "b", "c"] {
        running.append(Lane::Telemetry, &[payload]).unwrap();
    }
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    consumer.commit(Seq(3), Vec::new());
    drop(consumer);
    running.memory.wait_firsts(Lane::Telemetry, &[3]);
    close(&running.outbox);
    let stale = keys::Progress { low: Seq(2), floor: Seq(2), bytes_before: 1, state: vec![1] };
    let key = MetaKey::Progress(Lane::Telemetry, "uplink".to_owned());
    running.memory.put_meta(&key, stale.encode());
    let again = Running::again(Arc::clone(&running.directory), running.memory.clone(), |_| {}).unwrap();
    let mut consumer = again.consumer(Lane::Telemetry);
    assert_eq!(consumer.progress(), (Seq(3), [1].as_slice()));
    assert_eq!(read(&mut consumer), expected(3, &["c"]));
}

#[test]
fn rocksdb_keeps_what_a_write_says_and_deletes_files_only_below_a_trim() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let firsts = |store: &dyn super::super::store::Store| {
        let mut firsts = Vec::new();
        let collect = &mut |first: Seq, _: &[u8]| {
            firsts.push(first.0);
            ControlFlow::Continue(())
        };
        store.scan(Lane::Bulk, Seq(0), Seq(100), collect).unwrap();
        firsts
    };
    let store = RocksEngine.open(&path, Open::Create).unwrap();
    for first in 1..=9 {
        let segment = Change::Segment { lane: Lane::Bulk, first: Seq(first), stored: &[7; 100] };
        store.write(&[segment], true).unwrap();
    }
    // A reopening turns the write-ahead log into a file.
    drop(store);
    let store = RocksEngine.open(&path, Open::Existing).unwrap();
    store.write(&[Change::Trim { lane: Lane::Bulk, below: Seq(4) }], true).unwrap();
    assert_eq!(firsts(store.as_ref()), [4, 5, 6, 7, 8, 9]);
    store.reclaim(Lane::Bulk, Seq(9)).unwrap();
    assert_eq!(firsts(store.as_ref()), [4, 5, 6, 7, 8, 9], "the file holds 9, which must stay");
    let mut back = Vec::new();
    let collect = &mut |first: Seq, _: &[u8]| {
        back.push(first.0);
        ControlFlow::Continue(())
    };
    store.scan_back(Lane::Bulk, Seq(6), collect).unwrap();
    assert_eq!(back, [6, 5, 4]);
}

#[test]
fn a_log_file_takes_no_more_room_than_a_lane_gathers() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    for how in [Open::Create, Open::Existing] {
        let store = RocksEngine.open(&directory.path().join("database"), how).unwrap();
        let value = keys::encode_epoch(penstock_proto::Epoch(1));
        store.write(&[Change::Meta { key: MetaKey::Epoch, value }], true).unwrap();
        let taken = fs::metadata(only_log(directory.path())).unwrap().blocks() * 512;
        assert!((1..32 << 20).contains(&taken), "{how:?}: {taken} bytes");
    }
}
