//! Damage: what can be read is read, the rest is announced, and no position is used twice.

use std::fs;
use std::path::PathBuf;

use super::super::error::Error;
use super::super::housekeeping;
use super::super::keys::{HoleReason, MetaKey, Progress};
use super::super::recovery;
use super::super::state::VisitState;
use super::super::store::{Change, Condition, Open, Store, Visit};
use super::super::{BodyCodec, OnMissingRange, StoreError, StoreErrorKind};
use super::opening::copy_directory;
use super::*;

/// Messages per lane that the damaged log holds.
const EACH: u64 = 60;
const ALL: usize = 180;
const LANES: [Lane; 3] = [Lane::Status, Lane::Telemetry, Lane::Bulk];

fn payload(lane: Lane, n: u64) -> String {
    format!("{lane} {n} {}", "x".repeat(1500))
}

/// A directory as a killed process leaves it, with several lanes in its log and nothing confirmed.
fn killed() -> TempDir {
    killed_after(|_, _| ())
}

/// The same; `between` happens after each round of one message per lane.
fn killed_after(between: impl Fn(&Handle, u64)) -> TempDir {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Uncompressed, so that the log has many blocks: damage costs the rest of its block.
    let plain = Config { body_codec: BodyCodec::None, ..config(directory.path()) };
    let outbox = open_with(Box::new(RocksEngine), plain).unwrap();
    let done = Arc::default();
    for n in 1..=EACH {
        for lane in LANES {
            append(&outbox, &done, lane, &[&payload(lane, n)]).unwrap();
        }
        between(&outbox, n);
    }
    copy_directory(directory.path(), copy.path());
    close(&outbox);
    copy
}

fn log_file(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory.join("database")).unwrap().flatten();
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.max_by_key(|entry| entry.metadata().unwrap().len()).expect("there is a write-ahead log").path()
}

fn flip_a_bit(file: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

fn refusing(directory: &Path) -> Config {
    Config { on_missing_range: OnMissingRange::Refuse, ..config(directory) }
}

fn open_refusing(directory: &Path) -> Result<Handle, OpenError> {
    open_with(Box::new(RocksEngine), refusing(directory))
}

/// Everything readable in `lane`, and how many of the first `EACH` positions are there.
fn check_lane(outbox: &Handle, lane: Lane) -> usize {
    let mut consumer = outbox.consumer("uplink", lane).unwrap();
    let all = read(&mut consumer);
    let own: Vec<_> = all.iter().filter(|(seq, _)| *seq <= EACH).collect();
    for (seq, text) in &own {
        assert_eq!(*text, payload(lane, *seq), "position {seq} of lane {lane} changed its entry");
    }
    own.len()
}

#[test]
fn one_flipped_bit_is_refused_by_name_and_then_salvaged_and_announced() {
    let directory = killed();
    let log = log_file(directory.path());
    flip_a_bit(&log, |length| length / 2);
    for _ in 0..2 {
        let error = open_refusing(directory.path()).expect_err("RocksDB alone would open it");
        let OpenError::Missing { expected, found, aside, .. } = &error else { panic!("{error}") };
        assert!(*expected == Seq(EACH + 1) && *found > Seq(1) && found < expected, "{error}");
        assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
        assert!(aside.join("1").join(log.file_name().unwrap()).exists(), "kept for salvage");
    }

    let outbox = open_rocks(directory.path()).expect("it goes on");
    let there: usize = LANES.map(|lane| check_lane(&outbox, lane)).iter().sum();
    assert!((ALL - 25..ALL).contains(&there), "{there} of {ALL}: one block of the log is lost, not its tail");
    let alerts = read(&mut outbox.consumer("uplink", Lane::Alerts).unwrap());
    let [(_, alert)] = alerts.as_slice() else { panic!("{alerts:?}") };
    let alert: serde_json::Value = serde_json::from_str(alert).unwrap();
    assert_eq!(alert["type"], "io.penstock.outbox.range-missing.v1");
    assert_eq!(alert["data"]["missing"], (ALL - there) as u64);

    // The positions behind the high-water mark are new, in a new epoch.
    for lane in LANES {
        assert!(outbox.status().lanes[lane.index()].next >= Seq(EACH + 1));
        append(&outbox, &Arc::default(), lane, &["new"]).unwrap();
        let new = read(&mut outbox.consumer("uplink", lane).unwrap()).pop().unwrap();
        assert!(new.0 > EACH && new.1 == "new", "{new:?}");
    }
    assert!(outbox.epoch() > penstock_proto::Epoch(1));
    housekeeping::everything(outbox.shared());
    assert_eq!(outbox.status().incidents, 1);
    close(&outbox);

    let incident = incident(directory.path());
    assert!(incident.join(log.file_name().unwrap()).exists(), "the evidence is kept");
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(incident.join("incident.json")).unwrap()).unwrap();
    assert_eq!((&report["cause"], &report["proven"]), (&"short-log".into(), &true.into()));
    assert!(!directory.path().join("wal-aside").exists() && !directory.path().join("salvage").exists());

    // It was said once, and is not said again.
    let again = open_refusing(directory.path()).expect("nothing unknown is missing");
    assert_eq!(LANES.map(|lane| check_lane(&again, lane)).iter().sum::<usize>(), there);
    assert_eq!(read(&mut again.consumer("uplink", Lane::Alerts).unwrap()).len(), 1);
    fs::write(incident.join("acknowledged"), "").unwrap();
    housekeeping::everything(again.shared());
    assert_eq!(again.status().incidents, 0);
    close(&again);
}

