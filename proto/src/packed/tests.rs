//! Unpacking of what is sound, and of everything else.

use proptest::prelude::*;

use super::*;
use crate::wire::{Message as _, v1};
use crate::{Identity, Seq};

fn identity(prev: u64, seq: u64) -> Identity {
    format!("g/00000000000000aa/1/2/{seq}/{prev}/l").parse().unwrap()
}

fn header(format: Format, first: u64, count: u32) -> Header {
    Header { format, compression: Compression::None, first: Seq(first), count }
}

fn line(seq: u64, more: &str) -> String {
    format!(r#"{{"seq":{seq},"device":"d","topic":"t","received":"1970-01-01T00:00:00.007Z",{more}}}"#)
}

fn entry(seq: u64, payload: Payload<'_>) -> Entry<'_> {
    Entry { seq: Seq(seq), device: "d".into(), topic: "t".into(), received_ms: 7, payload }
}

/// A protobuf field with bytes.
fn sized(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn message(seq: u8, payload: &[u8]) -> Vec<u8> {
    [vec![1 << 3, seq], sized(2, b"d"), sized(3, b"t"), vec![4 << 3, 7], sized(5, payload)].concat()
}

#[test]
fn every_format_gives_the_same_entries() {
    let check = |format, body: &[u8], expected: &[Entry<'_>]| {
        let entries = unpack(&header(format, 5, 2), &identity(4, 8), body);
        assert_eq!(entries.as_deref(), Ok(expected), "{format:?}");
    };
    let (first, last) = (line(5, r#""payload":{"a" : [1]}"#), line(8, r#""payload_text":"a\nb","site":{}"#));
    let expected = [entry(5, Payload::Json(r#"{"a" : [1]}"#)), entry(8, Payload::Text("a\nb".into()))];
    check(Format::Ndjson, format!("{first}\n{last}\n").as_bytes(), &expected);
    check(Format::JsonArray, format!("[{first},{last}]").as_bytes(), &expected);
    check(Format::JsonArray, format!(" [ {first}\n, {last} ]\n").as_bytes(), &expected);
    let binary = line(8, r#""payload_base64":"/wA=""#);
    let expected = [entry(5, Payload::Binary(b"x".into())), entry(8, Payload::Binary([0xff, 0][..].into()))];
    let first = line(5, r#""payload_base64":"eA==""#);
    check(Format::Ndjson, format!("{first}\n{binary}\n").as_bytes(), &expected);
    let unknown = sized(9, b"later");
    let body =
        [sized(1, &message(5, b"x")), unknown.clone(), sized(1, &[message(8, &[0xff, 0]), unknown].concat())];
    check(Format::Protobuf, &body.concat(), &expected);
}

#[test]
fn what_the_generated_types_write_is_read() {
    let entry_of = |seq, payload: &[u8]| v1::PackedEntry {
        seq,
        device: "d".to_owned(),
        topic: "t".to_owned(),
        received_ms: 7,
        payload: payload.to_vec(),
        device_time_ms: Some(0),
        content_type: Some("c".to_owned()),
        user: vec![v1::UserProperty { name: "n".to_owned(), value: "v".to_owned() }],
        ..v1::PackedEntry::default()
    };
    let packed = v1::Packed { entries: vec![entry_of(5, b"x"), entry_of(u64::MAX, b"")] };
    let body = packed.encode_to_vec();
    let entries = unpack(&header(Format::Protobuf, 5, 2), &identity(4, u64::MAX), &body).unwrap();
    let payload = |bytes: &'static [u8]| Payload::Binary(bytes.into());
    assert_eq!(entries, [entry(5, payload(b"x")), entry(u64::MAX, payload(b""))]);
}

#[test]
fn names_are_read_however_they_are_spelled() {
    let text = r#" {"s\u0065q" : 5, "device":"\u00e9\"", "topic":"t","received":"1970-01-01T00:00:00Z","payload":null} "#;
    let read = Entry::from_json(text).unwrap();
    assert_eq!((read.seq, read.device.as_ref(), read.received_ms), (Seq(5), "é\"", 0));
    assert_eq!(read.payload, Payload::Json("null"));
}

#[test]
fn an_entry_without_a_part_or_with_one_twice_is_bad() {
    let check = |text: &str, expected| assert_eq!(Entry::from_json(text).unwrap_err(), expected, "{text}");
    check("[]", EntryError::NotAnObject);
    check("{} {}", EntryError::NotAnObject);
    check("{}", EntryError::Part("seq"));
    check(&line(0, r#""payload":1"#), EntryError::Part("seq"));
    check(&line(1, r#""payload":1,"payload_text":"1""#), EntryError::Part("payload_text"));
    check(&line(1, r#""payload":1,"payload":1"#), EntryError::Part("payload"));
    check(&line(1, r#""payload_base64":"x""#), EntryError::Part("payload_base64"));
    check(&line(1, r#""x":1"#), EntryError::Part("payload"));
    check(&line(1, r#""payload":1,"device":"d""#), EntryError::Part("device"));
    check(&line(1, r#""payload":1"#).replace("\"t\"", "2"), EntryError::Part("topic"));
    check(&line(1, r#""payload":1"#).replace("1970", "70"), EntryError::Part("received"));
    let message = |bytes: &[u8]| Entry::from_protobuf(bytes).unwrap_err();
    assert_eq!(message(&[]), EntryError::Part("seq"));
    assert_eq!(message(&[2 << 3 | 2, 9]), EntryError::NotAMessage);
    assert_eq!(message(&[1 << 3, 1, 2 << 3 | 2, 1, 0xff]), EntryError::Part("device"));
    assert_eq!(message(&[1 << 3 | 2, 0]), EntryError::Part("seq"));
}

#[test]
fn a_body_that_is_not_what_the_headers_say_is_bad() {
    let two = format!("{}\n{}\n", line(5, r#""payload":1"#), line(8, r#""payload":2"#));
    let check = |header: &Header, identity: &Identity, body: &str, expected| {
        assert_eq!(unpack(header, identity, body.as_bytes()).unwrap_err(), expected);
    };
    let ndjson = |first, count| header(Format::Ndjson, first, count);
    check(&ndjson(5, 3), &identity(4, 8), &two, UnpackError::Order { place: 1, seq: Seq(8) });
    check(&ndjson(5, 3), &identity(4, 9), &two, UnpackError::Count { found: 2, said: 3 });
    check(&ndjson(5, 2), &identity(4, 9), &two, UnpackError::Order { place: 1, seq: Seq(8) });
    check(&ndjson(4, 2), &identity(3, 8), &two, UnpackError::Order { place: 0, seq: Seq(5) });
    check(&ndjson(5, 1), &identity(4, 5), &two, UnpackError::Count { found: 2, said: 1 });
    check(&ndjson(5, 2), &identity(4, 8), two.trim_end(), UnpackError::Format("ndjson"));
    check(&ndjson(5, 2), &identity(4, 8), "", UnpackError::Format("ndjson"));
    check(&header(Format::JsonArray, 5, 2), &identity(4, 8), &two, UnpackError::Format("json-array"));
    check(&header(Format::JsonArray, 5, 2), &identity(4, 8), "[]", UnpackError::Format("json-array"));
    check(&header(Format::Protobuf, 5, 2), &identity(4, 8), &two, UnpackError::Format("protobuf"));
    let not_object = UnpackError::Entry { place: 1, why: EntryError::NotAnObject };
    check(&ndjson(5, 2), &identity(4, 8), &two.replace("{\"seq\":8", "{\"seq\":"), not_object);
    let repeated = two.replace(":8,", ":5,");
    check(&ndjson(5, 2), &identity(4, 8), &repeated, UnpackError::Order { place: 1, seq: Seq(5) });
    assert!(matches!(unpack(&ndjson(5, 2), &identity(5, 8), b""), Err(UnpackError::Header(_))));
}

fn deflate(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(1));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_stream_must_be_whole_and_nothing_behind_it() {
    let body: Vec<u8> = (0..60_000_u32).flat_map(|number| (number * 7919).to_be_bytes()).collect();
    for (compression, value) in [(Compression::Gzip, gzip(&body)), (Compression::Deflate, deflate(&body))] {
        let bad = Err(UnpackError::Inflate(compression.name()));
        assert_eq!(inflate(compression, &value).as_deref(), Ok(body.as_slice()));
        assert_eq!(inflate(compression, &value[..value.len() - 1]), bad);
        assert_eq!(inflate(compression, &[&value[..], b"x"].concat()), bad);
        assert_eq!(inflate(compression, b""), bad);
        assert_eq!(inflate(compression, &body), bad);
    }
}

#[test]
fn a_bomb_is_refused_in_bounded_memory() {
    let zeros = vec![0; BODY_BYTES_MAX + 1];
    for (compression, whole, above) in [
        (Compression::None, zeros[1..].to_vec(), zeros.clone()),
        (Compression::Gzip, gzip(&zeros[1..]), gzip(&zeros)),
        (Compression::Deflate, deflate(&zeros[1..]), deflate(&zeros)),
    ] {
        assert_eq!(inflate(compression, &whole).map(|body| body.len()), Ok(BODY_BYTES_MAX));
        assert_eq!(inflate(compression, &above), Err(UnpackError::TooLarge));
    }
}

proptest! {
    #[test]
    fn junk_is_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:0-9a-z \\n]{0,60}", count in 1_u32..4,
    ) {
        for format in Format::ALL {
            for body in [&bytes[..], text.as_bytes()] {
                let entries = unpack(&header(format, 5, count), &identity(4, if count == 1 { 5 } else { 99 }), body);
                prop_assert!(entries.is_err() || body.len() > 2);
            }
        }
        for compression in Compression::ALL {
            drop(inflate(compression, &bytes));
        }
        drop(Entry::from_json(&text));
        drop(Entry::from_protobuf(&bytes));
    }

    #[test]
    fn one_changed_byte_never_panics(at in 0_usize..300, to: u8) {
        let json = format!("{}\n{}\n", line(5, r#""payload":{"a":1}"#), line(8, r#""payload_base64":"/wA=""#));
        let message = [sized(1, &message(5, b"x")), sized(1, &message(8, &[0xff, 0]))].concat();
        for (format, mut body) in [(Format::Ndjson, json.into_bytes()), (Format::Protobuf, message)] {
            if let Some(byte) = body.get_mut(at) {
                *byte = to;
            }
            if let Ok(entries) = unpack(&header(format, 5, 2), &identity(4, 8), &body) {
                prop_assert_eq!((entries.len(), entries[0].seq, entries[1].seq), (2, Seq(5), Seq(8)));
            }
        }
    }
}
