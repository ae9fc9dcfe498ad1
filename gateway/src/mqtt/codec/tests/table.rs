//! Broken packets, each with the reason it must be refused for.

use super::super::reader::varint;
use super::super::topic::{filter_matches, is_filter};
use super::{BYTES_MAX, Malformed, Split, Version, decode, split};

#[track_caller]
fn check(version: Version, bytes: &[u8], expected: Malformed) {
    assert_eq!(decode(bytes, version), Err(expected), "{bytes:02x?}");
}

#[track_caller]
fn check_both(bytes: &[u8], expected: Malformed) {
    check(Version::V3, bytes, expected);
    check(Version::V5, bytes, expected);
}

#[test]
fn headers() {
    check_both(&[0x00], Malformed::PacketType);
    for server_only in [0x20, 0x90, 0xb0, 0xd0] {
        check_both(&[server_only, 0], Malformed::Unexpected);
    }
    for flags in [0x11, 0x41, 0x50 | 2, 0x60, 0x68, 0x71, 0x80, 0x8a, 0xa0, 0xc4, 0xe8, 0xf1] {
        check_both(&[flags, 0], Malformed::HeaderFlags);
    }
    check_both(&[0x30, 0xff, 0xff, 0xff, 0x80], Malformed::Varint);
    check_both(&[0x30, 0x80, 0x00], Malformed::Varint);
    assert_eq!(split(&[0x30, 0xff, 0x7f], 100), Err(Malformed::TooLarge));
    assert_eq!(split(&[0x30, 98], 100), Ok(Split::Incomplete { bytes: Some(100) }));
    assert_eq!(split(&[0x30, 99], 100), Err(Malformed::TooLarge));
    assert_eq!(split(&[], BYTES_MAX), Ok(Split::Incomplete { bytes: None }));
    assert_eq!(varint(&[0xff, 0xff, 0xff, 0x7f]), Ok(Some((268_435_455, 4))));
}

#[test]
fn connect() {
    let check = |head: &[u8], rest: &[u8], expected| {
        let body = [head, rest].concat();
        check(Version::V3, &[&[0x10, u8::try_from(body.len()).unwrap()][..], &body].concat(), expected);
    };
    let v3 = |flags: u8| [&b"\0\x04MQTT\x04"[..], &[flags, 0, 60]].concat();
    let v5 = |flags: u8| [&b"\0\x04MQTT\x05"[..], &[flags, 0, 60]].concat();
    let id = b"\0\x01d";
    check(b"\0\x04MQTX\x04\x02\0\0", id, Malformed::ProtocolName);
    check(b"\0\x04MQTT\x07\x02\0\0", id, Malformed::ProtocolLevel(7));
    check(b"\0\x06MQIsdp\x03\x02\0\0", id, Malformed::ProtocolLevel(3));
    // Reserved; will bits without a will; will at QoS 3; a password without a user name.
    for flags in [0x01, 0x08, 0x20, 0x1c, 0x40] {
        check(&v3(flags), id, Malformed::ConnectFlags);
    }
    check(&v3(2), b"", Malformed::Truncated);
    check(&v3(2), b"\0\x01dx", Malformed::TrailingBytes);
    check(&v3(2), b"\0\x01\xff", Malformed::Utf8);
    check(&v3(2), b"\0\x01\0", Malformed::Utf8);
    check(&v3(0x82), id, Malformed::Truncated);
    check(&v3(0x06), b"\0\x01d\0\x01#\0\0", Malformed::TopicName);
    check(&v5(2), b"\x05\x11\0\0\0", Malformed::Truncated);
    check(&v5(2), b"\x0a\x11\0\0\0\0\x11\0\0\0\0\0\x01d", Malformed::PropertyRepeated);
    check(&v5(2), b"\x02\x01\x01\0\x01d", Malformed::PropertyNotAllowed);
    check(&v5(2), b"\x02\x7e\x01\0\x01d", Malformed::PropertyUnknown);
    check(&v5(2), b"\x02\x19\x02\0\x01d", Malformed::PropertyValue);
    check(&v5(2), b"\x03\x21\0\0\0\x01d", Malformed::PropertyValue);
    check(&v5(2), b"\x05\x27\0\0\0\0\0\x01d", Malformed::PropertyValue);
    check(&v5(2), b"\x04\x16\0\x01x\0\x01d", Malformed::AuthenticationMethod);
}

