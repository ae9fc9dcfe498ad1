//! Messages as Service Bus delivers them, out of the types of the AMQP library.

use fe2o3_amqp::link::delivery::DeliveryInfo;
use fe2o3_amqp_types::messaging::{self, Body as AmqpBody, Message, MessageId};
use fe2o3_amqp_types::primitives::{SimpleValue, Symbol, Value as AmqpValue};

use crate::commands::message::{Body, LockToken, Received, Value};

/// What messages have that are not locked.
pub(super) const NO_LOCK: LockToken = LockToken([0; 16]);
const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
const ENQUEUED_TIME: &str = "x-opt-enqueued-time";

/// The lock behind a delivery tag. A tag of any other length than 16 is not from Service Bus and has no lock.
pub(super) fn lock(tag: &[u8]) -> LockToken {
    <[u8; 16]>::try_from(tag).map_or(NO_LOCK, LockToken)
}

/// A message as it was delivered under `lock`.
pub(super) fn received(lock: LockToken, message: Message<AmqpBody<AmqpValue>>) -> Received {
    let header = message.header.unwrap_or_default();
    let properties = message.properties.unwrap_or_default();
    let annotations = message.message_annotations.map(|annotations| annotations.0).unwrap_or_default();
    let annotation = |name: &str| annotations.get(&messaging::annotations::OwnedKey::from(name));
    let enqueued_ms = match annotation(ENQUEUED_TIME) {
        Some(AmqpValue::Timestamp(time)) => unix_ms(time.milliseconds()),
        _ => 0,
    };
    let life_ms = match (&properties.absolute_expiry_time, &properties.creation_time) {
        (Some(expiry), Some(creation)) => {
            Some(unix_ms(expiry.milliseconds().saturating_sub(creation.milliseconds())))
        }
        _ => header.ttl.map(u64::from),
    };
    let application = message.application_properties.map(|properties| properties.0).unwrap_or_default();
    Received {
        lock,
        sequence: annotation(SEQUENCE_NUMBER).and_then(integer).unwrap_or_default(),
        enqueued_ms,
        delivery_count: header.delivery_count,
        message_id: properties.message_id.map(id_text),
        session_id: properties.group_id,
        subject: properties.subject,
        content_type: properties.content_type.map(Symbol::into_inner),
        correlation_id: properties.correlation_id.map(id_text),
        reply_to: properties.reply_to,
        reply_to_session_id: properties.reply_to_group_id,
        expires_ms: life_ms.map(|life| enqueued_ms.saturating_add(life)),
        properties: application.into_iter().map(|(name, value)| (name, Value::from(value))).collect(),
        body: Body::from(message.body),
    }
}

/// A message of which nothing but its delivery can be told.
pub(super) fn undecodable(delivery: &DeliveryInfo) -> Received {
    unknown(lock(delivery.delivery_tag()))
}

/// A message of which nothing but its lock can be told.
pub(super) fn unknown(lock: LockToken) -> Received {
    let message = Message::builder().body(AmqpBody::Empty).build();
    Received { body: Body::Other(Body::UNDECODABLE), ..received(lock, message) }
}

// === impl Value ===

impl From<SimpleValue> for Value {
    fn from(value: SimpleValue) -> Self {
        match value {
            SimpleValue::Bool(value) => Self::Bool(value),
            SimpleValue::Ubyte(value) => Self::Integer(value.into()),
            SimpleValue::Ushort(value) => Self::Integer(value.into()),
            SimpleValue::Uint(value) => Self::Integer(value.into()),
            SimpleValue::Ulong(value) => {
                i64::try_from(value).map_or(Self::Other("a large integer"), Self::Integer)
            }
            SimpleValue::Byte(value) => Self::Integer(value.into()),
            SimpleValue::Short(value) => Self::Integer(value.into()),
            SimpleValue::Int(value) => Self::Integer(value.into()),
            SimpleValue::Long(value) => Self::Integer(value),
            SimpleValue::Float(value) => Self::Double(value.into_inner().into()),
            SimpleValue::Double(value) => Self::Double(value.into_inner()),
            SimpleValue::Char(value) => Self::Text(value.into()),
            SimpleValue::Timestamp(value) => Self::Time(unix_ms(value.milliseconds())),
            SimpleValue::Uuid(value) => Self::Text(hyphenated(value.into_inner())),
            SimpleValue::Binary(value) => Self::Binary(value.into_vec()),
            SimpleValue::String(value) => Self::Text(value),
            SimpleValue::Symbol(value) => Self::Text(value.into_inner()),
            SimpleValue::Null => Self::Other("null"),
            SimpleValue::Decimal32(_) | SimpleValue::Decimal64(_) | SimpleValue::Decimal128(_) => {
                Self::Other("a decimal number")
            }
            SimpleValue::Described(_) => Self::Other("a described value"),
        }
    }
}

// === impl Body ===

impl From<AmqpBody<AmqpValue>> for Body {
    fn from(body: AmqpBody<AmqpValue>) -> Self {
        match body {
            AmqpBody::Data(sections) => {
                Self::Data(sections.into_iter().flat_map(|section| section.0.into_vec()).collect())
            }
            AmqpBody::Sequence(_) => Self::Other("a sequence"),
            AmqpBody::Empty => Self::Other("no body"),
            AmqpBody::Value(messaging::AmqpValue(value)) => match value {
                AmqpValue::String(text) => Self::Text(text),
                AmqpValue::Binary(octets) => Self::Data(octets.into_vec()),
                AmqpValue::Null => Self::Other("null"),
                AmqpValue::Map(_) => Self::Other("a map"),
                AmqpValue::List(_) | AmqpValue::Array(_) => Self::Other("a list"),
                _ => Self::Other("a value that is neither text nor octets"),
            },
        }
    }
}

