//! Reads the topics back, as any consumer of the cloud would: the only file that names rdkafka.
//!
//! Every partition is read from its beginning to its high watermark, with a consumer that shares no
//! code or setting with the gateway's producer. Reading ends when every acknowledged reading was
//! found and the partitions are read to their ends, or when nothing new came for the given time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str;
use std::time::Duration;

use penstock_proto::{IDENTITY_HEADER, Identity, Reading};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use testkit::judge::{Delivered, Judge, Place};
use tokio::time::Instant;

use crate::run::Cancel;

/// Longest wait of one poll.
const POLL: Duration = Duration::from_millis(100);
/// Longest wait for metadata and watermarks.
const REQUEST: Duration = Duration::from_secs(5);
/// The ends of the partitions must stay where they are for this long: late QoS 0 readings and duplicates.
const SETTLE: Duration = Duration::from_secs(1);

/// What to read, and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    servers: String,
    topics: Vec<String>,
    connection_string: Option<String>,
    ca_file: Option<PathBuf>,
}

/// Why the records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadbackError {
    /// The URL of the read-back has another shape.
    #[error("read-back {0:?} is not kafka://HOST:PORT/TOPIC[,TOPIC]")]
    Url(String),
    /// Kafka refused or did not answer.
    #[error("read-back: {0}")]
    Kafka(#[from] KafkaError),
    /// A topic has no partitions.
    #[error("read-back: topic {0:?} does not exist")]
    NoTopic(String),
}

impl Source {
    /// Parses `kafka://HOST:PORT/TOPIC[,TOPIC]`. A connection string turns on SASL over TLS; a
    /// certificate authority alone turns on TLS.
    ///
    /// # Errors
    /// When the URL has another shape.
    pub fn new(
        url: &str,
        connection_string: Option<String>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ReadbackError> {
        let wrong = || ReadbackError::Url(url.to_owned());
        let rest = url.strip_prefix("kafka://").ok_or_else(wrong)?;
        let (servers, topics) = rest.split_once('/').ok_or_else(wrong)?;
        let topics: Vec<String> = topics.split(',').map(str::to_owned).collect();
        if !servers.contains(':') || topics.iter().any(|topic| topic.is_empty() || topic.contains('/')) {
            return Err(wrong());
        }
        Ok(Self {
            servers: servers.to_owned(),
            topics,
            connection_string,
            ca_file: ca_file.map(Path::to_owned),
        })
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "firmware-sim")
            // librdkafka wants a group even from a consumer that is assigned by hand and commits nothing.
            .set("group.id", "firmware-sim-readback")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .set("isolation.level", "read_uncommitted");
        let protocol = match (&self.connection_string, &self.ca_file) {
            (Some(_), _) => "sasl_ssl",
            (None, Some(_)) => "ssl",
            (None, None) => "plaintext",
        };
        config.set("security.protocol", protocol);
        if let Some(connection_string) = &self.connection_string {
            config.set("sasl.mechanism", "PLAIN");
            config.set("sasl.username", "$ConnectionString").set("sasl.password", connection_string);
        }
        if let Some(ca_file) = &self.ca_file {
            config.set("ssl.ca.location", ca_file.to_string_lossy());
        }
        config
    }
}

/// Feeds the judge with every record of the run; returns how many of earlier runs were passed over.
///
/// A record belongs to an earlier run when its reading was taken before `start_ms`. Ends after `wait`
/// without a new record, or when cancelled; the judge then finds what is missing.
///
/// # Errors
/// When a topic does not exist or its server does not answer within `wait`.
pub fn read(
    source: &Source,
    start_ms: u64,
    wait: Duration,
    judge: &mut Judge<'_>,
    cancel: &Cancel,
) -> Result<u64, ReadbackError> {
    let consumer: BaseConsumer = source.config().create()?;
    let mut positions = assign(source, &consumer, wait, cancel)?;
    let mut earlier = 0;
    let mut last_record = Instant::now();
    while last_record.elapsed() < wait && !cancel.is_stopped() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last_record = Instant::now();
                let topic =
                    source.topics.iter().position(|topic| topic == message.topic()).unwrap_or_default();
                let place = Place { topic, partition: message.partition(), offset: message.offset() };
                positions.insert((topic, place.partition), place.offset + 1);
                earlier += u64::from(!feed(judge, &message, place, start_ms));
            }
            // librdkafka reports broken connections here and mends them itself.
            Some(Err(error)) => tracing::debug!(%error, "read-back poll"),
            None if judge.missing() == 0 => {
                let settled = last_record.elapsed() >= SETTLE.min(wait);
                if settled && at_end(source, &consumer, &positions) {
                    break;
                }
            }
            None => {}
        }
    }
    Ok(earlier)
}