#[test]
fn publish() {
    check_both(b"\x36\x05\0\x01t\0\x01", Malformed::Qos);
    check_both(b"\x38\x03\0\x01t", Malformed::Dup);
    check_both(b"\x32\x05\0\x01t\0\0", Malformed::PacketId);
    check_both(b"\x32\x04\0\x01t\0", Malformed::Truncated);
    check_both(b"\x30\x01\0", Malformed::Truncated);
    check_both(b"\x30\x03\0\x01+", Malformed::TopicName);
    check_both(b"\x30\x03\0\x01#", Malformed::TopicName);
    check_both(b"\x30\x03\0\x01\0", Malformed::Utf8);
    check_both(b"\x30\x03\0\x01\xc0", Malformed::Utf8);
    check(Version::V3, b"\x30\x02\0\0", Malformed::NoTopic);
    check(Version::V5, b"\x30\x03\0\0\0", Malformed::NoTopic);
    check(Version::V5, b"\x30\x06\0\0\x03\x23\0\0", Malformed::TopicAlias);
    check(Version::V5, b"\x30\x07\0\x01t\x03\x23\0\0", Malformed::TopicAlias);
    check(Version::V5, b"\x30\x06\0\x01t\x02\x0b\x01", Malformed::PropertyOfServers);
    check(Version::V5, b"\x30\x06\0\x01t\x02\x01\x02", Malformed::PropertyValue);
    check(Version::V5, b"\x30\x08\0\x01t\x04\x08\0\x01#", Malformed::TopicName);
    check(Version::V5, b"\x30\x03\0\x01t", Malformed::Truncated);
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        check_both(&[first, 2, 0, 0], Malformed::PacketId);
        check_both(&[first, 1, 1], Malformed::Truncated);
        check(Version::V3, &[first, 3, 0, 1, 0], Malformed::TrailingBytes);
        check(Version::V5, &[first, 3, 0, 1, 0x42], Malformed::ReasonCode);
        check(Version::V5, &[first, 5, 0, 1, 0, 0, 9], Malformed::TrailingBytes);
        assert_eq!(decode(&[first, 4, 0, 1, 0, 0], Version::V5), Ok(Some(6)));
    }
    check(Version::V5, &[0x62, 3, 0, 1, 0x10], Malformed::ReasonCode);
    assert_eq!(decode(&[0x40, 3, 0, 1, 0x10], Version::V5), Ok(Some(5)));
}

#[test]
fn subscriptions() {
    check(Version::V3, b"\x82\x02\0\x01", Malformed::NoFilter);
    check(Version::V5, b"\x82\x03\0\x01\0", Malformed::NoFilter);
    check(Version::V3, b"\x82\x06\0\0\0\x01a\0", Malformed::PacketId);
    check(Version::V3, b"\x82\x05\0\x01\0\x01a", Malformed::Truncated);
    check(Version::V3, b"\x82\x06\0\x01\0\x01a\x03", Malformed::SubscriptionValue);
    check(Version::V3, b"\x82\x06\0\x01\0\x01a\x04", Malformed::SubscriptionOptions);
    check(Version::V5, b"\x82\x07\0\x01\0\0\x01a\x40", Malformed::SubscriptionOptions);
    check(Version::V5, b"\x82\x07\0\x01\0\0\x01a\x30", Malformed::SubscriptionValue);
    check(Version::V5, b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0", Malformed::PropertyValue);
    check(Version::V5, b"\x82\x10\0\x01\0\0\x0a$share/g/a\x04", Malformed::SharedNoLocal);
    check(Version::V3, b"\xa2\x02\0\x01", Malformed::NoFilter);
    check(Version::V3, b"\xa2\x06\0\x01\0\x02a#", Malformed::TopicFilter);
    check(Version::V3, b"\xa2\x04\0\x01\0\0", Malformed::TopicFilter);
}

#[test]
fn the_rest() {
    check_both(&[0xc0, 1, 0], Malformed::TrailingBytes);
    check(Version::V3, &[0xe0, 1, 0], Malformed::TrailingBytes);
    check(Version::V5, &[0xe0, 1, 0x8b], Malformed::ReasonCode);
    check(Version::V5, &[0xe0, 7, 0, 5, 0x1c, 0, 2, b'a', b'b'], Malformed::PropertyOfServers);
    check(Version::V3, &[0xf0, 0], Malformed::PacketType);
    check(Version::V5, &[0xf0, 1, 0x20], Malformed::ReasonCode);
}

#[test]
fn filters() {
    for (filter, valid) in [
        ("a", true),
        ("/", true),
        ("#", true),
        ("+", true),
        ("a/+/#", true),
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
        ("/+", "/a", true),
        ("#", "$SYS/a", false),
        ("+/a", "$SYS/a", false),
        ("$SYS/#", "$SYS/a", true),
        ("a/b", "a/b/c", false),
        ("a/b/c", "a/b", false),
    ] {
        assert_eq!(filter_matches(filter, name), matches, "{filter} {name}");
    }
}
