//! Sections of a message (part 3, section 3.2).

use super::decode::{DecodeError, Reader};
use super::value::{Value, entry};

/// Descriptors of sections.
pub(crate) mod code {
    pub(crate) const HEADER: u64 = 0x70;
    pub(crate) const MESSAGE_ANNOTATIONS: u64 = 0x72;
    pub(crate) const PROPERTIES: u64 = 0x73;
    pub(crate) const APPLICATION_PROPERTIES: u64 = 0x74;
    pub(crate) const DATA: u64 = 0x75;
    pub(crate) const SEQUENCE: u64 = 0x76;
    pub(crate) const VALUE: u64 = 0x77;
    pub(crate) const FOOTER: u64 = 0x78;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) durable: bool,
    pub(crate) ttl_ms: Option<u32>,
    pub(crate) delivery_count: u32,
}

impl Header {
    pub(crate) fn encode(self, output: &mut Vec<u8>) {
        let fields = vec![
            Value::Bool(self.durable),
            Value::Null,
            self.ttl_ms.map_or(Value::Null, Value::Uint),
            Value::Null,
            Value::Uint(self.delivery_count),
        ];
        Value::composite(code::HEADER, fields).encode(output);
    }
}

/// The fields of the properties section that somebody here asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Properties {
    pub(crate) message_id: Id,
    pub(crate) to: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) correlation_id: Id,
    pub(crate) group_id: Option<String>,
}

/// An id: null, ulong, uuid, binary or string.
pub(crate) type Id = Option<Value>;

/// A message taken apart. What is not decoded stays where it was.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sections<'a> {
    pub(crate) header: Header,
    pub(crate) annotations: Vec<(Value, Value)>,
    pub(crate) properties: Properties,
    /// The bytes of the properties section.
    pub(crate) properties_bytes: &'a [u8],
    pub(crate) application: Vec<(Value, Value)>,
    /// The bytes of the section of application properties.
    pub(crate) application_bytes: &'a [u8],
    /// The body and the footer.
    pub(crate) body: &'a [u8],
    /// Properties, application properties, body and footer: what nobody on the way may change.
    pub(crate) bare: &'a [u8],
}

impl<'a> Sections<'a> {
    /// Takes a message apart and checks that the sections come in their order, with lengths that fit.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut sections = Self::default();
        let mut reader = Reader::new(bytes);
        let (mut last, mut bare, mut body) = (0, None, None);
        while !reader.is_empty() {
            let start = reader.position();
            let mut within = reader;
            let code = within.descriptor()?.ok_or(DecodeError::Wrong("a section"))?;
            let repeats = matches!(code, code::DATA | code::SEQUENCE) && code == last;
            if !(code::HEADER..=code::FOOTER).contains(&code) || (code <= last && !repeats) {
                return Err(DecodeError::Wrong("the order of sections"));
            }
            last = code;
            let section = reader.skip()?;
            if code >= code::PROPERTIES {
                bare.get_or_insert(start);
            }
            if code >= code::DATA {
                body.get_or_insert(start);
            }
            match code {
                code::HEADER => sections.header = read_header(within.value()?)?,
                code::MESSAGE_ANNOTATIONS => sections.annotations = read_map(within.value()?)?,
                code::PROPERTIES => {
                    sections.properties = read_properties(within.value()?)?;
                    sections.properties_bytes = section;
                }
                code::APPLICATION_PROPERTIES => {
                    sections.application = read_map(within.value()?)?;
                    sections.application_bytes = section;
                }
                _ => {}
            }
        }
        sections.bare = bare.and_then(|at| bytes.get(at..)).unwrap_or_default();
        sections.body = body.and_then(|at| bytes.get(at..)).unwrap_or_default();
        Ok(sections)
    }

    pub(crate) fn application_property(&self, name: &str) -> Option<&Value> {
        entry(&self.application, name)
    }

    /// The value of an amqp-value body.
    pub(crate) fn body_value(&self) -> Result<Value, DecodeError> {
        let mut reader = Reader::new(self.body);
        match reader.descriptor()? {
            Some(code::VALUE) => reader.value(),
            _ => Err(DecodeError::Wrong("the body")),
        }
    }

    /// The data sections of the body, one after the other.
    pub(crate) fn data(&self) -> Result<Vec<bytes::Bytes>, DecodeError> {
        let mut reader = Reader::new(self.body);
        let mut data = Vec::new();
        while !reader.is_empty() {
            match reader.descriptor()? {
                Some(code::DATA) => match reader.value()? {
                    Value::Binary(bytes) => data.push(bytes),
                    _ => return Err(DecodeError::Wrong("a data section")),
                },
                Some(code::FOOTER) => drop(reader.value()?),
                _ => return Err(DecodeError::Wrong("the body")),
            }
        }
        Ok(data)
    }
}

fn read_header(value: Value) -> Result<Header, DecodeError> {
    let Value::List(fields) = value else { return Err(DecodeError::Wrong("header")) };
    let field = |at: usize| fields.get(at).filter(|value| **value != Value::Null);
    let number =
        |at: usize, name| field(at).map(|value| value.uint().ok_or(DecodeError::Wrong(name))).transpose();
    Ok(Header {
        durable: field(0).and_then(Value::truth).unwrap_or(false),
        ttl_ms: number(2, "ttl")?,
        delivery_count: number(4, "delivery-count")?.unwrap_or(0),
    })
}

fn read_properties(value: Value) -> Result<Properties, DecodeError> {
    let Value::List(fields) = value else { return Err(DecodeError::Wrong("properties")) };
    let field = |at: usize| fields.get(at).filter(|value| **value != Value::Null);
    let text = |at: usize| field(at).and_then(Value::text).map(str::to_owned);
    Ok(Properties {
        message_id: field(0).cloned(),
        to: text(2),
        subject: text(3),
        reply_to: text(4),
        correlation_id: field(5).cloned(),
        group_id: text(10),
    })
}

fn read_map(value: Value) -> Result<Vec<(Value, Value)>, DecodeError> {
    match value {
        Value::Map(entries) => Ok(entries),
        _ => Err(DecodeError::Wrong("a section")),
    }
}
