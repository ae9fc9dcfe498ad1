//! What the cloud is told about a command: CloudEvents in lane `status`, under the key of the device.

use penstock_proto::{GatewayId, Lane};
use serde::Serialize;
use serde_json::Value;

use super::about::About;
use super::outcome::Outcome;
use crate::outbox::{Attributes, CloudEvent, Encoded, rfc3339};

/// In whose name events are told.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    /// The gateway.
    pub(crate) gateway: Box<str>,
    /// Begins the type of every event: `io.penstock`.
    pub(crate) type_prefix: Box<str>,
}

/// One event about a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatusEvent<'a> {
    pub(crate) about: &'a About,
    pub(crate) outcome: &'a Outcome,
    /// Whether nothing follows. There is one such event for each command.
    pub(crate) is_final: bool,
    /// Whether the device was told that it may have got it before.
    pub(crate) redelivered: bool,
    /// When this was found, in Unix milliseconds.
    pub(crate) now_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    command_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    status: &'static str,
    #[serde(rename = "final")]
    is_final: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail_bytes: Option<u32>,
    entity: &'a str,
    sequence: i64,
    delivery_count: u32,
    redelivered: bool,
    enqueued_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_session_id: Option<&'a str>,
}

// === impl Voice ===

impl Voice {
    /// The voice of a gateway.
    pub(crate) fn of(gateway: &GatewayId, type_prefix: &str) -> Self {
        Self { gateway: gateway.as_str().into(), type_prefix: type_prefix.into() }
    }
}

// === impl StatusEvent ===

impl StatusEvent<'_> {
    /// Room for one, to reserve before it is made: more than nearly all of them take.
    pub(crate) const BYTES: usize = 16 << 10;

    /// Appends it.
    pub(crate) fn push(&self, voice: &Voice, entries: &mut Encoded) {
        self.event(voice).push(Lane::Status, &self.about.device, entries);
    }

    fn event<'a>(&'a self, voice: &'a Voice) -> CloudEvent<'a, impl Serialize + use<'a>> {
        let Self { about, outcome, is_final, now_ms, .. } = *self;
        let identity = &about.identity;
        let (phase, step) = if is_final { ("final", 2) } else { ("delivered", 1) };
        // The same whenever the same thing is told again, from whatever is known at that time.
        let id = format!("{}/{}-{}/{phase}", about.id, identity.sequence, identity.enqueued_ms);
        let status = outcome.status;
        let kind = format!("{}.command.{}.v1", voice.type_prefix, status.word());
        let attributes = Attributes {
            subject: Some(&about.device),
            device: about.device_key(),
            tenant: about.tenant.as_deref(),
            correlation: identity.message_id.as_deref().or(Some(&about.id)),
            traceparent: about.traceparent.as_deref(),
            tracestate: about.tracestate.as_deref(),
            // All digits, so that the order of the text is that of the commands.
            sequence: Some(format!("{:020}.{step}", identity.sequence.max(0))),
            ..Attributes::default()
        };
        CloudEvent::new(&voice.gateway, (id, kind), status.severity(), now_ms, self.data()).with(attributes)
    }

    fn data(&self) -> Data<'_> {
        let Self { about, outcome, .. } = self;
        let own = || outcome.note.as_deref().map(Value::from);
        let detail = outcome.detail.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Data {
            command_id: &about.id,
            message_id: about.identity.message_id.as_deref(),
            name: about.name.as_deref(),
            device: about.device_key(),
            status: outcome.status.word(),
            is_final: self.is_final,
            reason: outcome.reason.map(super::Reason::word),
            dead_letter_reason: outcome.dead_letter.as_deref(),
            code: outcome.code,
            detail: detail.or_else(own),
            detail_bytes: outcome.detail_bytes,
            entity: &about.identity.entity,
            sequence: about.identity.sequence,
            delivery_count: about.delivery_count,
            redelivered: self.redelivered,
            enqueued_time: rfc3339(about.identity.enqueued_ms),
            origin: about.origin.as_deref(),
            correlation_id: about.correlation_id.as_deref(),
            reply_to: about.reply_to.as_deref(),
            reply_to_session_id: about.reply_to_session_id.as_deref(),
        }
    }

    /// All of it as a tree of JSON.
    pub(super) fn to_value(self, voice: &Voice) -> Value {
        // Text and numbers in maps with text keys always become JSON.
        serde_json::to_value(self.event(voice)).unwrap_or_default()
    }

    /// Its JSON.
    #[cfg(test)]
    pub(crate) fn json(&self, voice: &Voice) -> Vec<u8> {
        self.event(voice).json()
    }
}
