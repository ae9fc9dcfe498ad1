//! Sections 3.8 and 3.9: SUBSCRIBE and SUBACK.

use super::super::gateway::{Client, Gateway};
use super::super::wire;
use super::house::{Heard, house, lose, resume};
use super::{BOTH, OWN};
use tokio::net::TcpStream;

// 3.1.1 [MQTT-3.8.3-3]
// 5 [MQTT-3.8.3-2]
#[tokio::test]
async fn a_subscribe_needs_a_filter() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::subscribe(version, 1, &[])).await;
        client.expect_disconnect(version, &[0x81, 0x82]).await;
        // A filter without its options.
        let mut packet = wire::subscribe(version, 1, &[(OWN, 0)]);
        packet.pop();
        packet[1] -= 1;
        let mut client = gateway.client(version, "d").await;
        client.send(&packet).await;
        client.expect_disconnect(version, &[0x81]).await;
    }
}

// 3.1.1 [MQTT-3.8.3-4]
// 5 [MQTT-3.8.3-5]
#[tokio::test]
async fn reserved_options_end_the_connection() {
    let gateway = Gateway::start();
    for (version, wrong) in
        [(4, &[0x03, 0x04, 0x08, 0x10, 0x80, 0xff][..]), (5, &[0x03, 0x30, 0x40, 0x80, 0xc1])]
    {
        for options in wrong {
            let mut client = gateway.client(version, "d").await;
            client.send(&wire::subscribe(version, 1, &[(OWN, 0), (OWN, *options)])).await;
            client.expect_disconnect(version, &[0x81, 0x82]).await;
        }
    }
}

// 3.1.1 [MQTT-3.8.4-1], [MQTT-3.8.4-4], [MQTT-3.8.4-5], [MQTT-3.9.3-1], [MQTT-3.9.3-2]
// 5 [MQTT-3.8.4-1], [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.8.4-7], [MQTT-3.9.3-1], [MQTT-3.9.3-2]
#[tokio::test]
async fn every_filter_is_answered_in_its_place() {
    let gateway = house();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        let filters = [("a", 2), ("closed/a", 1), ("b/+", 0), ("closed/#", 2), ("c/#", 1), ("a", 0)];
        client.send(&wire::subscribe(version, 9, &filters)).await;
        let codes: &[u8] =
            if version == 5 { &[0, 2, 0x87, 0, 0x87, 1, 0] } else { &[2, 0x80, 0, 0x80, 1, 0] };
        client.expect(&[&wire::packet(0x90, &[&[0, 9], codes].concat())]).await;
        // Taken one by one: the last one replaced the first.
        let mut publisher = gateway.client(version, "publisher").await;
        for (topic, qos) in [("a", 0), ("b/x", 0), ("c/x", 1)] {
            publisher.say(version, 2, topic, topic).await;
            let heard = client.take(version).await;
            assert_eq!((&*heard.topic, heard.qos), (topic, qos));
        }
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-3.8.4-3]
// 5 [MQTT-3.8.4-3]
#[tokio::test]
async fn the_same_filter_again_replaces_the_subscription() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        publisher.say_with(version, 0x03, "house/door", &[], "kept").await;
        let mut client = gateway.client(version, "d").await;
        for qos in [2, 0, 1] {
            client.listen(version, "house/+", qos).await;
            let heard = client.take(version).await;
            assert_eq!((&*heard.payload, heard.retain, heard.qos), ("kept", true, qos.min(1)));
            publisher.say(version, 2, "house/window", "new").await;
            let heard = client.take(version).await;
            assert_eq!((&*heard.payload, heard.qos), ("new", qos), "once, by the new subscription");
            client.expect_silence().await;
        }
    }
}

/// While a client subscribes over and over, it hears every message that another one publishes.
// 3.1.1 [MQTT-3.8.4-3]
// 5 [MQTT-3.8.4-4]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_a_subscription_is_replaced() {
    for version in BOTH {
        let gateway = house();
        let mut client = gateway.client(version, "d").await;
        client.listen(version, "house/+", 1).await;
        let mut publisher = gateway.client(version, "publisher").await;
        let publishing = async {
            for number in 1..=200 {
                publisher.say(version, 1, "house/door", &number.to_string()).await;
            }
        };
        let subscribing = async {
            let mut heard = Vec::new();
            let again = wire::subscribe(version, 5, &[("house/+", 1)]);
            client.send(&again).await;
            while heard.len() < 200 {
                let packet = client.next(version).await;
                if packet[0] == 0x90 {
                    client.send(&again).await;
                    continue;
                }
                let message = Heard::read(version, &packet);
                client.acknowledge(&message).await;
                heard.push(message.payload.parse::<u16>().expect("a number"));
            }
            heard
        };
        let ((), heard) = tokio::join!(publishing, subscribing);
        assert_eq!(heard, (1..=200).collect::<Vec<_>>());
    }
}

