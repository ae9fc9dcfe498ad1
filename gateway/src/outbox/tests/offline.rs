//! Looking into a directory from outside: with a gateway at work on it, after one, and after damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::super::keys::{self, MetaKey, Progress};
use super::super::offline::{
    self, Event, Found, HoleReason, LaneTotals, Place, Plan, Problem, Reason, Replay, Snapshot, Target, Walk,
    incidents, verify,
};
use super::super::sidecar::Sidecar;
use super::super::store::{Change, FileKind, Open};
use penstock_proto::Epoch;

use super::*;

/// A directory on disk, with an outbox at work on it or not.
struct Disk {
    directory: TempDir,
    done: Arc<Completion>,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), done: Arc::default() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn database(&self) -> PathBuf {
        self.path().join("database")
    }

    fn open(&self) -> Handle {
        open_rocks(self.path()).expect("it opens")
    }

    /// Appends `count` segments of one record of about 2 KB, which do not compress.
    fn append(&self, outbox: &Handle, count: u64) {
        for n in 0..count {
            append(outbox, &self.done, Lane::Telemetry, &[&format!("{n} {}", noise(2000, n))]).unwrap();
        }
    }

    /// A closed directory of `count` segments in telemetry, all in files and nothing in the log.
    fn filed(count: u64) -> Self {
        let disk = Self::new();
        let outbox = disk.open();
        disk.append(&outbox, count);
        close(&outbox);
        // Opening again turns the log into files.
        close(&disk.open());
        disk
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::open(self.path()).expect("it can be looked into")
    }

    fn write(&self, changes: &[Change<'_>]) {
        RocksEngine.open(&self.database(), Open::Existing).unwrap().write(changes, true).unwrap();
    }

    fn verify(&self) -> (Vec<Problem>, [LaneTotals; Lane::COUNT]) {
        let mut problems = Vec::new();
        let totals = verify(&mut self.snapshot(), &mut |event| {
            if let Event::Problem(problem) = event {
                problems.push(problem);
            }
        });
        (problems, totals.expect("it can be read"))
    }

    fn check_problems(&self, expected: &[(Place, &str)]) {
        let (problems, _) = self.verify();
        let places: Vec<&Place> = problems.iter().map(|problem| &problem.place).collect();
        assert_eq!(places, expected.iter().map(|(place, _)| place).collect::<Vec<_>>(), "{problems:?}");
        for (problem, (_, what)) in problems.iter().zip(expected) {
            assert!(problem.what.contains(what), "{problem}");
        }
    }

    /// Every file below, with its length and when it changed.
    fn files(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let metadata = entry.metadata().unwrap();
                found.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found
    }

    /// The file that holds telemetry; the others hold next to nothing.
    fn table_file(&self) -> PathBuf {
        let paths = fs::read_dir(self.database()).unwrap().flatten().map(|entry| entry.path());
        let tables = paths.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
        tables.max_by_key(|path| path.metadata().unwrap().len()).expect("there are files")
    }
}

/// Text that does not compress.
fn noise(bytes: usize, seed: u64) -> String {
    let mut state = seed;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:x}", state >> 20));
    }
    text
}

fn at(first: u64, end: u64) -> Place {
    Place::At(Lane::Telemetry, Seq(first), Seq(end))
}

/// Positions of good segments, and the rest as words.
fn walk(snapshot: &mut Snapshot, from: Option<u64>) -> (Vec<u64>, Vec<String>) {
    let mut walk = Walk::new(snapshot, Lane::Telemetry, from.map(Seq));
    let (mut good, mut other) = (Vec::new(), Vec::new());
    while let Some(found) = walk.step().unwrap() {
        match found {
            Found::Segment(stored) => good.extend(stored.segment.records().map(|(seq, _)| seq.0)),
            Found::Hole { first, end, .. } => other.push(format!("hole {first}..{end}")),
            Found::Bad { first, end, reason } => other.push(format!("{reason} {first}..{end}")),
        }
    }
    (good, other)
}

