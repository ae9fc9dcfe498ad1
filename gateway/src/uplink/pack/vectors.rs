//! The test vectors for readers in any language, `docs/formats/vectors/packed-v1/`, are what the packer writes.
//!
//! With `PENSTOCK_UPDATE_DOCS=1` they are written anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

use penstock_proto::packed::{Payload, inflate, unpack};
use penstock_proto::{Identity, Seq, base64};
use serde_json::{Value, json};

use super::*;
use crate::outbox::{Properties, UserProperties};

const PREV: u64 = 1038;
const SEQS: [u64; 6] = [1039, 1041, 1042, 1050, 1051, 1060];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/vectors/packed-v1")
}

/// Payloads of each kind, and every property.
fn pack(format: PackFormat, compression: PackCompression) -> Pack {
    let mut user = Vec::new();
    UserProperties::push(&mut user, "unit", "\u{b0}C");
    let mut many = user.clone();
    UserProperties::push(&mut many, "unit", "K");
    let properties = Properties {
        tenant: Some("acme"),
        site: Some("north"),
        class: Some("press"),
        stream: Some("fast"),
        content_type: Some("application/json"),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        tracestate: Some("k=v"),
        device_time_ms: Some(1_699_999_999_000),
        user: UserProperties::new(&user).unwrap(),
        ..Properties::default()
    };
    let repeated = Properties { user: UserProperties::new(&many).unwrap(), ..Properties::default() };
    let bare = Properties::default();
    let records: [(&str, &[u8], Properties<'_>); SEQS.len()] = [
        ("press-7", b"{\"t\":21.5,\"ok\":true}", bare),
        ("press-7", b" {\n  \"t\": [1, 2],\r\n  \"note\": \"line\\nbreak\"\n}\n", properties),
        ("gr\u{f6}\u{df}e \"9\"", b"21.5 \xc2\xb0C;\t\"quoted\"\r\n", repeated),
        ("press-8", &[0, 0xff, 0xfe, 0x7f], bare),
        ("press-8", b"", bare),
        ("press-7", b"\"\\ud800 is no character\"", bare),
    ];
    let mut pack = Pack::new(format, compression);
    pack.begin(Seq(SEQS[0]));
    for ((seq, (device, payload, properties)), step) in SEQS.into_iter().zip(records).zip(0..) {
        let received_ms = 1_700_000_000_123 + 500 * step;
        let record = Record {
            device,
            topic: "devices/press/telemetry",
            received_ms,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties,
            payload,
        };
        pack.push(Seq(seq), &record);
    }
    pack
}

fn entries(pack: &Pack, identity: &Identity, value: &[u8]) -> Vec<Value> {
    let body = inflate(pack.header().compression, value).unwrap();
    let entries = unpack(&pack.header(), identity, &body).unwrap();
    let entry = |entry: &penstock_proto::packed::Entry<'_>| {
        let mut value = json!({
            "seq": entry.seq, "device": entry.device, "topic": entry.topic, "received_ms": entry.received_ms,
        });
        let (name, payload) = match &entry.payload {
            Payload::Json(text) => ("json", (*text).to_owned()),
            Payload::Text(text) => ("text", text.to_string()),
            Payload::Binary(bytes) => {
                let mut text = Vec::new();
                base64::push(&mut text, bytes);
                ("base64", String::from_utf8(text).unwrap())
            }
        };
        value[name] = payload.into();
        value
    };
    entries.iter().map(entry).collect()
}

fn name(pack: &Pack) -> String {
    format!("{}-{}.bin", pack.header().format.name(), pack.header().compression.name())
}

fn identity(last: u64, prev: u64) -> Identity {
    format!("site-7/00c0ffee12345678/3/2/{last}/{prev}/l").parse().unwrap()
}

/// Everything in the folder: names and contents.
fn fresh() -> Vec<(String, Vec<u8>)> {
    let (mut files, mut index) = (Vec::new(), Vec::new());
    let last = SEQS[SEQS.len() - 1];
    for format in PackFormat::ALL {
        for compression in PackCompression::ALL {
            let mut pack = pack(format, compression);
            let value = pack.finish().unwrap().to_vec();
            let identity = identity(last, PREV);
            index.push(json!({
                "file": name(&pack), "penstock": identity.to_string(), "penstock_pack": pack.header().to_string(),
                "entries": entries(&pack, &identity, &value),
            }));
            files.push((name(&pack), value));
        }
    }
    // What must be refused: sound values under other headers.
    for (file, seq, prev, pack) in [
        ("ndjson-none.bin", last, PREV, "1/ndjson/none/1039/5"),
        ("ndjson-none.bin", last, PREV, "1/ndjson/none/1039/7"),
        ("ndjson-none.bin", last + 1, PREV, "1/ndjson/none/1039/6"),
        ("ndjson-none.bin", last, PREV - 1, "1/ndjson/none/1038/6"),
        ("ndjson-none.bin", last, 1039, "1/ndjson/none/1039/6"),
        ("ndjson-none.bin", last, PREV, "1/json-array/none/1039/6"),
        ("ndjson-none.bin", last, PREV, "1/ndjson/gzip/1039/6"),
        ("ndjson-none.bin", last, PREV, "2/ndjson/none/1039/6"),
        ("protobuf-none.bin", last, PREV, "1/ndjson/none/1039/6"),
        ("ndjson-gzip.bin", last, PREV, "1/ndjson/deflate/1039/6"),
        ("json-array-deflate.bin", last, PREV, "1/json-array/none/1039/6"),
    ] {
        let penstock = identity(seq, prev).to_string();
        index.push(json!({"file": file, "penstock": penstock, "penstock_pack": pack, "error": true}));
    }
    let mut text = serde_json::to_vec_pretty(&index).unwrap();
    text.push(b'\n');
    files.push(("index.json".to_owned(), text));
    files
}

#[test]
fn the_vectors_are_what_the_packer_writes() {
    let fresh = fresh();
    if env::var_os("PENSTOCK_UPDATE_DOCS").is_some() {
        fs::create_dir_all(folder()).unwrap();
        fresh.iter().for_each(|(name, bytes)| fs::write(folder().join(name), bytes).unwrap());
    }
    for (name, bytes) in fresh {
        let kept = fs::read(folder().join(&name)).unwrap();
        // Another version of the compressor may find another spelling; then the content is compared.
        let same = kept == bytes || inflated(&name, &kept) == inflated(&name, &bytes);
        assert!(same, "{name} is not what the packer writes");
    }
}

fn inflated(name: &str, value: &[u8]) -> Option<Vec<u8>> {
    let compressions = PackCompression::ALL.into_iter().filter(|known| *known != PackCompression::None);
    let compression = compressions.into_iter().find(|known| name.contains(known.name()))?;
    Some(inflate(compression, value).unwrap().into_owned())
}
