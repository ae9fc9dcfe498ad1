//! What a reconnect drill found, for people and as JSON.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::Plan;
use super::play::Played;
use crate::drill::tally;

/// Memory is compared minute by minute, in a short drill by this share of it.
const WINDOWS_MIN: u32 = 5;
/// The first window is the ramp; each later one may use this much of the second one's memory, in percent…
const FLAT_PERCENT: u64 = 110;
/// …and so many bytes more.
const FLAT_BYTES: u64 = 16 << 20;

/// The JSON report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    verdict: &'static str,
    /// What was promised and not kept, one sentence each.
    pub(super) reasons: Vec<String>,
    options: String,
    gateway_kills: u64,
    /// What the fleet and its judge found.
    fleet: testkit::report::Report,
    /// What `penstock verify` counted.
    verify: Value,
    /// The median of the gateway's resident memory in each minute, in bytes; in a short drill in each fifth.
    memory: Vec<u64>,
    memory_peak: u64,
    control: Control,
}

/// How a gateway without sessions was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Control {
    /// Connections without the session that was to last.
    pub(super) sessions_lost: u64,
    /// QoS 2 messages under more identities than publishes.
    pub(super) stored_twice: u64,
}

impl Report {
    pub(super) fn new(plan: &Plan, played: &Played, control: Control) -> Self {
        let memory = medians(&played.memory, plan.lasts);
        let reasons = broken(plan, played, &memory);
        let mut fleet = played.outcome.report.clone();
        fleet.kills = played.kills;
        Self {
            verdict: if reasons.is_empty() { "pass" } else { "fail" },
            reasons,
            options: plan.words(),
            gateway_kills: played.kills,
            fleet,
            verify: played.outcome.verify_totals.clone(),
            memory,
            memory_peak: played.memory.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0),
            control,
        }
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// The last words of the drill.
    pub(super) fn summary(&self) -> String {
        let megabytes = |bytes: &u64| bytes.div_ceil(1_000_000).to_string();
        let memory = self.memory.iter().map(megabytes).collect::<Vec<_>>().join(", ");
        format!(
            "reconnects {}, take-overs {}, sessions resumed {}, lost {}, gateway killed {} times, {}, unexpected {:?}; \
             penstock verify: {} records, {} gaps, {} duplicates; memory {memory} MB, peak {} MB: {}",
            self.fleet.reconnects,
            self.fleet.takeovers,
            self.fleet.sessions_resumed,
            self.fleet.sessions_lost,
            self.gateway_kills,
            tally::line(&self.fleet),
            self.fleet.unexpected,
            self.verify["records"],
            self.verify["gaps"],
            self.verify["duplicates"],
            megabytes(&self.memory_peak),
            self.verdict
        )
    }
}

/// What was promised and not kept, one sentence each.
fn broken(plan: &Plan, played: &Played, memory: &[u64]) -> Vec<String> {
    let mut broken = played.outcome.broken();
    let report = &played.outcome.report;
    let none = [
        ("lost", report.lost),
        ("reordered", report.reordered),
        ("duplicated", report.duplicated),
        // A QoS 2 message of a session that lasts, stored twice, is among these.
        ("unexpected", report.unexpected),
        ("sessions lost", Some(report.sessions_lost)),
        ("duplicates by penstock verify", played.outcome.verify_totals["duplicates"].as_u64()),
    ];
    for (name, count) in none.into_iter().filter(|(_, count)| *count != Some(0)) {
        broken.push(format!("{name}: {count:?}"));
    }
    let some = [
        ("reconnected", report.reconnects),
        ("took a connection over", report.takeovers),
        ("resumed a session", report.sessions_resumed),
    ];
    for (what, _) in some.into_iter().filter(|(_, count)| *count == 0 && plan.share > 0) {
        broken.push(format!("no device {what}, so nothing was proved"));
    }
    if let Some((window, bytes, bound)) = growth(memory) {
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        broken.push(format!(
            "memory grew: {} MB in window {} where {} MB are allowed",
            megabytes(bytes),
            window + 1,
            megabytes(bound)
        ));
    }
    broken
}

