//! A lifecycle with a clock, its table beside it, and everything it told, checked.

mod crash;
mod episodes;
mod flood;
mod hostile;
mod reacting;
mod rows;
mod silence;
mod strict;

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};
use serde_json::Value;

use super::{Complaint, Counts, Effects, Lifecycle, Policy, RuleFacts, Rulebook, Voice};
use crate::alerts::nouns::{Change, Edge, Position, Severity, Subject};
use crate::alerts::reaction::Reaction;

pub(super) use rows::row_seeds;

/// Saturday 2026-11-21 12:00 UTC.
const NOON: u64 = 1_795_262_400_000;
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

const BOILER: u16 = 0;
const SILENT: u16 = 1;
const UPLINK: u16 = 2;
const PRESSURE: u16 = 3;

struct World {
    lifecycle: Lifecycle,
    /// The table as it is committed.
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What was told and not looked at yet.
    told: Vec<Value>,
    /// What was to be done and not looked at yet.
    done: Vec<Done>,
    complaints: Vec<Complaint>,
    counts: Counts,
    now: u64,
    seq: u64,
    policy: Arc<Policy>,
    rules: Arc<Rulebook>,
    tenant: Option<&'static str>,
}

/// A reaction, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Done {
    alert: String,
    transition: u64,
    on: &'static str,
    device: String,
    action: String,
}

impl Done {
    fn of(reaction: &Reaction<'_>) -> Self {
        Self {
            alert: reaction.alert.to_string(),
            transition: reaction.transition.into(),
            on: reaction.on.name(),
            device: reaction.device.to_string(),
            action: reaction.action.to_string(),
        }
    }
}

fn rules() -> Vec<RuleFacts> {
    let rule = |id: &str, inhibited_by: &[&str]| RuleFacts {
        id: id.into(),
        version: 3,
        meaning: 7,
        runbook: Some(format!("https://runbooks.example/{id}").into()),
        labels: vec![("team".into(), "ops".into())],
        inhibited_by: inhibited_by.iter().map(|id| (*id).into()).collect(),
        actions: Arc::default(),
    };
    vec![
        rule("boiler", &["silent", "uplink"]),
        rule("silent", &["uplink"]),
        rule("uplink", &[]),
        rule("pressure", &[]),
    ]
}

fn policy(text: &str) -> Arc<Policy> {
    let file: toml::Table = text.parse().expect("TOML");
    let alerting = file.get("alerting").and_then(toml::Value::as_table);
    let mutes: Vec<_> = file
        .get("mute")
        .and_then(toml::Value::as_array)
        .map(|list| list.iter().filter_map(|mute| mute.as_table().cloned()).collect())
        .unwrap_or_default();
    Arc::new(Policy::read(alerting, &mutes, "rules.toml").expect("a policy"))
}

fn voice() -> Voice {
    Voice { gateway: "site-7".into(), source: "/gateways/site-7".into(), type_prefix: "io.penstock".into() }
}

impl World {
    fn new(text: &str) -> Self {
        let (policy, rules) = (policy(text), Arc::new(Rulebook::new(rules())));
        Self {
            lifecycle: Lifecycle::new(voice(), Arc::clone(&policy), Arc::clone(&rules)),
            rows: BTreeMap::new(),
            told: Vec::new(),
            done: Vec::new(),
            complaints: Vec::new(),
            counts: Counts::default(),
            now: NOON,
            seq: 1000,
            policy,
            rules,
            tenant: Some("acme"),
        }
    }

