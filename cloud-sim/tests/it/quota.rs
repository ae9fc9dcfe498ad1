//! The quota of a namespace: what is over it waits, and what would wait too long is refused.

use std::time::{Duration, Instant};

use cloud_sim::Quota;

use crate::clients::{assert_complete, producer, read_back, send, settle};
use crate::raw::{Batch, Raw, Stored};
use crate::sim::Sim;

/// One with this quota and this limit for delays.
fn limited(events: u64, bytes: u64, policy_violation_ms: u64) -> Sim {
    Sim::start_with(|mut config| {
        config.quota = Quota { events, bytes };
        config.policy_violation = Duration::from_millis(policy_violation_ms);
        config
    })
}

fn records(records: i32) -> Batch {
    Batch { records, ..Batch::PLAIN }
}

#[expect(clippy::disallowed_methods, reason = "how long an answer took is what is tested")]
fn timed(client: &mut Raw, batch: Batch) -> (Stored, Duration) {
    let start = Instant::now();
    let stored = client.produce(batch).unwrap();
    (stored, start.elapsed())
}

#[test]
fn what_is_over_the_quota_is_stored_and_answered_late() {
    let sim = limited(100, 0, 60_000);
    let mut client = Raw::connect(sim.running().kafka);
    let (stored, took) = timed(&mut client, records(150));
    assert_eq!(stored, Stored { error: 0, offset: 0, throttle_ms: 500 });
    assert!(took >= Duration::from_millis(500), "took {took:?}");
    assert_eq!(sim.counter("throttled_requests"), 1);
    assert_eq!(sim.counter("throttled_ms"), 500);
    assert_eq!(sim.counter("policy_violations"), 0);
}

#[test]
fn a_large_record_is_one_event_and_pays_for_its_bytes() {
    let large = Batch { body: 750_000 - 61, ..Batch::PLAIN };
    for (sim, throttle_ms) in [(limited(1, 0, 60_000), 0), (limited(0, 500_000, 60_000), 500)] {
        let stored = Raw::connect(sim.running().kafka).produce(large).unwrap();
        assert_eq!(stored, Stored { error: 0, offset: 0, throttle_ms });
    }
}

#[test]
fn all_topics_and_connections_share_the_quota() {
    let sim = limited(100, 0, 60_000);
    sim.order("/v1/topics", r#"{"name": "u", "partitions": 1}"#);
    let mut first = Raw::connect(sim.running().kafka);
    let mut second = Raw::connect(sim.running().kafka);
    // Two and a half seconds may pass before the second one would find enough again.
    assert_eq!(first.produce(records(100)).unwrap().throttle_ms, 0);
    second.send_produce("u", 0, &records(250).encode());
    assert!(second.receive_stored().unwrap().throttle_ms > 0);
}

#[test]
fn what_would_wait_too_long_is_a_policy_violation_and_not_stored() {
    let sim = limited(100, 0, 5_000);
    let mut client = Raw::connect(sim.running().kafka);
    let batch = records(10_000).encode();
    client.send_produce_to("t", &[(0, &batch), (1, &batch)]);
    let refused = || Stored { error: 44, offset: -1, throttle_ms: 0 };
    assert_eq!(client.receive_all_stored(), Some(vec![refused(), refused()]));
    assert_eq!(sim.counter("policy_violations"), 1);
    assert_eq!(sim.counter("batches_refused"), 2);
    // Nothing was taken from the quota either.
    assert_eq!(client.produce(records(100)), Some(Stored { error: 0, offset: 0, throttle_ms: 0 }));
}

#[test]
fn batches_for_several_partitions_pay_together_and_are_stored_each() {
    let sim = limited(100, 0, 60_000);
    let mut client = Raw::connect(sim.running().kafka);
    let (first, second) = (records(60).encode(), records(60).encode());
    client.send_produce_to("t", &[(0, &first), (1, &second), (9, &first)]);
    let stored = client.receive_all_stored().unwrap();
    let outcomes: Vec<_> = stored.iter().map(|stored| (stored.error, stored.offset)).collect();
    assert_eq!(outcomes, [(0, 0), (0, 0), (3, -1)]);
    assert_eq!(stored[0].throttle_ms, 800, "the batch for a partition that is not there came in too");
    assert_eq!(sim.counter("records_appended"), 120);
}

#[test]
fn the_quota_is_changed_while_running() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    assert_eq!(client.produce(records(1_000_000)).unwrap().throttle_ms, 0);
    sim.order("/v1/faults/quota", r#"{"events": 10, "bytes": 0, "policy_violation_ms": 100}"#);
    let errors = [10, 1_000, 1].map(|count| client.produce(records(count)).unwrap().error);
    assert_eq!(errors[..2], [0, 44]);
    sim.order("/v1/faults/quota", "{}");
    assert_eq!(client.produce(records(1_000_000)).unwrap(), Stored { error: 0, ..client_last(&sim) });
}

/// What the newest answer without a delay looks like: the offset before the last million records.
fn client_last(sim: &Sim) -> Stored {
    let (_status, topic) = sim.get("/v1/topics/t");
    let high = topic["partitions"][0]["high_watermark"].as_i64().unwrap();
    Stored { error: 0, offset: high - 1_000_000, throttle_ms: 0 }
}

#[test]
fn librdkafka_gets_everything_through_a_small_quota() {
    let sim = limited(2_000, 0, 60_000);
    let producer = producer(&sim.kafka(), &[("batch.num.messages", "100")]);
    send(&producer, 3_000, |_| {});
    settle(&producer, 3_000);
    assert!(sim.counter("throttled_requests") > 0);
    assert_eq!(sim.counter("policy_violations"), 0);
    assert_complete(&read_back(&sim), 3_000);
}
