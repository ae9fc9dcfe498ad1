//! The Kafka and AMQP decoders and the one of events on bytes of any kind, in tests and under cargo-fuzz only. A decoder
//! passes if it returns and what it found lies inside the bytes.

use bytes::{Bytes, BytesMut};

use crate::amqp::{FrameKind, Performative, Reader, Sasl, Sections, Value, next_frame};
use crate::eventgrid::judge_event;
use crate::protocol::{
    ApiKey, RequestHeader, batch, fetch, init_producer_id, list_offsets, metadata, produce, sasl,
};

/// Gives bytes to the decoder of that name.
///
/// # Panics
///
/// If there is none, or if it panics.
pub fn decode(name: &str, bytes: &[u8]) {
    let decoder = DECODERS.iter().find(|(known, _, _)| *known == name);
    let (_, decode, _) = decoder.expect("a decoder of that name");
    decode(bytes);
}

/// A name, a decoder, and its share of the cases.
type Decoder = (&'static str, fn(&[u8]), u64);

const DECODERS: &[Decoder] = &[
    ("kafka_request", request, 3),
    ("kafka_batch", record_batch, 1),
    ("amqp_frame", amqp_frames, 2),
    ("amqp_message", amqp_message, 2),
    ("cloud_event", cloud_event, 1),
];

/// An event as a publisher sends it. What is good is good again when it is written anew.
fn cloud_event(bytes: &[u8]) {
    if let Ok(event) = judge_event(bytes) {
        let again = event.into_value().to_string();
        assert!(judge_event(again.as_bytes()).is_ok(), "{again}");
    }
}

/// What a client sends over AMQP. What was decoded is encoded to what decodes to the same.
fn amqp_frames(bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    let mut taken = 0;
    while let Ok(Some(frame)) = next_frame(&mut input, 1 << 16) {
        taken += frame.body.len() + 8;
        assert!(taken + input.len() <= bytes.len());
        if frame.kind == FrameKind::Sasl {
            let Ok(sasl) = Sasl::decode(&frame.body) else { continue };
            let mut output = Vec::new();
            sasl.encode(&mut output);
            assert!(next_frame(&mut BytesMut::from(&*output), usize::MAX).is_ok_and(|frame| frame.is_some()));
        } else if let Ok((performative, payload)) = Performative::decode(&frame.body) {
            assert!(payload.len() < frame.body.len());
            let mut output = Vec::new();
            performative.value().encode(&mut output);
            let again = Performative::decode(&Bytes::from(output)).map(|(performative, _)| performative);
            assert_eq!(format!("{again:?}"), format!("Ok({performative:?})"));
        }
    }
}

/// A message as a client sends it, alone or in a batch, and the values in it.
fn amqp_message(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(value) = reader.value() {
        assert!(reader.position() <= bytes.len());
        value_survives(&value);
    }
    if let Ok(sections) = Sections::decode(bytes) {
        assert!(sections.body.len() <= sections.bare.len() && sections.bare.len() <= bytes.len());
        for message in sections.data().unwrap_or_default() {
            drop(Sections::decode(&message));
        }
    }
}

fn value_survives(value: &Value) {
    let mut output = Vec::new();
    value.encode(&mut output);
    let mut reader = Reader::new(&output);
    let again = reader.value().expect("it was encoded here");
    // Not by `==`, for which a NaN is not itself.
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
    assert!(reader.is_empty());
}

/// A frame as a client sends it, with the header it has; and its body under every header there is.
fn request(frame: &[u8]) {
    if let Ok(header) = RequestHeader::decode(frame) {
        assert!(header.body <= frame.len());
        body(frame, header.api, header.version, header.body);
    }
    for api in ApiKey::ALL {
        for version in api.versions() {
            body(frame, api, version, 0);
        }
    }
}

fn body(frame: &[u8], api: ApiKey, version: i16, at: usize) {
    match api {
        ApiKey::Produce => {
            let Ok(request) = produce::Request::decode(frame, at) else { return };
            for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
                let Some(records) = &partition.records else { continue };
                let records = frame.get(records.clone()).expect("the batch lies in the frame");
                record_batch(records);
            }
        }
        ApiKey::Fetch => {
            let Ok(request) = fetch::Request::decode(frame, at, version) else { return };
            assert!(request.topics.len() <= frame.len());
        }
        ApiKey::ListOffsets => {
            let Ok(request) = list_offsets::Request::decode(frame, at, version) else { return };
            assert!(request.topics.len() <= frame.len());
        }
        ApiKey::Metadata => {
            let Ok(request) = metadata::Request::decode(frame, at, version) else { return };
            assert!(request.topics.is_none_or(|topics| topics.len() <= frame.len()));
        }
        ApiKey::InitProducerId => drop(init_producer_id::Request::decode(frame, at)),
        ApiKey::SaslHandshake => drop(sasl::decode_handshake(frame, at)),
        ApiKey::SaslAuthenticate => {
            let Ok(token) = sasl::decode_authenticate(frame, at) else { return };
            let _parts = sasl::plain_token(token);
        }
        ApiKey::ApiVersions => {}
    }
}

