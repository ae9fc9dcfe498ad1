//! A fleet that breaches limits when it is told to, and writes down when it did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::alerts::{Arrival, Breach, Expectation, Injected, Kind, Truth};
use testkit::cloud::event_grid::Entry;
use testkit::gateway::Gateway;
use testkit::process::{self, Process};
use testkit::report::Report;

use crate::drill::metrics;
use crate::signals;

/// One rule for each metric, each of another severity. What devices say without a fault is far below the limits.
pub(super) const RULES: &str = r#"
[[rule]]
id = "hot"
metric = "temperature"
raise = "> 45"
clear = "< 40"
severity = "warning"

[[rule]]
id = "rough"
metric = "vibration"
raise = "> 25"
clear = "< 20"
severity = "info"

[[rule]]
id = "overpressure"
metric = "pressure"
raise = "> 130"
clear = "< 125"
severity = "critical"
"#;
/// Metric, the rule that sees a breach of it, and whether that is a critical one.
pub(super) const RULE_OF: [(&str, &str, bool); 3] =
    [("temperature", "hot", false), ("vibration", "rough", false), ("pressure", "overpressure", true)];
/// How far a breach leaves what is usual.
const BREACH: f64 = 50.0;
/// Devices that begin to connect per second.
const CONNECT_PER_SECOND: u32 = 2000;
/// Longest wait for a fleet's first words.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
/// Longest time from the end of the load to the end of the fleet.
const END_WITHIN: Duration = Duration::from_secs(120);

/// What a fleet does.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) devices: u32,
    /// Messages per second, of all devices.
    pub(super) rate: u32,
    pub(super) seconds: u32,
    pub(super) seed: u64,
    pub(super) breaches: Vec<Breaches>,
    /// Whether the fleet looks what its messages cost the gateway, which must live as long as the fleet.
    pub(super) measured: bool,
}

/// Devices that go over the limit of a metric for a while, each once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Breaches {
    pub(super) metric: &'static str,
    /// Share of the devices.
    pub(super) percent: u8,
    /// Since the start of the fleet.
    pub(super) start: f64,
    /// They begin so long one after the other.
    pub(super) spread: f64,
    pub(super) length: f64,
}

/// A fleet at work; ended when dropped.
pub(super) struct Fleet {
    process: Process,
    seconds: u32,
    truth: PathBuf,
    report: PathBuf,
    log: PathBuf,
}

// === impl Load ===

impl Load {
    /// How long it takes until all are connected, in whole seconds.
    pub(super) const fn ramp_s(devices: u32) -> u32 {
        devices.div_ceil(CONNECT_PER_SECOND)
    }

    fn profile(&self) -> String {
        let mut text = format!("connect_per_second = {CONNECT_PER_SECOND}\nrate_spread_percent = 0\n");
        for Breaches { metric, percent, start, spread, length } in &self.breaches {
            text.push_str(&format!(
                "\n[[fault]]\nkind = \"shift\"\nmetric = \"{metric}\"\nabsolute = {BREACH:.1}\npercent = {percent}\n\
                 start_seconds = {start:.3}\nspread_seconds = {spread:.3}\nlength_seconds = {length:.3}\n"
            ));
        }
        text
    }
}

// === impl Fleet ===

impl Fleet {
    /// Starts a fleet with its files in `folder`, and waits until it begins. Says when that was, in Unix milliseconds.
    pub(super) fn start(load: &Load, gateway: &mut Gateway, folder: &Path) -> Result<(Self, u64)> {
        let profile = folder.join("fleet.toml");
        fs::write(&profile, load.profile()).with_context(|| profile.display().to_string())?;
        let [truth, report, log] = ["truth.jsonl", "fleet.json", "fleet.log"].map(|name| folder.join(name));
        let mut command = Command::new(process::find("firmware-sim")?);
        command.args(["run", "--progress", "plain", "--qos0", "0", "--qos2", "0", "--v5", "50"]);
        command.args(["--allow", "resent"]);
        let mut option = |name: &str, value: String| {
            command.args([format!("--{name}"), value]);
        };
        option("target", format!("mqtt://{}", gateway.mqtt()));
        option("devices", load.devices.to_string());
        option("rate", load.rate.to_string());
        option("seconds", load.seconds.to_string());
        option("seed", load.seed.to_string());
        option("profile", profile.to_string_lossy().into_owned());
        option("truth", truth.to_string_lossy().into_owned());
        option("report", report.to_string_lossy().into_owned());
        if load.measured {
            option("gateway-pid", gateway.process().pid().to_string());
        }
        let process = Process::spawn("firmware-sim", &mut command, &log)?;
        let mut fleet = Self { process, seconds: load.seconds, truth, report, log };
        let end = signals::now() + BEGIN_WITHIN;
        loop {
            // The file may not be there yet.
            let run = Truth::read(&fleet.truth).ok().and_then(|truth| truth.run);
            if let Some(run) = run {
                return Ok((fleet, run.start_ms));
            }
            if !fleet.process.running()? || signals::now() > end {
                bail!("the fleet does not begin; its last words:\n{}", fleet.process.stderr_tail());
            }
            super::scene::look()?;
        }
    }

    pub(super) fn running(&mut self) -> Result<bool> {
        Ok(self.process.running()?)
    }

    /// Waits for its end; gives what it knows.
    pub(super) fn end(&mut self) -> Result<(Report, Truth)> {
        let limit = Duration::from_secs(self.seconds.into()) + END_WITHIN;
        let status = self.process.wait(limit)?;
        let text = fs::read_to_string(&self.report);
        let text = text.with_context(|| {
            format!("the fleet ended with {status}; its last words:\n{}", self.process.stderr_tail())
        })?;
        let report = serde_json::from_str(&text).context("the fleet's report")?;
        Ok((report, Truth::read(&self.truth)?))
    }

