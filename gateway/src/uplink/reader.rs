//! Reads partitions of topics: from one offset to another for `penstock verify`, and their ends for the uplink
//! itself (see [`super::tail`]).
//!
//! No consumer group is joined and no offset is committed, so reading changes nothing in the cloud.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use penstock_proto::PACK_HEADER;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::{ClientContext, Timestamp};

use super::connection::{Connection, SignIn};
use crate::azure::NoToken;
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
    /// The same of the header `penstock-pack`.
    pub(crate) pack: Option<&'a [u8]>,
    pub(crate) packs: usize,
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The client library cannot be set up.
    #[error("the Kafka client cannot be set up")]
    SetUp(#[source] KafkaError),
    /// There is no token to sign in with.
    #[error("cannot sign in")]
    Token(#[from] NoToken),
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
    /// The ends of a topic cannot be had.
    #[error("the ends of {topic} cannot be had: {trouble}")]
    Ends {
        /// Its name.
        topic: String,
        /// Why.
        trouble: Trouble,
    },
    /// No answer about the offsets of several partitions.
    #[error("asking for offsets")]
    Ask(#[source] KafkaError),
    /// Nothing came for too long.
    #[error("nothing came for {0:?} though {1} partitions are not at their end")]
    Stalled(Duration, usize),
    /// The caller's own.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The first one that is kept.
    First,
    /// One past the last one: the high watermark.
    End,
}

/// Why there is no offset, as far as it matters for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// No right to listen.
    #[error("no right to listen")]
    Refused,
    /// The topic or the partition is not there.
    #[error("a topic or partition is not there")]
    Missing,
    /// Asking again may help.
    #[error("no answer")]
    Passing,
}

/// What came while records are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// Nothing in the time given.
    Nothing,
    /// A record, which the callback has seen.
    Record,
    /// A partition of this number is at its end for now. The library does not say of which topic.
    End(u32),
    /// One of the topics may not be read.
    Refused,
    /// One of the offsets asked for is not there any more, or not yet.
    OutOfRange,
}

/// A record with its place.
#[derive(Clone, Copy)]
pub(crate) struct Fetched<'a> {
    message: &'a BorrowedMessage<'a>,
}

/// When a record was stamped, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// By the service.
    Service(u64),
    /// By whoever sent it.
    Sender(u64),
}

struct Context {
    sign_in: SignIn,
    /// Whether the library has a token.
    signed_in: AtomicBool,
}

/// Waits for one answer: short ones first, so that a stop is noticed.
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// The high watermarks of the first `partitions` partitions of a topic, with one request per broker. Waits for
/// a connection and for answers at most `timeout`, and ends early, with [`Trouble::Passing`], once `stopped` says so;
/// that is asked several times a second on a link that is not slower than that.
///
/// # Errors
///
/// [`ReadError::SetUp`] or [`ReadError::Ends`].
pub(crate) fn ends(
    connection: &Connection,
    topic: &str,
    partitions: u32,
    timeout: Duration,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<i64>, ReadError> {
    let reader = Reader::new(connection)?;
    let places: Vec<(&str, u32)> = (0..partitions).map(|partition| (topic, partition)).collect();
    let deadline = clock::now() + timeout;
    let mut attempt = 0;
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        let answer = reader.offsets(&places, Edge::End, wait_of(attempt).min(left));
        let trouble = match answer.map_err(|error| error.trouble()) {
            Ok(found) => match found.into_iter().collect::<Result<Vec<i64>, Trouble>>() {
                Ok(ends) => return Ok(ends),
                Err(trouble) => trouble,
            },
            Err(trouble) => trouble,
        };
        if trouble != Trouble::Passing || left.is_zero() || stopped() {
            return Err(ReadError::Ends { topic: topic.to_owned(), trouble });
        }
        attempt += 1;
    }
}

