//! Clients that we did not write: rumqttc with both versions.

use std::time::Duration;

use super::gateway::{Gateway, soon};

const TOPIC: &str = "devices/d/telemetry";

#[tokio::test]
async fn rumqttc_publishes_at_every_qos_and_hears_its_device_with_3_1_1() {
    use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};

    let gateway = Gateway::start();
    let mut options = MqttOptions::new("d", "127.0.0.1", gateway.address().port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 100);
    client.subscribe("devices/d/#", QoS::ExactlyOnce).await.expect("queued");
    for (qos, payload) in [(QoS::AtMostOnce, "0"), (QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")] {
        client.publish(TOPIC, qos, false, payload).await.expect("queued");
    }
    let (mut acked, mut completed, mut heard) = (0, 0, Vec::new());
    soon(async {
        while acked < 1 || completed < 1 || heard.len() < 3 {
            match events.poll().await.expect("no error") {
                Event::Incoming(Incoming::PubAck(_)) => acked += 1,
                Event::Incoming(Incoming::PubComp(_)) => completed += 1,
                Event::Incoming(Incoming::Publish(publish)) => heard.push(publish.payload.to_vec()),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(heard, [b"0", b"1", b"2"]);
    assert_eq!(gateway.outbox.payloads(), ["0", "1", "2"]);
}

#[tokio::test]
async fn rumqttc_publishes_at_every_qos_and_hears_its_device_with_5() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};

    let gateway = Gateway::start();
    let mut options = MqttOptions::new("d", "127.0.0.1", gateway.address().port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 100);
    client.subscribe("devices/d/#", QoS::ExactlyOnce).await.expect("queued");
    for (qos, payload) in [(QoS::AtMostOnce, "0"), (QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")] {
        client.publish(TOPIC, qos, false, payload).await.expect("queued");
    }
    let (mut acked, mut completed, mut heard) = (0, 0, Vec::new());
    soon(async {
        while acked < 1 || completed < 1 || heard.len() < 3 {
            match events.poll().await.expect("no error") {
                Event::Incoming(Incoming::PubAck(_)) => acked += 1,
                Event::Incoming(Incoming::PubComp(_)) => completed += 1,
                Event::Incoming(Incoming::Publish(publish)) => heard.push(publish.payload.to_vec()),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(heard, [b"0", b"1", b"2"]);
    assert_eq!(gateway.outbox.payloads(), ["0", "1", "2"]);
}
