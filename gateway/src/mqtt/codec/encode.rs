//! What a server sends.
//!
//! Every function appends one packet to `out`. Reason codes and properties that say nothing are
//! left out, so that a PUBACK has four bytes in both versions.

use super::reader::VARINT_MAX;
use super::reason::Reason;
use super::{PublishProperties, Version};

/// What a CONNACK tells besides its reason; the properties are written with MQTT 5 only.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Connack<'a> {
    /// The client id that the server chose.
    pub(crate) assigned_client_id: Option<&'a str>,
    /// Seconds, where the server overrules the client.
    pub(crate) server_keep_alive: Option<u16>,
    /// The client asked for a session that outlives the connection and does not get one.
    pub(crate) session_expiry_refused: bool,
    /// Most QoS 1 and 2 publishes the client may have open.
    pub(crate) receive_max: u16,
    /// Largest packet that is accepted, in bytes.
    pub(crate) packet_bytes_max: u32,
}

/// Appends a CONNACK that accepts. The session is never present.
pub(crate) fn connack(out: &mut Vec<u8>, version: Version, told: &Connack<'_>) {
    if version == Version::V3 {
        out.extend_from_slice(&[0x20, 2, 0, 0]);
        return;
    }
    let mut properties = Vec::new();
    if told.session_expiry_refused {
        properties.extend_from_slice(&[0x11, 0, 0, 0, 0]);
    }
    properties.push(0x21);
    properties.extend_from_slice(&told.receive_max.to_be_bytes());
    // Retain Available 0, Maximum Packet Size.
    properties.extend_from_slice(&[0x25, 0, 0x27]);
    properties.extend_from_slice(&told.packet_bytes_max.to_be_bytes());
    if let Some(id) = told.assigned_client_id {
        properties.push(0x12);
        string(&mut properties, id);
    }
    // Topic Alias Maximum 0 is the default. Wildcards work inside the device's own topics.
    properties.extend_from_slice(&[0x28, 1, 0x29, 0, 0x2a, 0]);
    if let Some(seconds) = told.server_keep_alive {
        properties.push(0x13);
        properties.extend_from_slice(&seconds.to_be_bytes());
    }
    out.push(0x20);
    varint(out, 2 + varint_bytes(properties.len()) + properties.len());
    out.extend_from_slice(&[0, 0]);
    varint(out, properties.len());
    out.extend_from_slice(&properties);
}

impl Reason {
    /// Appends a CONNACK that refuses for this reason.
    pub(crate) fn refuse_connect(self, out: &mut Vec<u8>, version: Version) {
        match version {
            Version::V3 => out.extend_from_slice(&[0x20, 2, 0, self.connect_return_code()]),
            Version::V5 => out.extend_from_slice(&[0x20, 3, 0, self.code(), 0]),
        }
    }
}

/// Appends a PUBACK. A refusal is written with MQTT 5 only; 3.1.1 has no way to say it.
#[inline]
pub(crate) fn puback(out: &mut Vec<u8>, id: u16, reason: Reason) {
    ack(out, 0x40, id, reason);
}

/// Appends a PUBREC.
#[inline]
pub(crate) fn pubrec(out: &mut Vec<u8>, id: u16, reason: Reason) {
    ack(out, 0x50, id, reason);
}

/// Appends a PUBCOMP.
#[inline]
pub(crate) fn pubcomp(out: &mut Vec<u8>, id: u16, reason: Reason) {
    ack(out, 0x70, id, reason);
}

#[inline]
fn ack(out: &mut Vec<u8>, first: u8, id: u16, reason: Reason) {
    let [high, low] = id.to_be_bytes();
    if reason == Reason::Success {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason.code()]);
    }
}

/// Appends a SUBACK with one code per filter.
pub(crate) fn suback(out: &mut Vec<u8>, version: Version, id: u16, codes: &[u8]) {
    subscription_answer(out, 0x90, version, id, codes);
}

/// Appends an UNSUBACK; 3.1.1 has no codes in it.
pub(crate) fn unsuback(out: &mut Vec<u8>, version: Version, id: u16, codes: &[u8]) {
    let codes = if version == Version::V3 { &[] } else { codes };
    subscription_answer(out, 0xb0, version, id, codes);
}

fn subscription_answer(out: &mut Vec<u8>, first: u8, version: Version, id: u16, codes: &[u8]) {
    let properties = usize::from(version == Version::V5);
    out.push(first);
    varint(out, 2 + properties + codes.len());
    out.extend_from_slice(&id.to_be_bytes());
    if version == Version::V5 {
        out.push(0);
    }
    out.extend_from_slice(codes);
}

/// Appends a PINGRESP.
pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends a DISCONNECT; with 3.1.1 a server just closes. The empty properties could be left out, but
/// rumqttc does not read it then.
pub(crate) fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason) {
    if version == Version::V5 {
        out.extend_from_slice(&[0xe0, 2, reason.code(), 0]);
    }
}

/// A publish to a subscriber, at QoS 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) retain: bool,
    pub(crate) properties: &'a PublishProperties<'a>,
}

/// Appends a PUBLISH at QoS 0, or nothing if the packet would be larger than `bytes_max`.
/// Returns whether it was appended.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    version: Version,
    delivery: &Delivery<'_>,
    bytes_max: usize,
) -> bool {
    let block = delivery.properties.block;
    let properties = if version == Version::V5 { varint_bytes(block.len()) + block.len() } else { 0 };
    let remaining = 2 + delivery.topic.len() + properties + delivery.payload.len();
    if remaining > VARINT_MAX || 1 + varint_bytes(remaining) + remaining > bytes_max {
        return false;
    }
    out.push(0x30 | u8::from(delivery.retain));
    varint(out, remaining);
    string(out, delivery.topic);
    if version == Version::V5 {
        // Payload format, expiry, content type, response topic, correlation data and user
        // properties travel unaltered; a topic alias never gets this far.
        varint(out, block.len());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(delivery.payload);
    true
}

/// Appends a string. It came from a packet, so its length fits two bytes; a longer one is cut.
fn string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    let bytes = text.as_bytes();
    out.extend_from_slice(bytes.get(..usize::from(length)).unwrap_or(bytes));
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

const fn varint_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}
