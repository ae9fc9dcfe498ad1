//! A directory of every released format opens, keeps every byte and goes on.
//!
//! `PENSTOCK_WRITE_FIXTURE=DIR cargo test … a_directory_of_today` writes one with the present code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use penstock::outbox::offline::Snapshot;
use penstock::outbox::{BodyCodec, Entry, Properties, Record, StateOps, StateSize, UserProperties};
use penstock_proto::{Lane, Seq};

use crate::hub;
use crate::site::{Site, read};

/// The segments of each lane by their number of records, in the order written. The last of telemetry is
/// written by a second start, which does not compress.
const LANES: [(Lane, &[u64]); 4] = [
    (Lane::Alerts, &[1, 2]),
    (Lane::Status, &[2]),
    (Lane::Telemetry, &[1, 10, 1, 12, 3, 9]),
    (Lane::Bulk, &[1]),
];
/// The uplink confirmed what is below, which ends within the segment of 12 records; those before it are
/// trimmed.
const CONFIRMED: Seq = Seq(15);
const HEAD: Seq = Seq(13);
const STATE: &[u8] = b"\x00\xffwhat a consumer keeps";
/// What the front end keeps, in key order; the last key is put by the second start, which also deletes
/// [`DELETED`].
const FRONT: &[Pair] =
    &[(b"\x01session", b""), (b"\x04message", b"\x00\xffpayload"), (b"\x05a/topic", b"retained")];
const DELETED: &[u8] = b"\x03queued";

/// A key and its value.
type Pair = (&'static [u8], &'static [u8]);

/// A record as a function of its lane and position.
struct Made {
    lane: Lane,
    seq: u64,
    device: String,
    topic: String,
    payload: Vec<u8>,
    user: Vec<u8>,
}

impl Made {
    fn new(lane: Lane, seq: u64) -> Self {
        let device = format!("pump-{}-ü", seq % 3);
        let topic = format!("devices/{device}/{lane}");
        let payload = match (lane, seq % 5) {
            // Neither text nor compressible.
            (Lane::Bulk, _) => noise(6000),
            (_, 3) => vec![0xff, 0xfe, u8::try_from(seq).expect("small"), 0],
            (_, 4) => Vec::new(),
            _ => format!("{{\"n\":{seq},\"pad\":\"{}\"}}", "abc ".repeat(40)).into_bytes(),
        };
        let mut user = Vec::new();
        UserProperties::push(&mut user, "unit", "°C");
        UserProperties::push(&mut user, "unit", &seq.to_string());
        Self { lane, seq, device, topic, payload, user }
    }

