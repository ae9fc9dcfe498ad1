//! Sections 4.3, 4.4 and 4.6: each quality of service in both directions, sending again, and order.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::gateway::Gateway;
use super::super::wire;
use super::house::{Heard, config, house, let_pass, lose, resume};
use super::{BOTH, OWN};

const TOPIC: &str = "house/door";

// 3.1.1 [MQTT-2.3.1-1], [MQTT-2.3.1-4], [MQTT-4.3.2-1]
// 5 [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.3-1], [MQTT-4.3.3-2]
#[tokio::test]
async fn a_delivery_takes_an_id_that_is_not_in_use() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        client.listen(version, TOPIC, 2).await;
        let mut open = Vec::new();
        for round in 0..60_u8 {
            publisher.say(version, round % 2 + 1, TOPIC, "x").await;
            let heard = client.hear(version).await;
            assert_eq!((heard.dup, heard.qos), (false, round % 2 + 1));
            open.push(heard);
            let ids: BTreeSet<_> = open.iter().map(|heard| heard.id).collect();
            assert_eq!(ids.len(), open.len(), "{ids:?}");
            // Every third is acknowledged, so that ids become free between others.
            if round % 3 == 0 {
                let heard = open.remove(open.len() / 2);
                client.acknowledge(&heard).await;
                client.expect_silence().await;
            }
        }
    }
}

// 3.1.1 [MQTT-2.3.1-4], [MQTT-3.3.1-1], [MQTT-4.3.2-1], [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-6]
// 5 [MQTT-3.3.1-1], [MQTT-4.3.2-3], [MQTT-4.3.3-3], [MQTT-4.4.0-1], [MQTT-4.6.0-1]
#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_with_its_id() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.listen(version, TOPIC, 2).await;
        let mut open = Vec::new();
        for (qos, payload) in [(1, "1"), (2, "2"), (1, "3"), (2, "4"), (1, "5")] {
            publisher.say(version, qos, TOPIC, payload).await;
            open.push(client.hear(version).await);
        }
        client.acknowledge(&open.remove(2)).await;
        client.expect_silence().await;
        for left in [true, false, true] {
            if left {
                client.leave().await;
                gateway.connections(1).await;
            } else {
                lose(&gateway, client, 1).await;
            }
            let (again, present) = resume(&gateway, version, "d").await;
            assert!(present);
            client = again;
            for earlier in &open {
                let heard = client.hear(version).await;
                assert!(heard.dup, "{heard:?}");
                assert_eq!(Heard { dup: false, ..heard }, *earlier);
            }
            client.expect_silence().await;
        }
        for heard in &open {
            client.acknowledge(heard).await;
        }
        publisher.say(version, 1, TOPIC, "6").await;
        let heard = client.take(version).await;
        assert_eq!((&*heard.payload, heard.dup), ("6", false));
        client.leave().await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.expect_silence().await;
    }
}

// 5 [MQTT-4.4.0-1]
#[tokio::test]
async fn nothing_is_sent_again_within_a_connection() {
    for version in BOTH {
        // A tick of 5 ms stands for a second.
        let gateway = Gateway::with_tick(&config(), Duration::from_millis(5));
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        client.listen(version, TOPIC, 2).await;
        for qos in [1, 2] {
            publisher.say(version, qos, TOPIC, "x").await;
            assert_eq!(client.hear(version).await.qos, qos);
        }
        gateway.ticks(40).await;
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-2.3.1-6], [MQTT-4.3.3-1]
// 5 [MQTT-2.2.1-5], [MQTT-4.3.3-4]
#[tokio::test]
async fn a_delivery_at_qos_2_is_released_with_its_id() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        client.listen(version, TOPIC, 2).await;
        for _ in 0..3 {
            publisher.say(version, 2, TOPIC, "x").await;
            let heard = client.hear(version).await;
            client.expect_silence().await;
            client.send(&wire::pubrec(heard.id)).await;
            client.expect(&[&wire::pubrel(heard.id)]).await;
            client.send(&wire::pubcomp(heard.id)).await;
            client.expect_silence().await;
        }
    }
}

