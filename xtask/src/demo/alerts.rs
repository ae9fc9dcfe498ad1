//! The alerts of the demo: its rules, the faults that the fleet has, which rules have to see them, and the account at the
//! end.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use testkit::alerts::{Conditions, Expectation, Kind, Truth, Verdict, judge};
use testkit::cloud::Cloud;
use testkit::cloud::event_grid::EventGrid;
use testkit::gateway::Gateway;

use super::Arguments;

const RULES: &str = include_str!("../../../deploy/rules/demo.toml");
/// The line of the rules that follows the pace of the fleet.
const EXPECT_EVERY: &str = "expect_every = \"1s\"\n";
/// How often a device may be missed until it counts as silent, as the rules say.
const MISSED: u64 = 2;
/// Share of the devices that have each fault, in percent.
const PERCENT: u8 = 2;

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    /// How long the load lasts, in seconds.
    seconds: u64,
    /// How often a device speaks at the least, in seconds.
    every: u64,
    kills: u32,
}

/// Events of alerts that have arrived so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// The number of the last one that was looked at.
    last: u64,
    pub(super) events: Vec<Value>,
    names: BTreeSet<(String, String)>,
    pub(super) raised: u64,
    pub(super) resolved: u64,
    pub(super) storms: u64,
}

/// How the gateway stands with its alerts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Entries of lane alerts, since the beginning of the outbox.
    pub(super) entries: u64,
    /// Messages that the rules have not looked at.
    pub(super) lag: u64,
    /// Alerts that are open.
    pub(super) open: u64,
}

/// What came of the alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) verdict: Verdict,
    pub(super) raised: u64,
    pub(super) resolved: u64,
    /// Entries of lane alerts, and how many different events Event Grid has.
    pub(super) entries: u64,
    pub(super) arrived: u64,
    pub(super) open: u64,
}

// === impl Script ===

impl Script {
    pub(super) fn of(arguments: &Arguments) -> Self {
        // The slowest device has half of the average pace.
        let every = (4 * u64::from(arguments.devices)).div_ceil(u64::from(arguments.rate));
        Self { seconds: arguments.seconds.into(), every, kills: arguments.kill_gateway }
    }

    /// The rules file.
    pub(super) fn rules(self) -> String {
        RULES.replace(EXPECT_EVERY, &format!("expect_every = \"{}s\"\n", self.every))
    }

    /// How long a device may be silent, in seconds.
    const fn patience(self) -> u64 {
        self.every * MISSED
    }

    /// What is wrong with the fleet, as its profile says it: what fits into the load.
    pub(super) fn faults(self) -> String {
        let faults = [
            ("shift", "metric = \"temperature\"\nabsolute = 25.0", 2),
            ("spike", "metric = \"pressure\"\nabsolute = 30.0", 0),
            ("drift", "metric = \"vibration\"\nabsolute = 4.0", 3),
            ("stuck", "metric = \"pressure\"", 3),
            ("dropout", "", 2 * self.patience()),
        ];
        let start = self.seconds.div_ceil(8);
        let mut text = String::new();
        for (kind, what, length) in faults {
            // The last second is for the ends.
            let Some(spread) = self.seconds.checked_sub(start + length + 1) else { continue };
            let length = if length > 0 { format!("length_seconds = {length}.0\n") } else { String::new() };
            text.push_str(&format!(
                "\n[[fault]]\nkind = \"{kind}\"\n{what}\npercent = {PERCENT}\nstart_seconds = {start}.0\nspread_seconds = {spread}.0\n{length}"
            ));
        }
        text
    }

    /// Holds what arrived against the faults that were sent. Rules that must see a fault fail the demo if they do not; a
    /// false alert is counted.
    pub(super) fn judge(self, truth: &Truth, arrived: &Arrived) -> Verdict {
        let conditions = Conditions {
            slack_ms: 1000,
            after_ms: 5000,
            // At the end of the load many are open, since every device falls silent.
            resolve_ms: u64::MAX,
            until_ms: 0,
            false_alerts_max: u64::MAX,
        };
        let silence_ms = (self.patience() + 3) * 1000;
        let see = |kind, metric, rules, within_ms, found_percent_min| Expectation {
            kind,
            metric,
            rules,
            within_ms,
            within_readings: 10,
            found_percent_min,
        };
        // A gateway that was away waits for devices anew, and may miss a silence.
        let silent = if self.kills == 0 { 100 } else { 0 };
        let expectations = [
            see(Kind::Shift, Some("temperature"), &["hot"], 5000, 100),
            see(Kind::Spike, Some("pressure"), &["overpressure"], 5000, 100),
            see(Kind::Drift, Some("vibration"), &["rough"], 8000, 100),
            see(Kind::Stuck, Some("pressure"), &["stuck-sensor"], 5000, 0),
            see(Kind::Dropout, None, &["silent"], silence_ms, silent),
        ];
        judge(truth, &arrived.events, &expectations, &conditions)
    }
}

