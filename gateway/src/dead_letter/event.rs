//! What is said about dead letters: CloudEvents in lane `status`.
//!
//! Two for a refused entry, since they serve two readers: the first tells people and rules what
//! happened, the second is the loss record that `penstock verify` subtracts from the gaps it finds.
//! Discarding has its own loss record. Each id is made from what it is about, so that the same
//! event never has two.

use penstock_proto::{GatewayId, LOSS_TYPE_SUFFIX, Lane, LogId, Loss, Seq};
use serde::Serialize;

use super::letter::{Origin, beginning};
use crate::outbox::{Attributes, CloudEvent, Encoded, Record};
use crate::supervise::clock;

const TYPE_PREFIX: &str = "io.penstock";
const REFUSED_TYPE_SUFFIX: &str = ".uplink.dead-letter.v1";
/// The reason in the loss record of a refused entry.
const DEAD_LETTER: &str = "dead-letter";
/// The reason in the loss record of what an operator discarded.
const DISCARDED: &str = "discarded";

/// The data of the event for a refused entry.
#[derive(Serialize)]
struct Refused<'a> {
    log: String,
    epoch: u32,
    lane: Lane,
    seq: Seq,
    device: &'a str,
    topic: &'a str,
    target: &'a str,
    reason: &'a str,
    received_ms: u64,
    payload_bytes: usize,
}

/// Who speaks, when, and which part of an id says about what.
struct Speaker<'a> {
    gateway: &'a GatewayId,
    now_ms: u64,
    id: String,
}

/// A destination refused an entry for good.
pub(super) fn refused(record: &Record<'_>, origin: &Origin<'_>, outputs: &mut Encoded) {
    let Origin { gateway, log, epoch, lane, seq, target, reason, dead_ms } = *origin;
    let data = Refused {
        log: log.to_string(),
        epoch: epoch.0,
        lane,
        seq,
        device: record.device,
        topic: record.topic,
        target,
        reason: beginning(reason),
        received_ms: record.received_ms,
        payload_bytes: record.payload.len(),
    };
    let speaker = Speaker { gateway, now_ms: dead_ms, id: identity(origin, "dead-letter") };
    push(&speaker, REFUSED_TYPE_SUFFIX, Some(record), data, outputs);
}

/// The loss record of a refused entry.
pub(super) fn lost(origin: &Origin<'_>, outputs: &mut Encoded) {
    let Origin { gateway, log, lane, seq, dead_ms, .. } = *origin;
    let reason = DEAD_LETTER.to_owned();
    let data = Loss { log: log.to_string(), lane, first: seq, last: seq, reason };
    let speaker = Speaker { gateway, now_ms: dead_ms, id: identity(origin, "loss") };
    push(&speaker, LOSS_TYPE_SUFFIX, None, data, outputs);
}

/// The loss record of letters from `first` to `last` that an operator discarded.
pub(super) fn discarded(
    (gateway, log): (&GatewayId, LogId),
    (first, last): (Seq, Seq),
    outputs: &mut Encoded,
) {
    let id = format!("{gateway}/{log}/{}/{first}-{last}/discarded", Lane::Dead.number());
    let data = Loss { log: log.to_string(), lane: Lane::Dead, first, last, reason: DISCARDED.to_owned() };
    let speaker = Speaker { gateway, now_ms: clock::unix_ms(), id };
    push(&speaker, LOSS_TYPE_SUFFIX, None, data, outputs);
}

fn identity(origin: &Origin<'_>, what: &str) -> String {
    let Origin { gateway, log, epoch, lane, seq, .. } = origin;
    format!("{gateway}/{log}/{epoch}/{}/{seq}/{what}", lane.number())
}

fn push<T: Serialize>(
    speaker: &Speaker<'_>,
    suffix: &str,
    about: Option<&Record<'_>>,
    data: T,
    outputs: &mut Encoded,
) {
    let Speaker { gateway, now_ms, id } = speaker;
    let name = (id.clone(), format!("{TYPE_PREFIX}{suffix}"));
    let attributes = Attributes {
        device: about.map(|record| record.device),
        tenant: about.and_then(|record| record.properties.tenant),
        traceparent: about.and_then(|record| record.properties.traceparent),
        ..Attributes::default()
    };
    let event = CloudEvent::new(gateway.as_str(), name, "warning", *now_ms, data).with(attributes);
    event.push(Lane::Status, gateway.as_str(), outputs);
}
