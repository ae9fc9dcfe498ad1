//! What devices, the users file and the rules hold, and what a restart finds; see [`crate::fuzzing`].

use penstock_proto::Lane;

use super::access::{Action, Effect, Pattern, Rule, Rules, Who, users_in};
use super::codec::{Version, filter_matches, fuzzing};
use super::durable::{MessageRecord, QueuedRecord, SessionRecord, StateKey, is_received};
use super::template::{Template, Templates, Verdict, is_device};
use crate::fuzzing::Decoder;

/// The decoders of this stage.
pub(crate) const DECODERS: &[Decoder] = &[
    Decoder { name: "mqtt_3", decode: |bytes| fuzzing::packets(Version::V3, bytes), weight: 40 },
    Decoder { name: "mqtt_5", decode: |bytes| fuzzing::packets(Version::V5, bytes), weight: 60 },
    Decoder { name: "mqtt_connect", decode: connect, weight: 20 },
    Decoder { name: "mqtt_properties", decode: fuzzing::property_blocks, weight: 20 },
    Decoder { name: "mqtt_topics", decode: topics, weight: 20 },
    Decoder { name: "mqtt_rules", decode: rules, weight: 8 },
    Decoder { name: "mqtt_users", decode: users, weight: 2 },
    Decoder { name: "mqtt_state", decode: state, weight: 12 },
];

fn connect(bytes: &[u8]) {
    let _judged = fuzzing::connect(bytes);
}

