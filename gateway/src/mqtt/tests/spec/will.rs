//! Sections 3.1.2.5 and 3.1.3.2: wills.

use std::time::Duration;

use super::super::gateway::{Client, Gateway};
use super::super::wire::{self, Connect, plain};
use super::house::{config, house, let_pass, lose};
use super::{BOTH, open};
use crate::supervise::clock;
use tokio::net::TcpStream;

const TOPIC: &str = "house/will";

/// A CONNECT with a will; `flags` are those of its QoS and RETAIN, `properties` those of the will.
fn with_will<'a>(connect: Connect<'a>, flags: u8, properties: &[u8]) -> Connect<'a> {
    let length = u8::try_from(properties.len()).unwrap();
    let properties = [&[length], properties].concat();
    let properties: &[u8] = if connect.version == 5 { &properties } else { &[] };
    let rest = [properties, &wire::string(TOPIC), &wire::binary(b"gone")].concat();
    Connect { flags: connect.flags | 0x04 | flags, rest, ..connect }
}

/// A client that listens for wills at QoS 2, and another that can say what comes after them.
async fn listener(gateway: &Gateway, version: u8) -> Client<TcpStream> {
    let mut client = gateway.client(version, "listener").await;
    client.listen(version, "house/#", 2).await;
    client
}

/// Asserts that nothing was published before this.
async fn expect_nothing(gateway: &Gateway, version: u8, listener: &mut Client<TcpStream>) {
    let mut speaker = gateway.client(version, "speaker").await;
    speaker.say(version, 1, "house/mark", "mark").await;
    listener.expect_payloads(version, &["mark"]).await;
    speaker.leave().await;
}

// 3.1.1 [MQTT-3.1.2-8], [MQTT-3.1.2-14]
// 5 [MQTT-3.1.2-7], [MQTT-3.1.2-8], [MQTT-3.1.2-12]
#[tokio::test]
async fn a_will_is_published_when_the_connection_is_lost() {
    for version in BOTH {
        for qos in 0..3 {
            let gateway = house();
            let mut listener = listener(&gateway, version).await;
            // Nothing said, a packet that breaks the protocol, and DISCONNECT with the will (MQTT 5).
            let ends: [&[u8]; 3] = [&[], &[0xc1, 0], &[0xe0, 1, 0x04]];
            for end in &ends[..if version == 5 { 3 } else { 2 }] {
                let (mut client, _) = open(&gateway, &with_will(plain(version, "d"), qos << 3, &[])).await;
                client.expect_silence().await;
                client.send(end).await;
                drop(client);
                let heard = listener.take(version).await;
                assert_eq!((heard.qos, &*heard.topic, &*heard.payload), (qos, TOPIC, "gone"));
                assert!(!heard.retain && !heard.dup);
            }
        }
    }
}

// 3.1.1 [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.14.4-3]
// 5 [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.14.4-3]
#[tokio::test]
async fn a_will_is_not_published_after_disconnect() {
    for version in BOTH {
        let gateway = house();
        let mut listener = listener(&gateway, version).await;
        let (client, _) = open(&gateway, &with_will(plain(version, "d"), 0x08, &[])).await;
        client.leave().await;
        gateway.connections(1).await;
        expect_nothing(&gateway, version, &mut listener).await;
    }
}

// 3.1.1 [MQTT-3.1.2-10]
// 5 [MQTT-3.1.2-10]
#[tokio::test]
async fn a_will_is_published_once() {
    for version in BOTH {
        let gateway = house();
        let mut listener = listener(&gateway, version).await;
        let (client, _) = open(&gateway, &with_will(plain(version, "d"), 0x08, &[])).await;
        lose(&gateway, client, 1).await;
        listener.expect_payloads(version, &["gone"]).await;
        // The next connection of this client has none.
        let client = gateway.client(version, "d").await;
        lose(&gateway, client, 1).await;
        expect_nothing(&gateway, version, &mut listener).await;
    }
}