// 3.1.1 [MQTT-4.6.0-4]
// 5 [MQTT-4.6.0-4]
#[tokio::test]
async fn releases_follow_the_order_of_pubrecs() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        client.listen(version, TOPIC, 2).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            publisher.say(version, 2, TOPIC, "x").await;
            ids.push(client.hear(version).await.id);
        }
        ids.swap(0, 2);
        let received: Vec<u8> = ids.iter().flat_map(|id| wire::pubrec(*id)).collect();
        client.send(&received).await;
        for id in ids {
            client.expect(&[&wire::pubrel(id)]).await;
        }
    }
}

// 3.1.1 [MQTT-4.3.3-1], [MQTT-4.4.0-1]
// 5 [MQTT-4.3.3-5], [MQTT-4.3.3-6], [MQTT-4.4.0-1]
#[tokio::test]
async fn after_pubrel_only_pubrel_is_sent_again() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.listen(version, TOPIC, 2).await;
        publisher.say(version, 2, TOPIC, "x").await;
        let heard = client.hear(version).await;
        client.send(&wire::pubrec(heard.id)).await;
        client.expect(&[&wire::pubrel(heard.id)]).await;
        for _ in 0..2 {
            lose(&gateway, client, 1).await;
            let (again, present) = resume(&gateway, version, "d").await;
            assert!(present);
            client = again;
            client.expect(&[&wire::pubrel(heard.id)]).await;
            client.expect_silence().await;
        }
        client.send(&wire::pubcomp(heard.id)).await;
        client.expect_silence().await;
        client.leave().await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.expect_silence().await;
    }
}

// 5 [MQTT-3.6.2-1]
#[tokio::test]
async fn a_pubrec_for_an_unknown_id_is_answered() {
    let gateway = house();
    let mut client = gateway.client(5, "d").await;
    client.send(&wire::pubrec(77)).await;
    client.expect(&[&wire::ack(0x62, 77, 0x92)]).await;
    client.expect_silence().await;
}

