//! What the kills found, for people and as JSON.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use testkit::alerts::{Comparison, compare};

use super::Plan;
use super::finding::Finding;
use super::kills::Run;
use super::log::Log;

/// What may differ between two runs: when a silence was noticed hangs on the wall clock of the run.
const EXCEPT: &[&str] = &["/time", "/data/endedAt"];

/// The part of the JSON report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was promised and not kept, one sentence each.
    #[serde(skip)]
    reasons: Vec<String>,
    seed: u64,
    devices: u32,
    messages: u64,
    kills: u32,
    /// Kills before the whole log was looked at.
    kills_amid_the_log: u32,
    seconds_undisturbed: f64,
    seconds_killed: f64,
    /// Events of the undisturbed run by type and rule.
    events: BTreeMap<String, u64>,
    common: u64,
    missing: usize,
    surplus: usize,
    different: usize,
    nameless: u64,
    duplicated: u64,
}

impl Report {
    pub(super) fn new(plan: &Plan, log: &Log, undisturbed: &Run, killed: &Run) -> Self {
        let found = compare(&killed.events, &undisturbed.events, EXCEPT);
        let events = by_kind(&undisturbed.events);
        let mut reasons = broken(&found);
        for kind in ["raised", "resolved"] {
            for rule in ["warm", "lasting", "silent"] {
                let silent_resolved = rule == "silent" && kind == "resolved";
                if !silent_resolved && !events.contains_key(&format!("{kind} {rule}")) {
                    reasons
                        .push(format!("rule {rule} {kind} nothing, so that the drill shows nothing of it"));
                }
            }
        }
        Self {
            reasons,
            seed: plan.seed,
            devices: plan.devices,
            messages: log.messages,
            kills: killed.kills,
            kills_amid_the_log: killed.amid,
            seconds_undisturbed: undisturbed.seconds,
            seconds_killed: killed.seconds,
            events,
            common: found.common,
            missing: found.missing.len(),
            surplus: found.surplus.len(),
            different: found.different.len(),
            nameless: found.nameless,
            duplicated: found.duplicated,
        }
    }

    pub(super) fn finding(self) -> Result<Finding> {
        let details = serde_json::to_value(&self).context("the report as JSON")?;
        Ok(Finding { name: "kills", summary: self.summary(), details, reasons: self.reasons })
    }

    fn summary(&self) -> String {
        format!(
            "{} events of both runs, missing {}, surplus {}, different {}, nameless {}, repeated {}; {} of {} \
             kills amid the log",
            self.common,
            self.missing,
            self.surplus,
            self.different,
            self.nameless,
            self.duplicated,
            self.kills_amid_the_log,
            self.kills
        )
    }
}

/// Promises that were not kept.
fn broken(found: &Comparison) -> Vec<String> {
    let example = |names: &[testkit::alerts::Name]| {
        names.first().map(|name| format!(", such as {}", name.id)).unwrap_or_default()
    };
    let mut reasons = Vec::new();
    if !found.missing.is_empty() {
        let (count, example) = (found.missing.len(), example(&found.missing));
        reasons.push(format!("{count} events were lost{example}"));
    }
    if !found.surplus.is_empty() {
        let (count, example) = (found.surplus.len(), example(&found.surplus));
        reasons.push(format!("{count} events have ids that an undisturbed run does not know{example}"));
    }
    if !found.different.is_empty() {
        let (count, example) = (found.different.len(), example(&found.different));
        reasons.push(format!("{count} events have one id and different contents{example}"));
    }
    if found.nameless > 0 {
        reasons.push(format!("{} events have no source or no id", found.nameless));
    }
    reasons
}

fn by_kind(events: &[Value]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for event in events {
        let kind = event["type"].as_str().and_then(|kind| kind.split('.').rev().nth(1)).unwrap_or("?");
        let rule = event["ruleid"].as_str().unwrap_or("-");
        *kinds.entry(format!("{kind} {rule}")).or_default() += 1;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(events: Vec<Value>) -> Run {
        Run { events, kills: 0, seconds: 1.0, amid: 0 }
    }

    fn event(id: &str, kind: &str, rule: &str, value: u64) -> Value {
        let kind = format!("io.penstock.alert.{kind}.v1");
        json!({ "source": "/gateways/g", "id": id, "type": kind, "ruleid": rule, "data": { "value": value } })
    }

    fn all() -> Vec<Value> {
        let told = [("raised", "warm"), ("resolved", "warm"), ("raised", "lasting"), ("resolved", "lasting")];
        let mut all: Vec<Value> =
            told.iter().map(|(kind, rule)| event(&format!("{rule}{kind}"), kind, rule, 1)).collect();
        all.push(event("s", "raised", "silent", 1));
        all
    }

    fn check(killed: Vec<Value>, undisturbed: Vec<Value>, expected: &[&str]) {
        let plan = Plan { devices: 1, rate: 1, log_seconds: 1, kills: 1, seed: 1 };
        let log = Log { outbox: std::path::PathBuf::new(), messages: 1 };
        let report = Report::new(&plan, &log, &run(undisturbed), &run(killed));
        assert_eq!(report.reasons.len(), expected.len(), "{:?}", report.reasons);
        for (reason, expected) in report.reasons.iter().zip(expected) {
            assert!(reason.contains(expected), "{reason}, expected {expected}");
        }
    }

    #[test]
    fn whatever_two_runs_do_not_have_in_common_is_found_out() {
        check(all(), all(), &[]);
        check([all(), all()].concat(), all(), &[]);
        check(all()[1..].to_vec(), all(), &["lost"]);
        check([all(), vec![event("x", "raised", "warm", 1)]].concat(), all(), &["does not know"]);
        check([all(), vec![event("s", "raised", "silent", 2)]].concat(), all(), &["different contents"]);
        check([all(), vec![json!({ "id": "y" })]].concat(), all(), &["no source"]);
        let without =
            |rule: &str| all().into_iter().filter(|event| event["ruleid"] != rule).collect::<Vec<_>>();
        check(without("silent"), without("silent"), &["silent raised nothing"]);
    }
}
