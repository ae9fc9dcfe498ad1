//! Section 3.3: PUBLISH in both directions.

use super::super::gateway::Gateway;
use super::super::wire;
use super::{BOTH, OWN, with_properties};

// 3.1.1 [MQTT-3.3.1-2], [MQTT-3.3.1-4]
// 5 [MQTT-3.3.1-2], [MQTT-3.3.1-4]
#[tokio::test]
async fn both_qos_bits_and_dup_at_qos_0_end_the_connection() {
    let gateway = Gateway::start();
    for version in BOTH {
        for flags in [0x06, 0x07, 0x0e, 0x0f, 0x08, 0x09] {
            let mut client = gateway.client(version, "d").await;
            client.send(&wire::publish_with(version, flags, 1, OWN, &[], b"x")).await;
            client.expect_disconnect(version, &[0x81, 0x82]).await;
        }
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 3.1.1 [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-4.7.1-1]
// 5 [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-4.7.0-1]
#[tokio::test]
async fn topic_names_are_plain() {
    let gateway = Gateway::start();
    for version in BOTH {
        for topic in ["#", "+", "devices/d/#", "devices/+/telemetry", "devices/d/telemetry+", "a#b"] {
            for qos in 0..3 {
                let mut client = gateway.client(version, "d").await;
                client.send(&wire::publish(version, qos, 1, topic, b"x")).await;
                client.expect_disconnect(version, &[0x81, 0x82, 0x90]).await;
            }
        }
        // A topic that is cut, and a packet without one.
        for body in [&[][..], &[0], &[0, 9, b'a']] {
            let mut client = gateway.client(version, "d").await;
            client.send(&wire::packet(0x30, body)).await;
            client.expect_disconnect(version, &[0x81]).await;
        }
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 3.1.1 [MQTT-3.3.4-1]
// 5 [MQTT-3.3.4-1]
#[tokio::test]
async fn a_publish_is_answered_by_its_qos() {
    for version in BOTH {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::publish(version, 0, 0, OWN, b"0")).await;
        client.expect_silence().await;
        client.send(&wire::publish(version, 1, 1, OWN, b"1")).await;
        client.expect(&[&wire::puback(1)]).await;
        client.send(&wire::publish(version, 2, 2, OWN, b"2")).await;
        client.expect(&[&wire::pubrec(2)]).await;
        client.send(&wire::pubrel(2)).await;
        client.expect(&[&wire::pubcomp(2)]).await;
        assert_eq!(gateway.outbox.payloads(), ["0", "1", "2"]);
    }
}

// 5 [MQTT-3.3.2-14]
#[tokio::test]
async fn a_response_topic_is_plain() {
    let gateway = Gateway::start();
    for topic in ["#", "+", "answers/#", "answers/+/d"] {
        let mut client = gateway.client(5, "d").await;
        client.send(&with_properties(&[&[0x08][..], &wire::string(topic)].concat())).await;
        client.expect_disconnect(5, &[0x81, 0x82, 0x90]).await;
    }
    assert!(gateway.outbox.payloads().is_empty());
}

// 5 [MQTT-3.3.4-6]
#[tokio::test]
async fn a_subscription_identifier_from_a_client_ends_the_connection() {
    let gateway = Gateway::start();
    let mut client = gateway.client(5, "d").await;
    client.send(&with_properties(&[0x0b, 1])).await;
    client.expect_disconnect(5, &[0x82]).await;
    assert!(gateway.outbox.payloads().is_empty());
}
