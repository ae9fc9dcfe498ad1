//! How to reach Event Hubs: addresses, security, and the client library's settings that follow.

use std::path::PathBuf;
use std::time::Duration;

use crate::azure::{Bearer, ConnectionString, NoToken, TokenHandle};
use crate::supervise::clock;

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
    /// TLS, and a token of Microsoft Entra.
    Entra {
        /// Where the newest token lies.
        tokens: TokenHandle,
        /// Certificates to trust instead of the system's.
        ca_file: Option<PathBuf>,
    },
}

/// Tokens for a client of the library, which asks for one through a callback while it is polled.
///
/// The library asks first when the client is built, and asks again ten seconds after it got an error. So a
/// client is not polled before the first token came (see [`Self::ready`]), and authenticates at once then.
#[derive(Debug, Clone, Default)]
pub(crate) struct SignIn(Option<TokenHandle>);

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
        let ca = |file: &Option<PathBuf>| {
            file.as_ref().map_or_else(|| "probe".into(), |path| path.display().to_string())
        };
        match &self.security {
            Security::Plaintext => settings.push(("security.protocol", "plaintext".into())),
            Security::SaslTls { connection_string, ca_file } => {
                settings.extend([
                    ("security.protocol", "sasl_ssl".into()),
                    ("sasl.mechanism", "PLAIN".into()),
                    ("sasl.username", "$ConnectionString".into()),
                    ("sasl.password", connection_string.secret().to_owned()),
                    ("ssl.ca.location", ca(ca_file)),
                ]);
            }
            Security::Entra { ca_file, .. } => settings.extend([
                ("security.protocol", "sasl_ssl".into()),
                ("sasl.mechanism", "OAUTHBEARER".into()),
                ("ssl.ca.location", ca(ca_file)),
            ]),
        }
        settings
    }

    /// The tokens that clients of this cluster sign in with, if they do.
    #[must_use]
    pub const fn tokens(&self) -> Option<&TokenHandle> {
        match &self.security {
            Security::Entra { tokens, .. } => Some(tokens),
            Security::Plaintext | Security::SaslTls { .. } => None,
        }
    }

    /// The same for the callbacks of a client.
    pub(crate) fn sign_in(&self) -> SignIn {
        SignIn(self.tokens().cloned())
    }
}

impl SignIn {
    /// Shown in the library's errors only; the service reads who it is from the token.
    pub(crate) const PRINCIPAL: &str = "penstock";
    /// The library is told a quarter of the true life, at least and at most so much. It asks again when four fifths of
    /// what it was told are over, so a token that was renewed, be it early because the service refused the one
    /// before, is used soon. Asking costs a copy.
    const LIFE_TOLD_MIN: Duration = Duration::from_secs(1);
    const LIFE_TOLD_MAX: Duration = Duration::from_secs(5);

    /// The newest token and the Unix time in milliseconds at which the library should think it expires.
    ///
    /// # Errors
    ///
    /// [`NoToken`]; the library asks again after ten seconds.
    pub(crate) fn token(&self) -> Result<(String, i64), NoToken> {
        let none = NoToken::Yet { audience: "this cluster".into(), reason: "it takes none".into() };
        let Bearer { token, life } = self.0.as_ref().ok_or(none)?.bearer()?;
        let told = (life / 4).clamp(Self::LIFE_TOLD_MIN, Self::LIFE_TOLD_MAX).min(life);
        let told_ms = u64::try_from(told.as_millis()).unwrap_or(u64::MAX);
        Ok((token, i64::try_from(clock::unix_ms().saturating_add(told_ms)).unwrap_or(i64::MAX)))
    }

    /// Whether a client signs in with tokens.
    pub(crate) const fn is_needed(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a client may be polled.
    ///
    /// # Errors
    ///
    /// [`NoToken::Yet`] before the first token came.
    pub(crate) fn ready(&self) -> Result<(), NoToken> {
        self.0.as_ref().map_or(Ok(()), TokenHandle::came)
    }

    /// Waits until a client may be polled. Blocks.
    ///
    /// # Errors
    ///
    /// [`NoToken::Yet`] when no token came within `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<(), NoToken> {
        self.0.as_ref().map_or(Ok(()), |tokens| tokens.wait(timeout))
    }

    /// The service let the client not in.
    pub(crate) fn refused(&self) {
        if let Some(tokens) = &self.0 {
            tokens.refused();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::Audience;

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
    fn a_client_is_told_a_part_of_the_life_and_asks_again_soon() {
        let check = |life: u64, told: std::ops::RangeInclusive<i64>| {
            let tokens = TokenHandle::new(Audience::namespace("a.servicebus.windows.net"));
            let security = Security::Entra { tokens: tokens.clone(), ca_file: None };
            let connection = Connection {
                bootstrap_servers: "a.servicebus.windows.net:9093".into(),
                security,
                socket_timeout: Connection::SOCKET_TIMEOUT,
            };
            assert_eq!(value(&connection, "sasl.mechanism").as_deref(), Some("OAUTHBEARER"));
            assert_eq!(value(&connection, "security.protocol").as_deref(), Some("sasl_ssl"));
            assert_eq!(value(&connection, "sasl.password"), None);
            let sign_in = connection.sign_in();
            assert!(sign_in.is_needed() && sign_in.ready().is_err() && sign_in.token().is_err());
            tokens.put("secret", Duration::from_millis(life));
            assert!(sign_in.ready().is_ok());
            let before = i64::try_from(clock::unix_ms()).unwrap();
            let (token, expires_ms) = sign_in.token().unwrap();
            assert_eq!(token, "secret");
            let seen = expires_ms - before;
            assert!(told.contains(&seen), "of {life} ms {seen} were told");
        };
        check(3_600_000, 5_000..=5_900);
        check(12_000, 2_900..=3_900);
        check(2_000, 1_000..=1_900);
        check(600, 1..=700);
    }

    #[test]
    fn whoever_signs_in_otherwise_is_always_ready() {
        let sign_in = SignIn::default();
        assert!(!sign_in.is_needed());
        assert_eq!((sign_in.ready(), sign_in.wait(Duration::ZERO)), (Ok(()), Ok(())));
        sign_in.refused();
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
