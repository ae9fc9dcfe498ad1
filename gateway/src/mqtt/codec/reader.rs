//! The primitive types of section 1.5: integers, strings, binary data.

use super::malformed::Malformed;

/// Largest value of a variable byte integer.
pub(super) const VARINT_MAX: usize = 268_435_455;

/// Reads fields from the front of a packet body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Ends the packet; refuses left-over bytes.
    pub(super) const fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A packet id, which is never zero.
    pub(super) fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.u16()? {
            0 => Err(Malformed::PacketId),
            id => Ok(id),
        }
    }

    /// A variable byte integer.
    pub(super) fn varint(&mut self) -> Result<usize, Malformed> {
        match varint(self.rest)? {
            Some((value, bytes)) => {
                self.bytes(bytes)?;
                Ok(value)
            }
            None => Err(Malformed::Truncated),
        }
    }

    /// Binary data: two bytes of length, then the bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// A string: UTF-8 without NUL ([MQTT-1.5.4-1], [MQTT-1.5.4-2]).
    pub(super) fn string(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(Malformed::Utf8);
        }
        std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)
    }
}

/// Seven bits of a variable byte integer, by their place from the lowest.
#[inline]
pub(super) const fn septet(value: usize, place: u32) -> u8 {
    let [low, ..] = (value >> (7 * place)).to_le_bytes();
    low & 0x7f
}

/// The size of a variable byte integer, in bytes; four is the most.
#[inline]
pub(super) const fn varint_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// Reads a variable byte integer from the front of `input`: its value and its size in bytes, or
/// nothing if `input` ends inside it. More bytes than needed are refused ([MQTT-1.5.5-1]).
pub(super) fn varint(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let padded = byte == 0 && index > 0;
            return if padded { Err(Malformed::Varint) } else { Ok(Some((value, index + 1))) };
        }
    }
    if input.len() < 4 { Ok(None) } else { Err(Malformed::Varint) }
}
