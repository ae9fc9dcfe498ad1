//! Each fault of an event hub, one after another: nothing lost, nothing reordered, every chain intact, and
//! nothing twice where the tail may be read.
//!
//! Against cloud-sim, which judges the numbering of producers as a real broker does, so several requests are
//! in flight per partition.

use std::time::Duration;

use penstock_proto::Lane;
use rdkafka::types::RDKafkaRespErr as Error;
use serde_json::json;

use super::super::Config;
use super::harness::{Found, Running, Site, read_back, until};
use super::sim::{Sim, TOPIC};
use crate::supervise::clock;

/// What an error means for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It tries again by itself.
    Stays,
    /// It is at its end, and another is built.
    IsBuiltAnew,
}

/// Errors that a produce request may get whatever is in it, and whether the client survives them.
const ERRORS: &[(Error, Client)] = &[
    (Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Client::Stays),
    (Error::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, Client::Stays),
    (Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Client::Stays),
    (Error::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, Client::Stays),
    (Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, Client::Stays),
    (Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Client::Stays),
    (Error::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, Client::IsBuiltAnew),
    (Error::RD_KAFKA_RESP_ERR_UNKNOWN, Client::IsBuiltAnew),
    (Error::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, Client::IsBuiltAnew),
    (Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Client::IsBuiltAnew),
    (Error::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, Client::IsBuiltAnew),
    (Error::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Client::IsBuiltAnew),
];

/// Errors that say something about the records of a request.
const REFUSALS: &[Error] = &[
    Error::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
    Error::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
    Error::RD_KAFKA_RESP_ERR_INVALID_MSG,
];

/// A site whose first entries are confirmed.
fn started(sim: &Sim, site: &Site) -> Running {
    let running = site.start(&sim.config());
    running.append(Lane::Telemetry, 200, 0);
    running.wait_confirmed();
    running
}

/// Ends the gateway and reads everything back.
fn finish(sim: &Sim, running: Running) -> Found {
    running.wait_confirmed();
    running.stop();
    let found = read_back(&sim.connection(), &[TOPIC]);
    found.check_chains();
    found.check_devices();
    found
}

#[test]
fn no_error_of_the_service_loses_reorders_or_repeats_anything() {
    let sim = Sim::start();
    let site = Site::new();
    let running = started(&sim, &site);
    for (round, (error, client)) in (1..).zip(ERRORS) {
        let before = running.uplink.status().rebuilds;
        sim.control.produce_error(code(*error), 1).unwrap();
        running.append(Lane::Telemetry, 300, round);
        running.append(Lane::Alerts, 20, round);
        running.wait_confirmed();
        assert_eq!(sim.count("errors_injected"), round, "{error:?} was not met");
        let after = running.uplink.status().rebuilds;
        assert_eq!(after > before, *client == Client::IsBuiltAnew, "{error:?}: {before} to {after} clients");
    }
    let found = finish(&sim, running);
    assert_eq!((found.entries(), found.duplicates()), (200 + 320 * ERRORS.len(), 0));
}

#[test]
fn a_batch_refused_once_for_its_records_arrives_after_all() {
    let sim = Sim::start();
    let site = Site::new();
    // All entries of a partition in one batch: a single one that is refused alone is buried.
    let running = site.start(&Config { linger: Duration::from_millis(200), ..sim.config() });
    running.append(Lane::Telemetry, 200, 0);
    running.wait_confirmed();
    for (round, error) in (1..).zip(REFUSALS) {
        sim.control.produce_error(code(*error), 1).unwrap();
        running.append(Lane::Telemetry, 300, round);
        running.wait_confirmed();
        assert_eq!(sim.count("errors_injected"), round, "{error:?} was not met");
    }
    let found = finish(&sim, running);
    assert_eq!((found.entries(), found.duplicates()), (200 + 300 * REFUSALS.len(), 0));
}

#[test]
fn answers_that_are_lost_repeat_nothing() {
    let sim = Sim::start();
    let site = Site::new();
    let running = started(&sim, &site);
    sim.control.lose_ack(3).unwrap();
    let mut rounds = 0;
    while sim.count("acks_lost") < 4 {
        rounds += 1;
        running.append(Lane::Telemetry, 50, rounds);
        until("a part is confirmed", || running.uplink.status().acked >= 50 * rounds);
    }
    sim.control.lose_ack(0).unwrap();
    let found = finish(&sim, running);
    assert!(sim.count("duplicates_recognised") >= 3, "requests are sent again as they were");
    assert_eq!((found.entries() as u64, found.duplicates()), (200 + 50 * rounds, 0));
}

