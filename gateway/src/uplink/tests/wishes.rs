//! What operators ask of the uplink while it runs.

use std::time::Duration;

use penstock_proto::Lane;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::super::{Config, Route, Wishes};
use super::TOPIC;
use super::harness::{Cloud, Running, Site, until};
use super::packed::packed;
use crate::supervise::clock;

fn vibration_elsewhere(config: Config) -> Config {
    let route = Route { stream: Some("vibration".to_owned()), topic: "vib".to_owned(), ..Route::default() };
    Config { routes: vec![route], ..config }
}

fn pause(running: &Running, topics: &[&str]) {
    let paused_topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    running.uplink.wish(Wishes { paused_topics, ..Wishes::default() });
}

fn cap(running: &Running, bytes_per_second: Option<u64>) {
    running.uplink.wish(Wishes { cap_bytes_per_second: bytes_per_second, ..Wishes::default() });
}

fn wait_acked(running: &Running, count: u64) {
    until("so many are confirmed", || running.uplink.status().acked >= count);
}

#[test]
fn a_paused_topic_gets_nothing_while_others_flow_and_then_all_of_it_in_order() {
    let cloud = Cloud::start(&[(TOPIC, 2), ("vib", 2)]);
    let site = Site::new();
    let config = vibration_elsewhere(cloud.config(TOPIC));
    let running = site.start(&config);
    running.append_stream("vibration", 100, 0);
    running.wait_confirmed();
    pause(&running, &["vib"]);
    for round in 1..4 {
        // The first round may meet what the thread did before it heard of the pause.
        running.append(Lane::Telemetry, 50, round);
        wait_acked(&running, 100 + round * 50);
        running.append_stream("vibration", 100, round);
        running.append(Lane::Alerts, 10, round);
    }
    // A refusal rebuilds the producer, which reads again from the first entry that is not confirmed.
    cloud.mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION]);
    running.append(Lane::Telemetry, 50, 4);
    wait_acked(&running, 100 + 200 + 30);
    assert_eq!((running.uplink.status().acked, cloud.read(&["vib"]).entries()), (330, 100));
    let waiting = running.outbox().lanes[Lane::Telemetry.index()].backlog_messages;
    assert!(waiting >= 300, "they wait in the outbox: {waiting}");
    pause(&running, &[]);
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC, "vib"]);
    found.check_chains();
    found.check_devices();
    assert_eq!(found.entries(), 400 + 200 + 30);
    assert_eq!(cloud.read(&["vib"]).entries(), 400);
}

#[test]
fn a_pause_that_is_asked_for_before_the_start_lets_nothing_through() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let running = site.start_with(&cloud.config(TOPIC), |uplink| {
        uplink.wish(Wishes { paused_topics: vec![TOPIC.to_owned()], ..Wishes::default() });
    });
    running.append(Lane::Telemetry, 100, 0);
    running.append(Lane::Bulk, 100, 0);
    running.append(Lane::Alerts, 20, 0);
    running.append(Lane::Status, 20, 0);
    wait_acked(&running, 40);
    running.append(Lane::Alerts, 20, 1);
    wait_acked(&running, 60);
    assert_eq!(cloud.read(&[TOPIC]).entries(), 60, "alerts and status are never held back");
    pause(&running, &[]);
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (260, 0));
}

fn a_cap_holds(config: &Config, cloud: &Cloud) {
    let site = Site::new();
    let running = site.start(config);
    running.append(Lane::Telemetry, 1, 0);
    running.wait_confirmed();
    cap(&running, Some(10_000));
    until("it is known", || running.uplink.status().wishes.cap_bytes_per_second.is_some());
    // What the thread still took without the cap is one entry at most.
    running.append(Lane::Telemetry, 1, 1);
    running.wait_confirmed();
    let payload = vec![b'x'; 1000];
    let start = clock::now();
    for _ in 0..40 {
        running.append_payload(Lane::Telemetry, &payload);
    }
    running.append(Lane::Alerts, 200, 0);
    until("alerts are confirmed", || {
        let lane = &running.outbox().lanes[Lane::Alerts.index()];
        lane.low == lane.next
    });
    let lane = &running.outbox().lanes[Lane::Telemetry.index()];
    assert!(lane.low < lane.next, "telemetry waits while alerts do not");
    running.wait_confirmed();
    let took = clock::now() - start;
    // 40 kB less the quarter of a second that a bucket holds.
    assert!(took >= Duration::from_secs(3), "{took:?}");
    running.append_payload(Lane::Telemetry, &payload);
    cap(&running, None);
    running.wait_confirmed();
    running.stop();
    cloud.read(&[TOPIC]).check_chains();
    assert_eq!(cloud.read(&[TOPIC]).entries(), 2 + 40 + 200 + 1);
}

#[test]
fn a_cap_holds_telemetry_to_its_rate_and_alerts_pass() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    a_cap_holds(&cloud.config(TOPIC), &cloud);
}

#[test]
fn a_cap_holds_packed_records_too() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    a_cap_holds(&packed(&cloud), &cloud);
}
