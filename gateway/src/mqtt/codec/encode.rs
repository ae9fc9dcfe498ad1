//! What a server sends, PUBLISH aside.
//!
//! Every function appends one packet to `out`. Reason codes and properties that say nothing are
//! left out, so that a PUBACK has four bytes in both versions.

use super::Version;
use super::reader::{VARINT_MAX, septet, varint_bytes};
use super::reason::Reason;

/// What a CONNACK that accepts tells; the properties are written with MQTT 5 only.
///
/// What it does not tell is offered: QoS 2, retained messages, wildcards, subscription identifiers
/// and shared subscriptions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connack<'a> {
    /// The server has state of this client from an earlier connection.
    pub(crate) session_present: bool,
    /// The client id that the server chose.
    pub(crate) assigned_client_id: Option<&'a str>,
    /// Seconds, where the server overrules the client.
    pub(crate) server_keep_alive: Option<u16>,
    /// Seconds, where the server overrules the client.
    pub(crate) session_expiry: Option<u32>,
    /// Most QoS 1 and 2 publishes the client may have open; not zero.
    pub(crate) receive_max: u16,
    /// Largest packet that is accepted, in bytes; not zero.
    pub(crate) packet_bytes_max: u32,
    /// Highest topic alias that is accepted; zero for none.
    pub(crate) topic_alias_max: u16,
    /// Where responses may be sent, for a client that asked for it.
    pub(crate) response_information: Option<&'a str>,
}

/// Appends a CONNACK that accepts.
pub(crate) fn connack(out: &mut Vec<u8>, version: Version, told: &Connack<'_>) {
    let present = u8::from(told.session_present);
    if version == Version::V3 {
        out.extend_from_slice(&[0x20, 2, present, 0]);
        return;
    }
    let mut properties = Vec::new();
    if let Some(seconds) = told.session_expiry {
        properties.push(0x11);
        properties.extend_from_slice(&seconds.to_be_bytes());
    }
    if told.receive_max != u16::MAX {
        short(&mut properties, 0x21, told.receive_max);
    }
    properties.push(0x27);
    properties.extend_from_slice(&told.packet_bytes_max.to_be_bytes());
    text(&mut properties, 0x12, told.assigned_client_id);
    if told.topic_alias_max != 0 {
        short(&mut properties, 0x22, told.topic_alias_max);
    }
    if let Some(seconds) = told.server_keep_alive {
        short(&mut properties, 0x13, seconds);
    }
    text(&mut properties, 0x1a, told.response_information);
    with_properties(out, 0x20, &[present, 0], &properties);
}

impl Reason {
    /// Appends a CONNACK that refuses for this reason. The string says more about it, to a person; it is
    /// written with MQTT 5 only.
    pub(crate) fn refuse_connect(self, out: &mut Vec<u8>, version: Version, reason_string: Option<&str>) {
        if version == Version::V3 {
            out.extend_from_slice(&[0x20, 2, 0, self.connect_return_code()]);
            return;
        }
        let mut properties = Vec::new();
        text(&mut properties, 0x1f, reason_string);
        with_properties(out, 0x20, &[0, self.code()], &properties);
    }
}

/// Appends a PUBACK. A refusal is written with MQTT 5 only; 3.1.1 has no way to say it.
#[inline]
pub(crate) fn puback(out: &mut Vec<u8>, id: u16, reason: Reason) {
    ack(out, 0x40, id, reason);
}

/// Appends a PUBREC; the same holds for its reason.
#[inline]
pub(crate) fn pubrec(out: &mut Vec<u8>, id: u16, reason: Reason) {
    ack(out, 0x50, id, reason);
}

/// Appends a PUBREL; the same holds for its reason.
#[inline]
pub(crate) fn pubrel(out: &mut Vec<u8>, id: u16, reason: Reason) {
    ack(out, 0x62, id, reason);
}

/// Appends a PUBCOMP; the same holds for its reason.
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
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    header(out, first, 2 + properties.len() + codes.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(properties);
    out.extend_from_slice(codes);
}

/// Appends a PINGRESP.
pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends a DISCONNECT; with 3.1.1 a server just closes. The string says more about the reason, to a
/// person. Empty properties could be left out, but rumqttc does not read it then.
pub(crate) fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason, reason_string: Option<&str>) {
    if version == Version::V5 {
        let mut properties = Vec::new();
        text(&mut properties, 0x1f, reason_string);
        with_properties(out, 0xe0, &[reason.code()], &properties);
    }
}

/// Appends a packet of fixed fields and properties.
fn with_properties(out: &mut Vec<u8>, first: u8, fields: &[u8], properties: &[u8]) {
    header(out, first, fields.len() + varint_bytes(properties.len()) + properties.len());
    out.extend_from_slice(fields);
    varint(out, properties.len());
    out.extend_from_slice(properties);
}

fn short(out: &mut Vec<u8>, property: u8, value: u16) {
    let [high, low] = value.to_be_bytes();
    out.extend_from_slice(&[property, high, low]);
}

/// Appends a property that is a string. It is ours or came in a packet, so that its length fits two
/// bytes; a longer one is left out.
fn text(out: &mut Vec<u8>, property: u8, text: Option<&str>) {
    let Some(text) = text else { return };
    if let Ok(length) = u16::try_from(text.len()) {
        short(out, property, length);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends a fixed header: the first byte and the remaining length, at most [`VARINT_MAX`].
#[inline]
pub(super) fn header(out: &mut Vec<u8>, first: u8, remaining: usize) {
    let [a, b, c, d] = septets(remaining);
    match varint_bytes(remaining) {
        1 => out.extend_from_slice(&[first, a]),
        2 => out.extend_from_slice(&[first, a | 0x80, b]),
        3 => out.extend_from_slice(&[first, a | 0x80, b | 0x80, c]),
        _ => out.extend_from_slice(&[first, a | 0x80, b | 0x80, c | 0x80, d]),
    }
}

/// Appends a variable byte integer, at most [`VARINT_MAX`].
#[inline]
pub(super) fn varint(out: &mut Vec<u8>, value: usize) {
    let [a, b, c, d] = septets(value);
    match varint_bytes(value) {
        1 => out.push(a),
        2 => out.extend_from_slice(&[a | 0x80, b]),
        3 => out.extend_from_slice(&[a | 0x80, b | 0x80, c]),
        _ => out.extend_from_slice(&[a | 0x80, b | 0x80, c | 0x80, d]),
    }
}

fn septets(value: usize) -> [u8; 4] {
    debug_assert!(value <= VARINT_MAX, "{value} does not fit a variable byte integer");
    [septet(value, 0), septet(value, 1), septet(value, 2), septet(value, 3)]
}