/// The median of each window.
fn medians(samples: &[(Duration, u64)], lasts: Duration) -> Vec<u64> {
    let window = Duration::from_mins(1).min(lasts / WINDOWS_MIN).max(Duration::from_millis(1));
    let mut medians = Vec::new();
    let mut from = Duration::ZERO;
    while from < lasts {
        let until = from + window;
        let inside = samples.iter().filter(|(at, _)| (from..until).contains(at));
        let mut sizes: Vec<u64> = inside.map(|(_, bytes)| *bytes).collect();
        sizes.sort_unstable();
        medians.extend(sizes.get(sizes.len() / 2));
        from = until;
    }
    medians
}

/// The first window that uses more than the bound, with what it uses and the bound.
fn growth(memory: &[u64]) -> Option<(usize, u64, u64)> {
    let bound = memory.get(1)? * FLAT_PERCENT / 100 + FLAT_BYTES;
    memory
        .iter()
        .enumerate()
        .skip(2)
        .find(|(_, bytes)| **bytes > bound)
        .map(|(at, bytes)| (at, *bytes, bound))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use serde_json::json;
    use testkit::drill::stage::Outcome;

    use super::*;

    const PLAN: Plan =
        Plan { devices: 10, rate: 10, share: 10, kill: 0, lasts: Duration::from_secs(300), seed: 1 };

    fn check(change: impl FnOnce(&mut Played), expected: &[&str]) {
        let report = testkit::report::Report {
            acked: 10,
            reconnects: 5,
            takeovers: 1,
            sessions_resumed: 3,
            lost: Some(0),
            reordered: Some(0),
            duplicated: Some(0),
            unexpected: Some(0),
            ..testkit::report::Report::default()
        };
        let outcome = Outcome {
            report,
            stopped: ExitStatus::from_raw(0),
            verified: ExitStatus::from_raw(0),
            verify_said: String::new(),
            verify_totals: json!({ "duplicates": 0 }),
            incidents: Vec::new(),
        };
        let mut played = Played { outcome, kills: 0, memory: Vec::new() };
        change(&mut played);
        let memory = medians(&played.memory, PLAN.lasts);
        assert_eq!(broken(&PLAN, &played, &memory), expected);
    }

    #[test]
    fn each_broken_promise_is_named() {
        check(|_| (), &[]);
        check(|played| played.outcome.report.lost = Some(1), &["lost: Some(1)"]);
        check(|played| played.outcome.report.unexpected = Some(2), &["unexpected: Some(2)"]);
        check(|played| played.outcome.report.sessions_lost = 1, &["sessions lost: Some(1)"]);
        check(|played| played.outcome.report.duplicated = None, &["duplicated: None"]);
        check(|played| played.outcome.verify_totals = json!({}), &["duplicates by penstock verify: None"]);
    }

    #[test]
    fn a_drill_in_which_nothing_happened_proves_nothing() {
        check(
            |played| played.outcome.report.takeovers = 0,
            &["no device took a connection over, so nothing was proved"],
        );
    }

    #[test]
    fn memory_may_grow_in_the_first_minute_only() {
        let minute = |number: u64| Duration::from_secs(number * 60 + 30);
        let megabytes = |sizes: [u64; 5]| -> Vec<(Duration, u64)> {
            (0..).zip(sizes).map(|(number, size)| (minute(number), size * 1_000_000)).collect()
        };
        check(|played| played.memory = megabytes([10, 100, 110, 120, 120]), &[]);
        check(
            |played| played.memory = megabytes([10, 100, 110, 120, 130]),
            &["memory grew: 130 MB in window 5 where 127 MB are allowed"],
        );
    }
}
