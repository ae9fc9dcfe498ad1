//! The `[mqtt]` section.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use penstock_proto::Lane;

use super::template::Template;
use crate::config::{ByteSize, ConfigError, Key, Preset, Section, Shape, Value};

const CONNECTIONS_MAX: Key = Key {
    name: "connections_max",
    value: Value::Count { min: 1, max: 1_000_000 },
    default: Preset::Is("10000"),
    help: "Most connections at once. Above it a CONNECT is refused (MQTT 5: 0x9F, 3.1.1: 3), except one that replaces a connection of the same client.",
};
const PACKET_BYTES_MAX: Key = Key {
    name: "packet_bytes_max",
    value: Value::Bytes { min: 1024, max: 900 << 10 },
    default: Preset::Is("256KiB"),
    help: "Largest MQTT packet. A larger one is refused from its header (0x95) and closes the connection. Event Hubs takes at most 1 MB per event.",
};
const INFLIGHT_MAX: Key = Key {
    name: "inflight_max",
    value: Value::Count { min: 1, max: 8192 },
    default: Preset::Is("128"),
    help: "Most QoS 1 and 2 publishes per connection that are not acknowledged yet. MQTT 5 is told so and cut off above it (0x93); 3.1.1 is not read meanwhile.",
};
const INFLIGHT_BYTES_MAX: Key = Key {
    name: "inflight_bytes_max",
    value: Value::Bytes { min: 16 << 10, max: 64 << 20 },
    default: Preset::Is("256KiB"),
    help: "Most bytes per connection that are submitted and not durable. The connection is not read meanwhile.",
};
const OUTGOING_BYTES_MAX: Key = Key {
    name: "outgoing_bytes_max",
    value: Value::Bytes { min: 4 << 10, max: 1 << 20 },
    default: Preset::Is("64KiB"),
    help: "Most bytes per connection that wait to be delivered to a subscriber. What does not fit is dropped and counted (QoS 0).",
};
const SUBSCRIPTIONS_MAX: Key = Key {
    name: "subscriptions_max",
    value: Value::Count { min: 0, max: 1024 },
    default: Preset::Is("16"),
    help: "Most subscriptions per connection. One more is refused with 0x97 (3.1.1: 0x80).",
};
const TOPIC_LEVELS_MAX: Key = Key {
    name: "topic_levels_max",
    value: Value::Count { min: 1, max: 128 },
    default: Preset::Is("16"),
    help: "Most levels of a topic filter. A deeper one is refused with 0x8F (3.1.1: 0x80). Topics of publishes follow the templates.",
};
const CONNECT_TIMEOUT: Key = Key {
    name: "connect_timeout",
    value: Value::Time { min: Duration::from_millis(100), max: Duration::from_secs(60) },
    default: Preset::Is("5s"),
    help: "Time for CONNECT to arrive after the connection, or after its TLS handshake. Then the connection is closed.",
};
const HANDSHAKE_TIMEOUT: Key = Key {
    name: "handshake_timeout",
    value: Value::Time { min: Duration::from_millis(100), max: Duration::from_secs(60) },
    default: Preset::Is("10s"),
    help: "Time for a TLS handshake, its wait for a free slot included. Then the connection is closed.",
};
const KEEP_ALIVE_MAX: Key = Key {
    name: "keep_alive_max",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(65_535) },
    default: Preset::Is("20min"),
    help: "Longest keep alive. A longer one, or none, is shortened to it; MQTT 5 is told so. A silent client is closed after 1.5 times its keep alive (0x8D).",
};

const ADDRESS: Key =
    Key { name: "address", value: Value::Address, default: Preset::Required, help: "Where devices connect." };
const TLS: Key = Key {
    name: "tls",
    value: Value::Flag,
    default: Preset::Is("false"),
    help: "Whether devices speak TLS (1.3 or 1.2).",
};
const CERTIFICATE_FILE: Key = Key {
    name: "certificate_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "The certificate chain, PEM; required with TLS.",
};
const KEY_FILE: Key = Key {
    name: "key_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "The certificate's private key, PEM; required with TLS.",
};
const RECEIVE_BUFFER: Key = Key {
    name: "receive_buffer",
    value: Value::Bytes { min: 4 << 10, max: 16 << 20 },
    default: Preset::Unset,
    help: "The kernel's receive buffer per connection. Small ones save memory with many devices. Not set: the kernel decides.",
};
const SEND_BUFFER: Key = Key {
    name: "send_buffer",
    value: Value::Bytes { min: 4 << 10, max: 16 << 20 },
    default: Preset::Unset,
    help: "The kernel's send buffer per connection.",
};
const ON_FULL: Key = Key {
    name: "on_full",
    value: Value::Choice(&["withhold", "refuse"]),
    default: Preset::Is("withhold"),
    help: "What a publish meets when the outbox's quota is used up or its disk nearly full. `withhold`: it is not read from the socket until there is room, nor is what comes behind it. `refuse`: MQTT 5 clients get 0x97 at QoS 1 and 2, QoS 0 is let go and counted; 3.1.1 clients, which know no reasons, are withheld. Lanes alerts and status have a reserve of both: 5 % of the quota.",
};