// 3.1.1 [MQTT-3.1.2-12]
#[tokio::test]
async fn nothing_is_published_without_a_will() {
    for version in BOTH {
        let gateway = house();
        let mut listener = listener(&gateway, version).await;
        for end in [&[][..], &[0xc1, 0]] {
            let mut client = gateway.client(version, "d").await;
            client.send(end).await;
            lose(&gateway, client, 1).await;
            expect_nothing(&gateway, version, &mut listener).await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-16], [MQTT-3.1.2-17]
// 5 [MQTT-3.1.2-14], [MQTT-3.1.2-15]
#[tokio::test]
async fn will_retain_decides_whether_the_will_is_kept() {
    for version in BOTH {
        for retain in [false, true] {
            let gateway = house();
            let mut early = listener(&gateway, version).await;
            let flags = 0x08 | if retain { 0x20 } else { 0 };
            let (client, _) = open(&gateway, &with_will(plain(version, "d"), flags, &[])).await;
            lose(&gateway, client, 1).await;
            assert!(!early.take(version).await.retain);
            let mut late = gateway.client(version, "late").await;
            late.listen(version, TOPIC, 1).await;
            if retain {
                let heard = late.take(version).await;
                assert_eq!((&*heard.payload, heard.retain), ("gone", true));
            }
            late.expect_silence().await;
        }
    }
}

// 5 [MQTT-3.1.2-8]
#[tokio::test]
async fn a_will_waits_for_its_delay() {
    let gateway = house();
    let mut listener = listener(&gateway, 5).await;
    let connect = Connect { properties: &[0x11, 0, 0, 0x0e, 0x10], ..plain(5, "d") };
    let (client, _) = open(&gateway, &with_will(connect, 0x08, &[0x18, 0, 0, 0, 2])).await;
    let lost = clock::now();
    lose(&gateway, client, 1).await;
    expect_nothing(&gateway, 5, &mut listener).await;
    listener.expect_payloads(5, &["gone"]).await;
    assert!(lost.elapsed() >= Duration::from_secs(2), "{:?}", lost.elapsed());
}

// 5 [MQTT-3.1.2-8]
#[tokio::test]
async fn a_will_is_published_when_its_session_ends() {
    let gateway = house();
    let mut listener = listener(&gateway, 5).await;
    let long = [0x18, 0, 1, 0, 0];
    // A session without expiry ends with its connection, whatever the delay.
    let (client, _) = open(&gateway, &with_will(plain(5, "d"), 0x08, &long)).await;
    drop(client);
    listener.expect_payloads(5, &["gone"]).await;
    // A clean start ends the session before.
    let lasting = Connect { properties: &[0x11, 0, 0, 0x0e, 0x10], ..plain(5, "d") };
    let (client, _) = open(&gateway, &with_will(lasting, 0x08, &long)).await;
    lose(&gateway, client, 1).await;
    expect_nothing(&gateway, 5, &mut listener).await;
    gateway.client(5, "d").await.leave().await;
    listener.expect_payloads(5, &["gone"]).await;
    // So does its expiry.
    let gateway = Gateway::with_tick(&config(), Duration::from_millis(100));
    let mut listener = self::listener(&gateway, 5).await;
    let short = Connect { properties: &[0x11, 0, 0, 0, 1], ..plain(5, "d") };
    let (client, _) = open(&gateway, &with_will(short, 0x08, &long)).await;
    drop(client);
    listener.expect_payloads(5, &["gone"]).await;
}

// 5 [MQTT-3.1.2-8], [MQTT-3.1.3-9]
#[tokio::test]
async fn a_client_that_returns_before_the_delay_has_no_will() {
    let gateway = house();
    let mut listener = listener(&gateway, 5).await;
    let lasting = || Connect { properties: &[0x11, 0, 0, 0x0e, 0x10], flags: 0, ..plain(5, "d") };
    let delay = [0x18, 0, 0, 0, 2];
    let (client, _) = open(&gateway, &with_will(lasting(), 0x08, &delay)).await;
    lose(&gateway, client, 1).await;
    let (client, connack) = open(&gateway, &lasting()).await;
    assert_eq!(connack[2], 1);
    let_pass(Duration::from_millis(2300)).await;
    expect_nothing(&gateway, 5, &mut listener).await;
    // By take-over as well: the old connection ends, but its session goes on.
    client.leave().await;
    let (mut older, _) = open(&gateway, &with_will(lasting(), 0x08, &delay)).await;
    let (_newer, connack) = open(&gateway, &lasting()).await;
    assert_eq!(connack[2], 1);
    older.expect_disconnect(5, &[0x8e]).await;
    let_pass(Duration::from_millis(2300)).await;
    expect_nothing(&gateway, 5, &mut listener).await;
}

// 5 [MQTT-3.1.3-10]
#[tokio::test]
async fn the_properties_of_a_will_are_published() {
    let gateway = house();
    let mut listener = listener(&gateway, 5).await;
    let user = |key: &str, value: &str| [&[0x26][..], &wire::string(key), &wire::string(value)].concat();
    let properties = [
        user("b", "1"),
        vec![0x01, 1],
        [&[0x08][..], &wire::string("house/answer")].concat(),
        user("a", "2"),
        [&[0x09][..], &wire::binary(&[0, 255])].concat(),
        [&[0x03][..], &wire::string("text/plain")].concat(),
        user("b", "0"),
    ]
    .concat();
    let (client, _) = open(&gateway, &with_will(plain(5, "d"), 0x08, &properties)).await;
    drop(client);
    let heard = listener.take(5).await;
    let users = [user("b", "1"), user("a", "2"), user("b", "0")];
    assert_eq!(heard.values(0x26), users.iter().map(|user| &user[1..]).collect::<Vec<_>>());
    assert_eq!(heard.values(0x01), [[1]]);
    assert_eq!(heard.values(0x08), [wire::string("house/answer")]);
    assert_eq!(heard.values(0x09), [wire::binary(&[0, 255])]);
    assert_eq!(heard.values(0x03), [wire::string("text/plain")]);
}
