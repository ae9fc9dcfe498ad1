//! The `[uplink]` section.

use std::time::Duration;

use penstock_proto::Lane;

use super::connection::{Connection, Security};
use super::headers::HeaderMode;
use super::pack::{PackCompression, PackFormat};
use super::route::{ROUTES_MAX, Route, is_topic_name};
use super::tracker::TOPIC_LENGTH_MAX;
use crate::azure::{Audience, Cloud, ConnectionString, TokenHandle};
use crate::config::{ByteSize, CA_FILE, ConfigError, Key, Preset, Section, Shape, Value};

const ENABLED: Key = Key {
    name: "enabled",
    value: Value::Flag,
    default: Preset::Is("true"),
    help: "Whether anything is sent. When `false` nothing else here is read, and everything stays in the outbox until its limit.",
};
const BOOTSTRAP_SERVERS: Key = Key {
    name: "bootstrap_servers",
    value: Value::Text { chars_max: 1024 },
    default: Preset::Unset,
    help: "`HOST:PORT` of the Kafka endpoint, several separated by commas. With `sasl-tls` or `entra-tls` it may be left out: then it is port 9093 of the namespace.",
};
const SECURITY: Key = Key {
    name: "security",
    value: Value::Choice(&["sasl-tls", "entra-tls", "plaintext"]),
    default: Preset::Is("sasl-tls"),
    help: "`sasl-tls`: TLS, and the connection string as password. `entra-tls`: TLS, and a token of Microsoft Entra for the identity in `[azure]`, which needs the role Azure Event Hubs Data Sender. `plaintext` has neither and is for test doubles on the same host.",
};
const NAMESPACE: Key = Key {
    name: "namespace",
    value: Value::Text { chars_max: 255 },
    default: Preset::Unset,
    help: "The Event Hubs namespace that tokens are for, as `contoso` or as its whole host. Required with `entra-tls`, and not read with others.",
};
const CONNECTION_STRING_FILE: Key = Key {
    name: "connection_string_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with the Event Hubs connection string (right to send). Required with `sasl-tls`.",
};
const TOPIC: Key = Key {
    name: "topic",
    value: Value::Text { chars_max: TOPIC_LENGTH_MAX },
    default: Preset::Is("telemetry"),
    help: "The event hub that takes what no route matches. It must exist: it is never created from here.",
};
const LINGER: Key = Key {
    name: "linger",
    value: Value::Time { min: Duration::ZERO, max: Duration::from_secs(5) },
    default: Preset::Is("20ms"),
    help: "How long a record may wait for company in a request. 50 to 100 ms suit long links.",
};
const SOCKET_TIMEOUT: Key = Key {
    name: "socket_timeout",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(300) },
    default: Preset::Is("60s"),
    help: "How long a request may stay without an answer before its connection is given up; Event Hubs asks for 60 s at least. After three times this without any confirmation the client is built anew.",
};
const IN_FLIGHT_MAX: Key = Key {
    name: "in_flight_max",
    value: Value::Count { min: 1, max: 1_000_000 },
    default: Preset::Is("100000"),
    help: "Most records sent and not confirmed. When it is reached the rest waits in the outbox.",
};
const IN_FLIGHT_BYTES_MAX: Key = Key {
    name: "in_flight_bytes_max",
    value: Value::Bytes { min: ByteSize::MIB, max: ByteSize::GIB },
    default: Preset::Is("64MiB"),
    help: "Most bytes sent and not confirmed. When it is reached the rest waits in the outbox.",
};
const DRAIN_TIMEOUT: Key = Key {
    name: "drain_timeout",
    value: Value::Time { min: Duration::ZERO, max: Duration::from_secs(300) },
    default: Preset::Is("5s"),
    help: "At a stop, how long what is committed may take to be sent and confirmed. What is left stays in the outbox for the next start.",
};

