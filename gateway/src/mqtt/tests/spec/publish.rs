//! Section 3.3: PUBLISH in both directions.

use std::time::Duration;

use super::super::gateway::Gateway;
use super::super::wire;
use super::house::{Heard, house, let_pass, part, resume};
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

// 3.1.1 [MQTT-3.3.1-2], [MQTT-3.3.1-3], [MQTT-4.3.1-1]
// 5 [MQTT-3.3.1-2], [MQTT-3.3.1-3], [MQTT-4.3.1-1]
#[tokio::test]
async fn dup_is_not_passed_on() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        client.listen(version, "house/door", 2).await;
        for (flags, qos) in [(0x00, 0), (0x0a, 1), (0x02, 1), (0x0c, 2), (0x04, 2)] {
            publisher.say_with(version, flags, "house/door", &[], "x").await;
            let heard = client.take(version).await;
            assert_eq!((heard.dup, heard.qos), (false, qos), "{flags:02x}");
        }
    }
}

// 5 [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]
#[tokio::test]
async fn properties_are_forwarded_unaltered_and_in_order() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    client.listen(5, "house/door", 2).await;
    let mut old = gateway.client(4, "old").await;
    old.listen(4, "house/door", 0).await;
    let user = |key: &str, value: &str| [&[0x26][..], &wire::string(key), &wire::string(value)].concat();
    let properties = [
        user("z", "1"),
        [&[0x09][..], &wire::binary(&[0, 1, 255])].concat(),
        user("a", "2"),
        vec![0x01, 1],
        user("z", "1"),
        [&[0x03][..], &wire::string("text/plain; charset=\u{fc}tf")].concat(),
        user("", ""),
        [&[0x08][..], &wire::string("house/door/$answer")].concat(),
        user("z", "0"),
    ]
    .concat();
    let users = [user("z", "1"), user("a", "2"), user("z", "1"), user("", ""), user("z", "0")];
    let check = |heard: &Heard| {
        assert_eq!(heard.values(0x26), users.iter().map(|user| &user[1..]).collect::<Vec<_>>());
        assert_eq!(heard.values(0x01), [[1]]);
        assert_eq!(heard.values(0x03), [wire::string("text/plain; charset=\u{fc}tf")]);
        assert_eq!(heard.values(0x08), [wire::string("house/door/$answer")]);
        assert_eq!(heard.values(0x09), [wire::binary(&[0, 1, 255])]);
        assert_eq!(heard.properties.len(), 9, "nothing is added: {heard:?}");
    };
    for flags in [0x00, 0x02, 0x04, 0x03] {
        publisher.say_with(5, flags, "house/door", &properties, "x").await;
        check(&client.take(5).await);
        assert_eq!(old.take(4).await.payload, "x");
    }
    // From the queue of a client that was away, and what was retained.
    part(&gateway, client, 2).await;
    publisher.say_with(5, 0x02, "house/door", &properties, "x").await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    check(&client.take(5).await);
    client.listen(5, "house/door", 1).await;
    check(&client.take(5).await);
}

/// Message expiry in seconds, as a property.
fn expiry(seconds: u32) -> Vec<u8> {
    [&[0x02][..], &seconds.to_be_bytes()].concat()
}

/// The message expiry of a delivery.
fn left(heard: &Heard) -> Option<u32> {
    heard.values(0x02).first().map(|value| u32::from_be_bytes((*value).try_into().unwrap()))
}

// 5 [MQTT-3.3.2-6]
#[tokio::test]
async fn the_expiry_of_a_delivery_counts_down() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    client.listen(5, "house/door", 1).await;
    publisher.say_with(5, 0x03, "house/door", &expiry(100), "x").await;
    let told = left(&client.take(5).await).expect("an expiry");
    assert!((90..=100).contains(&told), "{told}");
    publisher.say(5, 1, "house/door", "for ever").await;
    assert_eq!(left(&client.take(5).await), None);
    part(&gateway, client, 1).await;
    publisher.say_with(5, 0x02, "house/door", &expiry(100), "x").await;
    let_pass(Duration::from_millis(2100)).await;
    // What waited for the client, and what is retained, lost two seconds.
    let (mut client, _) = resume(&gateway, 5, "d").await;
    let queued = left(&client.take(5).await).expect("an expiry");
    client.listen(5, "house/door", 1).await;
    let retained = left(&client.take(5).await).expect("an expiry");
    assert!((90..=98).contains(&queued) && (90..=98).contains(&retained), "{queued} {retained}");
}

// 5 [MQTT-3.3.2-5]
#[tokio::test]
async fn a_message_is_not_delivered_after_its_expiry() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    for version in BOTH {
        let (mut client, _) = resume(&gateway, version, &format!("d{version}")).await;
        client.listen(version, "house/+", 2).await;
        part(&gateway, client, 1).await;
    }
    publisher.say_with(5, 0x02, "house/1", &expiry(1), "short").await;
    publisher.say_with(5, 0x05, "house/2", &expiry(1), "short and retained").await;
    publisher.say_with(5, 0x02, "house/3", &expiry(100), "long").await;
    let_pass(Duration::from_millis(1100)).await;
    for version in BOTH {
        let (mut client, present) = resume(&gateway, version, &format!("d{version}")).await;
        assert!(present);
        client.expect_payloads(version, &["long"]).await;
        client.expect_silence().await;
    }
    let mut late = gateway.client(4, "late").await;
    late.listen(4, "house/+", 1).await;
    late.expect_silence().await;
}
