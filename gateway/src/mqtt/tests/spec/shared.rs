//! Section 4.8.2: shared subscriptions.

use std::collections::BTreeMap;

use tokio::net::TcpStream;

use super::super::gateway::{Client, Gateway};
use super::super::wire;
use super::house::{Heard, house, lose, resume};

const TOPIC: &str = "house/door";
const SHARED: &str = "$share/group/house/+";

// 5 [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[tokio::test]
async fn share_names_are_plain_and_followed_by_a_filter() {
    let gateway = house();
    for filter in [
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/g+/a",
        "$share/+/a",
        "$share/#/a",
        "$share/g#/a",
    ] {
        let mut client = gateway.client(5, "d").await;
        client.send(&wire::subscribe(5, 1, &[(filter, 0)])).await;
        // Refused by its answer, or by the end of the connection.
        let answer = client.packet_or_end().await.expect("an answer");
        let refused = match answer[0] {
            0x90 => answer[5] == 0x8f,
            0xe0 => [0x81, 0x82, 0x8f].contains(&answer[2]),
            _ => false,
        };
        assert!(refused, "{filter}: {answer:02x?}");
    }
    let mut client = gateway.client(5, "d").await;
    for filter in ["$share/g/a", "$share/g/#", "$share/g//", "$share/$/a/+", "$share/\u{e9}/a"] {
        client.listen(5, filter, 1).await;
    }
    // 3.1.1 knows none: it is a filter like others, or refused; it is never another's message.
    let mut client = gateway.client(4, "old").await;
    assert!([1, 0x80].contains(&client.subscribe(4, "$share/g/house/door", 1).await));
    let mut publisher = gateway.client(5, "publisher").await;
    publisher.say(5, 1, TOPIC, "x").await;
    client.expect_silence().await;
}

// 5 [MQTT-4.8.2-3]
#[tokio::test]
async fn each_message_goes_to_one_member_at_its_qos() {
    let gateway = house();
    let granted = [0, 1, 2];
    let mut members = Vec::new();
    for (qos, id) in granted.into_iter().zip(["zero", "one", "two"]) {
        let mut member = gateway.client(5, id).await;
        member.listen(5, SHARED, qos).await;
        members.push((qos, member));
    }
    let mut alone = gateway.client(4, "alone").await;
    alone.listen(4, TOPIC, 2).await;
    let mut other = gateway.client(5, "other group").await;
    other.listen(5, "$share/others/house/#", 2).await;
    let mut publisher = gateway.client(5, "publisher").await;
    let mut heard = BTreeMap::new();
    for number in 0..60 {
        let qos = number % 3;
        publisher.say(5, qos, TOPIC, &number.to_string()).await;
        // A subscription of its own, and that of another group, hear everything.
        assert_eq!(alone.take(4).await.payload, number.to_string());
        assert_eq!(other.take(5).await.payload, number.to_string());
    }
    for (granted, member) in &mut members {
        member.send(&wire::PINGREQ).await;
        loop {
            let packet = member.next(5).await;
            if packet == wire::PINGRESP {
                break;
            }
            let message = Heard::read(5, &packet);
            let number: u8 = message.payload.parse().expect("a number");
            assert_eq!(message.qos, (number % 3).min(*granted), "{message:?}");
            assert_eq!(heard.insert(number, *granted), None, "{number} came twice");
        }
    }
    assert_eq!(heard.len(), 60, "each came once: {heard:?}");
}

// 5 [MQTT-3.8.3-4]
#[tokio::test]
async fn no_local_on_a_shared_subscription_ends_the_connection() {
    let gateway = house();
    let mut client = gateway.client(5, "d").await;
    client.send(&wire::subscribe(5, 1, &[(SHARED, 0x05)])).await;
    client.expect_disconnect(5, &[0x82]).await;
}

/// A member with a lasting session that was sent a message at QoS 2 and lost before it answered; and
/// another member, who came after that. Returns the message and the other.
async fn begun(gateway: &Gateway) -> (Heard, Client<TcpStream>) {
    let mut publisher = gateway.client(5, "publisher").await;
    let (mut member, _) = resume(gateway, 5, "d").await;
    member.listen(5, SHARED, 2).await;
    publisher.say(5, 2, TOPIC, "begun").await;
    let heard = member.hear(5).await;
    assert_eq!(heard.qos, 2);
    let mut other = gateway.client(5, "other").await;
    other.listen(5, SHARED, 2).await;
    publisher.leave().await;
    gateway.connections(2).await;
    lose(gateway, member, 1).await;
    (heard, other)
}

// 5 [MQTT-4.8.2-4]
#[tokio::test]
async fn a_qos_2_delivery_is_finished_with_its_member() {
    let gateway = house();
    let (heard, mut other) = begun(&gateway).await;
    other.expect_silence().await;
    let (mut member, present) = resume(&gateway, 5, "d").await;
    assert!(present);
    let again = member.take(5).await;
    assert_eq!((again.dup, again.id, &*again.payload), (true, heard.id, "begun"));
    other.expect_silence().await;
}

// 5 [MQTT-4.8.2-5]
#[tokio::test]
async fn a_qos_2_delivery_goes_to_no_other_member() {
    let gateway = house();
    let (_, mut other) = begun(&gateway).await;
    // A clean start ends the session.
    let mut member = gateway.client(5, "d").await;
    member.expect_silence().await;
    other.expect_silence().await;
    let mut publisher = gateway.client(5, "another publisher").await;
    publisher.say(5, 2, TOPIC, "next").await;
    other.expect_payloads(5, &["next"]).await;
}

// 5 [MQTT-4.8.2-6]
#[tokio::test]
async fn a_refused_message_goes_to_no_other_member() {
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let gateway = house();
        let mut publisher = gateway.client(5, "publisher").await;
        let mut members = [gateway.client(5, "a").await, gateway.client(5, "b").await];
        members[0].listen(5, SHARED, 2).await;
        publisher.say(5, qos, TOPIC, "refused").await;
        let heard = members[0].hear(5).await;
        members[1].listen(5, SHARED, 2).await;
        members[0].send(&wire::ack(first, heard.id, 0x87)).await;
        for member in &mut members {
            member.expect_silence().await;
        }
        // The first one leaves: what it refused is nobody's.
        let [member, mut other] = members;
        member.leave().await;
        gateway.connections(2).await;
        publisher.say(5, qos, TOPIC, "next").await;
        other.expect_payloads(5, &["next"]).await;
    }
}
