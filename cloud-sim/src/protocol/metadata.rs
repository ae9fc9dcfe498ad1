//! `Metadata`: which topics exist and where they live. Like Event Hubs, one address serves all partitions.

use bytes::BufMut;

use super::{DecodeError, ErrorCode, Reader, length_i32, put_string};

/// The only broker there is.
pub(crate) const BROKER_ID: i32 = 1;
const CLUSTER_ID: &str = "cloud-sim";

/// Topics asked for; `None` means all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) topics: Option<Vec<&'a str>>,
}

impl<'a> Request<'a> {
    pub(crate) fn decode(frame: &'a [u8], body: usize, version: i16) -> Result<Self, DecodeError> {
        let mut reader = Reader::at(frame, body);
        let count = reader.nullable_count(2)?;
        let all = count.is_none() || (version == 0 && count == Some(0));
        let mut topics = Vec::with_capacity(count.unwrap_or(0));
        for _ in 0..count.unwrap_or(0) {
            topics.push(reader.string()?);
        }
        if version >= 4 {
            let _allow_automatic_creation = reader.u8()?;
        }
        reader.finish()?;
        Ok(Self { topics: (!all).then_some(topics) })
    }
}

/// One topic of the answer: its partitions, or why there are none to tell.
#[derive(Debug)]
pub(crate) struct Topic<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: Result<i32, ErrorCode>,
}

/// Writes the answer. `host` and `port` are where the client reaches this broker.
pub(crate) fn encode(output: &mut Vec<u8>, version: i16, host: &str, port: u16, topics: &[Topic<'_>]) {
    if version >= 3 {
        output.put_i32(0);
    }
    output.put_i32(1);
    output.put_i32(BROKER_ID);
    put_string(output, host);
    output.put_i32(i32::from(port));
    if version >= 1 {
        output.put_i16(-1);
    }
    if version >= 2 {
        put_string(output, CLUSTER_ID);
    }
    if version >= 1 {
        output.put_i32(BROKER_ID);
    }
    output.put_i32(length_i32(topics.len()));
    for topic in topics {
        put_topic(output, version, topic);
    }
}

fn put_topic(output: &mut Vec<u8>, version: i16, topic: &Topic<'_>) {
    output.put_i16(topic.partitions.err().unwrap_or(ErrorCode::NONE).0);
    put_string(output, topic.name);
    if version >= 1 {
        output.put_u8(0);
    }
    let count = topic.partitions.unwrap_or(0);
    output.put_i32(count);
    for index in 0..count {
        output.put_i16(ErrorCode::NONE.0);
        output.put_i32(index);
        output.put_i32(BROKER_ID);
        // Replicas, then the replicas in sync.
        for _ in 0..2 {
            output.put_i32(1);
            output.put_i32(BROKER_ID);
        }
        if version >= 5 {
            output.put_i32(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::{any, proptest};

    use super::Request;

    #[track_caller]
    fn check(version: i16, count: i32, expected: Option<Vec<&str>>) {
        let mut bytes = Vec::new();
        bytes.put_i32(count);
        for _ in 0..count {
            bytes.put_slice(b"\x00\x01t");
        }
        if version >= 4 {
            bytes.put_u8(1);
        }
        assert_eq!(Request::decode(&bytes, 0, version).unwrap().topics, expected);
    }

    #[test]
    fn null_means_all_and_empty_means_none_from_version_one() {
        check(0, 0, None);
        check(1, 0, Some(vec![]));
        check(1, -1, None);
        check(5, 2, Some(vec!["t", "t"]));
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100), version in 0i16..6) {
            drop(Request::decode(&bytes, 0, version));
        }
    }
}