#[test]
fn a_directory_in_use_is_read_in_full_and_left_as_it_is() {
    let disk = Disk::new();
    let outbox = disk.open();
    disk.append(&outbox, 20);
    append(&outbox, &disk.done, Lane::Alerts, &["a", "b"]).unwrap();
    let before = disk.files();
    let mut snapshot = disk.snapshot();
    assert_eq!((snapshot.log(), snapshot.epoch()), (outbox.log(), outbox.epoch()));
    let status = outbox.status();
    for lane in Lane::ALL {
        let (seen, known) = (snapshot.lane(lane), status.lanes[lane.index()]);
        assert_eq!(
            (seen.next, seen.low(), seen.backlog_messages(), seen.backlog_bytes()),
            (known.next, known.low, known.backlog_messages, known.backlog_bytes),
            "{lane}"
        );
    }
    assert!(snapshot.oldest_ms(Lane::Telemetry).is_some_and(clock::plausible));
    assert_eq!(snapshot.oldest_ms(Lane::Bulk), None);
    assert_eq!(walk(&mut snapshot, None), ((1..=20).collect(), Vec::new()));
    assert_eq!(disk.verify().0, []);
    assert_eq!(disk.files(), before, "looking changed something");
    // What is appended afterwards belongs to the next snapshot.
    disk.append(&outbox, 1);
    assert_eq!(snapshot.lane(Lane::Telemetry).next, Seq(21));
    assert_eq!(disk.snapshot().lane(Lane::Telemetry).next, Seq(22));
    close(&outbox);
}

#[test]
fn a_directory_under_load_is_never_blamed() {
    let disk = Disk::new();
    let outbox = disk.open();
    disk.append(&outbox, 10);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut consumer = outbox.consumer("uplink", Lane::Telemetry).unwrap();
            // Enough between two confirmations to be flushed to files, which are then deleted.
            let large = noise(200_000, 7);
            for round in 1..=400 {
                append(&outbox, &disk.done, Lane::Telemetry, &[&large, "small"]).unwrap();
                while round % 130 == 0
                    && let Some(segment) = consumer.try_next(1 << 20).unwrap()
                {
                    consumer.commit(segment.last().next(), Vec::new());
                }
            }
        });
        let mut looks = 0_u32;
        while !load.is_finished() || looks < 3 {
            assert_eq!(disk.verify().0, [], "look {looks}");
            looks += 1;
        }
        load.join().unwrap();
    });
    close(&outbox);
}

#[test]
fn a_closed_directory_is_whole() {
    let disk = Disk::filed(30);
    let before = disk.files();
    let (problems, totals) = disk.verify();
    assert_eq!(problems, []);
    let telemetry = totals[Lane::Telemetry.index()];
    assert_eq!((telemetry.segments, telemetry.messages, telemetry.in_holes), (30, 30, 0));
    assert_eq!(telemetry.bytes, disk.snapshot().lane(Lane::Telemetry).stored_bytes());
    assert_eq!(disk.files(), before, "looking changed something");
    assert_eq!(walk(&mut disk.snapshot(), Some(28)).0, [28, 29, 30]);
}

#[test]
fn a_flipped_bit_in_a_file_is_found_and_the_rest_is_read() {
    let disk = Disk::filed(200);
    let file = disk.table_file();
    let mut bytes = fs::read(&file).unwrap();
    // Records begin with their number in text, so the place is that of one entry.
    let needle = b"100 ";
    let place =
        bytes.windows(needle.len()).position(|window| window == needle).expect("it is stored plainly");
    bytes[place + 500] ^= 4;
    fs::write(&file, bytes).unwrap();
    let (problems, totals) = disk.verify();
    let [Problem { place: Place::At(Lane::Telemetry, first, end), what }] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert!((*first..*end).contains(&Seq(101)), "{first} to {end}");
    assert!(what.contains("unreadable") && what.contains(".sst"), "{what}");
    let lost = end.0 - first.0;
    assert!(lost < 40, "a block is lost, not more: {first} to {end}");
    assert_eq!(totals[Lane::Telemetry.index()].messages, 200 - lost);
}

#[test]
fn a_file_that_is_gone_or_cut_is_found() {
    for damage in
        [(|file| fs::remove_file(file).unwrap()) as fn(&Path), |file| fs::write(file, [7; 100]).unwrap()]
    {
        let disk = Disk::filed(20);
        let outbox = disk.open();
        disk.append(&outbox, 5);
        close(&outbox);
        let file = disk.table_file();
        damage(&file);
        // A file of the first level is asked for every position, so nothing of the lane can be read.
        let (problems, _) = disk.verify();
        let [Problem { place, what }] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(*place, at(1, 26));
        assert!(what.contains(".sst"), "{what}");
    }
}

