//! Broken packets, one for each rule of the specifications that a decoder checks, with the reason it is
//! refused for and with what rumqttc makes of it.

use super::super::encode::varint;
use super::super::{Malformed, Version};
use Malformed as M;
use Rumqttc::{Accepts, Refuses};
use Version::{V3, V5};

/// What rumqttc makes of a packet that we refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rumqttc {
    /// It is lax: see [`why_lax`].
    Accepts,
    Refuses,
}

/// A broken packet.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) version: Version,
    pub(super) bytes: Vec<u8>,
    pub(super) refused: Malformed,
    pub(super) rumqttc: Rumqttc,
}

/// Why rumqttc accepts what is refused here for a reason; empty where it never does.
///
/// It is a client's codec: it trusts the server to have checked what clients sent.
pub(super) fn why_lax(reason: Malformed) -> &'static str {
    match reason {
        M::HeaderFlags => "it reads the flags of PUBLISH, and of a DISCONNECT of 5, only",
        M::Varint => "it takes a length in more bytes than needed",
        M::Truncated => "it counts what it read of a property block, and may read past its end",
        M::TrailingBytes => "it drops what follows the last field",
        M::Utf8 => "it lets NUL pass, and takes the topics of 5 for bytes",
        M::Dup => "it does not compare DUP with the level",
        M::PacketId => "it looks for zero in PUBLISH only",
        M::PropertyUnknown => "it counts one byte too many for a subscription identifier",
        M::PropertyNotAllowed => "it counts one byte too many for a subscription identifier",
        M::PropertyOfServers => "its decoder is a client's, and those are for clients",
        M::PropertyRepeated => "it keeps the last",
        M::PropertyValue => "it does not look at values",
        M::ReasonCode => "it takes every code of a server for one of a client",
        M::AuthenticationMethod => "it does not compare properties with each other",
        M::TopicName | M::TopicFilter => "it does not look into topics",
        M::NoTopic => "it does not look into topics",
        M::TopicAlias => "it does not look at values",
        M::SubscriptionOptions => "it takes the bits it knows",
        M::SharedNoLocal => "it does not look into topics",
        M::NoFilter => "it misses the filters of SUBSCRIBE only",
        M::ConnectFlags => "it looks at the bits of a will that is not there only",
        _ => "",
    }
}

/// The whole table.
pub(super) fn cases() -> Vec<Case> {
    let sections = [
        headers(),
        lengths(),
        connect(),
        connect_properties(),
        wills(),
        publish(),
        publish_properties(),
        acknowledgements(),
        subscribe(),
        unsubscribe(),
        the_rest(),
    ];
    sections.concat()
}

/// A packet whose remaining length is right.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    varint(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

fn case(version: Version, first: u8, body: &[u8], refused: Malformed, rumqttc: Rumqttc) -> Case {
    Case { version, bytes: packet(first, body), refused, rumqttc }
}

fn both(first: u8, body: &[u8], refused: Malformed, rumqttc: Rumqttc) -> [Case; 2] {
    [V3, V5].map(|version| case(version, first, body, refused, rumqttc))
}

/// Section 2.1: types and flags.
fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(both(0x00, b"", M::PacketType, Refuses));
    cases.push(case(V3, 0xf0, b"", M::PacketType, Refuses));
    for of_servers in [0x20, 0x90, 0xb0] {
        cases.extend(both(of_servers, b"\0\0\0", M::Unexpected, Refuses));
    }
    cases.extend(both(0xd0, b"", M::Unexpected, Refuses));
    let connect = b"\0\x04MQTT\x04\x02\0\0\0\x01d";
    let connect_5 = b"\0\x04MQTT\x05\x02\0\0\0\0\x01d";
    cases.push(case(V3, 0x11, connect, M::HeaderFlags, Accepts));
    cases.push(case(V5, 0x18, connect_5, M::HeaderFlags, Accepts));
    for first in [0x41, 0x48, 0x52, 0x60, 0x63, 0x6a, 0x71, 0x7f] {
        cases.extend(both(first, b"\0\x01", M::HeaderFlags, Accepts));
    }
    for first in [0x80, 0x83, 0x8a] {
        cases.push(case(V3, first, b"\0\x01\0\x01a\0", M::HeaderFlags, Accepts));
        cases.push(case(V5, first, b"\0\x01\0\0\x01a\0", M::HeaderFlags, Accepts));
    }
    for first in [0xa0, 0xa3, 0xa6] {
        cases.push(case(V3, first, b"\0\x01\0\x01a", M::HeaderFlags, Accepts));
        cases.push(case(V5, first, b"\0\x01\0\0\x01a", M::HeaderFlags, Accepts));
    }
    cases.extend(both(0xc1, b"", M::HeaderFlags, Accepts));
    cases.push(case(V3, 0xe2, b"", M::HeaderFlags, Accepts));
    cases.push(case(V5, 0xe8, b"\0\0", M::HeaderFlags, Refuses));
    cases.push(case(V5, 0xf1, b"\x18\0", M::HeaderFlags, Refuses));
    cases
}

