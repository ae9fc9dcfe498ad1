//! A message as Service Bus hands it over, and what becomes of it: plain types, shared by the AMQP layer, the contract
//! and the links.

use std::fmt;
use std::time::Duration;

/// A received message that is locked for us, with everything the contract looks at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    /// What it is settled by.
    pub(crate) lock: LockToken,
    /// Its number in the entity. Given by the broker; begins again when the entity is created again.
    pub(crate) sequence: i64,
    /// When the broker took it, in milliseconds since 1970.
    pub(crate) enqueued_ms: u64,
    /// How often delivering it failed before.
    pub(crate) delivery_count: u32,
    pub(crate) message_id: Option<String>,
    /// The group id of AMQP.
    pub(crate) session_id: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    /// The reply-to-group-id of AMQP.
    pub(crate) reply_to_session_id: Option<String>,
    /// When the broker lets it expire, in milliseconds since 1970: enqueued and time to live.
    pub(crate) expires_ms: Option<u64>,
    /// The application properties, in order.
    pub(crate) properties: Vec<(String, Value)>,
    pub(crate) body: Body,
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Outgoing {
    /// What duplicates are told by.
    pub(crate) message_id: Option<String>,
    /// The session it belongs to; required by entities with sessions.
    pub(crate) session_id: Option<String>,
    /// What it is about.
    pub(crate) subject: Option<String>,
    /// The type of the body.
    pub(crate) content_type: Option<String>,
    /// What it belongs to.
    pub(crate) correlation_id: Option<String>,
    /// The entity that answers go to.
    pub(crate) reply_to: Option<String>,
    /// The session that answers go to.
    pub(crate) reply_to_session_id: Option<String>,
    /// How long it may wait; as the entity says without.
    pub(crate) time_to_live: Option<Duration>,
    /// The application's properties. Values of other types than AMQP has are left out.
    pub(crate) properties: Vec<(String, Value)>,
    /// What it says.
    pub(crate) body: Vec<u8>,
}

/// The value of an application property.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    /// Any of AMQP's integers that fits.
    Integer(i64),
    Bool(bool),
    Double(f64),
    /// Milliseconds since 1970.
    Time(u64),
    Binary(Vec<u8>),
    /// Another type of AMQP, by its name there.
    Other(&'static str),
}

/// The body of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// Data sections, one behind the other.
    Data(Vec<u8>),
    /// A value section with a string.
    Text(String),
    /// Something else, by its name: a list, a map, no body at all.
    Other(&'static str),
}

/// What a locked message is settled by: its delivery tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LockToken(pub(crate) [u8; 16]);

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Disposition {
    /// It is done with.
    Complete,
    /// It is delivered again, and counts as failed once more.
    Abandon,
    /// It goes to the dead-letter queue.
    DeadLetter {
        /// One word for machines.
        reason: String,
        /// A sentence for people.
        description: String,
    },
}

// === impl Received ===

impl Received {
    /// How much memory it holds, near enough: its texts, its properties and its body.
    pub(crate) fn bytes(&self) -> usize {
        let Self { message_id, session_id, subject, content_type, correlation_id, .. } = self;
        let Self { reply_to, reply_to_session_id, properties, body, .. } = self;
        let texts = [message_id, session_id, subject, content_type, correlation_id];
        let texts = texts.into_iter().chain([reply_to, reply_to_session_id]);
        let texts: usize = texts.flatten().map(String::len).sum();
        let properties: usize = properties.iter().map(|(name, value)| name.len() + value.bytes()).sum();
        let body = match body {
            Body::Data(bytes) => bytes.len(),
            Body::Text(text) => text.len(),
            Body::Other(_) => 0,
        };
        size_of::<Self>() + texts + properties + body
    }
}

// === impl Value ===

impl Value {
    fn bytes(&self) -> usize {
        let held = match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Integer(_) | Self::Bool(_) | Self::Double(_) | Self::Time(_) | Self::Other(_) => 0,
        };
        size_of::<(String, Self)>() + held
    }
}

// === impl Body ===

impl Body {
    /// The name of the body of a message that could not be decoded at all.
    pub(crate) const UNDECODABLE: &str = "a message that is not AMQP";
}

// === impl LockToken ===

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
