//! The gateway dies at every named moment at which a crash could leave something half done, and comes back on
//! what is there. `testkit::drill::points` is the table; `cargo xtask drill crash` draws from it at random.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::drill::points::{Point, Situation};
use testkit::drill::stage::{Birth, Death, EVENTS, Load, Outcome, Stage};
use testkit::gateway::{Config, Gateway};
use testkit::powercut::{Mode, PowerCut};

use crate::client::Device;

/// Longest wait for a point under load.
const WITHIN: Duration = Duration::from_secs(8);
/// How often a point is tried: an opening after a short life may have nothing left to do at it.
const TRIES: usize = 3;

#[test]
fn a_death_while_the_outbox_is_created_leaves_what_opens() {
    for point in Point::of(Situation::Creation) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [home, twin] = ["home", "twin"].map(|name| folder.path().join(name));
        for place in [&home, &twin] {
            std::fs::create_dir(place).expect("a folder");
        }
        let cut = PowerCut::prepare(&home.join("outbox"), &twin.join("outbox"), Mode::Strict);
        let cut = cut.expect("a twin").killed(&point.rule(point.numbers.0));
        let config = || Config::default().set("uplink", "enabled = false");
        let died = Gateway::start(&home, config().environment(cut.environment()));
        assert!(
            died.as_ref().is_err_and(|error| error.is_killed()),
            "{} was not reached: {died:?}",
            point.name
        );

        // The process alone died; then, that the power was cut.
        for place in [&home, &twin] {
            let mut gateway = Gateway::start(place, config())
                .unwrap_or_else(|error| panic!("{}, {}: {error}", point.name, place.display()));
            assert_eq!(Device::connect(gateway.mqtt(), "pump-7").pump(8, 50, |_| ()), 50);
            assert!(gateway.stop().expect("it stops").success(), "{}", point.name);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_death_under_load_or_while_opening() {
    let load = Load { seed: 1, devices: 30, rate: 1000, payload_bytes: 300, give_up_after: WITHIN };
    let points = Point::of(Situation::Load).chain(Point::of(Situation::Opening));
    die_at_each(points.collect(), load, Config::default());
}

#[test]
fn nothing_acknowledged_is_lost_by_a_death_while_files_are_written_or_removed() {
    let load = Load { seed: 2, devices: 30, rate: 2000, payload_bytes: 8000, give_up_after: WITHIN };
    let points = Point::of(Situation::Flush).chain(Point::of(Situation::Trim));
    die_at_each(points.collect(), load, Config::default().set("outbox", "body_codec = \"none\""));
}

/// A damaged log loses something, and says what. A death while it is repaired must not make that a silent loss.
#[test]
fn nothing_is_lost_in_silence_by_a_death_while_a_damaged_log_is_repaired() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("home");
    let cut = PowerCut::prepare(&home.join("outbox"), &folder.path().join("twin"), Mode::Strict);
    let cut = cut.expect("a twin");
    let load = Load { seed: 3, devices: 30, rate: 1000, payload_bytes: 300, give_up_after: SHORT * 5 };
    let config = Config::default().environment(cut.environment());
    let mut stage = Stage::set(folder.path(), &home, config, load).expect("everything starts");
    // What the cloud has cannot be missed.
    stage.cloud_is_there(false).expect("the cloud can go away");
    let mut missed = BTreeSet::new();
    for point in Point::of(Situation::Repair) {
        let armed = cut.clone().killed(&point.rule(point.numbers.0));
        let reached = (0..TRIES).any(|_| {
            assert_eq!(stage.end_life(SHORT).expect("it is killed"), Death::InTime, "before {}", point.name);
            damage_the_log(&home.join("outbox/database"));
            let born = stage.next_life(&home, armed.environment());
            born.map_err(|error| format!("at {}: {error}", point.name)).expect("it repairs")
                == Birth::Stillborn
        });
        if !reached {
            missed.insert(point.name);
            continue;
        }
        let born = stage.next_life(&home, cut.environment());
        let born = born.map_err(|error| format!("after {}: {error}", point.name)).expect("it repairs");
        assert_eq!(born, Birth::Ready);
    }
    stage.cloud_is_there(true).expect("the cloud can come back");
    let Outcome { report, incidents, .. } = stage.judge(SHORT).expect("the fleet judges");
    assert_eq!(missed, BTreeSet::new(), "never reached");
    let announced: u64 = incidents.iter().map(|incident| messages(incident)).sum();
    let lost = report.lost.expect("it was judged");
    assert!(lost <= announced, "{lost} are lost, {announced} announced");
    assert!(announced > 0, "a damaged log was taken for whole");
    let kept = std::fs::read_dir(home.join("outbox/quarantine")).expect("incidents are kept").count();
    assert_eq!(kept, incidents.len(), "no death leaves half an incident for ever");
    assert_eq!((report.reordered, report.unexpected), (Some(0), Some(0)), "{:?}", report.reasons);
}

/// What is let go is announced in the same batch, so a death loses no more than was announced.
#[test]
fn nothing_is_dropped_in_silence_by_a_death_while_the_oldest_is_let_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("home");
    let cut = PowerCut::prepare(&home.join("outbox"), &folder.path().join("twin"), Mode::Strict);
    let cut = cut.expect("a twin");
    let load = Load { seed: 4, devices: 30, rate: 2500, payload_bytes: 8000, give_up_after: SHORT * 5 };
    let mut config = Config::default().environment(cut.environment());
    for line in ["body_codec = \"none\"", "bytes_max = \"32MiB\"", "on_full = \"drop-oldest\""] {
        config = config.set("outbox", line);
    }
    let mut stage = Stage::set(folder.path(), &home, config, load).expect("everything starts");
    stage.cloud_is_there(false).expect("the cloud can go away");
    let mut missed = BTreeSet::new();
    for point in Point::of(Situation::Dropping) {
        stage.gateway().kill().expect("it can be killed");
        let armed = cut.clone().killed(&point.rule(point.numbers.0));
        let born = stage.next_life(&home, armed.environment());
        let born = born.map_err(|error| format!("before {}: {error}", point.name)).expect("it comes back");
        if born == Birth::Ready && stage.end_life(WITHIN).expect("it dies in order") == Death::InTime {
            missed.insert(point.name);
        }
    }
    assert_eq!(stage.next_life(&home, []).expect("it opens what is left"), Birth::Ready);
    stage.cloud_is_there(true).expect("the cloud can come back");
    let Outcome { report, incidents, .. } = stage.judge(SHORT).expect("the fleet judges");
    assert_eq!(missed, BTreeSet::new(), "never reached");
    let (lost, dropped) = (report.lost.expect("it was judged"), dropped(&stage.kafka()));
    assert!(lost > 0, "nothing was dropped, so this shows nothing");
    assert!(lost <= dropped, "{lost} are lost, {dropped} announced");
    assert_eq!(incidents, [""; 0].map(PathBuf::from), "a drop is not damage");
    assert_eq!((report.reordered, report.unexpected), (Some(0), Some(0)), "{:?}", report.reasons);
}

