//! What devices may send and what a snapshot may hold; see [`crate::fuzzing`].

use super::times::Times;
use super::{Message, Reader, Reading, Refused};
use crate::alerts::nouns::Sample;
use crate::fuzzing::Decoder;

/// The decoders of this folder.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "measure_json", decode: json, weight: 8 },
    Decoder { name: "measure_telemetry", decode: telemetry, weight: 8 },
    Decoder { name: "measure_sparkplug", decode: sparkplug, weight: 8 },
    Decoder { name: "measure_state", decode: state, weight: 8 },
];

const METRICS: [&str; 8] = ["$", "a", "a.b", "values[1].v", "temperature", "pressure", "Speed", "d/Speed"];
const RECEIVED_MS: u64 = 1_790_000_000_000;

fn reader() -> Reader {
    let metrics = METRICS.map(Into::into);
    Reader::new(&metrics).with_time_path(Some("t"), &metrics)
}

/// Reads a payload; what is told holds together.
fn read(reader: &mut Reader, topic: &str, content_type: Option<&str>, payload: &[u8]) -> Reading {
    let times = Times { received_ms: RECEIVED_MS, stamped_ms: None };
    let message = Message { device: "device", topic, content_type, payload, times };
    let mut samples: Vec<Sample> = Vec::new();
    let reading = reader.take(&message, RECEIVED_MS, &mut samples);
    for sample in &samples {
        assert!(usize::from(sample.metric) < METRICS.len() && sample.value.is_finite());
        assert!(times.can_be(sample.at_ms), "{sample:?}");
    }
    assert!(samples.is_empty() || matches!(reading, Reading::Read(_)));
    reading
}

/// What is taken for JSON is JSON to `serde_json` too, and the other way round within the bounds.
fn json(bytes: &[u8]) {
    let reading = read(&mut reader(), "t", Some("application/json"), bytes);
    let known = std::str::from_utf8(bytes).ok().map(serde_json::from_str::<serde::de::IgnoredAny>);
    let known = known.is_some_and(|known| known.is_ok());
    match reading {
        Reading::Read(_) => assert!(known),
        Reading::Refused(Refused::TooDeep | Refused::Repeats | Refused::TooManySamples) => {}
        _ => assert!(!known, "{reading:?}"),
    }
}

/// What is taken for a reading is one to prost too, and the other way round but for deep groups.
fn telemetry(bytes: &[u8]) {
    use penstock_proto::wire::{Message as _, v1};

    let content_type = Some("application/x-protobuf; messageType=penstock.v1.Reading");
    let reading = read(&mut reader(), "t", content_type, bytes);
    if matches!(reading, Reading::Read(_)) {
        assert!(v1::Reading::decode(bytes).is_ok());
    }
}

