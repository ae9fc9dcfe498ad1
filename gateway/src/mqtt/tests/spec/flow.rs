//! Section 4.9: the send quota towards a client.

use super::super::gateway::{Client, Gateway};
use super::super::wire::{self, Connect, plain};
use super::house::house;
use super::{OWN, open};
use tokio::net::TcpStream;

const TOPIC: &str = "house/door";

/// A client with room for two, subscribed at QoS 2.
async fn narrow(gateway: &Gateway) -> Client<TcpStream> {
    let (mut client, _) = open(gateway, &Connect { properties: &[0x21, 0, 2], ..plain(5, "d") }).await;
    client.listen(5, "house/+", 2).await;
    client
}

// 5 [MQTT-3.3.4-9], [MQTT-4.9.0-1], [MQTT-4.9.0-2]
#[tokio::test]
async fn deliveries_keep_to_the_receive_maximum() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    let mut client = narrow(&gateway).await;
    for (qos, payload) in [(1, "1"), (2, "2"), (1, "3"), (2, "4"), (2, "5"), (1, "6")] {
        publisher.say(5, qos, TOPIC, payload).await;
    }
    let (one, two) = (client.hear(5).await, client.hear(5).await);
    assert_eq!([&*one.payload, &*two.payload], ["1", "2"]);
    client.expect_silence().await;
    // QoS 0 needs no quota.
    publisher.say(5, 0, TOPIC, "0").await;
    assert_eq!(client.hear(5).await.payload, "0");
    // PUBACK gives room for one; PUBREC gives none yet, PUBCOMP does.
    client.send(&wire::puback(one.id)).await;
    let three = client.hear(5).await;
    assert_eq!(three.payload, "3");
    client.send(&wire::pubrec(two.id)).await;
    client.expect(&[&wire::pubrel(two.id)]).await;
    client.expect_silence().await;
    client.send(&wire::pubcomp(two.id)).await;
    let four = client.hear(5).await;
    assert_eq!(four.payload, "4");
    client.expect_silence().await;
    // A PUBREC that refuses does at once.
    client.send(&wire::ack(0x50, four.id, 0x80)).await;
    assert_eq!(client.hear(5).await.payload, "5");
    client.expect_silence().await;
    client.send(&wire::puback(three.id)).await;
    assert_eq!(client.hear(5).await.payload, "6");
    client.expect_silence().await;
}

// 5 [MQTT-3.3.4-10], [MQTT-4.9.0-3]
#[tokio::test]
async fn other_packets_do_not_wait_for_the_window() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    let mut client = narrow(&gateway).await;
    for payload in ["1", "2", "3"] {
        publisher.say(5, 2, TOPIC, payload).await;
    }
    let (one, two) = (client.hear(5).await, client.hear(5).await);
    client.expect_silence().await;
    assert_eq!(client.subscribe(5, "garden/#", 1).await, 1);
    client.say(5, 1, OWN, "x").await;
    client.say(5, 2, OWN, "x").await;
    client.unlisten(5, "garden/#").await;
    client.send(&wire::pubrec(two.id)).await;
    client.expect(&[&wire::pubrel(two.id)]).await;
    client.send(&wire::pubrec(one.id)).await;
    client.expect(&[&wire::pubrel(one.id)]).await;
    client.expect_silence().await;
    client.send(&wire::pubcomp(one.id)).await;
    assert_eq!(client.hear(5).await.payload, "3");
}
