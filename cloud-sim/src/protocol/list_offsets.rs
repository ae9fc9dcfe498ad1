//! `ListOffsets`: the first offset, the next offset, or the first one at or after a time.

use bytes::BufMut;

use super::{DecodeError, ErrorCode, Reader, length_i32, put_string};

/// The next offset to be written.
pub(crate) const LATEST: i64 = -1;
/// The first offset kept.
pub(crate) const EARLIEST: i64 = -2;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) topics: Vec<(&'a str, Vec<Partition>)>,
}

/// One partition asked for, and the time in milliseconds or [`LATEST`] or [`EARLIEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) timestamp: i64,
}

/// One partition's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) error: ErrorCode,
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

impl<'a> Request<'a> {
    pub(crate) fn decode(frame: &'a [u8], body: usize, version: i16) -> Result<Self, DecodeError> {
        let mut reader = Reader::at(frame, body);
        let _replica = reader.i32()?;
        if version >= 2 {
            let _isolation = reader.i8()?;
        }
        let mut topics = Vec::new();
        for _ in 0..reader.count(6)? {
            let name = reader.string()?;
            let count = reader.count(12)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                partitions.push(Partition { index: reader.i32()?, timestamp: reader.i64()? });
            }
            topics.push((name, partitions));
        }
        reader.finish()?;
        Ok(Self { topics })
    }
}

/// Writes the answer, asking `find` for each partition.
pub(crate) fn encode(
    output: &mut Vec<u8>,
    version: i16,
    request: &Request<'_>,
    find: impl Fn(&str, Partition) -> Found,
) {
    if version >= 2 {
        output.put_i32(0);
    }
    output.put_i32(length_i32(request.topics.len()));
    for (name, partitions) in &request.topics {
        put_string(output, name);
        output.put_i32(length_i32(partitions.len()));
        for partition in partitions {
            let found = find(name, *partition);
            output.put_i32(partition.index);
            output.put_i16(found.error.0);
            output.put_i64(found.timestamp);
            output.put_i64(found.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::Request;

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), version in 1i16..3) {
            drop(Request::decode(&bytes, 0, version));
        }
    }
}
