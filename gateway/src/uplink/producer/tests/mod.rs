//! The producer against librdkafka's mock cluster, and against cloud-sim where the mock has no such fault.

mod refusals;

use cloud_sim::TopicSpec;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use testkit::cloud::Control;

use super::super::connection::Security;
use super::*;

const TOPIC: &str = "telemetry";
const PATIENCE: Duration = Duration::from_secs(30);
/// Received at this time, and so with this timestamp.
const RECEIVED_MS: u64 = 1_790_000_000_000;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = Cluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    cluster
}

fn settings(bootstrap_servers: String, linger: Duration) -> Settings {
    let socket_timeout = Duration::from_secs(10);
    Settings {
        connection: Connection { bootstrap_servers, security: Security::Plaintext, socket_timeout },
        client_id: "test".to_owned(),
        linger,
        in_flight_max: 100_000,
        in_flight_bytes_max: 64 << 20,
        gzip: false,
    }
}

/// Hands over records with these slots, whose payloads are their slots as text.
fn send(producer: &Producer, slots: std::ops::Range<usize>) -> Result<(), Refused> {
    let mut headers = Headers::default();
    for slot in slots {
        let payload = slot.to_string();
        headers.clear();
        headers.push("penstock", payload.as_bytes());
        headers.push("empty", b"");
        producer.send(&Outgoing {
            topic: TOPIC,
            partition: 0,
            key: b"pump-7",
            payload: payload.as_bytes(),
            headers: &headers,
            timestamp_ms: RECEIVED_MS,
            slot,
        })?;
    }
    Ok(())
}

/// Waits for the reports of everything handed over.
fn reports(producer: &Producer, count: usize) -> Vec<Report> {
    let deadline = clock::now() + PATIENCE;
    let mut reports = Vec::new();
    while reports.len() < count {
        assert!(clock::now() < deadline, "only {} of {count} reports came", reports.len());
        producer.poll(Duration::from_millis(5), &mut reports);
    }
    reports
}

/// Everything in the partition, in order, checked against what [`send`] sends; as slots.
fn stored(bootstrap_servers: &str) -> Vec<usize> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "test")
        .set("check.crcs", "true")
        .create()
        .unwrap();
    let (low, high) = consumer.fetch_watermarks(TOPIC, 0, PATIENCE).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(TOPIC, 0, Offset::Offset(low)).unwrap();
    consumer.assign(&from).unwrap();
    let mut slots = Vec::new();
    for _ in low..high {
        let message = consumer.poll(PATIENCE).expect("a record").unwrap();
        let payload = std::str::from_utf8(message.payload().unwrap()).unwrap();
        assert_eq!(message.key(), Some(&b"pump-7"[..]));
        assert_eq!(message.timestamp().to_millis(), RECEIVED_MS.try_into().ok());
        let headers = message.headers().unwrap();
        let found: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
        assert_eq!(found, [("penstock", Some(payload.as_bytes())), ("empty", Some(&b""[..]))]);
        slots.push(payload.parse().unwrap());
    }
    slots
}

fn check(code: RDKafkaErrorCode, expected: Disposition) {
    assert_eq!(failure(&KafkaError::MessageProduction(code)).disposition, expected, "{code:?}");
}

#[test]
fn refusals_of_a_topic_hold_it_and_the_rest_is_retried() {
    check(RDKafkaErrorCode::TopicAuthorizationFailed, Disposition::Hold);
    check(RDKafkaErrorCode::UnknownTopicOrPartition, Disposition::Hold);
    check(RDKafkaErrorCode::MessageSizeTooLarge, Disposition::Record);
    check(RDKafkaErrorCode::PolicyViolation, Disposition::Retry);
    check(RDKafkaErrorCode::OutOfOrderSequenceNumber, Disposition::Retry);
    check(RDKafkaErrorCode::Unknown, Disposition::Retry);
    check(RDKafkaErrorCode::PurgeQueue, Disposition::Collateral);
}

