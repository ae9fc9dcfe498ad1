//! Chapter 2: fixed headers, packet ids and properties of every packet.

use std::collections::BTreeSet;

use super::super::gateway::Gateway;
use super::super::wire;
use super::house::{Heard, house};
use super::{BOTH, OWN, form};

/// A packet of each kind that a client sends, with the flags it must have; CONNECT and PUBLISH aside.
fn packets(version: u8) -> Vec<Vec<u8>> {
    let mut packets = vec![
        wire::puback(1),
        wire::pubrec(1),
        wire::pubrel(1),
        wire::pubcomp(1),
        wire::subscribe(version, 1, &[(OWN, 0)]),
        wire::unsubscribe(version, 1, &[OWN]),
        wire::PINGREQ.to_vec(),
        vec![0xe0, 0],
    ];
    if version == 5 {
        packets.push(vec![0xf0, 0]);
    }
    packets
}

// 3.1.1 [MQTT-2.2.2-1], [MQTT-2.2.2-2], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1]
// 5 [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]
#[tokio::test]
async fn reserved_header_flags_end_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for packet in packets(version) {
            for flags in (0..16).filter(|flags| *flags != packet[0] & 0x0f) {
                let mut client = gateway.client(version, "d").await;
                let wrong = [&[packet[0] & 0xf0 | flags], &packet[1..]].concat();
                client.send(&wrong).await;
                client.expect_disconnect(version, &[0x81]).await;
            }
        }
        for flags in 1..16 {
            let mut client = gateway.raw().await;
            let mut connect = wire::connect(version, "d");
            connect[0] |= flags;
            client.send(&connect).await;
            client.expect_refusal(version).await;
        }
    }
}

// 3.1.1 [MQTT-2.3.1-1]
// 5 [MQTT-2.2.1-3]
#[tokio::test]
async fn packet_ids_of_zero_end_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for packet in [
            wire::publish(version, 1, 0, OWN, b"x"),
            wire::publish(version, 2, 0, OWN, b"x"),
            wire::subscribe(version, 0, &[(OWN, 0)]),
            wire::unsubscribe(version, 0, &[OWN]),
            wire::pubrel(0),
        ] {
            let mut client = gateway.client(version, "d").await;
            client.send(&packet).await;
            client.expect_disconnect(version, &[0x81, 0x82]).await;
        }
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 3.1.1 [MQTT-2.3.1-6], [MQTT-2.3.1-7], [MQTT-3.8.4-2], [MQTT-3.10.4-4]
// 5 [MQTT-2.2.1-5], [MQTT-2.2.1-6], [MQTT-3.8.4-2], [MQTT-3.10.4-5], [MQTT-4.3.3-11]
#[tokio::test]
async fn acknowledgements_carry_the_id_they_answer() {
    for version in BOTH {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        for id in [1, 2, 255, 256, 0x8000, 65_535] {
            for (packet, kind) in [
                (wire::publish(version, 1, id, OWN, b"x"), 0x40),
                (wire::publish(version, 2, id, OWN, b"x"), 0x50),
                (wire::pubrel(id), 0x70),
                (wire::subscribe(version, id, &[("devices/d/commands/+", 0)]), 0x90),
                (wire::unsubscribe(version, id, &["devices/d/commands/+"]), 0xb0),
            ] {
                client.send(&packet).await;
                let answer = client.next(version).await;
                assert_eq!((answer[0], &answer[2..4]), (kind, &id.to_be_bytes()[..]), "{answer:02x?}");
            }
        }
    }
}

