//! Reads the topics back, as any consumer of the cloud would: the only file that names rdkafka.
//!
//! Every partition is read from its beginning to its high watermark, with a consumer that shares no
//! code or setting with the gateway's producer. Reading ends when every acknowledged reading was
//! found and the partitions are read to their ends, or when nothing new came for the given time.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str;
use std::time::Duration;

use penstock_proto::packed::{self, inflate, unpack};
use penstock_proto::{IDENTITY_HEADER, Identity, PACK_HEADER, Reading};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use testkit::commands::status::{StatusError, StatusEvent};
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
    /// A record says that it is a status event and is none.
    #[error("read-back: {0}")]
    Status(#[from] StatusError),
    /// A packed record cannot be taken apart.
    #[error("read-back: {0}")]
    Packed(String),
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

/// Feeds the judge with every record of the run, the entries of packed records one by one; returns how many of
/// earlier runs were passed over.
///
/// A record, or an entry of a packed one, belongs to an earlier run when its reading was taken before `start_ms`. Ends after `wait`
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
                earlier += feed(judge, &message, place, start_ms);
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

/// Reads the status events of commands, in the order of each partition, until each of the `wanted` commands has
/// a final one and the topics are read to their ends, or nothing new came for `wait`.
///
/// # Errors
/// When a topic does not exist, its server does not answer within `wait`, or what is there cannot be read.
pub fn statuses(
    source: &Source,
    mut wanted: HashSet<&str>,
    wait: Duration,
    cancel: &Cancel,
) -> Result<Vec<StatusEvent>, ReadbackError> {
    let consumer: BaseConsumer = source.config().create()?;
    let mut positions = assign(source, &consumer, wait, cancel)?;
    let mut events = Vec::new();
    let mut last_record = Instant::now();
    while last_record.elapsed() < wait && !cancel.is_stopped() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last_record = Instant::now();
                let topic =
                    source.topics.iter().position(|topic| topic == message.topic()).unwrap_or_default();
                positions.insert((topic, message.partition()), message.offset() + 1);
                for payload in payloads(&message)? {
                    let event = StatusEvent::read(&payload)?;
                    if let Some(event) = event.as_ref().filter(|event| event.is_final) {
                        wanted.remove(event.command_id.as_str());
                    }
                    events.extend(event);
                }
            }
            Some(Err(error)) => tracing::debug!(%error, "read-back poll"),
            None if wanted.is_empty() => {
                let settled = last_record.elapsed() >= SETTLE.min(wait);
                if settled && at_end(source, &consumer, &positions) {
                    break;
                }
            }
            None => {}
        }
    }
    Ok(events)
}

/// The payload of a record, or those of the entries of a packed one.
fn payloads(message: &BorrowedMessage<'_>) -> Result<Vec<Vec<u8>>, ReadbackError> {
    let value = message.payload().unwrap_or_default();
    let packed = header(message, PACK_HEADER).map_err(ReadbackError::Packed)?;
    let Some(pack) = packed else { return Ok(vec![value.to_vec()]) };
    let bad = |error: &dyn std::fmt::Display| ReadbackError::Packed(format!("pack {pack:?}: {error}"));
    let pack: packed::Header = pack.parse().map_err(|error| bad(&error))?;
    let identity = identity(message).map_err(ReadbackError::Packed)?;
    let body = inflate(pack.compression, value).map_err(|error| bad(&error))?;
    let entries = unpack(&pack, &identity, &body).map_err(|error| bad(&error))?;
    Ok(entries.iter().map(|entry| entry.payload.bytes().to_vec()).collect())
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

/// Judges a message, or every entry of a packed one; returns how many entries belong to an earlier run.
fn feed(judge: &mut Judge<'_>, message: &BorrowedMessage<'_>, place: Place, start_ms: u64) -> u64 {
    let key = message.key().unwrap_or_default();
    let outcome = header(message, PACK_HEADER).and_then(|pack| match (pack, message.payload()) {
        (_, None) => Err("no payload".to_owned()),
        (None, Some(payload)) => {
            let identity = identity(message);
            Ok(u64::from(!feed_entry(judge, key, identity.as_ref(), payload, place, start_ms)))
        }
        (Some(pack), Some(value)) => feed_pack(judge, pack, &identity(message)?, value, place, start_ms),
    });
    outcome.unwrap_or_else(|why| {
        judge.unreadable(place, &why);
        0
    })
}

/// Judges the entries of a packed record, whose keys are their devices.
fn feed_pack(
    judge: &mut Judge<'_>,
    pack: &str,
    identity: &Identity,
    value: &[u8],
    place: Place,
    start_ms: u64,
) -> Result<u64, String> {
    let pack: packed::Header = pack.parse().map_err(|error| format!("pack {pack:?}: {error}"))?;
    let bad = |error| format!("pack {pack} of {identity}: {error}");
    let body = inflate(pack.compression, value).map_err(bad)?;
    let entries = unpack(&pack, identity, &body).map_err(bad)?;
    let mut earlier = 0;
    let mut of_entry = identity.clone();
    for entry in &entries {
        of_entry.seq = entry.seq;
        let (key, payload) = (entry.device.as_bytes(), entry.payload.bytes());
        earlier += u64::from(!feed_entry(judge, key, Ok(&of_entry), payload, place, start_ms));
        of_entry.prev = entry.seq;
    }
    Ok(earlier)
}

/// Judges an entry; false when it belongs to an earlier run.
fn feed_entry(
    judge: &mut Judge<'_>,
    key: &[u8],
    identity: Result<&Identity, &String>,
    payload: &[u8],
    place: Place,
    start_ms: u64,
) -> bool {
    let reading = match serde_json::from_slice::<Reading>(payload) {
        Ok(reading) if reading.taken_ms < start_ms => return false,
        Ok(reading) => reading,
        Err(error) => {
            judge.unreadable(place, &format!("not a reading: {error}"));
            return true;
        }
    };
    match identity {
        Ok(identity) => judge.record(Delivered {
            device: &reading.device,
            reading: reading.reading,
            key,
            identity,
            place,
        }),
        Err(why) => judge.unreadable(place, why),
    }
    true
}

fn identity(message: &BorrowedMessage<'_>) -> Result<Identity, String> {
    let text = header(message, IDENTITY_HEADER)?.ok_or("no identity header")?;
    text.parse().map_err(|error| format!("identity {text:?}: {error}"))
}

/// The value of the only header with this name, if there is one.
fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Result<Option<&'m str>, String> {
    let headers = message.headers();
    let mut found =
        headers.into_iter().flat_map(|headers| headers.iter()).filter(|header| header.key == name);
    let Some(header) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(format!("two headers {name}"));
    }
    str::from_utf8(header.value.unwrap_or_default()).map(Some).map_err(|error| error.to_string())
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