#[test]
fn what_is_sent_is_stored_with_key_headers_and_time() {
    let cluster = cluster();
    let servers = cluster.bootstrap_servers();
    let producer = Producer::new(&settings(servers.clone(), Duration::ZERO)).unwrap();
    send(&producer, 0..1000).unwrap();
    let reports = reports(&producer, 1000);
    for (place, report) in reports.iter().enumerate() {
        assert_eq!(*report, Report { slot: place, result: Ok(place.try_into().unwrap()) });
    }
    assert_eq!(stored(&servers), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_record_that_is_too_large_is_refused_alone() {
    let cluster = cluster();
    let producer = Producer::new(&settings(cluster.bootstrap_servers(), Duration::ZERO)).unwrap();
    let (payload, headers) = (vec![7; RECORD_BYTES_MAX], Headers::default());
    let record = Outgoing {
        topic: TOPIC,
        partition: 0,
        key: b"",
        payload: &payload,
        headers: &headers,
        timestamp_ms: 0,
        slot: 0,
    };
    let refused = producer.send(&record).unwrap_err();
    let Refused::Failure(failure) = refused else { panic!("{refused:?}") };
    assert_eq!((failure.disposition, failure.reason.as_str()), (Disposition::Record, "MessageSizeTooLarge"));
    send(&producer, 0..10).unwrap();
    assert!(reports(&producer, 10).iter().all(|report| report.result.is_ok()));
}

#[test]
fn a_full_library_takes_more_once_it_was_polled() {
    let cluster = cluster();
    let settings = Settings { in_flight_max: 100, ..settings(cluster.bootstrap_servers(), Duration::ZERO) };
    let producer = Producer::new(&settings).unwrap();
    assert_eq!(send(&producer, 0..101), Err(Refused::Full));
    assert_eq!(reports(&producer, 100).len(), 100);
    send(&producer, 100..101).unwrap();
    assert_eq!(reports(&producer, 1).len(), 1);
}

#[test]
fn a_topic_name_that_cannot_be_is_refused() {
    let cluster = cluster();
    let producer = Producer::new(&settings(cluster.bootstrap_servers(), Duration::ZERO)).unwrap();
    let record = Outgoing {
        topic: "a\0b",
        partition: 0,
        key: b"",
        payload: b"x",
        headers: &Headers::default(),
        timestamp_ms: 0,
        slot: 0,
    };
    let refused = producer.send(&record).unwrap_err();
    let Refused::Failure(failure) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.disposition, Disposition::Hold, "{failure:?}");
}

#[test]
fn a_producer_with_records_on_their_way_is_dropped_at_once() {
    let producer = Producer::new(&settings("127.0.0.1:1".to_owned(), Duration::ZERO)).unwrap();
    send(&producer, 0..50_000).unwrap();
    let start = clock::now();
    drop(producer);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn throttle_times_of_the_service_are_heard_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cloud =
        cloud_sim::Config::new(folder.path().to_owned()).with_topic(TopicSpec::new(TOPIC, 1).unwrap());
    let cloud = runtime.block_on(cloud_sim::start(cloud)).unwrap();
    let control = Control::new(&cloud.control.to_string());
    let producer = Producer::new(&settings(cloud.kafka.to_string(), Duration::ZERO)).unwrap();
    send(&producer, 0..1).unwrap();
    reports(&producer, 1);
    assert_eq!(producer.throttle(), Duration::ZERO);

    let until = |wanted: &dyn Fn(Duration) -> bool| {
        let deadline = clock::now() + PATIENCE;
        while !wanted(producer.throttle()) {
            assert!(clock::now() < deadline, "the throttle time is {:?}", producer.throttle());
            send(&producer, 0..1).unwrap();
            reports(&producer, 1);
        }
    };
    control.post("/v1/faults/throttle", &serde_json::json!({ "ms": 70 })).unwrap();
    until(&|throttle| throttle == Duration::from_millis(70));
    control.post("/v1/faults/throttle", &serde_json::json!({ "ms": 0 })).unwrap();
    until(&|throttle| throttle.is_zero());
    runtime.block_on(cloud.stop());
}
