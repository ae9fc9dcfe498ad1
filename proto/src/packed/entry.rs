//! One entry of a packed record: as a JSON object, and as the message `PackedEntry`.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::borrow::Cow;

use super::{field, member};
use crate::json;
use crate::text::{parse_decimal, parse_time_ms};
use crate::{Seq, base64};

/// What an entry says that every consumer needs; its other members are for those who ask for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its position in the lane.
    pub seq: Seq,
    /// The device key.
    pub device: Cow<'a, str>,
    /// The topic it was published to.
    pub topic: Cow<'a, str>,
    /// When the gateway took it in, in Unix milliseconds.
    pub received_ms: u64,
    /// What was published.
    pub payload: Payload<'a>,
}

/// A payload, by how it is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// JSON. The same value as published; line breaks between its parts are spaces, and white space around it
    /// is gone.
    Json(&'a str),
    /// Other text, exactly as published.
    Text(Cow<'a, str>),
    /// Bytes, exactly as published.
    Binary(Cow<'a, [u8]>),
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is no JSON object.
    #[error("not a JSON object")]
    NotAnObject,
    /// It is no protobuf message.
    #[error("not a protobuf message")]
    NotAMessage,
    /// A part that is missing, given twice, or not what it should be.
    #[error("bad or missing {0}")]
    Part(&'static str),
}

#[derive(Default)]
struct Parts<'a> {
    seq: Option<u64>,
    device: Option<Cow<'a, str>>,
    topic: Option<Cow<'a, str>>,
    received_ms: Option<u64>,
    payload: Option<Payload<'a>>,
}

// === impl Payload ===

impl Payload<'_> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// Reads a JSON object; members that are not known are skipped.
    ///
    /// # Errors
    ///
    /// When it is none, or lacks a part.
    pub fn from_json(text: &'a str) -> Result<Self, EntryError> {
        let found = json::scan_whole(text).ok_or(EntryError::NotAnObject)?;
        let object = text.get(found.start..found.end).ok_or(EntryError::NotAnObject)?;
        let mut parts = Parts::default();
        for (name, value) in Members::of(object).ok_or(EntryError::NotAnObject)? {
            parts.set_member(&name, value)?;
        }
        parts.finish()
    }

    /// Reads a `PackedEntry`; fields that are not known are skipped.
    ///
    /// # Errors
    ///
    /// When it is none, or lacks a part.
    pub fn from_protobuf(message: &'a [u8]) -> Result<Self, EntryError> {
        // Protobuf leaves out what has its default value.
        let mut parts = Parts {
            received_ms: Some(0),
            device: Some("".into()),
            topic: Some("".into()),
            payload: Some(Payload::Binary(Cow::Borrowed(&[]))),
            ..Parts::default()
        };
        let mut fields = Fields(message);
        while !fields.0.is_empty() {
            let (number, value) = fields.next().ok_or(EntryError::NotAMessage)?;
            parts.set_field(number, value)?;
        }
        parts.finish()
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn set_member(&mut self, name: &str, value: &'a str) -> Result<(), EntryError> {
        let string = || json::unescape(value);
        match name {
            member::SEQ => once(&mut self.seq, parse_decimal(value), member::SEQ),
            member::DEVICE => once(&mut self.device, string(), member::DEVICE),
            member::TOPIC => once(&mut self.topic, string(), member::TOPIC),
            member::RECEIVED => {
                let time = string().and_then(|text| parse_time_ms(&text));
                once(&mut self.received_ms, time, member::RECEIVED)
            }
            member::PAYLOAD => once(&mut self.payload, Some(Payload::Json(value)), member::PAYLOAD),
            member::PAYLOAD_TEXT => {
                once(&mut self.payload, string().map(Payload::Text), member::PAYLOAD_TEXT)
            }
            member::PAYLOAD_BASE64 => {
                let bytes = string().and_then(|text| base64::decode(&text));
                once(
                    &mut self.payload,
                    bytes.map(|bytes| Payload::Binary(bytes.into())),
                    member::PAYLOAD_BASE64,
                )
            }
            _ => Ok(()),
        }
    }

    fn set_field(&mut self, number: u32, value: Value<'a>) -> Result<(), EntryError> {
        let text = |name, value| match value {
            Value::Bytes(bytes) => {
                std::str::from_utf8(bytes).map(|text| Some(text.into())).map_err(|_| EntryError::Part(name))
            }
            _ => Err(EntryError::Part(name)),
        };
        let integer = |name, value| match value {
            Value::Varint(number) => Ok(Some(number)),
            _ => Err(EntryError::Part(name)),
        };
        match number {
            field::SEQ => self.seq = integer(member::SEQ, value)?,
            field::DEVICE => self.device = text(member::DEVICE, value)?,
            field::TOPIC => self.topic = text(member::TOPIC, value)?,
            field::RECEIVED_MS => self.received_ms = integer(member::RECEIVED, value)?,
            field::PAYLOAD => match value {
                Value::Bytes(bytes) => self.payload = Some(Payload::Binary(bytes.into())),
                _ => return Err(EntryError::Part(member::PAYLOAD)),
            },
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Entry<'a>, EntryError> {
        Ok(Entry {
            seq: self.seq.filter(|seq| *seq > 0).map(Seq).ok_or(EntryError::Part(member::SEQ))?,
            device: self.device.ok_or(EntryError::Part(member::DEVICE))?,
            topic: self.topic.ok_or(EntryError::Part(member::TOPIC))?,
            received_ms: self.received_ms.ok_or(EntryError::Part(member::RECEIVED))?,
            payload: self.payload.ok_or(EntryError::Part(member::PAYLOAD))?,
        })
    }
}

/// Fills a place that must be empty.
fn once<T>(place: &mut Option<T>, value: Option<T>, name: &'static str) -> Result<(), EntryError> {
    match (&place, value) {
        (None, Some(value)) => *place = Some(value),
        _ => return Err(EntryError::Part(name)),
    }
    Ok(())
}

/// The members of an object that [`json::scan`] found sound.
struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    fn of(object: &'a str) -> Option<Self> {
        object.strip_prefix('{')?.strip_suffix('}').map(|rest| Self { rest })
    }

    /// Takes the next value and returns it with what follows.
    fn value(text: &'a str) -> Option<(&'a str, &'a str)> {
        let found = json::scan(text)?;
        Some((text.get(found.start..found.end)?, text.get(found.end..)?))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = Self::value(self.rest)?;
        let (value, rest) = Self::value(rest.trim_start().strip_prefix(':')?)?;
        let rest = rest.trim_start();
        self.rest = rest.strip_prefix(',').unwrap_or(rest);
        Some((json::unescape(name)?, value))
    }
}

/// The fields of a protobuf message.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// A field's value, as far as its encoding tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field known here has.
    Fixed,
}

impl<'a> Fields<'a> {
    pub(super) fn next(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(usize::try_from(len).ok()?)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((number, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
