//! Bytes to values (part 1, section 1.6).

use bytes::Bytes;

use super::value::Value;

/// How deep lists, maps, arrays and descriptors may lie in one another.
const DEPTH_MAX: usize = 32;

/// Why bytes are not AMQP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the bytes end within a value")]
    Truncated,
    #[error("{0:#04x} is not the code of a type")]
    UnknownType(u8),
    #[error("values lie too deep in one another")]
    TooDeep,
    #[error("a count does not fit the bytes")]
    Count,
    #[error("bytes are left over in a value")]
    LeftOver,
    #[error("a text is not UTF-8, or a character is none")]
    Text,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} has the wrong type or value")]
    Wrong(&'static str),
    #[error("{0:#x} is not a descriptor known here")]
    UnknownDescriptor(u64),
    #[error("a frame of {0} bytes is not possible")]
    FrameSize(usize),
    #[error("{0} is not a kind of frame")]
    FrameKind(u8),
}

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it got.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Decodes the next value.
    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        self.nested(0)
    }

    /// Steps over the next value and returns its bytes; only lengths are checked.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        let mut code = self.u8()?;
        while code == 0x00 {
            let descriptor = self.u8()?;
            self.skip_plain(descriptor)?;
            code = self.u8()?;
        }
        self.skip_plain(code)?;
        self.bytes.get(start..self.at).ok_or(DecodeError::Truncated)
    }

    /// The descriptor of the next value if it has one; the reader stands before the value afterwards.
    pub(crate) fn descriptor(&mut self) -> Result<Option<u64>, DecodeError> {
        if self.bytes.get(self.at) != Some(&0x00) {
            return Ok(None);
        }
        self.at += 1;
        let code = self.u8()?;
        let descriptor = self.plain(code, DEPTH_MAX)?;
        descriptor_code(&descriptor).map(Some)
    }

    fn skip_plain(&mut self, code: u8) -> Result<(), DecodeError> {
        let length = match code >> 4 {
            0x4 => 0,
            0x5 => 1,
            0x6 => 2,
            0x7 => 4,
            0x8 => 8,
            0x9 => 16,
            0xa | 0xc | 0xe => usize::from(self.u8()?),
            0xb | 0xd | 0xf => self.length()?,
            _ => return Err(DecodeError::UnknownType(code)),
        };
        self.take(length).map(drop)
    }

    fn nested(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let code = self.u8()?;
        if code != 0x00 {
            return self.plain(code, depth);
        }
        if depth >= DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let descriptor = self.nested(depth + 1)?;
        let value = self.nested(depth + 1)?;
        Ok(Value::Described(Box::new((descriptor, value))))
    }

    /// The value after its code.
    fn plain(&mut self, code: u8, depth: usize) -> Result<Value, DecodeError> {
        Ok(match code {
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x43 => Value::Uint(0),
            0x44 => Value::Ulong(0),
            0x45 => Value::List(Vec::new()),
            0x50 => Value::Ubyte(self.u8()?),
            0x51 => Value::Byte(i8::from_be_bytes(self.array()?)),
            0x52 => Value::Uint(self.u8()?.into()),
            0x53 => Value::Ulong(self.u8()?.into()),
            0x54 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0x55 => Value::Long(i8::from_be_bytes(self.array()?).into()),
            0x56 => match self.u8()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(DecodeError::Wrong("a boolean")),
            },
            0x60 => Value::Ushort(u16::from_be_bytes(self.array()?)),
            0x61 => Value::Short(i16::from_be_bytes(self.array()?)),
            0x70 => Value::Uint(u32::from_be_bytes(self.array()?)),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?)),
            0x72 => Value::Float(f32::from_be_bytes(self.array()?)),
            0x73 => {
                let code = u32::from_be_bytes(self.array()?);
                Value::Char(char::from_u32(code).ok_or(DecodeError::Text)?)
            }
            0x74 => Value::Decimal(Bytes::copy_from_slice(self.take(4)?)),
            0x80 => Value::Ulong(u64::from_be_bytes(self.array()?)),
            0x81 => Value::Long(i64::from_be_bytes(self.array()?)),
            0x82 => Value::Double(f64::from_be_bytes(self.array()?)),
            0x83 => Value::Timestamp(i64::from_be_bytes(self.array()?)),
            0x84 => Value::Decimal(Bytes::copy_from_slice(self.take(8)?)),
            0x94 => Value::Decimal(Bytes::copy_from_slice(self.take(16)?)),
            0x98 => Value::Uuid(self.array()?),
            _ => return self.variable(code, depth),
        })
    }

    /// Values that come with their length.
    fn variable(&mut self, code: u8, depth: usize) -> Result<Value, DecodeError> {
        let length = match code {
            0xa0 | 0xa1 | 0xa3 | 0xc0 | 0xc1 | 0xe0 => usize::from(self.u8()?),
            0xb0 | 0xb1 | 0xb3 | 0xd0 | 0xd1 | 0xf0 => self.length()?,
            _ => return Err(DecodeError::UnknownType(code)),
        };
        let bytes = self.take(length)?;
        match code {
            0xa0 | 0xb0 => Ok(Value::Binary(Bytes::copy_from_slice(bytes))),
            0xa1 | 0xb1 => text(bytes).map(Value::String),
            0xa3 | 0xb3 => text(bytes).map(Value::Symbol),
            _ if depth >= DEPTH_MAX => Err(DecodeError::TooDeep),
            _ => compound(Reader::new(bytes), code, depth + 1),
        }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_wide| DecodeError::Truncated)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_short| DecodeError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length).ok_or(DecodeError::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(DecodeError::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

/// The items of a list, map or array; `reader` has its bytes after the size.
fn compound(mut reader: Reader<'_>, code: u8, depth: usize) -> Result<Value, DecodeError> {
    let count = if code & 0x10 == 0 { usize::from(reader.u8()?) } else { reader.length()? };
    // Items of a list have a byte each at least. Those of an array may have none; more of them than this are
    // of no use to anybody.
    if count > reader.left() {
        return Err(DecodeError::Count);
    }
    let value = match code {
        0xc0 | 0xd0 => Value::List((0..count).map(|_| reader.nested(depth)).collect::<Result<_, _>>()?),
        0xc1 | 0xd1 if count % 2 == 0 => {
            let pair = |reader: &mut Reader<'_>| Ok((reader.nested(depth)?, reader.nested(depth)?));
            Value::Map((0..count / 2).map(|_| pair(&mut reader)).collect::<Result<_, _>>()?)
        }
        0xc1 | 0xd1 => return Err(DecodeError::Count),
        _ if count == 0 => {
            // The constructor of items that are not there.
            if !reader.is_empty() {
                reader.at = reader.bytes.len();
            }
            Value::Array(Vec::new())
        }
        _ => array_items(&mut reader, count, depth)?,
    };
    if reader.is_empty() { Ok(value) } else { Err(DecodeError::LeftOver) }
}

fn array_items(reader: &mut Reader<'_>, count: usize, depth: usize) -> Result<Value, DecodeError> {
    let mut code = reader.u8()?;
    let mut descriptor = None;
    if code == 0x00 {
        descriptor = Some(reader.nested(depth)?);
        code = reader.u8()?;
    }
    let item = |reader: &mut Reader<'_>| {
        let item = reader.plain(code, depth)?;
        Ok(match &descriptor {
            None => item,
            Some(descriptor) => Value::Described(Box::new((descriptor.clone(), item))),
        })
    };
    Ok(Value::Array((0..count).map(|_| item(reader)).collect::<Result<_, _>>()?))
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_bad| DecodeError::Text)
}

