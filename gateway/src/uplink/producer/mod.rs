//! The Kafka producer: librdkafka with the settings under which it neither loses nor reorders.
//!
//! `enable.idempotence` numbers the records of a partition, so that a request sent again after a lost
//! answer is stored once and nothing overtakes it. That alone still drops a batch which the broker refuses
//! for good and goes on with the next one; `enable.gapless.guarantee` makes such a refusal fatal to the whole
//! producer instead, and `message.timeout.ms=0` makes an outage a wait and never a refusal. What is confirmed
//! is then always a prefix of what was sent to a partition. A fatal error is an ordinary event for the
//! caller: it drops the producer, builds another and replays (measured: `docs/decisions/0030`).
//!
//! Reports are collected in [`Producer::poll`] on the caller's thread, into a buffer that is swapped with the
//! caller's, so a report allocates nothing. With [`super::reader`] this is the only module that names rdkafka.

mod native;
mod statistics;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{Producer as _, ProducerContext};

use self::native::Native;
use super::connection::{Connection, SignIn};
use super::failure::{Disposition, Failure};
use super::headers::Headers;
use crate::supervise::clock;

/// What the producer needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) connection: Connection,
    /// Shown to the service, for its logs.
    pub(crate) client_id: String,
    /// How long a record may wait for company.
    pub(crate) linger: Duration,
    pub(crate) in_flight_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    pub(crate) gzip: bool,
}

/// A record on its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) headers: &'a Headers,
    pub(crate) timestamp_ms: u64,
    /// Comes back with the report.
    pub(crate) slot: usize,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) slot: usize,
    /// Its offset, or why it was not stored.
    pub(crate) result: Result<i64, Failure>,
}

/// Why a record was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The library's queue is full; poll and offer it again.
    Full,
    /// The producer is at its end; build a new one.
    Fatal(Failure),
    /// This record or its topic.
    Failure(Failure),
}

/// One producer session.
pub(crate) struct Producer {
    inner: Native<Context>,
}

/// The library cannot be set up: a setting it does not understand, or a file it cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the Kafka client cannot be set up")]
pub(crate) struct SetUpError(#[from] KafkaError);

struct Context {
    reports: Mutex<Vec<Report>>,
    errors: Mutex<Errors>,
    sign_in: SignIn,
    /// The newest throttle time, in milliseconds.
    throttle_ms: AtomicU64,
}

#[derive(Default)]
struct Errors {
    /// The newest one since it was last asked for.
    newest: Option<String>,
    all_down: bool,
    logged: Option<Instant>,
    unlogged: u64,
}

/// Connection errors repeat with every attempt; one line in this time is enough.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Largest record, key and headers included; Event Hubs closes the connection on requests above 1,046,528 bytes.
const RECORD_BYTES_MAX: usize = 1_000_000;
/// How often the library writes its statistics, some kilobytes of JSON.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(2);
/// One poll handles one event of the library, a batch of reports; this many are handled at most.
const POLLS_MAX: usize = 64;

// === impl Producer ===

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// Sets the library up; it connects on its own, now and after every loss of the connection.
    ///
    /// # Errors
    ///
    /// [`SetUpError`]. An unreachable service is no error.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SetUpError> {
        let mut config = ClientConfig::new();
        for (name, value) in settings.connection.settings().into_iter().chain(own_settings(settings)) {
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        let context = Context {
            reports: Mutex::new(Vec::with_capacity(settings.in_flight_max)),
            errors: Mutex::default(),
            sign_in: settings.connection.sign_in(),
            throttle_ms: AtomicU64::new(0),
        };
        Ok(Self { inner: Native::new(config.create_with_context(context)?) })
    }

    /// How many partitions a topic has. Waits for the answer up to `timeout`.
    ///
    /// # Errors
    ///
    /// With [`Disposition::Hold`] when the topic is missing or refused, else with [`Disposition::Retry`].
    pub(crate) fn partitions(&self, topic: &str, timeout: Duration) -> Result<u32, Failure> {
        self.inner.context().sign_in.ready().map_err(|none| retry(none.to_string()))?;
        let metadata =
            self.inner.client().fetch_metadata(Some(topic), timeout).map_err(|error| failure(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else { return Err(retry("the topic is not in the answer".to_owned())) };
        if let Some(error) = found.error() {
            return Err(failure(&KafkaError::MetadataFetch(error.into())));
        }
        match u32::try_from(found.partitions().len()) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(retry("the topic has no partitions".to_owned())),
        }
    }

    /// Hands a record to the library, which copies it. Never waits.
    ///
    /// # Errors
    ///
    /// [`Refused`]; no report will come then.
    pub(crate) fn send(&self, record: &Outgoing<'_>) -> Result<(), Refused> {
        let Err(code) = self.inner.send(record) else { return Ok(()) };
        match code {
            RDKafkaErrorCode::QueueFull => Err(Refused::Full),
            RDKafkaErrorCode::Fatal => {
                Err(Refused::Fatal(self.fatal().unwrap_or_else(|| retry(format!("{code:?}")))))
            }
            _ => Err(Refused::Failure(failure(&KafkaError::MessageProduction(code)))),
        }
    }

    /// Lets the library work and appends the reports that came to `reports`. Waits at most `timeout` and
    /// then handles what is there. Does nothing before the first token where one is needed.
    pub(crate) fn poll(&self, timeout: Duration, reports: &mut Vec<Report>) {
        if let Err(none) = self.inner.context().sign_in.ready() {
            self.inner.context().errors.lock().newest = Some(none.to_string());
            return;
        }
        let mut wait = timeout;
        for _ in 0..POLLS_MAX {
            let before = self.inner.context().reports.lock().len();
            self.inner.poll(wait);
            wait = Duration::ZERO;
            if self.inner.context().reports.lock().len() == before {
                break;
            }
        }
        self.take_reports(reports);
    }

    /// Waits until everything handed over is reported, at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration, reports: &mut Vec<Report>) {
        if let Err(error) = self.inner.flush(timeout) {
            tracing::debug!(%error, "flush ended early");
        }
        self.take_reports(reports);
    }

    /// The error that ended this producer, if one did.
    pub(crate) fn fatal(&self) -> Option<Failure> {
        let (code, text) = self.inner.client().fatal_error()?;
        Some(retry(format!("{code:?}: {text}")))
    }

    /// The newest connection error since the last call, and whether no broker is reachable.
    pub(crate) fn trouble(&self) -> (Option<String>, bool) {
        let mut errors = self.inner.context().errors.lock();
        (errors.newest.take(), std::mem::take(&mut errors.all_down))
    }

    /// How long the service held its newest answers back because it is asked for too much, zero when it did not: the
    /// mean over the answers of the last two seconds that were held back, as of the last [`Self::poll`].
    pub(crate) fn throttle(&self) -> Duration {
        Duration::from_millis(self.inner.context().throttle_ms.load(Ordering::Relaxed))
    }

    fn take_reports(&self, reports: &mut Vec<Report>) {
        let mut collected = self.inner.context().reports.lock();
        if reports.is_empty() {
            std::mem::swap(reports, &mut collected);
        } else {
            reports.append(&mut collected);
        }
    }
}

