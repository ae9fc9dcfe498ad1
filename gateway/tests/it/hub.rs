//! The event hub under test, read by a client that we did not write.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::cloud::Cloud;
use testkit::gateway::Gateway;

/// The topic every test uses.
pub(crate) const TOPIC: &str = "telemetry";
/// Its partitions.
pub(crate) const PARTITIONS: u32 = 4;
/// No reading is missing.
pub(crate) const NOTHING: [u16; 0] = [];
/// Longest wait for what was acknowledged to arrive. Pauses of the gateway and of librdkafka after an outage grow to a
/// minute on a machine that is slow to see the outage's end.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(180);

/// A record as kcat prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) payload: String,
    pub(crate) headers: String,
}

/// Starts a cloud in a folder of its own.
pub(crate) fn start(folder: &Path) -> Cloud {
    let data = folder.join("cloud");
    std::fs::create_dir_all(&data).expect("a folder for the cloud");
    Cloud::start(&data, &[(TOPIC, PARTITIONS)]).expect("cloud-sim starts")
}

/// Every record of the topic, by partition in order.
pub(crate) fn records(cloud: &Cloud) -> Vec<Record> {
    let output = Command::new("kcat")
        .args(["-b", &cloud.ready().kafka, "-t", TOPIC, "-C", "-e", "-q", "-f", "%k\t%h\t%s\n"])
        .output()
        .expect("kcat is installed (`cargo xtask test` installs it)");
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("records are text");
    let record = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        Record { key: part(), headers: part(), payload: part() }
    };
    text.lines().map(record).collect()
}

/// The readings of `device` that arrived, each with how often.
pub(crate) fn readings(cloud: &Cloud, device: &str) -> BTreeMap<u16, usize> {
    let mut found = BTreeMap::new();
    for record in records(cloud).into_iter().filter(|record| record.key == device) {
        let payload: serde_json::Value = serde_json::from_str(&record.payload).expect("JSON as published");
        let reading = payload["reading"].as_u64().and_then(|n| u16::try_from(n).ok());
        *found.entry(reading.expect("a reading")).or_default() += 1;
    }
    found
}

/// Reads until every reading of `device` up to `last` arrived, or the time is up; returns what is missing.
pub(crate) fn missing(cloud: &Cloud, device: &str, last: u16) -> Vec<u16> {
    let deadline = now() + ARRIVAL_TIMEOUT;
    loop {
        let found = readings(cloud, device);
        let missing: Vec<u16> = (1..=last).filter(|reading| !found.contains_key(reading)).collect();
        if missing.is_empty() || now() > deadline {
            return missing;
        }
    }
}

/// Asks until there is an answer.
///
/// # Panics
///
/// When the time is up; `what` says what was waited for.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + ARRIVAL_TIMEOUT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(now() < deadline, "waited in vain for {what}");
    }
}

/// Waits until no device is connected to a gateway.
pub(crate) fn wait_until_nobody_is_connected(gateway: &Gateway) {
    wait_for("the end of all connections", || {
        let metrics = gateway.health("/metrics").ok()??;
        metrics.lines().any(|line| line == "penstock_mqtt_connections 0").then_some(())
    });
}

/// Runs `penstock verify` on the topic; returns whether it passed, and what it said.
pub(crate) fn verify(cloud: &Cloud) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["verify", "--bootstrap", &cloud.ready().kafka, "--topic", TOPIC])
        .output()
        .expect("verify runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[expect(clippy::disallowed_methods, reason = "a test has no other clock")]
fn now() -> Instant {
    Instant::now()
}