/// Section 1.5.5: a length takes as few bytes as it can, and four at most.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut both = |bytes: &[u8], rumqttc| {
        for version in [V3, V5] {
            cases.push(Case { version, bytes: bytes.to_vec(), refused: M::Varint, rumqttc });
        }
    };
    both(b"\x30\xff\xff\xff\x80", Refuses);
    both(b"\x30\xff\xff\xff\xff\x7f", Refuses);
    both(b"\xc0\x80\0", Accepts);
    both(b"\xc0\x80\x80\x80\0", Accepts);
    for first in [0x40, 0x50, 0x62, 0x70] {
        both(&[first, 0x82, 0, 0, 1], Accepts);
    }
    let mut one = |version, bytes: &[u8]| {
        cases.push(Case { version, bytes: bytes.to_vec(), refused: M::Varint, rumqttc: Accepts });
    };
    one(V3, b"\x10\x8d\0\0\x04MQTT\x04\x02\0\0\0\x01d");
    one(V5, b"\x10\x8e\0\0\x04MQTT\x05\x02\0\0\0\0\x01d");
    one(V3, b"\x30\x83\0\0\x01t");
    one(V5, b"\x30\x84\0\0\x01t\0");
    one(V3, b"\x82\x86\0\0\x01\0\x01a\0");
    one(V5, b"\x82\x87\0\0\x01\0\0\x01a\0");
    one(V3, b"\xa2\x85\0\0\x01\0\x01a");
    one(V5, b"\xa2\x86\0\0\x01\0\0\x01a");
    one(V3, b"\xe0\x80\0");
    one(V5, b"\xe0\x82\0\0\0");
    // The same within a packet.
    for (first, body) in [
        (0x30, &b"\0\x01t\x80\0"[..]),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\x80\0\0\x01d"),
        (0x40, b"\0\x01\0\x80\0"),
        (0x82, b"\0\x01\x80\0\0\x01a\0"),
        (0x82, b"\0\x01\x03\x0b\x81\0\0\x01a\0"),
        (0xa2, b"\0\x01\x80\0\0\x01a"),
        (0xe0, b"\0\x80\0"),
    ] {
        cases.push(case(V5, first, body, M::Varint, Accepts));
    }
    cases
}

const V3_HEAD: &[u8] = b"\0\x04MQTT\x04";
const V5_HEAD: &[u8] = b"\0\x04MQTT\x05";

/// A CONNECT: the flags, then what follows a keep alive of zero.
fn hello(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
    let head = if version == V3 { V3_HEAD } else { V5_HEAD };
    [head, &[flags, 0, 0], rest].concat()
}

