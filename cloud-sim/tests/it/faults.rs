//! Faults on order, and that librdkafka gets through them.

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer;

use crate::clients::{assert_complete, producer, read_back, send, settle};
use crate::raw::{Batch, Raw, Stored};
use crate::sim::{PATIENCE, Sim};

const COUNT: usize = 3_000;

#[test]
fn lost_acks_cost_no_record_and_make_no_duplicate() {
    let sim = Sim::start();
    sim.order("/v1/faults/lose-ack", r#"{"every": 4}"#);
    let producer = producer(&sim.kafka(), &[("batch.num.messages", "50")]);
    send(&producer, COUNT, |_| {});
    settle(&producer, COUNT);
    assert!(sim.counter("acks_lost") > 3);
    assert!(sim.counter("duplicates_recognised") > 3);
    assert_eq!(sim.counter("records_appended"), u64::try_from(COUNT).unwrap());
    assert_complete(&read_back(&sim), COUNT);
}

#[test]
fn cut_connections_cost_no_record() {
    let sim = Sim::start();
    let producer = producer(&sim.kafka(), &[("batch.num.messages", "50")]);
    send(&producer, COUNT, |number| {
        if number % 300 == 299 {
            // There is a connection to cut once most of what was sent has arrived.
            sim.await_counter("records_appended", u64::try_from(number - 200).unwrap());
            sim.order("/v1/faults/cut", "");
        }
    });
    settle(&producer, COUNT);
    assert!(sim.counter("connections_cut") >= 10);
    assert_complete(&read_back(&sim), COUNT);
}

#[test]
fn an_outage_costs_no_record() {
    let sim = Sim::start();
    let producer = producer(&sim.kafka(), &[]);
    send(&producer, 1_000, |number| match number {
        500 => {
            sim.order("/v1/faults/accepting", r#"{"enabled": false}"#);
            sim.order("/v1/faults/cut", "{}");
            assert_eq!(Raw::connect(sim.running().kafka).receive(), None);
        }
        999 => sim.order("/v1/faults/accepting", r#"{"enabled": true}"#),
        _ => {}
    });
    settle(&producer, 1_000);
    assert!(sim.counter("connections_refused") > 0);
    assert_complete(&read_back(&sim), 1_000);
}

#[test]
fn an_injected_error_refuses_as_often_as_ordered() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    sim.order("/v1/faults/produce-error", r#"{"code": 44, "times": 2, "topic": "t"}"#);
    let errors: Vec<i16> = (0..3).map(|_| client.produce(Batch::PLAIN).unwrap().error).collect();
    assert_eq!(errors, [44, 44, 0]);
    assert_eq!(sim.counter("errors_injected"), 2);
    assert_eq!(sim.counter("records_appended"), 1);
}

#[test]
fn a_policy_violation_reaches_the_producer() {
    let sim = Sim::start();
    sim.order("/v1/faults/produce-error", r#"{"code": 44, "times": 1}"#);
    let producer = producer(&sim.kafka(), &[]);
    send(&producer, 1, |_| {});
    producer.flush(PATIENCE).unwrap();
    let reports = producer.context().delivered.lock().unwrap();
    let code = reports[0].as_ref().unwrap_err().rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::PolicyViolation));
}

#[test]
fn a_throttled_answer_says_for_how_long() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    sim.order("/v1/faults/throttle", r#"{"ms": 30}"#);
    assert_eq!(client.produce(Batch::PLAIN), Some(Stored { error: 0, offset: 0, throttle_ms: 30 }));
    sim.order("/v1/faults/throttle", r#"{"ms": 0}"#);
    assert_eq!(client.produce(Batch::PLAIN), Some(Stored { error: 0, offset: 1, throttle_ms: 0 }));
}

#[test]
fn a_forgotten_producer_has_to_start_again() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    let batch = |producer_id, sequence| Batch { producer_id, sequence, ..Batch::PLAIN };
    for (producer, order, expected) in [(1, "", 45), (3, r#"{"code": 59}"#, 59), (5, "{}", 45)] {
        assert_eq!(client.produce(batch(producer, 0)).unwrap().error, 0);
        sim.order("/v1/faults/forget-producers", order);
        assert_eq!(client.produce(batch(producer, 1)).unwrap().error, expected);
        assert_eq!(client.produce(batch(producer + 1, 0)).unwrap().error, 0);
    }
    assert_eq!(sim.counter("producers_forgotten"), 5);
}

#[test]
fn a_forgotten_librdkafka_stops_or_starts_again_by_what_it_is_told() {
    for (order, fatal) in [("", Some(RDKafkaErrorCode::OutOfOrderSequenceNumber)), (r#"{"code": 59}"#, None)]
    {
        let sim = Sim::start();
        let producer = producer(&sim.kafka(), &[]);
        send(&producer, 10, |_| {});
        settle(&producer, 10);
        sim.order("/v1/faults/forget-producers", order);
        send(&producer, 2, |_| {});
        producer.flush(PATIENCE).unwrap();
        assert_eq!(producer.client().fatal_error().map(|(code, _reason)| code), fatal, "{order:?}");
        let delivered = if fatal.is_none() { 12 } else { 10 };
        assert_eq!(sim.counter("records_appended"), delivered, "{order:?}");
    }
}

#[test]
fn a_held_answer_does_not_hold_up_what_was_sent_ahead() {
    let sim = Sim::start();
    sim.order("/v1/faults/throttle", r#"{"ms": 60000}"#);
    let mut client = Raw::connect(sim.running().kafka);
    for _ in 0..3 {
        client.send_produce("t", 0, &Batch::PLAIN.encode());
    }
    // Far sooner than one answer is due.
    sim.await_counter("records_appended", 3);
    assert_eq!(sim.counter("throttled_requests"), 3);
    assert_eq!(sim.counter("throttled_ms"), 180_000);
    sim.order("/v1/faults/cut", "");
    assert_eq!(client.receive_stored(), None);
}

#[test]
fn answers_keep_the_order_of_their_requests() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    sim.order("/v1/faults/throttle", r#"{"ms": 200}"#);
    client.send_produce("t", 0, &Batch::PLAIN.encode());
    sim.await_counter("records_appended", 1);
    sim.order("/v1/faults/throttle", r#"{"ms": 0}"#);
    client.send_produce("t", 0, &Batch::PLAIN.encode());
    client.send_fetch(0, 0);
    assert_eq!(client.receive_stored(), Some(Stored { error: 0, offset: 0, throttle_ms: 200 }));
    assert_eq!(client.receive_stored(), Some(Stored { error: 0, offset: 1, throttle_ms: 0 }));
    assert_eq!(client.receive_fetched().0, 0);
}
