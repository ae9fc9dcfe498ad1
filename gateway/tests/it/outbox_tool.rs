//! `penstock outbox` on directories that a gateway uses, used, or that something happened to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use penstock::outbox::{BodyCodec, Entry, Properties};
use penstock_proto::{Identity, Lane, Seq};
use serde_json::Value;
use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub;
use crate::site::{ARCHIVE, Site, read};

/// What `penstock outbox` answered.
struct Answer {
    code: Option<i32>,
    said: String,
    remarks: String,
}

fn outbox(command: &str, directory: &Path, more: &[&str]) -> Answer {
    let mut program = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let output = program.args(["outbox", command]).arg(directory).args(more).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Answer { code: output.status.code(), said: text(output.stdout), remarks: text(output.stderr) }
}

impl Answer {
    /// What it said, once it is clear that all went well.
    fn well(self) -> String {
        assert_eq!((self.code, self.remarks.as_str()), (Some(0), ""), "{}", self.said);
        self.said
    }

    /// What it complained about with exit code 2, in one line.
    fn refused(self) -> String {
        assert_eq!(self.code, Some(2), "{}{}", self.said, self.remarks);
        assert_eq!(self.remarks.lines().count(), 1, "{}", self.remarks);
        self.remarks
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// The readings of an export, in order.
fn exported(directory: &Path, more: &[&str]) -> Vec<u64> {
    let said = outbox("export", directory, more).well();
    said.lines()
        .map(|line| {
            json(json(line)["payload"].as_str().expect("text"))["reading"].as_u64().expect("a number")
        })
        .collect()
}

#[test]
fn a_running_gateway_is_looked_into_and_not_disturbed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("outbox");
    let config = Config::default().set("uplink", "enabled = false");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let address = gateway.mqtt().to_owned();
    let acked = std::thread::scope(|scope| {
        let load = scope.spawn(|| Device::connect(&address, "pump-7").pump(8, 2000, |_| ()));
        while !load.is_finished() {
            let said = outbox("verify", &directory, &[]).well();
            assert!(said.contains("nothing is wrong"), "{said}");
        }
        load.join().expect("it publishes to the end")
    });
    assert_eq!(acked, 2000);
    check_stat(&directory);
    assert_eq!(exported(&directory, &["--lane", "telemetry"]), (1..=2000).collect::<Vec<_>>());
    let refused =
        outbox("replay", &directory, &["--consumer", "uplink", "--lane", "telemetry", "--to", "oldest"]);
    assert!(refused.refused().contains("is locked by another process"));
    assert_eq!(Device::connect(&address, "pump-8").pump(8, 100, |_| ()), 100, "it still takes messages");
    assert_eq!(gateway.stop().expect("it stops").code(), Some(0));
    assert_eq!(exported(&directory, &["--device", "pump-8"]), (1..=100).collect::<Vec<_>>());
}

fn check_stat(directory: &Path) {
    let stat = json(&outbox("stat", directory, &["--json"]).well());
    let telemetry = &stat["lanes"][Lane::Telemetry.index()];
    assert_eq!((&telemetry["head"], &telemetry["next"]), (&Value::from(1), &Value::from(2001)), "{stat}");
    assert_eq!(telemetry["backlog_messages"], 2000);
    assert!(telemetry["oldest_age_ms"].as_u64().is_some_and(|age| age < 600_000), "{stat}");
    assert_eq!(stat["epoch"], 1);
    let table = outbox("stat", directory, &[]).well();
    assert!(table.contains(stat["log"].as_str().expect("text")) && table.contains("telemetry"), "{table}");
}

#[test]
fn a_flipped_bit_in_a_file_is_named_with_lane_and_position() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("outbox");
    let config = Config::default().set("uplink", "enabled = false");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    assert_eq!(Device::connect(gateway.mqtt(), "pump-7").pump(1, 600, |_| ()), 600);
    assert!(gateway.stop().expect("it stops").success());
    // A start turns the log into files.
    gateway.restart().expect("it starts again");
    assert!(gateway.stop().expect("it stops").success());
    assert!(outbox("verify", &directory, &[]).well().contains("nothing is wrong"));

    let file = largest(&directory.join("database"), "sst");
    let mut bytes = fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(&file, bytes).expect("written");
    let answer = outbox("verify", &directory, &[]);
    assert_eq!(answer.code, Some(1), "{}{}", answer.said, answer.remarks);
    let problem =
        answer.said.lines().find_map(|line| line.strip_prefix("problem: telemetry ")).expect("named");
    let mut words = problem.split([' ', ':']);
    let first: u64 = words.next().and_then(|word| word.parse().ok()).expect("a position");
    assert!((2..600).contains(&first), "{problem}");
    assert!(answer.said.contains("PROBLEMS: 1\n"), "{}", answer.said);
    // What is before and behind it can still be had.
    let export = outbox("export", &directory, &[]);
    assert_eq!(export.code, Some(1));
    assert!(export.remarks.contains(&format!("telemetry {first} to ")), "{}", export.remarks);
    let lines = export.said.lines().count();
    assert!((1..600).contains(&lines), "{lines}");
    let last = json(export.said.lines().last().expect("a line"));
    assert_eq!(last["seq"], 600);
}

