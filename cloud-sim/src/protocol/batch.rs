//! The header of a record batch, format 2, and the checks a broker makes before it stores one.
//!
//! The records inside are never decoded: the checksum covers them, and what a producer wrote is what a
//! consumer gets. Only the base offset and the leader epoch, which the checksum leaves out, are rewritten.
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use super::{DecodeError, ErrorCode, Reader};

/// Bytes of a batch header, up to and including the record count.
pub(crate) const HEADER_BYTES: usize = 61;
/// Bytes in front of what the length field counts.
pub(crate) const LENGTH_PREFIX_BYTES: usize = 12;
/// The checksum covers everything from here on.
const CHECKED_FROM: usize = 21;
const CHECKSUM_AT: usize = 17;
const MAGIC_AT: usize = 16;

const CODEC_MASK: i16 = 0x07;
const CODEC_GZIP: i16 = 1;
const TRANSACTIONAL_OR_CONTROL: i16 = 0x30;

/// The fields of a batch header that the broker needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub(crate) bytes: usize,
    pub(crate) checksum: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) records: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may hold more or less than the whole batch.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let base_offset = reader.i64()?;
        let length = reader.i32()?;
        let _leader_epoch = reader.i32()?;
        let magic = reader.i8()?;
        let checksum = u32::from_be_bytes(reader.i32()?.to_be_bytes());
        let attributes = reader.i16()?;
        let last_offset_delta = reader.i32()?;
        let _first_timestamp = reader.i64()?;
        let max_timestamp = reader.i64()?;
        let producer_id = reader.i64()?;
        let producer_epoch = reader.i16()?;
        let base_sequence = reader.i32()?;
        let records = reader.i32()?;
        let impossible = DecodeError::Length(length.into());
        let whole = usize::try_from(length).ok().map(|length| length + LENGTH_PREFIX_BYTES);
        match whole {
            Some(whole) if whole >= HEADER_BYTES && magic == 2 => Ok(Self {
                base_offset,
                bytes: whole,
                checksum,
                attributes,
                last_offset_delta,
                max_timestamp,
                producer_id,
                producer_epoch,
                base_sequence,
                records,
            }),
            _ => Err(impossible),
        }
    }

    /// Offset of the last record, once the base offset is assigned.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Whether its records are compressed with gzip.
    pub(crate) fn is_gzip(&self) -> bool {
        self.attributes & CODEC_MASK == CODEC_GZIP
    }

    /// Whether the batch carries the marks of an idempotent producer.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.producer_id >= 0
    }
}

/// Whether the checksum in the header of `batch` fits its bytes. `batch` is exactly one batch.
pub(crate) fn checksum_fits(batch: &[u8]) -> bool {
    let (Some(stored), Some(covered)) = (batch.get(CHECKSUM_AT..CHECKED_FROM), batch.get(CHECKED_FROM..))
    else {
        return false;
    };
    stored == crc32c::crc32c(covered).to_be_bytes()
}

/// Writes the offset the log gave to the batch, and leader epoch 0.
pub(crate) fn assign_offset(batch: &mut [u8], base_offset: i64) {
    if let Some(field) = batch.get_mut(0..8) {
        field.copy_from_slice(&base_offset.to_be_bytes());
    }
    if let Some(field) = batch.get_mut(12..16) {
        field.copy_from_slice(&[0; 4]);
    }
}