const FORMAT: Key = Key {
    name: "format",
    value: Value::Choice(&["per-message", "packed"]),
    default: Preset::Is("per-message"),
    help: "`per-message` sends each entry as a record of its own, with the payload as published. `packed` sends many entries of one partition in one record (`docs/formats/packed-v1.md`), for the Standard tier, whose quota counts events.",
};
const HEADERS: Key = Key {
    name: "headers",
    value: Value::Choice(&["minimal", "full", "iothub", "cloudevents"]),
    default: Preset::Is("minimal"),
    help: "Which headers a record carries besides `penstock`: none, everything known about the message, the names that consumers of IoT Hub know, or the CloudEvents binding for Kafka. With `packed` only `minimal` is possible: what is known stands in the pack.",
};
const COMPRESSION: Key = Key {
    name: "compression",
    value: Value::Choice(&["none", "gzip"]),
    default: Preset::Is("none"),
    help: "Compression of whole Kafka batches. Event Hubs takes `gzip`, in the Premium and Dedicated tiers only; it costs several times the processor time of everything else here.",
};
const PACK_FORMAT: Key = Key {
    name: "pack_format",
    value: Value::Choice(&["ndjson", "json-array", "protobuf"]),
    default: Preset::Is("ndjson"),
    help: "How the entries of a packed record are written: JSON lines, one JSON array, or the message `Packed` of `proto/penstock/v1/packed.proto`.",
};
const PACK_COMPRESSION: Key = Key {
    name: "pack_compression",
    value: Value::Choice(&["none", "gzip", "deflate"]),
    default: Preset::Is("none"),
    help: "Compression of the value of a packed record. Works in every tier, and Stream Analytics reads both.",
};
const PACK_BYTES_MAX: Key = Key {
    name: "pack_bytes_max",
    value: Value::Bytes { min: ByteSize::KIB, max: 900 * ByteSize::KIB },
    default: Preset::Is("256KiB"),
    help: "A packed record is sent when its value has about this size before compression. An entry that is larger than this alone is a record of its own.",
};
const PACK_MESSAGES_MAX: Key = Key {
    name: "pack_messages_max",
    value: Value::Count { min: 1, max: 100_000 },
    default: Preset::Is("2000"),
    help: "Or when it holds this many entries.",
};
const PACK_LINGER: Key = Key {
    name: "pack_linger",
    value: Value::Time { min: Duration::ZERO, max: Duration::from_secs(60) },
    default: Preset::Is("100ms"),
    help: "Or when its first entry has waited this long. With P partitions at most P records per this time are sent for want of more entries.",
};
const THROUGHPUT_UNITS: Key = Key {
    name: "throughput_units",
    value: Value::Count { min: 0, max: 40 },
    default: Preset::Is("0"),
    help: "Throughput units of the namespace (Standard tier) that this gateway may use: it then sends at most 1 MB and 1000 records per second for each. 0 sets no limit; being throttled by the service slows it down all the same.",
};
const CATCH_UP: Key = Key {
    name: "catch_up",
    value: Value::Choice(&["in-order", "live-first"]),
    default: Preset::Is("in-order"),
    help: "What is sent first after an outage. `in-order` sends the oldest first, so that what is new waits for all of it. `live-first` sends what is new at once as stream `l` and the backlog beside it as stream `b`; a device's order then holds within each of the two.",
};
const LIVE_SHARE: Key = Key {
    name: "live_share",
    value: Value::Count { min: 1, max: 99 },
    default: Preset::Is("50"),
    help: "With `live-first`: per cent of the bytes that live entries get at least while there is enough of both.",
};
const LIVE_FIRST_AFTER: Key = Key {
    name: "live_first_after",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(86_400) },
    default: Preset::Is("30s"),
    help: "With `live-first`: what has waited longer than this when the uplink begins to send again is backlog.",
};
const BACKLOG_RATE: Key = Key {
    name: "backlog_rate",
    value: Value::Bytes { min: 0, max: ByteSize::GIB },
    default: Preset::Is("0B"),
    help: "Most bytes of backlog sent per second, so that catching up leaves room on the link for others; 0 sets no limit. With `in-order` everything is backlog that has waited longer than `live_first_after`.",
};
const TAIL_READ: Key = Key {
    name: "tail_read",
    value: Value::Flag,
    default: Preset::Is("true"),
    help: "Whether the end of each partition is read after an end of the client that leaves doubt, so that what arrived is not sent twice. Needs the right to listen; without it this is skipped, and what may arrive twice is counted.",
};
const DEAD_LETTER_BYTES_MAX: Key = Key {
    name: "dead_letter_bytes_max",
    value: Value::Bytes { min: 0, max: ByteSize::TIB },
    default: Preset::Is("256MiB"),
    help: "Most bytes kept in lane `dead`, where records go that the service never takes; never more than a quarter of `outbox.bytes_max`. When it is full such a record holds its topic instead: nothing is dropped.",
};

