//! The state of Sparkplug: as bytes and back, and the same again from the same messages.

use proptest::prelude::*;

use super::tahu::{Metric, Payload, Value};
use super::*;

const TYPES: [&str; 6] = ["NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA"];
const NAMES: [&str; 5] = ["bdSeq", "m", "Speed", "Line/Speed", "größe"];

/// A message: its topic, payload and time.
type Heard = (String, Vec<u8>, u64);

fn metric() -> impl Strategy<Value = Metric> {
    let value = prop_oneof![
        any::<f64>().prop_map(Value::Double),
        (0_u64..4).prop_map(Value::Long),
        any::<u32>().prop_map(Value::Int),
        Just(Value::None),
        Just(Value::Text("x".to_owned())),
    ];
    let name = prop::option::weighted(0.7, prop::sample::select(NAMES.to_vec()));
    let alias = prop::option::weighted(0.7, 0_u64..6);
    let timestamp = prop::option::of(RECEIVED_MS - 5..RECEIVED_MS + 5);
    let datatype = prop::option::of(0_u64..14);
    (name, alias, timestamp, datatype, any::<bool>(), any::<bool>(), value).prop_map(
        |(name, alias, timestamp, datatype, is_historical, is_null, value)| Metric {
            name: name.map(str::to_owned),
            alias,
            timestamp,
            datatype,
            is_historical,
            is_null: is_null && is_historical,
            value,
        },
    )
}

/// Messages of a few nodes and devices, whose sequence numbers are mostly in order.
fn messages() -> impl Strategy<Value = Vec<Heard>> {
    let kind = prop::sample::select(vec![0_usize, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 4, 5, 5, 5, 5]);
    let skip = prop_oneof![9 => Just(1_u8), 1 => 0_u8..5];
    let uuid = prop::option::weighted(0.03, Just("SPBV1.0_COMPRESSED"));
    let metrics = prop::collection::vec(metric(), 0..5);
    let one = (kind, 0_usize..3, 0_usize..3, skip, uuid, metrics, 0_u64..30_000);
    prop::collection::vec(one, 1..60).prop_map(|all| {
        let (mut seqs, mut now_ms) = ([0_u8; 3], 1_000);
        all.into_iter()
            .map(|(kind, node, device, skip, uuid, metrics, later_ms)| {
                now_ms += later_ms;
                seqs[node] = seqs[node].wrapping_add(skip);
                let device = if kind >= 3 { format!("/d{device}") } else { String::new() };
                let topic = format!("spBv1.0/g/{}/n{node}{device}", TYPES[kind]);
                let payload = Payload { uuid, ..Payload::new(seqs[node], metrics) };
                (topic, payload.encode(), now_ms)
            })
            .collect()
    })
}

/// Small enough that some messages meet the bounds.
const LIMITS: Limits = Limits { nodes: 2, metrics: 8, name_bytes: 40, bytes: 2_000 };

fn fresh() -> Reader {
    limited(&["m", "Speed", "d1/m", "größe"], LIMITS)
}

fn encoded(reader: &Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.encode(&mut bytes);
    bytes
}

/// What a message came to: with samples as metric, bits of the value, and time.
type Told = (Reading, Vec<(u16, u64, u64)>, Vec<Rebirth>);

/// What a reader makes of messages.
fn hear(reader: &mut Reader, messages: &[Heard]) -> Vec<Told> {
    let one = |(topic, payload, now_ms): &Heard| {
        let (reading, samples) = take(reader, &message(topic, payload), *now_ms);
        let bits = samples.into_iter().map(|(metric, value, at_ms)| (metric, value.to_bits(), at_ms));
        (reading, bits.collect(), reader.take_rebirths())
    };
    messages.iter().map(one).collect()
}

proptest! {
    #[test]
    fn a_reader_that_begins_in_the_middle_goes_on_as_the_other(messages in messages(), cut: prop::sample::Index) {
        let cut = cut.index(messages.len());
        let mut whole = fresh();
        let mut first = fresh();
        let before = hear(&mut first, &messages[..cut]);
        let bytes = encoded(&first);
        let mut second = fresh();
        prop_assert_eq!(second.decode(&bytes), Ok(()));
        prop_assert_eq!(encoded(&second), bytes);
        let after = hear(&mut second, &messages[cut..]);
        prop_assert_eq!(hear(&mut whole, &messages), [before, after].concat());
        prop_assert_eq!(encoded(&whole), encoded(&second));
        // What was found is counted: each message once.
        prop_assert_eq!(noted(whole.counts()), messages.len() as u64);
    }

    #[test]
    fn damaged_state_is_refused_or_is_a_state(
        messages in messages(),
        place: prop::sample::Index,
        byte: u8,
        cut: bool,
    ) {
        let mut reader = fresh();
        hear(&mut reader, &messages);
        let mut bytes = encoded(&reader);
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] = byte }
        match reader.decode(&bytes) {
            Ok(()) => prop_assert_eq!(encoded(&reader), bytes),
            Err(_) => prop_assert_eq!(encoded(&reader), encoded(&fresh())),
        }
        hear(&mut reader, &messages);
    }
}

#[test]
fn the_state_has_the_bytes_that_the_page_says() {
    let mut reader = reader(&["Speed"]);
    let born = |name, alias| Metric::born(name, alias, 10, Value::Double(1.0));
    let birth = Payload::new(3, vec![born("Speed", 7), Metric::born("bdSeq", 9, 4, Value::Long(2))]).encode();
    take(&mut reader, &message("spBv1.0/plant/NBIRTH/line-2", &birth), 0);
    let birth = Payload::new(4, vec![Metric { alias: None, ..born("m", 0) }]).encode();
    take(&mut reader, &message("spBv1.0/plant/DBIRTH/line-2/d", &birth), 0);
    take(&mut reader, &message("spBv1.0/a/NDATA/b", &Payload::new(1, vec![]).encode()), 5);
    let hex: String = encoded(&reader).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, EXAMPLE);
    let page = include_str!("../../../../../docs/formats/measurements.md");
    assert!(page.contains(EXAMPLE), "the page has {EXAMPLE}");
}

const EXAMPLE: &str = concat!(
    "01000200000003612f62010500000000000000000c706c616e742f6c696e652d32000101040000000000000001020000000000000000020000",
    "000553706565640a0000000562645365710400000002000000070000000000000000000000090000000000000001000000010000000164000100",
    "0000016d0a00000000000000",
);

#[test]
fn state_of_another_version_or_none_is_junk() {
    let mut reader = reader(&["m"]);
    assert_eq!(reader.decode(b"\x02\0\0\0\0\0"), Err(Junk::Version(2)));
    assert_eq!(reader.decode(b""), Err(Junk::Broken));
    assert_eq!(reader.decode(b"\x01\0\xff\xff\xff\xff"), Err(Junk::Broken));
    assert_eq!(reader.decode(b"\x01\0\0\0\0\0\0"), Err(Junk::Broken));
    assert_eq!(reader.decode(b"\x01\0\0\0\0\0"), Ok(()));
    assert!(Junk::Version(2).to_string().contains("version 2"));
}
