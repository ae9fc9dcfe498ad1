//! What is packed is what is read.

use penstock_proto::Identity;
use penstock_proto::packed::{BODY_BYTES_MAX, Entry, Payload, inflate, unpack};
use penstock_proto::wire::{Message as _, v1};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::outbox::{Properties, UserProperties};

fn record<'a>(payload: &'a [u8], properties: Properties<'a>) -> Record<'a> {
    Record {
        device: "press-7",
        topic: "devices/press-7/telemetry",
        received_ms: 1_700_000_000_123,
        qos: 1,
        retain: false,
        clock_synced: true,
        properties,
        payload,
    }
}

fn user(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    pairs.iter().for_each(|(name, value)| UserProperties::push(&mut encoded, name, value));
    encoded
}

/// The one line of a pack with this record.
fn line(record: &Record<'_>) -> String {
    let mut pack = Pack::new(PackFormat::Ndjson, PackCompression::None);
    pack.begin(Seq(41));
    pack.push(Seq(41), record);
    String::from_utf8(pack.finish().unwrap().to_vec()).unwrap()
}

/// The identity of a finished pack.
fn identity(pack: &Pack) -> Identity {
    format!("g/00000000000000aa/1/2/{}/{}/l", pack.last(), pack.first().0 - 1).parse().unwrap()
}

