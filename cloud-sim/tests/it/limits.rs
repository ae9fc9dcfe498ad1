//! What a stranger's bytes can and cannot do.

use std::time::Duration;

use bytes::BufMut;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::raw::{Batch, Raw, Stored, put_string};
use crate::sim::Sim;

const API_VERSIONS: i16 = 18;

#[track_caller]
fn refused(batch: &[u8], expected: i16) {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    client.send_produce("t", 0, batch);
    assert_eq!(client.receive_stored(), Some(Stored { error: expected, offset: -1, throttle_ms: 0 }));
    assert_eq!(sim.counter("batches_appended"), 0);
    assert_eq!(sim.counter("batches_refused"), 1);
}

#[test]
fn a_damaged_batch_is_corrupt() {
    let mut batch = Batch::PLAIN.encode();
    batch[65] ^= 1;
    refused(&batch, 2);
}

#[test]
fn snappy_is_unsupported() {
    refused(&Batch { codec: 2, ..Batch::PLAIN }.encode(), 43);
}

#[test]
fn a_batch_above_one_megabyte_is_too_large() {
    refused(&Batch { body: 1_000_000, ..Batch::PLAIN }.encode(), 10);
}

#[test]
fn a_batch_of_exactly_one_megabyte_is_stored() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    let stored = client.produce(Batch { body: 1_000_000 - 61, ..Batch::PLAIN });
    assert_eq!(stored, Some(Stored { error: 0, offset: 0, throttle_ms: 0 }));
}

#[test]
fn a_request_above_the_limit_closes_the_connection_without_an_answer() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    client.send_bytes(&1_046_529i32.to_be_bytes());
    assert_eq!(client.receive(), None);
    let mut client = Raw::connect(sim.running().kafka);
    // Exactly at the limit it is read, and its batch refused.
    client.send_produce("t", 0, &vec![0; 1_046_528 - 10 - 27]);
    assert_eq!(client.receive_stored().map(|stored| stored.error), Some(10));
    assert_eq!(sim.counter("oversized_requests"), 1);
}

#[test]
fn an_unknown_partition_is_named() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    for (topic, partition) in [("nope", 0), ("t", 2), ("t", -1)] {
        client.send_produce(topic, partition, &Batch::PLAIN.encode());
        assert_eq!(client.receive_stored().map(|stored| stored.error), Some(3), "{topic} {partition}");
    }
}

#[test]
fn a_gap_in_the_sequence_is_refused_and_a_repeat_is_not_stored_again() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    let mut offer = |sequence| {
        let stored = client.produce(Batch { producer_id: 7, sequence, ..Batch::PLAIN }).unwrap();
        (stored.error, stored.offset)
    };
    assert_eq!(offer(5), (45, -1), "an unknown producer starts at 0");
    assert_eq!(offer(0), (0, 0));
    assert_eq!(offer(1), (0, 1));
    assert_eq!(offer(0), (0, 0), "a repeat gets its first offset");
    assert_eq!(offer(3), (45, -1));
    assert_eq!(offer(2), (0, 2));
    assert_eq!(sim.counter("duplicates_recognised"), 1);
    assert_eq!(sim.counter("out_of_order_refused"), 2);
    assert_eq!(sim.counter("records_appended"), 3);
}

#[test]
fn a_waiting_fetch_is_woken_by_an_append() {
    let sim = Sim::start();
    let mut reader = Raw::connect(sim.running().kafka);
    let mut writer = Raw::connect(sim.running().kafka);
    // Longer than the read timeout of the client, so only the append can end it in time.
    reader.send_fetch(0, 29_000);
    writer.produce(Batch::PLAIN).unwrap();
    let (error, records) = reader.receive_fetched();
    assert_eq!((error, records.len()), (0, 81));
}

#[test]
fn a_fetch_without_records_ends_after_its_wait() {
    let sim = Sim::start();
    let mut reader = Raw::connect(sim.running().kafka);
    reader.send_fetch(0, 50);
    assert_eq!(reader.receive_fetched(), (0, Vec::new()));
    reader.send_fetch(1, 29_000);
    assert_eq!(reader.receive_fetched(), (1, Vec::new()), "out of range is said at once");
}

#[test]
fn transactions_are_refused() {
    let sim = Sim::start();
    let mut client = Raw::connect(sim.running().kafka);
    let mut body = Vec::new();
    put_string(&mut body, "transaction");
    body.put_i32(1_000);
    client.send(22, 1, &body);
    assert_eq!(client.receive().unwrap()[4..6], [0, 53]);
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let sim = Sim::start_with(|mut config| {
        config.connections_max = 1;
        config
    });
    let mut first = Raw::connect(sim.running().kafka);
    first.send(API_VERSIONS, 0, &[]);
    assert!(first.receive().is_some());
    let mut second = Raw::connect(sim.running().kafka);
    assert_eq!(second.receive(), None);
    assert_eq!(sim.counter("connections_refused"), 1);
}

#[test]
fn a_silent_connection_is_closed() {
    let sim = Sim::start_with(|mut config| {
        config.idle = Duration::from_millis(100);
        config
    });
    let mut client = Raw::connect(sim.running().kafka);
    assert_eq!(client.receive(), None);
    assert_eq!(sim.counter("connections_idle_closed"), 1);
    // A client that waits for an answer is not silent.
    sim.order("/v1/faults/throttle", r#"{"ms": 300}"#);
    let mut client = Raw::connect(sim.running().kafka);
    assert_eq!(client.produce(Batch::PLAIN).map(|stored| stored.error), Some(0));
}

#[test]
fn gzip_is_refused_where_the_tier_has_none() {
    let gzip = Batch { codec: 1, ..Batch::PLAIN };
    let sim = Sim::start_with(|mut config| {
        config.gzip = false;
        config
    });
    let mut client = Raw::connect(sim.running().kafka);
    assert_eq!(client.produce(gzip).map(|stored| stored.error), Some(43));
    assert_eq!(client.produce(Batch::PLAIN).map(|stored| stored.error), Some(0));
    assert_eq!(sim.counter("gzip_refused"), 1);
    let sim = Sim::start();
    assert_eq!(Raw::connect(sim.running().kafka).produce(gzip).map(|stored| stored.error), Some(0));
    assert_eq!(sim.counter("gzip_refused"), 0);
}

#[test]
fn junk_ends_its_connection_and_nothing_else() {
    let sim = Sim::start();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        api in 0i16..40,
        version in 0i16..10,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    )| {
        let mut client = Raw::connect(sim.running().kafka);
        client.send(api, version, &body);
        // Whatever became of the junk, what follows is answered or the connection is closed.
        client.send(API_VERSIONS, 0, &[]);
        while client.receive().is_some_and(|answer| answer.len() != 54) {}
        let mut other = Raw::connect(sim.running().kafka);
        other.send(API_VERSIONS, 0, &[]);
        prop_assert_eq!(other.receive().map(|answer| answer.len()), Some(54));
    });
    assert!(sim.counter("malformed_requests") > 100);
}
