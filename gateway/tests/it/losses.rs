//! What is lost is said, and what is said is all that is lost.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::cloud::Cloud;
use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub::{self, NOTHING};

const GATEWAY: &str = "site-7";
const DEVICE: &str = "pump-7";
const WINDOW: u16 = 32;
/// Larger than the smallest quota, together.
const READINGS: u16 = 600;
const PADDING: usize = 40_000;

/// The events of the gateway itself that arrived, of one type.
fn events(cloud: &Cloud, kind: &str) -> Vec<serde_json::Value> {
    let own = hub::records(cloud).into_iter().filter(|record| record.key == GATEWAY);
    let events = own.map(|record| serde_json::from_str(&record.payload).expect("JSON"));
    events.filter(|event: &serde_json::Value| event["type"] == kind).collect()
}

fn config(cloud: &Cloud) -> Config {
    Config::default().id(GATEWAY).uplink(&cloud.ready().kafka, hub::TOPIC)
}

fn missing(cloud: &Cloud, last: u16) -> Vec<u16> {
    let found = hub::readings(cloud, DEVICE);
    (1..=last).filter(|reading| !found.contains_key(reading)).collect()
}

#[test]
fn what_is_dropped_to_make_room_is_the_oldest_and_is_recorded_in_the_cloud() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    cloud.control().accepting(false).expect("the cloud can be away");
    let config =
        config(&cloud).set("outbox", "bytes_max = \"16MiB\"").set("outbox", "on_full = \"drop-oldest\"");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts with the cloud away");
    let acked = Device::connect(gateway.mqtt(), DEVICE).padded(PADDING).pump(WINDOW, READINGS, |_| ());
    assert_eq!(acked, READINGS, "nobody is withheld");
    gateway.kill().expect("it can be killed");
    gateway.restart().expect("it starts again with what is left");

    cloud.control().accepting(true).expect("the cloud can come back");
    let marker = Device::connect(gateway.mqtt(), "marker").pump(1, 1, |_| ());
    assert_eq!(hub::missing(&cloud, "marker", marker), NOTHING);
    let missing = missing(&cloud, acked);
    let Some(last) = missing.last() else { panic!("16 MiB cannot hold all of it") };
    assert!(missing.iter().copied().eq(1..=*last), "the oldest went: {missing:?}");
    let dropped: u64 = events(&cloud, "io.penstock.outbox.dropped.v1")
        .iter()
        .filter_map(|event| event["data"]["dropped"].as_u64())
        .sum();
    assert_eq!(dropped, u64::from(*last), "each is counted, once");
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}

#[test]
fn a_damaged_log_is_salvaged_and_the_rest_is_announced_in_the_cloud() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let alone =
        Config::default().id(GATEWAY).set("uplink", "enabled = false").set("outbox", "body_codec = \"none\"");
    let mut gateway = Gateway::start(folder.path(), alone).expect("the gateway starts");
    let acked = Device::connect(gateway.mqtt(), DEVICE).padded(PADDING / 100).pump(WINDOW, READINGS, |_| ());
    assert_eq!(acked, READINGS);
    gateway.kill().expect("it can be killed");
    drop(gateway);
    flip_a_bit(&log_file(&folder.path().join("outbox/database")));

    let cloud = hub::start(folder.path());
    let refusing = config(&cloud).set("outbox", "on_missing_range = \"refuse\"");
    assert!(Gateway::start(folder.path(), refusing).is_err(), "it is not to go on in silence");
    let gateway = Gateway::start(folder.path(), config(&cloud)).expect("it goes on");
    let marker = Device::connect(gateway.mqtt(), "marker").pump(1, 1, |_| ());
    assert_eq!(hub::missing(&cloud, "marker", marker), NOTHING);
    let missing = missing(&cloud, acked);
    assert!(
        !missing.is_empty() && missing.len() < usize::from(acked) / 2,
        "{missing:?}: a block, not the rest"
    );
    let events = events(&cloud, "io.penstock.outbox.range-missing.v1");
    assert_eq!(events.len(), 2, "in lanes alerts and status");
    assert_eq!(events[0]["data"]["missing"].as_u64(), Some(missing.len() as u64));
    hub::wait_for("the incident in the status", || {
        let status = gateway.admin("/api/v1/status").expect("it answers").expect("with a status");
        status.contains("\"incidents\":1").then_some(())
    });
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}

fn log_file(database: &Path) -> PathBuf {
    let entries = fs::read_dir(database).expect("the database").flatten().map(|entry| entry.path());
    let logs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max_by_key(|path| fs::metadata(path).expect("it is there").len()).expect("there is a log")
}

fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(file, bytes).expect("writable");
}
