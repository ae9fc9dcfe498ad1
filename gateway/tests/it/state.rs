//! State of the front end and the entries it was submitted with: a death at any moment leaves both
//! or neither.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use penstock::outbox::{BodyCodec, Entry, Properties, StateOps};
use penstock_proto::Lane;

use crate::site::{Site, read};

/// Where the process that is killed writes; set for it alone.
const DIRECTORY: &str = "PENSTOCK_TEST_STATE_DIRECTORY";
/// How many submissions are acknowledged before each death.
const ACKNOWLEDGED: [u64; 4] = [1, 40, 3, 90];
/// Keys are deleted so many submissions after they were put.
const KEPT: u64 = 10;

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// Appends entries with state until it is killed. Not a test of its own: without the variable there is
/// nothing to do.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let site = Site::open(Path::new(&directory), BodyCodec::Lz4, false);
    let stored = site.state(b"");
    let last =
        stored.last().map_or(0, |(key, _)| u64::from_be_bytes(key.as_slice().try_into().expect("ours")));
    for n in last + 1.. {
        let payload = n.to_string();
        let mut state = StateOps::default();
        state.put(&key(n), payload.as_bytes());
        if let Some(old) = n.checked_sub(KEPT) {
            state.delete(&key(old));
        }
        site.append_with(&entry(&payload), &state);
        println!("acknowledged {n}");
    }
}

fn entry(payload: &str) -> Entry<'_> {
    Entry {
        lane: Lane::Telemetry,
        device: "pump-1",
        topic: "devices/pump-1/telemetry",
        received_ms: 1_772_366_400_000,
        qos: 2,
        retain: false,
        clock_synced: true,
        properties: Properties::default(),
        payload: payload.as_bytes(),
    }
}

fn start(directory: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", "state::child_appends_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Reads what the child says until `count` more submissions were acknowledged, then kills it. Returns the last.
fn kill_after(mut child: Child, count: u64) -> u64 {
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut acknowledged = (0, 0);
    while acknowledged.0 < count {
        let line = lines.next().expect("it goes on until it is killed").expect("text");
        if let Some((_, n)) = line.split_once("acknowledged ") {
            acknowledged = (acknowledged.0 + 1, n.parse().expect("a number"));
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    acknowledged.1
}

#[test]
fn state_is_there_exactly_where_its_entry_is_whenever_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("outbox");
    for count in ACKNOWLEDGED {
        let acknowledged = kill_after(start(&directory), count);
        let site = Site::open(&directory, BodyCodec::Lz4, false);
        let mut entries = Vec::new();
        read(&mut site.consumer("uplink", Lane::Telemetry), |_, record| {
            let payload = String::from_utf8(record.payload.to_vec()).expect("digits");
            entries.push(payload.parse::<u64>().expect("a number"));
        });
        let last = entries.last().copied().unwrap_or(0);
        assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is the last one there");
        assert_eq!(entries, (1..=last).collect::<Vec<_>>(), "each once, in order");
        let due: BTreeSet<u64> = (last.saturating_sub(KEPT) + 1..=last).collect();
        let state: Vec<_> = due.iter().map(|n| (key(*n).to_vec(), n.to_string().into_bytes())).collect();
        assert_eq!(site.state(b""), state, "the last {KEPT} up to {last}");
        site.close();
    }
}
