//! Rules that send commands by way of Service Bus: what is in the queue, once, whatever happens in between; and the whole
//! way round, to the device that the alert is about.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::azure_clients::{Client, Library, Namespace};
use testkit::cloud::Cloud;
use testkit::cloud::service_bus::{Entities, Queue, View};
use testkit::gateway::{Config, Gateway};
use testkit::ports;

use super::publish;
use crate::clients::mosquitto::Subscriber;
use crate::hub;

const QUEUE: &str = "site-commands";
const RULES: &str = r#"
[[rule]]
id = "too-hot"
metric = "temperature"
raise = "> 90"
clear = "< 85"
severity = "critical"

[[rule.action]]
name = "cool"
on = ["raised", "resolved"]
expires_after = "10m"
service_bus = { queue = "site-commands", subject = "set-speed", payload = '{"device":"{device}","because":"{rule}"}' }
"#;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A gateway whose rules send commands, and a namespace that can be away.
struct Site {
    gateway: Gateway,
    cloud: Option<Cloud>,
    address: String,
    folder: tempfile::TempDir,
}

impl Site {
    /// One that takes its own devices' commands from this queue.
    fn start(commands: &str, rules: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [address] = ports::free().expect("a free port");
        let address = address.to_string();
        let cloud = cloud(folder.path(), &address);
        let connection = cloud.ready().servicebus_connection_string.clone().expect("asked for");
        let (secret, file) = (folder.path().join("service-bus"), folder.path().join("rules.toml"));
        fs::write(&secret, connection).expect("written");
        fs::write(&file, rules).expect("written");
        let config = Config::default()
            .id("edge-01")
            .set("uplink", "enabled = false")
            .rules(&file, &folder.path().join("alerts"))
            .set("commands", &format!("entity = {commands:?}"))
            .set("commands.connection", &format!("connection_string_file = {secret:?}"))
            .set("[alerts.service_bus]", &format!("entity = {QUEUE:?}"))
            .set("[alerts.service_bus]", "retry_longest = \"500ms\"")
            .set("[alerts.service_bus]", "probe_interval = \"500ms\"");
        let gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
        Self { gateway, cloud: Some(cloud), address, folder }
    }

    /// Service Bus is gone, and with it what was in its queues.
    fn away(&mut self) {
        drop(self.cloud.take());
    }

    fn back(&mut self) {
        self.cloud = Some(cloud(self.folder.path(), &self.address));
    }

    fn cloud(&self) -> &Cloud {
        self.cloud.as_ref().expect("it is there")
    }

    fn queue(&self) -> View {
        self.cloud().control().service_bus().entity(QUEUE).expect("it answers")
    }

    /// Waits until the queue has so many messages.
    fn wait_for(&self, count: u64) -> View {
        hub::wait_for("the commands", || Some(self.queue()).filter(|queue| queue.active == count))
    }

    /// What the status says of the destination.
    fn destination(&self) -> Value {
        let status = self.gateway.admin("/api/v1/status").expect("it answers").expect("a status");
        let mut status: Value = serde_json::from_str(&status).expect("JSON");
        status["alerts"]["service_bus"][0].take()
    }
}

fn cloud(folder: &Path, address: &str) -> Cloud {
    let data = folder.join("cloud");
    fs::create_dir_all(&data).expect("a folder for the cloud");
    let with_ids = Queue { duplicate_window_seconds: Some(600.0), ..Queue::with_sessions(QUEUE) };
    let entities = Entities::queues([with_ids, Queue::with_sessions("commands")]);
    let file = folder.join("entities.json");
    fs::write(&file, json!(entities).to_string()).expect("written");
    let file = file.display().to_string();
    let arguments = ["--servicebus", address, "--servicebus-config", &file];
    Cloud::start_with(&data, &[(hub::TOPIC, hub::PARTITIONS)], &arguments).expect("cloud-sim starts")
}

