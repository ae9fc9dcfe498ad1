//! Section 3.3.1.3: retained messages.

use super::super::gateway::Gateway;
use super::super::wire::{Connect, plain};
use super::house::{config, house, resume};
use super::{BOTH, open};

const TOPIC: &str = "house/door";

// 3.1.1 [MQTT-3.3.1-5], [MQTT-3.3.1-7]
// 5 [MQTT-3.3.1-5]
#[tokio::test]
async fn a_retained_message_is_stored_with_its_qos_and_replaced() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        for (qos, payload) in [(1, "one"), (0, "two"), (2, "three"), (0, "four")] {
            publisher.say_with(version, qos << 1 | 1, TOPIC, &[], payload).await;
            let mut client = gateway.client(version, "late").await;
            client.listen(version, TOPIC, 2).await;
            let heard = client.take(version).await;
            assert_eq!((heard.qos, &*heard.payload, heard.retain), (qos, payload, true));
            client.expect_silence().await;
        }
    }
}

// 3.1.1 [MQTT-3.3.1-6], [MQTT-3.3.1-8]
#[tokio::test]
async fn a_new_subscription_gets_what_is_retained() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        for topic in ["house/1", "house/2", "house/1/deep", "garden/1"] {
            publisher.say_with(version, 0x03, topic, &[], topic).await;
        }
        let mut client = gateway.client(version, "late").await;
        client.listen(version, "house/+", 1).await;
        let mut heard = Vec::new();
        for _ in 0..2 {
            let message = client.take(version).await;
            assert!(message.retain && !message.dup, "{message:?}");
            assert_eq!(message.topic, message.payload);
            heard.push(message.topic);
        }
        heard.sort();
        assert_eq!(heard, ["house/1", "house/2"]);
        client.expect_silence().await;
        // Another filter of the same session is a new subscription too.
        client.listen(version, "+/1", 0).await;
        let mut heard = [client.take(version).await, client.take(version).await];
        heard.sort_by(|one, other| one.topic.cmp(&other.topic));
        assert!(heard.iter().all(|message| message.retain && message.qos == 0), "{heard:?}");
        assert_eq!([&*heard[0].topic, &*heard[1].topic], ["garden/1", "house/1"]);
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-3.3.1-9]
// 5 [MQTT-3.3.1-12]
#[tokio::test]
async fn an_existing_subscription_sees_no_retain_flag() {
    for version in BOTH {
        let gateway = house();
        let mut client = gateway.client(version, "early").await;
        client.listen(version, "house/#", 2).await;
        let mut publisher = gateway.client(version, "publisher").await;
        for flags in [0x00, 0x01, 0x03, 0x05] {
            publisher.say_with(version, flags, TOPIC, &[], "x").await;
            let heard = client.take(version).await;
            assert_eq!((heard.retain, heard.qos), (false, flags >> 1));
        }
    }
}

// 3.1.1 [MQTT-3.3.1-10], [MQTT-3.3.1-11]
// 5 [MQTT-3.3.1-6], [MQTT-3.3.1-7]
#[tokio::test]
async fn an_empty_message_removes_what_was_retained() {
    for version in BOTH {
        for qos in 0..3 {
            let gateway = house();
            let mut publisher = gateway.client(version, "publisher").await;
            publisher.say_with(version, 0x03, TOPIC, &[], "kept").await;
            let mut early = gateway.client(version, "early").await;
            early.listen(version, TOPIC, 2).await;
            early.expect_payloads(version, &["kept"]).await;
            publisher.say_with(version, qos << 1 | 1, TOPIC, &[], "").await;
            let heard = early.take(version).await;
            assert_eq!((&*heard.payload, heard.retain), ("", false), "it is delivered as any other");
            let mut late = gateway.client(version, "late").await;
            late.listen(version, TOPIC, 2).await;
            late.expect_silence().await;
            publisher.say(version, 1, TOPIC, "next").await;
            late.expect_payloads(version, &["next"]).await;
        }
    }
}

// 3.1.1 [MQTT-3.3.1-12]
// 5 [MQTT-3.3.1-8]
#[tokio::test]
async fn a_message_without_the_flag_leaves_what_is_retained() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        publisher.say(version, 1, TOPIC, "never kept").await;
        let mut client = gateway.client(version, "late").await;
        client.listen(version, TOPIC, 2).await;
        client.expect_silence().await;
        publisher.say_with(version, 0x03, TOPIC, &[], "kept").await;
        for (qos, payload) in [(0, "passing"), (1, ""), (2, "passing too")] {
            publisher.say(version, qos, TOPIC, payload).await;
        }
        client.expect_payloads(version, &["kept", "passing", "", "passing too"]).await;
        let mut client = gateway.client(version, "later").await;
        client.listen(version, TOPIC, 2).await;
        client.expect_payloads(version, &["kept"]).await;
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-3.1.2-7]
#[tokio::test]
async fn a_retained_message_outlives_the_session_of_its_publisher() {
    for version in BOTH {
        let gateway = house();
        let publisher = gateway.client(version, "publisher").await;
        let (lasting, _) = resume(&gateway, version, "lasting").await;
        for (mut publisher, topic) in [(publisher, "house/1"), (lasting, "house/2")] {
            publisher.say_with(version, 0x03, topic, &[], topic).await;
            publisher.leave().await;
        }
        // The lasting session ends as well, by a clean start.
        gateway.client(version, "lasting").await.leave().await;
        let mut client = gateway.client(version, "late").await;
        client.listen(version, "house/+", 1).await;
        let mut heard = [client.take(version).await.payload, client.take(version).await.payload];
        heard.sort();
        assert_eq!(heard, ["house/1", "house/2"]);
    }
}

