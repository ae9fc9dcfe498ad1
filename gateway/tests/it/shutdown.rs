//! A stop in order loses nothing, sends what it can, and ends with exit code 0.

use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub::{self, NOTHING};

#[test]
fn a_stop_sends_what_was_acknowledged_before_it_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    let config = Config::default().uplink(&cloud.ready().kafka, hub::TOPIC);
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let acked = Device::connect(gateway.mqtt(), "pump-7").pump(32, 2000, |_| ());
    let ended = gateway.stop().expect("it stops in time");
    assert_eq!(ended.code(), Some(0));

    let arrived = hub::readings(&cloud, "pump-7");
    assert_eq!(arrived.len(), usize::from(acked), "what was acknowledged was sent within the grace");
    assert!(arrived.values().all(|times| *times == 1), "and once");

    gateway.restart().expect("it starts again");
    gateway.stop().expect("and stops");
    assert_eq!(hub::readings(&cloud, "pump-7"), arrived, "progress was saved: nothing is sent again");
}

#[test]
fn a_stop_does_not_wait_for_a_cloud_that_is_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    let config = Config::default().uplink(&cloud.ready().kafka, hub::TOPIC).set("shutdown", "grace = \"2s\"");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    cloud.control().accepting(false).expect("the cloud can go away");
    cloud.control().cut().expect("and drop who is there");
    let acked = Device::connect(gateway.mqtt(), "pump-7").pump(32, 500, |_| ());
    assert!(gateway.health("/readyz").expect("it answers").is_some(), "a cloud outage never fails readiness");
    assert_eq!(gateway.stop().expect("it stops in time").code(), Some(0));

    cloud.control().accepting(true).expect("the cloud can come back");
    gateway.restart().expect("it starts again");
    assert_eq!(hub::missing(&cloud, "pump-7", acked), NOTHING);
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}
