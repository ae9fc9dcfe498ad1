//! The contracts that leave the process: whoever reads them back reads what anybody may have written.

use penstock_proto::packed::{self, BODY_BYTES_MAX, Compression, Entry, Format, Header};
use penstock_proto::{Identity, Lane, Seq, base64, json, text};

use super::Decoder;

/// The decoders of `penstock-proto`.
pub(super) const DECODERS: &[Decoder] = &[
    Decoder { name: "identity", decode: identity, weight: 8 },
    Decoder { name: "packed_header", decode: packed_header, weight: 8 },
    Decoder { name: "packed_inflate", decode: packed_inflate, weight: 2 },
    Decoder { name: "packed_ndjson", decode: packed_ndjson, weight: 4 },
    Decoder { name: "packed_json_array", decode: packed_json_array, weight: 4 },
    Decoder { name: "packed_protobuf", decode: packed_protobuf, weight: 4 },
    Decoder { name: "json", decode: json_values, weight: 8 },
    Decoder { name: "base64", decode: base64_text, weight: 8 },
    Decoder { name: "text", decode: numbers_and_times, weight: 8 },
];

/// What was read is written as it was.
fn identity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(identity) = text.parse::<Identity>() else { return };
    let mut written = Vec::new();
    identity.push(&mut written);
    assert_eq!(written, bytes);
    assert_eq!(identity.to_string(), text);
    assert!(identity.prev < identity.seq);
}

fn packed_header(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(header) = text.parse::<Header>() else { return };
    let mut written = Vec::new();
    header.push(&mut written);
    assert_eq!(written, bytes);
    assert_eq!(header.to_string(), text);
}

fn packed_inflate(bytes: &[u8]) {
    for compression in Compression::ALL {
        if let Ok(body) = packed::inflate(compression, bytes) {
            assert!(body.len() <= BODY_BYTES_MAX);
        }
    }
}

fn packed_ndjson(bytes: &[u8]) {
    unpack(Format::Ndjson, bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_entry(Entry::from_json(text).ok());
    }
}

fn packed_json_array(bytes: &[u8]) {
    unpack(Format::JsonArray, bytes);
}

fn packed_protobuf(bytes: &[u8]) {
    unpack(Format::Protobuf, bytes);
    check_entry(Entry::from_protobuf(bytes).ok());
}

fn check_entry(entry: Option<Entry<'_>>) {
    if let Some(entry) = entry {
        // Reading a payload twice gives the same.
        assert_eq!(entry.payload.bytes(), entry.payload.bytes());
    }
}

/// Reads the body under headers that might be those of it: of one entry to five.
fn unpack(format: Format, body: &[u8]) {
    for (first, last, count) in [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 9, 3), (7, 20, 5)] {
        let header = Header { format, compression: Compression::None, first: Seq(first), count };
        let identity = Identity { seq: Seq(last), prev: Seq(first - 1), ..sample_identity() };
        if let Ok(entries) = packed::unpack(&header, &identity, body) {
            assert_eq!(entries.len(), usize::try_from(count).unwrap_or(0));
            assert!(entries.windows(2).all(|pair| matches!(pair, [one, two] if one.seq < two.seq)));
        }
    }
}

fn sample_identity() -> Identity {
    Identity {
        gateway: "site-1".parse().expect("a gateway's name"),
        log: penstock_proto::LogId(0x1234_5678_9abc_def0),
        epoch: penstock_proto::Epoch(3),
        lane: Lane::Telemetry,
        seq: Seq(1),
        prev: Seq::ZERO,
        stream: penstock_proto::Stream::Live,
    }
}

/// Whatever is taken for a value, `serde_json` takes for one too.
fn json_values(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let plain = json::plain_len(bytes);
    assert!(plain <= bytes.len());
    let mut escaped = vec![b'"'];
    json::push_escaped(&mut escaped, text);
    escaped.push(b'"');
    let escaped = String::from_utf8(escaped).expect("escapes are ASCII");
    assert_eq!(json::unescape(&escaped).as_deref(), Some(text));
    assert!(json::scan_whole(&escaped).is_some());
    if let Some(found) = json::scan(text) {
        let value = text.get(found.start..found.end).expect("a value begins and ends with characters");
        let known: Result<serde_json::Value, _> = serde_json::from_str(value);
        assert!(known.is_ok(), "{value:?}");
        if value.starts_with('"') {
            assert_eq!(
                json::unescape(value).as_deref(),
                known.ok().as_ref().and_then(|known| known.as_str())
            );
        }
    }
}