/// The number of a descriptor that is a number or one of the standard's names.
pub(super) fn descriptor_code(descriptor: &Value) -> Result<u64, DecodeError> {
    match descriptor {
        Value::Ulong(code) => Ok(*code),
        Value::Symbol(name) => {
            let known = NAMES.iter().find(|(known, _)| known == name);
            known.map(|&(_, code)| code).ok_or(DecodeError::Wrong("a descriptor"))
        }
        _ => Err(DecodeError::Wrong("a descriptor")),
    }
}

/// Descriptors may be given by name. Nobody does, but the standard allows it.
const NAMES: [(&str, u64); 31] = [
    ("amqp:open:list", 0x10),
    ("amqp:begin:list", 0x11),
    ("amqp:attach:list", 0x12),
    ("amqp:flow:list", 0x13),
    ("amqp:transfer:list", 0x14),
    ("amqp:disposition:list", 0x15),
    ("amqp:detach:list", 0x16),
    ("amqp:end:list", 0x17),
    ("amqp:close:list", 0x18),
    ("amqp:error:list", 0x1d),
    ("amqp:received:list", 0x23),
    ("amqp:accepted:list", 0x24),
    ("amqp:rejected:list", 0x25),
    ("amqp:released:list", 0x26),
    ("amqp:modified:list", 0x27),
    ("amqp:source:list", 0x28),
    ("amqp:target:list", 0x29),
    ("amqp:coordinator:list", 0x30),
    ("amqp:sasl-mechanisms:list", 0x40),
    ("amqp:sasl-init:list", 0x41),
    ("amqp:sasl-response:list", 0x43),
    ("amqp:sasl-outcome:list", 0x44),
    ("amqp:header:list", 0x70),
    ("amqp:delivery-annotations:map", 0x71),
    ("amqp:message-annotations:map", 0x72),
    ("amqp:properties:list", 0x73),
    ("amqp:application-properties:map", 0x74),
    ("amqp:data:binary", 0x75),
    ("amqp:amqp-sequence:list", 0x76),
    ("amqp:amqp-value:*", 0x77),
    ("amqp:footer:map", 0x78),
];
