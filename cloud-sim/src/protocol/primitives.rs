//! Kafka's primitive types: big-endian integers, length-prefixed strings, counted arrays, tagged fields.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::ops::Range;

use bytes::BufMut;

/// Why a request could not be read. The connection that sent it is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("request ends in the middle of a field")]
    Truncated,
    #[error("request has bytes after its last field")]
    Trailing,
    #[error("length {0} is not possible here")]
    Length(i64),
    #[error("string is not UTF-8")]
    Text,
    #[error("string must not be null")]
    Null,
    #[error("request type {0} is not served")]
    UnknownApi(i16),
    #[error("{api} version {version} was not offered")]
    UnofferedVersion { api: &'static str, version: i16 },
}

/// Reads primitives from a borrowed frame.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Starts reading at `position` of `bytes`.
    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position: position.min(bytes.len()) }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.position.checked_add(count).ok_or(DecodeError::Truncated)?;
        let taken = self.bytes.get(self.position..end).ok_or(DecodeError::Truncated)?;
        self.position = end;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_short| DecodeError::Truncated)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let length = self.i16()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_negative| DecodeError::Length(length.into()))?;
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_invalid| DecodeError::Text)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        self.nullable_string()?.ok_or(DecodeError::Null)
    }

    /// Skips a byte field and returns where it lies in the frame, or `None` for null.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<Range<usize>>, DecodeError> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_negative| DecodeError::Length(length.into()))?;
        let start = self.position;
        self.take(length)?;
        Ok(Some(start..self.position))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let range = self.nullable_bytes()?.ok_or(DecodeError::Null)?;
        self.bytes.get(range).ok_or(DecodeError::Truncated)
    }

    /// The count of an array whose elements take at least `element_bytes_min` each, so that a count cannot
    /// promise more than the frame holds. `None` for a null array.
    pub(crate) fn nullable_count(&mut self, element_bytes_min: usize) -> Result<Option<usize>, DecodeError> {
        let count = self.i32()?;
        if count == -1 {
            return Ok(None);
        }
        let impossible = DecodeError::Length(count.into());
        match usize::try_from(count) {
            Ok(count) if count <= self.remaining() / element_bytes_min.max(1) => Ok(Some(count)),
            _ => Err(impossible),
        }
    }

    pub(crate) fn count(&mut self, element_bytes_min: usize) -> Result<usize, DecodeError> {
        self.nullable_count(element_bytes_min)?.ok_or(DecodeError::Null)
    }

    fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_large| DecodeError::Length(i64::MAX));
            }
        }
        Err(DecodeError::Length(i64::MAX))
    }

    /// Skips the tagged fields that end a flexible structure.
    pub(crate) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let size = self.unsigned_varint()?;
            let size = usize::try_from(size).map_err(|_large| DecodeError::Length(size.into()))?;
            self.take(size)?;
        }
        Ok(())
    }

    /// Every byte was read.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.remaining() == 0 { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// A length or count for the wire. Everything this broker writes is bounded far below 2 GiB.
pub(crate) fn length_i32(length: usize) -> i32 {
    i32::try_from(length).expect("answers are bounded far below 2 GiB")
}

/// Writes a string with its 16-bit length. Texts come from validated names or from requests, where they
/// had the same limit; anything longer is cut at a character.
pub(crate) fn put_string(output: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(i16::MAX.unsigned_abs()));
    let text = text.get(..end).unwrap_or_default();
    output.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    output.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{DecodeError, Reader, put_string};

    #[test]
    fn a_count_larger_than_the_frame_is_refused() {
        let bytes = [0x7f, 0xff, 0xff, 0xff, 0, 0];
        assert_eq!(Reader::new(&bytes).count(1), Err(DecodeError::Length(0x7fff_ffff)));
    }

    #[test]
    fn negative_lengths_other_than_null_are_refused() {
        assert_eq!(Reader::new(&[0xff, 0xfe]).nullable_string(), Err(DecodeError::Length(-2)));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xfe]).nullable_bytes(), Err(DecodeError::Length(-2)));
        assert_eq!(Reader::new(&[0xff, 0xff]).nullable_string(), Ok(None));
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert!(Reader::new(&[0xff; 16]).skip_tags().is_err());
    }

    #[test]
    fn tagged_fields_are_skipped() {
        let mut reader = Reader::new(&[2, 0, 1, 9, 5, 2, 8, 8, 42]);
        reader.skip_tags().unwrap();
        assert_eq!(reader.u8(), Ok(42));
        assert_eq!(reader.finish(), Ok(()));
    }

    proptest! {
        #[test]
        fn strings_come_back(text in ".{0,200}") {
            let mut bytes = Vec::new();
            put_string(&mut bytes, &text);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.string(), Ok(text.as_str()));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(Reader::new(&bytes).nullable_string());
            drop(Reader::new(&bytes).nullable_bytes());
            drop(Reader::new(&bytes).nullable_count(3));
            drop(Reader::new(&bytes).skip_tags());
        }
    }
}
