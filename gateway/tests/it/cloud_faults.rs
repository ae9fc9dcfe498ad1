//! What the cloud may do to the uplink: lose acknowledgements, cut connections, go away, lack a topic.

use serde_json::json;
use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub::{self, NOTHING};

/// Readings are sent in parts.
const PARTS: u16 = 8;
const PART: u16 = 100;

#[test]
fn lost_acknowledgements_and_cut_connections_neither_lose_nor_reorder_nor_duplicate() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    // Every second request is stored and its connection cut before the answer.
    cloud.control().lose_ack(2).expect("the fault is known");
    let config = Config::default().uplink(&cloud.ready().kafka, hub::TOPIC).set("uplink", "linger = \"0s\"");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let mut device = Device::connect(gateway.mqtt(), "pump-7");
    for part in 1..=PARTS {
        let acked = device.pump(32, part * PART, |_| ());
        // A request of its own for each part: the next one comes when this one has arrived.
        assert_eq!(hub::missing(&cloud, "pump-7", acked), NOTHING);
        cloud.control().cut().expect("connections can be cut");
    }
    cloud.control().lose_ack(0).expect("the fault can be taken back");
    assert!(gateway.stop().expect("it stops").success());

    let counters = cloud.control().counters().expect("it counts");
    assert!(counters["acks_lost"].as_u64() > Some(0), "the fault struck: {counters}");
    let arrived = hub::readings(&cloud, "pump-7");
    assert!(arrived.values().all(|times| *times == 1), "the broker recognised what was sent again");
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}

#[test]
fn a_topic_that_does_not_exist_holds_and_everything_arrives_once_it_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("cloud");
    std::fs::create_dir_all(&data).expect("a folder for the cloud");
    let cloud = testkit::cloud::Cloud::start(&data, &[("other", 1)]).expect("cloud-sim starts");
    let config = Config::default().uplink(&cloud.ready().kafka, hub::TOPIC);
    let gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let acked = Device::connect(gateway.mqtt(), "pump-7").pump(32, 200, |_| ());

    let held = hub::wait_for("the topic to be held", || {
        let status = gateway.admin("/api/v1/status").expect("it answers").expect("with a status");
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["uplink"]["held"].as_array().filter(|held| !held.is_empty()).cloned()
    });
    assert_eq!(held[0]["topic"], hub::TOPIC);
    assert!(gateway.health("/readyz").expect("it answers").is_some(), "devices are still welcome");

    let topic = json!({"name": hub::TOPIC, "partitions": hub::PARTITIONS});
    cloud.control().post("/v1/topics", &topic).expect("the topic can be created");
    assert_eq!(hub::missing(&cloud, "pump-7", acked), NOTHING);
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}
