//! Packed records on their whole way, through stops, holds and refusals.

use std::time::Duration;

use penstock_proto::Lane;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::super::config::{Format, PackSettings};
use super::super::{Config, PackCompression, PackFormat, Route};
use super::harness::{Cloud, Site, until};

const TOPIC: &str = "telemetry";

pub(super) fn packed(cloud: &Cloud) -> Config {
    let settings = PackSettings {
        format: PackFormat::Ndjson,
        compression: PackCompression::None,
        bytes_max: 16 << 10,
        messages_max: 100,
        linger: Duration::from_millis(20),
    };
    Config { format: Format::Packed(settings), ..cloud.config(TOPIC) }
}

fn with(config: Config, change: impl FnOnce(&mut PackSettings)) -> Config {
    let Format::Packed(mut settings) = config.format else { return config };
    change(&mut settings);
    Config { format: Format::Packed(settings), ..config }
}

fn check(format: PackFormat, compression: PackCompression) {
    let cloud = Cloud::start(&[(TOPIC, 3)]);
    let site = Site::new();
    let config = with(packed(&cloud), |pack| (pack.format, pack.compression) = (format, compression));
    let running = site.start(&config);
    for round in 0..5 {
        running.append(Lane::Telemetry, 400, round);
        running.append(Lane::Alerts, 10, round);
    }
    running.wait_confirmed();
    assert_eq!(running.uplink.status().acked, 2050);
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (2050, 0), "{format:?} {compression:?}");
    assert!(found.records < 200, "{} records", found.records);
}

#[test]
fn entries_of_every_format_arrive_once_and_in_order_in_few_records() {
    check(PackFormat::Ndjson, PackCompression::None);
    check(PackFormat::JsonArray, PackCompression::Gzip);
    check(PackFormat::Protobuf, PackCompression::Deflate);
}

#[test]
fn each_bound_ends_a_pack() {
    let records = |change: fn(&mut PackSettings)| {
        let cloud = Cloud::start(&[(TOPIC, 1)]);
        let site = Site::new();
        let running = site.start(&with(packed(&cloud), change));
        running.append(Lane::Telemetry, 100, 0);
        running.wait_confirmed();
        running.stop();
        let found = cloud.read(&[TOPIC]);
        assert_eq!((found.entries(), found.duplicates()), (100, 0));
        found.records
    };
    let roomy = |pack: &mut PackSettings| (pack.bytes_max, pack.messages_max) = (1 << 20, 1000);
    assert_eq!(records(roomy), 1, "all of one group");
    assert_eq!(records(|pack| pack.messages_max = 10), 10);
    assert_eq!(records(|pack| pack.messages_max = 1), 100);
    let small = records(|pack| pack.bytes_max = 1 << 10);
    assert!((10..=50).contains(&small), "{small} records of about 1 KiB");
}

#[test]
fn stops_in_the_middle_repeat_nothing() {
    let cloud = Cloud::start(&[(TOPIC, 4)]);
    let site = Site::new();
    for round in 0..4 {
        let mut config = with(packed(&cloud), |pack| pack.messages_max = 37);
        config.drain_timeout = Duration::from_millis(20 * round);
        let running = site.start(&config);
        running.append(Lane::Telemetry, 500, round);
        running.stop();
    }
    let running = site.start(&packed(&cloud));
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (2000, 0));
}

#[test]
fn a_held_topic_and_a_refusal_leave_packs_in_order() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let mut config = packed(&cloud);
    let route = Route { stream: Some("vibration".into()), topic: "vibration".to_owned(), ..Route::default() };
    config.routes = vec![route];
    let running = site.start(&config);
    running.append_stream("vibration", 150, 0);
    running.append(Lane::Telemetry, 150, 0);
    until("the others are confirmed", || running.uplink.status().acked == 150);
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION;
    cloud.mock.request_errors(RDKafkaApiKey::Produce, &[refusal]);
    running.append(Lane::Telemetry, 150, 1);
    cloud.mock.create_topic("vibration", 3, 1).unwrap();
    running.append_stream("vibration", 150, 1);
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC, "vibration"]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (600, 0));
}

#[test]
fn one_entry_that_no_record_can_carry_is_buried_alone() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    let site = Site::new();
    let running = site.start(&packed(&cloud));
    running.append(Lane::Telemetry, 50, 0);
    running.append_payload(Lane::Telemetry, &vec![b'x'; 1_100_000]);
    running.append(Lane::Telemetry, 50, 1);
    running.wait_confirmed();
    assert_eq!(running.outbox().lanes[Lane::Dead.index()].next.0, 2);
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_devices_of(&["telemetry"]);
    assert_eq!((found.entries(), found.duplicates()), (102, 0));
}
