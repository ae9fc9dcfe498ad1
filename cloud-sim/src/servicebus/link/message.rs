//! Messages of the broker from the sections a client sent, and back into sections at a delivery.

use bytes::Bytes;

use crate::amqp::{DecodeError, Header, Reader, Sections, Value, code};
use crate::servicebus::broker::{Delivery, Message, MessageState, Simple};

/// `message-format` of a batch: every data section is a message of its own.
pub(crate) const BATCH_FORMAT: u32 = 0x8001_3700;

/// Annotations that are the broker's to write.
const OURS: [&str; 7] = [
    "x-opt-sequence-number",
    "x-opt-enqueued-time",
    "x-opt-enqueue-sequence-number",
    "x-opt-locked-until",
    "x-opt-message-state",
    "x-opt-deadletter-source",
    SCHEDULED,
];
const SCHEDULED: &str = "x-opt-scheduled-enqueue-time";
const PARTITION_KEY: &str = "x-opt-partition-key";
const REASON: &str = "DeadLetterReason";
const DESCRIPTION: &str = "DeadLetterErrorDescription";

/// The messages in the payload of one transfer.
pub(crate) fn read_transfer(format: u32, payload: &[u8]) -> Result<Vec<Message>, DecodeError> {
    if format != BATCH_FORMAT {
        return Ok(vec![read(payload)?]);
    }
    let batch = Sections::decode(payload)?;
    batch.data()?.iter().map(|message| read(message)).collect()
}

/// One message.
pub(crate) fn read(bytes: &[u8]) -> Result<Message, DecodeError> {
    let sections = Sections::decode(bytes)?;
    let annotation = |name| crate::amqp::entry(&sections.annotations, name);
    let scheduled_ms = match annotation(SCHEDULED) {
        Some(&Value::Timestamp(ms)) => u64::try_from(ms).ok(),
        _ => None,
    };
    let partition_key = annotation(PARTITION_KEY).and_then(Value::text).map(str::to_owned);
    let kept: Vec<_> = sections
        .annotations
        .iter()
        .filter(|(name, _)| name.text().is_some_and(|name| !OURS.contains(&name)))
        .cloned()
        .collect();
    let application = sections.application.iter();
    let application =
        application.filter_map(|(name, value)| Some((name.text()?.to_owned(), simple(value)))).collect();
    Ok(Message {
        header_ttl_ms: sections.header.ttl_ms,
        durable: sections.header.durable,
        bare: Bytes::copy_from_slice(sections.bare),
        annotations: encode_annotations(&kept),
        message_id: sections.properties.message_id.as_ref().and_then(id_text),
        session_id: sections.properties.group_id,
        subject: sections.properties.subject,
        correlation_id: sections.properties.correlation_id.as_ref().and_then(id_text),
        to: sections.properties.to,
        reply_to: sections.properties.reply_to,
        application,
        scheduled_ms,
        partition_key,
    })
}

/// The message of a delivery, as the payload of a transfer.
pub(crate) fn write(delivery: &Delivery) -> Result<Vec<u8>, DecodeError> {
    let message = &delivery.message;
    let mut output = Vec::with_capacity(message.bare.len() + message.annotations.len() + 256);
    let header = Header {
        durable: message.durable,
        ttl_ms: message.header_ttl_ms,
        delivery_count: delivery.delivery_count,
    };
    header.encode(&mut output);
    Value::described(code::MESSAGE_ANNOTATIONS, Value::Map(annotations(delivery)?)).encode(&mut output);
    write_bare(delivery, &mut output)?;
    Ok(output)
}