const ROUTE_LANE: Key = Key {
    name: "lane",
    value: Value::Choice(&["alerts", "status", "telemetry", "bulk"]),
    default: Preset::Unset,
    help: "Matches entries of this lane.",
};
const ROUTE_STREAM: Key = Key {
    name: "stream",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "Matches what the topic template captured as `{stream}`.",
};
const ROUTE_CLASS: Key = Key {
    name: "class",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "Matches the device's class.",
};
const ROUTE_TENANT: Key = Key {
    name: "tenant",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "Matches the tenant.",
};
const ROUTE_TOPIC: Key = Key {
    name: "topic",
    value: Value::Text { chars_max: TOPIC_LENGTH_MAX },
    default: Preset::Required,
    help: "The event hub that takes what matches.",
};

const ROUTE: Shape = Shape::list(
    "route",
    "Sends entries to another event hub. All fields given must match; the first route that matches decides. At most 63 routes. After a change entries that were sent and not yet recorded as confirmed are sent again.",
    &[ROUTE_LANE, ROUTE_STREAM, ROUTE_CLASS, ROUTE_TENANT, ROUTE_TOPIC],
);

/// Where committed entries are sent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster.
    pub connection: Connection,
    /// The topic of entries that no route matches.
    pub topic: String,
    /// Tried in order.
    pub routes: Vec<Route>,
    /// How long a record may wait for company in a request.
    pub linger: Duration,
    /// Most records sent and not confirmed.
    pub in_flight_max: usize,
    /// Most bytes sent and not confirmed.
    pub in_flight_bytes_max: usize,
    /// How long a stop may take to send what is committed.
    pub drain_timeout: Duration,
    /// Whether each entry is a record of its own.
    pub format: Format,
    /// Which headers a record carries.
    pub headers: HeaderMode,
    /// Whether Kafka batches are compressed with gzip.
    pub gzip: bool,
    /// The limits of the namespace that this gateway keeps to; 0 for none.
    pub throughput_units: u32,
    /// What is sent first after an outage.
    pub catch_up: CatchUp,
    /// What has waited longer than this is backlog.
    pub live_first_after: Duration,
    /// Most bytes of backlog per second; 0 for no limit.
    pub backlog_rate: u64,
    /// Whether the end of each partition is read after an end that leaves doubt.
    pub tail_read: bool,
    /// For how long nothing of our own must come before that reading ends.
    pub tail_quiet: Duration,
    /// Most bytes kept in lane `dead`.
    pub dead_letter_bytes_max: u64,
}

/// What a Kafka record is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One entry.
    PerMessage,
    /// Many entries of one partition.
    Packed(PackSettings),
}

/// How packed records are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSettings {
    /// How entries are written.
    pub format: PackFormat,
    /// How the value is compressed.
    pub compression: PackCompression,
    /// About the largest value, before compression.
    pub bytes_max: usize,
    /// Most entries.
    pub messages_max: u32,
    /// Longest wait of the first entry.
    pub linger: Duration,
}