/// A filter and a topic; both also against the topics of a device.
fn topics(bytes: &[u8]) {
    fuzzing::topics(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (filter, name) = text.split_once('\n').unwrap_or((text, text));
    let templates = ["devices/{device}/telemetry", "{tenant}/{site}/{device}/data/{stream}"];
    let templates = templates.map(|text| Template::parse(text, Lane::Telemetry).expect("a template"));
    let commands = "devices/{device}/commands/{name}/{command_id}".parse().expect("a topic");
    let templates = Templates::new(templates.to_vec(), Some(commands));
    for device in ["d", name] {
        if let Verdict::Answer(to) = templates.verdict(name, device) {
            assert!(is_device(device) && name.ends_with("/status") && !to.id.is_empty());
        }
        if let Verdict::Own(matched) = templates.verdict(name, device) {
            assert!(is_device(device) && name.split('/').any(|level| level == device));
            assert!(matched.stream.is_none_or(|stream| name.ends_with(stream)));
            if templates.owns_filter(filter, device) {
                assert!(filter.split('/').any(|level| level == device));
            }
        }
    }
}

/// The filter of a rule, a filter that a client asks for, and a topic, in a line each.
fn rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(3, '\n');
    let (Some(pattern), Some(asked), Some(topic)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(pattern) = pattern.parse::<Pattern>() else { return };
    let who = Who { user: Some("anna"), client: "c", device: "d" };
    let rule = |effect| Rule { effect, action: Action::All, filter: pattern.clone(), user: None };
    let allowed = Rules::new(&[rule(Effect::Allow)]);
    let may_publish = allowed.may_publish(who, topic).is_ok();
    if fuzzing::is_valid(asked, topic) && filter_matches(asked, topic) {
        // Who may subscribe to all of a filter may have what it matches.
        if allowed.may_subscribe(who, asked).is_ok() {
            assert!(allowed.may_receive(who, topic), "{pattern:?} {asked:?} {topic:?}");
        }
        assert!(!may_publish || allowed.may_receive(who, topic));
    }
}

/// The text of a users file.
fn users(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(count) = users_in(text) {
        assert!(count <= text.lines().count());
    }
}

/// A key and every kind of value of what survives a restart.
fn state(bytes: &[u8]) {
    if let Some(key) = StateKey::decode(bytes) {
        assert_eq!(key.encode(), bytes);
    }
    let received = is_received(bytes);
    assert!(!received || !bytes.is_empty());
    let mut written = Vec::new();
    if let Some(message) = MessageRecord::decode(bytes) {
        message.encode(&mut written);
        assert_eq!(MessageRecord::decode(&written), Some(message));
    }
    if let Some(queued) = QueuedRecord::decode(bytes) {
        written.clear();
        queued.encode(&mut written);
        assert_eq!(QueuedRecord::decode(&written), Some(queued));
    }
    if let Some(session) = SessionRecord::decode(bytes) {
        written.clear();
        session.encode(&mut written);
        assert_eq!(SessionRecord::decode(&written), Some(session));
    }
}

/// What cases of a decoder are made of.
#[cfg(test)]
pub(crate) fn fuzzing_seeds(name: &str) -> Vec<Vec<u8>> {
    let texts: &[&str] = match name {
        "mqtt_topics" => &[
            "a/+/c\na/b/c",
            "a/#\na",
            "#\n$SYS/x",
            "+/+\n/a",
            "$share/g/a/#\na/b",
            "devices/d/#\ndevices/d/telemetry",
            "t/s/d/data/x\nt/s/d/data/x",
            "devices/d/commands/+/+\ndevices/d/commands/open/7/status",
            "/\n/",
        ],
        "mqtt_rules" => &[
            "a/+/c\na/b/c\na/b/c",
            "building/{device}/#\nbuilding/d/+\nbuilding/d/1",
            "+/#\n+\na",
            "#\n#\n$SYS/a",
            "{user}/{client}\nanna/c\nanna/c",
            "+\n+/#\na/b",
        ],
        "mqtt_users" => &[
            "anna:$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI:device=d\n",
            "# nobody\n\nbob:$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI\n",
            "bob:$argon2id$v=19$m=4294967295,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo\n",
            "::::",
        ],
        _ => &[],
    };
    let texts = texts.iter().map(|text| text.as_bytes().to_vec());
    match name {
        "mqtt_state" => state_samples(),
        "mqtt_topics" | "mqtt_rules" | "mqtt_users" => texts.collect(),
        _ => super::codec::seeds(name),
    }
}

/// One of every key and value.
#[cfg(test)]
fn state_samples() -> Vec<Vec<u8>> {
    use super::durable::{RECEIVED_VALUE, Stage, SubscriptionRecord, WillRecord};

    let message = MessageRecord {
        topic: "a/b",
        qos: 1,
        retain: true,
        expires_at_ms: Some(1_790_000_000_000),
        received_ms: 1_780_000_000_000,
        properties: b"\x01\x01",
        payload: b"21.5",
        publisher: "c",
    };
    let filter =
        SubscriptionRecord { filter: "a/#", qos: 2, no_local: true, retain_as_published: true, id: 9 };
    let session = SessionRecord {
        client: "c",
        device: "d",
        user: Some("anna"),
        expiry_seconds: 60,
        ends_at_ms: Some(1_790_000_000_000),
        subscriptions: vec![filter, SubscriptionRecord { filter: "$share/g/b", id: 0, ..filter }],
        will: Some(WillRecord { due_ms: 5, message }),
    };
    let queued = QueuedRecord {
        packet_id: 7,
        stage: Stage::Released,
        message: 3,
        qos: 2,
        retain: false,
        subscription_ids: vec![1, 300],
    };
    let keys = [
        StateKey::Session(1),
        StateKey::Received(1, 7),
        StateKey::Queued(1, 9),
        StateKey::Message(3),
        StateKey::Retained("a/b".to_owned()),
    ];
    let mut samples: Vec<Vec<u8>> = keys.iter().map(StateKey::encode).collect();
    let mut values = [const { Vec::new() }; 3];
    let [one, two, three] = &mut values;
    message.encode(one);
    session.encode(two);
    queued.encode(three);
    samples.extend(values);
    samples.push(RECEIVED_VALUE.to_vec());
    samples
}