/// A session of messages, each behind its type and its length; then the same again from a snapshot.
fn sparkplug(bytes: &[u8]) {
    const TOPICS: [&str; 7] =
        ["NBIRTH/n", "NDEATH/n", "NDATA/n", "DBIRTH/n/d", "DDEATH/n/d", "DDATA/n/d", "NCMD/n"];
    let mut reader = reader();
    let mut rest = bytes;
    while let Some(([kind, len], behind)) = rest.split_first_chunk::<2>() {
        let (payload, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = behind;
        let Some(topic) = TOPICS.get(usize::from(kind % 8)) else { continue };
        read(&mut reader, &format!("spBv1.0/g/{topic}"), None, payload);
    }
    let mut state = Vec::new();
    reader.encode(&mut state);
    assert_eq!(reader.decode(&state), Ok(()));
    let mut again = Vec::new();
    reader.encode(&mut again);
    assert_eq!(again, state);
}

/// A state that is taken up is written as it was; junk leaves nothing.
fn state(bytes: &[u8]) {
    let (mut reader, mut empty) = (reader(), Vec::new());
    reader.encode(&mut empty);
    let taken = reader.decode(bytes);
    let mut written = Vec::new();
    reader.encode(&mut written);
    assert_eq!(written, if taken.is_ok() { bytes } else { &empty });
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    use super::tests::tahu::{Metric, Payload, Value};

    let texts: &[&str] = match name {
        "measure_json" => &[
            r#"{"a":{"b":1.5e3},"t":1789999999.5,"values":[{"v":1},{"v":-0.25}],"a":true}"#,
            r#"[{"a":1,"t":"2026-09-21T14:13:19Z"},{"\u0061":2},[3]]"#,
            r#"{"a":NaN,"x":"\ud834\udd1e\n\\","y":null}"#,
            "-12.5",
            "[[[[[[[[1e999]]]]]]]]",
        ],
        _ => &[],
    };
    if name == "measure_telemetry" {
        let whole = b"\x0a\x07press-7\x10\x29\x18\xfb\xa0\xf5\xc4\x8c\x34\x21\0\0\0\0\0\x80\x35\x40\x29\0\0\0\0\0\x50\x59\x40\x31\0\0\0\0\0\0\xe0\xbf\x3a\x01x";
        return vec![whole.to_vec(), b"\x0b\x10\x05\x0c\x21\0\0\0\0\0\0\xf8\x7f".to_vec()];
    }
    let born = |name: &str, alias| Metric::born(name, alias, 10, Value::Double(1.5));
    let session = [
        (0_u8, Payload::new(0, vec![born("Speed", 1), Metric::born("bdSeq", 2, 4, Value::Long(3))])),
        (3, Payload::new(1, vec![born("Speed", 4)])),
        (5, Payload::new(2, vec![Metric::aliased(4, Value::Double(2.5))])),
        (
            2,
            Payload::new(
                3,
                vec![Metric::aliased(1, Value::Int(7)), Metric::named("Speed", Value::Float(0.5))],
            ),
        ),
        (2, Payload::new(5, vec![Metric::aliased(1, Value::Long(7))])),
        (4, Payload::new(6, vec![])),
    ];
    let heard: Vec<u8> = session
        .iter()
        .flat_map(|(kind, payload)| {
            let payload = payload.encode();
            [vec![*kind, u8::try_from(payload.len()).expect("a short payload")], payload].concat()
        })
        .collect();
    match name {
        "measure_sparkplug" => vec![heard, b"\x02\x02\x18\x01\x00\x00".to_vec()],
        "measure_state" => {
            let mut reader = reader();
            let mut states = Vec::new();
            for (kind, payload) in &session {
                let topic = ["NBIRTH/n", "", "NDATA/n", "DBIRTH/n/d", "DDEATH/n/d", "DDATA/n/d"];
                let topic = topic.get(usize::from(*kind)).expect("a type");
                read(&mut reader, &format!("spBv1.0/g/{topic}"), None, &payload.encode());
                states.push(Vec::new());
                states.last_mut().into_iter().for_each(|state| reader.encode(state));
            }
            states
        }
        _ => texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken seeds alone would lead nowhere.
    #[test]
    fn the_first_seed_of_every_decoder_is_valid() {
        let first = |name| fuzzing_seeds(name).into_iter().next().expect("a seed");
        let json = read(&mut reader(), "t", None, &first("measure_json"));
        assert!(matches!(json, Reading::Read(_)));
        let content_type = Some("application/protobuf; messageType=penstock.v1.Reading");
        let telemetry = read(&mut reader(), "t", content_type, &first("measure_telemetry"));
        assert!(matches!(telemetry, Reading::Read(_)));
        assert_eq!(reader().decode(&first("measure_state")), Ok(()));
        for decoder in DECODERS {
            let seeds = fuzzing_seeds(decoder.name);
            assert!(!seeds.is_empty(), "{}", decoder.name);
            seeds.iter().for_each(|seed| (decoder.decode)(seed));
        }
    }
}
