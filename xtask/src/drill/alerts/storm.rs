//! Thousands of devices breach their limits within a second: what comes of it at the other end.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testkit::alerts::{Cap, Conditions, Found, Terms, Truth, judge, weigh_storm};
use testkit::cloud::event_grid::Entry;
use testkit::gateway::{Config, Gateway};

use super::finding::Finding;
use super::fleet::{self, Breaches, Fleet, Load};
use super::scene::{Scene, look, settle, uplink};
use crate::drill::unix_ms;
use crate::signals;

/// What is asked, and what the rules file says.
const TERMS: Terms = Terms {
    storm_at: 50,
    storm_within_ms: 5000,
    anew_ms: 5000,
    critical: Cap { events_per_s: 400, burst: 1000 },
    others: Cap { events_per_s: 200, burst: 500 },
    singles: Cap { events_per_s: 50, burst: 200 },
    // The gateway looks for what is due five times a second, and batches are bounded by a round trip.
    slack_ms: 1000,
    critical_wait_ms: 2000,
};
/// Shares of the devices that breach the rule of each metric.
const SHARES: [(&str, u8); 3] = [("temperature", 40), ("vibration", 35), ("pressure", 25)];
/// All are connected and calm for so long, in seconds, before it begins.
const CALM_S: u32 = 3;
/// From the last breach that ends to the end of the storm and of the fleet, in seconds.
const AFTER_S: u32 = 6;
/// A storm that comes in more than this, in milliseconds, is none.
const WITHIN_MS: u64 = 3000;
/// What the gateway's memory may grow by.
const GROWTH_BYTES_MAX: u64 = 50_000_000;
/// How long nothing may happen before it counts as over.
const QUIET: Duration = Duration::from_secs(1);
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

/// The size of a storm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) devices: u32,
    pub(super) seed: u64,
}

impl Plan {
    /// When it begins, in seconds since the start of the fleet.
    const fn start_s(self) -> u32 {
        Load::ramp_s(self.devices) + CALM_S
    }

    /// How long each breach lasts: until all critical alerts have left.
    const fn length_s(self) -> u32 {
        6 + self.devices / 1500
    }

    fn load(self) -> Load {
        let breaches = SHARES.map(|(metric, percent)| Breaches {
            metric,
            percent,
            start: self.start_s().into(),
            spread: 0.0,
            length: self.length_s().into(),
        });
        // Every device speaks once a second, so that all that breach do so within a second.
        Load {
            devices: self.devices,
            rate: self.devices,
            seconds: self.start_s() + 1 + self.length_s() + AFTER_S,
            seed: self.seed,
            breaches: breaches.to_vec(),
            measured: true,
        }
    }
}

fn rules() -> String {
    let Terms { storm_at, anew_ms, others, singles, .. } = TERMS;
    // Critical alerts have a bucket of their own, twice as fast and as large.
    format!(
        "[alerting]\ngroup_by = [\"rule\"]\ngroup_wait = \"2s\"\ngroup_interval = \"{}s\"\n\
         storm = {{ when_open_in_group = {storm_at} }}\n\
         max_rate = {{ events_per_s = {}, burst = {} }}\ntenant_rate = {{ events_per_s = {}, burst = {} }}\n{}",
        anew_ms / 1000,
        others.events_per_s,
        others.burst,
        singles.events_per_s,
        singles.burst,
        fleet::RULES
    )
}

/// The gateway's memory over time: Unix milliseconds and bytes.
type Memory = Vec<(u64, u64)>;

