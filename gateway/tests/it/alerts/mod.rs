//! Alerts, end to end: mosquitto publishes readings, and what the stand-in for Event Grid has accepted is looked at.

mod absence;
mod crash;
mod examples;
mod figures;
mod held;
mod learned;
mod outage;
mod path;
mod reaction;
mod reload;
mod rules_tool;
mod service_bus;
mod silence;
mod sparkplug;
mod validity;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::cloud::Cloud;
use testkit::cloud::event_grid::{EventGrid, KEYS};
use testkit::gateway::{Config, Gateway};

use crate::hub;

/// A boiler that gets too hot, badly.
const HOT: &str = r#"
[[rule]]
id = "hot"
metric = "temperature"
raise = "> 90"
clear = "< 85"
severity = "critical"
"#;

/// Where the event hub has what the gateway itself says.
const EVENTS: &str = "events";

/// Each test adds this rule to its own: an alert of it comes behind all that was raised before.
const MARKER: &str = r#"
[[rule]]
id = "marker"
metric = "mark"
raise = "> 0"
severity = "info"
"#;

/// A gateway with rules between devices and Event Grid.
struct Site {
    gateway: Gateway,
    cloud: Cloud,
    rules: PathBuf,
    key: PathBuf,
    folder: tempfile::TempDir,
    markers: Cell<u32>,
}

// === impl Site ===

impl Site {
    /// One that goes by these rules.
    fn start(rules: &str) -> Self {
        Self::start_with(rules, &[])
    }

    /// One with further settings, each a section and a line.
    fn start_with(rules: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_as(rules, |config| {
            settings.iter().fold(config, |config, (section, line)| config.set(section, line))
        })
    }

    /// One that is set up further.
    fn start_as(rules: &str, further: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("cloud");
        fs::create_dir_all(&data).expect("a folder for the cloud");
        let topics = [(hub::TOPIC, hub::PARTITIONS), (EVENTS, 1)];
        let cloud = Cloud::start_with_event_grid(&data, &topics, &[] as &[&str]).expect("cloud-sim starts");
        let (file, key) = (folder.path().join("rules.toml"), folder.path().join("event-grid-key"));
        fs::write(&file, format!("{rules}{MARKER}")).expect("written");
        fs::write(&key, KEYS[0]).expect("written");
        let config = further(alerting(plain(&cloud), &cloud, folder.path()));
        let gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
        Self { gateway, cloud, rules: file, key, folder, markers: Cell::default() }
    }

    fn event_grid(&self) -> EventGrid<'_> {
        self.cloud.control().event_grid()
    }

    /// Has mosquitto publish these readings of a device, in order, and waits until all are acknowledged.
    fn publish(&self, device: &str, readings: &[&str]) {
        publish(&self.gateway, device, readings);
    }

    /// All that was told of what was published before, in the order of its arrival, each event once.
    ///
    /// # Panics
    ///
    /// When an event came again with other contents.
    fn told(&self) -> Vec<Value> {
        let marker = format!("marker-{}", self.markers.get());
        self.markers.set(self.markers.get() + 1);
        self.publish(&marker, &[r#"{"mark":1}"#]);
        let events = hub::wait_for("the alert that comes behind all others", || {
            let events = self.accepted();
            events.iter().any(|event| event["deviceid"] == *marker).then_some(events)
        });
        let mut known: HashMap<String, Value> = HashMap::new();
        let mut once = Vec::new();
        for event in events {
            match known.get(text(&event, "/id")) {
                Some(first) => assert_eq!(*first, event, "one id, one content"),
                None => {
                    known.insert(text(&event, "/id").to_owned(), event.clone());
                    once.push(event);
                }
            }
        }
        once.retain(|event| event["ruleid"] != "marker");
        once
    }

    /// What Event Grid has accepted so far, repeats included.
    fn accepted(&self) -> Vec<Value> {
        let entries = self.event_grid().all_events_after(0).expect("it answers");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// What the status says of alerts.
    fn status(&self) -> Value {
        let status = self.gateway.admin("/api/v1/status").expect("it answers").expect("a status");
        let mut status: Value = serde_json::from_str(&status).expect("JSON");
        status["alerts"].take()
    }

    /// What it says of where they are sent.
    fn sink(&self) -> Value {
        self.status()["sinks"][0].take()
    }

    /// Waits until the metrics have this line.
    fn wait_for_metric(&self, line: &str) {
        hub::wait_for(line, || {
            let metrics = self.gateway.health("/metrics").ok()??;
            metrics.lines().any(|said| said == line).then_some(())
        });
    }

    /// Puts other text into the rules file and has the gateway read it.
    fn reread(&mut self, text: &str) {
        fs::write(&self.rules, text).expect("written");
        self.gateway.process().signal("HUP").expect("it can be signalled");
    }

    /// What the gateway wrote into its log so far.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("penstock.log")).expect("a log")
    }
}

/// A gateway that sends telemetry to the hub and knows of no alerts.
fn plain(cloud: &Cloud) -> Config {
    Config::default().id("edge-01").uplink(&cloud.ready().kafka, hub::TOPIC).events(EVENTS)
}

/// The same with rules and Event Grid; it tries again soon after a failure.
fn alerting(config: Config, cloud: &Cloud, folder: &Path) -> Config {
    let endpoint = cloud.ready().event_grid_endpoint().expect("asked for");
    config
        .rules(&folder.join("rules.toml"), &folder.join("alerts"))
        .event_grid(&endpoint, &folder.join("event-grid-key"))
        .set("[alerts.event_grid]", "retry_longest = \"500ms\"")
        .set("[alerts.event_grid]", "probe_interval = \"500ms\"")
}

/// One connection for each reading: of two that came within the same millisecond the second is not later, and ignored.
fn publish(gateway: &Gateway, device: &str, readings: &[&str]) {
    let (host, port) = gateway.mqtt().rsplit_once(':').expect("host:port");
    let topic = format!("devices/{device}/telemetry");
    for reading in readings {
        let output = Command::new("mosquitto_pub")
            .args([
                "-h", host, "-p", port, "-V", "mqttv5", "-q", "1", "-i", device, "-t", &topic, "-m", reading,
            ])
            .output()
            .expect("mosquitto_pub is installed (`cargo xtask test` installs it)");
        assert!(output.status.success(), "{device}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    let found = event.pointer(pointer).and_then(Value::as_str);
    assert!(found.is_some(), "no {pointer} in {event:#}");
    found.unwrap_or_default()
}

/// What each event tells of whom: `raised hot boiler-7 1`, the last being its place among those of its alert.
fn outline(events: &[Value]) -> Vec<String> {
    let line = |event: &Value| {
        let kind = text(event, "/type").strip_prefix("io.penstock.alert.").expect("an alert");
        let what = kind.strip_suffix(".v1").expect("a version");
        let (rule, device) = (text(event, "/ruleid"), text(event, "/deviceid"));
        format!("{what} {rule} {device} {}", event["data"]["transition"])
    };
    events.iter().map(line).collect()
}

/// The ids of their alerts.
fn alert_ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| text(event, "/data/alertId")).collect()
}
