//! `Produce`: record batches for partitions.
//!
//! A decoded request says where the batches lie in the frame instead of borrowing them, so that the offset
//! can be written into the frame and the frame's bytes into the log, without a copy between.

use std::ops::Range;

use bytes::BufMut;

use super::{DecodeError, ErrorCode, Reader, length_i32, put_string};

/// A decoded request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) transactional: bool,
    pub(crate) acks: i16,
    pub(crate) topics: Vec<Topic>,
}

/// What is written to one topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: Vec<Partition>,
}

/// What is written to one partition: where its batch lies in the frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) records: Option<Range<usize>>,
}

impl Request {
    pub(crate) fn decode(frame: &[u8], body: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::at(frame, body);
        let transactional = reader.nullable_string()?.is_some();
        let acks = reader.i16()?;
        let _timeout_ms = reader.i32()?;
        let mut topics = Vec::new();
        for _ in 0..reader.count(6)? {
            let name = reader.string()?.to_owned();
            let count = reader.count(8)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                partitions.push(Partition { index: reader.i32()?, records: reader.nullable_bytes()? });
            }
            topics.push(Topic { name, partitions });
        }
        reader.finish()?;
        Ok(Self { transactional, acks, topics })
    }
}

/// Writes the answer; `outcome` is called once per partition, in the order of the request, and stores.
pub(crate) fn encode(
    output: &mut Vec<u8>,
    version: i16,
    request: &Request,
    throttle_ms: i32,
    mut outcome: impl FnMut(&str, &Partition) -> Result<i64, ErrorCode>,
) {
    output.put_i32(length_i32(request.topics.len()));
    for topic in &request.topics {
        put_string(output, &topic.name);
        output.put_i32(length_i32(topic.partitions.len()));
        for partition in &topic.partitions {
            let stored = outcome(&topic.name, partition);
            output.put_i32(partition.index);
            output.put_i16(stored.err().unwrap_or(ErrorCode::NONE).0);
            output.put_i64(stored.unwrap_or(-1));
            // No append time: the producer's timestamps are kept.
            output.put_i64(-1);
            if version >= 5 {
                output.put_i64(if stored.is_ok() { 0 } else { -1 });
            }
            if version >= 8 {
                output.put_i32(0);
                output.put_i16(-1);
            }
        }
    }
    output.put_i32(throttle_ms);
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Partition, Request, Topic};
    use crate::protocol::put_string;

    fn request(name: &str, records: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_i16(-1);
        bytes.put_i16(-1);
        bytes.put_i32(1_000);
        bytes.put_i32(1);
        put_string(&mut bytes, name);
        bytes.put_i32(1);
        bytes.put_i32(3);
        bytes.put_i32(i32::try_from(records.len()).unwrap());
        bytes.put_slice(records);
        bytes
    }

    proptest! {
        #[test]
        fn the_batch_is_found_in_the_frame(
            name in "[a-z]{1,20}",
            records in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let bytes = request(&name, &records);
            let range = bytes.len() - records.len()..bytes.len();
            let partitions = vec![Partition { index: 3, records: Some(range) }];
            let expected = Request { transactional: false, acks: -1, topics: vec![Topic { name, partitions }] };
            prop_assert_eq!(Request::decode(&bytes, 0), Ok(expected));
        }

        #[test]
        fn every_cut_is_refused(cut in 0usize..40) {
            let bytes = request("topic", &[1; 10]);
            assert!(Request::decode(&bytes[..cut.min(bytes.len() - 1)], 0).is_err());
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(Request::decode(&bytes, 0));
        }
    }
}