    fn properties(&self) -> Properties<'_> {
        if !self.seq.is_multiple_of(2) {
            return Properties::default();
        }
        Properties {
            tenant: Some("tenant-1"),
            site: Some("site-7"),
            class: Some("pump"),
            stream: Some("fast"),
            content_type: Some("application/json"),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            tracestate: Some("vendor=1"),
            response_topic: Some("answers/here"),
            correlation_data: Some(&[1, 0, 0xff]),
            expiry_seconds: Some(3600),
            device_time_ms: Some(1_700_000_000_000 + self.seq),
            user: UserProperties::new(&self.user).expect("just encoded"),
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            lane: self.lane,
            device: &self.device,
            topic: &self.topic,
            received_ms: 1_772_366_400_000 + self.seq * 1000,
            qos: u8::try_from(self.seq % 3).expect("small"),
            retain: self.seq.is_multiple_of(4),
            clock_synced: !self.seq.is_multiple_of(7),
            properties: self.properties(),
            payload: &self.payload,
        }
    }

    fn check(&self, found: &Record<'_>) {
        let Entry { lane: _, device, topic, received_ms, qos, retain, clock_synced, properties, payload } =
            self.entry();
        let due = Record { device, topic, received_ms, qos, retain, clock_synced, properties, payload };
        assert_eq!(*found, due, "{} {}", self.lane, self.seq);
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// Appends records `first..first + count` of `lane` as one segment.
fn append(site: &Site, lane: Lane, first: u64, count: u64) {
    let made: Vec<Made> = (first..first + count).map(|seq| Made::new(lane, seq)).collect();
    site.append(lane, made.iter().map(Made::entry));
}

fn write(directory: &Path) {
    let site = Site::open(directory, BodyCodec::Lz4, false);
    let mut last = None;
    for (lane, counts) in LANES {
        let mut first = 1;
        for (place, count) in counts.iter().enumerate() {
            if lane == Lane::Telemetry && place + 1 == counts.len() {
                last = Some((lane, first, *count));
            } else {
                append(&site, lane, first, *count);
            }
            first += count;
        }
    }
    let (last_key, others) = FRONT.split_last().expect("there are several");
    let mut state = StateOps::default();
    others.iter().for_each(|(key, value)| state.put(key, value));
    state.put(DELETED, b"queued");
    site.change(&state);
    let mut consumer = site.consumer("uplink", Lane::Telemetry);
    read(&mut consumer, |_, _| ());
    consumer.commit(CONFIRMED, STATE.to_vec());
    drop(consumer);
    let head = || Snapshot::open(directory).expect("readable").lane(Lane::Telemetry).head();
    hub::wait_for("the trim", || (head() == HEAD).then_some(()));
    site.close();
    let site = Site::open(directory, BodyCodec::None, false);
    let (lane, first, count) = last.expect("telemetry has a last segment");
    append(&site, lane, first, count);
    let mut state = StateOps::default();
    state.put(last_key.0, last_key.1);
    state.delete(DELETED);
    site.change(&state);
    site.close();
    // Large, and made again wherever it is opened.
    fs::remove_file(directory.join("ballast")).expect("there is one");
    // What the database writes for people names this machine and is no part of the format.
    for entry in fs::read_dir(directory.join("database")).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("LOG") || name.starts_with("OPTIONS") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
}

/// Opens a copy of `directory`, compares every record, appends, and reads that too.
fn check(directory: &Path, state: &[Pair]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("outbox");
    copy_all(directory, &copy);
    let (code, said) = verify(&copy);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing is wrong"), "{said}");

    let site = Site::open(&copy, BodyCodec::Lz4, false);
    assert_eq!(site.outbox.epoch().0, 3);
    let front: Vec<_> = state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(site.state(b""), front);
    let mut state = StateOps::default();
    state.put(b"\x06new", b"new");
    site.change(&state);
    assert_eq!(site.state(b"\x06"), [(b"\x06new".to_vec(), b"new".to_vec())]);
    for (lane, counts) in LANES {
        let (end, mut due) = (counts.iter().sum::<u64>() + 1, 1);
        let mut consumer = site.consumer("uplink", lane);
        if lane == Lane::Telemetry {
            assert_eq!(consumer.progress(), (CONFIRMED, STATE));
            due = HEAD.0;
        }
        for more in [false, true] {
            if more {
                append(&site, lane, end, 2);
            }
            read(&mut consumer, |seq, record| {
                assert_eq!(seq.0, due, "{lane}");
                Made::new(lane, due).check(record);
                due += 1;
            });
            assert_eq!(due, if more { end + 2 } else { end }, "{lane}");
        }
    }
    site.close();
    let (code, said) = verify(&copy);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(Snapshot::open(&copy).expect("readable").format(), (2, 2), "whatever it was before");
}

fn verify(directory: &Path) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_penstock")).args(["outbox", "verify"]).arg(directory).output();
    let output = output.expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).join("outbox")
}

pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn a_directory_of_format_1_is_read_to_the_last_byte_and_goes_on() {
    let directory = fixture("outbox-v1");
    let snapshot = Snapshot::open(&directory).expect("it is in the repository");
    assert_eq!(snapshot.format(), (1, 1));
    assert_eq!(snapshot.lane(Lane::Telemetry).head(), HEAD);
    assert_eq!(snapshot.state().expect("read-only there is none"), StateSize::default());
    drop(snapshot);
    check(&directory, &[]);
}

#[test]
fn a_directory_of_format_2_is_read_to_the_last_byte_and_goes_on() {
    let directory = fixture("outbox-v2");
    let snapshot = Snapshot::open(&directory).expect("it is in the repository");
    assert_eq!(snapshot.format(), (2, 2));
    assert_eq!(snapshot.lane(Lane::Telemetry).head(), HEAD);
    let bytes = FRONT.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    assert_eq!(snapshot.state().expect("readable"), StateSize { keys: 3, bytes });
    drop(snapshot);
    check(&directory, FRONT);
}

#[test]
fn a_directory_of_today_is_read_to_the_last_byte_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = std::env::var_os("PENSTOCK_WRITE_FIXTURE")
        .map_or_else(|| folder.path().join("outbox"), PathBuf::from);
    write(&directory);
    check(&directory, FRONT);
}
