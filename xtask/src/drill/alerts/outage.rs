//! Event Grid is away for a day, scaled: alerts of every severity come and go all along, and the gateway is killed
//! meanwhile. When it is back, what arrives, and in which order?

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testkit::alerts::{Away, Conditions, Counts, Truth, judge, median, weigh_order};
use testkit::cloud::event_grid::Entry;
use testkit::gateway::{Config, Gateway};
use testkit::report::Report;

use super::finding::Finding;
use super::fleet::{self, Breaches, Fleet, Load, RULE_OF};
use super::scene::{EVENT_GRID, Scene, settle, uplink, wait_until};
use crate::drill::unix_ms;
use crate::signals;

/// Nothing is held back, so that every breach is told singly, when it begins and when it ends.
pub(super) const ALERTING: &str = r#"
[alerting]
group_by = ["rule"]
max_rate = { events_per_s = 5000, burst = 1000000 }
tenant_rate = { events_per_s = 5000, burst = 1000000 }
flapping = { max_transitions = 0, window = "1s" }
repeat_interval = "0s"
storm = { when_open_in_group = 1000000 }
"#;
/// The longest pause between two tries, so that the return is noticed within a scaled day.
const RETRY_LONGEST: &str = "retry_longest = \"2s\"";
/// Event Grid is well for so long before, in seconds, after the ramp.
const BEFORE_S: u32 = 6;
/// … and after its return, at least; a sixth of the time without it in a longer drill.
const AFTER_S_MIN: u32 = 5;
/// The first seconds of the load do not count.
const WARM_UP_S: u32 = 3;
/// After the kill devices connect again and catch up for so long, in seconds.
const CATCH_UP_S: f64 = 6.0;
/// Each device breaches each limit once in this time, in seconds, or more seldom in a longer run: a fleet has room for
/// 64 kinds of faults.
const TURN_S: f64 = 6.0;
const TURNS_MAX: f64 = 20.0;
/// How long a breach lasts, in seconds.
const BREACH_S: f64 = 2.0;
/// How far apart clocks and connections may be, in milliseconds.
const SLACK_MS: u64 = 500;
/// Least share of the messages per second while Event Grid is away, and when it takes what was kept.
const SHARE_MIN: f64 = 0.95;
/// How long nothing may happen before it counts as over.
const QUIET: Duration = Duration::from_secs(2);
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// The size of an outage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) devices: u32,
    pub(super) rate: u32,
    /// How long Event Grid is away, in seconds of the drill.
    pub(super) away_s: u32,
    /// What that stands for.
    pub(super) hours: u32,
    pub(super) seed: u64,
}

impl Plan {
    const fn begin_s(self) -> u32 {
        Load::ramp_s(self.devices) + BEFORE_S
    }

    const fn until_s(self) -> u32 {
        self.begin_s() + self.away_s
    }

    fn seconds(self) -> u32 {
        self.until_s() + AFTER_S_MIN.max(self.away_s / 6)
    }

    /// Turns one after the other, so that the breaches of a device and metric do not meet.
    fn breaches(self) -> Vec<Breaches> {
        let (first, last) = (f64::from(Load::ramp_s(self.devices)) + 1.0, f64::from(self.seconds()) - 2.0);
        let turn = TURN_S.max((last - first) / TURNS_MAX);
        let turns = std::iter::successors(Some(first), |start| Some(start + turn));
        let turns = turns.take_while(|start| start + turn <= last);
        let of = |start| {
            // A second between two, since a device speaks only now and then.
            let spread = turn - BREACH_S - 1.0;
            RULE_OF.map(|(metric, ..)| Breaches { metric, percent: 100, start, spread, length: BREACH_S })
        };
        turns.flat_map(of).collect()
    }
}

/// Messages acknowledged per second: medians of the time before, during and after the outage.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
struct Paces {
    before: f64,
    during: f64,
    after: f64,
}

/// What was done and seen.
struct Played {
    report: Report,
    truth: Truth,
    entries: Vec<Entry>,
    away: Away,
    /// Since the start of the fleet.
    killed_s: f64,
    paces: Vec<(f64, f64)>,
}

