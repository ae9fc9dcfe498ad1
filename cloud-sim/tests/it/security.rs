//! TLS and the connection string.

use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer};

use crate::clients::{Reports, assert_complete, producer, read_back, send, settle};
use crate::raw::Raw;
use crate::sim::{Sim, deadline, passed};

const KEY: &str = "Endpoint=sb://localhost/;SharedAccessKeyName=test;SharedAccessKey=bm90IGEgc2VjcmV0";

fn secured() -> Sim {
    Sim::start_with(|config| config.with_tls(KEY))
}

fn tls_producer(sim: &Sim, key: &str, trusted: bool) -> BaseProducer<Reports> {
    let address = sim.running().kafka_tls.unwrap().to_string();
    let mut settings = vec![
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "$ConnectionString"),
        ("sasl.password", key),
    ];
    if trusted {
        settings.push(("ssl.ca.pem", sim.running().ca_pem.as_deref().unwrap()));
    }
    producer(&address, &settings)
}

/// Polls until the client reports an error of this kind.
#[track_caller]
fn fails_with(producer: &BaseProducer<Reports>, expected: RDKafkaErrorCode) {
    let deadline = deadline();
    while !producer.context().errors.lock().unwrap().contains(&expected) {
        assert!(!passed(deadline), "only {:?}", producer.context().errors.lock().unwrap());
        producer.poll(Duration::from_millis(20));
    }
}

#[test]
fn the_right_key_is_let_in() {
    let sim = secured();
    let producer = tls_producer(&sim, KEY, true);
    send(&producer, 1_000, |_| {});
    settle(&producer, 1_000);
    assert_complete(&read_back(&sim), 1_000);
    let running = sim.running();
    let file = std::fs::read_to_string(running.ca_file.as_ref().unwrap()).unwrap();
    assert_eq!(Some(file), running.ca_pem);
}

#[test]
fn a_wrong_key_is_refused() {
    let sim = secured();
    let producer = tls_producer(&sim, "Endpoint=sb://localhost/;SharedAccessKey=wrong", true);
    fails_with(&producer, RDKafkaErrorCode::Authentication);
    sim.await_counter("authentication_failures", 1);
    assert_eq!(sim.counter("records_appended"), 0);
}

#[test]
fn an_unknown_authority_is_not_trusted() {
    let sim = secured();
    fails_with(&tls_producer(&sim, KEY, false), RDKafkaErrorCode::SSL);
}

#[test]
fn requests_before_the_key_close_the_connection() {
    let sim = Sim::start_with(|mut config| {
        config.sasl_key = Some(KEY.to_owned());
        config.plain_requires_sasl = true;
        config
    });
    let mut client = Raw::connect(sim.running().kafka);
    client.send(18, 0, &[]);
    assert!(client.receive().is_some(), "versions may be asked");
    client.send(3, 0, &[0; 4]);
    assert_eq!(client.receive(), None);
    let mut client = Raw::connect(sim.running().kafka);
    client.send_bytes(&100_000i32.to_be_bytes());
    assert_eq!(client.receive(), None, "strangers get small frames only");
}

#[test]
fn a_bare_token_after_the_oldest_handshake_is_taken() {
    let sim = Sim::start_with(|mut config| {
        config.sasl_key = Some(KEY.to_owned());
        config.plain_requires_sasl = true;
        config
    });
    for (key, expected) in [(KEY, true), ("wrong", false)] {
        let mut client = Raw::connect(sim.running().kafka);
        client.send(17, 0, b"\x00\x05PLAIN");
        assert_eq!(client.receive().unwrap()[..2], [0, 0]);
        let token = format!("\0$ConnectionString\0{key}");
        let mut frame = i32::try_from(token.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(token.as_bytes());
        client.send_bytes(&frame);
        assert_eq!(client.receive_empty(), expected);
        if expected {
            client.send(3, 0, &[0; 4]);
            assert!(client.receive().is_some());
        }
    }
}
