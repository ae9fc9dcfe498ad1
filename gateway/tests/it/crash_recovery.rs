//! What was acknowledged survives the process, and the power.

use std::path::Path;
use std::sync::mpsc::sync_channel;

use testkit::gateway::{Config, Gateway};
use testkit::powercut::{Mode, PowerCut};

use crate::client::Device;
use crate::hub::{self, NOTHING};

const DEVICE: &str = "pump-7";
const WINDOW: u16 = 32;
/// The power is cut when this many readings are acknowledged, with more in flight.
const ACKED_BEFORE_CUT: u16 = 1500;
const READINGS_MAX: u16 = 20_000;

#[test]
fn everything_acknowledged_survives_kill_9_and_arrives_in_order() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cloud = hub::start(folder.path());
    let config = Config::default().id("crash").uplink(&cloud.ready().kafka, hub::TOPIC);
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");

    let acked = publish_until_killed(&mut gateway);
    assert!(acked >= ACKED_BEFORE_CUT);
    gateway.restart().expect("the gateway starts again on what the crash left");

    assert_eq!(hub::missing(&cloud, DEVICE, acked), NOTHING, "acknowledged and lost");
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}

#[test]
fn everything_acknowledged_survives_a_power_cut() {
    assert_eq!(lost_in_a_power_cut(Mode::Strict), 0);
}

/// The control of the test above: with the sync taken away, the same cut must lose what was acknowledged.
#[test]
fn without_the_sync_a_power_cut_loses_acknowledged_messages() {
    assert!(lost_in_a_power_cut(Mode::Lie) > 0, "the test above cannot fail");
}

/// The same for a gateway that syncs everything but its log.
#[test]
fn without_the_sync_of_the_log_a_power_cut_loses_acknowledged_messages() {
    assert!(lost_in_a_power_cut(Mode::LieLogs) > 0, "the test above cannot fail");
}

/// Cuts the power under load, brings up a gateway on what the disk holds and counts what is missing.
fn lost_in_a_power_cut(mode: Mode) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    std::fs::create_dir_all(&before).expect("a folder");
    let cut = PowerCut::prepare(&before.join("outbox"), &after.join("outbox"), mode).expect("a twin");
    let config =
        Config::default().id("power").set("uplink", "enabled = false").environment(cut.environment());
    let mut gateway = Gateway::start(&before, config).expect("the gateway starts");
    let acked = publish_until_killed(&mut gateway);
    assert!(acked >= ACKED_BEFORE_CUT);

    let cloud = hub::start(folder.path());
    match arrived_from(&after, &cloud) {
        Some(arrived) => (1..=acked).filter(|reading| !arrived.contains(reading)).count(),
        // The gateway refuses to start on less than it knows to have acknowledged: all of it is out of reach.
        None => usize::from(acked),
    }
}

/// What a fresh gateway delivers from the data in `folder`; `None` if it refuses to start.
fn arrived_from(folder: &Path, cloud: &testkit::cloud::Cloud) -> Option<Vec<u16>> {
    let config = Config::default().id("power").uplink(&cloud.ready().kafka, hub::TOPIC);
    let mut gateway = Gateway::start(folder, config).ok()?;
    // A reading of another device, acknowledged last, arrives last in its lane: then the rest is there too.
    let marker = Device::connect(gateway.mqtt(), "marker").pump(1, 1, |_| ());
    assert_eq!(hub::missing(cloud, "marker", marker), NOTHING);
    assert!(gateway.stop().expect("it stops").success());
    Some(hub::readings(cloud, DEVICE).into_keys().collect())
}

/// Publishes and kills the gateway once enough is acknowledged; returns how much was by the end.
fn publish_until_killed(gateway: &mut Gateway) -> u16 {
    let mut device = Device::connect(gateway.mqtt(), DEVICE);
    let (enough, reached) = sync_channel(1);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(move || {
            device.pump(WINDOW, READINGS_MAX, |reading| {
                if reading == ACKED_BEFORE_CUT {
                    enough.send(()).expect("the test waits for this");
                }
            })
        });
        reached.recv().expect("enough is acknowledged before anything else happens");
        gateway.kill().expect("it can be killed");
        publisher.join().expect("the publisher ends with the gateway")
    })
}