pub(super) fn play(plan: Plan, folder: &Path) -> Result<Finding> {
    let scene = Scene::set(folder, &rules())?;
    let home = folder.join("gateway");
    let room = plan.devices.saturating_mul(2).max(1000);
    let config = uplink(&scene, Config::default().set("mqtt", &format!("connections_max = {room}")));
    let mut gateway = Gateway::start(&home, scene.config(&home, config)?)?;
    let (mut fleet, start_ms) = Fleet::start(&plan.load(), &mut gateway, folder)?;
    let mut memory = Memory::new();
    while fleet.running()? {
        memory.push((unix_ms()?, gateway.process().usage()?.rss_bytes));
        look()?;
    }
    let (report, truth) = fleet.end()?;
    settle(&mut gateway, &scene.cloud, QUIET, SETTLE_WITHIN)?;
    let durable_ms = fleet::durable_p99_ms(&gateway)?;
    let entries = scene.cloud.control().event_grid().all_events_after(0)?;
    gateway.stop()?;
    signals::check()?;
    let found = found(&truth, &entries);
    let mut reasons = fleet::broken(&report);
    reasons.extend(unfinished(&truth));
    reasons.extend(found.reasons.iter().cloned());
    reasons.extend(account(&truth, &entries, unix_ms()?));
    reasons.extend(controls(&truth, &entries));
    let begin_ms = start_ms + u64::from(plan.start_s()) * 1000;
    let (before, peak, after) = growth(&memory, begin_ms);
    let growth = peak.saturating_sub(before);
    if growth > GROWTH_BYTES_MAX {
        reasons.push(format!("the gateway's memory grew by {growth} bytes, allowed are {GROWTH_BYTES_MAX}"));
    }
    let summary = format!(
        "{} devices in {} ms; {} of {} critical alerts arrived, p50 {} ms, p99 {} ms, {} ms beyond their cap; {}; \
         durable p99 {} ms; {} events; memory {} MB, at most {} MB more, {} MB in the end; {} messages acknowledged, {} not",
        found.breaches,
        found.within_ms,
        found.delivered,
        found.criticals,
        found.wait_p50_ms.unwrap_or_default(),
        found.wait_p99_ms.unwrap_or_default(),
        found.beyond_cap_ms,
        groups(&found),
        durable_ms.map_or_else(|| "?".to_owned(), |ms| format!("<= {ms:.0}")),
        entries.len(),
        before / 1_000_000,
        growth / 1_000_000,
        after / 1_000_000,
        report.acked,
        report.unacked
    );
    let details = json!({
        "devices": plan.devices, "found": found, "events": entries.len(), "acked": report.acked,
        "unacked": report.unacked, "skipped": report.skipped, "ack_ms": report.ack_ms,
        "cpu_us_per_message": report.gateway_cpu_us_per_message, "alert_durable_p99_ms": durable_ms,
        "rss_before_bytes": before, "rss_peak_bytes": peak, "rss_after_bytes": after,
    });
    Ok(Finding { name: "storm", summary, details, reasons })
}

/// Holds the critical alerts, the storms and the caps against what the devices did.
fn found(truth: &Truth, entries: &[Entry]) -> Found {
    let mut found = weigh_storm(&fleet::breaches(truth), &fleet::arrivals(entries), &TERMS);
    if found.within_ms > WITHIN_MS {
        let within = found.within_ms;
        found.reasons.push(format!("the devices took {within} ms to breach, so that this was no storm"));
    }
    found
}

/// Whether the machine was fast enough: a storm whose devices never say that they are well again has no end.
fn unfinished(truth: &Truth) -> Option<String> {
    let count = truth.faults.iter().filter(|fault| fault.end_ms.is_none()).count();
    (count > 0)
        .then(|| format!("{count} devices are too slow to come back, so that this shows nothing of the end"))
}

/// The same evidence, falsified: a judge that finds nothing in it proves nothing.
fn controls(truth: &Truth, entries: &[Entry]) -> Vec<String> {
    let kind =
        |entry: &Entry, word: &str| entry.event["type"].as_str().is_some_and(|kind| kind.ends_with(word));
    let critical = |entry: &Entry| kind(entry, ".raised.v1") && entry.event["severity"] == "critical";
    let mut withheld = entries.to_vec();
    withheld.extract_if(.., |entry| critical(entry)).next();
    let mut again = entries.to_vec();
    if let Some(mut storm) = entries.iter().rfind(|entry| kind(entry, ".storm.v1")).cloned() {
        storm.event["id"] = "s1-control:1".into();
        storm.event["data"]["alertId"] = "s1-control".into();
        again.push(storm);
    }
    let falsified = [("a critical alert that is withheld", withheld), ("a second storm of a group", again)];
    let honest = found(truth, entries).reasons;
    let missed = falsified.into_iter().filter(|(_, entries)| found(truth, entries).reasons == honest);
    missed
        .map(|(what, _)| format!("control: {what} was not found, so that this drill proves nothing"))
        .collect()
}

