//! What devices publish, what the service answers, and what is found of the progress; see [`crate::fuzzing`].

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::config::Kind;
use super::disposition::{Disposition, Reply, judge};
use super::envelope::{Envelope, Source, Unusable};
use super::progress::Progress;
use crate::alerts::burial::Place;
use crate::fuzzing::Decoder;
use crate::outbox::{Properties, Record};

/// The decoders of this folder.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "event_grid_progress", decode: progress, weight: 8 },
    Decoder { name: "event_grid_entry", decode: entry, weight: 12 },
    Decoder { name: "event_grid_answer", decode: answer, weight: 8 },
];

/// The stored progress: what was read is written, and read as the same.
fn progress(bytes: &[u8]) {
    let Some((low, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let low = Seq(u64::from_le_bytes(*low));
    let Ok(progress) = Progress::decode(low, bytes) else { return };
    assert!(progress.low <= progress.ahead);
    assert_eq!(Progress::decode(low, &progress.encode()), Ok(progress));
}

/// The payload of an entry, published by a device and as if by the gateway.
fn entry(bytes: &[u8]) {
    let Ok(gateway) = "site-7".parse() else { return };
    let place = Place { log: LogId(1), epoch: Epoch(1), lane: Lane::Alerts };
    let content_type = Some("application/cloudevents+json");
    for (topic, content_type) in [("devices/d/alerts", None), ("gateways/site-7/events", content_type)] {
        let record = Record {
            device: "d",
            topic,
            received_ms: 1,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties { content_type, ..Properties::default() },
            payload: bytes,
        };
        let source = Source::PerTenant { others: "site".to_owned() };
        let envelope = Envelope::new(&gateway, "io.penstock", source);
        let critical = envelope.is_critical(&record);
        let event = match envelope.event(place, Seq(1), &record) {
            Ok(event) => event,
            Err(Unusable::Malformed(reason)) => {
                assert!(!reason.is_empty() && content_type.is_some());
                continue;
            }
            Err(Unusable::TooLarge(_)) => continue,
        };
        let event: serde_json::Value = serde_json::from_slice(&event).expect("JSON");
        assert_eq!(event["severity"] == "critical", critical);
        assert!(event["source"].as_str().is_some_and(|source| !source.is_empty()));
    }
}

/// The body of an answer: it never confirms anything, and its words are one line.
fn answer(bytes: &[u8]) {
    for status in [400, 401, 403, 413, 429, 500] {
        let reply = Reply::Answer { status, retry_after: None, body: bytes.to_vec() };
        assert!(!reply.describe().contains(char::is_control));
        for kind in [Kind::Topic, Kind::Namespace] {
            assert_ne!(judge(kind, &reply, 2), Disposition::Confirm);
            assert!(!matches!(judge(kind, &reply, 2), Disposition::Quarantine(_)));
            assert!(!matches!(judge(kind, &reply, 1), Disposition::Split(_)));
        }
    }
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match name {
        "event_grid_progress" => {
            let progress = Progress { low: Seq(5), ahead: Seq(90), beyond: 7 };
            return vec![[&5_u64.to_le_bytes()[..], &progress.encode()].concat()];
        }
        "event_grid_entry" => &[
            r#"{"specversion":"1.0","id":"a1:2","source":"/g","type":"t","severity":"critical","tenant":"acme","data":{"v":[1.5,null]}}"#,
            r#"{"severity":"critical","temp":106.1}"#,
            r#"["1.0","a","b","c","critical","t"]"#,
            "hot",
        ],
        "event_grid_answer" => &[
            r#"{"error":{"code":"BadRequest","message":"Event [1]: no","details":[{"code":"InputJsonInvalid","message":"m"}]}}"#,
            r#"{"error":{"code":"Forbidden","message":"The maximum size has been exceeded"}}"#,
        ],
        _ => &[],
    };
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
