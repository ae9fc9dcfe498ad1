//! The test vectors for readers in any language: `docs/formats/vectors/packed-v1/`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Entry, Header, Payload, inflate, unpack};
use crate::{Identity, base64};

/// One line of `index.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    file: String,
    penstock: String,
    penstock_pack: String,
    #[serde(default)]
    entries: Vec<Expected>,
    #[serde(default)]
    error: bool,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    seq: u64,
    device: String,
    topic: String,
    received_ms: u64,
    json: Option<String>,
    text: Option<String>,
    base64: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/vectors/packed-v1")
}

#[test]
fn every_vector_is_read_as_its_page_says() {
    let index = fs::read(folder().join("index.json")).unwrap();
    let vectors: Vec<Vector> = serde_json::from_slice(&index).unwrap();
    let mut files: Vec<String> = vectors.iter().map(|vector| vector.file.clone()).collect();
    for vector in &vectors {
        check(vector);
    }
    files.push("index.json".to_owned());
    files.sort_unstable();
    files.dedup();
    let present =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut present: Vec<String> = present.collect();
    present.sort_unstable();
    assert_eq!(files, present, "every file is named, and every name is a file");
    assert!(vectors.iter().filter(|vector| !vector.error).count() >= 9, "each format with each compression");
}

/// The entries of a record, or why there are none.
fn read<T>(
    identity: &str,
    header: &str,
    value: &[u8],
    each: impl Fn(&Entry<'_>) -> T,
) -> Result<Vec<T>, String> {
    let identity: Identity = identity.parse().map_err(|error| format!("{error}"))?;
    let header: Header = header.parse().map_err(|error| format!("{error}"))?;
    let body = inflate(header.compression, value).map_err(|error| error.to_string())?;
    let entries = unpack(&header, &identity, &body).map_err(|error| error.to_string())?;
    Ok(entries.iter().map(each).collect())
}

fn check(vector: &Vector) {
    let value = fs::read(folder().join(&vector.file)).unwrap();
    match read(&vector.penstock, &vector.penstock_pack, &value, expected) {
        Ok(entries) => {
            assert!(!vector.error, "{} is read", vector.file);
            assert_eq!(entries, vector.entries, "{}", vector.file);
        }
        Err(error) => assert!(vector.error, "{}: {error}", vector.file),
    }
}

fn expected(entry: &Entry<'_>) -> Expected {
    let mut expected = Expected {
        seq: entry.seq.0,
        device: entry.device.to_string(),
        topic: entry.topic.to_string(),
        received_ms: entry.received_ms,
        json: None,
        text: None,
        base64: None,
    };
    match &entry.payload {
        Payload::Json(text) => expected.json = Some((*text).to_owned()),
        Payload::Text(text) => expected.text = Some(text.to_string()),
        Payload::Binary(bytes) => {
            let mut text = Vec::new();
            base64::push(&mut text, bytes);
            expected.base64 = String::from_utf8(text).ok();
        }
    }
    expected
}
