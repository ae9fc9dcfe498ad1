//! Sections 3.10 and 3.11: UNSUBSCRIBE and UNSUBACK.

use super::super::gateway::Gateway;
use super::super::wire;
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
