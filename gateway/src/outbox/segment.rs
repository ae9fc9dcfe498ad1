//! Segments: the records that one lane gained in one commit, as one value of the database.
//!
//! A segment begins with a fixed header, then come extensions (none yet) and the body: records one
//! after the other, perhaps compressed. One checksum covers all of it and is verified before
//! anything is decompressed. The layout is documented in `docs/formats/outbox-v1.md`.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::fmt;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::config::BodyCodec;
use super::record::{RecordError, Records};
use super::wire::Input;

/// First bytes of every segment: `PS`.
const MAGIC: u16 = u16::from_le_bytes(*b"PS");
/// The layout this version writes.
const FORMAT: u8 = 1;
/// Where the checksum stands in the header.
const CHECKSUM_AT: usize = 60;
/// Bodies up to this size are stored as they are: there is little to gain.
const COMPRESS_ABOVE_BYTES: usize = 1 << 10;
/// Largest body this version decompresses: a damaged length must not ask for all memory.
const BODY_BYTES_MAX: u32 = 1 << 29;

/// Length of the fixed header.
pub(super) const HEADER_LEN: usize = 64;

/// Records of one lane that became durable together. Shared by all who read them.
pub struct Segment {
    header: Header,
    /// Room for the header, then the body as records; the header is filled in only if the bytes
    /// are stored as they stand here.
    bytes: Vec<u8>,
    /// Where the body starts.
    body_at: usize,
}

/// The fields of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) lane: Lane,
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
    pub(super) first: Seq,
    pub(super) count: u32,
    /// Bytes of the body as records, before compression.
    pub(super) raw_len: u32,
    /// Bytes of all bodies of this lane before this one: differences are backlogs.
    pub(super) bytes_before: u64,
    /// When the commit began, in Unix milliseconds.
    pub(super) committed_ms: u64,
}

