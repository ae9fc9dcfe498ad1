//! Fields of a protobuf message, borrowed from its bytes: what prost takes, and nothing else.

/// How deep groups may nest that are passed over.
const GROUP_DEPTH_MAX: u32 = 16;
/// Longest varint: ten bytes of seven bits hold 64 bits.
const VARINT_BYTES_MAX: u32 = 10;

/// The fields of a message, in the order of the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

/// The value of a field, by how it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    /// Passed over.
    Group,
}

/// The bytes are no message of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field: its number and value; `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.key()?;
        self.value(number, kind, GROUP_DEPTH_MAX).map(|value| Some((number, value)))
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u32), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, key & 7)) }
    }

    #[inline]
    fn value(&mut self, number: u32, kind: u32, depth: u32) -> Result<Value<'a>, Malformed> {
        match kind {
            0 => self.varint().map(Value::Varint),
            1 => self.array().map(|bytes| Value::Fixed64(u64::from_le_bytes(bytes))),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
                self.0 = rest;
                Ok(Value::Bytes(bytes))
            }
            3 => self.group(number, depth),
            5 => self.array().map(|bytes| Value::Fixed32(u32::from_le_bytes(bytes))),
            _ => Err(Malformed),
        }
    }

    fn group(&mut self, number: u32, depth: u32) -> Result<Value<'a>, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        loop {
            match self.key()? {
                (end, 4) if end == number => return Ok(Value::Group),
                (inner, kind) => self.value(inner, kind, depth)?,
            };
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        // Keys, lengths and small numbers are one byte.
        if let Some((byte @ ..0x80, rest)) = self.0.split_first() {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for place in 0..VARINT_BYTES_MAX {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            // The tenth byte holds one bit; more would overflow.
            if place + 1 == VARINT_BYTES_MAX && *byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) const fn varint(self) -> Result<u64, Malformed> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(Malformed) }
    }

    /// A `uint32`: what is above its 32 bits is dropped, as protobuf has it.
    #[inline]
    pub(super) fn uint32(self) -> Result<u32, Malformed> {
        let value = self.varint()?;
        u32::try_from(value & u64::from(u32::MAX)).map_err(|_| Malformed)
    }

    #[inline]
    pub(super) fn boolean(self) -> Result<bool, Malformed> {
        self.varint().map(|value| value != 0)
    }

    #[inline]
    pub(super) const fn double(self) -> Result<f64, Malformed> {
        if let Self::Fixed64(bits) = self { Ok(f64::from_bits(bits)) } else { Err(Malformed) }
    }

    #[inline]
    pub(super) const fn float(self) -> Result<f32, Malformed> {
        if let Self::Fixed32(bits) = self { Ok(f32::from_bits(bits)) } else { Err(Malformed) }
    }

    #[inline]
    pub(super) const fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    #[inline]
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<&[(u32, Value<'_>)], Malformed>) {
        let mut fields = Fields::new(bytes);
        let mut found = Vec::new();
        let read = loop {
            match fields.next() {
                Ok(Some(field)) => found.push(field),
                Ok(None) => break Ok(found.as_slice()),
                Err(malformed) => break Err(malformed),
            }
        };
        assert_eq!(read, expected, "{bytes:02x?}");
    }

    #[test]
    fn fields_come_in_the_order_of_the_bytes() {
        check(b"", Ok(&[]));
        check(b"\x08\x96\x01\x08\x01", Ok(&[(1, Value::Varint(150)), (1, Value::Varint(1))]));
        check(
            b"\x11\0\0\0\0\0\0\x01\0\x1d\x02\0\0\0",
            Ok(&[(2, Value::Fixed64(1 << 48)), (3, Value::Fixed32(2))]),
        );
        check(b"\x22\x02ab\x22\0", Ok(&[(4, Value::Bytes(b"ab")), (4, Value::Bytes(b""))]));
        check(b"\xf8\xff\xff\xff\x0f\x00", Ok(&[((1 << 29) - 1, Value::Varint(0))]));
        check(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Ok(&[(1, Value::Varint(u64::MAX))]));
    }

    #[test]
    fn groups_are_passed_over() {
        check(b"\x0b\x0c\x10\x01", Ok(&[(1, Value::Group), (2, Value::Varint(1))]));
        check(b"\x0b\x10\x05\x13\x14\x0c", Ok(&[(1, Value::Group)]));
        let deep = |depth: usize| [vec![0x0b; depth], vec![0x0c; depth]].concat();
        check(&deep(16), Ok(&[(1, Value::Group)]));
        check(&deep(17), Err(Malformed));
        check(&deep(100_000), Err(Malformed));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let wrong: [&[u8]; 12] = [
            b"\x08",
            b"\x08\x80",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x00\x01",
            b"\x80\x80\x80\x80\x10\x01",
            b"\x0a\x05ab",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0d\0\0\0",
            b"\x0e",
            b"\x0c",
            b"\x0b\x14",
        ];
        wrong.iter().for_each(|bytes| check(bytes, Err(Malformed)));
    }
}
