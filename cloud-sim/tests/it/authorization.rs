//! Rights that are missing: to read, and to write to a topic.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaRespErr;

use crate::clients::{client, producer, read_back, send, settle};
use crate::raw::{Batch, Raw};
use crate::sim::{PATIENCE, Sim};

const REFUSED: i16 = 29;

#[test]
fn without_the_right_to_listen_nothing_is_read_and_everything_is_written() {
    let sim = Sim::start();
    let mut reader = Raw::connect(sim.running().kafka);
    let mut writer = Raw::connect(sim.running().kafka);
    // A fetch that waits for records when the right is taken away is answered at once.
    reader.send_fetch(0, 29_000);
    sim.order("/v1/faults/listen", r#"{"enabled": false}"#);
    assert_eq!(reader.receive_fetched(), (REFUSED, Vec::new()));
    assert_eq!(reader.list_latest(), REFUSED);
    assert_eq!(writer.produce(Batch::PLAIN).unwrap().error, 0);
    assert_eq!(sim.counter("listen_refused"), 2);
    let consumer: BaseConsumer = client(&sim.kafka(), &[("group.id", "listen")]).create().unwrap();
    let refused = consumer.fetch_watermarks("t", 0, PATIENCE).unwrap_err().rdkafka_error_code();
    assert_eq!(refused, Some(RDKafkaErrorCode::TopicAuthorizationFailed));

    sim.order("/v1/faults/listen", r#"{"enabled": true}"#);
    reader.send_fetch(0, 0);
    let (error, bytes) = reader.receive_fetched();
    assert_eq!((error, bytes.len()), (0, 81));
    assert_eq!(reader.list_latest(), 0);
}

#[test]
fn a_topic_without_the_right_to_send_is_refused_and_the_others_are_not() {
    let sim = Sim::start();
    sim.order("/v1/topics", r#"{"name": "u", "partitions": 1}"#);
    sim.order("/v1/faults/authorize", r#"{"topic": "t", "enabled": false}"#);
    let mut writer = Raw::connect(sim.running().kafka);
    assert_eq!(writer.produce(Batch::PLAIN).unwrap().error, REFUSED);
    writer.send_produce("u", 0, &Batch::PLAIN.encode());
    assert_eq!(writer.receive_stored().unwrap().error, 0);
    assert_eq!(sim.counter("authorization_refused"), 1);
    assert_eq!(sim.counter("records_appended"), 1);
    assert_eq!(
        seen(&sim, Some("t")),
        [("t".to_owned(), Some(RDKafkaErrorCode::TopicAuthorizationFailed), 0)]
    );
    assert_eq!(seen(&sim, None), [("u".to_owned(), None, 1)], "a list does not show it");

    sim.order("/v1/faults/authorize", r#"{"topic": "t", "enabled": true}"#);
    assert_eq!(writer.produce(Batch::PLAIN).unwrap().error, 0);
    assert_eq!(seen(&sim, Some("t")), [("t".to_owned(), None, 2)]);
}

#[test]
fn metadata_may_be_told_without_the_right_to_send() {
    let sim = Sim::start();
    sim.order("/v1/faults/authorize", r#"{"topic": "t", "enabled": false, "metadata": false}"#);
    assert_eq!(seen(&sim, Some("t")), [("t".to_owned(), None, 2)]);
    assert_eq!(Raw::connect(sim.running().kafka).produce(Batch::PLAIN).unwrap().error, REFUSED);
}

/// What a client that we did not write sees of a topic, or of all: name, error, partitions.
fn seen(sim: &Sim, topic: Option<&str>) -> Vec<(String, Option<RDKafkaErrorCode>, usize)> {
    let consumer: BaseConsumer = client(&sim.kafka(), &[]).create().unwrap();
    let metadata = consumer.fetch_metadata(topic, PATIENCE).unwrap();
    let code = |error: RDKafkaRespErr| RDKafkaErrorCode::from(error);
    let topics = metadata.topics().iter();
    topics.map(|topic| (topic.name().to_owned(), topic.error().map(code), topic.partitions().len())).collect()
}

#[test]
fn librdkafka_is_told_and_goes_on_once_it_may() {
    for metadata in [true, false] {
        let sim = Sim::start();
        let authorize = |enabled: bool| {
            let order = serde_json::json!({ "topic": "t", "enabled": enabled, "metadata": metadata });
            sim.order("/v1/faults/authorize", &order.to_string());
        };
        let refused = producer(&sim.kafka(), &[]);
        authorize(false);
        send(&refused, 1, |_| {});
        refused.flush(PATIENCE).unwrap();
        let code = refused.context().delivered.lock().unwrap()[0].clone().unwrap_err().rdkafka_error_code();
        assert_eq!(code, Some(RDKafkaErrorCode::TopicAuthorizationFailed), "metadata refused: {metadata}");
        assert!(sim.counter("authorization_refused") > 0);
        authorize(true);
        let producer = producer(&sim.kafka(), &[]);
        send(&producer, 10, |_| {});
        settle(&producer, 10);
        assert_eq!(read_back(&sim), [vec![0, 2, 4, 6, 8], vec![1, 3, 5, 7, 9]]);
    }
}
