//! The uplink between a real outbox and librdkafka's mock cluster.
//!
//! The mock does not check the numbering of a producer without transactions. So where it refuses a request,
//! tests keep one request per partition in flight (a long linger): a real broker refuses what follows a refused
//! request, the mock would store it. It cannot lose an answer after it stored a request; a long round trip stands
//! in for that.

mod faults;
mod harness;
mod packed;
pub(super) mod sim;
mod wishes;

use std::time::Duration;

use penstock_proto::Lane;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use self::harness::{Cloud, Site, until};
use super::{CatchUp, Config, Route};
use crate::supervise::clock;

const TOPIC: &str = "telemetry";

fn alerts_elsewhere() -> Vec<Route> {
    vec![Route { lane: Some(Lane::Alerts), topic: "alerts".to_owned(), ..Route::default() }]
}

#[test]
fn committed_entries_of_every_lane_arrive_once_and_in_order() {
    let cloud = Cloud::start(&[(TOPIC, 4)]);
    let site = Site::new();
    let running = site.start(&cloud.config(TOPIC));
    for round in 0..10 {
        for lane in [Lane::Alerts, Lane::Status, Lane::Telemetry, Lane::Bulk] {
            running.append(lane, 50, round);
        }
    }
    running.wait_confirmed();
    let status = running.uplink.status();
    assert_eq!((status.acked, status.in_flight, status.in_flight_bytes, status.rebuilds), (2000, 0, 0, 0));
    assert!(status.connected && status.held.is_empty(), "{status:?}");
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    assert_eq!((found.entries(), found.duplicates()), (2000, 0));
    found.check_devices();
}

#[test]
fn a_refused_batch_is_sent_again_without_loss_or_disorder() {
    let cloud = Cloud::start(&[(TOPIC, 3)]);
    let site = Site::new();
    let running = site.start(&one_request(&cloud));
    running.append(Lane::Telemetry, 200, 0);
    running.wait_confirmed();
    let refusals = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
    ];
    for (round, refusal) in (1..).zip(refusals) {
        cloud.mock.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        running.append(Lane::Telemetry, 300, round);
        running.append(Lane::Alerts, 20, round);
        running.wait_confirmed();
    }
    let status = running.uplink.status();
    assert!(status.rebuilds >= 1, "{status:?}");
    assert!(status.last_error.is_some());
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!(found.entries(), 200 + 6 * 320);
}

#[test]
fn passing_errors_need_no_new_client() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let running = site.start(&one_request(&cloud));
    let passing = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    for (round, error) in (0..).zip(passing) {
        cloud.mock.request_errors(RDKafkaApiKey::Produce, &[error]);
        running.append(Lane::Telemetry, 200, round);
        running.wait_confirmed();
    }
    assert_eq!(running.uplink.status().rebuilds, 0);
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    assert_eq!((found.entries(), found.duplicates()), (400, 0));
}

#[test]
fn an_outage_is_waited_out() {
    let cloud = Cloud::start(&[(TOPIC, 3)]);
    let site = Site::new();
    let running = site.start(&cloud.config(TOPIC));
    running.append(Lane::Telemetry, 100, 0);
    running.wait_confirmed();
    cloud.mock.broker_down(1).unwrap();
    for round in 1..20 {
        running.append(Lane::Telemetry, 100, round);
    }
    until("the outage is noticed", || !running.uplink.status().connected);
    let status = running.uplink.status();
    assert!(status.in_flight <= harness::IN_FLIGHT_MAX && status.held.is_empty(), "{status:?}");
    assert_eq!(status.acked, 100);
    cloud.mock.broker_up(1).unwrap();
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!(found.entries(), 2000);
}

#[test]
fn a_restart_goes_on_where_the_last_one_stopped() {
    let cloud = Cloud::start(&[(TOPIC, 4)]);
    let site = Site::new();
    for round in 0..3 {
        let running = site.start(&cloud.config(TOPIC));
        running.append(Lane::Telemetry, 300, round);
        if round == 1 {
            running.wait_confirmed();
        }
        // In the other rounds the stop itself sends what is committed.
        running.stop();
    }
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (900, 0));
}

