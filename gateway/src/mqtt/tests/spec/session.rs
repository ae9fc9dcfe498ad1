//! Sections 3.1.2.4 and 4.1: sessions, from their beginning to their end.

use std::time::Duration;

use super::super::gateway::Gateway;
use super::super::wire::{self, Connect, plain};
use super::house::{config, house, lasting, let_pass, lose, part, resume};
use super::{BOTH, OWN, open};

const TOPIC: &str = "house/door";

// 3.1.1 [MQTT-3.1.2-6], [MQTT-3.1.4-3]
// 5 [MQTT-3.1.2-4], [MQTT-3.1.4-4]
#[tokio::test]
async fn a_clean_start_discards_the_session() {
    for version in BOTH {
        let gateway = house();
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.listen(version, TOPIC, 1).await;
        part(&gateway, client, 0).await;
        let mut publisher = gateway.client(version, "publisher").await;
        publisher.say(version, 1, TOPIC, "old").await;
        // Neither the message nor the subscription is there any more.
        let clean = Connect { flags: 0x02, ..lasting(version, "d") };
        let (mut client, connack) = open(&gateway, &clean).await;
        assert_eq!((connack[2], connack[3]), (0, 0));
        client.expect_silence().await;
        publisher.say(version, 1, TOPIC, "unheard").await;
        client.listen(version, "house/other", 1).await;
        publisher.say(version, 1, "house/other", "heard").await;
        client.expect_payloads(version, &["heard"]).await;
    }
}

// 3.1.1 [MQTT-3.1.2-4], [MQTT-3.1.4-3], [MQTT-4.1.0-1]
// 5 [MQTT-3.1.2-5], [MQTT-3.1.4-4]
#[tokio::test]
async fn a_session_is_resumed() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let (mut client, present) = resume(&gateway, version, "d").await;
        assert!(!present);
        client.listen(version, "house/+", 2).await;
        // By DISCONNECT, by a lost connection, and by a connection that takes over.
        client.leave().await;
        let (mut client, present) = resume(&gateway, version, "d").await;
        assert!(present);
        publisher.say(version, 2, TOPIC, "1").await;
        client.expect_payloads(version, &["1"]).await;
        lose(&gateway, client, 1).await;
        let (mut client, present) = resume(&gateway, version, "d").await;
        assert!(present);
        publisher.say(version, 1, TOPIC, "2").await;
        client.expect_payloads(version, &["2"]).await;
        let (mut newer, present) = resume(&gateway, version, "d").await;
        assert!(present);
        client.expect_disconnect(version, &[0x8e]).await;
        publisher.say(version, 0, TOPIC, "3").await;
        newer.expect_payloads(version, &["3"]).await;
    }
}

// 3.1.1 [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-4.5.0-1]
// 5 [MQTT-3.1.2-23], [MQTT-4.5.0-1]
#[tokio::test]
async fn messages_for_an_absent_client_are_kept() {
    for version in BOTH {
        for left in [true, false] {
            let gateway = house();
            let (mut client, _) = resume(&gateway, version, "d").await;
            client.listen(version, "house/+", 2).await;
            if left {
                part(&gateway, client, 0).await;
            } else {
                lose(&gateway, client, 0).await;
            }
            let mut publisher = gateway.client(version, "publisher").await;
            let said: Vec<_> = (1..=20_u8).map(|number| (number % 2 + 1, number.to_string())).collect();
            for (qos, payload) in &said {
                publisher.say(version, *qos, TOPIC, payload).await;
            }
            publisher.say(version, 1, "garden/door", "not subscribed").await;
            let (mut client, present) = resume(&gateway, version, "d").await;
            assert!(present);
            let mut heard = Vec::new();
            for _ in &said {
                let message = client.take(version).await;
                assert!(!message.dup && !message.retain, "{message:?}");
                heard.push((message.qos, message.payload));
            }
            // Order holds for each QoS.
            for qos in 1..=2 {
                let of =
                    |all: &[(u8, String)]| all.iter().filter(|one| one.0 == qos).cloned().collect::<Vec<_>>();
                assert_eq!(of(&heard), of(&said));
            }
            client.expect_silence().await;
        }
    }
}