// 5 [MQTT-4.4.0-2]
#[tokio::test]
async fn a_refused_delivery_is_not_sent_again() {
    for reason in [0x80, 0x83, 0x87, 0x97] {
        let gateway = house();
        let mut publisher = gateway.client(5, "publisher").await;
        let (mut client, _) = resume(&gateway, 5, "d").await;
        client.listen(5, TOPIC, 2).await;
        for (qos, first) in [(1, 0x40), (2, 0x50)] {
            publisher.say(5, qos, TOPIC, "x").await;
            let heard = client.hear(5).await;
            client.send(&wire::ack(first, heard.id, reason)).await;
            // No PUBREL for what was refused.
            client.expect_silence().await;
        }
        lose(&gateway, client, 1).await;
        let (mut client, present) = resume(&gateway, 5, "d").await;
        assert!(present);
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-4.3.2-2]
// 5 [MQTT-4.3.2-5]
#[tokio::test]
async fn an_id_is_free_after_puback() {
    for version in BOTH {
        let gateway = house();
        let mut client = gateway.client(version, "d").await;
        for (flags, payload) in [(0x02, b"1"), (0x02, b"2"), (0x0a, b"3")] {
            client.send(&wire::publish_with(version, flags, 7, OWN, &[], payload)).await;
            client.expect(&[&wire::puback(7)]).await;
        }
        assert_eq!(gateway.outbox.payloads(), ["1", "2", "3"]);
    }
}

// 5 [MQTT-4.3.3-9]
#[tokio::test]
async fn an_id_is_free_after_a_pubrec_that_refuses() {
    let gateway = house();
    let mut client = gateway.client(5, "d").await;
    client.send(&wire::publish(5, 2, 7, "closed/door", b"refused")).await;
    client.expect(&[&wire::ack(0x50, 7, 0x87)]).await;
    client.send(&wire::publish(5, 2, 7, OWN, b"new")).await;
    client.expect(&[&wire::pubrec(7)]).await;
    client.send(&wire::pubrel(7)).await;
    client.expect(&[&wire::pubcomp(7)]).await;
    assert_eq!(gateway.outbox.payloads(), ["new"]);
}

// 3.1.1 [MQTT-4.3.3-2]
// 5 [MQTT-4.3.3-10]
#[tokio::test]
async fn a_repeat_at_qos_2_is_not_delivered_again() {
    for version in BOTH {
        let gateway = house();
        let mut subscriber = gateway.client(version, "subscriber").await;
        subscriber.listen(version, TOPIC, 1).await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        let again = wire::publish_with(version, 0x0c, 7, TOPIC, &[], b"once");
        client.send(&wire::publish(version, 2, 7, TOPIC, b"once")).await;
        client.expect(&[&wire::pubrec(7)]).await;
        client.send(&again.repeat(2)).await;
        client.expect(&[&wire::pubrec(7), &wire::pubrec(7)]).await;
        lose(&gateway, client, 1).await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.send(&again).await;
        client.expect(&[&wire::pubrec(7)]).await;
        client.send(&wire::pubrel(7)).await;
        client.expect(&[&wire::pubcomp(7)]).await;
        // The id is free: the same bytes are a new message now.
        client.send(&again).await;
        client.expect(&[&wire::pubrec(7)]).await;
        client.send(&wire::pubrel(7)).await;
        client.expect(&[&wire::pubcomp(7)]).await;
        client.say(version, 1, TOPIC, "last").await;
        subscriber.expect_payloads(version, &["once", "once", "last"]).await;
    }
}

// 3.1.1 [MQTT-4.6.0-5], [MQTT-4.6.0-6]
// 5 [MQTT-4.6.0-5], [MQTT-4.6.0-6]
#[tokio::test]
async fn deliveries_keep_the_order_of_publishes() {
    for version in BOTH {
        let gateway = house();
        let mut here = gateway.client(version, "here").await;
        let (mut away, _) = resume(&gateway, version, "away").await;
        for client in [&mut here, &mut away] {
            client.listen(version, "house/+", 2).await;
        }
        away.leave().await;
        let mut publisher = gateway.client(version, "publisher").await;
        let sent: Vec<u8> = (1..=60_u16)
            .flat_map(|number| {
                let qos = u8::try_from(number % 3).unwrap();
                wire::publish(version, qos, number, TOPIC, number.to_string().as_bytes())
            })
            .collect();
        publisher.send(&sent).await;
        for number in (1..=60).filter(|number| number % 3 > 0) {
            assert_eq!(publisher.next(version).await[2..4], u16::to_be_bytes(number));
        }
        for number in (1..=60).filter(|number| number % 3 == 2) {
            publisher.send(&wire::pubrel(number)).await;
        }
        let numbers = |qos: u16| (1..=60).filter(move |number| number % 3 == qos).collect::<Vec<u16>>();
        let (mut away, _) = resume(&gateway, version, "away").await;
        // Those at QoS 0 that come before the client returned are not kept.
        for (client, lowest) in [(&mut here, 0), (&mut away, 1)] {
            let mut heard = [const { Vec::new() }; 3];
            while (lowest..3).any(|qos| heard[qos].len() < 20) {
                let message = client.take(version).await;
                heard[usize::from(message.qos)].push(message.payload.parse::<u16>().expect("a number"));
            }
            for (qos, heard) in heard.iter().enumerate().skip(lowest) {
                assert_eq!(*heard, numbers(u16::try_from(qos).unwrap()), "QoS {qos}");
            }
        }
    }
}

// 5 [MQTT-4.3.3-7], [MQTT-4.3.3-13]
#[tokio::test]
async fn expiry_does_not_touch_what_was_sent() {
    let gateway = house();
    let mut publisher = gateway.client(5, "publisher").await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    client.listen(5, TOPIC, 2).await;
    publisher.say_with(5, 0x04, TOPIC, &[0x02, 0, 0, 0, 2], "short").await;
    publisher.say_with(5, 0x02, TOPIC, &[0x02, 0, 0, 0, 2], "short too").await;
    let (first, second) = (client.hear(5).await, client.hear(5).await);
    lose(&gateway, client, 1).await;
    let_pass(Duration::from_millis(2100)).await;
    let (mut client, _) = resume(&gateway, 5, "d").await;
    for earlier in [&first, &second] {
        let heard = client.hear(5).await;
        assert_eq!((heard.dup, heard.id, &heard.payload), (true, earlier.id, &earlier.payload));
        client.acknowledge(&heard).await;
    }
    client.expect_silence().await;
}