fn largest(folder: &Path, extension: &str) -> PathBuf {
    let paths = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let files = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    files.max_by_key(|path| path.metadata().expect("it is there").len()).expect("there is one")
}

#[test]
fn what_is_no_outbox_ends_with_2_and_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nowhere = folder.path().join("nowhere");
    for command in ["stat", "inspect", "verify", "export", "acknowledge"] {
        assert!(outbox(command, &nowhere, &[]).refused().contains("no such directory"), "{command}");
        assert!(outbox(command, folder.path(), &[]).refused().contains("is not an outbox"), "{command}");
    }
    let replay = ["--consumer", "uplink", "--lane", "telemetry", "--to", "1", "--yes"];
    assert!(outbox("replay", &nowhere, &replay).refused().contains("no such directory"));
    assert!(outbox("replay", folder.path(), &replay).refused().contains("is not an outbox"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was created");
}

#[test]
fn incidents_of_a_running_gateway_are_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("outbox");
    let config = Config::default().set("uplink", "enabled = false");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    assert_eq!(outbox("acknowledge", &directory, &[]).well(), "no incidents\n");
    let incident = directory.join("quarantine/1772366400000");
    fs::create_dir_all(&incident).expect("a folder");
    let report = r#"{"id": "1772366400000", "at": "2026-03-01T12:00:00Z", "cause": "short-log", "ranges":
        [{"lane": "telemetry", "first": 3, "last": 5, "messages": 3}], "proven": true, "detail": "x"}"#;
    fs::write(incident.join("incident.json"), report).expect("written");
    let line = "1772366400000: short-log at 2026-03-01T12:00:00Z: telemetry 3 to 5";
    assert_eq!(outbox("acknowledge", &directory, &[]).well(), format!("{line} (not acknowledged)\n"));
    assert!(outbox("stat", &directory, &[]).well().contains(&format!("not acknowledged: {line}\n")));
    assert!(outbox("acknowledge", &directory, &["7"]).refused().contains("there is no incident \"7\""));
    assert_eq!(outbox("acknowledge", &directory, &["--all"]).well(), "1772366400000: acknowledged\n");
    assert!(incident.join("acknowledged").exists());
    assert_eq!(outbox("acknowledge", &directory, &["--all"]).well(), "nothing to acknowledge\n");
    assert!(!outbox("stat", &directory, &[]).well().contains("not acknowledged"));
    assert_eq!(gateway.stop().expect("it stops").code(), Some(0));
}

#[test]
fn a_replay_is_sent_again_and_breaks_no_chain() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    let directory = folder.path().join("outbox");
    let session = |count: u64| {
        let site = Site::open(&directory, BodyCodec::Lz4, true);
        for n in 0..count {
            site.append(Lane::Telemetry, [entry(&format!("pump-{}", n % 7), &format!("{n}"))]);
        }
        site.start_uplink(&cloud.ready().kafka);
        let consumed = || site.outbox.consumer("uplink", Lane::Telemetry).is_err();
        hub::wait_for("the uplink", || consumed().then_some(()));
        site.close();
    };
    session(200);
    assert_eq!(positions(&cloud).values().sum::<usize>(), 200);

    let replay = ["--consumer", "uplink", "--lane", "telemetry", "--to", "51"];
    let asked = outbox("replay", &directory, &replay);
    assert!(asked.said.contains("sends 150 messages again: positions 51 to 200,"), "{}", asked.said);
    assert!(asked.refused().contains("add --yes"));
    session(0);
    assert_eq!(positions(&cloud).values().sum::<usize>(), 200, "nothing was changed");

    let done = outbox("replay", &directory, &[replay.as_slice(), &["--yes"]].concat()).well();
    assert!(done.contains("done: uplink goes on at position 51"), "{done}");
    assert!(outbox("verify", &directory, &[]).well().contains("nothing is wrong"));
    session(20);
    let twice = |seq: u64| (51..=200).contains(&seq);
    let due: BTreeMap<u64, usize> = (1..=220).map(|seq| (seq, if twice(seq) { 2 } else { 1 })).collect();
    assert_eq!(positions(&cloud), due);
    let (kept, said) = hub::verify(&cloud);
    assert!(kept && said.contains(" 150 duplicates, 0 reordered"), "{said}");

    // The other reader stands where it stood.
    let site = Site::open(&directory, BodyCodec::Lz4, true);
    let mut archive = site.consumer(ARCHIVE, Lane::Telemetry);
    let mut next = 1;
    read(&mut archive, |seq, _| {
        assert_eq!(seq, Seq(next));
        next += 1;
    });
    assert_eq!(next, 221);
    drop(archive);
    site.close();
}

fn entry<'a>(device: &'a str, payload: &'a str) -> Entry<'a> {
    Entry {
        lane: Lane::Telemetry,
        device,
        topic: "devices/pump/telemetry",
        received_ms: 1_772_366_400_000,
        qos: 1,
        retain: false,
        clock_synced: true,
        properties: Properties::default(),
        payload: payload.as_bytes(),
    }
}

/// The positions that arrived, each with how often.
fn positions(cloud: &testkit::cloud::Cloud) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for record in hub::records(cloud) {
        let header = record.headers.strip_prefix("penstock=").expect("the header");
        let identity: Identity = header.parse().expect("an identity");
        *found.entry(identity.seq.0).or_default() += 1;
    }
    found
}