/// What is sent first after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// The oldest.
    InOrder,
    /// What is new, with the backlog beside it.
    LiveFirst {
        /// Per cent of the bytes that live entries get at least, 1 to 99.
        share: u8,
    },
}

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "uplink",
        "Where committed entries are sent: Azure Event Hubs, or any Kafka cluster.",
        &[
            ENABLED,
            BOOTSTRAP_SERVERS,
            SECURITY,
            NAMESPACE,
            CONNECTION_STRING_FILE,
            CA_FILE,
            TOPIC,
            LINGER,
            SOCKET_TIMEOUT,
            IN_FLIGHT_MAX,
            IN_FLIGHT_BYTES_MAX,
            DRAIN_TIMEOUT,
            FORMAT,
            HEADERS,
            COMPRESSION,
            PACK_FORMAT,
            PACK_COMPRESSION,
            PACK_BYTES_MAX,
            PACK_MESSAGES_MAX,
            PACK_LINGER,
            THROUGHPUT_UNITS,
            CATCH_UP,
            LIVE_SHARE,
            LIVE_FIRST_AFTER,
            BACKLOG_RATE,
            TAIL_READ,
            DEAD_LETTER_BYTES_MAX,
        ],
    )
    .with(&[ROUTE]);

    /// `None` when the uplink is switched off.
    pub(crate) fn read(section: &mut Section, cloud: Cloud) -> Result<Option<Self>, ConfigError> {
        if !section.flag(&ENABLED)? {
            return Ok(None);
        }
        let connection = read_connection(section, cloud)?;
        let topic = topic_name(section, &TOPIC)?;
        let format = read_format(section)?;
        let mut config = Self {
            linger: section.time(&LINGER)?,
            in_flight_max: section.length(&IN_FLIGHT_MAX)?,
            in_flight_bytes_max: section.bytes(&IN_FLIGHT_BYTES_MAX)?.as_usize(),
            drain_timeout: section.time(&DRAIN_TIMEOUT)?,
            headers: read_headers(section, format)?,
            format,
            gzip: section.choice(&COMPRESSION)? == "gzip",
            throughput_units: section.length(&THROUGHPUT_UNITS)?.try_into().unwrap_or(u32::MAX),
            catch_up: read_catch_up(section)?,
            live_first_after: section.time(&LIVE_FIRST_AFTER)?,
            backlog_rate: section.bytes(&BACKLOG_RATE)?.0,
            tail_read: section.flag(&TAIL_READ)?,
            dead_letter_bytes_max: section.bytes(&DEAD_LETTER_BYTES_MAX)?.0,
            ..Self::new(connection, topic)
        };
        for mut route in section.children(&ROUTE)? {
            if config.routes.len() == ROUTES_MAX {
                let topic = route.text(&ROUTE_TOPIC)?;
                return Err(route.refuse(&ROUTE_TOPIC, &topic, "at most 63 routes"));
            }
            config.routes.push(read_route(&mut route)?);
        }
        Ok(Some(config))
    }

    /// Every setting as it is when nobody configures another.
    #[must_use]
    pub const fn new(connection: Connection, topic: String) -> Self {
        Self {
            connection,
            topic,
            routes: Vec::new(),
            linger: Duration::from_millis(20),
            in_flight_max: 100_000,
            in_flight_bytes_max: 64 << 20,
            drain_timeout: Duration::from_secs(5),
            format: Format::PerMessage,
            headers: HeaderMode::Minimal,
            gzip: false,
            throughput_units: 0,
            catch_up: CatchUp::InOrder,
            live_first_after: Duration::from_secs(30),
            backlog_rate: 0,
            tail_read: true,
            tail_quiet: Duration::from_secs(2),
            dead_letter_bytes_max: 256 << 20,
        }
    }
}

fn read_format(section: &mut Section) -> Result<Format, ConfigError> {
    let packed = section.choice(&FORMAT)? == "packed";
    let settings = PackSettings {
        format: match section.choice(&PACK_FORMAT)?.as_str() {
            "json-array" => PackFormat::JsonArray,
            "protobuf" => PackFormat::Protobuf,
            _ => PackFormat::Ndjson,
        },
        compression: match section.choice(&PACK_COMPRESSION)?.as_str() {
            "gzip" => PackCompression::Gzip,
            "deflate" => PackCompression::Deflate,
            _ => PackCompression::None,
        },
        bytes_max: section.bytes(&PACK_BYTES_MAX)?.as_usize(),
        messages_max: section.length(&PACK_MESSAGES_MAX)?.try_into().unwrap_or(u32::MAX),
        linger: section.time(&PACK_LINGER)?,
    };
    Ok(if packed { Format::Packed(settings) } else { Format::PerMessage })
}