/// How long to wait for an answer the first time, the second time and so on.
pub(crate) fn wait_of(attempt: usize) -> Duration {
    WAITS.get(attempt).or(WAITS.last()).copied().unwrap_or_default()
}

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
        let context = Context { sign_in: connection.sign_in(), signed_in: AtomicBool::new(false) };
        let inner = config.create_with_context(context).map_err(ReadError::SetUp)?;
        Ok(Self { inner })
    }

    /// Every partition of a topic with its offsets at this moment.
    ///
    /// # Errors
    ///
    /// When the topic is missing or refused, or no answer comes within `timeout` each.
    pub(crate) fn parts(&self, topic: &str, timeout: Duration) -> Result<Vec<Part>, ReadError> {
        self.sign_in(timeout)?;
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

    /// Gives the library a token, if it takes one: it asks while it is polled, and questions do not poll.
    fn sign_in(&self, timeout: Duration) -> Result<(), ReadError> {
        let context = self.inner.context();
        if !context.sign_in.is_needed() {
            return Ok(());
        }
        let deadline = clock::now() + timeout;
        context.sign_in.wait(timeout)?;
        while !context.signed_in.load(Ordering::Relaxed) && clock::now() < deadline {
            drop(self.inner.poll(Duration::from_millis(10)));
        }
        Ok(())
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

impl Reader {
    /// An offset of each place, asked with one request per broker and whatever the library must know before.
    ///
    /// # Errors
    ///
    /// [`ReadError::Ask`] when there is no answer, or one of them is refused: the library then gives none.
    pub(crate) fn offsets(
        &self,
        places: &[(&str, u32)],
        edge: Edge,
        timeout: Duration,
    ) -> Result<Vec<Result<i64, Trouble>>, ReadError> {
        self.sign_in(timeout)?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        // The library sends these as the times that ListOffsets has for the two edges.
        let time = match edge {
            Edge::First => Offset::Beginning,
            Edge::End => Offset::End,
        };
        for (topic, partition) in places {
            list.add_partition_offset(topic, to_i32(*partition), time).map_err(ReadError::Ask)?;
        }
        let found = self.inner.offsets_for_times(list, timeout).map_err(ReadError::Ask)?;
        let offset = |element: &TopicPartitionListElem<'_>| match (element.error(), element.offset()) {
            (Err(error), _) => Err(trouble(&error)),
            (Ok(()), Offset::Offset(offset)) => Ok(offset),
            (Ok(()), _) => Err(Trouble::Passing),
        };
        Ok(found.elements().iter().map(offset).collect())
    }

    /// Begins to fetch these places from their offsets, and ends whatever was fetched before.
    ///
    /// # Errors
    ///
    /// [`ReadError::Read`].
    pub(crate) fn fetch(&self, places: &[(&str, u32, i64)]) -> Result<(), ReadError> {
        if places.is_empty() {
            return self.inner.unassign().map_err(ReadError::Read);
        }
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, partition, from) in places {
            let offset = Offset::Offset(*from);
            list.add_partition_offset(topic, to_i32(*partition), offset).map_err(ReadError::Read)?;
        }
        self.inner.assign(&list).map_err(ReadError::Read)
    }

    /// Fetches no more of a place until it is resumed. A new [`Reader::fetch`] alone does not do that.
    ///
    /// # Errors
    ///
    /// [`ReadError::Read`].
    pub(crate) fn pause(&self, topic: &str, partition: u32) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, to_i32(partition));
        self.inner.pause(&list).map_err(ReadError::Read)
    }

    /// Ends pauses. What was fetched ahead before may come again, so this belongs before a [`Reader::fetch`].
    ///
    /// # Errors
    ///
    /// [`ReadError::Read`].
    pub(crate) fn resume(&self, places: &[(&str, u32)]) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, partition) in places {
            list.add_partition(topic, to_i32(*partition));
        }
        self.inner.resume(&list).map_err(ReadError::Read)
    }

    /// Waits for the next event, at most `timeout`. Lost connections are made anew by the library and are no
    /// events.
    pub(crate) fn next(&self, timeout: Duration, each: &mut dyn FnMut(&Fetched<'_>)) -> Came {
        match self.inner.poll(timeout) {
            None => Came::Nothing,
            Some(Ok(message)) => {
                each(&Fetched { message: &message });
                Came::Record
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                u32::try_from(partition).map_or(Came::Nothing, Came::End)
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Came::OutOfRange
                }
                _ if trouble(&error) == Trouble::Refused => Came::Refused,
                _ => {
                    tracing::debug!(%error, "fetching is in trouble");
                    Came::Nothing
                }
            },
        }
    }
}

// === impl Fetched ===

impl fmt::Debug for Fetched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = (self.topic(), self.message.partition(), self.offset());
        f.debug_tuple("Fetched").field(&place).finish()
    }
}

impl<'a> Fetched<'a> {
    pub(crate) fn topic(&self) -> &'a str {
        self.message.topic()
    }

    pub(crate) fn is_of(&self, partition: u32) -> bool {
        u32::try_from(self.message.partition()).is_ok_and(|own| own == partition)
    }

    pub(crate) fn offset(&self) -> i64 {
        self.message.offset()
    }

    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match self.message.timestamp() {
            Timestamp::NotAvailable => None,
            Timestamp::CreateTime(ms) => u64::try_from(ms).ok().map(Stamp::Sender),
            Timestamp::LogAppendTime(ms) => u64::try_from(ms).ok().map(Stamp::Service),
        }
    }

    /// Key, value and headers.
    pub(crate) fn bytes(&self) -> usize {
        let headers = self.message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers: usize =
            headers.map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum();
        self.message.payload_len() + self.message.key_len() + headers
    }

    /// The value of the first header with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        let headers = self.message.headers()?;
        headers.iter().find(|header| header.key == name)?.value
    }
}

// === impl ReadError ===

impl ReadError {
    /// What it means for what to do next.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Ends { trouble, .. } => *trouble,
            Self::Topic { source, .. } | Self::Offsets { source, .. } => trouble(source),
            Self::Ask(error) | Self::Read(error) => trouble(error),
            Self::SetUp(_) | Self::Token(_) | Self::Stalled(..) | Self::Caller(_) => Trouble::Passing,
        }
    }
}

fn trouble(error: &KafkaError) -> Trouble {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Trouble::Refused,
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InvalidTopic,
        ) => Trouble::Missing,
        _ => Trouble::Passing,
    }
}

fn to_i32(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
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
    let (mut pack, mut packs) = (None, 0);
    for found in message.headers().iter().flat_map(|headers| headers.iter()) {
        if found.key == header {
            count += 1;
            first = first.or(found.value);
        } else if found.key == PACK_HEADER {
            packs += 1;
            pack = pack.or(found.value);
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
        pack,
        packs,
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
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let (token, lifetime_ms) = self.sign_in.token()?;
        self.signed_in.store(true, Ordering::Relaxed);
        Ok(OAuthToken { token, principal_name: SignIn::PRINCIPAL.to_owned(), lifetime_ms })
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "penstock::uplink::librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            self.sign_in.refused();
        }
        tracing::debug!(%error, reason, "connection to the event hubs is in trouble");
    }
}

impl ConsumerContext for Context {}
