//! Clients we did not write: librdkafka and kcat.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::raw::{Batch, Raw};
use crate::sim::{PATIENCE, Sim, deadline, passed};

/// Collects delivery reports and errors.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) delivered: Mutex<Vec<Result<(), KafkaError>>>,
    pub(crate) errors: Mutex<Vec<RDKafkaErrorCode>>,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, _reason: &str) {
        self.errors.lock().unwrap().extend(error.rdkafka_error_code());
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(drop).map_err(|(error, _message)| error.clone());
        self.delivered.lock().unwrap().push(result);
    }
}

pub(crate) fn client(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config.set("reconnect.backoff.ms", "5").set("reconnect.backoff.max.ms", "20");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// An idempotent producer of small batches.
pub(crate) fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> BaseProducer<Reports> {
    let mut config = client(bootstrap, settings);
    config.set("enable.idempotence", "true").set("linger.ms", "1").set("retry.backoff.ms", "5");
    config.create_with_context(Reports::default()).unwrap()
}

/// Sends `count` numbered records to both partitions in turn, calling `between` before each.
pub(crate) fn send(producer: &BaseProducer<Reports>, count: usize, mut between: impl FnMut(usize)) {
    for number in 0..count {
        between(number);
        let (key, payload) = (format!("k{number}"), number.to_string());
        let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some(&payload) });
        let partition = i32::try_from(number % 2).unwrap();
        let record = BaseRecord::to("t").partition(partition).key(&key).payload(&payload).headers(headers);
        producer.send(record).map_err(|(error, _record)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
}

/// Waits for all reports; every record must have been delivered.
pub(crate) fn settle(producer: &BaseProducer<Reports>, count: usize) {
    producer.flush(PATIENCE).unwrap();
    let delivered = producer.context().delivered.lock().unwrap();
    assert_eq!(delivered.iter().filter(|result| result.is_ok()).count(), count, "{:?}", delivered.last());
}

/// Reads both partitions of `t` to their ends. Checks keys and headers; returns the numbers per partition.
pub(crate) fn read_back(sim: &Sim) -> [Vec<usize>; 2] {
    let settings = [("group.id", "readback"), ("enable.auto.commit", "false")];
    let consumer: BaseConsumer = client(&sim.kafka(), &settings).create().unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut total = 0;
    for partition in 0..2 {
        let (low, high) = consumer.fetch_watermarks("t", partition, PATIENCE).unwrap();
        assert_eq!(low, 0);
        total += usize::try_from(high).unwrap();
        assignment.add_partition_offset("t", partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut numbers = [Vec::new(), Vec::new()];
    let deadline = deadline();
    while numbers[0].len() + numbers[1].len() < total {
        assert!(!passed(deadline), "only {} and {} of {total}", numbers[0].len(), numbers[1].len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let Ok(message) = message else { continue };
        let payload = message.payload().unwrap();
        let number: usize = std::str::from_utf8(payload).unwrap().parse().unwrap();
        assert_eq!(message.key(), Some(format!("k{number}").as_bytes()));
        assert_eq!(message.headers().unwrap().get(0).value, Some(payload));
        numbers[usize::try_from(message.partition()).unwrap()].push(number);
    }
    numbers
}

/// Every number below `count` was read once, in order.
#[track_caller]
pub(crate) fn assert_complete(numbers: &[Vec<usize>; 2], count: usize) {
    for (partition, numbers) in numbers.iter().enumerate() {
        let expected: Vec<usize> = (partition..count).step_by(2).collect();
        assert!(numbers == &expected, "partition {partition}: {} records", numbers.len());
    }
}

#[test]
fn what_an_idempotent_producer_sent_is_read_back_once_and_in_order() {
    for codec in ["none", "gzip"] {
        let sim = Sim::start();
        let producer = producer(&sim.kafka(), &[("compression.codec", codec)]);
        send(&producer, 5_000, |_| {});
        settle(&producer, 5_000);
        assert_complete(&read_back(&sim), 5_000);
        assert_eq!(sim.counter("records_appended"), 5_000);
    }
}

#[test]
fn a_restart_keeps_the_log_and_the_producers() {
    let mut sim = Sim::start();
    let first = producer(&sim.kafka(), &[]);
    send(&first, 1_000, |_| {});
    settle(&first, 1_000);
    drop(first);
    let mut raw = Raw::connect(sim.running().kafka);
    sim.order("/v1/topics", r#"{"name": "later", "partitions": 1}"#);
    let batch = Batch { producer_id: 3, sequence: 0, ..Batch::PLAIN }.encode();
    raw.send_produce("later", 0, &batch);
    assert_eq!(raw.receive_stored().map(|stored| stored.offset), Some(0));
    sim.restart();
    assert_complete(&read_back(&sim), 1_000);
    let mut raw = Raw::connect(sim.running().kafka);
    raw.send_produce("later", 0, &batch);
    assert_eq!(raw.receive_stored().map(|stored| (stored.error, stored.offset)), Some((0, 0)));
    assert_eq!(sim.counter("duplicates_recognised"), 1);
}

#[test]
fn times_are_found_by_a_client() {
    let sim = Sim::start();
    let producer = producer(&sim.kafka(), &[]);
    for (number, timestamp) in [1_000, 2_000, 3_000].into_iter().enumerate() {
        let payload = number.to_string();
        let record = BaseRecord::<str, str>::to("t").partition(0).payload(&payload).timestamp(timestamp);
        producer.send(record).map_err(|(error, _record)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    }
    let consumer: BaseConsumer = client(&sim.kafka(), &[("group.id", "times")]).create().unwrap();
    let mut times = TopicPartitionList::new();
    times.add_partition_offset("t", 0, Offset::Offset(1_500)).unwrap();
    let found = consumer.offsets_for_times(times, PATIENCE).unwrap();
    assert_eq!(found.find_partition("t", 0).unwrap().offset(), Offset::Offset(1));
}

#[test]
fn kcat_produces_and_consumes_with_headers() {
    if Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("kcat is not installed: not checked");
        return;
    }
    let sim = Sim::start();
    let arguments = ["-P", "-t", "t", "-p", "1", "-k", "key", "-H", "a=b", "-X", "enable.idempotence=true"];
    kcat(&sim, &arguments, "one\ntwo\n");
    let arguments = ["-C", "-t", "t", "-p", "1", "-e", "-q", "-o", "beginning", "-f", "%o %k %h %s\\n"];
    assert_eq!(kcat(&sim, &arguments, ""), "0 key a=b one\n1 key a=b two\n");
    let listing = kcat(&sim, &["-L", "-t", "t"], "");
    assert!(listing.contains("topic \"t\" with 2 partitions"), "{listing}");
}

/// Runs kcat to its end and returns what it printed.
fn kcat(sim: &Sim, arguments: &[&str], input: &str) -> String {
    // It ends by itself; `timeout` is for the day it does not.
    let mut child = Command::new("timeout")
        .args(["15", "kcat", "-b", &sim.kafka()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "kcat {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
