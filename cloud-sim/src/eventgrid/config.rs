//! What an Event Grid side is started with.

use std::net::SocketAddr;

/// The two access keys, if no others are given: 32 bytes in Base64, as the service makes them.
pub const KEYS_DEFAULT: [&str; 2] =
    ["Y2xvdWQtc2ltIGV2ZW50IGdyaWQga2V5IG51bWJlciA=", "Y2xvdWQtc2ltIGV2ZW50IGdyaWQga2V5IG51bWJlcjI="];

/// What answers at `/api/events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A custom topic.
    Topic,
    /// A domain: the source of an event names its topic.
    Domain,
}

/// The settings of the Event Grid side.
#[derive(Clone)]
pub struct EventGrid {
    /// Where HTTP without TLS is served, which the real service does not have.
    pub listener: SocketAddr,
    /// Where HTTPS is served, if it is to be.
    pub tls: Option<SocketAddr>,
    /// What answers at `/api/events`.
    pub kind: Kind,
    /// The topics of the namespace, at `/topics/NAME:publish`.
    pub namespace_topics: Vec<String>,
    /// The two access keys, Base64; either opens everything.
    pub keys: [String; 2],
    /// Whether keys and signatures are taken; otherwise only tokens are.
    pub local_auth: bool,
}

/// Everything but the keys.
impl std::fmt::Debug for EventGrid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EventGrid")
            .field("listener", &self.listener)
            .field("tls", &self.tls)
            .field("kind", &self.kind)
            .field("namespace_topics", &self.namespace_topics)
            .finish_non_exhaustive()
    }
}

impl EventGrid {
    /// A free port of 127.0.0.1, no TLS, a custom topic, no namespace topics, the default keys.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listener: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            kind: Kind::Topic,
            namespace_topics: Vec::new(),
            keys: KEYS_DEFAULT.map(str::to_owned),
            local_auth: true,
        }
    }
}

impl Default for EventGrid {
    fn default() -> Self {
        Self::new()
    }
}
