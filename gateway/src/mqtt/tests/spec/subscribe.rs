//! Sections 3.8 and 3.9: SUBSCRIBE and SUBACK.

use super::super::gateway::Gateway;
use super::super::wire;
use super::{BOTH, OWN};

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
