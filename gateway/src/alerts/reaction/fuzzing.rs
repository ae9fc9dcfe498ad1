//! What the disk says is to be done; see [`crate::fuzzing`].

use super::entry::Reaction;
use super::template::{Form, Template, Values};
use crate::fuzzing::Decoder;

/// The decoders of this folder.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "reaction", decode: reaction, weight: 4 },
    Decoder { name: "reaction_template", decode: template, weight: 2 },
];

/// What was read is written and read as the same.
fn reaction(bytes: &[u8]) {
    let Ok(reaction) = Reaction::decode(bytes) else { return };
    let again = serde_json::to_vec(&reaction).expect("JSON");
    assert_eq!(Reaction::decode(&again).expect("a reaction"), reaction);
}

/// A template before a zero byte, the name of a device behind it: a topic keeps its levels, and JSON stays JSON.
fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, device) = text.split_once('\0').unwrap_or((text, "x"));
    let Ok(template) = Template::parse(text) else { return };
    let sample = Values::sample(true);
    let values = Values { device, ..Values::sample(true) };
    if let (Ok(usual), Ok(topic)) = (template.topic(&sample), template.topic(&values)) {
        assert_eq!(usual.split('/').count(), topic.split('/').count());
    }
    let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    // A device with the sample's name shows whether the template is JSON at all, in quotes.
    let quoted = template.payload(&Values { device: "\"", ..sample }, Form::Json);
    if let (Ok(quoted), Ok(payload)) = (quoted, template.payload(&values, Form::Json)) {
        assert!(!is_json(&quoted) || is_json(&payload), "{payload}");
    }
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    match name {
        "reaction" => super::tests::examples().iter().filter_map(|it| serde_json::to_vec(it).ok()).collect(),
        "reaction_template" => vec![
            b"devices/{device}/commands/{alert}\0dev-1".to_vec(),
            b"{\"stop\":true,\"who\":\"{device}\",\"v\":{value}}\0a\"b".to_vec(),
        ],
        _ => Vec::new(),
    }
}
