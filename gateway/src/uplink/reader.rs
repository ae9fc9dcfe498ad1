//! Reads partitions of topics from one offset to another: what `penstock verify` reads back.
//!
//! No consumer group is joined and no offset is committed, so reading changes nothing in the cloud.

use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Timestamp};

use super::connection::Connection;
use crate::supervise::clock;

/// A client that reads.
pub(crate) struct Reader {
    inner: BaseConsumer<Context>,
}

/// A partition and its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// First offset that exists.
    pub(crate) low: i64,
    /// One past the last offset.
    pub(crate) high: i64,
}

/// A record as stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// Place of its partition in the list given.
    pub(crate) part: usize,
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing judges it yet; tests compare it"))]
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing judges it yet; tests compare it"))]
    pub(crate) timestamp_ms: Option<i64>,
    /// Values of the headers with the name asked for: the first, and how many there are.
    pub(crate) header: Option<&'a [u8]>,
    pub(crate) headers: usize,
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The client library cannot be set up.
    #[error("the Kafka client cannot be set up")]
    SetUp(#[source] KafkaError),
    /// The topic is not there or refused.
    #[error("topic {topic}")]
    Topic {
        /// Its name.
        topic: String,
        /// The library's word.
        source: KafkaError,
    },
    /// The offsets of a partition cannot be had.
    #[error("offsets of {topic}[{partition}]")]
    Offsets {
        /// Its topic.
        topic: String,
        /// Its number.
        partition: u32,
        /// The library's word.
        source: KafkaError,
    },
    /// Reading failed.
    #[error("reading")]
    Read(#[source] KafkaError),
    /// Nothing came for too long.
    #[error("nothing came for {0:?} though {1} partitions are not at their end")]
    Stalled(Duration, usize),
    /// The caller's own.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
}

struct Context;

// === impl Reader ===

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// Sets the library up; it connects when first asked for something.
    ///
    /// # Errors
    ///
    /// [`ReadError::SetUp`].
    pub(crate) fn new(connection: &Connection) -> Result<Self, ReadError> {
        let mut config = ClientConfig::new();
        for (name, value) in connection.settings() {
            config.set(name, value);
        }
        // A group must be named although none is joined.
        config.set("group.id", "penstock-verify").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        config.set("queued.max.messages.kbytes", "16384").set("fetch.wait.max.ms", "100");
        config.set_log_level(RDKafkaLogLevel::Warning);
        let inner = config.create_with_context(Context).map_err(ReadError::SetUp)?;
        Ok(Self { inner })
    }

    /// Every partition of a topic with its offsets at this moment.
    ///
    /// # Errors
    ///
    /// When the topic is missing or refused, or no answer comes within `timeout` each.
    pub(crate) fn parts(&self, topic: &str, timeout: Duration) -> Result<Vec<Part>, ReadError> {
        let refused = |source| ReadError::Topic { topic: topic.to_owned(), source };
        let metadata = self.inner.fetch_metadata(Some(topic), timeout).map_err(refused)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let missing = || refused(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        let found = found.ok_or_else(missing)?;
        if let Some(error) = found.error() {
            return Err(refused(KafkaError::MetadataFetch(error.into())));
        }
        let mut parts = Vec::with_capacity(found.partitions().len());
        for partition in found.partitions() {
            let (low, high) =
                self.inner.fetch_watermarks(topic, partition.id(), timeout).map_err(|source| {
                    let partition = u32::try_from(partition.id()).unwrap_or(u32::MAX);
                    ReadError::Offsets { topic: topic.to_owned(), partition, source }
                })?;
            let partition = u32::try_from(partition.id()).map_err(|_| missing())?;
            parts.push(Part { topic: topic.to_owned(), partition, low, high });
        }
        parts.sort_by_key(|part| part.partition);
        Ok(parts)
    }

    /// Reads every part from `low` to `high`, the parts mixed and each in order of its offsets.
    ///
    /// # Errors
    ///
    /// The library's, the caller's, and [`ReadError::Stalled`] when nothing comes for `patience`.
    pub(crate) fn read<E>(
        &self,
        parts: &[Part],
        header: &str,
        patience: Duration,
        mut each: impl FnMut(&Stored<'_>) -> Result<(), E>,
    ) -> Result<(), ReadError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut open: Vec<bool> = parts.iter().map(|part| part.low < part.high).collect();
        self.assign(parts, &open).map_err(ReadError::Read)?;
        let mut heard = clock::now();
        // Records come in runs of one partition.
        let mut last = 0;
        while open.contains(&true) {
            match self.inner.poll(Duration::from_millis(100)) {
                None if clock::now().duration_since(heard) > patience => {
                    let left = open.iter().filter(|open| **open).count();
                    return Err(ReadError::Stalled(patience, left));
                }
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => self.close_ended(parts, &mut open)?,
                // Lost connections are made anew by the library; patience decides when to give up.
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(ReadError::Read(error)),
                Some(Ok(message)) => {
                    heard = clock::now();
                    let Some(place) = place(parts, last, &message) else { continue };
                    last = place;
                    if message.offset() < parts[place].high {
                        each(&stored(place, &message, header))
                            .map_err(|error| ReadError::Caller(Box::new(error)))?;
                    }
                    if message.offset() + 1 >= parts[place].high {
                        open[place] = false;
                    }
                }
            }
        }
        self.inner.unassign().map_err(ReadError::Read)
    }

    fn assign(&self, parts: &[Part], open: &[bool]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(parts.len());
        for (part, _) in parts.iter().zip(open).filter(|(_, open)| **open) {
            let partition = i32::try_from(part.partition).unwrap_or(i32::MAX);
            list.add_partition_offset(&part.topic, partition, Offset::Offset(part.low))?;
        }
        self.inner.assign(&list)
    }

    /// Closes the parts whose position is at their end although no record said so: the last offsets of a
    /// partition may hold no record.
    fn close_ended(&self, parts: &[Part], open: &mut [bool]) -> Result<(), ReadError> {
        let positions = self.inner.position().map_err(ReadError::Read)?;
        for element in positions.elements() {
            let ended = |part: &&Part| part.topic == element.topic() && part_is(part, element.partition());
            let Some((place, part)) = parts.iter().enumerate().find(|(_, part)| ended(part)) else {
                continue;
            };
            if matches!(element.offset(), Offset::Offset(offset) if offset >= part.high) {
                open[place] = false;
            }
        }
        Ok(())
    }
}

fn part_is(part: &Part, partition: i32) -> bool {
    u32::try_from(partition).is_ok_and(|partition| partition == part.partition)
}

fn place(parts: &[Part], last: usize, message: &BorrowedMessage<'_>) -> Option<usize> {
    let is = |part: &Part| part_is(part, message.partition()) && part.topic == message.topic();
    if parts.get(last).is_some_and(is) { Some(last) } else { parts.iter().position(is) }
}

fn stored<'a>(part: usize, message: &'a BorrowedMessage<'_>, header: &str) -> Stored<'a> {
    let (mut first, mut count) = (None, 0);
    for found in message.headers().iter().flat_map(|headers| headers.iter()) {
        if found.key == header {
            count += 1;
            first = first.or(found.value);
        }
    }
    let timestamp_ms = match message.timestamp() {
        Timestamp::NotAvailable => None,
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => Some(ms),
    };
    Stored {
        part,
        key: message.key().unwrap_or_default(),
        payload: message.payload().unwrap_or_default(),
        timestamp_ms,
        header: first,
        headers: count,
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
        )
    )
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "penstock::uplink::librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "connection to the event hubs is in trouble");
    }
}

impl ConsumerContext for Context {}
