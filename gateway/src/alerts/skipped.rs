//! The event that tells what the rules never looked at.

use penstock_proto::{Lane, LogId, Seq};
use serde::Serialize;

use super::clock::Moment;
use super::lifecycle::Voice;
use crate::outbox::{CloudEvent, Encoded};

#[derive(Debug, Serialize)]
struct Skipped {
    log: String,
    lane: &'static str,
    first: u64,
    last: u64,
    messages: u64,
    reason: &'static str,
}

/// Appends the event that the rules never looked at the entries from `from` to below `to`.
pub(super) fn push(voice: &Voice, log: LogId, (from, to): (Seq, Seq), moment: Moment, entries: &mut Encoded) {
    let messages = to.0.saturating_sub(from.0);
    if messages == 0 {
        return;
    }
    let lane = Lane::Telemetry.name();
    let reason = "the rules were too slow for what came in";
    let data = Skipped { log: log.to_string(), lane, first: from.0, last: to.0 - 1, messages, reason };
    let id = format!("skipped/{}/{log}/{lane}/{}", &voice.gateway, from.0);
    let kind = format!("{}.alerts.skipped.v1", voice.type_prefix);
    let event = CloudEvent::new(&voice.gateway, (id, kind), "critical", moment.now_ms, data);
    event.push(Lane::Alerts, &voice.gateway, entries);
}