/// A whole number of any width that fits.
pub(super) fn integer(value: &AmqpValue) -> Option<i64> {
    match *value {
        AmqpValue::Ubyte(value) => Some(value.into()),
        AmqpValue::Ushort(value) => Some(value.into()),
        AmqpValue::Uint(value) => Some(value.into()),
        AmqpValue::Ulong(value) => i64::try_from(value).ok(),
        AmqpValue::Byte(value) => Some(value.into()),
        AmqpValue::Short(value) => Some(value.into()),
        AmqpValue::Int(value) => Some(value.into()),
        AmqpValue::Long(value) => Some(value),
        _ => None,
    }
}

/// Milliseconds since 1970, 0 for anything before.
pub(super) fn unix_ms(milliseconds: i64) -> u64 {
    u64::try_from(milliseconds).unwrap_or_default()
}

fn id_text(id: MessageId) -> String {
    match id {
        MessageId::String(text) => text,
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(uuid) => hyphenated(uuid.into_inner()),
        MessageId::Binary(octets) => match String::from_utf8(octets.into_vec()) {
            Ok(text) => text,
            Err(error) => error.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect(),
        },
    }
}

fn hyphenated(uuid: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (place, octet) in uuid.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{octet:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::messaging::{
        AmqpSequence, ApplicationProperties, Batch, Data, Header, MessageAnnotations, Properties,
    };
    use fe2o3_amqp_types::primitives::{Binary, Timestamp, Uuid};

    use super::*;

    #[test]
    fn a_lock_is_a_tag_of_sixteen_octets() {
        let tag: [u8; 16] = std::array::from_fn(|place| u8::try_from(place).unwrap());
        assert_eq!(lock(&tag), LockToken(tag));
        assert_eq!(lock(b"short"), NO_LOCK);
    }

    #[test]
    fn everything_of_a_message_arrives() {
        let mut properties = Properties::new();
        properties.message_id = Some(MessageId::String("m-1".into()));
        properties.correlation_id = Some(MessageId::Ulong(7));
        properties.group_id = Some("device-1".into());
        properties.reply_to_group_id = Some("answers".into());
        properties.reply_to = Some("replies".into());
        properties.subject = Some("reboot".into());
        properties.content_type = Some(Symbol::from("application/json"));
        let message = Message::builder()
            .header(Header { ttl: Some(60_000), delivery_count: 3, ..Header::default() })
            .message_annotations(
                MessageAnnotations::builder()
                    .insert(SEQUENCE_NUMBER, AmqpValue::Long(42))
                    .insert(ENQUEUED_TIME, AmqpValue::Timestamp(Timestamp::from_milliseconds(1_000)))
                    .build(),
            )
            .properties(properties)
            .application_properties(
                ApplicationProperties::builder()
                    .insert("when", SimpleValue::Timestamp(Timestamp::from_milliseconds(5)))
                    .insert("who", SimpleValue::Uuid(Uuid::from([0xab; 16])))
                    .insert("many", SimpleValue::Ulong(u64::MAX))
                    .build(),
            )
            .body(AmqpBody::Data(Batch::new(vec![
                Data(Binary::from(b"ab".to_vec())),
                Data(Binary::from(b"c".to_vec())),
            ])))
            .build();
        let received = received(NO_LOCK, message);
        let expected = Received {
            lock: NO_LOCK,
            sequence: 42,
            enqueued_ms: 1_000,
            delivery_count: 3,
            message_id: Some("m-1".into()),
            session_id: Some("device-1".into()),
            subject: Some("reboot".into()),
            content_type: Some("application/json".into()),
            correlation_id: Some("7".into()),
            reply_to: Some("replies".into()),
            reply_to_session_id: Some("answers".into()),
            expires_ms: Some(61_000),
            properties: vec![
                ("when".into(), Value::Time(5)),
                ("who".into(), Value::Text("abababab-abab-abab-abab-abababababab".into())),
                ("many".into(), Value::Other("a large integer")),
            ],
            body: Body::Data(b"abc".to_vec()),
        };
        assert_eq!(received, expected);
    }

    #[test]
    fn a_long_life_is_told_by_two_moments() {
        let mut properties = Properties::new();
        properties.creation_time = Some(Timestamp::from_milliseconds(1_000));
        properties.absolute_expiry_time = Some(Timestamp::from_milliseconds(9_000_001_000));
        let message = Message::builder()
            .header(Header { ttl: Some(u32::MAX), ..Header::default() })
            .properties(properties)
            .body(AmqpBody::Empty)
            .build();
        assert_eq!(received(NO_LOCK, message).expires_ms, Some(9_000_000_000));
    }

    #[test]
    fn bodies_are_octets_text_or_named() {
        let check = |body: AmqpBody<AmqpValue>, expected: Body| assert_eq!(Body::from(body), expected);
        let value = |value| AmqpBody::Value(messaging::AmqpValue(value));
        check(value(AmqpValue::String("hello".into())), Body::Text("hello".into()));
        check(value(AmqpValue::Binary(Binary::from(vec![1, 2]))), Body::Data(vec![1, 2]));
        check(value(AmqpValue::Null), Body::Other("null"));
        check(AmqpBody::Empty, Body::Other("no body"));
        check(AmqpBody::Data(Batch::new(vec![Data(Binary::from(vec![]))])), Body::Data(vec![]));
        check(value(AmqpValue::Bool(true)), Body::Other("a value that is neither text nor octets"));
        check(AmqpBody::Sequence(Batch::new(vec![AmqpSequence(vec![])])), Body::Other("a sequence"));
    }
}