fn incident(directory: &Path) -> PathBuf {
    let mut folders: Vec<_> =
        fs::read_dir(directory.join("quarantine")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders.remove(0)
}

/// One lane became a file, so that the log has two parts and only the later one counts for that lane. With damage in
/// the earlier part RocksDB refuses to open.
#[test]
fn damage_that_the_database_refuses_to_open_is_salvaged_too() {
    let directory = killed_after(|outbox, n| {
        if n == EACH / 2 {
            let store = outbox.shared().store.read();
            store.as_deref().expect("it is open").clean(Lane::Status, Seq(1)).expect("it can be flushed");
        }
    });
    let logs = fs::read_dir(directory.path().join("database")).unwrap().flatten().map(|entry| entry.path());
    let mut logs: Vec<_> =
        logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    logs.sort();
    assert_eq!(logs.len(), 2, "{logs:?}");
    flip_a_bit(&logs[0], |_| 60_000);
    let error = open_refusing(directory.path()).expect_err("it is inconsistent");
    assert!(matches!(error, OpenError::Store { .. }), "{error}");
    let outbox = open_rocks(directory.path()).expect("it goes on");
    let there: usize = LANES.map(|lane| check_lane(&outbox, lane)).iter().sum();
    assert!((ALL - 25..ALL).contains(&there), "{there} of {ALL}");
    let alerts = read(&mut outbox.consumer("uplink", Lane::Alerts).unwrap());
    assert!(alerts[0].1.contains("unreadable-log"), "{alerts:?}");
    assert!(alerts[0].1.contains(&format!(r#""missing":{}"#, ALL - there)), "{alerts:?}");
    close(&outbox);
    close(&open_refusing(directory.path()).expect("it was said"));
}

#[test]
fn a_salvage_that_was_interrupted_begins_again() {
    let directory = killed();
    flip_a_bit(&log_file(directory.path()), |length| length / 3);
    open_refusing(directory.path()).expect_err("something is missing");
    // Another opening got this far: a half-made copy, and an old set that was on its way out.
    for name in ["salvage", "wal-aside.done", "wal-aside/2.unfinished"] {
        fs::create_dir_all(directory.path().join(name)).unwrap();
        fs::write(directory.path().join(name).join("000001.log"), "half").unwrap();
    }
    let outbox = open_rocks(directory.path()).expect("it goes on");
    let there: usize = LANES.map(|lane| check_lane(&outbox, lane)).iter().sum();
    assert!(there >= ALL - 25, "{there}");
    close(&outbox);
}

#[test]
fn a_log_that_lost_its_file_is_announced() {
    let directory = killed();
    fs::remove_file(log_file(directory.path())).unwrap();
    let error = open_refusing(directory.path()).expect_err("everything is missing");
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    let directory = killed();
    fs::remove_file(log_file(directory.path())).unwrap();
    let outbox = open_rocks(directory.path()).expect("it goes on");
    for lane in LANES {
        assert_eq!(check_lane(&outbox, lane), 0);
        assert!(outbox.status().lanes[lane.index()].next > Seq(EACH));
    }
    close(&outbox);
}

/// A disk that does not keep what was synced: the mark, synced once per second, still says that nothing is there.
#[test]
fn a_log_that_is_lost_before_the_mark_tells_of_an_entry_is_announced() {
    let (opened, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outbox = open_rocks(opened.path()).unwrap();
    copy_directory(opened.path(), directory.path());
    close(&outbox);
    fs::write(log_file(directory.path()), "").unwrap();
    let error = open_refusing(directory.path()).expect_err("a synced write is gone");
    assert!(matches!(error, OpenError::BadMeta { .. }), "{error}");
    let outbox = open_rocks(directory.path()).expect("it goes on");
    let alerts = read(&mut outbox.consumer("uplink", Lane::Alerts).unwrap());
    assert!(alerts.len() == 1 && alerts[0].1.contains(r#""proven":false"#), "{alerts:?}");
    close(&outbox);
    close(&open_refusing(directory.path()).expect("it was said"));
}

#[test]
fn without_its_mark_everything_readable_is_kept_and_no_position_is_used_again() {
    let directory = killed();
    fs::remove_file(directory.path().join("high-water")).unwrap();
    let error = open_refusing(directory.path()).expect_err("nobody knows what is missing");
    assert!(matches!(error, OpenError::NoHighWaterMark { .. }), "{error}");
    let outbox = open_rocks(directory.path()).expect("it goes on");
    for lane in LANES {
        assert_eq!(check_lane(&outbox, lane), ALL / LANES.len());
        append(&outbox, &Arc::default(), lane, &["new"]).unwrap();
        let new = read(&mut outbox.consumer("uplink", lane).unwrap()).pop().unwrap();
        assert!(new.0 > EACH + 1_000_000, "{new:?}");
    }
    let alerts = read(&mut outbox.consumer("uplink", Lane::Alerts).unwrap());
    assert!(alerts[0].1.contains(r#""proven":false"#), "{alerts:?}");
    close(&outbox);
    let again = open_refusing(directory.path()).expect("the mark is there again");
    close(&again);
}

#[test]
fn a_flipped_bit_in_a_table_costs_its_segment_and_no_more() {
    let directory = killed();
    // An opening turns the log into tables.
    close(&open_rocks(directory.path()).unwrap());
    let tables = fs::read_dir(directory.path().join("database")).unwrap().flatten().map(|entry| entry.path());
    let tables = tables.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let largest = tables.max_by_key(|path| fs::metadata(path).unwrap().len()).expect("there is a table");
    flip_a_bit(&largest, |length| length / 2);
    let outbox = open_rocks(directory.path()).expect("the ends are sound");
    let mut there = 0;
    for lane in LANES {
        let mut consumer = outbox.consumer("uplink", lane).unwrap();
        let deadline = clock::now() + PATIENCE;
        while consumer.progress().0 <= Seq(EACH) {
            assert!(clock::now() < deadline, "the committer makes a hole of what cannot be read");
            let Ok(Some(segment)) = consumer.try_next(1) else { continue };
            there += segment.records().filter(|(seq, _)| seq.0 <= EACH).count();
            consumer.commit(segment.last().next(), Vec::new());
        }
    }
    assert!((ALL - 25..ALL).contains(&there), "{there} of {ALL}");
    let alerts = read(&mut outbox.consumer("uplink", Lane::Alerts).unwrap());
    let missing = |(_, alert): &(u64, String)| {
        serde_json::from_str::<serde_json::Value>(alert).unwrap()["data"]["missing"].as_u64()
    };
    assert_eq!(alerts.iter().filter_map(missing).sum::<u64>(), (ALL - there) as u64);
    close(&outbox);
}

#[test]
fn a_damaged_segment_that_a_reader_meets_becomes_a_hole() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    for payload in ["a", "b", "c"] {
        running.append(Lane::Telemetry, &[payload]).unwrap();
    }
    running.memory.damage(Lane::Telemetry, Seq(2), |mut stored| {
        stored[70] ^= 1;
        Some(stored)
    });
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(consumer.try_next(1).unwrap().expect("the first is sound").first(), Seq(1));
    consumer.commit(Seq(2), Vec::new());
    let error = consumer.try_next(1).expect_err("the second is not");
    assert!(matches!(error, Error::Damaged { first: Seq(2), .. }), "{error}");
    wait_until(&running.outbox, "the hole", || !running.outbox.shared().holes.read().is_empty());
    assert_eq!(read(&mut consumer), expected(3, &["c"]));
    assert_eq!(consumer.progress().0, Seq(3), "the hole is confirmed with what was before it");
    let hole = running.outbox.shared().holes.read()[0];
    assert_eq!((hole.first, hole.hole.end, hole.hole.reason), (Seq(2), Seq(3), HoleReason::Damaged));
    let folder = incident(running.directory.path());
    assert!(folder.join("telemetry-2.segment").exists());
    let alerts = read(&mut running.consumer(Lane::Alerts));
    assert!(alerts[0].1.contains("damaged-segment"), "{alerts:?}");
    drop(consumer);

    let again = running.restarted();
    assert_eq!(again.consumer(Lane::Telemetry).progress().0, Seq(3));
    again.append(Lane::Telemetry, &["d"]).unwrap();
    let mut consumer = again.consumer(Lane::Telemetry);
    assert_eq!(read(&mut consumer), expected(3, &["c", "d"]));
    consumer.commit(Seq(5), Vec::new());
    drop(consumer);
    again.memory.wait_firsts(Lane::Telemetry, &[]);
    // Behind the lane's beginning nobody needs to know of it, now or later.
    wait_until(&again.outbox, "the hole to be forgotten", || again.outbox.shared().holes.read().is_empty());
    let last = again.restarted();
    assert!(last.outbox.shared().holes.read().is_empty());
}

#[test]
fn a_damaged_segment_holds_its_lane_where_going_on_is_not_allowed() {
    let running = Running::with(|config| {
        config.tail_cache_bytes = 0;
        config.on_missing_range = OnMissingRange::Refuse;
    });
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(1), |stored| Some(stored[..70].to_vec()));
    let mut consumer = running.consumer(Lane::Telemetry);
    for _ in 0..2 {
        let error = consumer.try_next(1).expect_err("it is cut short");
        assert!(matches!(error, Error::Damaged { first: Seq(1), .. }), "{error}");
        // A group later the committer has looked at the report.
        running.append(Lane::Bulk, &["b"]).unwrap();
    }
    assert!(running.outbox.shared().holes.read().is_empty());
}

/// The model found this: the lane began later and what was below was still stored.
#[test]
fn a_repair_trims_what_every_consumer_had_confirmed() {
    let running = Running::new();
    for payload in ["a", "b"] {
        running.append(Lane::Telemetry, &[payload]).unwrap();
    }
    running.append(Lane::Bulk, &["damaged"]).unwrap();
    close(&running.outbox);
    let progress = Progress { low: Seq(2), floor: Seq(2), bytes_before: 1, state: Vec::new() };
    let key = MetaKey::Progress(Lane::Telemetry, "uplink".to_owned());
    running.memory.put_meta(&key, progress.encode());
    running.memory.damage(Lane::Bulk, Seq(1), |stored| Some(stored[..70].to_vec()));
    let again = running.restarted();
    assert_eq!(again.memory.firsts(Lane::Telemetry), [2]);
    housekeeping::everything(again.outbox.shared());
    assert_eq!(again.memory.reclaimed(Lane::Telemetry), Seq(2));
    again.close();
}

#[test]
fn damage_that_cannot_be_reported_is_not_passed_over_and_stops_nothing_else() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    let quarantine = running.directory.path().join("quarantine");
    fs::write(&quarantine, "in the way").unwrap();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(1), |stored| Some(stored[..70].to_vec()));
    let mut consumer = running.consumer(Lane::Telemetry);
    for _ in 0..2 {
        consumer.try_next(1).expect_err("it is cut short");
        running.append(Lane::Bulk, &["b"]).unwrap();
    }
    assert_eq!(running.outbox.epoch().0, 1, "nothing was opened again");
    fs::remove_file(quarantine).unwrap();
    consumer.try_next(1).expect_err("it is reported now");
    wait_until(&running.outbox, "the hole", || !running.outbox.shared().holes.read().is_empty());
    assert!(consumer.try_next(1).unwrap().is_none());
}

#[test]
fn at_most_so_many_incidents_keep_a_report_and_all_are_announced() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    let quarantine = running.directory.path().join("quarantine");
    for id in 1..=256 {
        fs::create_dir_all(quarantine.join(id.to_string())).unwrap();
        fs::write(quarantine.join(id.to_string()).join("incident.json"), "{}").unwrap();
    }
    running.append(Lane::Telemetry, &["lost"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(1), |stored| Some(stored[..70].to_vec()));
    running.consumer(Lane::Telemetry).try_next(1).expect_err("it is cut short");
    wait_until(&running.outbox, "the hole", || !running.outbox.shared().holes.read().is_empty());
    assert_eq!(fs::read_dir(quarantine).unwrap().count(), 256);
    assert_eq!(read(&mut running.consumer(Lane::Alerts)).len(), 1);
}

#[test]
fn at_most_so_many_incidents_keep_evidence() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    let mut consumer = running.consumer(Lane::Telemetry);
    for n in 1..=6_u64 {
        running.append(Lane::Telemetry, &["lost"]).unwrap();
        running.append(Lane::Telemetry, &["kept"]).unwrap();
        running.memory.damage(Lane::Telemetry, Seq(2 * n - 1), |stored| Some(stored[..70].to_vec()));
        consumer.try_next(1).expect_err("it is cut short");
        let kept = Seq(2 * n);
        let shared = running.outbox.shared();
        wait_until(&running.outbox, "the hole", || {
            shared.pass_holes(Lane::Telemetry, Seq(2 * n - 1)) == kept
        });
        assert_eq!(read(&mut consumer), expected(kept.0, &["kept"]));
    }
    let folders = fs::read_dir(running.directory.path().join("quarantine")).unwrap().flatten();
    let files: Vec<usize> = folders.map(|folder| fs::read_dir(folder.path()).unwrap().count()).collect();
    assert_eq!((files.len(), files.iter().filter(|files| **files == 2).count()), (6, 4), "{files:?}");
}

/// A store whose blocks cannot be read between two positions, as after damage to a table.
#[derive(Debug)]
struct BadBlock {
    memory: Box<dyn Store>,
    bad: std::ops::Range<u64>,
}

impl Store for BadBlock {
    fn write(&self, changes: &[Change<'_>], sync: bool) -> Result<(), StoreError> {
        self.memory.write(changes, sync)
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.meta(key)
    }

    fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError> {
        self.memory.metas()
    }

    fn scan(&self, lane: Lane, from: Seq, below: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let failed =
            || StoreError { kind: StoreErrorKind::Corruption, message: "block checksum mismatch".to_owned() };
        let mut bad = false;
        self.memory.scan(lane, from, below, &mut |first, stored| {
            bad = self.bad.contains(&first.0);
            if bad { ControlFlow::Break(()) } else { visit(first, stored) }
        })?;
        if bad { Err(failed()) } else { Ok(()) }
    }

    fn scan_back(&self, lane: Lane, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.memory.scan_back(lane, from, visit)
    }

    fn scan_state(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        self.memory.scan_state(prefix, visit)
    }

    fn scan_state_back(&self, visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        self.memory.scan_state_back(visit)
    }

    fn reclaim(&self, lane: Lane, below: Seq) -> Result<u64, StoreError> {
        self.memory.reclaim(lane, below)
    }

    fn clean(&self, lane: Lane, below: Seq) -> Result<(), StoreError> {
        self.memory.clean(lane, below)
    }

    fn condition(&self) -> Result<Condition, StoreError> {
        self.memory.condition()
    }
}

#[test]
fn reading_goes_on_behind_a_block_that_cannot_be_read() {
    for bad in [1..2, 1..40, 7..8, 7..31, 30..31, 95..99, 90..101] {
        let running = Running::new();
        for n in 1..=100 {
            running.append(Lane::Bulk, &[&n.to_string()]).unwrap();
        }
        let memory = running.memory.clone();
        close(&running.outbox);
        let memory = Engine::open(&memory, Path::new(""), Open::Existing).unwrap();
        let store = BadBlock { memory, bad: bad.clone() };
        let findings = recovery::examine(&store, Lane::Bulk, Seq(bad.start), Seq(101), &[]).unwrap();
        let ranges: Vec<_> = findings.ranges().iter().map(|range| (range.first.0, range.end.0)).collect();
        assert_eq!(ranges, [(bad.start, bad.end)], "{bad:?}");
    }
}