#[test]
fn what_was_stored_and_not_heard_is_sent_again_with_the_same_header_if_nobody_looks() {
    // Whether a request leaves before the stop is up to the scheduler, so the fault may need another attempt.
    let happened = (0..10).any(|_| stop_between_store_and_report(false, false).0 > 0);
    assert!(happened, "the fault did not happen");
}

#[test]
fn what_was_stored_and_not_heard_is_found_and_not_sent_again() {
    let happened = (0..10).any(|_| {
        let (duplicates, found) = stop_between_store_and_report(true, false);
        assert_eq!(duplicates, 0);
        found > 0
    });
    assert!(happened, "the fault did not happen");
}

#[test]
fn what_was_not_heard_is_still_looked_for_after_a_life_without_the_cloud() {
    let happened = (0..10).any(|_| {
        let (duplicates, found) = stop_between_store_and_report(true, true);
        assert_eq!(duplicates, 0);
        found > 0
    });
    assert!(happened, "the fault did not happen");
}

/// Stops the gateway while answers are on their way, and starts it again, in between once without the cloud if asked
/// to. Returns how many records were stored twice, and how many the last start neither sent nor was told of.
fn stop_between_store_and_report(tail_read: bool, outage: bool) -> (usize, u64) {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    config.drain_timeout = Duration::ZERO;
    config.tail_read = tail_read;
    let running = site.start(&config);
    running.append(Lane::Telemetry, 100, 0);
    running.wait_confirmed();
    cloud.mock.broker_round_trip_time(1, Duration::from_secs(8)).unwrap();
    running.append(Lane::Telemetry, 100, 1);
    until("records are on their way", || running.uplink.status().in_flight == 100);
    running.stop();
    cloud.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    if outage {
        cloud.mock.broker_down(1).unwrap();
        site.start(&config).stop();
        cloud.mock.broker_up(1).unwrap();
    }

    let running = site.start(&config);
    running.append(Lane::Telemetry, 100, 2);
    running.wait_confirmed();
    let acked = running.uplink.status().acked;
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!(found.entries(), 300);
    (found.duplicates(), 200 - acked)
}

#[test]
fn a_copy_of_an_outbox_sends_nothing_once_the_other_has_sent() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let running = site.start(&cloud.config(TOPIC));
    running.append(Lane::Telemetry, 100, 0);
    running.wait_confirmed();
    running.stop();
    let copy = site.copy();
    let running = site.start(&cloud.config(TOPIC));
    running.append(Lane::Telemetry, 50, 1);
    running.wait_confirmed();
    assert_eq!(running.uplink.status().fenced, None, "it knows its own records");
    running.stop();

    let running = copy.start(&Config { drain_timeout: Duration::ZERO, ..cloud.config(TOPIC) });
    running.append(Lane::Telemetry, 50, 1);
    until("it is fenced", || running.uplink.status().fenced.is_some());
    let status = running.uplink.status();
    assert!(status.fenced.unwrap().contains("copy of this outbox"));
    assert_eq!((status.acked, status.in_flight), (0, 0));
    running.stop();
    assert_eq!(cloud.read(&[TOPIC]).entries(), 150);
}

#[test]
fn a_refused_topic_is_held_with_its_reason_while_others_flow() {
    let cloud = Cloud::start(&[(TOPIC, 2), ("alerts", 1)]);
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cloud.mock.topic_error(TOPIC, refusal).unwrap();
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    config.routes = alerts_elsewhere();
    let running = site.start(&config);
    running.append(Lane::Telemetry, 100, 0);
    running.append(Lane::Alerts, 10, 0);
    until("the alerts are confirmed", || running.uplink.status().acked == 10);
    until("the topic is held", || !running.uplink.status().held.is_empty());
    let held = running.uplink.status().held;
    assert_eq!((held[0].topic.as_str(), held[0].reason.as_str()), (TOPIC, "TopicAuthorizationFailed"));
    cloud.mock.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC, "alerts"]);
    found.check_chains();
    assert_eq!((found.entries(), found.duplicates()), (110, 0));
}

