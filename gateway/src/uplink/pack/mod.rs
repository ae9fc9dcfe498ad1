//! Packed records: many entries of one partition in the value of one Kafka record.
//!
//! [`Pack::push`] writes an entry behind the others; nothing is allocated once the buffers have grown. The layout is
//! documented in `docs/formats/packed-v1.md`; `penstock_proto::packed` reads it.

mod compress;
mod json;
mod protobuf;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use penstock_proto::Seq;
use penstock_proto::packed::Header;
use penstock_proto::text::TimeText;

use crate::outbox::Record;
use compress::Deflater;

pub use compress::CompressError;
pub use penstock_proto::packed::{Compression as PackCompression, Format as PackFormat};

/// A packed record while it is built; used again after [`Pack::begin`].
#[derive(Debug)]
pub struct Pack {
    format: PackFormat,
    compression: PackCompression,
    first: Seq,
    last: Seq,
    count: u32,
    is_finished: bool,
    body: Vec<u8>,
    /// The value, when it is compressed.
    compressed: Vec<u8>,
    deflater: Deflater,
    time: TimeText,
}

impl Pack {
    /// An empty one.
    #[must_use]
    pub fn new(format: PackFormat, compression: PackCompression) -> Self {
        Self {
            format,
            compression,
            first: Seq::ZERO,
            last: Seq::ZERO,
            count: 0,
            is_finished: false,
            body: Vec::new(),
            compressed: Vec::new(),
            deflater: Deflater::default(),
            time: TimeText::default(),
        }
    }

    /// Forgets the entries and keeps the buffers; a buffer that a large pack blew up is let go.
    pub fn begin(&mut self, first: Seq) {
        self.first = first;
        self.last = first;
        self.count = 0;
        self.is_finished = false;
        for buffer in [&mut self.body, &mut self.compressed] {
            buffer.clear();
            buffer.shrink_to(Self::KEPT_BYTES_MAX);
        }
    }

    /// Appends an entry. Its `seq` is above that of the entry before it, or for the first one what
    /// [`Pack::begin`] was given. A pack that is finished is opened again.
    pub fn push(&mut self, seq: Seq, record: &Record<'_>) {
        debug_assert!(if self.count == 0 { seq == self.first } else { seq > self.last });
        if self.is_finished {
            self.reopen();
        }
        match self.format {
            PackFormat::Ndjson => {
                json::push(&mut self.body, seq, record, &mut self.time);
                self.body.push(b'\n');
            }
            PackFormat::JsonArray => {
                self.body.push(if self.count == 0 { b'[' } else { b',' });
                json::push(&mut self.body, seq, record, &mut self.time);
            }
            PackFormat::Protobuf => protobuf::push(&mut self.body, seq, record),
        }
        self.last = seq;
        self.count += 1;
    }

    /// How many bytes [`Pack::push`] adds for this record at most. Close to the truth for records above a few
    /// kilobytes; for small ones up to several times as much.
    #[must_use]
    pub fn entry_bytes(&self, record: &Record<'_>) -> usize {
        match self.format {
            // With what stands around an entry: a line break, or a comma and the brackets of the array.
            PackFormat::Ndjson | PackFormat::JsonArray => json::len_max(record) + 2,
            PackFormat::Protobuf => protobuf::len_max(record),
        }
    }

    /// How many entries it holds.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The position of the first entry.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// The position of the last entry; before there is one, what [`Pack::begin`] was given.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }

    /// Bytes of the value before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The value of its header `penstock-pack`.
    #[must_use]
    pub const fn header(&self) -> Header {
        Header { format: self.format, compression: self.compression, first: self.first, count: self.count }
    }

    /// Ends it and returns the value of the record; asked again, returns the same.
    ///
    /// # Errors
    ///
    /// [`CompressError`], which is not expected: the caller can send the entries one by one.
    pub fn finish(&mut self) -> Result<&[u8], CompressError> {
        if !self.is_finished {
            if self.format == PackFormat::JsonArray {
                self.body.extend_from_slice(if self.count == 0 { b"[]" } else { b"]" });
            }
            match self.compression {
                PackCompression::None => {}
                PackCompression::Gzip => self.deflater.gzip(&self.body, &mut self.compressed)?,
                PackCompression::Deflate => self.deflater.deflate(&self.body, &mut self.compressed)?,
            }
            self.is_finished = true;
        }
        Ok(if self.compression == PackCompression::None { &self.body } else { &self.compressed })
    }

    /// Takes back what [`Pack::finish`] did: a finished pack that could not be sent yet may take more.
    fn reopen(&mut self) {
        if self.format == PackFormat::JsonArray {
            let closing = if self.count == 0 { b"[]".len() } else { b"]".len() };
            self.body.truncate(self.body.len() - closing);
        }
        self.compressed.clear();
        self.is_finished = false;
    }

    /// At most this much of each buffer is kept between packs.
    const KEPT_BYTES_MAX: usize = 2 << 20;
}