pub(super) fn play(plan: Plan, folder: &Path) -> Result<Finding> {
    let scene = Scene::set(folder, &format!("{ALERTING}{}", fleet::RULES))?;
    let home = folder.join("gateway");
    let config = uplink(&scene, Config::default()).set(EVENT_GRID, RETRY_LONGEST);
    let mut gateway = Gateway::start(&home, scene.config(&home, config)?)?;
    let load = Load {
        devices: plan.devices,
        rate: plan.rate,
        seconds: plan.seconds(),
        seed: plan.seed,
        breaches: plan.breaches(),
        measured: false,
    };
    let (mut fleet, start_ms) = Fleet::start(&load, &mut gateway, folder)?;
    // Comes back when the fleet is so many seconds old; gives the time then.
    let until = |seconds: u32| {
        let left_ms = (start_ms + u64::from(seconds) * 1000).saturating_sub(unix_ms()?);
        wait_until(signals::now() + Duration::from_millis(left_ms))?;
        unix_ms()
    };
    let event_grid = scene.cloud.control().event_grid();
    until(plan.begin_s())?;
    event_grid.away(true)?;
    let from_ms = unix_ms()?;
    let killed_ms = until(plan.begin_s() + plan.away_s / 2)?;
    gateway.kill()?;
    gateway.restart()?;
    let until_ms = until(plan.until_s())?;
    event_grid.away(false)?;
    let (report, truth) = fleet.end()?;
    settle(&mut gateway, &scene.cloud, QUIET, SETTLE_WITHIN)?;
    let entries = event_grid.all_events_after(0)?;
    gateway.stop()?;
    let away = Away { from_ms, until_ms, slack_ms: SLACK_MS };
    let killed_s = Duration::from_millis(killed_ms.saturating_sub(start_ms)).as_secs_f64();
    let played = Played { report, truth, entries, away, killed_s, paces: fleet.paces()? };
    played.finding(plan)
}

// === impl Played ===

impl Played {
    fn finding(&self, plan: Plan) -> Result<Finding> {
        let Self { report, entries, .. } = self;
        let order = weigh_order(&fleet::arrivals(entries), self.away);
        let (told, counts, missed) = self.alerts(entries, unix_ms()?);
        let paces = Paces::of(plan, &self.paces, self.killed_s);
        let mut reasons = fleet::broken(report);
        reasons.extend(order.reasons.iter().cloned().chain(missed).chain(paces.broken()));
        reasons.extend(self.controls());
        let summary = format!(
            "{} s for {} hours; {} of {} breaches told, {} events missing in between, {} repeated; kept {} critical \
             events and {} others, {} overtaking, {} out of order; after the return the first after {} ms, the last \
             critical one after {} ms, all after {} ms; messages/s before {:.0}, during {:.0}, after {:.0}",
            plan.away_s,
            plan.hours,
            told.0,
            told.1,
            counts.gaps,
            order.repeated,
            order.criticals,
            order.others,
            order.overtaking,
            order.reordered,
            order.first_after_ms,
            order.criticals_after_ms,
            order.all_after_ms,
            paces.before,
            paces.during,
            paces.after
        );
        let details = json!({
            "devices": plan.devices, "rate": plan.rate, "away_seconds": plan.away_s, "hours": plan.hours, "kills": 1,
            "order": order, "alerts": counts, "acked_per_s": paces, "acked": report.acked,
            "unacked": report.unacked,
        });
        Ok(Finding { name: "outage", summary, details, reasons })
    }

    /// How many breaches were told and how many there were, all counts, and what was broken.
    fn alerts(&self, entries: &[Entry], until_ms: u64) -> ((u64, u64), Counts, Vec<String>) {
        let events: Vec<_> = entries.iter().map(|entry| entry.event.clone()).collect();
        let conditions =
            Conditions { slack_ms: 1000, after_ms: 3000, resolve_ms: 3000, until_ms, false_alerts_max: 0 };
        let verdict = judge(&self.truth, &events, &fleet::expectations(), &conditions);
        let seen = verdict.counts.faults.values();
        let told = seen.fold((0, 0), |(found, all), seen| (found + seen.found, all + seen.injected));
        (told, verdict.counts, verdict.reasons)
    }

