//! What the parts of the drill found, for people and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// What one part found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    /// For people.
    pub(super) summary: String,
    /// For the report.
    pub(super) details: Value,
    /// What was promised and not kept, one sentence each.
    pub(super) reasons: Vec<String>,
}

impl Finding {
    /// The line for people.
    pub(super) fn line(&self) -> String {
        format!("{}: {}: {}", self.name, verdict(&self.reasons), self.summary)
    }
}

/// Writes the report of all parts.
pub(super) fn write(findings: &[Finding], seed: u64, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&report(findings, seed)).context("the report as JSON")?;
    fs::write(file, text).with_context(|| file.display().to_string())
}

/// What was promised and not kept, with the part in which that was.
pub(super) fn reasons(findings: &[Finding]) -> Vec<String> {
    let of = |finding: &Finding| {
        let name = finding.name;
        finding.reasons.iter().map(|reason| format!("{name}: {reason}")).collect::<Vec<_>>()
    };
    findings.iter().flat_map(of).collect()
}

fn report(findings: &[Finding], seed: u64) -> Value {
    let mut report = Map::new();
    report.insert("verdict".to_owned(), verdict(&reasons(findings)).into());
    report.insert("seed".to_owned(), seed.into());
    for Finding { name, details, reasons, .. } in findings {
        let part = json!({ "verdict": verdict(reasons), "reasons": reasons, "details": details });
        report.insert((*name).to_owned(), part);
    }
    report.into()
}

fn verdict(reasons: &[String]) -> &'static str {
    if reasons.is_empty() { "pass" } else { "fail" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_that_fails_fails_the_whole() {
        let finding = |name, reasons: &[&str]| Finding {
            name,
            summary: "x".to_owned(),
            details: json!({ "n": 1 }),
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        };
        let both = [finding("storm", &[]), finding("away", &["slow"])];
        assert_eq!(reasons(&both), ["away: slow"]);
        let report = report(&both, 7);
        assert_eq!((&report["verdict"], &report["storm"]["verdict"]), (&json!("fail"), &json!("pass")));
        assert_eq!((&report["away"]["reasons"][0], &report["seed"]), (&json!("slow"), &json!(7)));
        assert_eq!(
            (both[0].line(), both[1].line()),
            ("storm: pass: x".to_owned(), "away: fail: x".to_owned())
        );
    }
}