#[test]
fn a_service_that_forgets_its_producers_repeats_nothing() {
    let sim = Sim::start();
    let site = Site::new();
    let running = started(&sim, &site);
    for (round, code) in (1..).zip([45, 59, 45]) {
        sim.control.post("/v1/faults/forget-producers", &json!({ "code": code })).unwrap();
        running.append(Lane::Telemetry, 300, round);
        running.wait_confirmed();
    }
    let found = finish(&sim, running);
    assert_eq!((found.entries(), found.duplicates()), (1100, 0));
}

#[test]
fn connections_that_idle_are_closed_and_nobody_notices() {
    let sim = Sim::start_with(|config| config.idle = Duration::from_millis(300));
    let site = Site::new();
    let running = started(&sim, &site);
    for round in 1..=3 {
        let closed = sim.count("connections_idle_closed");
        until("the connection is closed", || sim.count("connections_idle_closed") > closed);
        running.append(Lane::Telemetry, 100, round);
        running.wait_confirmed();
    }
    assert_eq!(running.uplink.status().rebuilds, 0);
    let found = finish(&sim, running);
    assert_eq!((found.entries(), found.duplicates()), (500, 0));
}

#[test]
fn connections_that_are_cut_repeat_nothing() {
    let sim = Sim::start();
    let site = Site::new();
    let running = started(&sim, &site);
    for round in 1..=5 {
        running.append(Lane::Telemetry, 200, round);
        sim.control.cut().unwrap();
        until("a part is confirmed", || running.uplink.status().acked >= 200 * round);
    }
    assert_eq!(running.uplink.status().rebuilds, 0);
    let found = finish(&sim, running);
    assert_eq!((found.entries(), found.duplicates()), (1200, 0));
}

#[test]
fn a_quota_delays_and_refuses_and_everything_arrives() {
    let sim = Sim::start();
    let site = Site::new();
    let running = started(&sim, &site);
    let quota = json!({ "events": 800, "bytes": 0, "policy_violation_ms": 500 });
    sim.control.post("/v1/faults/quota", &quota).unwrap();
    for round in 1..=8 {
        running.append(Lane::Telemetry, 500, round);
    }
    running.append(Lane::Alerts, 50, 1);
    until("the service refuses", || sim.count("policy_violations") > 0);
    let found = finish(&sim, running);
    assert_eq!((found.entries(), found.duplicates()), (4250, 0));
}

#[test]
fn units_that_are_named_keep_the_service_from_delaying_anything() {
    let sim = Sim::start();
    let site = Site::new();
    // Twice what is named: a busy machine stops the sender for a moment, and what it may send by then comes at once.
    // All records at once would be half as many again.
    sim.control.quota(2000, 2_000_000).unwrap();
    let running = site.start(&Config { throughput_units: 1, ..sim.config() });
    let began = clock::now();
    for round in 1..=6 {
        running.append(Lane::Telemetry, 500, round);
    }
    let found = finish(&sim, running);
    let took = clock::now().duration_since(began);
    assert_eq!((found.entries(), found.duplicates()), (3000, 0));
    assert_eq!((sim.count("throttled_requests"), sim.count("policy_violations")), (0, 0));
    assert!(took >= Duration::from_millis(2700), "3000 records of which 250 may go at once: {took:?}");
}

#[test]
fn what_a_dead_gateway_left_behind_is_not_sent_twice() {
    let (stored, found) = die_with_records_on_their_way(true);
    assert_eq!((found.entries(), found.duplicates()), (500, 0), "{stored} were stored unheard");
}

#[test]
fn without_the_right_to_listen_it_is_sent_twice_with_the_same_headers() {
    let (stored, found) = die_with_records_on_their_way(false);
    assert_eq!((found.entries(), found.duplicates() as u64), (500, stored));
}

fn code(error: Error) -> i16 {
    i16::try_from(error as i32).unwrap()
}

/// Stops the gateway while everything in flight is stored and no answer came, and starts it again. Returns how
/// many records that were, and what is found in the end.
fn die_with_records_on_their_way(listens: bool) -> (u64, Found) {
    let sim = Sim::start();
    let site = Site::new();
    // Few requests, all of which are sent at once.
    let linger = Duration::from_millis(100);
    let running = site.start(&Config { linger, drain_timeout: Duration::ZERO, ..sim.config() });
    running.append(Lane::Telemetry, 200, 0);
    running.wait_confirmed();
    sim.control.throttle(120_000).unwrap();
    let before = sim.count("records_appended");
    running.append(Lane::Telemetry, 200, 1);
    until("they are stored", || sim.count("records_appended") == before + 200);
    running.stop();
    sim.control.throttle(0).unwrap();
    sim.control.listen(listens).unwrap();
    let running = site.start(&sim.config());
    running.append(Lane::Telemetry, 100, 2);
    running.wait_confirmed();
    sim.control.listen(true).unwrap();
    (200, finish(&sim, running))
}
