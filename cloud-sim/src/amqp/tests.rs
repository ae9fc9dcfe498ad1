use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::traces;
use super::{
    Attach, DecodeError, Disposition, ErrorInfo, FrameKind, Header, Open, Performative, Reader, Sasl,
    Sections, SettleMode, State, Terminus, Value, next_frame,
};

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn decode(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = reader.value()?;
    assert!(reader.is_empty(), "bytes are left over");
    Ok(value)
}

#[track_caller]
fn check(bytes: &[u8], expected: Value) {
    assert_eq!(decode(bytes), Ok(expected.clone()));
    let mut reader = Reader::new(bytes);
    assert_eq!(reader.skip(), Ok(bytes), "skipping ends elsewhere");
    let mut output = Vec::new();
    expected.encode(&mut output);
    assert_eq!(decode(&output), Ok(expected));
}

#[test]
fn values_of_the_standard_are_read() {
    check(b"\xa1\x1eHello Glorious Messaging World", Value::string("Hello Glorious Messaging World"));
    check(
        b"\x00\xa1\x03URL\xa1\x1ehttp://example.org/hello-world",
        Value::Described(Box::new((Value::string("URL"), Value::string("http://example.org/hello-world")))),
    );
    // The book of part 1, section 1.5.
    let authors = vec![Value::string("Rob J. Godfrey"), Value::string("Rafael H. Schloming")];
    let book = vec![Value::string("AMQP for & by Dummies"), Value::Array(authors), Value::Null];
    check(
        b"\x00\xa3\x11example:book:list\xc0\x40\x03\xa1\x15AMQP for & by Dummies\xe0\x25\x02\xa1\x0eRob J. Godfrey\x13Rafael H. Schloming\x40",
        Value::Described(Box::new((Value::symbol("example:book:list"), Value::List(book)))),
    );
}

#[test]
fn every_width_is_read() {
    check(b"\x40", Value::Null);
    check(b"\x41", Value::Bool(true));
    check(b"\x56\x00", Value::Bool(false));
    check(b"\x43", Value::Uint(0));
    check(b"\x52\xff", Value::Uint(255));
    check(b"\x70\0\0\x01\0", Value::Uint(256));
    check(b"\x44", Value::Ulong(0));
    check(b"\x80\0\0\0\0\0\0\x01\0", Value::Ulong(256));
    check(b"\x54\xff", Value::Int(-1));
    check(b"\x71\x80\0\0\0", Value::Int(i32::MIN));
    check(b"\x55\x80", Value::Long(-128));
    check(b"\x81\x80\0\0\0\0\0\0\0", Value::Long(i64::MIN));
    check(b"\x83\0\0\0\0\0\0\0\x01", Value::Timestamp(1));
    check(b"\x73\0\0\x20\xac", Value::Char('€'));
    check(b"\x45", Value::List(Vec::new()));
    check(b"\xc0\x01\x00", Value::List(Vec::new()));
    check(b"\xc1\x03\x02\x40\x41", Value::Map(vec![(Value::Null, Value::Bool(true))]));
    check(b"\xb0\0\0\0\x01\x07", Value::Binary(Bytes::from_static(b"\x07")));
    check(b"\xe0\x02\x00\x41", Value::Array(Vec::new()));
}

#[test]
fn what_is_not_amqp_is_refused() {
    for (bytes, error) in [
        (&b""[..], DecodeError::Truncated),
        (b"\x70\0\0", DecodeError::Truncated),
        (b"\x99", DecodeError::UnknownType(0x99)),
        (b"\xa1\x01\xff", DecodeError::Text),
        (b"\x73\0\0\xd8\0", DecodeError::Text),
        (b"\x56\x02", DecodeError::Wrong("a boolean")),
        // A list of four thousand million nothings, an array of as many, a map of one and a half pairs.
        (b"\xd0\0\0\0\x04\xff\xff\xff\xff", DecodeError::Count),
        (b"\xf0\0\0\0\x05\xff\xff\xff\xff\x40", DecodeError::Count),
        (b"\xc1\x04\x03\x40\x40\x40", DecodeError::Count),
        (b"\xc0\x03\x01\x40\x40", DecodeError::LeftOver),
    ] {
        assert_eq!(decode(bytes), Err(error), "{bytes:02x?}");
    }
    let list = |inner: Vec<u8>| [&[0xc0, u8::try_from(inner.len() + 1).unwrap(), 1], &*inner].concat();
    let deep = (0..40).fold(b"\x40".to_vec(), |inner, _| list(inner));
    assert_eq!(decode(&deep), Err(DecodeError::TooDeep));
    let deep = (0..30).fold(b"\x40".to_vec(), |inner, _| list(inner));
    assert!(decode(&deep).is_ok());
    let nested = [b"\x00".repeat(100), b"\x40".to_vec()].concat();
    assert_eq!(decode(&nested), Err(DecodeError::TooDeep));
}

