//! Answers that need no waiting and write nothing: versions, metadata, offsets, producer numbers.

use super::connection::Session;
use crate::broker::Broker;
use crate::protocol::{
    ApiKey, DecodeError, ErrorCode, RequestHeader, api_versions, init_producer_id, length_i32, list_offsets,
    metadata,
};

/// Writes the body of the answer.
pub(super) fn encode(
    output: &mut Vec<u8>,
    session: &Session,
    header: RequestHeader,
    frame: &[u8],
) -> Result<(), DecodeError> {
    let version = header.version;
    match header.api {
        ApiKey::Metadata => {
            let request = metadata::Request::decode(frame, header.body, version)?;
            put_metadata(output, session, version, request.topics.as_deref());
        }
        ApiKey::ListOffsets => {
            let request = list_offsets::Request::decode(frame, header.body, version)?;
            list_offsets::encode(output, version, &request, |topic, partition| {
                find_offset(&session.broker, topic, partition)
            });
        }
        ApiKey::InitProducerId => {
            let request = init_producer_id::Request::decode(frame, header.body)?;
            // Event Hubs below Premium has no transactions and says so like this.
            let outcome = if request.transactional {
                Err(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            } else {
                Ok(session.broker.new_producer_id())
            };
            init_producer_id::encode(output, outcome);
        }
        ApiKey::ApiVersions
        | ApiKey::Produce
        | ApiKey::Fetch
        | ApiKey::SaslHandshake
        | ApiKey::SaslAuthenticate => api_versions::encode(output, version),
    }
    Ok(())
}

fn put_metadata(output: &mut Vec<u8>, session: &Session, version: i16, wanted: Option<&[&str]>) {
    let faults = &session.broker.faults;
    let visible = |name: &str| !faults.unauthorized(name).is_some_and(|refused| refused.metadata);
    let known = session.broker.topics.all();
    let topics: Vec<metadata::Topic<'_>> = match wanted {
        None => known
            .iter()
            .filter(|(name, _topic)| visible(name))
            .map(|(name, topic)| metadata::Topic {
                name,
                partitions: Ok(length_i32(topic.partitions().len())),
            })
            .collect(),
        Some(wanted) => wanted
            .iter()
            .map(|name| {
                let found = known.binary_search_by(|(known, _topic)| known.as_str().cmp(name)).ok();
                let topic = found.and_then(|place| known.get(place));
                let partitions = if visible(name) {
                    topic
                        .map(|(_name, topic)| length_i32(topic.partitions().len()))
                        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
                } else {
                    session.broker.counters.authorization_refused.add(1);
                    Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
                };
                metadata::Topic { name, partitions }
            })
            .collect(),
    };
    metadata::encode(output, version, &session.host, session.port, &topics);
}

fn find_offset(broker: &Broker, topic: &str, wanted: list_offsets::Partition) -> list_offsets::Found {
    let found = |timestamp, offset| list_offsets::Found { error: ErrorCode::NONE, timestamp, offset };
    let failed = |error| list_offsets::Found { error, timestamp: -1, offset: -1 };
    if !broker.faults.listening() {
        broker.counters.listen_refused.add(1);
        return failed(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let Some(partition) = broker.topics.partition(topic, wanted.index) else {
        return failed(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    };
    match wanted.timestamp {
        list_offsets::LATEST => found(-1, partition.high_watermark()),
        list_offsets::EARLIEST => found(-1, 0),
        timestamp => match partition.offset_at_time(timestamp) {
            Ok(Some((offset, timestamp))) => found(timestamp, offset),
            Ok(None) => found(-1, -1),
            Err(error) => failed(error),
        },
    }
}
