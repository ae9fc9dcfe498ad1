//! A reaction as an entry of lane `alerts`; `docs/formats/reaction-v1.md` says it field by field.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::borrow::Cow;

use penstock_proto::Lane;
use serde::{Deserialize, Serialize};

use crate::alerts::nouns::Severity;
use crate::outbox::{Encoded, Entry, Properties, Record};
use crate::supervise::clock;

/// Something to be done about an alert, complete: nothing else has to be known to do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Reaction<'a> {
    /// `<alert>:<transition>:<action>`: the same whenever the same thing is to be done. The MessageId in Service Bus.
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    /// The alert's id, as its events say it. The CorrelationId in Service Bus.
    #[serde(borrow)]
    pub(crate) alert: Cow<'a, str>,
    /// Which transition of the alert, from 1: that of the event which tells it, where one does.
    pub(crate) transition: u32,
    /// The action's name: 1 to 32 of `a-z 0-9 -`.
    #[serde(borrow)]
    pub(crate) action: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) rule: Cow<'a, str>,
    pub(crate) on: Occasion,
    #[serde(with = "severity")]
    pub(crate) severity: Severity,
    /// The device key, at most 512 bytes and as the device chose it. The SessionId in Service Bus.
    #[serde(borrow)]
    pub(crate) device: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<Cow<'a, str>>,
    /// Trace context of the message that led to it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<Cow<'a, str>>,
    /// The identity of the first message that showed the condition, as in the header `penstock` of its record:
    /// `gateway/log/epoch/lane/seq`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Cow<'a, str>>,
    /// When it was decided, by the clock of the rules, in Unix milliseconds.
    pub(crate) decided_ms: u64,
    /// From then on it must not be done any more, in Unix milliseconds.
    pub(crate) expires_ms: u64,
    #[serde(borrow)]
    pub(crate) target: Target<'a>,
}

/// When in the life of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Occasion {
    Raised,
    Resolved,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Target<'a> {
    /// Publish to devices of this gateway.
    #[serde(rename_all = "camelCase")]
    Mqtt {
        /// 1 to 1024 bytes, no wildcards, no empty level.
        #[serde(borrow)]
        topic: Cow<'a, str>,
        /// At most 16 KiB.
        #[serde(borrow)]
        payload: Cow<'a, str>,
        /// 0 to 2.
        qos: u8,
        retain: bool,
        #[serde(borrow)]
        content_type: Cow<'a, str>,
    },
    /// Send to a queue of Service Bus.
    #[serde(rename_all = "camelCase")]
    ServiceBus {
        /// The queue's name in the configuration.
        #[serde(borrow)]
        queue: Cow<'a, str>,
        /// At most 16 KiB.
        #[serde(borrow)]
        payload: Cow<'a, str>,
        /// At most 128 bytes.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        subject: Option<Cow<'a, str>>,
        #[serde(borrow)]
        content_type: Cow<'a, str>,
    },
}

/// An entry that says it is a reaction and is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Junk {
    #[error("it is not the JSON of a reaction")]
    Json(#[from] serde_json::Error),
    #[error("its {0} is not what a reaction can have")]
    Field(&'static str),
}

/// The content type of reactions.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.penstock.reaction.v1+json";
/// Longest payload, in bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 10;
/// Longest topic, in bytes.
pub(super) const TOPIC_BYTES_MAX: usize = 1024;
/// Longest subject, in bytes.
pub(super) const SUBJECT_BYTES_MAX: usize = 128;
/// What no device can publish with, so that no device can write an entry that passes for a reaction.
const QOS_OF_THE_GATEWAY: u8 = 3;

/// Whether an entry of lane alerts is a reaction, which only the gateway itself writes; the others are events.
pub(crate) fn is_reaction(record: &Record<'_>) -> bool {
    record.qos == QOS_OF_THE_GATEWAY && record.properties.content_type == Some(CONTENT_TYPE)
}

// === impl Reaction ===

impl<'a> Reaction<'a> {
    /// The id of what `action` does at a transition of an alert.
    pub(crate) fn id(alert: &str, transition: u32, action: &str) -> String {
        format!("{alert}:{transition}:{action}")
    }

    /// Appends it to lane alerts.
    pub(crate) fn push(&self, gateway: &str, entries: &mut Encoded) {
        // Text and numbers always become JSON.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        entries.push(&Entry {
            lane: Lane::Alerts,
            device: &self.device,
            topic: &format!("gateways/{gateway}/reactions"),
            received_ms: self.decided_ms,
            qos: QOS_OF_THE_GATEWAY,
            retain: false,
            clock_synced: clock::plausible(self.decided_ms),
            properties: Properties {
                tenant: self.tenant.as_deref(),
                content_type: Some(CONTENT_TYPE),
                traceparent: self.traceparent.as_deref(),
                ..Properties::default()
            },
            payload: &payload,
        });
    }

    /// The reaction in an entry; none if it is an event.
    pub(crate) fn of(record: &Record<'a>) -> Option<Result<Self, Junk>> {
        is_reaction(record).then(|| Self::decode(record.payload))
    }

    /// Reads the payload of an entry.
    ///
    /// # Errors
    ///
    /// If it is not what a gateway of this version writes.
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, Junk> {
        let reaction: Self = serde_json::from_slice(payload)?;
        let Self { id, alert, transition, action, device, decided_ms, expires_ms, target, .. } = &reaction;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fields = [
            ("id", *id == Self::id(alert, *transition, action)),
            ("transition", *transition > 0),
            ("action", (1..=32).contains(&action.len()) && action.bytes().all(plain)),
            ("device", !device.is_empty()),
            ("expiry", decided_ms < expires_ms),
        ];
        let wrong = fields.iter().find(|(_, fits)| !fits).map(|(name, _)| *name);
        match wrong.or_else(|| target.wrong()) {
            Some(name) => Err(Junk::Field(name)),
            None => Ok(reaction),
        }
    }
}

// === impl Occasion ===

impl Occasion {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Resolved => "resolved",
        }
    }
}

// === impl Target ===

impl Target<'_> {
    /// The first field that cannot be.
    fn wrong(&self) -> Option<&'static str> {
        let fields = match self {
            Self::Mqtt { topic, payload, qos, .. } => [
                ("topic", is_topic(topic)),
                ("payload", payload.len() <= PAYLOAD_BYTES_MAX),
                ("qos", *qos <= 2),
            ],
            Self::ServiceBus { queue, payload, subject, .. } => [
                ("queue", !queue.is_empty()),
                ("payload", payload.len() <= PAYLOAD_BYTES_MAX),
                ("subject", subject.as_ref().is_none_or(|text| text.len() <= SUBJECT_BYTES_MAX)),
            ],
        };
        fields.iter().find(|(_, fits)| !fits).map(|(name, _)| *name)
    }
}

/// Whether something can be published there: no wildcard, no empty level, nothing of the broker's own.
pub(super) fn is_topic(topic: &str) -> bool {
    let level = |level: &str| !level.is_empty() && !level.contains(['+', '#', '\0']);
    (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && !topic.starts_with('$') && topic.split('/').all(level)
}

mod severity {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::alerts::nouns::Severity;

    pub(super) fn serialize<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(severity.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Severity, D::Error> {
        Severity::deserialize(from)
    }
}