    /// The same evidence, falsified: a judge that finds nothing in it proves nothing.
    fn controls(&self) -> Vec<String> {
        let mut lost = self.entries.clone();
        let raised = |entry: &Entry| entry.event["data"]["transition"] == 1;
        lost.extract_if(.., |entry| raised(entry)).next();
        let backwards: Vec<_> = self.entries.iter().rev().cloned().collect();
        let order = weigh_order(&fleet::arrivals(&backwards), self.away);
        let caught = [
            ("an event that is lost", !self.alerts(&lost, u64::MAX).2.is_empty()),
            ("a backlog that comes backwards", order.overtaking > 0 && order.reordered > 0),
        ];
        let missed = caught.iter().filter(|(_, caught)| !caught);
        missed
            .map(|(what, _)| format!("control: {what} was not found, so that this drill proves nothing"))
            .collect()
    }
}

// === impl Paces ===

impl Paces {
    fn of(plan: Plan, paces: &[(f64, f64)], killed_s: f64) -> Self {
        let caught_up = killed_s..killed_s + CATCH_UP_S;
        let between = |from: u32, until: u32| {
            let inside = paces.iter().filter(|(second, _)| {
                // A line tells of the second before it.
                *second > f64::from(from) + 1.0 && *second <= f64::from(until) && !caught_up.contains(second)
            });
            median(inside.map(|(_, acked)| *acked).collect())
        };
        Self {
            before: between(Load::ramp_s(plan.devices) + WARM_UP_S, plan.begin_s()),
            during: between(plan.begin_s(), plan.until_s()),
            after: between(plan.until_s(), plan.seconds()),
        }
    }

    fn broken(self) -> Vec<String> {
        let shares = [("while Event Grid was away", self.during), ("when it was back", self.after)];
        let short =
            shares.into_iter().filter(|(_, pace)| *pace < self.before * SHARE_MIN || self.before == 0.0);
        let sentence = |(when, pace): (&str, f64)| {
            format!("{pace:.0} messages/s were acknowledged {when}, {:.0} before", self.before)
        };
        short.map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { devices: 100, rate: 1000, away_s: 30, hours: 24, seed: 1 };

    #[test]
    fn breaches_of_a_metric_do_not_meet_and_fit_into_a_profile() {
        for away_s in [10, 30, 120, 3600] {
            let breaches = Plan { away_s, ..PLAN }.breaches();
            assert!((6..=60).contains(&breaches.len()), "{away_s}: {}", breaches.len());
            let of = |metric| breaches.iter().filter(move |one| one.metric == metric);
            for (metric, ..) in RULE_OF {
                for (one, next) in of(metric).zip(of(metric).skip(1)) {
                    assert!(
                        one.start + one.spread + one.length + 0.9 < next.start,
                        "{away_s}: {one:?} {next:?}"
                    );
                }
            }
            let last = breaches.last().unwrap();
            assert!(last.start + last.spread + last.length < f64::from(Plan { away_s, ..PLAN }.seconds()));
        }
    }

    #[test]
    fn controls_that_show_nothing_are_told() {
        let played = Played {
            report: Report::default(),
            truth: Truth::default(),
            entries: Vec::new(),
            away: Away { from_ms: 1, until_ms: 2, slack_ms: 0 },
            killed_s: 0.0,
            paces: Vec::new(),
        };
        assert_eq!(played.controls().len(), 2);
    }

    #[test]
    fn the_pace_is_that_of_each_time_without_the_kill() {
        // From 7 to 37 s away, killed at 22 s.
        let pace = |second: u32| match second {
            0..=7 => 1000.0,
            22..=27 => 10.0,
            8..=37 => 990.0,
            _ => 940.0,
        };
        let paces: Vec<_> = (1..=42).map(|second| (f64::from(second), pace(second))).collect();
        let found = Paces::of(PLAN, &paces, 22.0);
        assert_eq!(found, Paces { before: 1000.0, during: 990.0, after: 940.0 });
        assert_eq!(found.broken(), ["940 messages/s were acknowledged when it was back, 1000 before"]);
        assert_eq!(Paces { after: 960.0, ..found }.broken(), [""; 0]);
        assert_eq!(Paces { before: 0.0, during: 0.0, after: 0.0 }.broken().len(), 2, "nothing shows nothing");
    }
}