/// Section 3.1, without the properties.
fn connect() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut check = |body: &[u8], refused, rumqttc| {
        let version = if body.starts_with(V5_HEAD) { V5 } else { V3 };
        cases.push(case(version, 0x10, body, refused, rumqttc));
    };
    check(b"\0\x04MQTX\x04\x02\0\0\0\x01d", M::ProtocolName, Refuses);
    check(b"\0\x04mqtt\x04\x02\0\0\0\x01d", M::ProtocolName, Refuses);
    check(b"\0\0\x04\x02\0\0\0\x01d", M::ProtocolName, Refuses);
    check(b"\0\x04MQTT\x07\x02\0\0\0\x01d", M::ProtocolLevel(7), Refuses);
    check(b"\0\x04MQTT\x84\x02\0\0\0\x01d", M::ProtocolLevel(0x84), Refuses);
    check(b"\0\x06MQIsdp\x03\x02\0\0\0\x01d", M::ProtocolLevel(3), Refuses);
    for (version, id) in [(V3, &b"\0\x01d"[..]), (V5, b"\0\0\x01d")] {
        check(&hello(version, 0x03, id), M::ConnectFlags, Accepts);
        for will_without_will in [0x08, 0x10, 0x20] {
            check(&hello(version, will_without_will, id), M::ConnectFlags, Refuses);
        }
        check(&hello(version, 0x1e, &[id, b"\0\0\x01t\0\0"].concat()), M::ConnectFlags, Refuses);
        check(&hello(version, 2, b""), M::Truncated, Refuses);
        check(&hello(version, 2, &[id, b"x"].concat()), M::TrailingBytes, Accepts);
        check(&hello(version, 0x82, id), M::Truncated, Refuses);
        check(&hello(version, 0xc2, &[id, b"\0\x01u\0\x02p"].concat()), M::Truncated, Refuses);
        check(&hello(version, 0x82, &[id, b"\0\x01\xff"].concat()), M::Utf8, Refuses);
        check(&hello(version, 0x82, &[id, b"\0\x01\0"].concat()), M::Utf8, Accepts);
    }
    check(&hello(V3, 0x42, b"\0\x01d\0\x01p"), M::ConnectFlags, Accepts);
    check(&hello(V3, 2, b"\0\x01\xff"), M::Utf8, Refuses);
    check(&hello(V3, 2, b"\0\x01\0"), M::Utf8, Accepts);
    // A surrogate.
    check(&hello(V3, 2, b"\0\x03\xed\xa0\x80"), M::Utf8, Refuses);
    check(b"\0\x04MQTT", M::Truncated, Refuses);
    check(b"\0\x04MQTT\x04", M::Truncated, Refuses);
    check(b"\0\x04MQTT\x04\x02\0", M::Truncated, Refuses);
    check(b"\0\x04MQT", M::Truncated, Refuses);
    cases
}

/// Section 3.1.2.11.
fn connect_properties() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut check = |properties: &[u8], refused, rumqttc| {
        let rest = [&[u8::try_from(properties.len()).unwrap()], properties, b"\0\x01d"].concat();
        cases.push(case(V5, 0x10, &hello(V5, 2, &rest), refused, rumqttc));
    };
    for twice in [
        &b"\x11\0\0\0\0\x11\0\0\0\0"[..],
        b"\x21\0\x01\x21\0\x01",
        b"\x27\0\0\0\x01\x27\0\0\0\x01",
        b"\x22\0\0\x22\0\0",
        b"\x19\0\x19\0",
        b"\x17\0\x17\0",
        b"\x15\0\x01m\x15\0\x01m",
        b"\x15\0\x01m\x16\0\x01d\x16\0\x01d",
    ] {
        check(twice, M::PropertyRepeated, Accepts);
    }
    for value in [&b"\x21\0\0"[..], b"\x27\0\0\0\0", b"\x19\x02", b"\x17\x02"] {
        check(value, M::PropertyValue, Accepts);
    }
    // Of PUBLISH, wills, SUBSCRIBE, CONNACK, DISCONNECT.
    for (foreign, refused) in [
        (&b"\x01\0"[..], M::PropertyNotAllowed),
        (b"\x02\0\0\0\0", M::PropertyNotAllowed),
        (b"\x03\0\0", M::PropertyNotAllowed),
        (b"\x08\0\x01t", M::PropertyNotAllowed),
        (b"\x09\0\0", M::PropertyNotAllowed),
        (b"\x0b\x01", M::PropertyNotAllowed),
        (b"\x12\0\x01d", M::PropertyNotAllowed),
        (b"\x13\0\0", M::PropertyNotAllowed),
        (b"\x18\0\0\0\0", M::PropertyNotAllowed),
        (b"\x1a\0\0", M::PropertyNotAllowed),
        (b"\x1c\0\0", M::PropertyNotAllowed),
        (b"\x1f\0\0", M::PropertyNotAllowed),
        (b"\x23\0\x01", M::PropertyNotAllowed),
        (b"\x24\0", M::PropertyNotAllowed),
        (b"\x25\0", M::PropertyNotAllowed),
        (b"\x28\0", M::PropertyNotAllowed),
        (b"\x29\0", M::PropertyNotAllowed),
        (b"\x2a\0", M::PropertyNotAllowed),
        (b"\0\0", M::PropertyUnknown),
        (b"\x2b\0", M::PropertyUnknown),
        (b"\x7e\0", M::PropertyUnknown),
        // An identifier of two bytes; there is none.
        (b"\x91\0\0\0", M::PropertyUnknown),
    ] {
        check(foreign, refused, Refuses);
    }
    check(b"\x16\0\x01d", M::AuthenticationMethod, Accepts);
    check(b"\x15\0\x01\0", M::Utf8, Accepts);
    check(b"\x15\0\x01\xff", M::Utf8, Refuses);
    check(b"\x26\0\x01\xff\0\0", M::Utf8, Refuses);
    check(b"\x26\0\x01a\0\x01\0", M::Utf8, Accepts);
    // The value runs past the block, into what follows it.
    check(b"\x11\0\0\0", M::Truncated, Refuses);
    check(b"\x26\0\x01a", M::Truncated, Refuses);
    cases.push(case(V5, 0x10, &hello(V5, 2, b"\x01\x22\0\0\0\x01d"), M::Truncated, Accepts));
    cases.push(case(V5, 0x10, &hello(V5, 2, b"\x7f\0\x01d"), M::Truncated, Refuses));
    cases
}

