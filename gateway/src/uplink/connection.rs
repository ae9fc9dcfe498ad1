//! How to reach Event Hubs: addresses, security, and the client library's settings that follow.

use std::path::PathBuf;
use std::time::Duration;

use crate::azure::ConnectionString;

/// An Event Hubs namespace, or any Kafka cluster.
#[derive(Debug, Clone)]
pub struct Connection {
    /// `HOST:PORT`, several separated by commas.
    pub bootstrap_servers: String,
    /// Whether and how the connection is secured.
    pub security: Security,
    /// How long a request may stay without an answer before its connection is given up.
    pub socket_timeout: Duration,
}

/// Whether and how the connection is secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// Neither encryption nor a name: for test doubles on the same host.
    Plaintext,
    /// TLS, and the connection string as password; what Event Hubs asks for.
    SaslTls {
        /// The namespace's connection string.
        connection_string: ConnectionString,
        /// Certificates to trust instead of the system's.
        ca_file: Option<PathBuf>,
    },
}

/// One setting of the client library.
pub(crate) type Setting = (&'static str, String);

impl Connection {
    /// Port of Event Hubs' Kafka endpoint.
    pub(crate) const EVENT_HUBS_PORT: u16 = 9093;
    /// Used where nobody configures another: what Event Hubs asks for at least.
    pub const SOCKET_TIMEOUT: Duration = Duration::from_secs(60);

    /// The settings that every client of this cluster shares.
    ///
    /// Azure drops connections idle for four minutes, and the library's own default for that only holds for
    /// host names that contain `azure`; so the idle limits are set here.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let socket_timeout = self.socket_timeout.as_millis().to_string();
        let mut settings: Vec<Setting> = vec![
            ("bootstrap.servers", self.bootstrap_servers.clone()),
            ("socket.timeout.ms", socket_timeout),
            ("socket.keepalive.enable", "true".into()),
            ("connections.max.idle.ms", "180000".into()),
            ("metadata.max.age.ms", "180000".into()),
            ("topic.metadata.refresh.interval.ms", "180000".into()),
            ("reconnect.backoff.ms", "100".into()),
            ("reconnect.backoff.max.ms", "5000".into()),
            ("allow.auto.create.topics", "false".into()),
            ("enable.metrics.push", "false".into()),
        ];
        match &self.security {
            Security::Plaintext => settings.push(("security.protocol", "plaintext".into())),
            Security::SaslTls { connection_string, ca_file } => {
                let ca = ca_file.as_ref().map_or_else(|| "probe".into(), |path| path.display().to_string());
                settings.extend([
                    ("security.protocol", "sasl_ssl".into()),
                    ("sasl.mechanism", "PLAIN".into()),
                    ("sasl.username", "$ConnectionString".into()),
                    ("sasl.password", connection_string.secret().to_owned()),
                    ("ssl.ca.location", ca),
                ]);
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(connection: &Connection, name: &str) -> Option<String> {
        connection.settings().into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    #[test]
    fn event_hubs_gets_the_whole_connection_string_as_password() {
        let text = "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0";
        let connection = Connection {
            bootstrap_servers: "a.servicebus.windows.net:9093".into(),
            security: Security::SaslTls {
                connection_string: ConnectionString::parse(text).unwrap(),
                ca_file: None,
            },
            socket_timeout: Connection::SOCKET_TIMEOUT,
        };
        assert_eq!(value(&connection, "sasl.password").as_deref(), Some(text));
        assert_eq!(value(&connection, "sasl.username").as_deref(), Some("$ConnectionString"));
        assert_eq!(value(&connection, "security.protocol").as_deref(), Some("sasl_ssl"));
        assert_eq!(value(&connection, "ssl.ca.location").as_deref(), Some("probe"));
        assert!(!format!("{connection:?}").contains("c2VjcmV0"), "secrets are not shown");
    }

    #[test]
    fn azure_idle_limits_are_always_set() {
        let connection = Connection {
            bootstrap_servers: "localhost:9092".into(),
            security: Security::Plaintext,
            socket_timeout: Duration::from_secs(5),
        };
        let idle: u64 = value(&connection, "connections.max.idle.ms").unwrap().parse().unwrap();
        assert!(idle < 240_000, "Azure drops what is idle for four minutes");
        assert_eq!(value(&connection, "socket.timeout.ms").as_deref(), Some("5000"));
        assert_eq!(value(&connection, "sasl.password"), None);
    }
}
