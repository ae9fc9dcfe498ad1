//! The read-back against cloud-sim: what was produced is what the judge sees.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use cloud_sim::{Running, TopicSpec};
use firmware_sim::Cancel;
use firmware_sim::readback::{self, ReadbackError, Source};
use penstock_proto::{IDENTITY_HEADER, PACK_HEADER, Reading};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use testkit::judge::{Conditions, Counts, Judge};
use testkit::ledger::{DeviceLedger, Ledger, Qos};
use tokio::runtime::Runtime;

const WAIT: Duration = Duration::from_secs(30);
/// The run starts here; earlier readings belong to another run.
const START_MS: u64 = 1_000;
const KEY: &str = "Endpoint=sb://localhost/;SharedAccessKeyName=k;SharedAccessKey=czNjcmV0";

/// A cloud with the topic `telemetry` of two partitions, and a listener with TLS that asks for [`KEY`].
struct Cloud {
    running: Running,
    _runtime: Runtime,
    _data: tempfile::TempDir,
}

fn cloud() -> Cloud {
    let data = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let topic = TopicSpec::new("telemetry", 2).unwrap();
    let config = cloud_sim::Config::new(data.path()).with_topic(topic).with_tls(KEY);
    let running = runtime.block_on(cloud_sim::start(config)).unwrap();
    Cloud { running, _runtime: runtime, _data: data }
}

fn value(reading: u64, taken_ms: u64) -> String {
    let reading = Reading {
        device: "d".to_owned(),
        reading,
        taken_ms,
        temperature: 20.0,
        pressure: 100.0,
        vibration: 0.5,
        pad: String::new(),
    };
    serde_json::to_string(&reading).unwrap()
}

/// Produces readings of device `d` (number, seq of the identity, time) to partition 1.
fn produce(cloud: &Cloud, readings: &[(u64, u64, u64)]) {
    for &(reading, seq, taken_ms) in readings {
        let identity = format!("g/00000000000000aa/1/2/{seq}/0/l");
        produce_as(cloud, "d", &[(IDENTITY_HEADER, &identity)], value(reading, taken_ms).as_bytes());
    }
}

fn produce_as(cloud: &Cloud, key: &str, headers: &[(&str, &str)], value: &[u8]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cloud.running.kafka.to_string());
    let producer: BaseProducer = config.create().unwrap();
    let mut owned = OwnedHeaders::new();
    for (key, value) in headers {
        owned = owned.insert(Header { key, value: Some(*value) });
    }
    let record = BaseRecord::to("telemetry").partition(1).key(key).payload(value).headers(owned);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(WAIT).unwrap();
}

/// Produces a pack of readings (number, seq, time) whose header says that there are `count`.
fn produce_pack(cloud: &Cloud, prev: u64, readings: &[(u64, u64, u64)], count: usize) {
    let mut body = String::new();
    for (reading, seq, taken_ms) in readings {
        let payload = value(*reading, *taken_ms);
        let line = format!(
            r#"{{"seq":{seq},"device":"d","topic":"t","received":"2026-11-21T05:58:00.000Z","payload":{payload}}}"#
        );
        body.push_str(&line);
        body.push('\n');
    }
    let (first, last) = (readings.first().unwrap().1, readings.last().unwrap().1);
    let identity = format!("g/00000000000000aa/1/2/{last}/{prev}/l");
    let pack = format!("1/ndjson/none/{first}/{count}");
    produce_as(cloud, "", &[(IDENTITY_HEADER, &identity), (PACK_HEADER, &pack)], body.as_bytes());
}

/// Three readings, all acknowledged.
fn ledger() -> Ledger {
    let mut account = DeviceLedger::new(Qos::AtLeastOnce);
    for reading in 1..=3 {
        account.published(reading).unwrap();
        account.acked(reading).unwrap();
    }
    let mut ledger = Ledger::default();
    ledger.insert("d".to_owned(), account).unwrap();
    ledger
}

fn plain(cloud: &Cloud) -> Source {
    Source::new(&format!("kafka://{}/telemetry", cloud.running.kafka), None, None).unwrap()
}

