//! Who a command is, and what is known about it from its message.

use std::hash::{Hash, Hasher};

use super::id;
use crate::commands::message::{LockToken, Received};

/// Who a message is. All four equal means the same command, delivered again; anything else is another one. Sequence
/// numbers begin again when an entity is created again, and message ids are chosen by senders: neither says it alone,
/// and no order follows from them.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The queue or subscription, as it is configured. The service does not look at the case of its letters, so
    /// neither does a comparison: a configuration that is spelled anew makes no command a new one.
    pub(crate) entity: Box<str>,
    /// Its number in the entity.
    pub(crate) sequence: i64,
    /// When the broker took it, in Unix milliseconds.
    pub(crate) enqueued_ms: u64,
    /// The message id that its sender gave it; one that is empty counts as none.
    pub(crate) message_id: Option<Box<str>>,
}

/// What every event about a command says of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct About {
    pub(crate) identity: Identity,
    /// The device key, which is the session id.
    pub(crate) device: Box<str>,
    /// The command id: one level of a topic.
    pub(crate) id: Box<str>,
    /// The subject.
    pub(crate) name: Option<Box<str>>,
    /// How often delivering it failed before, as the broker counts.
    pub(crate) delivery_count: u32,
    pub(crate) correlation_id: Option<Box<str>>,
    pub(crate) reply_to: Option<Box<str>>,
    pub(crate) reply_to_session_id: Option<Box<str>>,
    /// The telemetry that it answers, by its identity.
    pub(crate) origin: Option<Box<str>>,
    pub(crate) traceparent: Option<Box<str>>,
    pub(crate) tracestate: Option<Box<str>>,
    pub(crate) tenant: Option<Box<str>>,
}

/// Longest text of a message that an event repeats, in bytes.
const TEXT_BYTES_MAX: usize = 512;

// === impl Identity ===

impl Identity {
    /// The identity of a message of `entity`.
    pub(crate) fn of(received: &Received, entity: &str) -> Self {
        let Received { lock, sequence, enqueued_ms, .. } = *received;
        let message_id = received.message_id.as_deref().filter(|id| !id.is_empty()).map(Into::into);
        // A message that cannot be decoded tells nothing of itself; each of them is one of its own all the same.
        let nameless = message_id.is_none() && (sequence, enqueued_ms) == (0, 0);
        let message_id = if nameless { Some(word(lock)) } else { message_id };
        Self { entity: entity.into(), sequence, enqueued_ms, message_id }
    }

    /// The command id: the message id as one level of a topic, else the sequence number.
    pub(crate) fn command_id(&self) -> String {
        id::level(self.message_id.as_deref(), self.sequence)
    }
}

/// A word for a lock.
fn word(lock: LockToken) -> Box<str> {
    format!("{lock:?}").into()
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let Self { entity, sequence, enqueued_ms, message_id } = self;
        (*sequence, *enqueued_ms) == (other.sequence, other.enqueued_ms)
            && *message_id == other.message_id
            && entity.eq_ignore_ascii_case(&other.entity)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.sequence, self.enqueued_ms, &self.message_id).hash(state);
    }
}

// === impl About ===

impl About {
    /// The device key; none for the gateway itself, whose session ids hold what no device's name does.
    pub(super) fn device_key(&self) -> Option<&str> {
        Some(&*self.device).filter(|device| !device.contains('/'))
    }

    /// What a message says about itself, whether or not it is a command.
    pub(super) fn of(received: &Received, entity: &str, tenant: Option<&str>) -> Self {
        let identity = Identity::of(received, entity);
        let mut id = identity.command_id();
        if id.len() > id::BYTES_MAX {
            id = received.sequence.to_string();
        }
        Self {
            device: received.session_id.as_deref().unwrap_or_default().into(),
            id: id.into(),
            name: beginning(received.subject.as_deref()),
            delivery_count: received.delivery_count,
            correlation_id: beginning(received.correlation_id.as_deref()),
            reply_to: beginning(received.reply_to.as_deref()),
            reply_to_session_id: beginning(received.reply_to_session_id.as_deref()),
            origin: None,
            traceparent: None,
            tracestate: None,
            tenant: tenant.map(Into::into),
            identity,
        }
    }
}

/// A text that is not empty, up to a bound.
pub(super) fn beginning(text: Option<&str>) -> Option<Box<str>> {
    let text = text.filter(|text| !text.is_empty())?;
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).map(Into::into)
}
