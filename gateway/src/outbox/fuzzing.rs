//! What the outbox finds on disk; see [`crate::fuzzing`]. The stand-in for a damaged disk is not random bytes
//! alone: with the checksum put right the fields behind it are read as well.

#[cfg(test)]
use penstock_proto::Lane;
use penstock_proto::Seq;

use super::keys::{
    Format, Head, Hole, MetaKey, Progress, decode_epoch, decode_log, encode_epoch, encode_log,
};
use super::record::{Records, UserProperties, parts};
use super::segment::{Segment, with_checksum};
use super::sidecar;
use crate::fuzzing::Decoder;

/// The decoders of this stage.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "outbox_segment", decode: segment, weight: 16 },
    Decoder { name: "outbox_records", decode: records, weight: 16 },
    Decoder { name: "outbox_sidecar", decode: sidecar_slot, weight: 8 },
    Decoder { name: "outbox_meta", decode: meta, weight: 8 },
];

/// A stored segment, as it is and with its checksum put right.
fn segment(bytes: &[u8]) {
    check_segment(bytes);
    check_segment(&with_checksum(bytes));
}

fn check_segment(stored: &[u8]) {
    let Ok(segment) = Segment::decode(stored) else { return };
    let count = segment.records().count();
    assert_eq!(u32::try_from(count), Ok(segment.count()));
    assert_eq!(segment.records().next().map(|(seq, _)| seq), Some(segment.first()));
    assert_eq!(segment.records().last().map(|(seq, _)| seq), Some(segment.last()));
    assert!(segment.records_from(segment.last()).count() == 1);
    assert!(Segment::decode_at(segment.lane(), segment.first(), stored).is_ok());
    assert!(Segment::decode_at(segment.lane(), Seq::ZERO, stored).is_err());
}

/// The body of a segment: records.
fn records(body: &[u8]) {
    assert!(UserProperties::new(body).is_none_or(|user| user.iter().count() <= body.len()));
    let Ok(count) = Records::check(body) else { return };
    let records = Records::new(body, Seq(1));
    let mut bytes = 0;
    for (place, (seq, record)) in (1..).zip(records) {
        assert_eq!(seq, Seq(place));
        bytes += record.payload.len() + record.device.len() + record.topic.len();
        assert!(record.properties.user.iter().count() <= body.len());
    }
    assert!(bytes <= body.len());
    let cut: u32 = parts(body, 64, 2).map(|(_, count)| count).sum();
    assert_eq!(cut, count);
}

/// A slot of the sidecar, as it is and with its checksum put right.
fn sidecar_slot(bytes: &[u8]) {
    let _mark = sidecar::decode(bytes);
    let mut slot = bytes.to_vec();
    slot.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    if let Some((write, mark)) = sidecar::decode(&slot) {
        let again = sidecar::decode(&sidecar::encode(write, &mark));
        assert!(again.is_some_and(|(other, again)| other == write && again == mark));
    }
}

/// A key and every kind of value of the family `meta`.
fn meta(bytes: &[u8]) {
    if let Some(key) = MetaKey::decode(bytes) {
        assert_eq!(key.encode(), bytes);
    }
    // Values may have more of a later version behind them, except for the state of a consumer.
    let begins = |value: &[u8]| bytes.starts_with(value);
    assert!(Format::decode(bytes).is_none_or(|format| begins(&format.encode())));
    assert!(decode_log(bytes).is_none_or(|log| begins(&encode_log(log))));
    assert!(decode_epoch(bytes).is_none_or(|epoch| begins(&encode_epoch(epoch))));
    assert!(Head::decode(bytes).is_none_or(|head| begins(&head.encode())));
    assert!(Hole::decode(bytes).is_none_or(|hole| begins(&hole.encode())));
    assert!(Progress::decode(bytes).is_none_or(|progress| progress.encode() == bytes));
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    use penstock_proto::{Epoch, LogId};

    use super::config::BodyCodec;
    use super::keys::HoleReason;
    use super::segment::{Compressed, HEADER_LEN, Header};

    let body = sample_records();
    let count = Records::check(&body).expect("records");
    let header = Header {
        lane: Lane::Telemetry,
        log: LogId(7),
        epoch: Epoch(2),
        first: Seq(11),
        count,
        raw_len: u32::try_from(body.len()).expect("a small body"),
        bytes_before: 5,
        committed_ms: 1_790_000_000_000,
    };
    let seal = |codec, body: &[u8], count| {
        let raw_len = u32::try_from(body.len()).expect("a small body");
        let mut stored = Compressed::default();
        let room = [&[0; HEADER_LEN], body].concat();
        let (segment, compressed) =
            Segment::seal(Header { count, raw_len, ..header }, room, codec, &mut stored);
        if compressed { stored.stored().to_vec() } else { segment.stored_as_is().to_vec() }
    };
    let mark = sidecar::Mark { log: LogId(7), epoch: Epoch(2), next: [1, 2, 3, 4, 5].map(Seq) };
    match name {
        "outbox_segment" => {
            let large = body.repeat(40);
            vec![seal(BodyCodec::None, &body, count), seal(BodyCodec::Lz4, &large, 40 * count)]
        }
        "outbox_records" => vec![body],
        "outbox_sidecar" => {
            let slot = sidecar::encode(9, &mark);
            vec![slot.get(..slot.len() - 4).expect("a checksum").to_vec(), slot]
        }
        "outbox_meta" => vec![
            MetaKey::Format.encode(),
            MetaKey::Head(Lane::Dead).encode(),
            MetaKey::Progress(Lane::Telemetry, "uplink".to_owned()).encode(),
            MetaKey::Hole(Lane::Bulk, Seq(9)).encode(),
            Format { writer_version: 2, min_reader_version: 1 }.encode(),
            encode_log(LogId(7)),
            encode_epoch(Epoch(2)),
            Head { first: Seq(3), bytes_before: 8 }.encode(),
            Progress { low: Seq(3), floor: Seq(2), bytes_before: 8, state: b"state".to_vec() }.encode(),
            Hole { end: Seq(9), at_ms: 5, epoch: Epoch(1), reason: HoleReason::Damaged }.encode(),
        ],
        _ => Vec::new(),
    }
}

/// Two records, one of them with every property.
#[cfg(test)]
fn sample_records() -> Vec<u8> {
    use super::record::{Encoded, Entry, Properties};

    let mut user = Vec::new();
    UserProperties::push(&mut user, "name", "value");
    UserProperties::push(&mut user, "", "");
    let properties = Properties {
        tenant: Some("t"),
        site: Some("s"),
        class: Some("c"),
        stream: Some("x"),
        content_type: Some("text/plain"),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        tracestate: Some("a=b"),
        response_topic: Some("answers"),
        correlation_data: Some(b"id"),
        expiry_seconds: Some(60),
        device_time_ms: Some(1_790_000_000_000),
        user: UserProperties::new(&user).expect("user properties"),
    };
    let entry = Entry {
        lane: Lane::Telemetry,
        device: "device-1",
        topic: "devices/device-1/telemetry",
        received_ms: 1_790_000_000_000,
        qos: 2,
        retain: true,
        clock_synced: true,
        properties,
        payload: b"21.5",
    };
    let mut encoded = Encoded::default();
    encoded.push(&entry);
    encoded.push(&Entry { properties: Properties::default(), payload: b"", ..entry });
    Lane::Telemetry.pick(encoded.lanes()).bytes.clone()
}