/// What was decoded is encoded as it was.
fn base64_text(bytes: &[u8]) {
    let mut encoded = Vec::new();
    base64::push(&mut encoded, bytes);
    assert_eq!(encoded.len(), base64::encoded_len(bytes.len()));
    let encoded = String::from_utf8(encoded).expect("base64 is ASCII");
    assert_eq!(base64::decode(&encoded).as_deref(), Some(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(decoded) = base64::decode(text) {
        let mut again = Vec::new();
        base64::push(&mut again, &decoded);
        assert_eq!(again, bytes);
    }
}

/// Numbers and times, there and back.
fn numbers_and_times(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(number) = text::parse_decimal(text) {
        let mut again = Vec::new();
        text::push_decimal(&mut again, number);
        assert_eq!(again, bytes);
    }
    if let Some(time) = text::parse_time_ms(text) {
        let mut again = Vec::new();
        text::TimeText::default().push(&mut again, time);
        let again = String::from_utf8(again).expect("times are ASCII");
        assert_eq!(text::parse_time_ms(&again), Some(time.min(text::TIME_MS_MAX)));
    }
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(super) fn seeds(name: &str) -> Vec<Vec<u8>> {
    let deep = "[".repeat(70);
    let texts: &[&str] = match name {
        "identity" => &[
            "site-1/123456789abcdef0/3/2/17/16/l",
            "a/0000000000000000/0/0/1/0/b",
            "site-1/123456789abcdef0/4294967295/4/18446744073709551615/18446744073709551614/l",
            "///////",
            "a/0000000000000000/01/0/1/0/b",
        ],
        "packed_header" => &["1/ndjson/none/1/1", "1/json-array/gzip/7/3", "1/protobuf/deflate/1/4294967295"],
        "packed_ndjson" => &[ENTRY, TWO_ENTRIES, "\n", "{}\n"],
        "packed_json_array" => &[ARRAY, "[]", "[{}]", " [ ] "],
        "json" => &[
            r#"{"a": [1, -2.5e3, true, null, "x\u00e9\ud834\udd1e\n"], "b": {}}"#,
            r#""\ud800""#,
            "1e309",
            "-",
            &deep,
            "\"\u{1}\"",
        ],
        "base64" => &["", "QQ==", "QUI=", "QUJD", "QR==", "====", "+/+/"],
        "text" => &[
            "0",
            "18446744073709551615",
            "18446744073709551616",
            "2026-11-21T05:58:00.123Z",
            "1970-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "2024-02-29T12:00:00.1Z",
            "0000-00-00T00:00:00Z",
        ],
        _ => &[],
    };
    if name == "packed_inflate" {
        return compressed();
    }
    let binary: &[&[u8]] = match name {
        "packed_protobuf" => &[
            b"\x0a\x1a\x08\x01\x12\x08device-1\x1a\x03a/b\x20\x90\x4e\x2a\x0421.5",
            b"\x0a\x02\x08\x01\x0a\x02\x08\x02",
            b"\x0a\xff\xff\xff\xff\x0f",
            b"\x08\x01\x12\x08device-1\x1a\x03a/b\x20\x90\x4e\x2a\x0421.5",
        ],
        _ => &[],
    };
    texts.iter().map(|text| text.as_bytes()).chain(binary.iter().copied()).map(<[u8]>::to_vec).collect()
}

/// A body of two entries in both compressions.
#[cfg(test)]
fn compressed() -> Vec<Vec<u8>> {
    use std::io::Write as _;

    use flate2::write::{DeflateEncoder, GzEncoder};

    let body = TWO_ENTRIES.as_bytes();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut deflate = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body).and_then(|()| deflate.write_all(body)).expect("memory can be written");
    let made = [gzip.finish(), deflate.finish()].map(|made| made.expect("memory can be written"));
    for (compression, made) in [Compression::Gzip, Compression::Deflate].into_iter().zip(&made) {
        assert_eq!(packed::inflate(compression, made).as_deref(), Ok(body));
    }
    made.to_vec()
}

#[cfg(test)]
const ENTRY: &str = concat!(
    r#"{"seq":1,"device":"d","topic":"a/b","received":"2026-11-21T05:58:00.123Z","payload":{"t":21.5}}"#,
    "\n"
);
#[cfg(test)]
const TWO_ENTRIES: &str = concat!(
    r#"{"seq":1,"device":"d","topic":"a/b","received":"2026-11-21T05:58:00.123Z","payload_text":"x\n"}"#,
    "\n",
    r#"{"seq":2,"device":"d","topic":"a/b","received":"2026-11-21T05:58:00.123Z","payload_base64":"QQ=="}"#,
    "\n"
);
#[cfg(test)]
const ARRAY: &str = concat!(
    r#"[{"seq":1,"device":"d","topic":"a/b","received":"2026-11-21T05:58:00.123Z","payload":1},"#,
    r#"{"seq":2,"device":"d","topic":"a/b","received":"2026-11-21T05:58:00.123Z","payload":[]}]"#
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken seeds alone would lead nowhere.
    #[test]
    fn the_first_seed_of_every_contract_is_valid() {
        let first = |name| seeds(name).into_iter().next().expect("a seed");
        let text = |name| String::from_utf8(first(name)).expect("text");
        assert!(text("identity").parse::<Identity>().is_ok());
        assert!(text("packed_header").parse::<Header>().is_ok());
        assert!(json::scan_whole(&text("json")).is_some());
        for (name, format, count) in [
            ("packed_ndjson", Format::Ndjson, 1),
            ("packed_json_array", Format::JsonArray, 2),
            ("packed_protobuf", Format::Protobuf, 1),
        ] {
            let header = Header { format, compression: Compression::None, first: Seq(1), count };
            let identity = Identity { seq: Seq(count.into()), ..sample_identity() };
            let body = first(name);
            let entries = packed::unpack(&header, &identity, &body).expect(name);
            assert_eq!(entries.len(), usize::try_from(count).unwrap());
        }
        assert!(!seeds("packed_inflate").is_empty());
    }
}
