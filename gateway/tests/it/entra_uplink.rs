//! The uplink with tokens of Microsoft Entra: renewed under load, away, revoked, of the wrong identity.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cloud_sim::{OAuth, TopicSpec};
use serde_json::{Value, json};
use testkit::cloud::Control;
use testkit::gateway::{Config, Gateway};

use crate::client::Device;
use crate::hub;

const SECRET: &str = "s3cr~t";
const DEVICE: &str = "pump-7";
/// Readings between two looks at the cloud.
const PART: u16 = 50;
/// Most readings of a test: packet identifiers end there.
const READINGS_MAX: u16 = 60_000;

/// An event hub that takes tokens, and endpoints that give them.
struct Cloud {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    running: cloud_sim::Running,
    control: Control,
}

impl Cloud {
    fn start(life: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
            folder.path().join(name)
        };
        let secret = file("secret", SECRET);
        let oauth = OAuth {
            secret: Some(std::fs::read_to_string(secret).expect("just written")),
            assertion_file: Some(file("assertion", "first.of.pod")),
            life,
            ..OAuth::new()
        };
        let config = cloud_sim::Config::new(folder.path().join("cloud"))
            .with_topic(TopicSpec::new(hub::TOPIC, hub::PARTITIONS as usize).expect("a topic"))
            .with_oauth(oauth);
        let running = runtime.block_on(cloud_sim::start(config)).expect("cloud-sim starts");
        let control = Control::new(&running.control.to_string());
        Self { folder, runtime, running, control }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A gateway's configuration for this cloud, with these lines in `[azure]`.
    fn config(&self, azure: &[&str]) -> Config {
        let address = self.running.kafka_tls.expect("asked for").to_string();
        let authority = self.running.ca_file.as_ref().expect("made for TLS").display();
        let uplink = [
            "security = \"entra-tls\"".to_owned(),
            format!("namespace = {:?}", OAuth::AUDIENCE),
            format!("bootstrap_servers = {address:?}"),
            format!("ca_file = \"{authority}\""),
            format!("topic = {:?}", hub::TOPIC),
        ];
        let config = uplink.iter().fold(Config::default(), |config, line| config.set("uplink", line));
        let endpoint = format!("http://{}", self.running.tokens.expect("asked for"));
        let filled = azure.iter().map(|line| {
            let line = line.replace("ENDPOINT", &endpoint).replace("TENANT", OAuth::TENANT);
            line.replace("CLIENT", OAuth::CLIENT_ID)
                .replace("FOLDER", &self.folder.path().display().to_string())
        });
        filled.fold(config, |config, line| config.set("azure", &line))
    }

    fn machine(&self) -> Config {
        self.config(&["credential = \"managed-identity\"", "imds_endpoint = \"ENDPOINT\""])
    }

    fn tokens(&self, body: &Value) {
        self.control.post("/v1/faults/tokens", body).expect("the fault is known");
    }

    fn count(&self, name: &str) -> u64 {
        self.control.counters().expect("it counts")[name].as_u64().expect("a number")
    }

    /// How often each reading arrived, read by a client that we did not write.
    fn arrived(&self) -> std::collections::BTreeMap<u16, usize> {
        let output = Command::new("kcat")
            .args([
                "-b",
                &self.running.kafka.to_string(),
                "-t",
                hub::TOPIC,
                "-C",
                "-e",
                "-q",
                "-f",
                "%k\t%s\n",
            ])
            .output()
            .expect("kcat is installed (`cargo xtask test` installs it)");
        assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
        let mut found = std::collections::BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some(payload) = line.strip_prefix(&format!("{DEVICE}\t")) else { continue };
            let payload: Value = serde_json::from_str(payload).expect("JSON as published");
            let reading = payload["reading"].as_u64().and_then(|n| u16::try_from(n).ok());
            *found.entry(reading.expect("a reading")).or_default() += 1;
        }
        found
    }

    /// Waits until every reading up to `last` arrived.
    fn wait_for(&self, last: u16) {
        hub::wait_for("every reading", || {
            let found = self.arrived();
            (1..=last).all(|reading| found.contains_key(&reading)).then_some(())
        });
    }

    /// `penstock verify` with a gateway's configuration.
    fn verify(&self, config: &Config) -> (bool, String) {
        let file = self.file("verify.toml");
        std::fs::write(&file, config.to_toml(self.folder.path())).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(["verify", "--topic", hub::TOPIC, "--config"])
            .arg(&file)
            .output()
            .expect("verify runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn stop(self) {
        self.runtime.block_on(self.running.stop());
    }
}