#[test]
fn damaged_and_missing_segments_are_told_with_their_positions() {
    let disk = Disk::filed(10);
    let mut stored = Vec::new();
    let store = RocksEngine.open(&disk.database(), Open::Existing).unwrap();
    let keep = &mut |_: Seq, bytes: &[u8]| {
        stored = bytes.to_vec();
        ControlFlow::Break(())
    };
    store.scan(Lane::Telemetry, Seq(5), Seq(6), keep).unwrap();
    drop(store);
    let middle = stored.len() / 2;
    stored[middle] ^= 1;
    disk.write(&[
        Change::Segment { lane: Lane::Telemetry, first: Seq(5), stored: &stored },
        Change::Segment { lane: Lane::Telemetry, first: Seq(15), stored: &stored },
    ]);
    disk.check_problems(&[
        (at(5, 6), "the checksum is"),
        (at(11, 15), "missing"),
        (at(15, 16), "the checksum is"),
    ]);
    assert_eq!(walk(&mut disk.snapshot(), Some(7)).0, [7, 8, 9, 10]);
    let view = disk.snapshot().lane(Lane::Telemetry).clone();
    assert!(view.end_unreadable.is_some_and(|problem| problem.contains("checksum")));
}

#[test]
fn a_lane_damaged_all_over_is_told_segment_by_segment() {
    let disk = Disk::filed(1);
    let bad: Vec<[u8; 4]> = (0..100_u32).map(u32::to_le_bytes).collect();
    let change = |(first, stored)| Change::Segment { lane: Lane::Telemetry, first: Seq(first), stored };
    let changes: Vec<_> = (2..).zip(bad.iter().map(<[u8; 4]>::as_slice)).map(change).collect();
    disk.write(&changes);
    let (good, other) = walk(&mut disk.snapshot(), None);
    assert_eq!((good, other.len()), (vec![1], 100));
    assert_eq!(other.last().unwrap(), "damaged: the segment is cut short 101..102");
}

#[test]
fn known_holes_are_announced_and_no_problem() {
    let disk = Disk::filed(10);
    let names = Lane::ALL.map(Lane::name).into_iter().chain(["meta", "state"]);
    let database = rocksdb::DB::open_cf(&rocksdb::Options::default(), disk.database(), names).unwrap();
    let telemetry = database.cf_handle("telemetry").unwrap();
    for gone in 4_u64..7 {
        database.delete_cf(telemetry, gone.to_be_bytes()).unwrap();
    }
    drop(database);
    let hole = |first: u64, end: u64| {
        let (at_ms, reason) = (1_700_000_000_000, keys::HoleReason::Missing);
        let hole = keys::Hole { end: Seq(end), at_ms, epoch: Epoch(2), reason };
        Change::Meta { key: MetaKey::Hole(Lane::Telemetry, Seq(first)), value: hole.encode() }
    };
    disk.write(&[hole(4, 6), hole(11, 15)]);
    let mut snapshot = disk.snapshot();
    let view = snapshot.lane(Lane::Telemetry);
    assert_eq!(view.next, Seq(15), "positions in a hole are never used again");
    assert_eq!(
        view.holes.iter().map(|hole| (hole.first.0, hole.end.0)).collect::<Vec<_>>(),
        [(4, 6), (11, 15)]
    );
    assert_eq!((view.holes[0].reason, view.holes[0].epoch.0), (HoleReason::Missing, 2));
    let other = ["hole 4..6", "missing 6..7", "hole 11..15"].map(str::to_owned).to_vec();
    assert_eq!(walk(&mut snapshot, None), (vec![1, 2, 3, 7, 8, 9, 10], other));
    disk.check_problems(&[(at(6, 7), "missing")]);
    assert_eq!(disk.verify().1[Lane::Telemetry.index()].in_holes, 6);
}

#[test]
fn less_than_was_acknowledged_and_more_than_there_is_are_problems() {
    let disk = Disk::filed(10);
    let (mut sidecar, mut mark) = Sidecar::open(&disk.path().join("high-water")).unwrap();
    mark.next[Lane::Telemetry.index()] = Seq(14);
    sidecar.write(&mark).unwrap();
    disk.check_problems(&[(at(11, 14), "acknowledged and missing")]);
    let progress = Progress { low: Seq(5), floor: Seq(5), bytes_before: 1, state: Vec::new() };
    let key = MetaKey::Progress(Lane::Telemetry, "uplink".to_owned());
    disk.write(&[Change::Meta { key: key.clone(), value: progress.encode() }]);
    let lane = Place::Lane(Lane::Telemetry);
    disk.check_problems(&[(at(11, 14), ""), (lane.clone(), "counts 1 bytes before 5")]);
    let progress = Progress { low: Seq(12), floor: Seq(12), ..progress };
    disk.write(&[Change::Meta { key, value: progress.encode() }]);
    disk.check_problems(&[
        (at(12, 14), ""),
        (lane, "12 is confirmed, and the lane ends at 11"),
        (at(11, 12), ""),
    ]);
    fs::remove_file(disk.path().join("high-water")).unwrap();
    assert_eq!(disk.verify().0[0].place, Place::Directory);
}

