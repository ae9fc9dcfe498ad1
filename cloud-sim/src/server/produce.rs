//! Stores what a produce request brings.

use std::time::Duration;

use crate::broker::{Broker, Charge};
use crate::protocol::{DecodeError, ErrorCode, RequestHeader, batch, produce};

/// What to do after a produce request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Produced {
    /// The client wants no answer.
    pub(super) silent: bool,
    /// The connection is to be cut instead of answering.
    pub(super) lost: bool,
    /// The answer is to be held back this long.
    pub(super) throttle: Duration,
}

/// Stores the batches of a request and writes the body of the answer.
pub(super) fn store(
    output: &mut Vec<u8>,
    broker: &Broker,
    header: RequestHeader,
    frame: &mut [u8],
) -> Result<Produced, DecodeError> {
    let request = produce::Request::decode(frame, header.body)?;
    let mut refused = refusal(broker, &request);
    let mut throttle_ms = broker.faults.throttle_ms();
    if refused.is_none() && broker.meter.is_limited() {
        match charge(broker, &request, frame) {
            Ok(delay_ms) => throttle_ms = throttle_ms.max(delay_ms),
            Err(error) => refused = Some(error),
        }
    }
    if throttle_ms > 0 {
        broker.counters.throttled_requests.add(1);
        broker.counters.throttled_ms.add(throttle_ms.into());
    }
    let mut stored = false;
    produce::encode(
        output,
        header.version,
        &request,
        i32::try_from(throttle_ms).unwrap_or(0),
        |topic, partition| {
            let outcome = match (refused, &partition.records) {
                (Some(error), _) => Err(error),
                (None, None) => Err(ErrorCode::INVALID_RECORD),
                (None, Some(range)) => {
                    let bytes = frame.get_mut(range.clone()).unwrap_or_default();
                    append(broker, topic, partition.index, bytes)
                }
            };
            match outcome {
                Ok(_) => stored = true,
                Err(error) => {
                    tracing::debug!(topic, partition = partition.index, code = error.0, "batch refused");
                    broker.counters.batches_refused.add(1);
                }
            }
            outcome
        },
    );
    if stored {
        broker.appended.notify_waiters();
    }
    Ok(Produced {
        silent: request.acks == 0,
        lost: stored && broker.faults.loses_ack(),
        throttle: Duration::from_millis(throttle_ms.into()),
    })
}

/// The error for a whole request, if it is not to be stored.
fn refusal(broker: &Broker, request: &produce::Request) -> Option<ErrorCode> {
    if request.transactional {
        return Some(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    if !matches!(request.acks, -1..=1) {
        return Some(ErrorCode::INVALID_REQUIRED_ACKS);
    }
    let topics = request.topics.iter().map(|topic| topic.name.as_str());
    broker.faults.take_produce_error(topics).inspect(|_error| broker.counters.errors_injected.add(1))
}

/// Takes what the request brings from the quota of the namespace: repeats and batches that are refused later
/// came in too. Returns for how many milliseconds the answer is held back.
fn charge(broker: &Broker, request: &produce::Request, frame: &[u8]) -> Result<u32, ErrorCode> {
    let (mut events, mut bytes) = (0, 0);
    for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
        let batch = partition.records.clone().and_then(|range| frame.get(range)).unwrap_or_default();
        let records = batch::BatchHeader::decode(batch).map_or(0, |header| header.records);
        events += u64::try_from(records).unwrap_or(0);
        bytes += u64::try_from(batch.len()).unwrap_or(0);
    }
    match broker.charge(events, bytes) {
        Charge::Paid(delay) => Ok(u32::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)),
        Charge::Violation => {
            broker.counters.policy_violations.add(1);
            Err(ErrorCode::POLICY_VIOLATION)
        }
    }
}

fn append(broker: &Broker, topic: &str, index: i32, bytes: &mut [u8]) -> Result<i64, ErrorCode> {
    let partition = broker.topics.partition(topic, index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let counters = &broker.counters;
    if broker.faults.unauthorized(topic).is_some() {
        counters.authorization_refused.add(1);
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let header = batch::check(bytes, broker.limits.batch_bytes_max)?;
    if header.is_gzip() && !broker.limits.gzip {
        counters.gzip_refused.add(1);
        return Err(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT);
    }
    if broker.faults.swallows() {
        counters.batches_swallowed.add(1);
        return partition.swallow(header);
    }
    match partition.append(bytes, header) {
        Ok(appended) if appended.repeat => {
            counters.duplicates_recognised.add(1);
            Ok(appended.offset)
        }
        Ok(appended) => {
            counters.batches_appended.add(1);
            counters.records_appended.add(u64::try_from(header.records).unwrap_or(0));
            counters.bytes_appended.add(u64::try_from(header.bytes).unwrap_or(0));
            Ok(appended.offset)
        }
        Err(error) => {
            if error == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER {
                counters.out_of_order_refused.add(1);
            }
            Err(error)
        }
    }
}
