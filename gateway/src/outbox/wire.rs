//! Numbers and byte strings as the outbox's formats write them, and a reader that never panics.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

/// Longest varint: ten bytes of seven bits hold 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// Appends `value` in groups of seven bits, lowest first; the high bit says that more follow.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// How many bytes [`put_varint`] appends.
pub(super) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends the length of `bytes` as a varint, then the bytes.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// How many bytes [`put_sized`] appends for `len` bytes.
pub(super) const fn sized_len(len: usize) -> usize {
    varint_len(len as u64) + len
}

/// Reads from the front of a byte string; `None` means that it ended too early.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for place in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds one bit; more would overflow and is junk.
            if place + 1 == VARINT_BYTES_MAX && bits > 1 {
                return None;
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A varint length, then that many bytes.
    pub(crate) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.take(usize::try_from(len).ok()?)
    }

    /// As [`Self::sized`], as text.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, shift in 0_u32..64) {
            for value in [value, value >> shift, 0, 1, 127, 128, u64::MAX] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                prop_assert_eq!(bytes.len(), varint_len(value));
                let mut input = Input::new(&bytes);
                prop_assert_eq!(input.varint(), Some(value));
                prop_assert!(input.is_empty());
            }
        }

        #[test]
        fn junk_ends_reading_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut input = Input::new(&bytes);
            while input.varint().is_some() && input.sized().is_some() {}
            let mut input = Input::new(&bytes);
            while input.text().is_some() && input.u64().is_some() && input.u16().is_some() {}
        }
    }

    #[test]
    fn varints_above_64_bits_are_junk() {
        let mut bytes = [0xff; 10];
        bytes[9] = 0x02;
        assert_eq!(Input::new(&bytes).varint(), None);
        assert_eq!(Input::new(&[0x80; 11]).varint(), None);
    }
}