    /// Messages acknowledged per second, each with its second since the start.
    pub(super) fn paces(&self) -> Result<Vec<(f64, f64)>> {
        let text = fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(text.lines().filter_map(pace).collect())
    }
}

/// A line of its progress: ` 12 s  connected 5/5  sent 100/s  acked 99/s  p99 …`.
fn pace(line: &str) -> Option<(f64, f64)> {
    let (second, rest) = line.trim_start().split_once(" s  connected ")?;
    let (_, acked) = rest.split_once("  acked ")?;
    let (acked, _) = acked.split_once("/s")?;
    Some((second.parse().ok()?, acked.parse().ok()?))
}

/// What the fleet wrote down, as breaches of rules.
pub(super) fn breaches(truth: &Truth) -> Vec<Breach<'_>> {
    let breach = |fault| {
        let (rule, critical) = rule_of(fault)?;
        Some(Breach { device: &fault.device, rule, critical, at_ms: fault.begin_ms })
    };
    truth.faults.iter().filter_map(breach).collect()
}

/// What arrived, with when.
pub(super) fn arrivals(entries: &[Entry]) -> Vec<Arrival<'_>> {
    entries.iter().map(|entry| Arrival { at_ms: entry.at_ms, event: &entry.event }).collect()
}

/// 99 percent of the alerts were durable within this time after the message that showed it, as the gateway says: in
/// milliseconds, to the next bound of its histogram.
pub(super) fn durable_p99_ms(gateway: &Gateway) -> Result<Option<f64>> {
    let metrics = gateway.health("/metrics")?.context("the gateway refuses to tell its metrics")?;
    let seconds = metrics::percentile(&metrics, "penstock_alerts_latency_seconds", 0.99);
    Ok(seconds.map(|seconds| seconds * 1000.0))
}

/// The rule that sees a breach, and whether it is a critical one.
fn rule_of(injected: &Injected) -> Option<(&'static str, bool)> {
    let of = |(metric, ..): &&(&str, &str, bool)| injected.metric.as_deref() == Some(*metric);
    RULE_OF.iter().find(of).map(|(_, rule, critical)| (*rule, *critical))
}

/// Every breach is to be seen by its rule.
pub(super) fn expectations() -> Vec<Expectation<'static>> {
    const RULES: [&[&str]; 3] = [&["hot"], &["rough"], &["overpressure"]];
    let mut all = Vec::new();
    for ((metric, ..), rules) in RULE_OF.into_iter().zip(RULES) {
        all.push(Expectation {
            kind: Kind::Shift,
            metric: Some(metric),
            rules,
            within_ms: 10_000,
            within_readings: 3,
            found_percent_min: 100,
        });
    }
    all
}

/// What must be true of every fleet.
pub(super) fn broken(report: &Report) -> Vec<String> {
    let wrong = [
        (report.unacked, "messages were never acknowledged"),
        (report.refused, "messages were refused"),
        (report.lost.unwrap_or_default(), "messages that were acknowledged are lost"),
    ];
    let wrong = wrong.iter().filter(|(count, _)| *count > 0);
    let mut reasons: Vec<String> = wrong.map(|(count, what)| format!("{count} {what}")).collect();
    if reasons.is_empty() {
        reasons.clone_from(&report.reasons);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_stands_in_the_lines_of_progress() {
        let line = "   12 s  connected 5/5  sent 100/s  acked 99/s  p99 2.5 ms  reconnects 0";
        assert_eq!(pace(line), Some((12.0, 99.0)));
        assert_eq!(pace("firmware-sim: nothing was sent"), None);
    }

    #[test]
    fn the_profile_has_every_breach() {
        let breaches = Breaches { metric: "pressure", percent: 25, start: 9.0, spread: 0.0, length: 6.5 };
        let load =
            Load { devices: 1, rate: 1, seconds: 1, seed: 1, breaches: vec![breaches; 2], measured: false };
        let table: toml::Table = load.profile().parse().unwrap();
        let faults = table["fault"].as_array().unwrap();
        assert_eq!(faults.len(), 2);
        assert_eq!(
            (faults[1]["percent"].as_integer(), faults[1]["length_seconds"].as_float()),
            (Some(25), Some(6.5))
        );
    }

    #[test]
    fn there_is_a_rule_for_every_metric() {
        let table: toml::Table = RULES.parse().unwrap();
        for (rule, (metric, id, critical)) in table["rule"].as_array().unwrap().iter().zip(RULE_OF) {
            assert_eq!((rule["metric"].as_str(), rule["id"].as_str()), (Some(metric), Some(id)));
            assert_eq!(rule["severity"].as_str() == Some("critical"), critical);
        }
        assert!(
            expectations()
                .iter()
                .zip(RULE_OF)
                .all(|(one, (metric, id, _))| { one.metric == Some(metric) && one.rules == [id] })
        );
    }

    #[test]
    fn a_message_that_is_not_acknowledged_is_told() {
        assert_eq!(broken(&Report::default()), [""; 0]);
        let report = Report { unacked: 3, reasons: vec!["x".to_owned()], ..Report::default() };
        assert_eq!(broken(&report), ["3 messages were never acknowledged"]);
        let report = Report { reasons: vec!["x".to_owned()], ..Report::default() };
        assert_eq!(broken(&report), ["x"]);
    }
}
