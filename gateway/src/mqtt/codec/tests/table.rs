//! Every broken packet of the table is refused for its reason; and what is just not broken is not.

use super::super::reader::varint;
use super::super::topic::{filter_matches, is_filter, shared};
use super::cases::{Rumqttc, cases, packet, why_lax};
use super::seen::{ours, theirs};
use super::{BYTES_MAX, Malformed, Reason, Split, Version, split};

#[test]
fn every_broken_packet_is_refused_for_its_reason() {
    for case in cases() {
        let judged = ours(&case.bytes, case.version);
        assert_eq!(judged, Err(case.refused), "{:?} {}", case.version, case.bytes.escape_ascii());
    }
}

#[test]
fn rumqttc_is_as_lax_as_the_table_says() {
    for case in cases() {
        let judged = theirs(&case.bytes, case.version);
        let accepts = case.rumqttc == Rumqttc::Accepts;
        let text = case.bytes.escape_ascii();
        assert_eq!(judged.is_ok(), accepts, "{:?} {text} {judged:?}", case.version);
        assert!(!accepts || !why_lax(case.refused).is_empty(), "no reason for {:?}", case.refused);
    }
}

#[test]
fn every_reason_but_two_has_a_broken_packet() {
    let cases = cases();
    // What has a size limit, and what depends on the packets before, have tests of their own.
    let elsewhere = [Malformed::TooLarge, Malformed::NotConnect];
    for reason in Malformed::ALL {
        let found = cases.iter().any(|case| case.refused == *reason);
        assert!(found || elsewhere.contains(reason), "{reason:?}");
    }
}

#[test]
fn the_code_told_is_the_one_of_the_specification() {
    for reason in Malformed::ALL {
        let expected = match reason {
            // Section 1.2, "Malformed Packet": it cannot be parsed.
            Malformed::PacketType
            | Malformed::HeaderFlags
            | Malformed::Varint
            | Malformed::Truncated
            | Malformed::TrailingBytes
            | Malformed::Utf8
            | Malformed::Qos
            | Malformed::Dup
            | Malformed::PropertyUnknown
            | Malformed::PropertyNotAllowed
            | Malformed::TopicName
            | Malformed::TopicFilter
            | Malformed::SubscriptionOptions
            | Malformed::ConnectFlags => 0x81,
            Malformed::ProtocolName | Malformed::ProtocolLevel(_) => 0x84,
            Malformed::TopicAlias => 0x94,
            Malformed::TooLarge => 0x95,
            // Section 1.2, "Protocol Error": it is out of place.
            _ => 0x82,
        };
        assert_eq!(reason.reason().code(), expected, "{reason:?}");
    }
    assert_eq!(Reason::Success.code(), 0);
}

#[test]
fn a_packet_above_the_limit_is_refused_from_its_header() {
    assert_eq!(split(&[0x30, 0xff, 0x7f], 100), Err(Malformed::TooLarge));
    assert_eq!(split(&[0x30, 98], 100), Ok(Split::Incomplete { bytes: Some(100) }));
    assert_eq!(split(&[0x30, 99], 100), Err(Malformed::TooLarge));
    assert_eq!(split(&[], BYTES_MAX), Ok(Split::Incomplete { bytes: None }));
    assert_eq!(varint(&[0xff, 0xff, 0xff, 0x7f]), Ok(Some((268_435_455, 4))));
}

#[test]
fn the_edges_of_the_rules_are_inside() {
    let check = |version, first, body: &[u8]| {
        let bytes = packet(first, body);
        let judged = ours(&bytes, version);
        assert!(matches!(judged, Ok(Some(_))), "{version:?} {} {judged:?}", bytes.escape_ascii());
    };
    for version in [Version::V3, Version::V5] {
        for first in [0x40, 0x50, 0x62, 0x70] {
            check(version, first, b"\xff\xff");
        }
        check(version, 0xc0, b"");
        check(version, 0xe0, b"");
    }
    for first in [0x40, 0x50] {
        for code in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
            check(Version::V5, first, &[0, 1, code]);
            check(Version::V5, first, &[0, 1, code, 0]);
        }
    }
    for first in [0x62, 0x70] {
        check(Version::V5, first, &[0, 1, 0x92]);
        check(Version::V5, first, &[0, 1, 0, 3, 0x1f, 0, 0]);
    }
    for code in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        check(Version::V5, 0xe0, &[code]);
        check(Version::V5, 0xe0, &[code, 0]);
    }
    // A password alone, an empty client id, a user property twice, a topic of one level without a name.
    check(Version::V5, 0x10, b"\0\x04MQTT\x05\x42\0\0\0\0\0\0\x02\xff\0");
    check(Version::V3, 0x10, b"\0\x04MQTT\x04\xc2\0\0\0\0\0\0\0\0");
    check(Version::V5, 0x10, b"\0\x04MQTT\x05\0\0\0\x0a\x26\0\0\0\0\x26\0\0\0\0\0\0");
    check(Version::V3, 0x30, b"\0\x01/");
    check(Version::V5, 0x30, b"\0\0\x03\x23\xff\xff");
    check(Version::V5, 0x82, b"\0\x01\x05\x0b\xff\xff\xff\x7f\0\x0a$share/g/#\x2a");
    check(Version::V3, 0x82, b"\0\x01\0\x08$share/g\x02");
    check(Version::V5, 0xf0, b"\x18\x04\x15\0\x01m");
}

#[test]
fn filters_follow_the_rules_of_section_4_7() {
    for (filter, valid) in [
        ("a", true),
        ("/", true),
        ("#", true),
        ("+", true),
        ("a/+/#", true),
        ("+/+", true),
        ("", false),
        ("a#", false),
        ("#/a", false),
        ("a+/b", false),
        ("a/b+", false),
        ("a/#/", false),
    ] {
        assert_eq!(is_filter(filter), valid, "{filter}");
    }
    for (filter, name, matches) in [
        ("a/b", "a/b", true),
        ("a/+", "a/b", true),
        ("a/+", "a/", true),
        ("a/+", "a", false),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("+", "/a", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("#", "$SYS/a", false),
        ("+/a", "$SYS/a", false),
        ("$SYS/#", "$SYS/a", true),
        ("$SYS/+", "$SYS/a", true),
        ("a/b", "a/b/c", false),
        ("a/b/c", "a/b", false),
        ("A", "a", false),
    ] {
        assert_eq!(filter_matches(filter, name), matches, "{filter} {name}");
    }
}

#[test]
fn shared_filters_have_a_group_and_a_filter() {
    for (filter, expected) in [
        ("a/b", None),
        ("$share", None),
        ("$shared/g/a", None),
        ("a/$share/g/b", None),
        ("$share/g/a", Some(Ok(("g", "a")))),
        ("$share/g//a", Some(Ok(("g", "/a")))),
        ("$share/g/#", Some(Ok(("g", "#")))),
        ("$share/g h/$SYS/+", Some(Ok(("g h", "$SYS/+")))),
        ("$share/", Some(Err(Malformed::TopicFilter))),
        ("$share/g", Some(Err(Malformed::TopicFilter))),
        ("$share/g/", Some(Err(Malformed::TopicFilter))),
        ("$share//a", Some(Err(Malformed::TopicFilter))),
        ("$share/+/a", Some(Err(Malformed::TopicFilter))),
        ("$share/g#/a", Some(Err(Malformed::TopicFilter))),
        ("$share/g/a#", Some(Err(Malformed::TopicFilter))),
    ] {
        assert_eq!(shared(filter), expected, "{filter}");
    }
}