// 3.1.1 [MQTT-3.1.2-6]
// 5 [MQTT-4.1.0-2]
#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    for version in BOTH {
        let gateway = house();
        // MQTT 5 may resume or start clean; what counts is the expiry.
        let starts = if version == 5 { vec![0x00, 0x02] } else { vec![0x02] };
        for flags in starts {
            let (mut client, _) = open(&gateway, &Connect { flags, ..plain(version, "d") }).await;
            client.listen(version, TOPIC, 1).await;
            lose(&gateway, client, 0).await;
            let mut publisher = gateway.client(version, "publisher").await;
            publisher.say(version, 1, TOPIC, "unheard").await;
            let (mut client, present) = resume(&gateway, version, "d").await;
            assert!(!present);
            client.expect_silence().await;
            publisher.leave().await;
            client.leave().await;
            gateway.client(version, "d").await.leave().await;
            gateway.connections(0).await;
        }
    }
    // DISCONNECT may bring the end forward.
    let gateway = house();
    let (mut client, _) = resume(&gateway, 5, "d").await;
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    client.expect_end(&[]).await;
    gateway.connections(0).await;
    let (_, present) = resume(&gateway, 5, "d").await;
    assert!(!present);
}

// 5 [MQTT-4.1.0-2]
#[tokio::test]
async fn a_session_ends_when_its_expiry_has_passed() {
    let gateway = Gateway::with_tick(&config(), Duration::from_millis(100));
    let short = Connect { flags: 0, properties: &[0x11, 0, 0, 0, 1], ..plain(5, "d") };
    let (mut client, _) = open(&gateway, &short).await;
    client.listen(5, TOPIC, 1).await;
    // It does not pass while the client is there.
    let_pass(Duration::from_millis(1300)).await;
    let mut publisher = gateway.client(5, "publisher").await;
    publisher.say(5, 1, TOPIC, "heard").await;
    client.expect_payloads(5, &["heard"]).await;
    part(&gateway, client, 1).await;
    let_pass(Duration::from_millis(1300)).await;
    let (mut client, connack) = open(&gateway, &short).await;
    assert_eq!(connack[2], 0, "no session");
    publisher.say(5, 1, TOPIC, "unheard").await;
    client.expect_silence().await;
}

// 3.1.1 [MQTT-4.1.0-1]
// 5 [MQTT-3.1.2-23]
#[tokio::test]
async fn what_is_in_flight_survives_the_connection() {
    for version in BOTH {
        let gateway = house();
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.send(&wire::publish(version, 2, 9, OWN, b"once")).await;
        client.expect(&[&wire::pubrec(9)]).await;
        lose(&gateway, client, 0).await;
        let (mut client, present) = resume(&gateway, version, "d").await;
        assert!(present);
        // The client does not know whether PUBREC came, and repeats.
        client.send(&wire::publish_with(version, 0x0c, 9, OWN, &[], b"once")).await;
        client.expect(&[&wire::pubrec(9)]).await;
        lose(&gateway, client, 0).await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.send(&wire::pubrel(9)).await;
        client.expect(&[&wire::pubcomp(9)]).await;
        client.expect_silence().await;
        assert_eq!(gateway.outbox.payloads(), ["once"]);
    }
}

// 3.1.1 [MQTT-3.1.3-2]
// 5 [MQTT-3.1.3-2]
#[tokio::test]
async fn a_client_id_names_its_own_session() {
    for version in BOTH {
        let gateway = house();
        // Equal but for case, length or a combining mark.
        let ids = ["d", "D", "dd", "d1"];
        for id in ids {
            let (mut client, present) = resume(&gateway, version, id).await;
            assert!(!present, "{id}");
            client.listen(version, &format!("house/{id}"), 1).await;
            part(&gateway, client, 0).await;
        }
        let mut publisher = gateway.client(version, "publisher").await;
        for id in ids {
            publisher.say(version, 1, &format!("house/{id}"), id).await;
        }
        for id in ids {
            let (mut client, present) = resume(&gateway, version, id).await;
            assert!(present, "{id}");
            client.expect_payloads(version, &[id]).await;
            client.expect_silence().await;
        }
    }
}

// 3.1.1 [MQTT-4.1.0-2]
// 5 [MQTT-4.1.0-1]
#[tokio::test]
async fn a_session_lasts_as_long_as_its_connection() {
    for version in BOTH {
        // A tick of 5 ms stands for a second.
        let gateway = Gateway::with_tick(&config(), Duration::from_millis(5));
        let mut client = gateway.client(version, "d").await;
        client.listen(version, TOPIC, 1).await;
        let mut publisher = gateway.client(version, "publisher").await;
        gateway.ticks(30).await;
        publisher.say(version, 1, TOPIC, "heard").await;
        client.expect_payloads(version, &["heard"]).await;
        // A connection that cannot be accepted does not end the session that there is.
        let mut refused = gateway.raw().await;
        refused.send(&Connect { flags: 0x03, ..plain(version, "d") }.bytes()).await;
        refused.expect_refusal(version).await;
        publisher.say(version, 1, TOPIC, "still heard").await;
        client.expect_payloads(version, &["still heard"]).await;
    }
}
