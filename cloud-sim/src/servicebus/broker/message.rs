//! What goes in and out of the broker: messages, deliveries, outcomes, notices, refusals.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// A lock token, and the delivery tag of its transfer: 16 bytes in the layout of .NET's GUID.
pub(crate) type Lock = [u8; 16];
/// A receiver link. Unique in the process, given by the wire.
pub(crate) type LinkId = u64;
/// A connection. Unique in the process, given by the broker.
pub(crate) type ConnectionId = u64;

/// A message as the broker keeps it: the encoded AMQP sections it came as, and what the broker itself needs of them.
///
/// The wire encodes header and annotations anew at each delivery and passes the rest through byte for byte.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message {
    /// Time to live from the header, in milliseconds from the time it is enqueued.
    pub(crate) header_ttl_ms: Option<u32>,
    /// `durable` of the header; kept and ignored.
    pub(crate) durable: bool,
    /// The sections properties, application-properties and body, encoded, as they came.
    pub(crate) bare: Bytes,
    /// Entries of the client's message annotations that are worth keeping, encoded; may be empty.
    pub(crate) annotations: Bytes,
    /// `message-id` of the properties; what duplicates are found by. At most 128 characters.
    pub(crate) message_id: Option<String>,
    /// `group-id` of the properties. At most 128 characters.
    pub(crate) session_id: Option<String>,
    /// `subject` of the properties.
    pub(crate) subject: Option<String>,
    /// `correlation-id` of the properties.
    pub(crate) correlation_id: Option<String>,
    /// `to` of the properties.
    pub(crate) to: Option<String>,
    /// `reply-to` of the properties.
    pub(crate) reply_to: Option<String>,
    /// Application properties, for correlation filters.
    pub(crate) application: Vec<(String, Simple)>,
    /// Unix time in milliseconds before which it is not delivered.
    pub(crate) scheduled_ms: Option<u64>,
    /// `x-opt-partition-key`; kept and ignored.
    pub(crate) partition_key: Option<String>,
}

/// An application property as far as a correlation filter can compare it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Simple {
    Text(String),
    Long(i64),
    Bool(bool),
    Double(f64),
    /// Of a type that no filter names.
    Other,
}

/// Where a dead-lettered message came from, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// The entity, for `x-opt-deadletter-source`.
    pub(crate) source: String,
    /// `DeadLetterReason` of the application properties.
    pub(crate) reason: Option<String>,
    /// `DeadLetterErrorDescription` of the application properties.
    pub(crate) description: Option<String>,
}

/// `x-opt-message-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageState {
    Active = 0,
    Deferred = 1,
    Scheduled = 2,
}

/// A message on its way to a receiver, or one that was peeked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    /// The delivery tag; zeros when the message was only peeked at or is gone with this delivery.
    pub(crate) lock: Lock,
    pub(crate) sequence: i64,
    /// Unix time in milliseconds.
    pub(crate) enqueued_ms: u64,
    /// Unix time in milliseconds; 0 when there is no lock.
    pub(crate) locked_until_ms: u64,
    /// Failed deliveries before this one, as in the AMQP header.
    pub(crate) delivery_count: u32,
    pub(crate) state: MessageState,
    /// In a dead-letter queue only.
    pub(crate) dead_letter: Option<DeadLetter>,
}

/// What a receiver wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The session with this id.
    Session(String),
    /// The next session that has messages and no holder.
    Next {
        /// `com.microsoft:timeout`: how long to wait for one.
        wait: Duration,
    },
    /// An entity without sessions, or a dead-letter queue.
    Plain,
}

/// A receiver that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Answer the attach now.
    Granted {
        /// The session that it holds.
        session: Option<String>,
        /// Unix time in milliseconds, for `com.microsoft:locked-until-utc`.
        locked_until_ms: Option<u64>,
    },
    /// Do not answer yet: [`Notice::Granted`] or [`Notice::Refused`] follows.
    Waiting,
}

