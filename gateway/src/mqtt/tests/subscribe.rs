//! Subscriptions inside a device's own topics, and what they deliver.

use super::super::Access;
use super::super::hash_password;
use super::gateway::{Gateway, open_config};
use super::wire::{self, Connect, plain};

const TOPIC: &str = "devices/d/telemetry";

fn suback(version: u8, id: u16, codes: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    wire::packet(0x90, &[&id.to_be_bytes(), properties, codes].concat())
}

fn unsuback(version: u8, id: u16, codes: &[u8]) -> Vec<u8> {
    let rest: Vec<u8> = if version == 5 { [&[0], codes].concat() } else { Vec::new() };
    wire::packet(0xb0, &[&id.to_be_bytes()[..], &rest].concat())
}

#[tokio::test]
async fn every_filter_gets_its_own_answer() {
    let gateway = Gateway::with_limits(|limits| {
        limits.subscriptions_max = 2;
        limits.topic_levels_max = 4;
    });
    let filters = [
        ("devices/d/commands/+", 1),
        ("devices/e/#", 0),
        ("#", 0),
        ("devices/d/a/b/c", 0),
        ("$share/g/devices/d/#", 2),
        ("devices/d/one/more", 0),
        ("$share/g/devices/d/#", 1),
        ("$share/g/devices/e/#", 1),
    ];
    let mut v5 = gateway.client(5, "d").await;
    v5.send(&wire::subscribe(5, 7, &filters)).await;
    v5.expect(&[&suback(5, 7, &[1, 0x87, 0x87, 0x8f, 2, 0x97, 1, 0x87])]).await;
    v5.send(&wire::unsubscribe(5, 9, &["$share/g/devices/d/#", "devices/d/never"])).await;
    v5.expect(&[&unsuback(5, 9, &[0, 0x11])]).await;

    let mut v3 = gateway.client(4, "d").await;
    v3.send(&wire::subscribe(4, 7, &filters)).await;
    // 3.1.1 knows no shared subscriptions: those are refused and take no place.
    v3.expect(&[&suback(4, 7, &[1, 0x80, 0x80, 0x80, 0x80, 0, 0x80, 0x80])]).await;
    v3.send(&wire::unsubscribe(4, 9, &["$share/g/devices/d/#", "devices/d/never"])).await;
    v3.expect(&[&unsuback(4, 9, &[])]).await;
}

#[tokio::test]
async fn a_granted_filter_delivers_until_it_is_given_up() {
    for version in [4, 5] {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        let mut other = gateway.client(version, "e").await;
        client.send(&wire::subscribe(version, 1, &[("devices/d/telemetry/+", 2), ("devices/d/#", 0)])).await;
        client.expect(&[&suback(version, 1, &[2, 0])]).await;
        let topic = "devices/d/telemetry/s";
        other.send(&wire::publish(version, 1, 1, "devices/e/telemetry", b"other's")).await;
        other.expect(&[&wire::puback(1)]).await;
        client.send(&wire::publish(version, 0, 0, topic, b"mine")).await;
        client.expect(&[&wire::publish(version, 0, 0, topic, b"mine")]).await;
        client.send(&wire::unsubscribe(version, 2, &["devices/d/telemetry/+", "devices/d/#"])).await;
        client.expect(&[&unsuback(version, 2, &[0, 0])]).await;
        client.send(&wire::publish(version, 0, 0, topic, b"unheard")).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn no_local_and_retain_as_published_are_kept() {
    let gateway = Gateway::start();
    let mut client = gateway.client(5, "d").await;
    client.send(&wire::subscribe(5, 1, &[("devices/d/#", 0x04)])).await;
    client.expect(&[&suback(5, 1, &[0])]).await;
    client.send(&wire::publish(5, 1, 1, TOPIC, b"x")).await;
    client.expect(&[&wire::puback(1)]).await;
    client.expect_silence().await;
}

/// Two connections of one device, through a user that is bound to it.
#[tokio::test]
async fn connections_of_one_device_hear_each_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users");
    let hash = hash_password(b"secret").expect("hashed");
    std::fs::write(&file, format!("one:{hash}:device=d\n")).expect("written");
    let mut config = open_config();
    config.access = Access { anonymous: true, users_file: Some(file), rules: Vec::new() };
    let gateway = Gateway::with(&config);
    let mut listener = gateway.raw().await;
    let rest = [wire::string("one"), wire::string("secret")].concat();
    listener.send(&Connect { flags: 0xc2, rest, ..plain(4, "panel") }.bytes()).await;
    listener.expect(&[&[0x20, 2, 0, 0]]).await;
    listener.send(&wire::subscribe(4, 1, &[("devices/d/telemetry/#", 0)])).await;
    listener.expect(&[&suback(4, 1, &[0])]).await;
    let mut device = gateway.client(5, "d").await;
    let properties = [0x01, 1, 0x26, 0, 1, b'k', 0, 1, b'v'];
    device.send(&wire::publish_with(5, 2, 1, TOPIC, &properties, b"hello")).await;
    device.expect(&[&wire::puback(1)]).await;
    listener.expect(&[&wire::publish(4, 0, 0, TOPIC, b"hello")]).await;
    drop(listener);
    gateway.connections(1).await;
    device.send(&wire::publish(5, 1, 2, TOPIC, b"alone")).await;
    device.expect(&[&wire::puback(2)]).await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_loses_deliveries_and_nobody_else_does() {
    let gateway = Gateway::with_limits(|limits| limits.outgoing_bytes_max = 4096);
    let mut slow = gateway.client(4, "d").await;
    slow.send(&wire::subscribe(4, 1, &[("devices/d/#", 0)])).await;
    slow.expect(&[&suback(4, 1, &[0])]).await;
    // It publishes to itself faster than it reads; every publish is acknowledged all the same.
    let payload = vec![b'x'; 1000];
    for round in 0..50_u16 {
        let sent: Vec<_> = (1..=16).map(|k| wire::publish(4, 1, round * 16 + k, TOPIC, &payload)).collect();
        slow.send(&sent.concat()).await;
        let mut acked = 0;
        while acked < 16 {
            acked += usize::from(slow.packet().await[0] == 0x40);
        }
    }
    assert_eq!(gateway.outbox.payloads().len(), 800);
}