#[test]
fn a_breach_puts_a_command_into_the_queue_and_its_end_another_behind_it() {
    let site = Site::start("commands", RULES);
    publish(&site.gateway, "boiler-7", &[r#"{"temperature":95}"#, r#"{"temperature":80}"#]);
    let queue = site.wait_for(2);
    let ids: Vec<_> = queue.messages.iter().filter_map(|message| message.message_id.as_deref()).collect();
    let [raised, resolved] = ids[..] else { panic!("two with ids: {ids:?}") };
    let alert = raised.strip_suffix(":1:cool").expect("the alert's id, its first transition and the action");
    assert!(alert.starts_with("a1-"), "{raised}");
    assert_eq!(resolved, format!("{alert}:2:cool"));
    for message in &queue.messages {
        let seen = (message.session_id.as_deref(), message.subject.as_deref());
        assert_eq!(seen, (Some("boiler-7"), Some("set-speed")));
    }
    let destination = site.destination();
    assert_eq!((&destination["sent"], &destination["entity"]), (&json!(2), &json!(QUEUE)), "{destination:#}");
    let metrics = site.gateway.health("/metrics").expect("it answers").expect("they are there");
    assert!(metrics.lines().any(|line| line == "penstock_alerts_service_bus_sent_total 2"), "{metrics}");
}

#[test]
fn microsofts_own_library_reads_what_the_alert_said() {
    for library in Library::installed(&[Library::Python]) {
        let site = Site::start("commands", RULES);
        let (host, port) = site.gateway.mqtt().rsplit_once(':').expect("host:port");
        let output = std::process::Command::new("mosquitto_pub")
            .args(["-h", host, "-p", port, "-V", "mqttv5", "-q", "1", "-i", "boiler-7"])
            .args(["-D", "publish", "user-property", "traceparent", TRACEPARENT])
            .args(["-t", "devices/boiler-7/telemetry", "-m", r#"{"temperature":95}"#])
            .output()
            .expect("mosquitto_pub is installed (`cargo xtask test` installs it)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        site.wait_for(1);
        let connection = site.cloud().ready().servicebus_connection_string.clone().expect("asked for");
        let mut client = Client::start(library, &Namespace::new(&connection)).expect("it is installed");
        client.ok(json!({ "do": "accept", "receiver": "r", "entity": QUEUE, "session": "boiler-7" }));
        let [message] = &client.receive("r", 1, Duration::from_secs(20))[..] else { panic!("one") };
        let alert = message["correlation"].as_str().expect("the alert's id");
        assert_eq!(message["id"], format!("{alert}:1:cool"));
        let seen =
            ["session", "subject", "content_type", "body"].map(|key| message[key].as_str().unwrap_or(""));
        let body = r#"{"device":"boiler-7","because":"too-hot"}"#;
        assert_eq!(seen, ["boiler-7", "set-speed", "application/json", body]);
        assert_eq!(message["properties"]["traceparent"], TRACEPARENT, "{message:#}");
        let origin = message["properties"]["penstock-origin"].as_str().expect("what showed it");
        assert!(
            origin.starts_with("edge-01/") && origin.ends_with("/2/1"),
            "the first of lane telemetry: {origin}"
        );
        let [enqueued, expires] =
            ["enqueued_ms", "expires_ms"].map(|key| message[key].as_u64().expect("a time"));
        let life = expires - enqueued;
        assert!((500_000..=600_000).contains(&life), "what remains of ten minutes: {life} ms");
    }
}

#[test]
fn commands_of_an_outage_and_a_kill_are_there_once_when_both_are_back() {
    let mut site = Site::start("commands", RULES);
    site.away();
    let boilers: Vec<String> = (1..=5).map(|number| format!("boiler-{number}")).collect();
    for boiler in &boilers {
        publish(&site.gateway, boiler, &[r#"{"temperature":95}"#, r#"{"temperature":80}"#]);
    }
    hub::wait_for("commands that wait", || (site.destination()["pending"] == 10).then_some(()));
    assert!(site.gateway.health("/readyz").expect("it answers").is_some(), "an outage never fails readiness");
    site.gateway.kill().expect("it can be killed");
    site.back();
    site.gateway.restart().expect("it starts again");
    site.wait_for(10);
    // What is raised later comes behind everything that waited.
    publish(&site.gateway, "boiler-1", &[r#"{"temperature":99}"#]);
    let queue = site.wait_for(11);
    for boiler in &boilers {
        let of =
            |seen: &&testkit::cloud::service_bus::Seen| seen.session_id.as_deref() == Some(boiler.as_str());
        let ids: Vec<_> =
            queue.messages.iter().filter(of).filter_map(|seen| seen.message_id.clone()).collect();
        let alert = ids[0].strip_suffix(":1:cool").expect("what raised it first");
        assert_eq!(ids[1], format!("{alert}:2:cool"), "{boiler}");
        assert_eq!(ids.len(), if boiler == "boiler-1" { 3 } else { 2 }, "{boiler}: {ids:?}");
    }
}

#[test]
fn connections_that_are_cut_all_the_time_repeat_ids_and_nothing_else() {
    let mut site = Site::start("commands", RULES);
    let boilers: Vec<String> = (1..=10).map(|number| format!("boiler-{number}")).collect();
    for (place, boiler) in boilers.iter().enumerate() {
        publish(&site.gateway, boiler, &[r#"{"temperature":95}"#, r#"{"temperature":80}"#]);
        site.cloud().control().service_bus().cut_connections().expect("it can");
        if place == 5 {
            site.gateway.kill().expect("it can be killed");
            site.gateway.restart().expect("it starts again");
        }
    }
    let queue = site.wait_for(20);
    let mut ids: Vec<_> = queue.messages.iter().filter_map(|seen| seen.message_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[test]
fn a_command_goes_all_the_way_round_to_the_device_it_is_about() {
    let site = Site::start(QUEUE, RULES);
    publish(&site.gateway, "boiler-7", &[r#"{"temperature":95}"#]);
    assert_eq!(
        site.wait_for(1).messages[0].session_id.as_deref(),
        Some("boiler-7"),
        "it waits for its device"
    );
    let arguments = ["-V", "mqttv5", "-i", "boiler-7", "-q", "1", "-t", "devices/boiler-7/commands/+"];
    let mut device = Subscriber::start_at(site.gateway.mqtt(), &arguments);
    let message = device.next();
    assert_eq!(message["payload"], r#"{"device":"boiler-7","because":"too-hot"}"#, "{message:#}");
    let topic = message["topic"].as_str().expect("a topic");
    assert!(topic.ends_with("%3A1%3Acool") || topic.ends_with(":1:cool"), "{topic}");
    site.wait_for(0);
}

#[test]
fn a_rule_that_names_an_entity_that_is_not_listed_keeps_only_itself_out() {
    let rules = format!("{}{RULES}", RULES.replace("too-hot", "elsewhere").replace(QUEUE, "nowhere"));
    let site = Site::start("commands", &rules);
    publish(&site.gateway, "boiler-7", &[r#"{"temperature":95}"#]);
    site.wait_for(1);
    let status = site.gateway.admin("/api/v1/status").expect("it answers").expect("a status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let errors = status["alerts"]["rule_errors"].as_array().expect("a list");
    let said = errors.iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(
        matches!(said[..], [error] if error.contains("nowhere") && error.contains("elsewhere")),
        "{said:?}"
    );
}