fn own_settings(settings: &Settings) -> Vec<super::connection::Setting> {
    let request_timeout = settings.connection.socket_timeout.as_millis().to_string();
    vec![
        ("client.id", settings.client_id.clone()),
        ("enable.idempotence", "true".into()),
        ("enable.gapless.guarantee", "true".into()),
        ("acks", "all".into()),
        ("max.in.flight.requests.per.connection", "5".into()),
        ("message.timeout.ms", "0".into()),
        ("request.timeout.ms", request_timeout),
        ("retries", i32::MAX.to_string()),
        ("retry.backoff.ms", "100".into()),
        ("retry.backoff.max.ms", "5000".into()),
        ("linger.ms", settings.linger.as_millis().to_string()),
        ("batch.size", "1000000".into()),
        ("batch.num.messages", "10000".into()),
        ("message.max.bytes", RECORD_BYTES_MAX.to_string()),
        ("queue.buffering.max.messages", settings.in_flight_max.to_string()),
        ("queue.buffering.max.kbytes", settings.in_flight_bytes_max.div_ceil(1024).to_string()),
        // The only way to hear of throttle times. They pile up in the library unless polled.
        ("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string()),
        ("compression.codec", if settings.gzip { "gzip" } else { "none" }.into()),
        // The highest speed: each level above costs more processor time than the rest of the gateway.
        ("compression.level", "1".into()),
    ]
}

// === impl Context ===

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let (token, lifetime_ms) = self.sign_in.token()?;
        Ok(OAuthToken { token, principal_name: SignIn::PRINCIPAL.to_owned(), lifetime_ms })
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes through `error` as well; the library's own lines repeat with every attempt.
        tracing::debug!(target: "penstock::uplink::librdkafka", ?level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.throttle_ms.store(statistics::throttle_ms(statistics), Ordering::Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            self.sign_in.refused();
        }
        let now = clock::now();
        let mut errors = self.errors.lock();
        errors.all_down |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        errors.newest = Some(format!("{error}: {reason}"));
        let quiet = errors.logged.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL);
        if quiet {
            errors.unlogged += 1;
        } else {
            tracing::warn!(%error, reason, repeats = errors.unlogged, "connection to the event hubs is in trouble");
            errors.logged = Some(now);
            errors.unlogged = 0;
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, slot: usize) {
        let result = match delivery {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(failure(error)),
        };
        self.reports.lock().push(Report { slot, result });
    }
}

fn retry(reason: String) -> Failure {
    Failure { disposition: Disposition::Retry, reason }
}

fn failure(error: &KafkaError) -> Failure {
    let code = error.rdkafka_error_code();
    let reason = code.map_or_else(|| error.to_string(), |code| format!("{code:?}"));
    Failure { disposition: code.map_or(Disposition::Retry, disposition), reason }
}

fn disposition(code: RDKafkaErrorCode) -> Disposition {
    use RDKafkaErrorCode as Code;
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::Fatal | Code::GaplessGuarantee => {
            Disposition::Collateral
        }
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed => Disposition::Hold,
        Code::MessageSizeTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::UnsupportedForMessageFormat => Disposition::Record,
        // A busy service, a forgotten producer, and whatever a later version of it may say.
        _ => Disposition::Retry,
    }
}