/// What a producer sent for a partition, as it is and with its checksum put right.
fn record_batch(bytes: &[u8]) {
    check(bytes);
    let mut fixed = bytes.to_vec();
    let Some((head, covered)) = fixed.split_at_mut_checked(21) else { return };
    let sum = crc32c::crc32c(covered).to_be_bytes();
    if let Some(place) = head.get_mut(17..) {
        place.copy_from_slice(&sum);
    }
    check(&fixed);
}

fn check(bytes: &[u8]) {
    if let Ok(header) = batch::check(bytes, 1 << 20) {
        assert_eq!(header.bytes, bytes.len());
        assert!(header.records > 0 && header.last_offset_delta == header.records - 1);
        let mut stored = bytes.to_vec();
        batch::assign_offset(&mut stored, 7);
        let again = batch::BatchHeader::decode(&stored).expect("it was checked");
        assert_eq!(again.last_offset(), 7 + i64::from(header.last_offset_delta));
        assert!(batch::checksum_fits(&stored), "the offset is not covered");
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use testkit::fuzz::{Plan, Target, replay, run};

    use super::{ApiKey, DECODERS};

    /// Cases of a normal test run: less than a second.
    const CASES: u64 = 50_000;

    fn frame(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.put_i16(api.code());
        frame.put_i16(version);
        frame.put_i32(1);
        frame.put_slice(b"\0\x06client");
        if api == ApiKey::ApiVersions && version >= 3 {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        frame
    }

    fn batch() -> Vec<u8> {
        let mut batch = Vec::new();
        batch.put_i64(0);
        batch.put_i32(49 + 7);
        batch.put_i32(0);
        batch.put_i8(2);
        batch.put_u32(0);
        batch.put_i16(0);
        batch.put_i32(0);
        batch.put_i64(1_790_000_000_000);
        batch.put_i64(1_790_000_000_000);
        batch.put_i64(9);
        batch.put_i16(0);
        batch.put_i32(0);
        batch.put_i32(1);
        batch.put_slice(b"\x0c\0\0\0\x01\x01\0");
        batch
    }

    fn requests() -> Vec<Vec<u8>> {
        let batch = batch();
        let mut records = b"\xff\xff\xff\xff\0\0\x75\x30\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x02".to_vec();
        records.put_i32(i32::try_from(batch.len()).unwrap());
        records.put_slice(&batch);
        let fetched = b"\xff\xff\xff\xff\0\0\x01\xf4\0\0\0\x01\0\x10\0\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x05\0\x10\0\0";
        vec![
            frame(ApiKey::Produce, 7, &records),
            frame(ApiKey::Fetch, 4, fetched),
            frame(
                ApiKey::ListOffsets,
                1,
                b"\xff\xff\xff\xff\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
            frame(ApiKey::Metadata, 0, b"\0\0\0\x01\0\x01t"),
            frame(ApiKey::Metadata, 5, b"\xff\xff\xff\xff\0"),
            frame(ApiKey::ApiVersions, 3, b"\x02k\x021\0"),
            frame(ApiKey::InitProducerId, 1, b"\xff\xff\0\0\x75\x30"),
            frame(ApiKey::SaslHandshake, 1, b"\0\x05PLAIN"),
            frame(ApiKey::SaslAuthenticate, 1, b"\0\0\0\x0d\0user\0password"),
            b"\x7f\xff\0\0\0\0\0\x01\xff\xff".to_vec(),
        ]
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    const EVENT: &[u8] =
        br#"{"specversion":"1.0","id":"1","source":"/gw","type":"t","time":"2026-11-20T21:00:00.1Z",
        "dataschema":"urn:a:b","datacontenttype":"a/b; c=d","severity":13,"data":{"a":[1,null,"x"]}}"#;

    /// Frames of Microsoft's Python client.
    fn amqp_traces() -> Vec<Vec<u8>> {
        crate::amqp::traces::FRAMES.iter().map(|frame| hex(frame)).collect()
    }

    #[test]
    fn random_bytes_never_make_a_decoder_of_the_stand_in_panic() {
        let targets = DECODERS.iter().map(|&(name, decode, weight)| {
            let seeds = match name {
                "kafka_batch" => vec![batch()],
                "amqp_frame" => amqp_traces(),
                "cloud_event" => vec![EVENT.to_vec()],
                "amqp_message" => vec![hex(crate::amqp::traces::MESSAGE)],
                _ => requests(),
            };
            Target { name, decode, seeds, weight }
        });
        let (targets, mut plan): (Vec<_>, _) = (targets.collect(), Plan::from_environment(10 * CASES));
        // What the environment says is meant for the gateway, which has ten times as many decoders.
        plan.cases /= 10;
        if let Some(file) = &plan.replay {
            replay(&targets, file).expect("the case of a decoder");
            return;
        }
        println!("PENSTOCK_FUZZ_SEED={} PENSTOCK_FUZZ_CASES={}", plan.seed, plan.cases);
        let outcome = run(&targets, &plan);
        println!("{outcome}");
        assert!(outcome.failures.is_empty(), "{} kinds of panics", outcome.failures.len());
    }
}
