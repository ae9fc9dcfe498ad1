//! Telemetry goes to the event hub and to whoever on site subscribed to it, whichever client publishes it.

use std::collections::BTreeMap;

use serde_json::json;
use testkit::gateway::{Config, Gateway};

use super::agent::{Agent, Library};
use super::mosquitto::Subscriber;
use crate::hub;

#[test]
fn telemetry_reaches_subscribers_on_site_and_the_event_hub() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    let config = Config::default().uplink(&cloud.ready().kafka, hub::TOPIC).rule(&[
        "effect = \"allow\"",
        "action = \"subscribe\"",
        "filter = \"devices/+/telemetry\"",
    ]);
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let arguments = ["-V", "mqttv5", "-q", "2", "-i", "dashboard", "-t", "devices/+/telemetry"];
    let mut dashboard = Subscriber::start_at(gateway.mqtt(), &arguments);

    let mut expected = BTreeMap::new();
    for (number, library) in Library::installed().into_iter().enumerate() {
        let device = format!("pump-{number}");
        let order = json!({ "client": device, "version": 5, "clean": true });
        let mut agent = Agent::connect(library, gateway.mqtt(), &order);
        agent.connected();
        let topic = format!("devices/{device}/telemetry");
        for (reading, qos) in [(1_u16, 0), (2, 1), (3, 2)] {
            let payload = format!("{{\"reading\":{reading}}}");
            agent.publish(&topic, &payload, qos);
            let message = dashboard.next();
            assert_eq!((&message["topic"], &message["qos"]), (&json!(topic), &json!(qos)), "{library:?}");
            assert_eq!(message["payload"], json!({ "reading": reading }).to_string(), "{library:?}");
        }
        agent.leave();
        expected.insert(device, 3);
    }
    for (device, last) in &expected {
        assert_eq!(hub::missing(&cloud, device, *last), hub::NOTHING);
        assert!(hub::readings(&cloud, device).values().all(|times| *times == 1), "each once");
    }
    assert!(gateway.stop().expect("it stops").success());
}
