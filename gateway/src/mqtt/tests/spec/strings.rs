//! Section 1.5: strings and variable byte integers.

use super::super::gateway::{Client, Gateway};
use super::super::wire::{self, Connect, plain};
use super::house::house;
use super::{BOTH, OWN, open, swapped, with_properties};

/// Stands for three bytes of a string in every packet below.
const PLACE: &[u8] = b"xyz";

/// CONNECTs with [`PLACE`] as client id, will topic and user name.
fn connects(version: u8) -> Vec<Vec<u8>> {
    let none: &[u8] = if version == 5 { &[0] } else { &[] };
    let will = [none, &wire::string("xyz"), &wire::string("payload")].concat();
    let user = [wire::string("xyz"), wire::string("password")].concat();
    [
        plain(version, "xyz"),
        Connect { flags: 0x06, rest: will, ..plain(version, "d") },
        Connect { flags: 0xc2, rest: user, ..plain(version, "d") },
    ]
    .iter()
    .map(Connect::bytes)
    .collect()
}

/// Packets after CONNECT with [`PLACE`] in every string they may hold.
fn packets(version: u8) -> Vec<Vec<u8>> {
    let mut packets = vec![
        wire::publish(version, 0, 0, "a/xyz/b", b""),
        wire::publish(version, 1, 1, "xyz", b""),
        wire::subscribe(version, 1, &[("a", 0), ("b/xyz", 0)]),
        wire::unsubscribe(version, 1, &["xyz", "a"]),
    ];
    if version == 5 {
        let response_topic = [&[0x08][..], &wire::string("r/xyz")].concat();
        let content_type = [&[0x03][..], &wire::string("xyz")].concat();
        let user = [&[0x26][..], &wire::string("key"), &wire::string("xyz")].concat();
        packets.extend([response_topic, content_type, user].map(|properties| with_properties(&properties)));
        let reason = [&[0, 6, 0x1f][..], &wire::string("xyz")].concat();
        packets.push(wire::packet(0xe0, &reason));
    }
    packets
}

/// Asserts that nobody may say these three bytes, wherever a string stands.
async fn check(bytes: [u8; 3]) {
    let gateway = Gateway::start();
    for version in BOTH {
        for connect in connects(version) {
            let mut client = gateway.raw().await;
            client.send(&swapped(&connect, PLACE, &bytes)).await;
            client.expect_refusal(version).await;
        }
        for packet in packets(version) {
            let mut client: Client<_> = gateway.client(version, "d").await;
            client.send(&swapped(&packet, PLACE, &bytes)).await;
            client.expect_disconnect(version, &[0x81]).await;
        }
    }
}

// 3.1.1 [MQTT-1.5.3-1], [MQTT-3.1.3-4], [MQTT-3.1.3-10], [MQTT-3.1.3-11], [MQTT-3.3.2-1],
//   [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.7.3-3]
// 5 [MQTT-1.5.4-1], [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12], [MQTT-3.3.2-1], [MQTT-3.3.2-13],
//   [MQTT-3.3.2-19], [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT-4.7.3-3]
#[tokio::test]
async fn ill_formed_utf_8_ends_the_connection() {
    // A stray byte, a surrogate of each half, an overlong slash, a character that is cut, one above U+10FFFF.
    for bytes in [
        [b'a', 0xff, b'b'],
        [0xed, 0xa0, 0x80],
        [0xed, 0xbf, 0xbf],
        [b'a', 0xc0, 0xaf],
        [b'a', 0xe2, 0x82],
        [0xf4, 0x90, 0x80],
    ] {
        check(bytes).await;
    }
}

// 3.1.1 [MQTT-1.5.3-2], [MQTT-4.7.3-2]
// 5 [MQTT-1.5.4-2], [MQTT-4.7.3-2]
#[tokio::test]
async fn a_null_character_ends_the_connection() {
    check([b'a', 0, b'b']).await;
    check([0, b'a', b'b']).await;
}

// 5 [MQTT-1.5.7-1]
#[tokio::test]
async fn both_strings_of_a_user_property_are_checked() {
    let gateway = Gateway::start();
    let pair = [&[0x26][..], &wire::string("abc"), &wire::string("xyz")].concat();
    for place in [&b"abc"[..], b"xyz"] {
        for bytes in [[b'a', 0xff, b'b'], [b'a', 0, b'b']] {
            let mut client = gateway.client(5, "d").await;
            client.send(&swapped(&with_properties(&pair), place, &bytes)).await;
            client.expect_disconnect(5, &[0x81]).await;
        }
    }
    let mut client = gateway.client(5, "d").await;
    client.send(&with_properties(&pair)).await;
    client.expect_silence().await;
}

// 5 [MQTT-1.5.5-1]
#[tokio::test]
async fn lengths_take_the_fewest_bytes() {
    let gateway = Gateway::start();
    for version in BOTH {
        // A PINGREQ whose remaining length takes two bytes.
        let mut client = gateway.client(version, "d").await;
        client.send(&[0xc0, 0x80, 0x00]).await;
        client.expect_disconnect(version, &[0x81]).await;
    }
    // A property length of 0 in two bytes: of PUBLISH, SUBSCRIBE and CONNECT.
    let publish = [&wire::string(OWN)[..], &[0x80, 0x00], b"x"].concat();
    let subscribe = [&[0, 1, 0x80, 0x00][..], &wire::string(OWN), &[0]].concat();
    for packet in [wire::packet(0x30, &publish), wire::packet(0x82, &subscribe)] {
        let mut client = gateway.client(5, "d").await;
        client.send(&packet).await;
        client.expect_disconnect(5, &[0x81]).await;
    }
    let connect = [&wire::string("MQTT")[..], &[5, 2, 0, 60, 0x80, 0x00], &wire::string("d")].concat();
    let mut client = gateway.raw().await;
    client.send(&wire::packet(0x10, &connect)).await;
    client.expect_refusal(5).await;
    // The same with one byte each is taken.
    let (mut client, connack) = open(&gateway, &plain(5, "d")).await;
    assert_eq!(connack[3], 0);
    client.send(&with_properties(&[])).await;
    client.expect_silence().await;
}

// 3.1.1 [MQTT-1.5.3-3]
// 5 [MQTT-1.5.4-3]
#[tokio::test]
async fn a_byte_order_mark_is_kept() {
    for version in BOTH {
        let gateway = house();
        let mut client = gateway.client(version, "d").await;
        let marked = ["\u{feff}house/door", "house/\u{feff}", "house/door\u{feff}"];
        for filter in marked {
            client.listen(version, filter, 1).await;
        }
        let mut publisher = gateway.client(version, "publisher").await;
        // Without the mark these are other topics.
        for topic in ["house/door", "house/"] {
            publisher.say(version, 1, topic, "x").await;
        }
        for topic in marked {
            publisher.say(version, 1, topic, "\u{feff}x").await;
            let heard = client.take(version).await;
            assert_eq!((&*heard.topic, &*heard.payload), (topic, "\u{feff}x"));
        }
        client.expect_silence().await;
    }
}