fn read_headers(section: &mut Section, format: Format) -> Result<HeaderMode, ConfigError> {
    let name = section.choice(&HEADERS)?;
    let mode = match name.as_str() {
        "full" => HeaderMode::Full,
        "iothub" => HeaderMode::IotHub,
        "cloudevents" => HeaderMode::CloudEvents,
        _ => HeaderMode::Minimal,
    };
    if matches!(format, Format::Packed(_)) && mode != HeaderMode::Minimal {
        return Err(section.refuse(&HEADERS, &name, "minimal, since format is packed"));
    }
    Ok(mode)
}

fn read_catch_up(section: &mut Section) -> Result<CatchUp, ConfigError> {
    let live_first = section.choice(&CATCH_UP)? == "live-first";
    let share = section.length(&LIVE_SHARE)?.try_into().unwrap_or(50);
    Ok(if live_first { CatchUp::LiveFirst { share } } else { CatchUp::InOrder })
}

fn read_connection(section: &mut Section, cloud: Cloud) -> Result<Connection, ConfigError> {
    let bootstrap_servers = section.text_if_set(&BOOTSTRAP_SERVERS)?;
    let choice = section.choice(&SECURITY)?;
    let namespace = section.text_if_set(&NAMESPACE)?;
    let connection_string_file = section.path_if_set(&CONNECTION_STRING_FILE)?;
    let ca_file = section.path_if_set(&CA_FILE)?;
    let socket_timeout = section.time(&SOCKET_TIMEOUT)?;
    if choice == "plaintext" {
        let bootstrap_servers = bootstrap_servers.ok_or_else(|| section.missing(&BOOTSTRAP_SERVERS))?;
        return Ok(Connection { bootstrap_servers, security: Security::Plaintext, socket_timeout });
    }
    if let Some(path) = &ca_file
        && let Err(error) = std::fs::metadata(path)
    {
        let reason = format!("a readable file ({error})");
        return Err(section.refuse(&CA_FILE, &path.display().to_string(), &reason));
    }
    let (host, security) = if choice == "entra-tls" {
        let text = namespace.ok_or_else(|| section.missing(&NAMESPACE))?;
        let host = cloud.namespace_host(&text).ok_or_else(|| {
            let (suffix, cloud) = (cloud.namespace_suffix(), cloud.name());
            let expected = format!("NAME or NAME{suffix}, since azure.cloud is \"{cloud}\"");
            section.refuse(&NAMESPACE, &text, &expected)
        })?;
        let tokens = TokenHandle::new(Audience::namespace(&host));
        (host, Security::Entra { tokens, ca_file })
    } else {
        let file = connection_string_file.ok_or_else(|| section.missing(&CONNECTION_STRING_FILE))?;
        let connection_string = ConnectionString::read(&file).map_err(|error| {
            let reason = format!("a file with a connection string ({})", crate::supervise::chain(&error));
            section.refuse(&CONNECTION_STRING_FILE, &file.display().to_string(), &reason)
        })?;
        (connection_string.host().to_owned(), Security::SaslTls { connection_string, ca_file })
    };
    let bootstrap_servers =
        bootstrap_servers.unwrap_or_else(|| format!("{host}:{}", Connection::EVENT_HUBS_PORT));
    Ok(Connection { bootstrap_servers, security, socket_timeout })
}

fn read_route(section: &mut Section) -> Result<Route, ConfigError> {
    let lane = section.text_if_set(&ROUTE_LANE)?;
    Ok(Route {
        lane: lane.and_then(|name| Lane::ALL.into_iter().find(|lane| lane.name() == name)),
        stream: section.text_if_set(&ROUTE_STREAM)?,
        class: section.text_if_set(&ROUTE_CLASS)?,
        tenant: section.text_if_set(&ROUTE_TENANT)?,
        topic: topic_name(section, &ROUTE_TOPIC)?,
    })
}

fn topic_name(section: &mut Section, key: &Key) -> Result<String, ConfigError> {
    let topic = section.text(key)?;
    if is_topic_name(&topic) {
        Ok(topic)
    } else {
        Err(section.refuse(key, &topic, "a topic name of A-Z a-z 0-9 . _ -"))
    }
}
