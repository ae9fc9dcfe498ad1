//! `Fetch`: batches from partitions, from an offset on.

use bytes::BufMut;

use super::{DecodeError, ErrorCode, Reader, length_i32, put_string};

/// A decoded request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) topics: Vec<Topic>,
}

/// What is asked of one topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: Vec<Partition>,
}

/// What is asked of one partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) index: i32,
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
}

impl Request {
    pub(crate) fn decode(frame: &[u8], body: usize, version: i16) -> Result<Self, DecodeError> {
        let mut reader = Reader::at(frame, body);
        let _replica = reader.i32()?;
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = reader.i32()?;
        let _isolation = reader.i8()?;
        let mut topics = Vec::new();
        for _ in 0..reader.count(6)? {
            let name = reader.string()?.to_owned();
            let count = reader.count(16)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                let index = reader.i32()?;
                let offset = reader.i64()?;
                if version >= 5 {
                    let _log_start = reader.i64()?;
                }
                partitions.push(Partition { index, offset, max_bytes: reader.i32()? });
            }
            topics.push(Topic { name, partitions });
        }
        reader.finish()?;
        Ok(Self { max_wait_ms, min_bytes, max_bytes, topics })
    }
}

/// What one partition answers, besides the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
}

/// Writes the answer. `read` appends whole batches of one partition to the output.
pub(crate) fn encode(
    output: &mut Vec<u8>,
    version: i16,
    request: &Request,
    mut read: impl FnMut(&mut Vec<u8>, &str, &Partition) -> Answer,
) {
    output.put_i32(0);
    output.put_i32(length_i32(request.topics.len()));
    for topic in &request.topics {
        put_string(output, &topic.name);
        output.put_i32(length_i32(topic.partitions.len()));
        for partition in &topic.partitions {
            output.put_i32(partition.index);
            let answer_at = output.len();
            output.resize(answer_at + fixed_bytes(version), 0);
            let records_at = output.len();
            let answer = read(output, &topic.name, partition);
            let records_bytes = length_i32(output.len() - records_at);
            if let Some(fixed) = output.get_mut(answer_at..records_at) {
                put_fixed(fixed, version, answer, records_bytes);
            }
        }
    }
}

/// Bytes between the partition's number and its records.
const fn fixed_bytes(version: i16) -> usize {
    if version >= 5 { 34 } else { 26 }
}

fn put_fixed(mut fixed: &mut [u8], version: i16, answer: Answer, records_bytes: i32) {
    fixed.put_i16(answer.error.0);
    fixed.put_i64(answer.high_watermark);
    // Without transactions everything below the high watermark is stable.
    fixed.put_i64(answer.high_watermark);
    if version >= 5 {
        fixed.put_i64(0);
    }
    // No aborted transactions.
    fixed.put_i32(0);
    fixed.put_i32(records_bytes);
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::{any, proptest};

    use super::{Answer, Partition, Request, Topic, encode};
    use crate::protocol::ErrorCode;

    #[test]
    fn the_fixed_part_is_filled_exactly() {
        for version in [4, 6] {
            let partitions = vec![Partition { index: 1, offset: 0, max_bytes: 10 }];
            let topics = vec![Topic { name: "t".to_owned(), partitions }];
            let request = Request { max_wait_ms: 0, min_bytes: 0, max_bytes: 0, topics };
            let mut output = Vec::new();
            encode(&mut output, version, &request, |output, _, _| {
                output.put_slice(b"batch");
                Answer { error: ErrorCode::NONE, high_watermark: 7 }
            });
            assert!(
                output.ends_with(b"\x00\x00\x00\x00\x00\x00\x00\x05batch"),
                "version {version}: {output:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), version in 4i16..7) {
            drop(Request::decode(&bytes, 0, version));
        }
    }
}
