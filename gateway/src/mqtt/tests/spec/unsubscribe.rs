//! Sections 3.10 and 3.11: UNSUBSCRIBE and UNSUBACK.

use super::super::gateway::Gateway;
use super::super::wire;
use super::house::{house, lose, resume};
use super::{BOTH, OWN};

// 3.1.1 [MQTT-3.10.3-2]
// 5 [MQTT-3.10.3-2]
#[tokio::test]
async fn an_unsubscribe_needs_a_filter() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::unsubscribe(version, 1, &[])).await;
        client.expect_disconnect(version, &[0x81, 0x82]).await;
    }
}

// 3.1.1 [MQTT-3.10.4-5], [MQTT-3.10.4-6]
// 5 [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6], [MQTT-3.11.3-1], [MQTT-3.11.3-2]
#[tokio::test]
async fn every_filter_is_answered_in_its_place() {
    let gateway = Gateway::start();
    for version in BOTH {
        let mut client = gateway.client(version, "d").await;
        let (a, b, never) = ("devices/d/telemetry/a", "devices/d/telemetry/b", "devices/d/telemetry/c");
        client.send(&wire::subscribe(version, 1, &[(a, 0), (b, 0)])).await;
        assert_eq!(client.next(version).await[0], 0x90);
        client.send(&wire::unsubscribe(version, 2, &[never, b, OWN, a, a])).await;
        let codes: &[u8] = if version == 5 { &[0, 0x11, 0, 0x11, 0, 0x11] } else { &[] };
        client.expect(&[&wire::packet(0xb0, &[&[0, 2], codes].concat())]).await;
        // Nothing was removed: it is answered all the same.
        client.send(&wire::unsubscribe(version, 3, &[never])).await;
        let codes: &[u8] = if version == 5 { &[0, 0x11] } else { &[] };
        client.expect(&[&wire::packet(0xb0, &[&[0, 3], codes].concat())]).await;
    }
}

// 3.1.1 [MQTT-3.10.4-1], [MQTT-3.10.4-2]
// 5 [MQTT-3.10.4-1], [MQTT-3.10.4-2]
#[tokio::test]
async fn only_the_very_same_filter_is_removed() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let mut client = gateway.client(version, "d").await;
        for filter in ["house/+", "House/door", "house/door/#"] {
            client.listen(version, filter, 1).await;
        }
        // Each of these is covered by a filter, covers one, or is nearly one.
        let near = ["house/door", "house/#", "#", "house/+/", "house/door/+", "HOUSE/DOOR"];
        client.send(&wire::unsubscribe(version, 3, &near)).await;
        let codes: &[u8] = if version == 5 { &[0, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11] } else { &[] };
        client.expect(&[&wire::packet(0xb0, &[&[0, 3], codes].concat())]).await;
        for topic in ["house/window", "House/door", "house/door/lock"] {
            publisher.say(version, 1, topic, topic).await;
            client.expect_payloads(version, &[topic]).await;
        }
        client.unlisten(version, "house/+").await;
        for (topic, heard) in [("house/window", false), ("House/door", true), ("house/door", true)] {
            publisher.say(version, 1, topic, topic).await;
            if heard {
                client.expect_payloads(version, &[topic]).await;
            }
        }
        client.expect_silence().await;
    }
}

// 3.1.1 [MQTT-3.10.4-3]
// 5 [MQTT-3.10.4-3]
#[tokio::test]
async fn deliveries_that_were_begun_are_finished() {
    for version in BOTH {
        let gateway = house();
        let mut publisher = gateway.client(version, "publisher").await;
        let (mut client, _) = resume(&gateway, version, "d").await;
        client.listen(version, "house/door", 2).await;
        let mut open = Vec::new();
        for qos in [2, 1, 2] {
            publisher.say(version, qos, "house/door", "begun").await;
            open.push(client.hear(version).await);
        }
        client.unlisten(version, "house/door").await;
        publisher.say(version, 2, "house/door", "unheard").await;
        client.acknowledge(&open.remove(0)).await;
        client.expect_silence().await;
        // What is left is sent again, although there is no subscription any more.
        lose(&gateway, client, 1).await;
        let (mut client, present) = resume(&gateway, version, "d").await;
        assert!(present);
        for earlier in &open {
            let heard = client.hear(version).await;
            assert_eq!((heard.dup, heard.id), (true, earlier.id));
            client.acknowledge(&heard).await;
        }
        client.expect_silence().await;
    }
}