/// Refusals above all: they are where a server could explain itself. None of them holds a reason string or
/// a user property, so that none can grow too large and none needs to know what the client asked for.
// 5 [MQTT-3.1.2-29], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3], [MQTT-3.6.2-2],
//   [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3], [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-3.11.2-1],
//   [MQTT-3.11.2-2]
#[tokio::test]
async fn acknowledgements_hold_no_strings() {
    let gateway = Gateway::start();
    let mut client = gateway.client(5, "d").await;
    let foreign = "devices/e/telemetry";
    for (packet, answer) in [
        (wire::publish(5, 1, 1, foreign, b"x"), wire::ack(0x40, 1, 0x87)),
        (wire::publish(5, 2, 2, foreign, b"x"), wire::ack(0x50, 2, 0x87)),
        (wire::pubrel(3), wire::ack(0x70, 3, 0x92)),
        (wire::publish(5, 1, 4, OWN, b"x"), wire::puback(4)),
        (wire::publish(5, 2, 5, OWN, b"x"), wire::pubrec(5)),
        (wire::pubrel(5), wire::pubcomp(5)),
        (wire::subscribe(5, 6, &[("devices/e/#", 0)]), vec![0x90, 4, 0, 6, 0, 0x87]),
        (wire::unsubscribe(5, 7, &["devices/e/#"]), vec![0xb0, 4, 0, 7, 0, 0x11]),
    ] {
        client.send(&packet).await;
        form::check(5, &answer);
        client.expect(&[&answer]).await;
    }
}

// 3.1.1 [MQTT-2.3.1-5], [MQTT-4.3.1-1]
// 5 [MQTT-2.2.1-2], [MQTT-4.3.1-1]
#[tokio::test]
async fn a_delivery_at_qos_0_carries_no_id() {
    for version in BOTH {
        let gateway = house();
        let mut client = gateway.client(version, "d").await;
        let mut publisher = gateway.client(version, "publisher").await;
        for (granted, said) in [(2, 0), (0, 2), (0, 0)] {
            client.listen(version, "house/door", granted).await;
            publisher.say(version, said, "house/door", "payload").await;
            client.expect(&[&wire::publish(version, 0, 0, "house/door", b"payload")]).await;
        }
    }
}

/// One packet of every kind that a server sends, by its first byte; `form` knows what each may look like.
// 3.1.1 [MQTT-2.2.2-1]
// 5 [MQTT-1.5.5-1], [MQTT-2.1.3-1], [MQTT-2.2.2-1], [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.1-1],
//   [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.14.2-1], [MQTT-3.14.2-2]
#[tokio::test]
async fn every_packet_the_gateway_sends_is_well_formed() {
    for version in BOTH {
        let gateway = house();
        let mut client = gateway.raw().await;
        let (topic, listen) = ("house/door", [("house/+", 2), ("closed/+", 1)]);
        client
            .send(
                &[
                    wire::connect(version, "d"),
                    wire::subscribe(version, 1, &listen),
                    wire::publish(version, 0, 0, topic, b"x"),
                    wire::publish(version, 1, 2, topic, b"x"),
                    wire::publish(version, 2, 3, topic, &[b'x'; 300]),
                    wire::pubrel(3),
                    wire::PINGREQ.to_vec(),
                ]
                .concat(),
            )
            .await;
        let mut kinds = BTreeSet::new();
        let mut expected = BTreeSet::from([0x20, 0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0]);
        if version == 5 {
            expected.insert(0xe0);
        }
        while let Some(packet) = client.packet_or_end().await {
            form::check(version, &packet);
            kinds.insert(packet[0]);
            let id = || u16::from_be_bytes([packet[2], packet[3]]);
            match packet[0] {
                0x32 | 0x34 => {
                    let heard = Heard::read(version, &packet);
                    let answer = if heard.qos == 1 { wire::puback } else { wire::pubrec };
                    client.send(&answer(heard.id)).await;
                }
                0x62 => {
                    client.send(&wire::pubcomp(id())).await;
                    client.send(&wire::unsubscribe(version, 4, &["house/+", "never"])).await;
                }
                // The end: flags that no PINGREQ has.
                0xb0 => client.send(&[0xc1, 0]).await,
                _ => {}
            }
        }
        assert_eq!(kinds, expected);
    }
}
