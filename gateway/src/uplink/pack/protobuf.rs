//! An entry as a field `entries` of the message `Packed`.
//!
//! Written by hand, since the generated type would want every text copied; a test has the generated type read it.

use penstock_proto::Seq;
use penstock_proto::packed::field;

use crate::outbox::Record;

const VARINT: u32 = 0;
const SIZED: u32 = 2;

/// Appends an entry.
pub(super) fn push(out: &mut Vec<u8>, seq: Seq, record: &Record<'_>) {
    push_key(out, field::ENTRIES, SIZED);
    push_varint(out, entry_len(seq, record) as u64);
    push_number(out, field::SEQ, Some(seq.0));
    push_bytes(out, field::DEVICE, record.device.as_bytes());
    push_bytes(out, field::TOPIC, record.topic.as_bytes());
    push_number(out, field::RECEIVED_MS, Some(record.received_ms));
    push_bytes(out, field::PAYLOAD, record.payload);
    push_number(out, field::DEVICE_TIME_MS, record.properties.device_time_ms);
    for (number, text) in texts(record) {
        if let Some(text) = text {
            push_bytes(out, number, text.as_bytes());
        }
    }
    for (name, value) in record.properties.user.iter() {
        push_key(out, field::USER, SIZED);
        push_varint(out, property_len(name, value) as u64);
        push_bytes(out, field::NAME, name.as_bytes());
        push_bytes(out, field::VALUE, value.as_bytes());
    }
}

/// How many bytes [`push`] appends at most.
pub(super) fn len_max(record: &Record<'_>) -> usize {
    bytes_len(field::ENTRIES, entry_len(Seq(u64::MAX), record))
}

fn entry_len(seq: Seq, record: &Record<'_>) -> usize {
    let texts =
        texts(record).into_iter().filter_map(|(number, text)| text.map(|text| bytes_len(number, text.len())));
    let user = record.properties.user.iter();
    let user = user.map(|(name, value)| bytes_len(field::USER, property_len(name, value)));
    number_len(field::SEQ, Some(seq.0))
        + bytes_len(field::DEVICE, record.device.len())
        + bytes_len(field::TOPIC, record.topic.len())
        + number_len(field::RECEIVED_MS, Some(record.received_ms))
        + bytes_len(field::PAYLOAD, record.payload.len())
        + number_len(field::DEVICE_TIME_MS, record.properties.device_time_ms)
        + texts.sum::<usize>()
        + user.sum::<usize>()
}

fn property_len(name: &str, value: &str) -> usize {
    bytes_len(field::NAME, name.len()) + bytes_len(field::VALUE, value.len())
}

const fn texts<'a>(record: &Record<'a>) -> [(u32, Option<&'a str>); 7] {
    let properties = &record.properties;
    [
        (field::CONTENT_TYPE, properties.content_type),
        (field::TENANT, properties.tenant),
        (field::SITE, properties.site),
        (field::CLASS, properties.class),
        (field::STREAM, properties.stream),
        (field::TRACEPARENT, properties.traceparent),
        (field::TRACESTATE, properties.tracestate),
    ]
}

fn push_number(out: &mut Vec<u8>, number: u32, value: Option<u64>) {
    if let Some(value) = value {
        push_key(out, number, VARINT);
        push_varint(out, value);
    }
}

fn number_len(number: u32, value: Option<u64>) -> usize {
    value.map_or(0, |value| varint_len(key(number, VARINT)) + varint_len(value))
}

fn push_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    push_key(out, number, SIZED);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

const fn bytes_len(number: u32, len: usize) -> usize {
    varint_len(key(number, SIZED)) + varint_len(len as u64) + len
}

fn push_key(out: &mut Vec<u8>, number: u32, kind: u32) {
    push_varint(out, key(number, kind));
}

const fn key(number: u32, kind: u32) -> u64 {
    ((number << 3) | kind) as u64
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