const ANONYMOUS: Key = Key {
    name: "anonymous",
    value: Value::Choice(&["refuse", "allow"]),
    default: Preset::Is("refuse"),
    help: "What happens to a client without a user name. `allow` is for tests and closed networks: the client id is believed.",
};
const USERS_FILE: Key = Key {
    name: "users_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "Who may connect: one line per user, see docs/formats/users-file.md.",
};

const TEMPLATE: Key = Key {
    name: "template",
    value: Value::Text { chars_max: 256 },
    default: Preset::Required,
    help: "A topic, with `{tenant}`, `{site}`, `{class}`, `{device}` and `{stream}` standing for one whole level each. `{device}` must be there.",
};
const LANE: Key = Key {
    name: "lane",
    value: Value::Choice(&["alerts", "status", "telemetry", "bulk"]),
    default: Preset::Is("telemetry"),
    help: "The lane of the outbox that its publishes are stored in.",
};

const LISTENER_SHAPE: Shape = Shape::list(
    "listener",
    "An address devices connect to. At least one is required.",
    &[ADDRESS, TLS, CERTIFICATE_FILE, KEY_FILE, RECEIVE_BUFFER, SEND_BUFFER, ON_FULL],
);
const ACCESS_SHAPE: Shape = Shape::table("access", "Who may connect.", &[ANONYMOUS, USERS_FILE]);
const TOPIC_SHAPE: Shape = Shape::list(
    "topic",
    "What devices may publish, tried in the order of the file. Without any: `devices/{device}/telemetry` and `devices/{device}/telemetry/{stream}`, both in lane telemetry.",
    &[TEMPLATE, LANE],
);

/// The `[mqtt]` section.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bounds of connections.
    pub limits: Limits,
    /// Where devices connect; at least one.
    pub listeners: Vec<Listener>,
    /// Who may connect.
    pub access: Access,
    /// What may be published; at least one.
    pub topics: Vec<Topic>,
}

/// Bounds of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once.
    pub connections_max: usize,
    /// Largest packet.
    pub packet_bytes_max: usize,
    /// Most publishes per connection that are not acknowledged.
    pub inflight_max: u16,
    /// Most bytes per connection that are submitted and not durable.
    pub inflight_bytes_max: usize,
    /// Most bytes per connection that wait to be delivered.
    pub outgoing_bytes_max: usize,
    /// Most subscriptions per connection.
    pub subscriptions_max: usize,
    /// Most levels of a topic filter.
    pub topic_levels_max: usize,
    /// Time for CONNECT to arrive.
    pub connect_timeout: Duration,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest keep alive, in seconds.
    pub keep_alive_seconds_max: u16,
}

/// One address devices connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Certificate chain and key, if devices speak TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The kernel's receive buffer, in bytes, unless the kernel decides.
    pub receive_buffer: Option<usize>,
    /// The kernel's send buffer, in bytes, unless the kernel decides.
    pub send_buffer: Option<usize>,
    /// What a publish meets that the outbox has no room for.
    pub on_full: OnFull,
}

/// What a publish meets when the outbox's quota is used up or its disk nearly full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// It is not read until there is room.
    #[default]
    Withhold,
    /// MQTT 5 clients are told; QoS 0 is let go. 3.1.1 clients are withheld.
    Refuse,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Clients without a user name are let in.
    pub anonymous: bool,
    /// The users file.
    pub users_file: Option<PathBuf>,
}

/// One topic template and its lane.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The template, valid.
    pub template: String,
    /// The lane of its publishes.
    pub lane: Lane,
}