#[test]
fn a_line_is_as_documented() {
    let plain = record(br#"{"t":21.5}"#, Properties::default());
    let expected = concat!(
        r#"{"seq":41,"device":"press-7","topic":"devices/press-7/telemetry","#,
        r#""received":"2023-11-14T22:13:20.123Z","payload":{"t":21.5}}"#,
        "\n"
    );
    assert_eq!(line(&plain), expected);
    let user = user(&[("unit", "C"), ("a\"b", "")]);
    let properties = Properties {
        tenant: Some("acme"),
        site: Some("north"),
        class: Some("press"),
        stream: Some("fast"),
        content_type: Some("application/json"),
        traceparent: Some("00-11-22-01"),
        tracestate: Some("k=v"),
        device_time_ms: Some(1_699_999_999_000),
        user: UserProperties::new(&user).unwrap(),
        ..Properties::default()
    };
    let expected = json!({
        "seq": 41, "device": "press-7", "topic": "devices/press-7/telemetry", "received": "2023-11-14T22:13:20.123Z",
        "device_time": "2023-11-14T22:13:19.000Z", "content_type": "application/json", "tenant": "acme",
        "site": "north", "class": "press", "stream": "fast", "traceparent": "00-11-22-01", "tracestate": "k=v",
        "user": {"unit": "C", "a\"b": ""}, "payload": 1,
    });
    assert_eq!(serde_json::from_str::<Value>(&line(&record(b"1", properties))).unwrap(), expected);
}

#[test]
fn user_properties_that_do_not_fit_an_object_are_a_list() {
    let check = |pairs: &[(&str, &str)], is_list: bool| {
        let encoded = user(pairs);
        let properties = Properties { user: UserProperties::new(&encoded).unwrap(), ..Properties::default() };
        let value: Value = serde_json::from_str(&line(&record(b"1", properties))).unwrap();
        let list: Vec<Value> =
            pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        assert_eq!(value.get("user").is_some(), !is_list);
        assert_eq!(value.get("user_list"), is_list.then_some(&Value::Array(list)));
    };
    check(&[("a", "1"), ("b", "1")], false);
    check(&[("a", "1"), ("b", "2"), ("a", "3")], true);
    let names: Vec<String> = (0..33).map(|name: u32| name.to_string()).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    check(&pairs[..32], false);
    check(&pairs, true);
}

#[test]
fn a_payload_is_carried_as_what_it_is() {
    let check = |payload: &[u8], expected: &str| {
        let text = line(&record(payload, Properties::default()));
        assert!(text.ends_with(&format!("Z\",{expected}}}\n")), "{text} {expected}");
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        assert_eq!(text.lines().count(), 1);
    };
    check(b"21.5", r#""payload":21.5"#);
    check(b" {\n \"a\":\r\n[1,\"\\n\"] }\n", "\"payload\":{  \"a\":  [1,\"\\n\"] }");
    check(b"21.5 C", r#""payload_text":"21.5 C""#);
    check(b"", r#""payload_text":"""#);
    check(b"a;\"b\"\r\n", r#""payload_text":"a;\"b\"\r\n""#);
    check(b"{\"a\":1", r#""payload_text":"{\"a\":1""#);
    check(b"\"\\ud800\"", r#""payload_text":"\"\\ud800\"""#);
    check(b"1e999", r#""payload_text":"1e999""#);
    check("\u{feff}{}".as_bytes(), "\"payload_text\":\"\u{feff}{}\"");
    check(b"a\x01b", r#""payload_base64":"YQFi""#);
    check(&[0xff, 0xfe], r#""payload_base64":"//4=""#);
    check(&[0], r#""payload_base64":"AA==""#);
    let deep = "[".repeat(2000);
    check(deep.as_bytes(), &format!("\"payload_text\":\"{deep}\""));
}

#[test]
fn a_pack_counts_and_is_used_again() {
    for format in PackFormat::ALL {
        for compression in PackCompression::ALL {
            let mut pack = Pack::new(format, compression);
            for round in 1..3_u64 {
                pack.begin(Seq(10 * round));
                assert_eq!((pack.count(), pack.bytes(), pack.first()), (0, 0, Seq(10 * round)));
                for step in [0, 1, 5] {
                    pack.push(Seq(10 * round + step), &record(b"{}", Properties::default()));
                    // One that is finished and could not be sent may still take more.
                    let unfinished = pack.bytes();
                    assert!(!pack.finish().unwrap().is_empty() && pack.bytes() <= unfinished + 1);
                }
                assert_eq!((pack.count(), pack.last()), (3, Seq(10 * round + 5)));
                let value = pack.finish().unwrap().to_vec();
                assert_eq!(pack.finish().unwrap(), value, "finished twice");
                let (header, identity) = (pack.header(), identity(&pack));
                let body = inflate(compression, &value).unwrap();
                assert_eq!(body.len(), pack.bytes());
                let entries = unpack(&header, &identity, &body).unwrap();
                let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq.0 - 10 * round).collect();
                assert_eq!(seqs, [0, 1, 5], "{header}");
            }
        }
    }
}

#[test]
fn the_generated_types_read_what_is_written_by_hand() {
    let pairs = [("unit", "C"), ("unit", ""), ("", "x")];
    let user = user(&pairs);
    let properties = Properties {
        tenant: Some("acme"),
        site: Some("north"),
        class: Some("press"),
        stream: Some(""),
        content_type: Some("application/json"),
        traceparent: Some("00-11-22-01"),
        tracestate: Some("k=v"),
        device_time_ms: Some(0),
        user: UserProperties::new(&user).unwrap(),
        ..Properties::default()
    };
    let text = |text: &str| Some(text.to_owned());
    let plain = v1::PackedEntry {
        seq: 41,
        device: "press-7".to_owned(),
        topic: "devices/press-7/telemetry".to_owned(),
        received_ms: 1_700_000_000_123,
        payload: vec![0xff; 300],
        ..v1::PackedEntry::default()
    };
    let full = v1::PackedEntry {
        seq: u64::MAX,
        tenant: text("acme"),
        site: text("north"),
        class: text("press"),
        stream: text(""),
        content_type: text("application/json"),
        traceparent: text("00-11-22-01"),
        tracestate: text("k=v"),
        device_time_ms: Some(0),
        user: pairs.map(|(name, value)| v1::UserProperty { name: name.into(), value: value.into() }).to_vec(),
        ..plain.clone()
    };
    let mut pack = Pack::new(PackFormat::Protobuf, PackCompression::None);
    pack.begin(Seq(41));
    pack.push(Seq(41), &record(&[0xff; 300], Properties::default()));
    pack.push(Seq(u64::MAX), &record(&[0xff; 300], properties));
    let read = v1::Packed::decode(pack.finish().unwrap()).unwrap();
    assert_eq!(read, v1::Packed { entries: vec![plain, full] });
}

#[test]
fn compression_is_what_the_header_says_and_makes_it_smaller() {
    for (compression, first_byte) in [(PackCompression::Gzip, Some(0x1f)), (PackCompression::Deflate, None)] {
        let mut pack = Pack::new(PackFormat::Ndjson, compression);
        pack.begin(Seq(1));
        for seq in 1..=3000 {
            let payload = format!("{{\"t\":{}}}", seq * 7919 % 1000);
            pack.push(Seq(seq), &record(payload.as_bytes(), Properties::default()));
        }
        let value = pack.finish().unwrap().to_vec();
        assert!(value.len() * 5 < pack.bytes(), "{} of {}", value.len(), pack.bytes());
        assert!(first_byte.is_none_or(|byte| value.first() == Some(&byte)));
        let body = inflate(compression, &value).unwrap();
        assert_eq!(unpack(&pack.header(), &identity(&pack), &body).unwrap().len(), 3000);
    }
}

// The largest `pack_bytes_max`, and one entry of the largest packet on top of it, lie below what a reader takes.
const _: () = assert!((900 << 10) + 2 * (1 << 20) < BODY_BYTES_MAX);

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "\\PC{0,100}|[\\x00-\\x7f]{0,100}|[\"\\\\\n]{0,3000}".prop_map(String::into_bytes),
        "\\{\"[a-z]{1,5}\":\n?\\[([0-9]{1,3}, ?){0,900}7\\]\\}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn what_is_packed_is_what_is_read(
        entries in prop::collection::vec((1_u64..9, "\\PC{0,20}|[\\x01-\\x7f]{0,20}", any::<u64>(), payload()), 1..8),
        texts in prop::array::uniform8(prop::option::of("\\PC{0,20}|[\\x01-\\x7f]{0,90}")),
        pairs in prop::collection::vec(("[a-c\\x01\"]{0,9}", "\\PC{0,400}|[\\x01-\\x7f]{0,400}"), 0..5),
        device_time in any::<Option<u64>>(),
        format in prop::sample::select(&PackFormat::ALL[..]),
        compression in prop::sample::select(&PackCompression::ALL[..]),
    ) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let user = user(&pairs);
        let [tenant, site, class, stream, content_type, traceparent, tracestate, topic] = &texts;
        let properties = Properties {
            tenant: tenant.as_deref(),
            site: site.as_deref(),
            class: class.as_deref(),
            stream: stream.as_deref(),
            content_type: content_type.as_deref(),
            traceparent: traceparent.as_deref(),
            tracestate: tracestate.as_deref(),
            device_time_ms: device_time,
            user: UserProperties::new(&user).unwrap(),
            ..Properties::default()
        };
        let records: Vec<Record<'_>> = entries.iter().map(|(_, device, received_ms, payload)| Record {
            device,
            topic: topic.as_deref().unwrap_or("t"),
            received_ms: *received_ms,
            ..record(payload, properties)
        }).collect();
        let seqs: Vec<u64> = entries.iter().scan(0, |at, (step, ..)| { *at += step; Some(*at) }).collect();
        let mut pack = Pack::new(format, compression);
        pack.begin(Seq(seqs[0]));
        for (seq, record) in seqs.iter().zip(&records) {
            let room = pack.bytes() + pack.entry_bytes(record);
            pack.push(Seq(*seq), record);
            // An array is closed by one byte more.
            prop_assert!(pack.bytes() < room || (pack.bytes() == room && format == PackFormat::Protobuf));
        }
        let value = pack.finish().unwrap().to_vec();
        let body = inflate(compression, &value).unwrap();
        prop_assert_eq!(body.len(), pack.bytes());
        let read = unpack(&pack.header(), &identity(&pack), &body).unwrap();
        prop_assert_eq!(read.len(), records.len());
        for ((read, record), seq) in read.iter().zip(&records).zip(seqs) {
            check(read, record, seq, format);
        }
    }
}

fn check(read: &Entry<'_>, record: &Record<'_>, seq: u64, format: PackFormat) {
    assert_eq!((read.seq.0, read.device.as_ref(), read.topic.as_ref()), (seq, record.device, record.topic));
    if format == PackFormat::Protobuf {
        assert_eq!((read.received_ms, read.payload.bytes()), (record.received_ms, record.payload));
        return;
    }
    assert_eq!(read.received_ms, record.received_ms.min(penstock_proto::text::TIME_MS_MAX));
    match &read.payload {
        Payload::Json(text) => {
            let published: Value = serde_json::from_slice(record.payload).unwrap();
            assert_eq!(serde_json::from_str::<Value>(text).unwrap(), published);
        }
        other => assert_eq!(other.bytes(), record.payload),
    }
}