/// What the broker tells a connection on its own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A waiting receiver got a session.
    Granted {
        link: LinkId,
        session: String,
        /// Unix time in milliseconds.
        locked_until_ms: u64,
    },
    /// A waiting receiver gets none; the link is forgotten.
    Refused { link: LinkId, error: Refusal },
    /// There is something to deliver: call [`super::Broker::next`] while there is credit, and
    /// [`super::Broker::pass`] if there is none.
    Ready { link: LinkId },
    /// Detach the link with this error. It holds nothing any more; [`super::Broker::detach`] is still to be called.
    Detach { link: LinkId, error: Refusal },
    /// Close the connection with this error; without one, just cut the socket.
    Disconnect { error: Option<Refusal> },
    /// Half-open: read and write nothing any more, keep the socket.
    Freeze,
}

/// How a receiver settles a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Complete: the message is gone.
    Accepted,
    /// Unlock; the delivery count stays.
    Released,
    Modified {
        /// Given back in the answer and otherwise not looked at: without `undeliverable` the message is abandoned,
        /// which unlocks it and raises its delivery count.
        failed: bool,
        /// Defer: it is received by its sequence number from now on.
        undeliverable: bool,
    },
    /// Dead-letter.
    Rejected {
        /// `DeadLetterReason`.
        reason: Option<String>,
        /// `DeadLetterErrorDescription`.
        description: Option<String>,
    },
}

/// Why the broker does not do something: an AMQP error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The symbol.
    pub(crate) condition: &'static str,
    pub(crate) description: String,
}

impl Refusal {
    pub(crate) const ARGUMENT: &str = "com.microsoft:argument-error";
    pub(crate) const CONNECTION_FORCED: &str = "amqp:connection:forced";
    pub(crate) const DETACH_FORCED: &str = "amqp:link:detach-forced";
    pub(crate) const ENTITY_DISABLED: &str = "com.microsoft:entity-disabled";
    pub(crate) const INTERNAL: &str = "amqp:internal-error";
    pub(crate) const MESSAGE_LOCK_LOST: &str = "com.microsoft:message-lock-lost";
    pub(crate) const MESSAGE_NOT_FOUND: &str = "com.microsoft:message-not-found";
    pub(crate) const NOT_ALLOWED: &str = "amqp:not-allowed";
    pub(crate) const NOT_FOUND: &str = "amqp:not-found";
    pub(crate) const QUOTA: &str = "amqp:resource-limit-exceeded";
    pub(crate) const SERVER_BUSY: &str = "com.microsoft:server-busy";
    pub(crate) const SESSION_CANNOT_BE_LOCKED: &str = "com.microsoft:session-cannot-be-locked";
    pub(crate) const SESSION_LOCK_LOST: &str = "com.microsoft:session-lock-lost";
    pub(crate) const TIMEOUT: &str = "com.microsoft:timeout";
    pub(crate) const TOO_LARGE: &str = "amqp:link:message-size-exceeded";
    pub(crate) const UNAUTHORIZED: &str = "amqp:unauthorized-access";

    pub(crate) fn new(condition: &'static str, description: impl Into<String>) -> Self {
        Self { condition, description: description.into() }
    }
}

impl Message {
    /// What it counts for in the bounds: its bytes and a flat sum for what the broker keeps beside them.
    pub(super) fn cost(&self) -> usize {
        let texts = [&self.message_id, &self.session_id, &self.subject, &self.correlation_id, &self.to];
        let texts: usize = texts.iter().map(|text| text.as_ref().map_or(0, String::len)).sum();
        let properties: usize = self.application.iter().map(|(name, value)| name.len() + value.cost()).sum();
        KEPT_BESIDE + self.bare.len() + self.annotations.len() + texts + properties
    }
}

impl Simple {
    fn cost(&self) -> usize {
        match self {
            Self::Text(text) => 48 + text.len(),
            Self::Long(_) | Self::Bool(_) | Self::Double(_) | Self::Other => 48,
        }
    }
}

/// Bytes that a message costs on top of its own, roughly: the indexes that it is in.
const KEPT_BESIDE: usize = 512;