/// Checks what a producer sent for one partition: exactly one whole batch that Event Hubs would take.
pub(crate) fn check(bytes: &[u8], batch_bytes_max: usize) -> Result<BatchHeader, ErrorCode> {
    if bytes.len() > batch_bytes_max {
        return Err(ErrorCode::MESSAGE_TOO_LARGE);
    }
    match bytes.get(MAGIC_AT) {
        Some(2) => {}
        Some(_) => return Err(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT),
        None => return Err(ErrorCode::CORRUPT_MESSAGE),
    }
    let header = BatchHeader::decode(bytes).map_err(|_undecodable| ErrorCode::CORRUPT_MESSAGE)?;
    if header.bytes > bytes.len() || (header.bytes == bytes.len() && !checksum_fits(bytes)) {
        return Err(ErrorCode::CORRUPT_MESSAGE);
    }
    let one_batch = header.bytes == bytes.len();
    let counted = header.records > 0 && header.last_offset_delta == header.records - 1;
    let plain = header.attributes & TRANSACTIONAL_OR_CONTROL == 0;
    let sequenced = !header.is_idempotent() || (header.producer_epoch >= 0 && header.base_sequence >= 0);
    if !(one_batch && counted && plain && sequenced) {
        return Err(ErrorCode::INVALID_RECORD);
    }
    if !matches!(header.attributes & CODEC_MASK, 0 | CODEC_GZIP) {
        return Err(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT);
    }
    Ok(header)
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::BufMut;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, assign_offset, check};
    use crate::protocol::ErrorCode;

    /// What a test batch says about itself.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Sample {
        pub(crate) producer: (i64, i16, i32),
        pub(crate) records: i32,
        pub(crate) attributes: i16,
        pub(crate) timestamp: i64,
        pub(crate) body: usize,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self { producer: (-1, -1, -1), records: 1, attributes: 0, timestamp: 1_000, body: 20 }
        }
    }

    impl Sample {
        /// A batch with a right checksum and a body of zeros.
        pub(crate) fn encode(self) -> Vec<u8> {
            let mut bytes = Vec::new();
            bytes.put_i64(0);
            bytes.put_i32(i32::try_from(HEADER_BYTES - LENGTH_PREFIX_BYTES + self.body).unwrap());
            bytes.put_i32(-1);
            bytes.put_i8(2);
            bytes.put_u32(0);
            bytes.put_i16(self.attributes);
            bytes.put_i32(self.records - 1);
            bytes.put_i64(self.timestamp);
            bytes.put_i64(self.timestamp);
            bytes.put_i64(self.producer.0);
            bytes.put_i16(self.producer.1);
            bytes.put_i32(self.producer.2);
            bytes.put_i32(self.records);
            bytes.resize(HEADER_BYTES + self.body, 0);
            let checksum = crc32c::crc32c(&bytes[21..]).to_be_bytes();
            bytes[17..21].copy_from_slice(&checksum);
            bytes
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Vec<u8>), expected: ErrorCode) {
        let mut bytes = Sample::default().encode();
        change(&mut bytes);
        assert_eq!(check(&bytes, 1_000), Err(expected));
    }

    #[test]
    fn a_sound_batch_is_taken() {
        let header = check(&Sample { records: 3, ..Sample::default() }.encode(), 1_000).unwrap();
        assert_eq!((header.records, header.bytes, header.is_idempotent()), (3, 81, false));
    }

    #[test]
    fn a_flipped_bit_is_corrupt() {
        refused(|bytes| bytes[70] ^= 1, ErrorCode::CORRUPT_MESSAGE);
    }

    #[test]
    fn a_batch_longer_than_its_bytes_is_corrupt() {
        refused(|bytes| bytes.truncate(75), ErrorCode::CORRUPT_MESSAGE);
    }

    #[test]
    fn two_batches_at_once_are_refused() {
        refused(|bytes| bytes.extend_from_within(..), ErrorCode::INVALID_RECORD);
    }

    #[test]
    fn older_formats_are_refused() {
        refused(|bytes| bytes[16] = 1, ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT);
    }

    #[test]
    fn too_large_a_batch_is_refused() {
        refused(|bytes| bytes.resize(1_001, 0), ErrorCode::MESSAGE_TOO_LARGE);
    }

    #[test]
    fn only_gzip_is_a_known_codec() {
        for (codec, expected) in [
            (0, None),
            (1, None),
            (2, Some(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT)),
            (3, Some(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT)),
            (4, Some(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT)),
        ] {
            let bytes = Sample { attributes: codec, ..Sample::default() }.encode();
            assert_eq!(check(&bytes, 1_000).err(), expected, "codec {codec}");
        }
    }

    #[test]
    fn transactional_batches_are_refused() {
        let bytes = Sample { attributes: 0x10, ..Sample::default() }.encode();
        assert_eq!(check(&bytes, 1_000), Err(ErrorCode::INVALID_RECORD));
    }

    proptest! {
        #[test]
        fn assigning_an_offset_keeps_the_checksum_right(offset in 0i64.., records in 1i32..5_000) {
            let mut bytes = Sample { records, ..Sample::default() }.encode();
            assign_offset(&mut bytes, offset);
            let header = check(&bytes, 1_000).unwrap();
            prop_assert_eq!(header.base_offset, offset);
            prop_assert_eq!(header.records, records);
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(BatchHeader::decode(&bytes));
            check(&bytes, 150).ok();
        }
    }
}