    /// Commits what a call led to.
    fn commit(&mut self, call: impl FnOnce(&mut Lifecycle, &mut Effects)) {
        let mut out = Effects { counts: self.counts, ..Effects::default() };
        call(&mut self.lifecycle, &mut out);
        self.lifecycle.flush(&mut out);
        for (key, value) in out.table.changes() {
            assert_eq!(key[0], 19);
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        assert_eq!(out.entries.entries(Lane::Alerts).count(), out.entries.count() as usize);
        for (_, record) in out.entries.entries(Lane::Alerts) {
            match Reaction::of(&record) {
                None => self.told.push(strict::check(record.device, record.payload)),
                Some(reaction) => {
                    let reaction = reaction.expect("a reaction");
                    assert_eq!((record.device, record.received_ms), (&*reaction.device, reaction.decided_ms));
                    self.done.push(Done::of(&reaction));
                }
            }
        }
        self.counts = out.counts;
        self.complaints.append(&mut out.complaints);
    }

    fn edge(&mut self, rule: u16, device: &str, metric: Option<&str>, change: Change) {
        let (tenant, now) = (self.tenant, self.now);
        let edge = Edge {
            subject: Subject { rule, device, metric },
            change,
            observed: Some(106.5),
            at_ms: now - 100,
            tenant,
            site: Some("paris"),
            class: Some("boiler"),
            stream: Some("fast"),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        };
        self.commit(|lifecycle, out| lifecycle.take(&edge, now, out));
    }

    fn raised(&mut self, severity: Severity) -> Change {
        self.seq += 1;
        let episode =
            Position { log: LogId(0xc0ff_ee12), epoch: Epoch(3), lane: Lane::Telemetry, seq: Seq(self.seq) };
        let started_ms = self.now - 5000;
        Change::Raised { severity, threshold: Some(105.0), score: None, episode, started_ms }
    }

    fn raise(&mut self, rule: u16, device: &str, severity: Severity) {
        let change = self.raised(severity);
        self.edge(rule, device, Some("temp_c"), change);
    }

    fn severity(&mut self, rule: u16, device: &str, severity: Severity) {
        self.edge(rule, device, Some("temp_c"), Change::Severity { severity, threshold: Some(110.0) });
    }

    fn clear(&mut self, rule: u16, device: &str) {
        self.edge(rule, device, Some("temp_c"), Change::Cleared);
    }

    /// Lets time pass, and has everything done that is due, when it is due.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        let mut calls = 0;
        while let Some(due) = self.lifecycle.next_due_ms().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let now = self.now;
            self.commit(|lifecycle, out| lifecycle.advance(now, out));
            calls += 1;
            assert!(calls < 100_000, "it is never done");
        }
        self.now = end;
    }

    /// The process dies, and another begins with the table.
    fn restart(&mut self) {
        let (policy, rules) = (Arc::clone(&self.policy), Arc::clone(&self.rules));
        self.lifecycle = Lifecycle::new(voice(), policy, rules);
        for (key, value) in &self.rows {
            self.lifecycle.load(key, value).expect("a row");
        }
    }

    fn replace(&mut self, text: &str, rules: Vec<RuleFacts>) {
        (self.policy, self.rules) = (policy(text), Arc::new(Rulebook::new(rules)));
        let (policy, rules, now) = (Arc::clone(&self.policy), Arc::clone(&self.rules), self.now);
        self.commit(|lifecycle, out| lifecycle.replace(policy, rules, now, out));
    }

    /// What was told since the last look, each event on a line.
    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        let told: Vec<_> = std::mem::take(&mut self.told).iter().map(line).collect();
        assert_eq!(told, expected);
    }
}

/// `raised boiler dev-1 warning :1`, and what else is remarkable.
fn line(event: &Value) -> String {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut words = vec![text(&data["state"])];
    if event["type"] == "io.penstock.alert.storm.v1" {
        words.insert(0, "storm".to_owned());
        let group = ["tenant", "site", "class", "rule", "severity"].map(|facet| text(&data["group"][facet]));
        words.extend(group.into_iter().filter(|value| !value.is_empty()));
        for key in ["open", "raised", "untracked"] {
            if data[key] != 0 || key == "open" {
                words.push(format!("{key}={}", data[key]));
            }
        }
    } else {
        words.extend([text(&data["rule"]["id"]), text(&data["origin"]["device"])]);
    }
    words.push(text(&data["severity"]));
    words.push(format!(":{}", data["transition"]));
    if let Some(reason) = data["reason"].as_str() {
        words.push(reason.to_owned());
    }
    if data["suppressed"] != 0 {
        words.push(format!("+{}", data["suppressed"]));
    }
    words.join(" ")
}