/// Section 3.1.3.2 and those after it.
fn wills() -> Vec<Case> {
    let mut cases = Vec::new();
    for (topic, refused, rumqttc) in [
        (&b"\0\x01#"[..], M::TopicName, Accepts),
        (b"\0\x03a/+", M::TopicName, Accepts),
        (b"\0\0", M::TopicName, Accepts),
        (b"\0\x01\0", M::Utf8, Accepts),
    ] {
        let rest = [b"\0\x01d", topic, b"\0\0"].concat();
        cases.push(case(V3, 0x10, &hello(V3, 0x06, &rest), refused, rumqttc));
        let rest = [b"\0\0\x01d\0", topic, b"\0\0"].concat();
        cases.push(case(V5, 0x10, &hello(V5, 0x06, &rest), refused, rumqttc));
    }
    cases.push(case(V3, 0x10, &hello(V3, 0x06, b"\0\x01d\0\x01\xff\0\0"), M::Utf8, Refuses));
    cases.push(case(V3, 0x10, &hello(V3, 0x06, b"\0\x01d\0\x01t"), M::Truncated, Refuses));
    let mut check = |properties: &[u8], refused, rumqttc| {
        let length = [u8::try_from(properties.len()).unwrap()];
        let rest = [&b"\0\0\x01d"[..], &length, properties, b"\0\x01t\0\0"].concat();
        cases.push(case(V5, 0x10, &hello(V5, 0x06, &rest), refused, rumqttc));
    };
    check(b"\x18\0\0\0\0\x18\0\0\0\0", M::PropertyRepeated, Accepts);
    check(b"\x01\0\x01\0", M::PropertyRepeated, Accepts);
    check(b"\x01\x02", M::PropertyValue, Accepts);
    check(b"\x23\0\x01", M::PropertyNotAllowed, Refuses);
    check(b"\x11\0\0\0\0", M::PropertyNotAllowed, Refuses);
    check(b"\x0b\x01", M::PropertyNotAllowed, Refuses);
    check(b"\x08\0\x01#", M::TopicName, Accepts);
    check(b"\x18\0\0\0", M::Truncated, Refuses);
    cases
}

/// Section 3.3, without the properties.
fn publish() -> Vec<Case> {
    let mut cases = Vec::new();
    for (version, none) in [(V3, &b""[..]), (V5, b"\0")] {
        let mut check = |first, body: &[u8], refused, rumqttc| {
            cases.push(case(version, first, &[body, none].concat(), refused, rumqttc));
        };
        check(0x36, b"\0\x01t\0\x01", M::Qos, Refuses);
        check(0x3e, b"\0\x01t\0\x01", M::Qos, Refuses);
        check(0x38, b"\0\x01t", M::Dup, Accepts);
        check(0x32, b"\0\x01t\0\0", M::PacketId, Refuses);
        check(0x34, b"\0\x01t\0\0", M::PacketId, Refuses);
        check(0x30, b"\0\x01+", M::TopicName, Accepts);
        check(0x30, b"\0\x03a/#", M::TopicName, Accepts);
        check(0x30, b"\0\x01\0", M::Utf8, Accepts);
        check(0x30, b"\0\0", M::NoTopic, Accepts);
        check(0x30, b"\0\x09t", M::Truncated, Refuses);
    }
    cases.push(case(V3, 0x30, b"\0\x01\xc0", M::Utf8, Refuses));
    cases.push(case(V5, 0x30, b"\0\x01\xc0\0", M::Utf8, Accepts));
    cases.extend(both(0x32, b"\0\x01t\0", M::Truncated, Refuses));
    cases.extend(both(0x30, b"\0", M::Truncated, Refuses));
    cases.push(case(V5, 0x30, b"\0\x01t", M::Truncated, Refuses));
    cases.push(case(V5, 0x30, b"\0\x01t\x7f", M::Truncated, Refuses));
    cases
}