/// Why bytes are no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Cut short.
    #[error("the segment is cut short")]
    Short,
    /// Something else, or overwritten.
    #[error("the segment does not begin with its mark")]
    Magic,
    /// Written by a version that this one cannot read.
    #[error("segment format {0} is not known")]
    Format(u8),
    /// Written by a version that this one cannot read.
    #[error("body codec {0} is not known")]
    Codec(u8),
    /// Encrypted, which this version cannot undo.
    #[error("cipher {0} is not known")]
    Cipher(u8),
    /// A bit is wrong somewhere.
    #[error("the checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// The checksum is right and a field is not.
    #[error("bad {0} in the header")]
    Field(&'static str),
    /// Stored under a key that is not its own.
    #[error("the segment belongs to another lane or position")]
    Misplaced,
    /// The body does not decompress.
    #[error("the body does not decompress")]
    Compression,
    /// A record in the body is bad.
    #[error("bad record")]
    Record(#[from] RecordError),
}

// === impl Segment ===

impl Segment {
    /// Seals `bytes`, which are [`HEADER_LEN`] bytes of room and then records. The bytes to store
    /// come back in `stored`, or are [`Self::stored_as_is`] if the call returns `false`.
    pub(super) fn seal(
        header: Header,
        mut bytes: Vec<u8>,
        codec: BodyCodec,
        stored: &mut Compressed,
    ) -> (Self, bool) {
        let body = bytes.get(HEADER_LEN..).unwrap_or_default();
        let worth_it = codec == BodyCodec::Lz4 && body.len() > COMPRESS_ABOVE_BYTES;
        let compressed = worth_it && stored.fill(&header, body);
        if !compressed {
            header.write(&mut bytes, BodyCodec::None);
        }
        (Self { header, bytes, body_at: HEADER_LEN }, compressed)
    }

    /// The bytes to store, if [`Self::seal`] did not compress them.
    pub(super) fn stored_as_is(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks and decodes stored bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with them. Never panics, whatever they are.
    pub(super) fn decode(stored: &[u8]) -> Result<Self, SegmentError> {
        let (header, codec, body) = Header::read(stored)?;
        let (bytes, body_at) = match codec {
            BodyCodec::None => (body.to_vec(), 0),
            BodyCodec::Lz4 => (decompress(body, header.raw_len)?, 0),
        };
        let raw = bytes.get(body_at..).unwrap_or_default();
        if usize::try_from(header.raw_len) != Ok(raw.len()) {
            return Err(SegmentError::Field("body length"));
        }
        if Records::check(raw)? != header.count {
            return Err(SegmentError::Field("record count"));
        }
        Ok(Self { header, bytes, body_at })
    }

    /// As [`Self::decode`], for bytes that were stored under `first` in `lane`.
    pub(super) fn decode_at(lane: Lane, first: Seq, stored: &[u8]) -> Result<Self, SegmentError> {
        let segment = Self::decode(stored)?;
        if segment.header.lane != lane || segment.header.first != first {
            return Err(SegmentError::Misplaced);
        }
        Ok(segment)
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.header.lane
    }

    /// Position of the first record.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.header.first
    }

    /// Position of the last record.
    #[must_use]
    pub const fn last(&self) -> Seq {
        Seq(self.end().0.saturating_sub(1))
    }

    /// The start of the gateway during which it was appended.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The outbox directory it belongs to.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.header.log
    }

    /// When its commit began, in Unix milliseconds.
    #[must_use]
    pub const fn committed_ms(&self) -> u64 {
        self.header.committed_ms
    }

    /// How many records it holds.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.header.count
    }

    /// Bytes of its records, uncompressed.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.header.raw_len
    }

    /// The records in order, with their positions.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(self.bytes.get(self.body_at..).unwrap_or_default(), self.header.first)
    }

    /// The records from `seq` on; what comes before is passed over without being looked at.
    #[must_use]
    pub fn records_from(&self, seq: Seq) -> Records<'_> {
        let mut records = self.records();
        records.pass(seq.0.saturating_sub(self.first().0));
        records
    }

    /// The first position after it.
    pub(super) const fn end(&self) -> Seq {
        self.header.end()
    }

    /// Whether `seq` is one of its positions.
    pub(super) fn holds(&self, seq: Seq) -> bool {
        (self.first()..self.end()).contains(&seq)
    }

    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// What it costs to keep it in memory.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Segment").field(&self.header).finish()
    }
}

// === impl Header ===

impl Header {
    /// The first position after the segment.
    pub(super) const fn end(&self) -> Seq {
        Seq(self.first.0.saturating_add(self.count as u64))
    }

    /// Bytes of all bodies of this lane up to and with this one.
    pub(super) const fn bytes_after(&self) -> u64 {
        self.bytes_before.saturating_add(self.raw_len as u64)
    }

    /// Reads the header of stored bytes and checks the whole; also the codec and the stored body.
    pub(super) fn read(stored: &[u8]) -> Result<(Self, BodyCodec, &[u8]), SegmentError> {
        let (head, rest) = stored.split_first_chunk::<HEADER_LEN>().ok_or(SegmentError::Short)?;
        let mut input = Input::new(head);
        let mut fields = || Some((input.u16()?, input.u8()?, input.u8()?, input.u8()?, input.u8()?));
        let (magic, format, codec, lane, cipher) = fields().ok_or(SegmentError::Short)?;
        if magic != MAGIC {
            return Err(SegmentError::Magic);
        }
        if format != FORMAT {
            return Err(SegmentError::Format(format));
        }
        verify(stored)?;
        let codec = BodyCodec::from_number(codec).ok_or(SegmentError::Codec(codec))?;
        if cipher != 0 {
            return Err(SegmentError::Cipher(cipher));
        }
        let lane = Lane::try_from(lane).map_err(|_| SegmentError::Field("lane"))?;
        let ext_len = input.u16().ok_or(SegmentError::Short)?;
        let _key_id = input.u32().ok_or(SegmentError::Short)?;
        let (header, stored_len) = Self::read_numbers(lane, input).ok_or(SegmentError::Short)?;
        header.check()?;
        let body = rest.get(usize::from(ext_len)..).ok_or(SegmentError::Field("extension length"))?;
        if usize::try_from(stored_len) != Ok(body.len()) {
            return Err(SegmentError::Field("stored length"));
        }
        Ok((header, codec, body))
    }

