//! What the outbox itself has to say to the cloud: CloudEvents in its own lanes.
//!
//! An event is appended in the same synced batch as the change it reports, so that neither exists
//! without the other.

use penstock_proto::{Epoch, Lane, LogId};
use serde::Serialize;

use super::cloud_event::CloudEvent;
use super::config::BodyCodec;
use super::incident::{Cause, RangeReport};
use super::record::Encoded;
use super::recovery::LaneEnds;
use super::segment::{Compressed, HEADER_LEN, Header, Segment};

const TYPE_PREFIX: &str = "io.penstock.outbox";

/// What an event reports.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Event {
    /// Acknowledged entries are gone.
    RangeMissing {
        cause: Cause,
        /// How many positions are gone.
        missing: u64,
        ranges: Vec<RangeReport>,
        salvaged: Vec<RangeReport>,
        /// Whether `ranges` is known to be all.
        proven: bool,
        /// The folder with report and evidence.
        incident: String,
    },
    /// Entries were let go to make room for newer ones.
    Dropped {
        range: RangeReport,
        /// How many of the range no consumer had confirmed.
        dropped: u64,
        /// Bytes of the whole range, uncompressed.
        bytes: u64,
        reason: &'static str,
    },
    /// A consumer is no longer in the configuration, and its progress is deleted.
    ConsumerRemoved { consumer: String, lane: &'static str, low: u64, backlog: u64 },
}

/// Who speaks, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaker<'a> {
    pub(super) gateway: &'a str,
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
    pub(super) now_ms: u64,
}

impl Event {
    const fn name(&self) -> &'static str {
        match self {
            Self::RangeMissing { .. } => "range-missing",
            Self::Dropped { .. } => "dropped",
            Self::ConsumerRemoved { .. } => "consumer-removed",
        }
    }

    const fn severity(&self) -> &'static str {
        match self {
            Self::RangeMissing { .. } => "critical",
            Self::Dropped { .. } => "warning",
            Self::ConsumerRemoved { .. } => "info",
        }
    }

    /// The lanes that carry it: what an operator must see is an alert, and everything is a record
    /// for the books.
    pub(super) const fn lanes(&self) -> &'static [Lane] {
        match self {
            Self::RangeMissing { .. } => &[Lane::Alerts, Lane::Status],
            Self::Dropped { .. } | Self::ConsumerRemoved { .. } => &[Lane::Status],
        }
    }

    /// Segments with `events`, one per lane concerned; `lanes` move behind them.
    pub(super) fn segments(
        events: &[Self],
        speaker: Speaker<'_>,
        lanes: &mut [LaneEnds; Lane::COUNT],
    ) -> Vec<Segment> {
        let ends = Lane::ALL.into_iter().zip(lanes);
        ends.filter_map(|(lane, ends)| Self::segment(events, lane, speaker, ends)).collect()
    }

    /// A segment of `lane` that holds `events` and nothing else; `ends` moves behind it.
    fn segment(events: &[Self], lane: Lane, speaker: Speaker<'_>, ends: &mut LaneEnds) -> Option<Segment> {
        let mut encoded = Encoded::default();
        for (place, event) in (0_u64..).zip(events.iter().filter(|event| event.lanes().contains(&lane))) {
            let event = event.envelope(speaker, &format!("{lane}/{}", ends.next.0 + place));
            event.push(lane, speaker.gateway, &mut encoded);
        }
        let records = encoded.lanes().get(lane.index()).filter(|records| records.count > 0)?;
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend_from_slice(&records.bytes);
        let header = Header {
            lane,
            log: speaker.log,
            epoch: speaker.epoch,
            first: ends.next,
            count: records.count,
            raw_len: u32::try_from(records.bytes.len()).ok()?,
            bytes_before: ends.bytes,
            committed_ms: speaker.now_ms,
        };
        (ends.next, ends.bytes) = (header.end(), header.bytes_after());
        let (segment, _) = Segment::seal(header, bytes, BodyCodec::None, &mut Compressed::default());
        Some(segment)
    }

    fn envelope<'a>(&'a self, speaker: Speaker<'a>, place: &str) -> CloudEvent<'a, &'a Self> {
        let Speaker { gateway, log, epoch, now_ms } = speaker;
        // The identity of the entry: sent again, it is the same event.
        let id = format!("{gateway}/{log}/{epoch}/{place}");
        let kind = format!("{TYPE_PREFIX}.{}.v1", self.name());
        CloudEvent::new(gateway, (id, kind), self.severity(), now_ms, self)
    }
}

#[cfg(test)]
mod tests {
    use penstock_proto::Seq;

    use super::super::incident::Range;
    use super::super::keys::Head;
    use super::*;

    fn speaker() -> Speaker<'static> {
        Speaker { gateway: "site-7", log: LogId(0xabc), epoch: Epoch(4), now_ms: 1_700_000_000_123 }
    }

    #[test]
    fn events_are_cloudevents_in_their_lanes() {
        let range = Range { lane: Lane::Telemetry, first: Seq(5), end: Seq(9) };
        let missing = Event::RangeMissing {
            cause: Cause::ShortLog,
            missing: 4,
            ranges: vec![range.report()],
            salvaged: Vec::new(),
            proven: true,
            incident: "quarantine/1".to_owned(),
        };
        let events = [missing];
        for lane in [Lane::Alerts, Lane::Status] {
            let mut ends =
                LaneEnds { head: Head { first: Seq(1), bytes_before: 0 }, next: Seq(7), bytes: 70 };
            let segment = Event::segment(&events, lane, speaker(), &mut ends).expect("it goes to this lane");
            assert_eq!((segment.first(), ends.next), (Seq(7), Seq(8)));
            let again = Segment::decode_at(lane, Seq(7), segment.stored_as_is()).expect("sound");
            let (_, record) = again.records().next().expect("one record");
            let event: serde_json::Value = serde_json::from_slice(record.payload).expect("JSON");
            assert_eq!(event["type"], "io.penstock.outbox.range-missing.v1");
            assert_eq!(event["time"], "2023-11-14T22:13:20.123Z");
            assert_eq!(event["severity"], "critical");
            assert_eq!(event["data"]["cause"], "short-log");
            assert_eq!(event["data"]["ranges"][0]["last"], 8);
            assert_eq!(record.topic, "gateways/site-7/events");
        }
        let mut ends = LaneEnds { head: Head { first: Seq(1), bytes_before: 0 }, next: Seq(7), bytes: 70 };
        assert!(Event::segment(&events, Lane::Telemetry, speaker(), &mut ends).is_none());
        assert_eq!(ends.next, Seq(7));
    }
}