/// Reads back and checks the counts, and how many records were of earlier runs.
fn check(source: &Source, wait: Duration, expected: Counts, earlier: u64) {
    let ledger = ledger();
    let mut judge = Judge::new(&ledger);
    let found = readback::read(source, START_MS, wait, &mut judge, &Cancel::by_hand()).unwrap();
    assert_eq!(judge.verdict(Conditions::default()).counts, expected);
    assert_eq!(found, earlier);
}

#[test]
fn every_record_is_read_to_the_end() {
    let cloud = cloud();
    produce(&cloud, &[(1, 1, 1_000), (2, 2, 1_001), (3, 3, 1_002), (2, 2, 1_001)]);
    let expected = Counts { records: 4, delivered: 3, duplicated: 1, ..Counts::default() };
    check(&plain(&cloud), WAIT, expected, 0);
}

#[test]
fn what_is_not_there_is_lost_when_the_wait_ends() {
    let cloud = cloud();
    produce(&cloud, &[(1, 1, 1_000), (3, 3, 1_002)]);
    let expected = Counts { records: 2, delivered: 2, lost: 1, ..Counts::default() };
    check(&plain(&cloud), Duration::from_secs(2), expected, 0);
}

#[test]
fn records_of_earlier_runs_are_passed_over() {
    let cloud = cloud();
    produce(&cloud, &[(1, 1, 10), (9, 2, 999), (1, 3, 1_000), (2, 4, 1_000), (3, 5, 1_000)]);
    let expected = Counts { records: 3, delivered: 3, ..Counts::default() };
    check(&plain(&cloud), WAIT, expected, 2);
}

#[test]
fn the_entries_of_packs_are_judged_one_by_one() {
    let cloud = cloud();
    produce_pack(&cloud, 0, &[(9, 1, 999), (1, 2, 1_000), (2, 3, 1_001)], 3);
    produce_pack(&cloud, 2, &[(2, 3, 1_001), (3, 5, 1_002)], 2);
    let expected = Counts { records: 4, delivered: 3, duplicated: 1, ..Counts::default() };
    check(&plain(&cloud), WAIT, expected, 1);
}

#[test]
fn readings_out_of_order_in_a_pack_are_reordered() {
    let cloud = cloud();
    produce_pack(&cloud, 0, &[(2, 1, 1_001), (1, 2, 1_000), (3, 3, 1_002)], 3);
    let expected = Counts { records: 3, delivered: 3, reordered: 1, ..Counts::default() };
    check(&plain(&cloud), WAIT, expected, 0);
}

#[test]
fn a_pack_that_is_not_what_its_header_says_is_unexpected() {
    let cloud = cloud();
    produce_pack(&cloud, 0, &[(1, 1, 1_000), (2, 2, 1_001)], 3);
    produce_as(&cloud, "d", &[(PACK_HEADER, "1/ndjson/none/1/1")], b"{}");
    produce(&cloud, &[(1, 1, 1_000), (2, 2, 1_001), (3, 3, 1_002)]);
    let expected = Counts { records: 5, delivered: 3, unexpected: 2, ..Counts::default() };
    check(&plain(&cloud), WAIT, expected, 0);
}

#[test]
fn a_connection_string_and_an_authority_open_the_tls_listener() {
    let cloud = cloud();
    produce(&cloud, &[(1, 1, 1_000), (2, 2, 1_001), (3, 3, 1_002)]);
    let port = cloud.running.kafka_tls.unwrap().port();
    let url = format!("kafka://127.0.0.1:{port}/telemetry");
    let source = Source::new(&url, Some(KEY.to_owned()), cloud.running.ca_file.as_deref()).unwrap();
    let expected = Counts { records: 3, delivered: 3, ..Counts::default() };
    check(&source, WAIT, expected, 0);
}

#[test]
fn a_missing_topic_is_named() {
    let cloud = cloud();
    let url = format!("kafka://{}/nowhere", cloud.running.kafka);
    let ledger = ledger();
    let mut judge = Judge::new(&ledger);
    let source = Source::new(&url, None, None).unwrap();
    let wait = Duration::from_millis(300);
    let error = readback::read(&source, START_MS, wait, &mut judge, &Cancel::by_hand()).unwrap_err();
    assert!(matches!(error, ReadbackError::NoTopic(_) | ReadbackError::Kafka(_)), "{error}");
}
