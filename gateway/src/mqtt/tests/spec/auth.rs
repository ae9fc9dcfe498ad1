//! Sections 3.15 and 4.12: authentication beyond user name and password, which is not supported.

use super::super::gateway::Gateway;
use super::super::wire::{self, Connect, plain};
use super::{BOTH, OWN, form, open};

// 5 [MQTT-3.1.2-30], [MQTT-4.12.0-1]
#[tokio::test]
async fn an_authentication_method_is_refused_and_nothing_after_it_is_taken() {
    let gateway = Gateway::start();
    let method = [&[0x15][..], &wire::string("SCRAM-SHA-256")].concat();
    let data = [&method[..], &[0x16], &wire::binary(b"client first")].concat();
    for properties in [&method, &data] {
        let mut client = gateway.raw().await;
        let connect = Connect { properties, ..plain(5, "d") }.bytes();
        client.send(&[connect, wire::publish(5, 1, 1, OWN, b"x")].concat()).await;
        assert_eq!(client.expect_refusal(5).await, Some(0x8c));
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 5 [MQTT-3.15.2-1], [MQTT-4.12.0-7], [MQTT-4.12.1-1], [MQTT-4.12.1-2]
#[tokio::test]
async fn an_auth_of_a_client_ends_the_connection() {
    let gateway = Gateway::start();
    let method = [&[0x15][..], &wire::string("SCRAM-SHA-256")].concat();
    let length = u8::try_from(method.len()).unwrap();
    // Of all reasons, those that a client may send among them; authenticating again is 0x19.
    for reason in [0x00, 0x18, 0x19, 0x1a, 0x80] {
        let mut client = gateway.client(5, "d").await;
        client.send(&wire::packet(0xf0, &[&[reason, length][..], &method].concat())).await;
        client.expect_disconnect(5, &[0x81, 0x82]).await;
    }
    let mut client = gateway.client(5, "d").await;
    client.send(&[0xf0, 0]).await;
    client.expect_disconnect(5, &[0x82]).await;
    // 3.1.1 has no packet of this type.
    let mut client = gateway.client(4, "d").await;
    client.send(&[0xf0, 0]).await;
    client.expect_disconnect(4, &[]).await;
}

// 5 [MQTT-4.12.0-6]
#[tokio::test]
async fn nobody_is_asked_to_authenticate() {
    let gateway = Gateway::start();
    for version in BOTH {
        // The first packet is CONNACK and not AUTH; no other packet of the gateway may be AUTH either.
        let (_, connack) = open(&gateway, &plain(version, "d")).await;
        if version == 5 {
            let told = form::told(&connack);
            assert!(told.iter().all(|(name, _)| ![0x15, 0x16].contains(name)), "{connack:02x?}");
        }
    }
}