fn status(gateway: &Gateway) -> Value {
    let status = gateway.admin("/api/v1/status").expect("it answers").expect("with a status");
    serde_json::from_str(&status).expect("JSON")
}

/// The value of a metric without labels.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.health("/metrics").expect("it answers").expect("with metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.expect("the metric is there")
}

fn start(folder: &Path, config: Config) -> Gateway {
    let folder = folder.join("gateway");
    std::fs::create_dir_all(&folder).expect("a folder for the gateway");
    Gateway::start(&folder, config).expect("the gateway starts")
}

#[test]
fn tokens_are_renewed_under_load_and_everything_arrives_once() {
    let cloud = Cloud::start(Duration::from_secs(4));
    // No proxy leads to the metadata service: through this one nothing would come.
    let config = cloud.machine().environment([("http_proxy", "http://127.0.0.1:1".into())]);
    let mut gateway = start(cloud.folder.path(), config.clone());
    let mut device = Device::connect(gateway.mqtt(), DEVICE);
    let mut acked = 0;
    // Several tokens, and the connection went on with new ones.
    while cloud.count("tokens_issued") < 5 || cloud.count("reauthentications") < 3 {
        assert!(acked < READINGS_MAX, "{}", cloud.control.counters().expect("it counts"));
        acked = device.pump(1, acked + PART, |_| ());
    }
    cloud.wait_for(acked);
    let seen = status(&gateway);
    assert_eq!(seen["uplink"]["rebuilds"], 0, "{seen}");
    assert!(seen["token"]["fetched"].as_u64() >= Some(5), "{seen}");
    assert_eq!(seen["token"]["audience"], OAuth::AUDIENCE);

    // What nobody heard of is looked up before it is sent again, which takes a token too.
    acked = device.pump(32, acked + 10 * PART, |_| ());
    gateway.kill().expect("it can be killed");
    gateway.restart().expect("it starts again");
    cloud.wait_for(acked);
    assert!(gateway.stop().expect("it stops").success());
    assert!(cloud.arrived().values().all(|times| *times == 1), "nothing twice");

    let (passed, said) = cloud.verify(&config);
    assert!(passed, "{said}");
    let log = cloud.file("gateway").join("penstock.log");
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("uplink stopped"), "the log holds what was said: {log}");
    assert!(!log.contains("sim.7b"), "a token is in the log");
    cloud.stop();
}