/// Assigns every partition from its beginning; asks until the topics are there or the time is up.
fn assign(
    source: &Source,
    consumer: &BaseConsumer,
    wait: Duration,
    cancel: &Cancel,
) -> Result<HashMap<(usize, i32), i64>, ReadbackError> {
    let started = Instant::now();
    loop {
        match partitions(source, consumer) {
            Ok(found) => {
                let mut list = TopicPartitionList::new();
                for &(topic, partition) in found.keys() {
                    if let Some(name) = source.topics.get(topic) {
                        list.add_partition_offset(name, partition, Offset::Beginning)?;
                    }
                }
                consumer.assign(&list)?;
                return Ok(found);
            }
            Err(error) if started.elapsed() >= wait || cancel.is_stopped() => return Err(error),
            // A pause that also serves librdkafka's events.
            Err(_) => drop(consumer.poll(POLL)),
        }
    }
}

fn partitions(source: &Source, consumer: &BaseConsumer) -> Result<HashMap<(usize, i32), i64>, ReadbackError> {
    let mut found = HashMap::new();
    for (index, name) in source.topics.iter().enumerate() {
        let metadata = consumer.fetch_metadata(Some(name), REQUEST)?;
        let partitions =
            metadata.topics().iter().filter(|topic| topic.name() == name).flat_map(|t| t.partitions());
        let before = found.len();
        found.extend(partitions.map(|partition| ((index, partition.id()), 0)));
        if found.len() == before {
            return Err(ReadbackError::NoTopic(name.clone()));
        }
    }
    Ok(found)
}

fn at_end(source: &Source, consumer: &BaseConsumer, positions: &HashMap<(usize, i32), i64>) -> bool {
    positions.iter().all(|(&(topic, partition), &position)| {
        let Some(name) = source.topics.get(topic) else { return true };
        let marks = consumer.fetch_watermarks(name, partition, REQUEST);
        // A partition whose first records have expired starts above 0 and may be empty.
        marks.is_ok_and(|(low, high)| position >= high || low >= high)
    })
}

/// Judges a message; false when it belongs to an earlier run.
fn feed(judge: &mut Judge<'_>, message: &BorrowedMessage<'_>, place: Place, start_ms: u64) -> bool {
    let reading = message.payload().map(serde_json::from_slice::<Reading>);
    let reading = match reading {
        Some(Ok(reading)) if reading.taken_ms < start_ms => return false,
        Some(Ok(reading)) => reading,
        Some(Err(error)) => {
            judge.unreadable(place, &format!("not a reading: {error}"));
            return true;
        }
        None => {
            judge.unreadable(place, "no payload");
            return true;
        }
    };
    match identity(message) {
        Ok(identity) => judge.record(Delivered {
            device: &reading.device,
            reading: reading.reading,
            key: message.key().unwrap_or_default(),
            identity: &identity,
            place,
        }),
        Err(why) => judge.unreadable(place, &why),
    }
    true
}

fn identity(message: &BorrowedMessage<'_>) -> Result<Identity, String> {
    let headers = message.headers().ok_or("no headers")?;
    let mut found = headers.iter().filter(|header| header.key == IDENTITY_HEADER);
    let header = found.next().ok_or("no identity header")?;
    if found.next().is_some() {
        return Err("two identity headers".to_owned());
    }
    let text = str::from_utf8(header.value.unwrap_or_default()).map_err(|error| error.to_string())?;
    text.parse().map_err(|error| format!("identity {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Option<(&str, &[&str])>) {
        let parsed = Source::new(url, None, None).ok();
        let found = parsed.as_ref().map(|source| (source.servers.as_str(), source.topics.as_slice()));
        let expected = expected.map(|(servers, topics)| {
            let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
            (servers, topics)
        });
        assert_eq!(found, expected.as_ref().map(|(servers, topics)| (*servers, topics.as_slice())), "{url}");
    }

    #[test]
    fn sources_name_servers_and_topics() {
        check("kafka://127.0.0.1:9092/telemetry", Some(("127.0.0.1:9092", &["telemetry"])));
        check("kafka://a:1,b:2/t,u", Some(("a:1,b:2", &["t", "u"])));
        check("kafka://127.0.0.1:9092/", None);
        check("kafka://127.0.0.1:9092/a,,b", None);
        check("kafka://127.0.0.1/t", None);
        check("127.0.0.1:9092/t", None);
    }

    #[test]
    fn a_connection_string_means_sasl_over_tls() {
        let protocol = |connection: Option<&str>, ca: Option<&str>| {
            let source =
                Source::new("kafka://h:1/t", connection.map(str::to_owned), ca.map(Path::new)).unwrap();
            source.config().get("security.protocol").map(str::to_owned)
        };
        assert_eq!(protocol(None, None).as_deref(), Some("plaintext"));
        assert_eq!(protocol(None, Some("/ca")).as_deref(), Some("ssl"));
        assert_eq!(protocol(Some("Endpoint=…"), None).as_deref(), Some("sasl_ssl"));
    }
}