// 5 [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11], [MQTT-3.8.4-4]
#[tokio::test]
async fn retain_handling_decides_when_retained_messages_are_sent() {
    // Subscribing, subscribing again, and subscribing after having unsubscribed.
    for (handling, sent) in [(0x00, [true, true, true]), (0x10, [true, false, true]), (0x20, [false; 3])] {
        let gateway = house();
        let mut publisher = gateway.client(5, "publisher").await;
        publisher.say_with(5, 0x03, TOPIC, &[], "kept").await;
        let mut client = gateway.client(5, "d").await;
        for (round, sent) in sent.into_iter().enumerate() {
            if round == 2 {
                client.unlisten(5, "house/+").await;
            }
            client.listen(5, "house/+", handling | 1).await;
            if sent {
                let heard = client.take(5).await;
                assert_eq!((&*heard.payload, heard.retain), ("kept", true), "{handling:02x} {round}");
            }
            client.expect_silence().await;
        }
    }
}

// 5 [MQTT-3.3.1-13]
#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let gateway = house();
    let mut client = gateway.client(5, "early").await;
    client.listen(5, TOPIC, 0x08 | 2).await;
    let mut publisher = gateway.client(5, "publisher").await;
    for flags in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05] {
        publisher.say_with(5, flags, TOPIC, &[], "x").await;
        assert_eq!(client.take(5).await.retain, flags & 1 == 1, "{flags:02x}");
    }
    // What a new subscription is sent has the flag whether it asks for it or not.
    for options in [0x00, 0x08] {
        let mut client = gateway.client(5, "late").await;
        client.listen(5, TOPIC, options).await;
        assert!(client.take(5).await.retain);
    }
}

/// A client whose window is full subscribes; what is published afterwards comes after what was retained,
/// so that the last thing it hears of a topic is the last thing that was said.
// 5 [MQTT-4.6.0-5]
#[tokio::test]
async fn what_is_retained_comes_before_what_is_said_later() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    for topic in ["house/1", "house/2"] {
        publisher.say_with(5, 0x03, topic, &[], "old").await;
    }
    let (mut client, _) = open(&gateway, &Connect { properties: &[0x21, 0, 1], ..plain(5, "d") }).await;
    client.listen(5, "garden", 1).await;
    publisher.say(5, 1, "garden", "first").await;
    let first = client.hear(5).await;
    client.listen(5, "house/+", 1).await;
    for topic in ["house/2", "house/1"] {
        publisher.say_with(5, 0x03, topic, &[], "new").await;
    }
    client.acknowledge(&first).await;
    let mut heard = [const { Vec::new() }; 2];
    while heard.iter().map(Vec::len).sum::<usize>() < 4 {
        let message = client.take(5).await;
        heard[usize::from(message.topic == "house/2")].push((message.payload, message.retain));
    }
    for heard in heard {
        assert_eq!(heard, [("old".to_owned(), true), ("new".to_owned(), false)]);
    }
}

/// A client that takes nothing subscribes over and over: what waits for it stays bounded.
// 5 [MQTT-3.8.4-7]
#[tokio::test]
async fn subscribing_over_and_over_does_not_line_up_more_and_more() {
    let mut config = config();
    config.limits.queue_messages_max = 20;
    config.limits.outgoing_inflight_max = 10;
    let gateway = Gateway::with(&config);
    let mut publisher = gateway.client(5, "publisher").await;
    for number in 0..30 {
        publisher.say_with(5, 0x03, &format!("house/{number}"), &[], "kept").await;
    }
    let (mut client, _) = open(&gateway, &Connect { properties: &[0x21, 0, 1], ..plain(5, "d") }).await;
    let codes = [client.subscribe(5, "house/+", 1).await, client.subscribe(5, "house/+", 1).await];
    assert_eq!(codes, [1, 0x97]);
    for _ in 0..30 {
        assert!(client.take(5).await.retain);
    }
    client.listen(5, "house/1", 1).await;
    client.expect_payloads(5, &["kept"]).await;
}
