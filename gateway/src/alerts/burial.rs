//! Where an alert goes that a destination never takes: lane `dead`, with an event in lane `status` that tells of it.
//!
//! The letter is one like the uplink's, so that `penstock dead-letter` lists, exports and retries it. There is no loss
//! record: those are about the chain of entries at Event Hubs, which has no gap.

use penstock_proto::{Epoch, GatewayId, Lane, LogId, Seq};
use serde::Serialize;

use crate::dead_letter::{self, Origin};
use crate::outbox::{Attributes, CloudEvent, Encoded, Record, Segment};

/// Where an entry stands, but for its position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
    pub(super) lane: Lane,
}

/// Why an event is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// The word in the metrics.
    pub(super) name: &'static str,
    /// The service's code; empty if it said none, or was not asked.
    pub(super) code: String,
    /// One sentence.
    pub(super) text: String,
}

/// Who gives an event up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaker<'a> {
    pub(super) gateway: &'a GatewayId,
    pub(super) type_prefix: &'a str,
    /// The consumer's name.
    pub(super) sink: &'a str,
    /// The host of the service.
    pub(super) host: &'a str,
    pub(super) now_ms: u64,
}

/// What is told of an event that was given up.
#[derive(Serialize)]
struct Told<'a> {
    sink: &'a str,
    host: &'a str,
    log: String,
    epoch: u32,
    lane: Lane,
    seq: Seq,
    device: &'a str,
    topic: &'a str,
    reason: &'static str,
    code: &'a str,
    message: &'a str,
    received_ms: u64,
    payload_bytes: usize,
}

/// Makes the outputs for an event that is given up. They belong in one commit with the progress that passes it.
pub(super) fn bury(
    speaker: &Speaker<'_>,
    (place, seq): (Place, Seq),
    record: &Record<'_>,
    reason: &Reason,
) -> Encoded {
    let Speaker { gateway, type_prefix, sink, host, now_ms } = *speaker;
    let Place { log, epoch, lane } = place;
    let (mut outputs, mut scratch) = (Encoded::default(), Vec::new());
    let origin = Origin {
        gateway,
        log,
        epoch,
        lane,
        seq,
        target: &format!("{sink}/{host}"),
        reason: &reason.text,
        dead_ms: now_ms,
    };
    outputs.push(&dead_letter::entry(record, &origin, &mut scratch));
    let told = Told {
        sink,
        host,
        log: log.to_string(),
        epoch: epoch.0,
        lane,
        seq,
        device: record.device,
        topic: record.topic,
        reason: reason.name,
        code: &reason.code,
        message: &reason.text,
        received_ms: record.received_ms,
        payload_bytes: record.payload.len(),
    };
    let id = format!("{gateway}/{log}/{epoch}/{}/{seq}/{sink}", lane.number());
    let name = (id, format!("{type_prefix}.alerts.dead-letter.v1"));
    let attributes = Attributes {
        device: Some(record.device),
        tenant: record.properties.tenant,
        traceparent: record.properties.traceparent,
        ..Attributes::default()
    };
    let event = CloudEvent::new(gateway.as_str(), name, "warning", now_ms, told).with(attributes);
    event.push(Lane::Status, gateway.as_str(), &mut outputs);
    outputs
}

// === impl Place ===

impl Place {
    pub(super) fn of(segment: &Segment) -> Self {
        Self { log: segment.log(), epoch: segment.epoch(), lane: segment.lane() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::outbox::Properties;

    #[test]
    fn a_refused_event_leaves_a_letter_and_word_of_it() {
        let gateway: GatewayId = "site-7".parse().unwrap();
        let speaker = Speaker {
            gateway: &gateway,
            type_prefix: "io.penstock",
            sink: "event-grid-ops",
            host: "t.example",
            now_ms: 1_700_000_000_500,
        };
        let record = Record {
            device: "pump-7",
            topic: "devices/pump-7/alerts",
            received_ms: 1_700_000_000_000,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties { tenant: Some("contoso"), ..Properties::default() },
            payload: b"{}",
        };
        let reason = Reason {
            name: "refused",
            code: "InputJsonInvalid".to_owned(),
            text: "it answered 400".to_owned(),
        };
        let place = Place { log: LogId(0xfeed), epoch: Epoch(3), lane: Lane::Alerts };
        let outputs = bury(&speaker, (place, Seq(9)), &record, &reason);
        assert_eq!(outputs.payloads(Lane::Dead), [("pump-7".to_owned(), b"{}".to_vec())]);
        let [(_, event)] = &outputs.payloads(Lane::Status)[..] else { panic!("one event") };
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_eq!(event["type"], "io.penstock.alerts.dead-letter.v1");
        assert_eq!(event["id"], "site-7/000000000000feed/3/0/9/event-grid-ops");
        assert_eq!((&event["deviceid"], &event["tenant"]), (&json!("pump-7"), &json!("contoso")));
        let data = json!({
            "sink": "event-grid-ops", "host": "t.example", "log": "000000000000feed", "epoch": 3, "lane": "alerts",
            "seq": 9, "device": "pump-7", "topic": "devices/pump-7/alerts", "reason": "refused",
            "code": "InputJsonInvalid", "message": "it answered 400", "received_ms": 1_700_000_000_000_u64,
            "payload_bytes": 2,
        });
        assert_eq!(event["data"], data);
    }
}