#[test]
fn a_missing_topic_is_held_and_flows_once_it_exists() {
    let cloud = Cloud::start(&[("other", 1)]);
    let site = Site::new();
    let running = site.start(&cloud.config(TOPIC));
    running.append(Lane::Telemetry, 50, 0);
    until("the topic is held", || !running.uplink.status().held.is_empty());
    assert_eq!(running.uplink.status().held[0].reason, "UnknownTopicOrPartition");
    cloud.mock.create_topic(TOPIC, 2, 1).unwrap();
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    assert_eq!(found.entries(), 50);
}

#[test]
fn a_client_that_hears_nothing_is_built_anew() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    config.connection.socket_timeout = Duration::from_secs(1);
    let running = site.start(&config);
    running.append(Lane::Telemetry, 50, 0);
    running.wait_confirmed();
    cloud.mock.broker_round_trip_time(1, Duration::from_secs(30)).unwrap();
    running.append(Lane::Telemetry, 50, 1);
    until("the client is built anew", || running.uplink.status().rebuilds > 0);
    cloud.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!(found.entries(), 100);
}

#[test]
fn a_record_too_large_for_the_service_goes_to_the_dead_letters_and_everything_else_flows() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let running = site.start(&cloud.config(TOPIC));
    running.append(Lane::Telemetry, 100, 0);
    running.append_payload(Lane::Telemetry, &vec![b'x'; 1_100_000]);
    running.append(Lane::Telemetry, 100, 1);
    running.wait_confirmed();
    let dead = running.outbox().lanes[Lane::Dead.index()];
    assert_eq!((dead.next.0, running.uplink.status().rebuilds), (2, 0));
    assert!(dead.backlog_bytes > 1_100_000);
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_devices_of(&["telemetry"]);
    // The event about it and the loss record are in lane status.
    assert_eq!((found.entries(), found.duplicates()), (202, 0));
}

#[test]
fn a_record_that_the_service_refuses_is_found_among_many() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    let site = Site::new();
    let running = site.start(&one_request(&cloud));
    running.append(Lane::Telemetry, 16, 0);
    running.wait_confirmed();
    // The mock refuses requests, not records: it goes on until a request holds one entry, the first.
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cloud.mock.request_errors(RDKafkaApiKey::Produce, &[refusal; 5]);
    running.append(Lane::Telemetry, 16, 1);
    running.wait_confirmed();
    assert_eq!(running.outbox().lanes[Lane::Dead.index()].next.0, 2, "16, 8, 4, 2 and 1 were refused");
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_devices_of(&["telemetry"]);
    assert_eq!((found.entries(), found.duplicates()), (31 + 2, 0));
}

#[test]
fn a_full_dead_letter_lane_holds_the_topic_and_drops_nothing() {
    let cloud = Cloud::start(&[(TOPIC, 1), ("alerts", 1)]);
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    config.routes = alerts_elsewhere();
    config.drain_timeout = Duration::ZERO;
    config.dead_letter_bytes_max = 0;
    let running = site.start(&config);
    running.append(Lane::Telemetry, 10, 0);
    running.append_payload(Lane::Telemetry, &vec![b'x'; 1_100_000]);
    running.append(Lane::Telemetry, 10, 1);
    running.append(Lane::Alerts, 5, 0);
    until("the topic is held", || !running.uplink.status().held.is_empty());
    until("what may go is confirmed", || running.uplink.status().acked == 15);
    let status = running.uplink.status();
    assert!(status.held[0].reason.contains("lane dead is full"), "{status:?}");
    assert_eq!(status.low.iter().find(|(lane, _)| *lane == Lane::Telemetry).unwrap().1.0, 11);
    running.stop();
}