/// Section 3.3.2.3.
fn publish_properties() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut check = |properties: &[u8], refused, rumqttc| {
        let body = [&b"\0\x01t"[..], &[u8::try_from(properties.len()).unwrap()], properties].concat();
        cases.push(case(V5, 0x30, &body, refused, rumqttc));
    };
    for twice in [
        &b"\x01\0\x01\0"[..],
        b"\x02\0\0\0\0\x02\0\0\0\0",
        b"\x03\0\0\x03\0\0",
        b"\x08\0\x01t\x08\0\x01t",
        b"\x09\0\0\x09\0\0",
        b"\x23\0\x01\x23\0\x01",
    ] {
        check(twice, M::PropertyRepeated, Accepts);
    }
    check(b"\x01\x02", M::PropertyValue, Accepts);
    check(b"\x23\0\0", M::TopicAlias, Accepts);
    check(b"\x08\0\x01#", M::TopicName, Accepts);
    check(b"\x08\0\0", M::TopicName, Accepts);
    check(b"\x08\0\x01\0", M::Utf8, Accepts);
    check(b"\x03\0\x01\xff", M::Utf8, Refuses);
    check(b"\x0b\x01", M::PropertyOfServers, Accepts);
    check(b"\x11\0\0\0\0", M::PropertyNotAllowed, Refuses);
    check(b"\x18\0\0\0\0", M::PropertyNotAllowed, Refuses);
    check(b"\x1f\0\0", M::PropertyNotAllowed, Refuses);
    check(b"\x21\0\x01", M::PropertyNotAllowed, Refuses);
    check(b"\x04\0", M::PropertyUnknown, Refuses);
    check(b"\x02\0\0\0", M::Truncated, Refuses);
    // The value runs past the block, into the payload.
    cases.push(case(V5, 0x30, b"\0\x01t\x04\x02\0\0\0\0", M::Truncated, Accepts));
    cases
}

/// Sections 3.4 to 3.7.
fn acknowledgements() -> Vec<Case> {
    let mut cases = Vec::new();
    for first in [0x40, 0x50, 0x62, 0x70] {
        cases.extend(both(first, b"\0\0", M::PacketId, Accepts));
        cases.extend(both(first, b"\x01", M::Truncated, Refuses));
        cases.extend(both(first, b"", M::Truncated, Refuses));
        cases.push(case(V3, first, b"\0\x01\0", M::TrailingBytes, Accepts));
        for code in [0x01, 0x04, 0x11, 0x42, 0x81, 0x82, 0x8f, 0xff] {
            cases.push(case(V5, first, &[0, 1, code], M::ReasonCode, Refuses));
        }
        let mut check = |properties: &[u8], refused, rumqttc| {
            let body = [&b"\0\x01\0"[..], &[u8::try_from(properties.len()).unwrap()], properties].concat();
            cases.push(case(V5, first, &body, refused, rumqttc));
        };
        check(b"\x1f\0\0\x1f\0\0", M::PropertyRepeated, Accepts);
        check(b"\x1f\0\x01\0", M::Utf8, Accepts);
        check(b"\x1f\0\x01\xff", M::Utf8, Refuses);
        check(b"\x11\0\0\0\0", M::PropertyNotAllowed, Refuses);
        check(b"\x7f\0", M::PropertyUnknown, Refuses);
        check(b"\x26\0\x01a", M::Truncated, Refuses);
        cases.push(case(V5, first, b"\0\x01\0\0x", M::TrailingBytes, Accepts));
        cases.push(case(V5, first, b"\0\x01\0\x03\x1f\0\x01x", M::Truncated, Accepts));
    }
    for first in [0x62, 0x70] {
        cases.push(case(V5, first, b"\0\x01\x10", M::ReasonCode, Refuses));
        cases.push(case(V5, first, b"\0\x01\x80", M::ReasonCode, Refuses));
    }
    for first in [0x40, 0x50] {
        cases.push(case(V5, first, b"\0\x01\x92", M::ReasonCode, Refuses));
    }
    cases
}

