//! The `[uplink]` section.

use std::time::Duration;

use penstock_proto::Lane;

use super::connection::{Connection, Security};
use super::route::{ROUTES_MAX, Route, is_topic_name};
use super::tracker::TOPIC_LENGTH_MAX;
use crate::azure::ConnectionString;
use crate::config::{ByteSize, ConfigError, Key, Preset, Section, Shape, Value};

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
    help: "`HOST:PORT` of the Kafka endpoint, several separated by commas. With `sasl-tls` it may be left out: then it is port 9093 of the host in the connection string.",
};
const SECURITY: Key = Key {
    name: "security",
    value: Value::Choice(&["sasl-tls", "plaintext"]),
    default: Preset::Is("sasl-tls"),
    help: "`sasl-tls` is what Event Hubs asks for: TLS, and the connection string as password. `plaintext` has neither and is for test doubles on the same host.",
};
const CONNECTION_STRING_FILE: Key = Key {
    name: "connection_string_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with the Event Hubs connection string (right to send). Required with `sasl-tls`.",
};
const CA_FILE: Key = Key {
    name: "ca_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "Certificates (PEM) to trust instead of the system's.",
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
}

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "uplink",
        "Where committed entries are sent: Azure Event Hubs, or any Kafka cluster.",
        &[
            ENABLED,
            BOOTSTRAP_SERVERS,
            SECURITY,
            CONNECTION_STRING_FILE,
            CA_FILE,
            TOPIC,
            LINGER,
            SOCKET_TIMEOUT,
            IN_FLIGHT_MAX,
            IN_FLIGHT_BYTES_MAX,
            DRAIN_TIMEOUT,
        ],
    )
    .with(&[ROUTE]);

    /// `None` when the uplink is switched off.
    pub(crate) fn read(section: &mut Section) -> Result<Option<Self>, ConfigError> {
        if !section.flag(&ENABLED)? {
            return Ok(None);
        }
        let connection = read_connection(section)?;
        let topic = topic_name(section, &TOPIC)?;
        let linger = section.time(&LINGER)?;
        let in_flight_max = section.length(&IN_FLIGHT_MAX)?;
        let in_flight_bytes_max = section.bytes(&IN_FLIGHT_BYTES_MAX)?.as_usize();
        let drain_timeout = section.time(&DRAIN_TIMEOUT)?;
        let mut routes = Vec::new();
        for mut route in section.children(&ROUTE)? {
            if routes.len() == ROUTES_MAX {
                let topic = route.text(&ROUTE_TOPIC)?;
                return Err(route.refuse(&ROUTE_TOPIC, &topic, "at most 63 routes"));
            }
            routes.push(read_route(&mut route)?);
        }
        Ok(Some(Self {
            connection,
            topic,
            routes,
            linger,
            in_flight_max,
            in_flight_bytes_max,
            drain_timeout,
        }))
    }
}

fn read_connection(section: &mut Section) -> Result<Connection, ConfigError> {
    let bootstrap_servers = section.text_if_set(&BOOTSTRAP_SERVERS)?;
    let choice = section.choice(&SECURITY)?;
    let connection_string_file = section.path_if_set(&CONNECTION_STRING_FILE)?;
    let ca_file = section.path_if_set(&CA_FILE)?;
    let socket_timeout = section.time(&SOCKET_TIMEOUT)?;
    if choice == "plaintext" {
        let bootstrap_servers = bootstrap_servers.ok_or_else(|| section.missing(&BOOTSTRAP_SERVERS))?;
        return Ok(Connection { bootstrap_servers, security: Security::Plaintext, socket_timeout });
    }
    let file = connection_string_file.ok_or_else(|| section.missing(&CONNECTION_STRING_FILE))?;
    let connection_string = ConnectionString::read(&file).map_err(|error| {
        let reason = format!("a file with a connection string ({})", crate::supervise::chain(&error));
        section.refuse(&CONNECTION_STRING_FILE, &file.display().to_string(), &reason)
    })?;
    if let Some(path) = &ca_file
        && let Err(error) = std::fs::metadata(path)
    {
        let reason = format!("a readable file ({error})");
        return Err(section.refuse(&CA_FILE, &path.display().to_string(), &reason));
    }
    let bootstrap_servers = bootstrap_servers
        .unwrap_or_else(|| format!("{}:{}", connection_string.host(), Connection::EVENT_HUBS_PORT));
    let security = Security::SaslTls { connection_string, ca_file };
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