#[test]
fn a_log_damaged_in_the_middle_is_short_until_the_gateway_recovers_it() {
    let disk = Disk::new();
    let outbox = disk.open();
    disk.append(&outbox, 50);
    close(&outbox);
    let logs = RocksEngine.files(&disk.database()).unwrap().into_iter();
    let logs = logs.filter(|(_, kind)| *kind == FileKind::Log).map(|(path, _)| path);
    let log = logs.max_by_key(|path| path.metadata().unwrap().len()).expect("there is a log");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&log, bytes).unwrap();
    let (problems, totals) = disk.verify();
    let [Problem { place: Place::At(Lane::Telemetry, first, Seq(51)), what }] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert!(what.contains("acknowledged and missing"), "{what}");
    assert!((20..30).contains(&first.0), "the database gives up what is behind the damage: {first}");
    assert_eq!(totals[Lane::Telemetry.index()].messages, first.0 - 1);

    close(&disk.open());
    let (problems, totals) = disk.verify();
    assert_eq!(problems, []);
    let telemetry = totals[Lane::Telemetry.index()];
    assert_eq!((telemetry.messages + telemetry.in_holes, telemetry.in_holes > 0), (50, true), "{totals:?}");
    let [incident] = incidents::list(disk.path()).unwrap().try_into().expect("one");
    let report = incident.report.expect("readable");
    assert_eq!((incident.acknowledged, report.cause.as_str()), (false, "short-log"));
    assert_eq!(report.ranges.iter().map(|range| range.messages).sum::<u64>(), telemetry.in_holes);
}