fn performative(trace: &str) -> Performative {
    let mut input = BytesMut::from(&*hex(trace));
    let frame = next_frame(&mut input, 65_536).unwrap().unwrap();
    assert!(input.is_empty() && frame.kind == FrameKind::Amqp && frame.channel == 0);
    let (performative, payload) = Performative::decode(&frame.body).unwrap();
    assert!(payload.is_empty());
    performative
}

#[test]
fn frames_of_the_python_client_are_read() {
    let open = Open {
        container: "c-1".to_owned(),
        hostname: Some("127.0.0.1".to_owned()),
        frame_bytes_max: 65_536,
        channel_max: 65_535,
        idle_ms: Some(240_000),
        properties: vec![(Value::symbol("product"), Value::string("t"))],
    };
    assert_eq!(performative(traces::OPEN), Performative::Open(open));

    let Performative::Attach(attach) = performative(traces::ATTACH) else { panic!("not an attach") };
    let session = "com.microsoft:session-filter";
    let filter = vec![(Value::symbol(session), Value::string("dev-1"))];
    let expected = Attach {
        name: "l".to_owned(),
        handle: 3,
        receiver: true,
        sender_settles: SettleMode(0),
        receiver_settles: SettleMode(1),
        source: Some(Terminus::source("amqps://127.0.0.1:5672/q", filter)),
        target: Some(Terminus::target("t")),
        initial_delivery_count: None,
        message_bytes_max: None,
        properties: vec![(Value::symbol("com.microsoft:timeout"), Value::Uint(60_000))],
    };
    assert_eq!(*attach, expected);
    assert_eq!(attach.source.unwrap().filter(session), Some(&Value::string("dev-1")));

    let disposition = |state| {
        let state = Some(state);
        Performative::Disposition(Disposition {
            receiver: true,
            first: 5,
            last: Some(5),
            settled: true,
            state,
        })
    };
    let abandoned = State::Modified { failed: true, undeliverable: false };
    assert_eq!(performative(traces::ABANDON), disposition(abandoned));
    let info = [("DeadLetterReason", "bad"), ("DeadLetterErrorDescription", "worse")];
    let error = ErrorInfo {
        condition: "com.microsoft:dead-letter".to_owned(),
        description: None,
        info: info.map(|(name, text)| (Value::symbol(name), Value::string(text))).to_vec(),
    };
    assert_eq!(performative(traces::DEAD_LETTER), disposition(State::Rejected(Some(error))));
}

#[test]
fn a_message_of_the_python_client_is_taken_apart() {
    let bytes = hex(traces::MESSAGE);
    let sections = Sections::decode(&bytes).unwrap();
    assert_eq!(sections.header, Header { durable: false, ttl_ms: Some(1_000), delivery_count: 0 });
    assert_eq!(sections.annotations, [(Value::symbol("x-opt-partition-key"), Value::string("p"))]);
    assert_eq!(sections.properties.message_id, Some(Value::string("m1")));
    assert_eq!(sections.properties.group_id.as_deref(), Some("dev-1"));
    assert_eq!(sections.application, [(Value::string("a"), Value::Int(1))]);
    assert_eq!(sections.data().unwrap(), [Bytes::from_static(b"hello")]);
    assert_eq!(
        [sections.properties_bytes, sections.application_bytes, sections.body].concat(),
        sections.bare
    );
    assert!(bytes.ends_with(sections.bare));
}

#[test]
fn sections_come_once_and_in_their_order() {
    let section = |code, value| {
        let mut output = Vec::new();
        Value::described(code, value).encode(&mut output);
        output
    };
    let data = section(0x75, Value::Binary(Bytes::from_static(b"x")));
    let properties = section(0x73, Value::List(Vec::new()));
    assert_eq!(Sections::decode(&[&*properties, &*data, &*data].concat()).unwrap().data().unwrap().len(), 2);
    for wrong in [[&*data, &*properties], [&*properties, &*properties], [b"\x40", b"\x40"]] {
        assert!(matches!(Sections::decode(&wrong.concat()), Err(DecodeError::Wrong(_))));
    }
}

