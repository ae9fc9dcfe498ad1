//! Values to bytes (part 1, section 1.6). Numbers and texts in their short forms, compounds in their long ones.

use bytes::BufMut;

use super::value::Value;

impl Value {
    /// Appends the encoding.
    pub(crate) fn encode(&self, output: &mut Vec<u8>) {
        match self {
            Self::Null => output.put_u8(0x40),
            Self::Bool(true) => output.put_u8(0x41),
            Self::Bool(false) => output.put_u8(0x42),
            Self::Uint(0) => output.put_u8(0x43),
            Self::Ulong(0) => output.put_u8(0x44),
            Self::Uint(number) => match u8::try_from(*number) {
                Ok(short) => output.put_slice(&[0x52, short]),
                Err(_wide) => self.wide(output),
            },
            Self::Ulong(number) => match u8::try_from(*number) {
                Ok(short) => output.put_slice(&[0x53, short]),
                Err(_wide) => self.wide(output),
            },
            Self::Int(number) => match i8::try_from(*number) {
                Ok(short) => {
                    output.put_u8(0x54);
                    output.put_i8(short);
                }
                Err(_wide) => self.wide(output),
            },
            Self::Long(number) => match i8::try_from(*number) {
                Ok(short) => {
                    output.put_u8(0x55);
                    output.put_i8(short);
                }
                Err(_wide) => self.wide(output),
            },
            Self::Binary(bytes) => short_bytes(output, 0xa0, bytes),
            Self::String(text) => short_bytes(output, 0xa1, text.as_bytes()),
            Self::Symbol(text) => short_bytes(output, 0xa3, text.as_bytes()),
            Self::List(items) if items.is_empty() => output.put_u8(0x45),
            Self::Described(described) => {
                output.put_u8(0x00);
                described.0.encode(output);
                described.1.encode(output);
            }
            _ => self.wide(output),
        }
    }

    /// The code of the widest form and the value in it.
    fn wide(&self, output: &mut Vec<u8>) {
        output.put_u8(self.wide_code());
        self.wide_body(output);
    }

    /// The form that items of an array have.
    fn wide_code(&self) -> u8 {
        match self {
            Self::Null => 0x40,
            Self::Bool(_) => 0x56,
            Self::Ubyte(_) => 0x50,
            Self::Ushort(_) => 0x60,
            Self::Uint(_) => 0x70,
            Self::Ulong(_) => 0x80,
            Self::Byte(_) => 0x51,
            Self::Short(_) => 0x61,
            Self::Int(_) => 0x71,
            Self::Long(_) => 0x81,
            Self::Float(_) => 0x72,
            Self::Double(_) => 0x82,
            Self::Decimal(bytes) => match bytes.len() {
                4 => 0x74,
                8 => 0x84,
                _ => 0x94,
            },
            Self::Char(_) => 0x73,
            Self::Timestamp(_) => 0x83,
            Self::Uuid(_) => 0x98,
            Self::Binary(_) => 0xb0,
            Self::String(_) => 0xb1,
            Self::Symbol(_) => 0xb3,
            Self::List(_) => 0xd0,
            Self::Map(_) => 0xd1,
            Self::Array(_) => 0xf0,
            Self::Described(described) => described.1.wide_code(),
        }
    }

    /// The value without its code, in the form of [`Self::wide_code`].
    fn wide_body(&self, output: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(truth) => output.put_u8(u8::from(*truth)),
            Self::Ubyte(number) => output.put_u8(*number),
            Self::Ushort(number) => output.put_u16(*number),
            Self::Uint(number) => output.put_u32(*number),
            Self::Ulong(number) => output.put_u64(*number),
            Self::Byte(number) => output.put_i8(*number),
            Self::Short(number) => output.put_i16(*number),
            Self::Int(number) => output.put_i32(*number),
            Self::Long(number) | Self::Timestamp(number) => output.put_i64(*number),
            Self::Float(number) => output.put_f32(*number),
            Self::Double(number) => output.put_f64(*number),
            Self::Decimal(bytes) => output.put_slice(bytes),
            Self::Char(character) => output.put_u32(u32::from(*character)),
            Self::Uuid(bytes) => output.put_slice(bytes),
            Self::Binary(bytes) => long_bytes(output, bytes),
            Self::String(text) | Self::Symbol(text) => long_bytes(output, text.as_bytes()),
            Self::List(items) => compound(output, items.len(), |output| {
                items.iter().for_each(|item| item.encode(output));
            }),
            Self::Map(entries) => compound(output, entries.len() * 2, |output| {
                for (key, value) in entries {
                    key.encode(output);
                    value.encode(output);
                }
            }),
            Self::Array(items) => compound(output, items.len(), |output| array_items(output, items)),
            Self::Described(described) => described.1.wide_body(output),
        }
    }
}

/// The constructor that all items share, then each in its wide form.
fn array_items(output: &mut Vec<u8>, items: &[Value]) {
    let Some(first) = items.first() else {
        output.put_u8(0x40);
        return;
    };
    if let Value::Described(described) = first {
        output.put_u8(0x00);
        described.0.encode(output);
    }
    output.put_u8(first.wide_code());
    for item in items {
        item.wide_body(output);
    }
}

fn short_bytes(output: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => {
            output.put_slice(&[code, length]);
            output.put_slice(bytes);
        }
        Err(_wide) => {
            output.put_u8(code | 0x10);
            long_bytes(output, bytes);
        }
    }
}

/// Lengths are those of things in memory that came in frames or fit into them: far below four gigabytes.
fn long_bytes(output: &mut Vec<u8>, bytes: &[u8]) {
    output.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    output.put_slice(bytes);
}

/// Size, count and what `items` appends.
fn compound(output: &mut Vec<u8>, count: usize, items: impl FnOnce(&mut Vec<u8>)) {
    let start = output.len();
    output.put_u32(0);
    output.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    items(output);
    let size = u32::try_from(output.len() - start - 4).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = output.get_mut(start..start + 4) {
        place.copy_from_slice(&size);
    }
}