#[test]
fn what_is_no_outbox_is_named() {
    let check = |path: &Path, expected: &str| {
        let error = Snapshot::open(path).expect_err("refused");
        assert!(error.is_usage(), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    };
    let folder = tempfile::tempdir().unwrap();
    check(&folder.path().join("nowhere"), "there is no such directory");
    assert!(!folder.path().join("nowhere").exists());
    check(folder.path(), "there is no database in it");
    fs::write(folder.path().join("high-water"), "x").unwrap();
    check(folder.path(), "its database is missing");
    check(&folder.path().join("high-water"), "it is a file");
    drop(
        RocksEngine
            .open(&folder.path().join("database"), Open::Create)
            .unwrap_or_else(|error| panic!("{error}")),
    );
    check(folder.path(), "its creation was not finished");
    let disk = Disk::filed(1);
    let newer = keys::Format { writer_version: 7, min_reader_version: 6 };
    disk.write(&[Change::Meta { key: MetaKey::Format, value: newer.encode() }]);
    check(disk.path(), "needs a reader of version 6, this is 2");
}

fn archived(disk: &Disk) -> Handle {
    let mut consumers = consumers();
    consumers.push(ConsumerId { name: "archive".to_owned(), lane: Lane::Telemetry });
    let opened =
        Service::open_with(Box::new(RocksEngine), config(disk.path()), &consumers, &Supervisor::new());
    opened.map(|(_, handle)| handle).expect("it opens")
}

#[test]
fn a_replay_sets_progress_back_and_rewrites_the_state() {
    let disk = Disk::new();
    let outbox = archived(&disk);
    for n in 0..6 {
        append(&outbox, &disk.done, Lane::Telemetry, &[&format!("a{n}"), &format!("b{n}")]).unwrap();
    }
    let prepare = |target| Replay::prepare(disk.path(), "uplink", Lane::Telemetry, target);
    assert!(matches!(prepare(Target::Oldest), Err(offline::Error::Claim(OpenError::Locked { .. }))));
    let commit = |name: &str, low: u64| {
        let mut consumer = outbox.consumer(name, Lane::Telemetry).unwrap();
        let all = read(&mut consumer);
        consumer.commit(Seq(low), format!("{name} {low}").into_bytes());
        all
    };
    let all = commit("uplink", 12);
    commit("archive", 3);
    wait_until(&outbox, "the trim", || disk.snapshot().lane(Lane::Telemetry).head() == Seq(3));
    close(&outbox);

    for (target, expected) in [(2, "oldest entry 3"), (13, "present position 12")] {
        let error = prepare(Target::At(Seq(target))).expect_err("refused");
        assert!(error.is_usage() && error.to_string().contains(expected), "{error}");
    }
    let unknown =
        Replay::prepare(disk.path(), "uplonk", Lane::Telemetry, Target::Oldest).expect_err("refused");
    assert!(unknown.to_string().contains("known there: archive, uplink"), "{unknown}");

    let replay = prepare(Target::At(Seq(6))).unwrap();
    let plan = Plan {
        consumer: "uplink".to_owned(),
        lane: Lane::Telemetry,
        first: Seq(6),
        end: Seq(12),
        messages: 6,
        bytes: 4 * encoded(Lane::Telemetry, &["a0", "b0"]).bytes() as u64,
        in_holes: 0,
    };
    assert_eq!(replay.plan(), &plan);
    drop(replay);
    let unchanged = disk.snapshot();
    assert_eq!(unchanged.lane(Lane::Telemetry).consumers[1].low(), Seq(12));
    drop(unchanged);
    let forget = |state: &[u8], low: Seq| [state, format!(" then {low}").as_bytes()].concat();
    prepare(Target::At(Seq(6))).unwrap().run(&forget).unwrap();
    assert_eq!(disk.verify().0, []);

    let outbox = archived(&disk);
    let mut consumer = outbox.consumer("uplink", Lane::Telemetry).unwrap();
    assert_eq!(consumer.progress(), (Seq(6), b"uplink 12 then 6".as_slice()));
    assert_eq!(read(&mut consumer), all[4..], "from the segment that holds it");
    drop(consumer);
    assert_eq!(outbox.status().lanes[Lane::Telemetry.index()].next, Seq(13));
    close(&outbox);
    prepare(Target::Oldest).unwrap().run(&forget).unwrap();
    let plan = prepare(Target::Oldest).unwrap().plan().clone();
    assert_eq!((plan.first, plan.end, plan.messages), (Seq(3), Seq(3), 0));
}

#[test]
fn a_log_that_is_short_is_not_touched_by_a_replay() {
    let disk = Disk::filed(5);
    let (mut sidecar, mut mark) = Sidecar::open(&disk.path().join("high-water")).unwrap();
    mark.next[Lane::Telemetry.index()] = Seq(9);
    sidecar.write(&mark).unwrap();
    let before = disk.files();
    let error = Replay::prepare(disk.path(), "uplink", Lane::Telemetry, Target::Oldest).expect_err("refused");
    assert!(error.to_string().contains("ends before its high-water mark 9"), "{error}");
    assert_eq!(disk.files(), before);
}

#[test]
fn incidents_are_listed_and_acknowledged_once() {
    let disk = Disk::filed(1);
    assert_eq!(incidents::list(disk.path()).unwrap(), []);
    let folder = disk.path().join("quarantine");
    for id in ["1700000000500", "900", "notes"] {
        fs::create_dir_all(folder.join(id)).unwrap();
    }
    let report = r#"{"id": "900", "at": "2026-01-01T00:00:00Z", "log": "00", "epoch": 3, "cause": "short-log",
        "ranges": [{"lane": "telemetry", "first": 5, "last": 9, "messages": 5}], "salvaged": [], "proven": true,
        "detail": "words"}"#;
    fs::write(folder.join("900/incident.json"), report).unwrap();
    let [first, second] = incidents::list(disk.path()).unwrap().try_into().expect("two");
    assert_eq!((first.id.as_str(), second.id.as_str()), ("900", "1700000000500"));
    let read = first.report.expect("readable");
    assert_eq!((read.cause.as_str(), read.ranges[0].last, read.proven), ("short-log", 9, true));
    assert!(second.report.is_err() && !second.acknowledged);
    assert!(incidents::acknowledge(disk.path(), "900").unwrap());
    assert!(!incidents::acknowledge(disk.path(), "900").unwrap(), "it was before");
    assert!(incidents::list(disk.path()).unwrap()[0].acknowledged);
    for id in ["901", "notes", "../quarantine/900", ""] {
        let error = incidents::acknowledge(disk.path(), id).expect_err("refused");
        assert!(error.is_usage(), "{error}");
    }
}

#[test]
fn reasons_read_as_words() {
    let missing = Problem { place: at(5, 9), what: Reason::Missing.to_string() };
    assert_eq!(missing.to_string(), "telemetry 5 to 8: missing");
    assert_eq!(at(5, 6).to_string(), "telemetry 5");
}