// === impl Config ===

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "mqtt",
        "How devices connect and what they may publish.",
        &[
            CONNECTIONS_MAX,
            PACKET_BYTES_MAX,
            INFLIGHT_MAX,
            INFLIGHT_BYTES_MAX,
            OUTGOING_BYTES_MAX,
            SUBSCRIPTIONS_MAX,
            TOPIC_LEVELS_MAX,
            CONNECT_TIMEOUT,
            HANDSHAKE_TIMEOUT,
            KEEP_ALIVE_MAX,
        ],
    )
    .with(&[LISTENER_SHAPE, ACCESS_SHAPE, TOPIC_SHAPE]);

    pub(crate) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let limits = Limits::read(section)?;
        let listeners: Vec<_> =
            section.children(&LISTENER_SHAPE)?.iter_mut().map(Listener::read).collect::<Result<_, _>>()?;
        if listeners.is_empty() {
            return Err(section.child(&LISTENER_SHAPE)?.missing(&ADDRESS));
        }
        let mut access = section.child(&ACCESS_SHAPE)?;
        let access = Access {
            anonymous: access.choice(&ANONYMOUS)? == "allow",
            users_file: access.path_if_set(&USERS_FILE)?,
        };
        let mut topics: Vec<_> =
            section.children(&TOPIC_SHAPE)?.iter_mut().map(Topic::read).collect::<Result<_, _>>()?;
        if topics.is_empty() {
            topics = Topic::defaults();
        }
        Ok(Self { limits, listeners, access, topics })
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            packet_bytes_max: 256 << 10,
            inflight_max: 128,
            inflight_bytes_max: 256 << 10,
            outgoing_bytes_max: 64 << 10,
            subscriptions_max: 16,
            topic_levels_max: 16,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            keep_alive_seconds_max: 1200,
        }
    }
}

impl Limits {
    fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let keep_alive = section.time(&KEEP_ALIVE_MAX)?;
        let inflight = section.count(&INFLIGHT_MAX)?;
        Ok(Self {
            connections_max: section.length(&CONNECTIONS_MAX)?,
            packet_bytes_max: section.bytes(&PACKET_BYTES_MAX)?.as_usize(),
            inflight_max: u16::try_from(inflight).unwrap_or(u16::MAX),
            inflight_bytes_max: section.bytes(&INFLIGHT_BYTES_MAX)?.as_usize(),
            outgoing_bytes_max: section.bytes(&OUTGOING_BYTES_MAX)?.as_usize(),
            subscriptions_max: section.length(&SUBSCRIPTIONS_MAX)?,
            topic_levels_max: section.length(&TOPIC_LEVELS_MAX)?,
            connect_timeout: section.time(&CONNECT_TIMEOUT)?,
            handshake_timeout: section.time(&HANDSHAKE_TIMEOUT)?,
            keep_alive_seconds_max: u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX),
        })
    }
}

// === impl Listener ===

impl Listener {
    fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let address = section.address(&ADDRESS)?;
        let tls = section.flag(&TLS)?;
        let certificate = section.path_if_set(&CERTIFICATE_FILE)?;
        let key = section.path_if_set(&KEY_FILE)?;
        let tls = match (tls, certificate, key) {
            (false, _, _) => None,
            (true, Some(certificate), Some(key)) => Some((certificate, key)),
            (true, None, _) => return Err(section.missing(&CERTIFICATE_FILE)),
            (true, _, None) => return Err(section.missing(&KEY_FILE)),
        };
        let bytes = |size: ByteSize| size.as_usize();
        let receive_buffer = optional_bytes(section, &RECEIVE_BUFFER)?.map(bytes);
        let send_buffer = optional_bytes(section, &SEND_BUFFER)?.map(bytes);
        let on_full = if section.choice(&ON_FULL)? == "refuse" { OnFull::Refuse } else { OnFull::Withhold };
        Ok(Self { address, tls, receive_buffer, send_buffer, on_full })
    }
}

fn optional_bytes(section: &mut Section, key: &Key) -> Result<Option<ByteSize>, ConfigError> {
    // The text was checked against the key's range, so that it parses.
    Ok(section.text_if_set(key)?.as_deref().and_then(ByteSize::parse))
}

// === impl Topic ===

impl Topic {
    fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let template = section.text(&TEMPLATE)?;
        let lane = lane(&section.choice(&LANE)?);
        if let Err(error) = Template::parse(&template, lane) {
            return Err(section.refuse(&TEMPLATE, &template, &error.to_string()));
        }
        Ok(Self { template, lane })
    }

    /// The topics of a configuration that names none.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let telemetry = |template: &str| Self { template: template.to_owned(), lane: Lane::Telemetry };
        vec![telemetry("devices/{device}/telemetry"), telemetry("devices/{device}/telemetry/{stream}")]
    }
}

fn lane(name: &str) -> Lane {
    Lane::ALL.into_iter().find(|lane| lane.name() == name).unwrap_or(Lane::Telemetry)
}
