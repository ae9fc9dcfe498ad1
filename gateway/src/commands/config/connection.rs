//! The `[commands.connection]` section.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::azure::{Cloud, ConnectionString};
use crate::commands::amqp::{Connection, Proxy, SignIn, Transport};
use crate::config::{self, CA_FILE, ConfigError, Key, Preset, Section, Shape, Value};

const CONNECTION_STRING_FILE: Key = Key {
    name: "connection_string_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "File with the Service Bus connection string (right to listen). This or `namespace` is required. One with `UseDevelopmentEmulator=true` is reached without TLS, on the port it names.",
};
const NAMESPACE: Key = Key {
    name: "namespace",
    value: Value::Text { chars_max: 255 },
    default: Preset::Unset,
    help: "The Service Bus namespace, as `contoso` or as its whole host, that the identity in `[azure]` signs in to with a token of Microsoft Entra; it needs the role Azure Service Bus Data Receiver.",
};
const TRANSPORT: Key = Key {
    name: "transport",
    value: Value::Choice(Transport::NAMES),
    default: Preset::Is("tcp"),
    help: "How AMQP gets there: `tcp` on port 5671, or `websocket` inside HTTPS on port 443, which most firewalls let through.",
};
const PORT: Key = Key {
    name: "port",
    value: Value::Count { min: 1, max: 65_535 },
    default: Preset::Unset,
    help: "Another port than the usual one.",
};
const PROXY: Key =
    config::proxy("An HTTP proxy that is asked for a tunnel (`CONNECT`), as `http://HOST:PORT`.");
const PROXY_CREDENTIALS_FILE: Key = config::proxy_credentials_file(
    "File with one line, `NAME:PASSWORD`, for a proxy that asks for them. Read at each connection.",
);
const IDLE_TIMEOUT: Key = Key {
    name: "idle_timeout",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(600) },
    default: Preset::Is("30s"),
    help: "A connection on which nothing arrives for this long is given up, and its sessions are accepted again.",
};
const LINKS_PER_CONNECTION: Key = Key {
    name: "links_per_connection",
    value: Value::Count { min: 1, max: LINKS_MOST },
    default: Preset::Is("1000"),
    help: "Most links on one AMQP connection; another is opened for more. It bounds what breaks together.",
};
const PARALLEL_CONNECTIONS: Key = Key {
    name: "parallel_connections",
    value: Value::Count { min: 1, max: 64 },
    default: Preset::Is("4"),
    help: "While many sessions wait to be accepted they are spread over so many connections, each of which accepts one per round trip.",
};
const LINKS_MOST: u64 = Connection::LINKS_MAX as u64;

pub(super) const SHAPE: Shape = Shape::table(
    "connection",
    "How Service Bus is reached.",
    &[
        CONNECTION_STRING_FILE,
        NAMESPACE,
        TRANSPORT,
        PORT,
        CA_FILE,
        PROXY,
        PROXY_CREDENTIALS_FILE,
        IDLE_TIMEOUT,
        LINKS_PER_CONNECTION,
        PARALLEL_CONNECTIONS,
    ],
);

pub(super) fn read(section: &mut Section, cloud: Cloud) -> Result<Connection, ConfigError> {
    let file = section.path_if_set(&CONNECTION_STRING_FILE)?;
    let namespace = section.text_if_set(&NAMESPACE)?;
    let sign_in = match (file, namespace) {
        (Some(_), Some(namespace)) => {
            return Err(section.refuse(&NAMESPACE, &namespace, "nothing with connection_string_file"));
        }
        (None, None) => return Err(section.missing(&CONNECTION_STRING_FILE)),
        (Some(file), None) => SignIn::Key(read_connection_string(section, &file)?),
        (None, Some(namespace)) => SignIn::Entra { host: read_namespace(section, &namespace, cloud)? },
    };
    let transport = Transport::named(&section.choice(&TRANSPORT)?);
    let port = section.text_if_set(&PORT)?.and_then(|port| port.parse().ok());
    let ca_file = section.path_if_set(&CA_FILE)?;
    let ca_file = readable(section, &CA_FILE, ca_file)?;
    let proxy = match section.proxy(&PROXY, &PROXY_CREDENTIALS_FILE)? {
        None => None,
        Some((text, file)) => {
            let credentials_file = readable(section, &PROXY_CREDENTIALS_FILE, file)?;
            let proxy =
                Proxy::parse(&text).ok_or_else(|| section.refuse(&PROXY, &text, "http://HOST:PORT"))?;
            Some(Proxy { credentials_file, ..proxy })
        }
    };
    Ok(Connection {
        transport,
        port,
        ca_file,
        proxy,
        idle_timeout: section.time(&IDLE_TIMEOUT)?,
        links_per_connection: section.length(&LINKS_PER_CONNECTION)?,
        parallel_connections: section.length(&PARALLEL_CONNECTIONS)?,
        ..Connection::new(sign_in)
    })
}

fn read_connection_string(section: &Section, file: &Path) -> Result<ConnectionString, ConfigError> {
    ConnectionString::read(file).map_err(|error| {
        let reason = format!("a file with a connection string ({})", crate::supervise::chain(&error));
        section.refuse(&CONNECTION_STRING_FILE, &file.display().to_string(), &reason)
    })
}

fn read_namespace(section: &Section, text: &str, cloud: Cloud) -> Result<String, ConfigError> {
    cloud.namespace_host(text).ok_or_else(|| {
        let (suffix, cloud) = (cloud.namespace_suffix(), cloud.name());
        let expected = format!("NAME or NAME{suffix}, since azure.cloud is \"{cloud}\"");
        section.refuse(&NAMESPACE, text, &expected)
    })
}

fn readable(section: &Section, key: &Key, path: Option<PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = path else { return Ok(None) };
    if let Err(error) = std::fs::File::open(&path) {
        let expected = format!("a readable file ({error})");
        return Err(section.refuse(key, &path.display().to_string(), &expected));
    }
    Ok(Some(path))
}