/// How many messages the gateway's events say were let go.
fn dropped(kafka: &str) -> u64 {
    let mut command = Command::new("kcat");
    let output = command.args(["-b", kafka, "-t", EVENTS, "-C", "-e", "-q", "-f", "%s\n"]).output();
    let output = output.expect("kcat is installed (`cargo xtask test` installs it)");
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
    let events = String::from_utf8(output.stdout).expect("events are text");
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let events = events.filter(|event| event["type"] == "io.penstock.outbox.dropped.v1");
    // An event that was sent again after a death has the same id.
    let by_id: BTreeMap<String, u64> = events
        .map(|event| (event["id"].to_string(), event["data"]["dropped"].as_u64().expect("a count")))
        .collect();
    by_id.values().sum()
}

/// Changes a byte in the middle of the newest log.
fn damage_the_log(database: &Path) {
    let entries =
        std::fs::read_dir(database).expect("the database is there").map(|entry| entry.expect("listed"));
    let logs =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
    let log = logs.max().expect("a log");
    let mut bytes = std::fs::read(&log).expect("a log can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place, as a disk would do it: other names for the file see it too.
    let file = std::fs::OpenOptions::new().write(true).open(&log).expect("a log can be written");
    file.write_all_at(&bytes[middle..=middle], u64::try_from(middle).expect("small")).expect("one byte");
}

/// How many messages an incident says are missing.
fn messages(incident: &Path) -> u64 {
    let text = std::fs::read(incident).expect("an incident has a report");
    let report: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let ranges = report["ranges"].as_array().expect("ranges");
    ranges.iter().map(|range| range["messages"].as_u64().expect("a count")).sum()
}

/// One fleet, one directory, a death at each of the points in turn; then everything acknowledged arrives.
fn die_at_each(points: Vec<&Point>, load: Load, config: Config) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("home");
    let cut = PowerCut::prepare(&home.join("outbox"), &folder.path().join("twin"), Mode::Strict);
    let cut = cut.expect("a twin");
    let config = config.environment(cut.environment());
    let mut stage = Stage::set(folder.path(), &home, config, load).expect("everything starts");
    let mut missed = BTreeSet::new();
    for point in points {
        let armed = cut.clone().killed(&point.rule(point.numbers.0));
        let reached = (0..TRIES).any(|_| {
            stage.gateway().kill().expect("it can be killed");
            let born = stage.next_life(&home, armed.environment());
            match born.map_err(|error| format!("before {}: {error}", point.name)).expect("it comes back") {
                Birth::Stillborn => true,
                Birth::Ready => {
                    let within = if point.situation == Situation::Opening { SHORT } else { WITHIN };
                    stage.end_life(within).expect("it dies in order") == Death::AtPoint
                }
            }
        });
        if !reached {
            missed.insert(point.name);
        }
    }
    assert_eq!(stage.next_life(&home, []).expect("it opens what is left"), Birth::Ready);
    let outcome = stage.judge(SHORT).expect("the fleet judges");
    assert_eq!(outcome.broken(), [""; 0]);
    assert_eq!(missed, BTreeSet::new(), "never reached");
}

/// A life that is only to leave something behind.
const SHORT: Duration = Duration::from_millis(400);