#[test]
fn a_frame_waits_for_its_last_byte_and_must_be_of_a_possible_size() {
    let bytes = hex(traces::OPEN);
    for length in 0..bytes.len() {
        let mut input = BytesMut::from(&bytes[..length]);
        assert_eq!(next_frame(&mut input, 65_536), Ok(None), "{length} bytes");
    }
    let refused = |bytes: &[u8]| next_frame(&mut BytesMut::from(bytes), 65_536).unwrap_err();
    assert_eq!(refused(b"\0\x01\0\x01\x02\0\0\0"), DecodeError::FrameSize(65_537));
    assert_eq!(refused(b"\0\0\0\x07\x02\0\0\0"), DecodeError::FrameSize(7));
    assert_eq!(refused(b"\0\0\0\x08\x03\0\0\0"), DecodeError::FrameSize(8));
    assert_eq!(refused(b"\0\0\0\x08\x01\0\0\0"), DecodeError::FrameSize(8));
    assert_eq!(refused(b"\0\0\0\x08\x02\x02\0\0"), DecodeError::FrameKind(2));
}

#[test]
fn lists_are_sent_in_full_length() {
    let length = |performative: &Performative| match performative.value() {
        Value::Described(described) => described.1.items().len(),
        _ => 0,
    };
    let traces = [(traces::OPEN, 10), (traces::ATTACH, 14), (traces::ABANDON, 6)];
    for (trace, fields) in traces {
        assert_eq!(length(&performative(trace)), fields);
    }
}

#[test]
fn sasl_frames_survive() {
    for sasl in [
        Sasl::Mechanisms(vec!["PLAIN".to_owned(), "ANONYMOUS".to_owned()]),
        Sasl::Init { mechanism: "PLAIN".to_owned(), response: Some(Bytes::from_static(b"\0a\0b")) },
        Sasl::Outcome(1),
    ] {
        let mut output = Vec::new();
        sasl.encode(&mut output);
        let frame = next_frame(&mut BytesMut::from(&*output), 512).unwrap().unwrap();
        assert_eq!((frame.kind, Sasl::decode(&frame.body)), (FrameKind::Sasl, Ok(sasl)));
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u8>().prop_map(Value::Ubyte),
        any::<u16>().prop_map(Value::Ushort),
        any::<u32>().prop_map(Value::Uint),
        any::<u64>().prop_map(Value::Ulong),
        any::<i8>().prop_map(Value::Byte),
        any::<i16>().prop_map(Value::Short),
        any::<i32>().prop_map(Value::Int),
        any::<i64>().prop_map(Value::Long),
        (-1e9..1e9f32).prop_map(Value::Float),
        (-1e9..1e9f64).prop_map(Value::Double),
        any::<char>().prop_map(Value::Char),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Binary(bytes.into())),
        ".{0,80}".prop_map(Value::String),
        "[a-z:.-]{0,20}".prop_map(Value::Symbol),
        any::<[u8; 8]>().prop_map(|bytes| Value::Decimal(Bytes::copy_from_slice(&bytes))),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::Map),
            (scalar(), inner.clone())
                .prop_map(|(descriptor, value)| Value::Described(Box::new((descriptor, value)))),
            vec(any::<i64>(), 1..6)
                .prop_map(|items| Value::Array(items.into_iter().map(Value::Long).collect())),
            vec(vec(inner, 0..3).prop_map(Value::List), 0..3).prop_map(Value::Array),
        ]
    })
}

proptest! {
    #[test]
    fn values_survive(value in value()) {
        let mut output = Vec::new();
        value.encode(&mut output);
        assert_eq!(decode(&output), Ok(value));
        assert_eq!(Reader::new(&output).skip(), Ok(&*output));
    }

    #[test]
    fn a_value_cut_short_is_truncated(value in value(), at in any::<proptest::sample::Index>()) {
        let mut output = Vec::new();
        value.encode(&mut output);
        let cut = &output[..at.index(output.len())];
        assert!(Reader::new(cut).value().is_err());
    }
}