/// Section 3.8.
fn subscribe() -> Vec<Case> {
    let mut cases = Vec::new();
    for (version, none) in [(V3, &b""[..]), (V5, b"\0")] {
        let mut check = |id: &[u8], filters: &[u8], refused, rumqttc| {
            cases.push(case(version, 0x82, &[id, none, filters].concat(), refused, rumqttc));
        };
        check(b"\0\0", b"\0\x01a\0", M::PacketId, Accepts);
        check(b"\0\x01", b"", M::NoFilter, Refuses);
        check(b"\0\x01", b"\0\x01a", M::Truncated, Refuses);
        check(b"\0\x01", b"\0\x02a", M::Truncated, Refuses);
        check(b"\0\x01", b"\0\x01a\0\0", M::Truncated, Refuses);
        check(b"\0\x01", b"\0\x01a\x03", M::SubscriptionValue, Refuses);
        check(b"\0\x01", b"\0\x01a\x40", M::SubscriptionOptions, Accepts);
        check(b"\0\x01", b"\0\x01a\x80", M::SubscriptionOptions, Accepts);
        for broken in [&b"\0\0"[..], b"\0\x02a#", b"\0\x03#/a", b"\0\x02a+", b"\0\x04a/+b", b"\0\x02##"] {
            check(b"\0\x01", &[broken, b"\0"].concat(), M::TopicFilter, Accepts);
        }
        check(b"\0\x01", b"\0\x01\0\0", M::Utf8, Accepts);
        check(b"\0\x01", b"\0\x01\xff\0", M::Utf8, Refuses);
        // The second of two.
        check(b"\0\x01", b"\0\x01a\0\0\x01a\x03", M::SubscriptionValue, Refuses);
    }
    for of_5 in [0x04, 0x08, 0x10, 0x20, 0x30] {
        let rumqttc = Accepts;
        cases.push(case(V3, 0x82, &[0, 1, 0, 1, b'a', of_5], M::SubscriptionOptions, rumqttc));
    }
    let mut check = |properties: &[u8], filters: &[u8], refused, rumqttc| {
        let length = [u8::try_from(properties.len()).unwrap()];
        let body = [&b"\0\x01"[..], &length, properties, filters].concat();
        cases.push(case(V5, 0x82, &body, refused, rumqttc));
    };
    let filter = b"\0\x01a\0";
    check(b"", b"\0\x01a\x30", M::SubscriptionValue, Refuses);
    check(b"\x0b\0", filter, M::PropertyValue, Accepts);
    check(b"\x0b\x01\x0b\x01", filter, M::PropertyRepeated, Accepts);
    check(b"\x0b\xff\xff\xff\xff", filter, M::Varint, Refuses);
    check(b"\x26\0\x01\0\0\0", filter, M::Utf8, Accepts);
    check(b"\x1f\0\0", filter, M::PropertyNotAllowed, Refuses);
    check(b"\x7f\0\0", filter, M::PropertyUnknown, Refuses);
    check(b"\x26\0\x01", filter, M::Truncated, Refuses);
    check(b"\x26\0\0", b"\0\0\0\x01a\0", M::Truncated, Accepts);
    // One byte more than the identifier: theirs begins the filters with it.
    check(b"\x0b\x01\0", b"\x01a\0", M::PropertyUnknown, Accepts);
    check(b"\x0b\x01\x01", &[b"\0", &[b'a'; 256][..], b"\0"].concat(), M::PropertyNotAllowed, Accepts);
    for shared in [&b"\0\x08$share//"[..], b"\0\x0a$share//ab", b"\0\x08$share/g", b"\0\x09$share/g/"] {
        check(b"", &[shared, b"\0"].concat(), M::TopicFilter, Accepts);
    }
    check(b"", b"\0\x0b$share/+/ab\0", M::TopicFilter, Accepts);
    check(b"", b"\0\x0b$share/g#/a\0", M::TopicFilter, Accepts);
    check(b"", b"\0\x0b$share/g/a#\0", M::TopicFilter, Accepts);
    check(b"", b"\0\x0a$share/g/a\x04", M::SharedNoLocal, Accepts);
    cases
}

