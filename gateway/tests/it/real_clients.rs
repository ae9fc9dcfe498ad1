//! Clients that we did not write: mosquitto_pub in, kcat out.

use std::path::Path;
use std::process::Command;

use penstock_proto::{Identity, Lane};
use testkit::gateway::{Config, Gateway};

use crate::hub::{self, NOTHING};

#[test]
fn mosquitto_publishes_at_every_qos_with_and_without_tls_and_kcat_reads_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, key) = self_signed(folder.path());
    let cloud = hub::start(folder.path());
    let config =
        Config::default().id("edge-01").uplink(&cloud.ready().kafka, hub::TOPIC).tls(&certificate, &key);
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let plain = gateway.mqtt().to_owned();
    let tls = gateway.mqtt_tls().expect("asked for").to_owned();

    let mut reading = 0;
    for (address, authority) in [(&plain, None), (&tls, Some(certificate.as_path()))] {
        for version in ["mqttv311", "mqttv5"] {
            for qos in ["1", "2", "0"] {
                reading += 1;
                publish(address, authority, version, qos, reading);
                // At QoS 0 the next one may take the connection over before what it sent is read.
                hub::wait_until_nobody_is_connected(&gateway);
            }
        }
    }
    assert_eq!(hub::missing(&cloud, "pump-7", reading), NOTHING);
    assert!(gateway.stop().expect("it stops").success());

    let records = hub::records(&cloud);
    assert_eq!(records.len(), usize::from(reading), "each once");
    for record in &records {
        let (name, value) = record.headers.split_once('=').expect("one header");
        assert_eq!(name, penstock_proto::IDENTITY_HEADER);
        let identity: Identity = value.parse().expect("an identity");
        assert_eq!((identity.gateway.as_str(), identity.lane), ("edge-01", Lane::Telemetry));
    }
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}

fn publish(address: &str, authority: Option<&Path>, version: &str, qos: &str, reading: u16) {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", host, "-p", port, "-V", version, "-q", qos, "-i", "pump-7"]);
    command.args(["-t", "devices/pump-7/telemetry", "-m", &format!("{{\"reading\":{reading}}}")]);
    if let Some(authority) = authority {
        command.arg("--cafile").arg(authority);
    }
    let output = command.output().expect("mosquitto_pub is installed (`cargo xtask test` installs it)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{version} at QoS {qos}: {said}");
}

pub(crate) fn self_signed(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let made = made.expect("a certificate");
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    (certificate, key)
}