// === impl Arrived ===

impl Arrived {
    /// Takes what came since the last call.
    pub(super) fn follow(&mut self, event_grid: EventGrid<'_>) -> Result<()> {
        for entry in event_grid.all_events_after(self.last).context("the events of the stand-in")? {
            self.last = entry.number;
            self.take(entry.event);
        }
        Ok(())
    }

    fn take(&mut self, event: Value) {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        if self.names.insert((text("source"), text("id"))) {
            let kind = text("type");
            let told = kind.rsplit_once(".alert.").map(|(_, told)| told);
            self.raised += u64::from(told == Some("raised.v1"));
            self.resolved += u64::from(told == Some("resolved.v1"));
            self.storms += u64::from(told == Some("storm.v1"));
        }
        self.events.push(event);
    }

    /// Different events.
    pub(super) fn different(&self) -> u64 {
        self.names.len() as u64
    }
}

// === impl Standing ===

impl Standing {
    /// Asks the gateway.
    pub(super) fn of(gateway: &Gateway) -> Result<Self> {
        let status = gateway.admin("/api/v1/status")?.context("the gateway refuses to tell its status")?;
        Self::read(&serde_json::from_str(&status).context("its status is not JSON")?)
    }

    fn read(status: &Value) -> Result<Self> {
        let number = |pointer: &str| {
            let value = status.pointer(pointer).and_then(Value::as_u64);
            value.with_context(|| format!("the gateway's status has no number at {pointer}"))
        };
        let lanes = status.pointer("/outbox/lanes").and_then(Value::as_array).context("no lanes")?;
        let lane = lanes.iter().find(|lane| lane["lane"] == "alerts");
        let Some(next) = lane.and_then(|lane| lane["next"].as_u64()) else {
            bail!("the gateway's status has no lane alerts")
        };
        // Positions begin at 1.
        let entries = next.saturating_sub(1);
        Ok(Self { entries, lag: number("/alerts/lag_messages")?, open: number("/alerts/open")? })
    }
}

// === impl Account ===

impl Account {
    /// What was promised and not kept, one sentence each.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut reasons = self.verdict.reasons.clone();
        if self.entries != self.arrived {
            reasons.push(format!(
                "lane alerts has {} entries, and Event Grid {} different events",
                self.entries, self.arrived
            ));
        }
        reasons
    }

    /// Rows for people: what arrived, and what became of each kind of fault.
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let counts = &self.verdict.counts;
        let mut rows = vec![(
            "alerts".to_owned(),
            format!(
                "{} raised, {} resolved, {} open at the end; {} storms, {} false, {} events repeated",
                self.raised, self.resolved, self.open, counts.storms, counts.false_alerts, counts.duplicated
            ),
        )];
        for (kind, seen) in &counts.faults {
            let delay = match (seen.delay_p50_ms, seen.delay_max_ms) {
                (Some(half), Some(most)) => format!("; after {half} ms, at most {most} ms"),
                _ => String::new(),
            };
            rows.push((
                format!("faults: {kind}"),
                format!(
                    "{} found of {}, {} missed, {} in a storm, {} not provable{delay}",
                    seen.found, seen.injected, seen.missed, seen.summarised, seen.unproven
                ),
            ));
        }
        rows
    }
}

