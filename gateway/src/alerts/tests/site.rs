//! A gateway's disk, and its alerts at work on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::{Lane, Seq};
use serde_json::Value;
use tempfile::TempDir;

use super::super::{Config, Handle, Rules, Service, consumers};
use crate::outbox::{
    self, Completion, Consumer, ConsumerId, Encoded, Entry, Memory, Properties, StateOps, open_in_memory,
};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const PATIENCE: Duration = Duration::from_secs(30);
/// Received times count up from here, in Unix milliseconds.
const START_MS: u64 = 1_700_000_000_000;

/// Raised above 90, over below 85.
pub(super) const HOT: &str = "[[rule]]\nid = \"hot\"\nmetric = \"t\"\nraise = \"> 90\"\nclear = \"< 85\"\n";

/// Waits for a condition.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A gateway's disk.
pub(super) struct Site {
    directory: TempDir,
    pub(super) memory: Memory,
    /// Messages published so far.
    published: u64,
}

/// A gateway's outbox and alerts at work.
pub(super) struct Running {
    supervisor: Supervisor,
    pub(super) outbox: outbox::Handle,
    pub(super) alerts: Handle,
    watch: Consumer,
    done: Arc<Completion>,
}

impl Site {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        Self { directory, memory: Memory::default(), published: 0 }
    }

    pub(super) fn config(&self) -> Config {
        Config::for_tests(&self.directory.path().join("alerts"))
    }

    pub(super) fn start(&self, rules: &str) -> Running {
        self.start_with(rules, &self.config())
    }

    pub(super) fn start_with(&self, rules: &str, config: &Config) -> Running {
        let supervisor = Supervisor::new();
        let outbox = self.open(&consumers(config));
        let rules = parse(rules);
        let gateway = "site-7".parse().expect("an id");
        let alerts =
            Service::start(config, rules, &gateway, &outbox, (None, None), &supervisor).expect("it starts");
        let watch = outbox.consumer("watch", Lane::Alerts).expect("it is free");
        Running { supervisor, outbox, alerts, watch, done: Arc::default() }
    }

    /// Opens the outbox alone, as a gateway without alerts does.
    pub(super) fn open(&self, consumers: &[ConsumerId]) -> outbox::Handle {
        let named = |name: &str, lane| ConsumerId { name: name.to_owned(), lane };
        let mut all = vec![named("watch", Lane::Alerts), named("reader", Lane::Telemetry)];
        all.extend_from_slice(consumers);
        open_in_memory(&self.memory, self.directory.path(), &all)
    }

    /// The folder of snapshots.
    pub(super) fn snapshots(&self) -> std::path::PathBuf {
        self.directory.path().join("alerts")
    }

    /// Publishes one measurement and waits until it is durable.
    pub(super) fn publish(&mut self, outbox: &outbox::Handle, device: &str, value: f64) {
        assert!(self.try_publish(outbox, device, value), "it becomes durable");
    }

    /// As [`Self::publish`]; false if it does not become durable.
    pub(super) fn try_publish(&mut self, outbox: &outbox::Handle, device: &str, value: f64) -> bool {
        self.published += 1;
        let payload = format!("{{\"t\": {value}}}");
        let mut entries = Encoded::default();
        entries.push(&Entry {
            lane: Lane::Telemetry,
            device,
            topic: &format!("devices/{device}/telemetry"),
            received_ms: START_MS + self.published,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties::default(),
            payload: payload.as_bytes(),
        });
        let appender = outbox.appender();
        let Ok(permit) = appender.reserve(Lane::Telemetry, entries.bytes()) else { return false };
        let done = Arc::new(Completion::new());
        let ticket = appender.submit(permit, &entries, &StateOps::default(), &done);
        matches!(done.wait(ticket, clock::now() + PATIENCE), Some(Ok(())))
    }
}

impl Running {
    /// Waits until everything published was looked at and what it led to is durable, and gives all events in lane alerts.
    pub(super) fn events(&mut self) -> Vec<Value> {
        until("everything is looked at", || {
            let status = self.alerts.status();
            status.settled && status.position == Lane::Telemetry.pick(&self.outbox.status().lanes).next
        });
        self.read()
    }

    /// Waits for so many events in lane alerts.
    pub(super) fn wait_events(&mut self, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        until("the events are there", || {
            found = self.read();
            found.len() >= count
        });
        found
    }

    /// All events in lane alerts.
    pub(super) fn read(&mut self) -> Vec<Value> {
        let mut found = Vec::new();
        let mut cursor = self.watch.cursor(Seq(1));
        while let Ok(Some(segment)) = cursor.try_next(1 << 20) {
            let events = segment.records().map(|(_, record)| serde_json::from_slice(record.payload));
            found.extend(events.map(|event: Result<Value, _>| event.expect("JSON")));
        }
        found
    }

    /// Stops in order.
    pub(super) fn stop(self) {
        self.supervisor.enter(Phase::DrainUplink);
        self.outbox.wake();
        until("the rules end", || self.supervisor.live(TaskKind::Alerts) == 0);
        self.end();
    }

    /// Ends as a process does that is killed; with `power_cut`, what was not synced is gone.
    pub(super) fn kill(self, site: &Site, power_cut: bool) {
        site.memory.die();
        let supervisor = self.supervisor.clone();
        supervisor.enter(Phase::Close);
        // What waits for the disk is told that it is gone.
        self.end();
        until("the rules end", || supervisor.live(TaskKind::Alerts) == 0);
        until("no snapshot is being written", || supervisor.live(TaskKind::AlertsSnapshot) == 0);
        site.memory.revive_after_power_cut_if(power_cut);
    }

    fn end(self) {
        let Self { outbox, watch, done, .. } = self;
        drop((watch, done));
        assert!(outbox.close(clock::now() + PATIENCE), "closed in time");
    }
}

pub(super) fn parse(rules: &str) -> Rules {
    let rules = Rules::parse(rules, "rules.toml").expect("a rules file");
    assert_eq!(rules.errors().collect::<Vec<_>>(), Vec::<String>::new());
    rules
}

/// State and transition of events, with their devices.
pub(super) fn told(events: &[Value]) -> Vec<(String, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |event: &Value| {
        let kind = text(&event["type"]);
        let word = kind.split('.').rev().nth(1).unwrap_or_default().to_owned();
        (word, text(&event["deviceid"]), event["data"]["transition"].as_u64().unwrap_or_default())
    };
    events.iter().map(told).collect()
}

/// The same, for comparison.
pub(super) fn expected(told: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    told.iter().map(|(word, device, number)| ((*word).to_owned(), (*device).to_owned(), *number)).collect()
}

/// An empty file in the folder would be a snapshot that cannot be used.
pub(super) fn damage_snapshots(folder: &Path) -> usize {
    let files: Vec<_> = std::fs::read_dir(folder).expect("the folder").flatten().collect();
    for file in &files {
        std::fs::write(file.path(), b"nothing").expect("it can be written");
    }
    files.len()
}
