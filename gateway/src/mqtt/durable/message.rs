//! A publish on its way to subscribers: retained, queued, or a will.

use super::VALUE_VERSION;
use super::wire::{Input, put_sized};

/// A publish as it was received, without its way to any one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct MessageRecord<'a> {
    /// The topic; never empty, never an alias.
    pub(in crate::mqtt) topic: &'a str,
    /// As published: 0, 1 or 2.
    pub(in crate::mqtt) qos: u8,
    /// As published.
    pub(in crate::mqtt) retain: bool,
    /// When it expires, in Unix milliseconds; `None`: never.
    pub(in crate::mqtt) expires_at_ms: Option<u64>,
    /// When it was received, in Unix milliseconds; 0 in a will that was not published.
    pub(in crate::mqtt) received_ms: u64,
    /// The forwardable properties of MQTT 5, as in a packet, without their length.
    pub(in crate::mqtt) properties: &'a [u8],
    /// The payload.
    pub(in crate::mqtt) payload: &'a [u8],
    /// The client id of who published it, for No Local; empty if it is not known.
    pub(in crate::mqtt) publisher: &'a str,
}

const QOS: u8 = 0b011;
const RETAIN: u8 = 0b100;
const EXPIRES: u8 = 0b1000;

impl<'a> MessageRecord<'a> {
    /// Appends the value.
    pub(in crate::mqtt) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VALUE_VERSION);
        self.encode_body(out);
    }

    /// The message in a value; `None` if it is none of this version.
    pub(in crate::mqtt) fn decode(value: &'a [u8]) -> Option<Self> {
        let mut input = Input::value(value)?;
        Self::read(&mut input)
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let qos = self.qos & QOS;
        out.push(qos | flag(self.retain, RETAIN) | flag(self.expires_at_ms.is_some(), EXPIRES));
        out.extend_from_slice(&self.received_ms.to_le_bytes());
        if let Some(expires) = self.expires_at_ms {
            out.extend_from_slice(&expires.to_le_bytes());
        }
        put_sized(out, self.topic.as_bytes());
        put_sized(out, self.publisher.as_bytes());
        put_sized(out, self.properties);
        put_sized(out, self.payload);
    }

    pub(super) fn read(input: &mut Input<'a>) -> Option<Self> {
        let flags = input.u8()?;
        let qos = flags & QOS;
        if qos > 2 || flags & !(QOS | RETAIN | EXPIRES) != 0 {
            return None;
        }
        let received_ms = input.u64()?;
        let expires_at_ms = if flags & EXPIRES == 0 { None } else { Some(input.u64()?) };
        let (topic, publisher) = (input.text()?, input.text()?);
        let (properties, payload) = (input.sized()?, input.sized()?);
        let retain = flags & RETAIN != 0;
        Some(Self { topic, qos, retain, expires_at_ms, received_ms, properties, payload, publisher })
    }
}