#[test]
fn a_token_endpoint_that_is_away_delays_and_loses_nothing() {
    let cloud = Cloud::start(Duration::from_secs(4));
    cloud.tokens(&json!({ "fail": 1_000_000 }));
    let config = cloud.config(&[
        "credential = \"workload-identity\"",
        "tenant_id = \"TENANT\"",
        "client_id = \"CLIENT\"",
        "federated_token_file = \"FOLDER/assertion\"",
        "authority_host = \"ENDPOINT\"",
    ]);
    let mut gateway = start(cloud.folder.path(), config);
    let mut device = Device::connect(gateway.mqtt(), DEVICE);
    device.pump(32, 200, |_| ());
    let error = hub::wait_for("the reason to be shown", || {
        let seen = status(&gateway);
        let error = seen["uplink"]["last_error"].as_str()?.to_owned();
        (seen["token"]["failures"].as_u64() > Some(0)).then_some(error)
    });
    assert!(error.starts_with(&format!("no token for {} yet: ", OAuth::AUDIENCE)), "{error}");
    assert!(gateway.health("/readyz").expect("it answers").is_some(), "devices are still welcome");
    assert!(metric(&gateway, "penstock_azure_token_failures") > 0.0);
    assert!(cloud.arrived().is_empty());

    // The cluster replaces the pod's token meanwhile.
    std::fs::write(cloud.file("assertion"), "second.of.pod").expect("written");
    cloud.tokens(&json!({ "fail": 0 }));
    cloud.wait_for(200);
    assert!(metric(&gateway, "penstock_azure_token_expiry_timestamp_seconds") > 0.0);

    // Away for longer than a token lives: the connection ends, and comes back.
    cloud.tokens(&json!({ "fail": 1_000_000 }));
    hub::wait_for("the token to be over", || {
        status(&gateway)["token"]["life_seconds"].is_null().then_some(())
    });
    hub::wait_for("the connection to be closed", || (cloud.count("connections_open") == 0).then_some(()));
    device.pump(32, 400, |_| ());
    cloud.tokens(&json!({ "fail": 0 }));
    cloud.wait_for(400);
    assert!(gateway.stop().expect("it stops").success());
    assert!(cloud.arrived().values().all(|times| *times == 1), "nothing twice");
    cloud.stop();
}

#[test]
fn a_revoked_token_is_replaced_before_its_time() {
    let cloud = Cloud::start(Duration::from_secs(3600));
    let mut gateway = start(cloud.folder.path(), cloud.machine());
    let mut device = Device::connect(gateway.mqtt(), DEVICE);
    device.pump(32, 200, |_| ());
    cloud.wait_for(200);
    cloud.tokens(&json!({ "expire": true }));
    device.pump(32, 400, |_| ());
    cloud.wait_for(400);
    assert_eq!(cloud.count("tokens_issued"), 2, "one more, and not one for each refusal");
    assert!(gateway.stop().expect("it stops").success());
    assert!(cloud.arrived().values().all(|times| *times == 1), "nothing twice");
    cloud.stop();
}

#[test]
fn a_wrong_secret_and_a_missing_role_hold_with_a_reason_until_they_are_mended() {
    let cloud = Cloud::start(Duration::from_secs(3600));
    std::fs::write(cloud.file("mine"), "wrong").expect("written");
    let refuse = json!({ "code": 29, "times": 1_000_000, "topic": hub::TOPIC });
    cloud.control.post("/v1/faults/produce-error", &refuse).expect("the fault is known");
    let config = cloud.config(&[
        "credential = \"client-secret\"",
        "tenant_id = \"TENANT\"",
        "client_id = \"CLIENT\"",
        "client_secret_file = \"FOLDER/mine\"",
        // Nobody answers there: the tenant is reached through the proxy, which knows the answer itself.
        "authority_host = \"http://localhost:1\"",
    ]);
    let proxy = format!("http://{}", cloud.running.tokens.expect("asked for"));
    let config = config.environment([("http_proxy", proxy.into())]);
    let mut gateway = start(cloud.folder.path(), config);
    Device::connect(gateway.mqtt(), DEVICE).pump(32, 200, |_| ());
    let error = hub::wait_for("the endpoint's reason", || {
        status(&gateway)["token"]["last_error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("AADSTS7000215") && !error.contains("wrong"), "{error}");

    std::fs::write(cloud.file("mine"), SECRET).expect("written");
    let held = hub::wait_for("the topic to be held", || {
        status(&gateway)["uplink"]["held"].as_array().filter(|held| !held.is_empty()).cloned()
    });
    assert_eq!(held[0]["reason"], "TopicAuthorizationFailed");
    assert!(cloud.arrived().is_empty());

    cloud.control.post("/v1/faults/produce-error", &json!({ "code": 29, "times": 0 })).expect("taken back");
    cloud.wait_for(200);
    assert!(gateway.stop().expect("it stops").success());
    cloud.stop();
}