/// What else must be true of alerts and what caused them.
fn account(truth: &Truth, entries: &[Entry], until_ms: u64) -> Vec<String> {
    let events: Vec<_> = entries.iter().map(|entry| entry.event.clone()).collect();
    let conditions = Conditions {
        slack_ms: 1000,
        after_ms: 3000,
        // A storm may have told their ends; its own end is looked at.
        resolve_ms: u64::MAX,
        until_ms,
        false_alerts_max: 0,
    };
    judge(truth, &events, &fleet::expectations(), &conditions).reasons
}

fn groups(found: &Found) -> String {
    let group = |(rule, group): (&String, &testkit::alerts::Group)| {
        let after = group.storm_after_ms.map_or_else(|| "never".to_owned(), |ms| format!("after {ms} ms"));
        format!(
            "{rule}: {} alerts, {} singly, {} storm {after}, {} events",
            group.breaches, group.singles, group.storms, group.storm_events
        )
    };
    found.groups.iter().map(group).collect::<Vec<_>>().join("; ")
}

/// Memory before a moment, the most after it, and in the end.
fn growth(memory: &Memory, begin_ms: u64) -> (u64, u64, u64) {
    let before = memory.iter().take_while(|(at_ms, _)| *at_ms < begin_ms).last();
    let peak = memory.iter().filter(|(at_ms, _)| *at_ms >= begin_ms).map(|(_, bytes)| *bytes).max();
    let bytes = |sample: Option<&(u64, u64)>| sample.map(|(_, bytes)| *bytes).unwrap_or_default();
    (bytes(before), peak.unwrap_or_default(), bytes(memory.last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_file_says_what_is_asked() {
        let table: toml::Table = rules().parse().unwrap();
        let alerting = &table["alerting"];
        assert_eq!(alerting["storm"]["when_open_in_group"].as_integer(), Some(50));
        assert_eq!(alerting["group_interval"].as_str(), Some("5s"));
        let Terms { critical, others, .. } = TERMS;
        assert_eq!((critical.events_per_s, critical.burst), (2 * others.events_per_s, 2 * others.burst));
        assert_eq!(table["rule"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn every_device_breaches_once_while_all_criticals_can_leave() {
        assert_eq!(SHARES.iter().map(|(_, percent)| u32::from(*percent)).sum::<u32>(), 100);
        for devices in [1000, 10_000, 15_000] {
            let plan = Plan { devices, seed: 1 };
            let criticals = u64::from(devices) / 4;
            let drained = criticals.saturating_sub(TERMS.critical.burst) / TERMS.critical.events_per_s;
            assert!(drained + 2 <= plan.length_s().into(), "{devices}");
        }
    }

    #[test]
    fn a_fleet_that_is_too_slow_is_told() {
        let fault = |end_ms| testkit::alerts::Injected {
            fault: 1,
            device: "d".to_owned(),
            metric: None,
            kind: testkit::alerts::Kind::Shift,
            magnitude: None,
            deviations: None,
            first: 1,
            last: 2,
            taken_ms: 1,
            begin_ms: 1,
            end_ms,
            period_ms: 1,
            promised: true,
            sent: 2,
            acked: None,
        };
        let truth =
            |ends: &[Option<u64>]| Truth { run: None, faults: ends.iter().copied().map(fault).collect() };
        assert_eq!(unfinished(&truth(&[Some(2), Some(3)])), None);
        assert!(unfinished(&truth(&[Some(2), None])).is_some_and(|reason| reason.starts_with("1 devices")));
    }

    #[test]
    fn controls_that_show_nothing_are_told() {
        assert_eq!(controls(&Truth::default(), &[]).len(), 2);
    }

    #[test]
    fn growth_is_from_the_moment_before_to_the_peak() {
        let memory = vec![(1, 50), (2, 60), (3, 70), (4, 90), (5, 65)];
        assert_eq!(growth(&memory, 3), (60, 90, 65));
        assert_eq!(growth(&Memory::new(), 3), (0, 0, 0));
    }
}