/// Section 3.10.
fn unsubscribe() -> Vec<Case> {
    let mut cases = Vec::new();
    for (version, none) in [(V3, &b""[..]), (V5, b"\0")] {
        let mut check = |id: &[u8], filters: &[u8], refused, rumqttc| {
            cases.push(case(version, 0xa2, &[id, none, filters].concat(), refused, rumqttc));
        };
        check(b"\0\0", b"\0\x01a", M::PacketId, Accepts);
        check(b"\0\x01", b"", M::NoFilter, Accepts);
        check(b"\0\x01", b"\0\0", M::TopicFilter, Accepts);
        check(b"\0\x01", b"\0\x02a#", M::TopicFilter, Accepts);
        check(b"\0\x01", b"\0\x02a", M::Truncated, Refuses);
        check(b"\0\x01", b"\0\x01a\0", M::Truncated, Refuses);
        check(b"\0\x01", b"\0\x01\0", M::Utf8, Accepts);
        check(b"\0\x01", b"\0\x01\xff", M::Utf8, Refuses);
    }
    let mut check = |body: &[u8], refused, rumqttc| cases.push(case(V5, 0xa2, body, refused, rumqttc));
    check(b"\0\x01\0\0\x08$share/g", M::TopicFilter, Accepts);
    check(b"\0\x01\x02\x0b\x01\0\x01a", M::PropertyNotAllowed, Refuses);
    check(b"\0\x01\x02\x7f\x01\0\x01a", M::PropertyUnknown, Refuses);
    check(b"\0\x01\x06\x26\0\x01\0\0\0\0\x01a", M::Utf8, Accepts);
    check(b"\0\x01\x03\x26\0\0\0\0\0\x01a", M::Truncated, Accepts);
    cases
}

/// Sections 3.12, 3.14 and 3.15.
fn the_rest() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(both(0xc0, b"\0", M::TrailingBytes, Accepts));
    cases.push(case(V3, 0xe0, b"\0", M::TrailingBytes, Accepts));
    let mut disconnect = |body: &[u8], refused, rumqttc| {
        cases.push(case(V5, 0xe0, body, refused, rumqttc));
    };
    // Those that a server sends only.
    for code in [0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2] {
        disconnect(&[code, 0], M::ReasonCode, Accepts);
    }
    for code in [0x01, 0x02, 0x10, 0x11, 0x18, 0x84, 0x91, 0x92, 0xff] {
        disconnect(&[code, 0], M::ReasonCode, Refuses);
    }
    disconnect(b"\0\x0a\x11\0\0\0\0\x11\0\0\0\0", M::PropertyRepeated, Accepts);
    disconnect(b"\0\x03\x1c\0\0", M::PropertyOfServers, Accepts);
    disconnect(b"\0\x03\x21\0\x01", M::PropertyNotAllowed, Refuses);
    disconnect(b"\0\x02\x7f\0", M::PropertyUnknown, Refuses);
    disconnect(b"\0\x04\x1f\0\x01\0", M::Utf8, Accepts);
    disconnect(b"\0\x04\x1f\0\x01\xff", M::Utf8, Refuses);
    disconnect(b"\0\x04\x11\0\0\0\0", M::Truncated, Accepts);
    disconnect(b"\0\x01", M::Truncated, Refuses);
    disconnect(b"\0\0x", M::TrailingBytes, Accepts);
    // AUTH, which rumqttc does not read at all.
    for (body, refused) in [
        (&b""[..], M::ReasonCode),
        (b"\0", M::ReasonCode),
        (b"\x20", M::ReasonCode),
        (b"\x18", M::AuthenticationMethod),
        (b"\x18\0", M::AuthenticationMethod),
        (b"\x18\x04\x16\0\x01d", M::AuthenticationMethod),
        (b"\x18\x08\x15\0\x01m\x15\0\x01m", M::PropertyRepeated),
        (b"\x18\x05\x11\0\0\0\0", M::PropertyNotAllowed),
        (b"\x18\x04\x15\0\x01\0", M::Utf8),
        (b"\x19\x04\x15\0\x01mx", M::TrailingBytes),
        (b"\x19\x04\x15\0\x01", M::Truncated),
    ] {
        cases.push(case(V5, 0xf0, body, refused, Refuses));
    }
    cases
}
