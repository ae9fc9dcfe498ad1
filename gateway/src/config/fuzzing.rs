//! The text of a configuration file; see [`crate::fuzzing`].

use super::{ByteSize, Settings, load, parse_duration, show_duration};
use crate::fuzzing::Decoder;

/// The decoders of this stage.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "config_file", decode: file, weight: 1 },
    Decoder { name: "config_units", decode: units, weight: 8 },
];

/// The whole file, up to checked settings; an error is one line.
fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let settings = load::parse("fuzz.toml", text, std::iter::empty(), &Settings::SHAPE)
        .and_then(|(root, _)| Settings::read(root));
    if let Err(error) = settings {
        assert!(!error.to_string().is_empty());
    }
}

/// Sizes and times.
fn units(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(time) = parse_duration(text) {
        assert_eq!(parse_duration(&show_duration(time)), Some(time));
    }
    if let Some(size) = ByteSize::parse(text) {
        assert_eq!(ByteSize::parse(&size.to_string()), Some(size));
    }
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match name {
        "config_file" => &[
            "[gateway]\nid = \"site-1\"\n",
            include_str!("../../../deploy/penstock.toml"),
            "[gateway]\nid = \"a\"\n[[mqtt.listener]]\naddress = \"127.0.0.1:0\"\n[[mqtt.access.rule]]\neffect = \"allow\"\naction = \"publish\"\nfilter = \"a/{device}/#\"\n",
            "[outbox]\nbody_codec = \"lz4\"\n[uplink]\nenabled = false\n",
        ],
        "config_units" => &["250ms", "1s", "24h", "365d", "64MiB", "1KiB", "0", "18446744073709551615B"],
        _ => &[],
    };
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
