use std::sync::Arc;

use bytes::Bytes;

use super::message::{id_text, read, read_transfer, swap_guid, write};
use super::{Node, entity_path, ticks};
use crate::amqp::{Sections, Value, traces};
use crate::servicebus::broker::{DeadLetter, Delivery, MessageState, Simple};

#[test]
fn addresses_are_paths_or_uris() {
    let check = |address, expected: Node| assert_eq!(Node::parse(address), expected, "{address}");
    check("q", Node::Entity("q".to_owned()));
    check("/q/", Node::Entity("q".to_owned()));
    check("amqps://127.0.0.1:5672/q", Node::Entity("q".to_owned()));
    check("sb://h/t/Subscriptions/s", Node::Entity("t/Subscriptions/s".to_owned()));
    check("q/$deadletterqueue/$Management", Node::Management("q/$deadletterqueue".to_owned()));
    check("$cbs", Node::Cbs);
    check("amqps://h/$cbs", Node::Cbs);
    assert_eq!(entity_path("sb://h"), "");
    assert_eq!(Node::parse("q/$management").path().as_deref(), Some("q/$management"));
}

#[test]
fn locks_are_guids_of_dotnet() {
    let uuid = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
    let guid = *b"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
    assert_eq!((swap_guid(uuid), swap_guid(guid)), (guid, uuid));
}

#[test]
fn ticks_start_in_the_year_one() {
    // 2017-01-01T00:00:00Z, as .NET has it.
    assert_eq!(ticks(1_483_228_800_000), 636_188_256_000_000_000);
}

#[test]
fn ids_of_every_type_have_a_text() {
    assert_eq!(id_text(&Value::string("a")).as_deref(), Some("a"));
    assert_eq!(id_text(&Value::Ulong(7)).as_deref(), Some("7"));
    assert_eq!(id_text(&Value::Uuid([0xab; 16])).as_deref(), Some("abababab-abab-abab-abab-abababababab"));
    assert_eq!(id_text(&Value::Binary(Bytes::from_static(b"\x01\xff"))).as_deref(), Some("01ff"));
    assert_eq!(id_text(&Value::Null), None);
}

fn trace() -> Vec<u8> {
    let digits = traces::MESSAGE.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn delivery(dead_letter: Option<DeadLetter>) -> Delivery {
    Delivery {
        message: Arc::new(read(&trace()).unwrap()),
        lock: [1; 16],
        sequence: 42,
        enqueued_ms: 1_000,
        locked_until_ms: 61_000,
        delivery_count: 3,
        state: MessageState::Active,
        dead_letter,
    }
}

#[test]
fn what_the_broker_needs_is_read() {
    let message = read(&trace()).unwrap();
    assert_eq!((message.message_id.as_deref(), message.session_id.as_deref()), (Some("m1"), Some("dev-1")));
    assert_eq!((message.header_ttl_ms, message.partition_key.as_deref()), (Some(1_000), Some("p")));
    assert_eq!(message.application, [("a".to_owned(), Simple::Long(1))]);
    assert_eq!(read_transfer(0, &trace()).unwrap(), [message]);
    assert!(read_transfer(0, b"junk").is_err());
    // As a batch it is one whose only message is the word hello.
    assert!(read_transfer(super::message::BATCH_FORMAT, &trace()).is_err());
}

#[test]
fn a_delivery_has_new_annotations_and_the_old_rest() {
    let written = write(&delivery(None)).unwrap();
    let sections = Sections::decode(&written).unwrap();
    let sent = trace();
    assert_eq!(sections.bare, Sections::decode(&sent).unwrap().bare);
    assert_eq!((sections.header.ttl_ms, sections.header.delivery_count), (Some(1_000), 3));
    for (name, value) in [
        ("x-opt-sequence-number", Value::Long(42)),
        ("x-opt-enqueued-time", Value::Timestamp(1_000)),
        ("x-opt-locked-until", Value::Timestamp(61_000)),
        ("x-opt-message-state", Value::Int(0)),
        ("x-opt-partition-key", Value::string("p")),
    ] {
        assert_eq!(crate::amqp::entry(&sections.annotations, name), Some(&value), "{name}");
    }
}

#[test]
fn a_dead_letter_says_why_beside_its_own_properties() {
    let dead = DeadLetter {
        source: "q".to_owned(),
        reason: Some("bad".to_owned()),
        description: Some("worse".to_owned()),
    };
    let written = write(&delivery(Some(dead))).unwrap();
    let sections = Sections::decode(&written).unwrap();
    assert_eq!(sections.application_property("DeadLetterReason"), Some(&Value::string("bad")));
    assert_eq!(sections.application_property("DeadLetterErrorDescription"), Some(&Value::string("worse")));
    assert_eq!(sections.application_property("a"), Some(&Value::Int(1)));
    assert_eq!(sections.data().unwrap(), [Bytes::from_static(b"hello")]);
    assert_eq!(sections.properties.group_id.as_deref(), Some("dev-1"));
    let source = crate::amqp::entry(&sections.annotations, "x-opt-deadletter-source");
    assert_eq!(source, Some(&Value::string("q")));
}
