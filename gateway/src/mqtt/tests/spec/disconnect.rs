//! Sections 3.12 and 3.14: PINGREQ and DISCONNECT.

use super::super::gateway::Gateway;
use super::super::wire::{self, Connect, plain};
use super::{BOTH, OWN, open};

// 3.1.1 [MQTT-3.12.4-1]
// 5 [MQTT-3.12.4-1]
#[tokio::test]
async fn a_ping_is_answered() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::PINGREQ.repeat(5)).await;
        client.expect(&[&wire::PINGRESP[..]; 5]).await;
        client.send(&[0xe0, 0]).await;
        client.expect_end(&[]).await;
    }
}

// 3.1.1 [MQTT-3.14.4-2]
// 5 [MQTT-3.14.4-1]
#[tokio::test]
async fn nothing_after_a_disconnect_is_taken() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        let publish = |id, payload: &[u8]| wire::publish(version, 1, id, OWN, payload);
        let after = [publish(2, b"after"), wire::PINGREQ.to_vec()].concat();
        client.send(&[publish(1, b"before"), vec![0xe0, 0], after].concat()).await;
        // Whether the first one's PUBACK still comes is the gateway's choice; nothing else does.
        let last = client.packet_or_end().await;
        assert!(last.is_none() || last.as_deref() == Some(&wire::puback(1)), "{last:02x?}");
        if last.is_some() {
            client.expect_end(&[]).await;
        }
    }
    gateway.connections(0).await;
    assert_eq!(gateway.outbox.stored(2).await, ["before", "before"]);
    let mut client = gateway.client(5, "d").await;
    client.send(&wire::publish(5, 1, 1, OWN, b"last")).await;
    client.expect(&[&wire::puback(1)]).await;
    assert_eq!(gateway.outbox.payloads(), ["before", "before", "last"]);
}

// 5 [MQTT-3.14.4-1], [MQTT-3.14.4-2], [MQTT-4.13.2-1]
#[tokio::test]
async fn the_gateway_closes_after_its_disconnect() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        // What ends the connection, and packets behind it that would be answered.
        let wrong = [&[0xc1, 0][..], &wire::PINGREQ.repeat(100)].concat();
        client.send(&wrong).await;
        client.expect_disconnect(version, &[0x81]).await;
        let mut older = gateway.client(version, "d").await;
        let _newer = gateway.client(version, "d").await;
        older.expect_disconnect(version, &[0x8e]).await;
    }
}

// 5 [MQTT-3.14.2-1]
#[tokio::test]
async fn reasons_of_a_client_are_checked() {
    let gateway = Gateway::start();
    for reason in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let mut client = gateway.client(5, "d").await;
        client.send(&[0xe0, 1, reason]).await;
        client.expect_end(&[]).await;
    }
    // Those of a server, and unknown ones.
    for reason in [0x01, 0x87, 0x8b, 0x8d, 0x8e, 0x9c, 0xa0, 0xff] {
        let mut client = gateway.client(5, "d").await;
        client.send(&[0xe0, 1, reason]).await;
        client.expect_disconnect(5, &[0x81, 0x82]).await;
    }
    // A session that was to end with its connection cannot be made to last by DISCONNECT.
    let (mut client, _) = open(&gateway, &Connect { properties: &[0x11, 0, 0, 0, 0], ..plain(5, "d") }).await;
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]).await;
    client.expect_disconnect(5, &[0x82]).await;
}