    fn read_numbers(lane: Lane, mut input: Input<'_>) -> Option<(Self, u32)> {
        let (count, raw_len, epoch) = (input.u32()?, input.u32()?, Epoch(input.u32()?));
        let (first, bytes_before) = (Seq(input.u64()?), input.u64()?);
        let (committed_ms, log, stored_len) = (input.u64()?, LogId(input.u64()?), input.u32()?);
        Some((Self { lane, log, epoch, first, count, raw_len, bytes_before, committed_ms }, stored_len))
    }

    fn check(&self) -> Result<(), SegmentError> {
        if self.first == Seq::ZERO || self.first.0.checked_add(self.count.into()).is_none() {
            return Err(SegmentError::Field("first position"));
        }
        if self.count == 0 {
            return Err(SegmentError::Field("record count"));
        }
        if self.raw_len > BODY_BYTES_MAX {
            return Err(SegmentError::Field("body length"));
        }
        Ok(())
    }

    /// Fills in the header of `stored`, which is room for it and then the stored body.
    fn write(&self, stored: &mut [u8], codec: BodyCodec) {
        let stored_len = stored.len().saturating_sub(HEADER_LEN);
        let Some((head, _)) = stored.split_first_chunk_mut::<HEADER_LEN>() else { return };
        // A body never has 4 GiB: the queue bound is far below.
        let stored_len = u32::try_from(stored_len).unwrap_or(u32::MAX);
        let mut out = Output { head, at: 0 };
        out.put(&MAGIC.to_le_bytes());
        out.put(&[FORMAT, codec.number(), self.lane.number(), 0]);
        out.put(&0_u16.to_le_bytes());
        out.put(&0_u32.to_le_bytes());
        out.put(&self.count.to_le_bytes());
        out.put(&self.raw_len.to_le_bytes());
        out.put(&self.epoch.0.to_le_bytes());
        out.put(&self.first.0.to_le_bytes());
        out.put(&self.bytes_before.to_le_bytes());
        out.put(&self.committed_ms.to_le_bytes());
        out.put(&self.log.0.to_le_bytes());
        out.put(&stored_len.to_le_bytes());
        let sum = checksum(stored);
        if let Some(place) = stored.get_mut(CHECKSUM_AT..HEADER_LEN) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
}

/// Writes fields one after the other into a header.
struct Output<'a> {
    head: &'a mut [u8; HEADER_LEN],
    at: usize,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if let Some(place) = self.head.get_mut(self.at..end) {
            place.copy_from_slice(bytes);
        }
        self.at = end;
    }
}

/// CRC-32C over everything but the checksum's own place.
fn checksum(stored: &[u8]) -> u32 {
    let before = stored.get(..CHECKSUM_AT).unwrap_or_default();
    let after = stored.get(HEADER_LEN..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c(before), after)
}

/// The bytes with the checksum that they should have.
#[cfg(any(test, fuzzing))]
pub(super) fn with_checksum(stored: &[u8]) -> Vec<u8> {
    let mut stored = stored.to_vec();
    let sum = checksum(&stored);
    if let Some(place) = stored.get_mut(CHECKSUM_AT..HEADER_LEN) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    stored
}

fn verify(stored: &[u8]) -> Result<(), SegmentError> {
    let place = stored.get(CHECKSUM_AT..).and_then(|rest| rest.first_chunk::<4>());
    let expected = u32::from_le_bytes(*place.ok_or(SegmentError::Short)?);
    let found = checksum(stored);
    if found == expected { Ok(()) } else { Err(SegmentError::Checksum { expected, found }) }
}

// === compression ===

/// A reusable buffer for the stored bytes of a compressed segment.
#[derive(Debug, Default)]
pub(super) struct Compressed {
    bytes: Vec<u8>,
    len: usize,
}