#[test]
fn a_held_topic_does_not_stop_others_of_its_lane_and_gets_everything_in_order_later() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    let route = Route { stream: Some("vibration".into()), topic: "vibration".to_owned(), ..Route::default() };
    config.routes = vec![route];
    let running = site.start(&config);
    for round in 0..5 {
        running.append_stream("vibration", 30, round);
        running.append(Lane::Telemetry, 50, round);
    }
    until("the others are confirmed", || running.uplink.status().acked == 250);
    assert_eq!(running.uplink.status().held[0].topic, "vibration");
    assert_eq!(running.outbox().lanes[Lane::Telemetry.index()].low.0, 1, "nothing of it is lost sight of");
    cloud.mock.create_topic("vibration", 3, 1).unwrap();
    running.append_stream("vibration", 30, 5);
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC, "vibration"]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (250 + 180, 0));
}

#[test]
fn a_stop_while_a_topic_is_held_loses_nothing_and_repeats_nothing() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    config.drain_timeout = Duration::ZERO;
    let route = Route { stream: Some("vibration".into()), topic: "vibration".to_owned(), ..Route::default() };
    config.routes = vec![route];
    let running = site.start(&config);
    running.append_stream("vibration", 30, 0);
    running.append(Lane::Telemetry, 50, 0);
    until("the others are confirmed", || running.uplink.status().acked == 50);
    running.stop();
    cloud.mock.create_topic("vibration", 3, 1).unwrap();
    let running = site.start(&config);
    running.append(Lane::Telemetry, 50, 1);
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC, "vibration"]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (130, 0));
}

#[test]
fn what_waited_goes_as_backlog_beside_what_is_new() {
    let cloud = Cloud::start(&[(TOPIC, 2)]);
    cloud.mock.broker_down(1).unwrap();
    let site = Site::new();
    let mut config = cloud.config(TOPIC);
    config.catch_up = CatchUp::LiveFirst { share: 50 };
    config.live_first_after = Duration::from_secs(1);
    let running = site.start(&config);
    let began = clock::now();
    for round in 0..10 {
        running.append(Lane::Telemetry, 500, round);
    }
    until("they have waited", || clock::now() > began + Duration::from_millis(1500));
    cloud.mock.broker_up(1).unwrap();
    until("the first are sent", || running.uplink.status().acked > 0);
    for round in 10..15 {
        running.append(Lane::Telemetry, 100, round);
    }
    running.wait_confirmed();
    running.stop();
    let found = cloud.read(&[TOPIC]);
    found.check_chains();
    found.check_devices();
    assert_eq!((found.entries(), found.duplicates()), (5500, 0));
    assert!(found.of_stream('b') >= 4000 && found.of_stream('l') >= 500, "{}", found.of_stream('b'));
}

#[test]
fn lanes_share_and_the_highest_goes_first() {
    let cloud = Cloud::start(&[(TOPIC, 1)]);
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cloud.mock.topic_error(TOPIC, refusal).unwrap();
    let site = Site::new();
    let running = site.start(&cloud.config(TOPIC));
    for round in 0..10 {
        running.append(Lane::Telemetry, 500, round);
    }
    running.append(Lane::Bulk, 100, 0);
    running.append(Lane::Alerts, 100, 0);
    // Everything is committed before the first record goes.
    cloud.mock.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    running.wait_confirmed();
    running.stop();
    let order = cloud.read(&[TOPIC]).lanes;
    let last = |lane| order.iter().rposition(|at| *at == lane).unwrap();
    assert_eq!(last(Lane::Alerts), 99);
    assert!(last(Lane::Bulk) < last(Lane::Telemetry) - 1000, "bulk moves while telemetry has not ended");
}

/// Settings under which one request per partition is in flight.
fn one_request(cloud: &Cloud) -> Config {
    Config { linger: Duration::from_millis(100), ..cloud.config(TOPIC) }
}
