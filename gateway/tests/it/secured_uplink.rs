//! The uplink as Event Hubs wants it: TLS, and the connection string as password.

use std::process::Command;

use cloud_sim::TopicSpec;
use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub;

const READINGS: u16 = 500;

#[test]
fn telemetry_travels_over_tls_with_the_connection_string_as_password() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let connection_string = connection_string();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cloud = cloud_sim::Config::new(folder.path().join("cloud"))
        .with_topic(TopicSpec::new(hub::TOPIC, hub::PARTITIONS as usize).expect("a topic"))
        .with_tls(&*connection_string);
    let cloud = runtime.block_on(cloud_sim::start(cloud)).expect("cloud-sim starts");
    let address = cloud.kafka_tls.expect("asked for").to_string();
    let authority = cloud.ca_file.clone().expect("made for TLS").display().to_string();

    let secret = folder.path().join("event-hubs.connection");
    std::fs::write(&secret, &connection_string).expect("written");
    let config = Config::default()
        .set("uplink", &format!("bootstrap_servers = {address:?}"))
        .set("uplink", &format!("connection_string_file = {:?}", secret.display().to_string()))
        .set("uplink", &format!("ca_file = {authority:?}"))
        .set("uplink", &format!("topic = {:?}", hub::TOPIC));
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let acked = Device::connect(gateway.mqtt(), "pump-7").pump(32, READINGS, |_| ());
    assert!(gateway.stop().expect("it stops").success());

    let output = Command::new("kcat")
        .args(["-b", &address, "-t", hub::TOPIC, "-C", "-e", "-q", "-f", "%k\n"])
        .args(["-X", "security.protocol=sasl_ssl", "-X", "sasl.mechanisms=PLAIN"])
        .args(["-X", "sasl.username=$ConnectionString", "-X", &format!("sasl.password={connection_string}")])
        .args(["-X", &format!("ssl.ca.location={authority}")])
        .output()
        .expect("kcat is installed (`cargo xtask test` installs it)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let arrived = String::from_utf8_lossy(&output.stdout).lines().filter(|key| *key == "pump-7").count();
    assert_eq!(arrived, usize::from(acked));
    runtime.block_on(cloud.stop());
}

/// A connection string with a key made for this run.
fn connection_string() -> String {
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let key: String = key.lines().nth(1).expect("a line of base64").chars().take(43).collect();
    format!("Endpoint=sb://localhost/;SharedAccessKeyName=test;SharedAccessKey={key}=")
}