impl Compressed {
    /// The stored bytes.
    pub(super) fn stored(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Compresses `body`; `false` if that would not make it smaller.
    fn fill(&mut self, header: &Header, body: &[u8]) -> bool {
        let needed = HEADER_LEN + lz4_flex::block::get_maximum_output_size(body.len());
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        let Some(room) = self.bytes.get_mut(HEADER_LEN..) else { return false };
        let Ok(len) = lz4_flex::block::compress_into(body, room) else { return false };
        if len >= body.len() {
            return false;
        }
        self.len = HEADER_LEN + len;
        if let Some(stored) = self.bytes.get_mut(..self.len) {
            header.write(stored, BodyCodec::Lz4);
        }
        true
    }
}

fn decompress(body: &[u8], raw_len: u32) -> Result<Vec<u8>, SegmentError> {
    let raw_len = usize::try_from(raw_len).map_err(|_| SegmentError::Field("body length"))?;
    // A byte of LZ4 stands for at most 255 others; more would be a lie that asks for memory.
    if raw_len > body.len().saturating_mul(255) {
        return Err(SegmentError::Field("body length"));
    }
    let mut raw = vec![0; raw_len];
    match lz4_flex::block::decompress_into(body, &mut raw) {
        Ok(len) if len == raw_len => Ok(raw),
        _ => Err(SegmentError::Compression),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::record::{Encoded, Entry, Properties};
    use super::*;

    pub(in super::super) fn header(first: u64, count: u32, raw_len: usize) -> Header {
        Header {
            lane: Lane::Telemetry,
            log: LogId(0xfeed),
            epoch: Epoch(3),
            first: Seq(first),
            count,
            raw_len: u32::try_from(raw_len).unwrap(),
            bytes_before: 77,
            committed_ms: 1_700_000_000_000,
        }
    }

    /// Room for a header, then `count` records of `device` with `payload`.
    pub(in super::super) fn bytes(count: u32, payload: &[u8]) -> Vec<u8> {
        let mut encoded = Encoded::default();
        for n in 0..count {
            encoded.push(&Entry {
                lane: Lane::Telemetry,
                device: "device-000001",
                topic: "devices/device-000001/telemetry",
                received_ms: 1_700_000_000_000 + u64::from(n),
                qos: 1,
                retain: false,
                clock_synced: true,
                properties: Properties::default(),
                payload,
            });
        }
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend_from_slice(&encoded.lanes()[Lane::Telemetry.index()].bytes);
        bytes
    }

    /// A segment of `count` records that begins at `first`.
    pub(in super::super) fn segment(first: u64, count: u32, payload: &[u8]) -> Segment {
        let bytes = bytes(count, payload);
        let header = header(first, count, bytes.len() - HEADER_LEN);
        Segment::seal(header, bytes, BodyCodec::None, &mut Compressed::default()).0
    }

    fn stored(count: u32, payload: &[u8], codec: BodyCodec) -> (Segment, Vec<u8>) {
        let bytes = bytes(count, payload);
        let header = header(41, count, bytes.len() - HEADER_LEN);
        let mut compressed = Compressed::default();
        let (segment, was_compressed) = Segment::seal(header, bytes, codec, &mut compressed);
        let stored = if was_compressed { compressed.stored() } else { segment.stored_as_is() }.to_vec();
        (segment, stored)
    }

    fn check(count: u32, payload: &[u8], codec: BodyCodec, smaller: bool) {
        let (sealed, stored) = stored(count, payload, codec);
        let read = Segment::decode(&stored).expect("own bytes decode");
        assert_eq!(read.header(), sealed.header());
        assert_eq!((read.first(), read.end().0, read.count()), (Seq(41), 41 + u64::from(count), count));
        assert!(read.records().eq(sealed.records()), "the same records in the same order");
        assert_eq!(read.records().count(), usize::try_from(count).unwrap());
        for from in [0, 41, 42, 41 + u64::from(count) / 2, 41 + u64::from(count), u64::MAX].map(Seq) {
            let expected = read.records().filter(|(seq, _)| *seq >= from);
            assert!(read.records_from(from).eq(expected), "from {from}");
        }
        assert_eq!(stored.len() < sealed.stored_as_is().len(), smaller);
    }

    #[test]
    fn segments_round_trip_with_and_without_compression() {
        check(1, b"x", BodyCodec::None, false);
        check(1, b"x", BodyCodec::Lz4, false);
        check(500, b"the same again and again", BodyCodec::Lz4, true);
        check(500, b"the same again and again", BodyCodec::None, false);
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let (_, stored) = stored(1, b"x", BodyCodec::None);
        assert_eq!(&stored[..8], b"PS\x01\x00\x02\x00\x00\x00");
        assert_eq!(
            &stored[8..24],
            [0, 0, 0, 0, 1, 0, 0, 0, u8::try_from(stored.len() - 64).unwrap(), 0, 0, 0, 3, 0, 0, 0]
        );
        assert_eq!(&stored[24..40], [41, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&stored[40..48], 1_700_000_000_000_u64.to_le_bytes());
        assert_eq!(&stored[48..56], 0xfeed_u64.to_le_bytes());
    }

    fn sealed_again(stored: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Result<Segment, SegmentError> {
        let mut bytes = stored.to_vec();
        change(&mut bytes);
        let sum = checksum(&bytes);
        bytes[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
        Segment::decode(&bytes)
    }

    #[test]
    fn wrong_fields_are_named() {
        let (_, stored) = stored(2, b"x", BodyCodec::None);
        let check = |at: usize, to: u8, expected: SegmentError| {
            let found = sealed_again(&stored, |bytes| bytes[at] = to).expect_err("changed");
            assert_eq!(found, expected);
        };
        check(0, b'X', SegmentError::Magic);
        check(2, 2, SegmentError::Format(2));
        check(3, 9, SegmentError::Codec(9));
        check(4, 5, SegmentError::Field("lane"));
        check(5, 1, SegmentError::Cipher(1));
        check(6, 255, SegmentError::Field("extension length"));
        check(12, 3, SegmentError::Field("record count"));
        check(12, 0, SegmentError::Field("record count"));
        check(16, 1, SegmentError::Field("body length"));
        check(24, 0, SegmentError::Field("first position"));
        check(56, 1, SegmentError::Field("stored length"));
        check(HEADER_LEN + 1, 7, SegmentError::Record(RecordError::Schema(7)));
        assert_eq!(Segment::decode(&stored[..63]).expect_err("cut"), SegmentError::Short);
        assert!(matches!(Segment::decode(&stored[..70]), Err(SegmentError::Checksum { .. })));
    }

    #[test]
    fn a_length_that_no_body_can_have_is_refused_before_memory_is_asked_for() {
        let (_, stored) = stored(500, b"the same again and again", BodyCodec::Lz4);
        let huge = |bytes: &mut Vec<u8>| bytes[16..20].copy_from_slice(&BODY_BYTES_MAX.to_le_bytes());
        assert_eq!(sealed_again(&stored, huge).expect_err("a lie"), SegmentError::Field("body length"));
        let worse = |bytes: &mut Vec<u8>| bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(sealed_again(&stored, worse).expect_err("a lie"), SegmentError::Field("body length"));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_always_found(at in 0_usize..100_000, bit in 0_u8..8, compress: bool) {
            let codec = if compress { BodyCodec::Lz4 } else { BodyCodec::None };
            let (_, mut stored) = stored(60, b"payload payload payload", codec);
            let at = at % stored.len();
            stored[at] ^= 1 << bit;
            prop_assert!(Segment::decode(&stored).is_err());
        }

        #[test]
        fn junk_is_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), sealed: bool) {
            if let (true, Some(head)) = (sealed, bytes.first_chunk_mut::<4>()) {
                *head = [b'P', b'S', FORMAT, head[3] % 2];
            }
            if sealed && bytes.len() >= HEADER_LEN {
                drop(sealed_again(&bytes, |_| ()));
            }
            drop(Segment::decode(&bytes));
        }
    }
}
