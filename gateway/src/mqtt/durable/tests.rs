//! Every key and value comes back as it went in, keys sort as their numbers do, and junk is refused.

use proptest::prelude::*;

use super::*;

fn any_key() -> impl Strategy<Value = StateKey> {
    prop_oneof![
        any::<u64>().prop_map(StateKey::Session),
        any::<(u64, u16)>().prop_map(|(session, id)| StateKey::Received(session, id)),
        any::<(u64, u64)>().prop_map(|(session, order)| StateKey::Queued(session, order)),
        any::<u64>().prop_map(StateKey::Message),
        "[a-z/$ü]{0,20}".prop_map(StateKey::Retained),
    ]
}

/// The owned parts of a message.
type Message = (String, u8, bool, Option<u64>, u64, Vec<u8>, Vec<u8>, String);

fn any_message() -> impl Strategy<Value = Message> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let expires = prop::option::of(any::<u64>());
    ("[a-z/ü]{1,20}", 0_u8..3, any::<bool>(), expires, any::<u64>(), bytes(), bytes(), "[a-z0-9]{0,9}")
}

fn message(from: &Message) -> MessageRecord<'_> {
    let (topic, qos, retain, expires_at_ms, received_ms, properties, payload, publisher) = from;
    MessageRecord {
        topic,
        qos: *qos,
        retain: *retain,
        expires_at_ms: *expires_at_ms,
        received_ms: *received_ms,
        properties,
        payload,
        publisher,
    }
}

fn any_queued() -> impl Strategy<Value = QueuedRecord> {
    let ids = prop::collection::vec(1_u32..268_435_456, 0..4);
    let numbers = (any::<u16>(), any::<u64>(), 1_u8..3);
    (numbers, any::<bool>(), any::<bool>(), ids).prop_map(
        |((packet_id, message, qos), released, retain, ids)| {
            let stage = if released { Stage::Released } else { Stage::Waiting };
            QueuedRecord { packet_id, stage, message, qos, retain, subscription_ids: ids }
        },
    )
}

/// The owned parts of a subscription.
type Subscription = (String, u8, bool, bool, u32);

fn any_subscription() -> impl Strategy<Value = Subscription> {
    ("[a-z/+#$]{1,20}", 0_u8..3, any::<bool>(), any::<bool>(), any::<u32>())
}

fn subscription(from: &Subscription) -> SubscriptionRecord<'_> {
    let (filter, qos, no_local, retain_as_published, id) = from;
    let (qos, no_local, retain_as_published, id) = (*qos, *no_local, *retain_as_published, *id);
    SubscriptionRecord { filter, qos, no_local, retain_as_published, id }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut value = Vec::new();
    encode(&mut value);
    value
}

proptest! {
    #[test]
    fn keys_round_trip_and_differ(a in any_key(), b in any_key(), session: u64) {
        prop_assert_eq!(StateKey::decode(&a.encode()), Some(a.clone()));
        prop_assert_eq!(a.encode() == b.encode(), a == b);
        let below = a.encode().starts_with(&StateKey::received_of(session));
        prop_assert_eq!(below, matches!(a, StateKey::Received(of, _) if of == session));
    }

    #[test]
    fn a_queue_sorts_by_its_order(session: u64, a: u64, b: u64) {
        let key = |order| StateKey::Queued(session, order).encode();
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
    }

    #[test]
    fn messages_round_trip(from in any_message()) {
        let message = message(&from);
        let value = encoded(|out| message.encode(out));
        prop_assert_eq!(MessageRecord::decode(&value), Some(message));
    }

    #[test]
    fn places_in_queues_round_trip(queued in any_queued()) {
        prop_assert_eq!(QueuedRecord::decode(&encoded(|out| queued.encode(out))), Some(queued));
    }

    #[test]
    fn sessions_round_trip(
        (client, device, user) in ("[ -~]{0,20}", "[a-z0-9]{1,20}", prop::option::of("[a-z]{0,9}")),
        (expiry_seconds, ends_at_ms) in (any::<u32>(), prop::option::of(any::<u64>())),
        subscriptions in prop::collection::vec(any_subscription(), 0..5),
        will in prop::option::of((any::<u64>(), any_message())),
    ) {
        let session = SessionRecord {
            client: &client,
            device: &device,
            user: user.as_deref(),
            expiry_seconds,
            ends_at_ms,
            subscriptions: subscriptions.iter().map(subscription).collect(),
            will: will.as_ref().map(|(due_ms, from)| WillRecord { due_ms: *due_ms, message: message(from) }),
        };
        let value = encoded(|out| session.encode(out));
        for cut in 0..value.len() {
            prop_assert!(SessionRecord::decode(&value[..cut]).is_none(), "cut at {}", cut);
        }
        prop_assert_eq!(SessionRecord::decode(&value), Some(session));
    }

    #[test]
    fn junk_is_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let decoded = |bytes: &[u8]| (
            MessageRecord::decode(bytes).is_some(),
            QueuedRecord::decode(bytes).is_some(),
            SessionRecord::decode(bytes).is_some(),
            is_received(bytes),
        );
        let found = decoded(&bytes);
        prop_assert!(bytes.first() == Some(&VALUE_VERSION) || found == (false, false, false, false));
        if let Some(key) = StateKey::decode(&bytes) {
            prop_assert_eq!(key.encode(), bytes.clone());
        }
        // What a later version wrote is not guessed at.
        if let Some(version) = bytes.first_mut() {
            *version = VALUE_VERSION + 1;
            prop_assert_eq!(decoded(&bytes), (false, false, false, false));
        }
    }
}

/// The examples of `docs/formats/mqtt-state-v1.md`.
#[test]
fn the_bytes_are_the_documented_ones() {
    assert_eq!(StateKey::Session(258).encode(), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(StateKey::Received(1, 7).encode(), [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7]);
    assert_eq!(StateKey::Retained("a/b".to_owned()).encode(), *b"\x05a/b");
    assert_eq!(RECEIVED_VALUE, [1]);
    let queued = QueuedRecord {
        packet_id: 258,
        stage: Stage::Released,
        message: 3,
        qos: 2,
        retain: false,
        subscription_ids: vec![5],
    };
    let value = encoded(|out| queued.encode(out));
    assert_eq!(value, [1, 0b1010, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    let message = MessageRecord {
        topic: "a",
        qos: 1,
        retain: true,
        expires_at_ms: Some(9),
        received_ms: 2,
        properties: &[1, 1],
        payload: b"p",
        publisher: "c",
    };
    let mut due = vec![1, 0b1101, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    due.extend_from_slice(b"\x01\0\0\0a\x01\0\0\0c\x02\0\0\0\x01\x01\x01\0\0\0p");
    assert_eq!(encoded(|out| message.encode(out)), due);
    let subscribed = ("f".to_owned(), 1, true, false, 4);
    let session = SessionRecord {
        client: "c",
        device: "d",
        user: Some("u"),
        expiry_seconds: 60,
        ends_at_ms: None,
        subscriptions: vec![subscription(&subscribed)],
        will: None,
    };
    let mut due = vec![1, 0b001, 60, 0, 0, 0];
    due.extend_from_slice(b"\x01\0\0\0c\x01\0\0\0d\x01\0\0\0u\x01\0\0\0");
    due.extend_from_slice(b"\x05\x04\0\0\0\x01\0\0\0f");
    assert_eq!(encoded(|out| session.encode(out)), due);
}
