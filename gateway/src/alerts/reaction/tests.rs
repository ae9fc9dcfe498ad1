//! What a reaction may be, and what passes for none.

use std::borrow::Cow;

use penstock_proto::Lane;

use super::entry::CONTENT_TYPE;
use super::{Occasion, Reaction, Target, is_reaction};
use crate::alerts::nouns::Severity;
use crate::outbox::{Encoded, Entry, Properties};

/// One of each kind.
pub(super) fn examples() -> [Reaction<'static>; 2] {
    [stop(), tell()]
}

fn stop() -> Reaction<'static> {
    Reaction {
        id: "a1-00112233445566778899aabbccddeeff:1:stop".into(),
        alert: "a1-00112233445566778899aabbccddeeff".into(),
        transition: 1,
        action: "stop".into(),
        rule: "too-hot".into(),
        on: Occasion::Raised,
        severity: Severity::Critical,
        device: "dev \"42\"/\u{1}ü".into(),
        tenant: Some("acme".into()),
        traceparent: None,
        origin: None,
        decided_ms: 1_795_000_000_000,
        expires_ms: 1_795_000_600_000,
        target: Target::Mqtt {
            topic: "devices/dev-42/commands/a1".into(),
            payload: "{\"stop\":true}".into(),
            qos: 1,
            retain: false,
            content_type: "application/json".into(),
        },
    }
}

fn tell() -> Reaction<'static> {
    Reaction {
        target: Target::ServiceBus {
            queue: "site-commands".into(),
            payload: "stop".into(),
            subject: Some("stop".into()),
            content_type: "text/plain".into(),
        },
        ..stop()
    }
}

#[test]
fn what_is_written_is_read_from_the_lane() {
    let mut entries = Encoded::default();
    let all = [stop(), tell()];
    all.iter().for_each(|reaction| reaction.push("site-7", &mut entries));
    let records: Vec<_> = entries.entries(Lane::Alerts).map(|(_, record)| record).collect();
    let read: Vec<_> = records.iter().filter_map(Reaction::of).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, all);
    for record in records {
        assert_eq!((record.device, record.topic), (&*all[0].device, "gateways/site-7/reactions"));
        assert_eq!(record.properties.content_type, Some(CONTENT_TYPE));
    }
}

#[test]
fn no_device_can_write_a_reaction() {
    let payload = serde_json::to_vec(&stop()).unwrap();
    for qos in 0..=2 {
        let mut entries = Encoded::default();
        entries.push(&Entry {
            lane: Lane::Alerts,
            device: "dev-42",
            topic: "gateways/site-7/reactions",
            received_ms: 1,
            qos,
            retain: false,
            clock_synced: true,
            properties: Properties { content_type: Some(CONTENT_TYPE), ..Properties::default() },
            payload: &payload,
        });
        assert!(entries.entries(Lane::Alerts).all(|(_, record)| !is_reaction(&record)), "QoS {qos}");
    }
}

#[test]
fn a_reaction_that_contradicts_itself_is_junk() {
    let check = |change: &dyn Fn(&mut Reaction<'static>)| {
        let mut reaction = stop();
        change(&mut reaction);
        let json = serde_json::to_vec(&reaction).unwrap();
        assert!(Reaction::decode(&json).is_err(), "{}", String::from_utf8_lossy(&json));
    };
    check(&|it| it.id = "a1-00112233445566778899aabbccddeeff:2:stop".into());
    check(&|it| (it.id, it.transition) = (Reaction::id(&it.alert, 0, "stop").into(), 0));
    check(&|it| (it.id, it.action) = (Reaction::id(&it.alert, 1, "Stop").into(), "Stop".into()));
    check(&|it| it.expires_ms = it.decided_ms);
    check(&|it| it.device = "".into());
    for wrong in ["", "a//b", "/a", "a/", "a/+", "a/#/b", "a\0", "$SYS/x", &"x".repeat(1025)] {
        check(&|it| it.target = mqtt(wrong.to_owned().into(), "{}".into(), 1));
    }
    check(&|it| it.target = mqtt("a".into(), "x".repeat((16 << 10) + 1).into(), 1));
    check(&|it| it.target = mqtt("a".into(), "{}".into(), 3));
    let json = serde_json::to_string(&stop()).unwrap();
    for wrong in
        [json.replace("\"on\"", "\"off\""), json.replace('}', ""), json.replacen('{', "{\"more\":1,", 1)]
    {
        assert!(Reaction::decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

fn mqtt(topic: Cow<'static, str>, payload: Cow<'static, str>, qos: u8) -> Target<'static> {
    Target::Mqtt { topic, payload, qos, retain: false, content_type: "application/json".into() }
}

/// The example of `docs/formats/reaction-v1.md`.
#[test]
fn the_document_shows_what_is_written() {
    let document = include_str!("../../../../docs/formats/reaction-v1.md");
    for reaction in [stop(), tell()] {
        let json = serde_json::to_string(&reaction).unwrap();
        assert!(document.contains(&json), "the document lacks {json}");
    }
}
