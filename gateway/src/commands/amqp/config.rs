//! How the gateway reaches a namespace of Service Bus.

use std::path::PathBuf;
use std::time::Duration;

use crate::azure::ConnectionString;

/// The checked settings of `[commands.connection]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Which namespace, and by what right.
    pub(crate) sign_in: SignIn,
    /// How AMQP gets there.
    pub(crate) transport: Transport,
    /// The port; `None` for the usual one of the transport, or the one that a connection string for development names.
    pub(crate) port: Option<u16>,
    /// Certificates (PEM) to trust instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// A proxy that connections lead through.
    pub(crate) proxy: Option<Proxy>,
    /// A connection on which nothing arrives for this long is given up; from 1 s to 10 min.
    pub(crate) idle_timeout: Duration,
    /// Most links on one connection; another is opened for more. From 1 to [`Connection::LINKS_MAX`].
    pub(crate) links_per_connection: usize,
    /// Connections that links are spread over while many wait to be attached, at least 1.
    pub(crate) parallel_connections: usize,
}

/// Which namespace, and by what right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignIn {
    /// By a key, with the signatures that are made from it.
    Key(ConnectionString),
    /// By tokens of Microsoft Entra.
    Entra {
        /// The namespace's host.
        host: String,
    },
}

/// How AMQP gets to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Transport {
    /// On its own port.
    #[default]
    Tcp,
    /// Inside WebSocket on the port of HTTPS.
    WebSocket,
}

/// An HTTP proxy that is asked for tunnels (`CONNECT`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Its host.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// A file with one line, `NAME:PASSWORD`, if it asks for them. Read at each connection.
    pub(crate) credentials_file: Option<PathBuf>,
}

// === impl Connection ===

impl Connection {
    /// Most links that one connection can have: Service Bus gives it 5,000 channels, and the requests need some.
    pub(crate) const LINKS_MAX: usize = 4_500;
    /// Links per connection if nothing else is said: what ends together when a connection ends.
    pub(crate) const LINKS_DEFAULT: usize = 1_000;
    /// Connections that many links at once are spread over if nothing else is said.
    pub(crate) const PARALLEL_DEFAULT: usize = 4;
    /// When a silent connection is given up if nothing else is said.
    pub(crate) const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

    /// The usual settings for a namespace.
    pub(crate) const fn new(sign_in: SignIn) -> Self {
        Self {
            sign_in,
            transport: Transport::Tcp,
            port: None,
            ca_file: None,
            proxy: None,
            idle_timeout: Self::IDLE_TIMEOUT_DEFAULT,
            links_per_connection: Self::LINKS_DEFAULT,
            parallel_connections: Self::PARALLEL_DEFAULT,
        }
    }

    /// The namespace's host.
    pub(crate) fn host(&self) -> &str {
        match &self.sign_in {
            SignIn::Key(connection_string) => connection_string.host(),
            SignIn::Entra { host } => host,
        }
    }

    /// Whether connections use TLS: always, but for the emulator that a connection string names.
    pub(crate) const fn tls(&self) -> bool {
        !matches!(&self.sign_in, SignIn::Key(connection_string) if connection_string.is_development())
    }

    /// The port that is connected to. That of a connection string counts for development only: Azure listens on
    /// its own, whatever the string says.
    pub(super) fn port(&self) -> u16 {
        let named = match &self.sign_in {
            SignIn::Key(connection_string) if connection_string.is_development() => connection_string.port(),
            _ => None,
        };
        self.port.or(named).unwrap_or(match (self.transport, self.tls()) {
            (Transport::Tcp, true) => 5671,
            (Transport::Tcp, false) => 5672,
            (Transport::WebSocket, true) => 443,
            (Transport::WebSocket, false) => 80,
        })
    }
}

// === impl Transport ===

impl Transport {
    /// The names in the configuration.
    pub(crate) const NAMES: &[&str] = &["tcp", "websocket"];

    /// The transport with this name; [`Transport::Tcp`] for any other.
    pub(crate) fn named(name: &str) -> Self {
        if name == "websocket" { Self::WebSocket } else { Self::Tcp }
    }
}

// === impl Proxy ===

impl Proxy {
    /// A proxy given as `http://HOST:PORT`; `None` if the text is anything else. Names and passwords do not belong
    /// there, they come from a file.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let place = text.strip_prefix("http://")?.trim_end_matches('/');
        let (host, port) = place.rsplit_once(':')?;
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (plain && !host.is_empty()).then(|| Self { host: host.to_owned(), port, credentials_file: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(endpoint: &str, tail: &str) -> Connection {
        let text = format!("Endpoint=sb://{endpoint};SharedAccessKeyName=a;SharedAccessKey=b;{tail}");
        Connection::new(SignIn::Key(ConnectionString::parse(&text).unwrap()))
    }

    #[test]
    fn ports_are_the_usual_ones_unless_said_otherwise() {
        let check = |connection: Connection, tls: bool, port: u16| {
            assert_eq!((connection.tls(), connection.port()), (tls, port), "{connection:?}");
        };
        let azure = key("contoso.servicebus.windows.net/", "");
        let development = key("localhost", "UseDevelopmentEmulator=true");
        let web =
            |connection: &Connection| Connection { transport: Transport::WebSocket, ..connection.clone() };
        check(azure.clone(), true, 5671);
        check(web(&azure), true, 443);
        check(key("contoso.servicebus.windows.net:1234", ""), true, 5671);
        check(Connection { port: Some(8443), ..web(&azure) }, true, 8443);
        check(development.clone(), false, 5672);
        check(web(&development), false, 80);
        check(key("localhost:5673", "UseDevelopmentEmulator=true"), false, 5673);
        check(Connection::new(SignIn::Entra { host: "contoso.servicebus.windows.net".into() }), true, 5671);
    }

    #[test]
    fn proxies_have_a_host_and_a_port_and_no_password() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let seen = Proxy::parse(text);
            assert_eq!(seen.as_ref().map(|proxy| (proxy.host.as_str(), proxy.port)), expected, "{text}");
        };
        check("http://proxy.site:3128", Some(("proxy.site", 3128)));
        check("http://10.0.0.1:8080/", Some(("10.0.0.1", 8080)));
        check("http://proxy.site", None);
        check("https://proxy.site:3128", None);
        check("http://name:password@proxy.site:3128", None);
        check("http://:3128", None);
        check("http://proxy.site:0", None);
    }
}