// 3.1.1 [MQTT-3.8.4-6]
// 5 [MQTT-3.8.4-8]
#[tokio::test]
async fn deliveries_are_at_the_lower_qos() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        for granted in 0..3 {
            client.listen(version, "house/door", granted).await;
            for said in 0..3 {
                publisher.say(version, said, "house/door", "x").await;
                assert_eq!(client.take(version).await.qos, granted.min(said));
            }
        }
    }
}

// 3.1.1 [MQTT-3.3.5-1]
// 5 [MQTT-3.3.4-2]
#[tokio::test]
async fn overlapping_subscriptions_deliver_at_the_highest_qos() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        for (filter, qos) in [("#", 0), ("house/+", 2), ("house/door", 1), ("+/door", 0)] {
            client.listen(version, filter, qos).await;
        }
        for said in 0..3 {
            publisher.say(version, said, "house/door", "x").await;
            // One copy, where more would be allowed.
            assert_eq!(client.take(version).await.qos, said);
            client.expect_silence().await;
        }
    }
}

// 5 [MQTT-3.8.3-3]
#[tokio::test]
async fn no_local_keeps_a_clients_own_messages_from_it() {
    let gateway = house();
    let mut client = gateway.client(5, "d").await;
    let mut other = gateway.client(5, "e").await;
    client.listen(5, "house/+", 0x04 | 1).await;
    client.say(5, 1, "house/door", "own").await;
    other.say(5, 1, "house/door", "another's").await;
    client.expect_payloads(5, &["another's"]).await;
    // A subscription without the option hears it, though another one overlaps.
    client.listen(5, "house/#", 1).await;
    client.send(&wire::publish(5, 0, 0, "house/door", b"own")).await;
    client.expect_payloads(5, &["own"]).await;
    client.expect_silence().await;
}

/// A SUBSCRIBE of MQTT 5 with a subscription identifier.
fn identified(identifier: &[u8], filter: &str, options: u8) -> Vec<u8> {
    let length = u8::try_from(identifier.len() + 1).unwrap();
    let properties = [&[length, 0x0b], identifier].concat();
    wire::packet(0x82, &[&[0, 3][..], &properties, &wire::string(filter), &[options]].concat())
}

// 5 [MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-3.3.4-5]
#[tokio::test]
async fn subscription_identifiers_come_with_deliveries() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    let largest = [0xff, 0xff, 0xff, 0x7f];
    for (identifier, filter) in
        [(&[1][..], "house/#"), (&largest, "house/door"), (&[0xc8, 0x01], "house/+"), (&[9], "garden/#")]
    {
        client.send(&identified(identifier, filter, 1)).await;
        assert_eq!(client.next(5).await[0], 0x90);
    }
    client.listen(5, "+/door", 1).await;
    let mut heard = async |client: &mut Client<TcpStream>, topic: &str| {
        publisher.say(5, 1, topic, "x").await;
        let heard = client.take(5).await;
        let mut identifiers: Vec<_> = heard.values(0x0b).into_iter().map(<[u8]>::to_vec).collect();
        identifiers.sort();
        identifiers
    };
    let all = vec![vec![1], vec![0xc8, 0x01], largest.to_vec()];
    assert_eq!(heard(&mut client, "house/door").await, all);
    assert_eq!(heard(&mut client, "house/a/b").await, [vec![1]]);
    assert_eq!(heard(&mut client, "garden/door").await, [vec![9]]);
    // They are of the session, and one copy is sent.
    lose(&gateway, client, 1).await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    assert_eq!(heard(&mut client, "house/door").await, all);
    client.expect_silence().await;
    // A new subscription takes the place of the old one, its identifier included.
    client.listen(5, "house/door", 1).await;
    client.send(&identified(&[2], "house/+", 1)).await;
    assert_eq!(client.next(5).await[0], 0x90);
    assert_eq!(heard(&mut client, "house/door").await, [vec![1], vec![2]]);
    // A shared subscription comes to the same copy as the others of its session.
    for (identifier, filter) in [([7], "$share/g/yard/#"), ([5], "yard/+"), ([6], "$share/other/yard/1")] {
        client.send(&identified(&identifier, filter, 1)).await;
        assert_eq!(client.next(5).await[0], 0x90);
    }
    assert_eq!(heard(&mut client, "yard/1").await, [[5], [6], [7]]);
    client.expect_silence().await;
}
