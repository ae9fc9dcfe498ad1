//! The simulated fleet over TLS: rumqttc's rustls against ours, and a verdict at the end.

use std::process::Command;

use testkit::gateway::{Config, Gateway};
use testkit::process;
use testkit::report::{Outcome, Report};

use crate::hub;
use crate::real_clients::self_signed;

#[test]
fn a_fleet_over_tls_gets_everything_delivered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, key) = self_signed(folder.path());
    let cloud = hub::start(folder.path());
    let config = Config::default().uplink(&cloud.ready().kafka, hub::TOPIC).tls(&certificate, &key);
    let gateway = Gateway::start(folder.path(), config).expect("the gateway starts");

    let file = folder.path().join("report.json");
    let address = gateway.mqtt_tls().expect("asked for").replace("127.0.0.1", "localhost");
    let output = Command::new(process::find("firmware-sim").expect("built with the workspace"))
        .args(["run", "--target", &format!("mqtts://{address}"), "--progress", "none", "--seed", "7"])
        .arg("--ca-file")
        .arg(&certificate)
        .args(["--devices", "60", "--rate", "600", "--seconds", "2", "--v5", "50"])
        .args(["--readback", &format!("kafka://{}/{}", cloud.ready().kafka, hub::TOPIC), "--report"])
        .arg(&file)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report = Report::read(&file).expect("a report");
    assert_eq!(report.verdict, Outcome::Pass);
    assert!(report.acked > 0, "{said}");
}
