//! The value of a packed record, and whether it is what its headers say.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::borrow::Cow;
use std::io::Read as _;

use flate2::{Decompress, FlushDecompress, Status, bufread::GzDecoder};

use super::entry::{Fields, Value};
use super::{Compression, Entry, EntryError, Format, Header, HeaderError, field};
use crate::{Identity, Seq, json};

/// Most bytes that a value may have when it is inflated. The gateway's limit is far below it.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Why a packed record is bad.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The header cannot be that of the record.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The value is not compressed as the header says.
    #[error("the value is no whole {0} stream")]
    Inflate(&'static str),
    /// Above [`BODY_BYTES_MAX`].
    #[error("more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// The value is not of the header's format.
    #[error("the value is no {0}")]
    Format(&'static str),
    /// An entry cannot be read.
    #[error("entry {place}: {why}")]
    Entry {
        /// Which one, from 0.
        place: usize,
        /// Why not.
        why: EntryError,
    },
    /// The header says another number of entries.
    #[error("{found} entries, or more, where the header says {said}")]
    Count {
        /// Entries found.
        found: usize,
        /// Entries said.
        said: u32,
    },
    /// The seq of an entry is not above that of the entry before, or the ends are not those of the headers.
    #[error("seq {seq} at place {place} is out of place")]
    Order {
        /// The entry's place, from 0.
        place: usize,
        /// Its position.
        seq: Seq,
    },
}

/// Undoes the compression; what is not compressed is borrowed.
///
/// # Errors
///
/// When the value is no such stream, ends early, has more behind it or becomes too large.
pub fn inflate(compression: Compression, value: &[u8]) -> Result<Cow<'_, [u8]>, UnpackError> {
    let bad = UnpackError::Inflate(compression.name());
    let mut body = Vec::new();
    match compression {
        Compression::None if value.len() > BODY_BYTES_MAX => return Err(UnpackError::TooLarge),
        Compression::None => return Ok(value.into()),
        Compression::Gzip => {
            let mut decoder = GzDecoder::new(value);
            let limit = BODY_BYTES_MAX as u64 + 1;
            decoder.by_ref().take(limit).read_to_end(&mut body).map_err(|_| bad.clone())?;
            if body.len() <= BODY_BYTES_MAX && !decoder.into_inner().is_empty() {
                return Err(bad);
            }
        }
        Compression::Deflate => {
            let mut stream = Decompress::new(false);
            let mut rest = value;
            loop {
                body.reserve(rest.len().max(4096));
                let before = (stream.total_in(), stream.total_out());
                let status = stream.decompress_vec(rest, &mut body, FlushDecompress::None);
                let taken = usize::try_from(stream.total_in() - before.0).map_err(|_| bad.clone())?;
                rest = rest.get(taken..).unwrap_or_default();
                match status {
                    Ok(Status::StreamEnd) if rest.is_empty() => break,
                    Ok(Status::Ok | Status::BufError) if body.len() > BODY_BYTES_MAX => break,
                    // There was room, so that it is input that is lacking when nothing moves.
                    Ok(Status::Ok | Status::BufError)
                        if before != (stream.total_in(), stream.total_out()) => {}
                    _ => return Err(bad),
                }
            }
        }
    }
    if body.len() > BODY_BYTES_MAX { Err(UnpackError::TooLarge) } else { Ok(body.into()) }
}

/// The entries of an inflated value, in order, checked against the headers: as many as they say, from the first
/// position to the last, each above the one before.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn unpack<'a>(
    header: &Header,
    identity: &Identity,
    body: &'a [u8],
) -> Result<Vec<Entry<'a>>, UnpackError> {
    header.agrees_with(identity)?;
    let mut unpacked = Unpacked { header, last: identity.seq, entries: Vec::new() };
    match header.format {
        Format::Ndjson => lines(text(body, header)?, &mut unpacked)?,
        Format::JsonArray => array(text(body, header)?, &mut unpacked)?,
        Format::Protobuf => message(body, &mut unpacked)?,
    }
    unpacked.finish()
}

fn text<'a>(body: &'a [u8], header: &Header) -> Result<&'a str, UnpackError> {
    std::str::from_utf8(body).map_err(|_| UnpackError::Format(header.format.name()))
}

fn lines<'a>(text: &'a str, unpacked: &mut Unpacked<'_, 'a>) -> Result<(), UnpackError> {
    let lines = text.strip_suffix('\n').ok_or(UnpackError::Format(Format::Ndjson.name()))?;
    lines.split('\n').try_for_each(|line| unpacked.push(Entry::from_json(line)))
}

fn array<'a>(text: &'a str, unpacked: &mut Unpacked<'_, 'a>) -> Result<(), UnpackError> {
    let bad = || UnpackError::Format(Format::JsonArray.name());
    let mut rest =
        text.trim_ascii().strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or_else(bad)?;
    loop {
        let found = json::scan(rest).ok_or_else(bad)?;
        let (object, after) = rest.split_at_checked(found.end).ok_or_else(bad)?;
        unpacked.push(Entry::from_json(object))?;
        let after = after.trim_ascii_start();
        if after.is_empty() {
            return Ok(());
        }
        rest = after.strip_prefix(',').ok_or_else(bad)?;
    }
}

fn message<'a>(body: &'a [u8], unpacked: &mut Unpacked<'_, 'a>) -> Result<(), UnpackError> {
    let mut fields = Fields(body);
    while !fields.0.is_empty() {
        match fields.next() {
            Some((field::ENTRIES, Value::Bytes(entry))) => unpacked.push(Entry::from_protobuf(entry))?,
            Some((number, _)) if number != field::ENTRIES => {}
            _ => return Err(UnpackError::Format(Format::Protobuf.name())),
        }
    }
    Ok(())
}

struct Unpacked<'h, 'a> {
    header: &'h Header,
    last: Seq,
    entries: Vec<Entry<'a>>,
}

impl<'a> Unpacked<'_, 'a> {
    fn push(&mut self, entry: Result<Entry<'a>, EntryError>) -> Result<(), UnpackError> {
        let place = self.entries.len();
        let entry = entry.map_err(|why| UnpackError::Entry { place, why })?;
        let said = self.header.count;
        let left = (said as usize).checked_sub(place + 1);
        let left = left.ok_or(UnpackError::Count { found: place + 1, said })?;
        let above = match self.entries.last() {
            None => entry.seq == self.header.first,
            Some(before) => before.seq < entry.seq,
        };
        let ends = if left == 0 { entry.seq == self.last } else { entry.seq < self.last };
        if !above || !ends {
            return Err(UnpackError::Order { place, seq: entry.seq });
        }
        self.entries.push(entry);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Entry<'a>>, UnpackError> {
        let (found, said) = (self.entries.len(), self.header.count);
        if found == said as usize { Ok(self.entries) } else { Err(UnpackError::Count { found, said }) }
    }
}