fn annotations(delivery: &Delivery) -> Result<Vec<(Value, Value)>, DecodeError> {
    let mut entries = vec![
        (Value::symbol("x-opt-sequence-number"), Value::Long(delivery.sequence)),
        (Value::symbol("x-opt-enqueue-sequence-number"), Value::Long(delivery.sequence)),
        (Value::symbol("x-opt-enqueued-time"), timestamp(delivery.enqueued_ms)),
        (Value::symbol("x-opt-message-state"), Value::Int(state_number(delivery.state))),
    ];
    if delivery.locked_until_ms > 0 {
        entries.push((Value::symbol("x-opt-locked-until"), timestamp(delivery.locked_until_ms)));
    }
    if let Some(scheduled_ms) = delivery.message.scheduled_ms {
        entries.push((Value::symbol(SCHEDULED), timestamp(scheduled_ms)));
    }
    if let Some(dead) = &delivery.dead_letter {
        entries.push((Value::symbol("x-opt-deadletter-source"), Value::string(&dead.source)));
    }
    if !delivery.message.annotations.is_empty() {
        match Reader::new(&delivery.message.annotations).value()? {
            Value::Map(kept) => entries.extend(kept),
            _ => return Err(DecodeError::Wrong("annotations")),
        }
    }
    Ok(entries)
}

fn state_number(state: MessageState) -> i32 {
    match state {
        MessageState::Active => 0,
        MessageState::Deferred => 1,
        MessageState::Scheduled => 2,
    }
}

/// The bare message as it came; if it was dead-lettered, with the reason among its application properties.
fn write_bare(delivery: &Delivery, output: &mut Vec<u8>) -> Result<(), DecodeError> {
    let bare = &delivery.message.bare;
    let dead = delivery.dead_letter.as_ref();
    let added: Vec<_> = [
        (REASON, dead.and_then(|dead| dead.reason.as_ref())),
        (DESCRIPTION, dead.and_then(|dead| dead.description.as_ref())),
    ]
    .into_iter()
    .filter_map(|(name, text)| text.map(|text| (name, text)))
    .collect();
    if added.is_empty() {
        output.extend_from_slice(bare);
        return Ok(());
    }
    let sections = Sections::decode(bare)?;
    let mut application = sections.application;
    application.retain(|(name, _)| added.iter().all(|(added, _)| name.text() != Some(added)));
    application.extend(added.into_iter().map(|(name, text)| (Value::string(name), Value::string(text))));
    output.extend_from_slice(sections.properties_bytes);
    Value::described(code::APPLICATION_PROPERTIES, Value::Map(application)).encode(output);
    output.extend_from_slice(sections.body);
    Ok(())
}

/// A time of the broker as a value.
pub(crate) fn timestamp(unix_ms: u64) -> Value {
    Value::Timestamp(i64::try_from(unix_ms).unwrap_or(i64::MAX))
}

/// The text of an id of any type that the standard allows (part 3, section 3.2.11).
pub(crate) fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(text.clone()),
        Value::Ulong(number) => Some(number.to_string()),
        Value::Uuid(bytes) => Some(hyphenated(bytes)),
        Value::Binary(bytes) => Some(hexadecimal(bytes)),
        _ => None,
    }
}

fn hyphenated(bytes: &[u8; 16]) -> String {
    let text = hexadecimal(bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| text.get(part).unwrap_or_default());
    parts.join("-")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A lock token as an AMQP uuid, or back: .NET writes the first three fields of a GUID the other way round.
pub(crate) fn swap_guid(guid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn simple(value: &Value) -> Simple {
    match value {
        Value::String(text) | Value::Symbol(text) => Simple::Text(text.clone()),
        Value::Bool(truth) => Simple::Bool(*truth),
        Value::Double(number) => Simple::Double(*number),
        Value::Float(number) => Simple::Double(f64::from(*number)),
        other => other.integer().map_or(Simple::Other, Simple::Long),
    }
}

fn encode_annotations(entries: &[(Value, Value)]) -> Bytes {
    if entries.is_empty() {
        return Bytes::new();
    }
    let mut output = Vec::new();
    Value::Map(entries.to_vec()).encode(&mut output);
    output.into()
}