/// Asks the stand-in and the gateway until they agree and nothing is left to look at, or `patience` says that it is enough.
pub(super) fn settled(
    gateway: &Gateway,
    cloud: &Cloud,
    arrived: &mut Arrived,
    mut patience: impl FnMut() -> Result<bool>,
) -> Result<Standing> {
    loop {
        // In this order: what is in the lane now must have arrived by then or later.
        let standing = Standing::of(gateway)?;
        arrived.follow(cloud.control().event_grid())?;
        let even = standing.lag == 0 && standing.entries == arrived.different();
        if even || !patience()? {
            return Ok(standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use testkit::alerts::{Injected, Run};

    use super::*;

    fn script(devices: u32, rate: u32, seconds: u32, kill_gateway: u32) -> Script {
        let arguments =
            Arguments { devices, rate, seconds, commands: 0, kill_gateway, report: None, seed: None };
        Script::of(&arguments)
    }

    #[test]
    fn the_rules_follow_the_pace_of_the_fleet() {
        assert_eq!(RULES.matches(EXPECT_EVERY).count(), 1);
        assert_eq!(RULES.matches(&format!("missed = {MISSED}\n")).count(), 1);
        assert_eq!(script(1000, 10_000, 30, 0).rules(), RULES);
        assert!(script(1000, 1000, 30, 0).rules().contains("expect_every = \"4s\"\n"));
    }

    #[test]
    fn faults_fit_into_the_load() {
        let kinds = |script: Script| script.faults().matches("[[fault]]").count();
        assert_eq!(kinds(script(1000, 10_000, 30, 0)), 5);
        assert_eq!(kinds(script(200, 10_000, 8, 0)), 5);
        assert_eq!(kinds(script(1000, 1000, 8, 0)), 4, "a silence takes longer");
        assert_eq!(kinds(script(1000, 10_000, 1, 0)), 0);
        let text = script(1000, 10_000, 30, 0).faults();
        assert!(text.contains("kind = \"dropout\"\n\npercent = 2\nstart_seconds = 4.0\nspread_seconds = 21.0\nlength_seconds = 4.0\n"), "{text}");
        toml::from_str::<toml::Table>(&text).unwrap();
    }

    fn event(word: &str, transition: u64) -> Value {
        json!({
            "source": "/gateways/demo", "id": format!("a1-0f:{transition}"), "type": format!("io.penstock.alert.{word}.v1"),
            "time": format!("1970-01-01T00:00:1{transition}Z"), "deviceid": "d", "ruleid": "hot",
            "data": { "alertId": "a1-0f", "transition": transition, "observed": { "metric": "temperature" } }
        })
    }

    fn shift() -> Injected {
        Injected {
            fault: 1,
            device: "d".to_owned(),
            metric: Some("temperature".to_owned()),
            kind: Kind::Shift,
            magnitude: Some(25.0),
            deviations: None,
            first: 10,
            last: 30,
            taken_ms: 10_500,
            begin_ms: 10_500,
            end_ms: Some(12_500),
            period_ms: 100,
            promised: true,
            sent: 21,
            acked: Some(21),
        }
    }

    fn account(events: &[Value], entries: u64) -> Account {
        let mut arrived = Arrived::default();
        events.iter().cloned().for_each(|event| arrived.take(event));
        let run = Some(Run { seed: 1, devices: 1, start_ms: 0, end_ms: Some(20_000) });
        let truth = Truth { run, faults: vec![shift()] };
        let verdict = script(1000, 10_000, 30, 0).judge(&truth, &arrived);
        let (raised, resolved, arrived) = (arrived.raised, arrived.resolved, arrived.different());
        Account { verdict, raised, resolved, entries, arrived, open: 0 }
    }

    fn check(events: &[Value], entries: u64, expected: Option<&str>) {
        let broken = account(events, entries).broken();
        match expected {
            None => assert_eq!(broken, [""; 0]),
            Some(expected) => assert!(broken.iter().any(|one| one.contains(expected)), "{broken:?}"),
        }
    }

    #[test]
    fn what_must_hold_fails_the_demo_and_nothing_else_does() {
        let (raised, resolved) = (event("raised", 1), event("resolved", 2));
        let both = [raised.clone(), resolved.clone()];
        check(&both, 2, None);
        check(&[raised.clone(), resolved.clone(), resolved.clone()], 2, None);
        check(&both, 3, Some("lane alerts has 3 entries, and Event Grid 2 different events"));
        check(std::slice::from_ref(&raised), 1, None);
        check(&[raised.clone(), event("resolved", 3)], 2, Some("1 transitions never arrived"));
        let mut other = resolved.clone();
        other["data"]["observed"]["value"] = json!(7);
        check(&[raised.clone(), resolved, other], 2, Some("contradict"));
        check(&[], 0, Some("0 of 1 faults of kind shift were found by hot"));
        let mut elsewhere = raised.clone();
        (elsewhere["deviceid"], elsewhere["id"]) = (json!("e"), json!("a1-10:1"));
        elsewhere["data"]["alertId"] = json!("a1-10");
        check(&[raised, elsewhere], 2, None);
    }

    #[test]
    fn the_account_tells_what_became_of_the_faults() {
        let rows = account(&[event("raised", 1), event("resolved", 2)], 2).rows();
        assert!(rows[0].1.starts_with("1 raised, 1 resolved, 0 open at the end"), "{rows:?}");
        let expected = "1 found of 1, 0 missed, 0 in a storm, 0 not provable; after 500 ms, at most 500 ms";
        assert_eq!(rows[1], ("faults: shift".to_owned(), expected.to_owned()));
    }

    #[test]
    fn a_status_is_read() {
        let status = json!({
            "outbox": { "lanes": [{ "lane": "telemetry", "next": 70 }, { "lane": "alerts", "next": 7 }] },
            "alerts": { "lag_messages": 3, "open": 2 }
        });
        assert_eq!(Standing::read(&status).unwrap(), Standing { entries: 6, lag: 3, open: 2 });
        assert!(Standing::read(&json!({})).is_err());
    }
}
