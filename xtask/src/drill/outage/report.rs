//! What an outage drill found, for people and as JSON.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::Options;
use super::play::{Played, Sample};
use crate::drill::tally;

/// More resident memory than this is not flat: the bounds of all buffers and caches together are below it.
const RSS_MAX: u64 = 700 << 20;

/// The JSON report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    verdict: &'static str,
    /// What was promised and not kept, one sentence each.
    pub(super) reasons: Vec<String>,
    seed: u64,
    options: String,
    seconds: f64,
    /// Troubles in the order in which they came: name, and milliseconds since the start.
    troubles: Vec<(&'static str, u64)>,
    gateway_kills: u64,
    /// What the fleet and its judge found.
    fleet: testkit::report::Report,
    /// What `penstock verify` counted.
    verify: Value,
    gateway_rss: Memory,
    /// The largest backlog of the outbox that was seen, in bytes.
    backlog_peak_bytes: f64,
    /// What the stand-in counted.
    cloud: Option<Value>,
    control: Control,
}

/// What was found out about a batch that the cloud confirmed and did not keep.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Control {
    pub(super) lost: u64,
    pub(super) gaps: u64,
}

/// Resident memory of the gateway, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Memory {
    peak: u64,
    /// The median of the first and of the last third of the drill.
    first: u64,
    last: u64,
    samples: usize,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        seed: u64,
        lasts: Duration,
        played: &Played,
        control: Control,
    ) -> Self {
        let reasons = broken(options, played);
        let backlog = played.samples.iter().map(|sample| sample.backlog_bytes);
        let mut fleet = played.outcome.report.clone();
        fleet.kills = played.kills;
        Self {
            verdict: if reasons.is_empty() { "pass" } else { "fail" },
            reasons,
            seed,
            options: options.words(),
            seconds: lasts.as_secs_f64(),
            troubles: played.troubles.iter().map(|(name, at)| (*name, millis(*at))).collect(),
            gateway_kills: played.kills,
            fleet,
            verify: played.outcome.verify_totals.clone(),
            gateway_rss: memory(&played.samples),
            backlog_peak_bytes: backlog.fold(0.0, f64::max),
            cloud: played.cloud.clone(),
            control,
        }
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// The last words of the drill.
    pub(super) fn summary(&self) -> String {
        let Memory { peak, first, last, .. } = self.gateway_rss;
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        format!(
            "troubles {}, gateway killed {} times, {}; penstock verify: {} records, {} gaps, {} duplicates, {} reordered; \
             memory peak {} MB, first third {} MB, last third {} MB; backlog up to {:.1} MB; seed {}: {}",
            self.troubles.len(),
            self.gateway_kills,
            tally::line(&self.fleet),
            self.verify["records"],
            self.verify["gaps"],
            self.verify["duplicates"],
            self.verify["reordered"],
            megabytes(peak),
            megabytes(first),
            megabytes(last),
            self.backlog_peak_bytes / 1e6,
            self.seed,
            self.verdict
        )
    }
}

/// What was promised and not kept, one sentence each.
fn broken(options: &Options, played: &Played) -> Vec<String> {
    let mut broken = played.outcome.broken();
    let report = &played.outcome.report;
    for (name, count) in
        [("lost", report.lost), ("reordered", report.reordered), ("unexpected", report.unexpected)]
    {
        if count != Some(0) {
            broken.push(format!("{name}: {count:?}"));
        }
    }
    let duplicates = played.outcome.verify_totals["duplicates"].as_u64();
    if options.strict() && (report.duplicated != Some(0) || duplicates != Some(0)) {
        broken.push(format!(
            "duplicated: the fleet found {:?}, penstock verify {duplicates:?}",
            report.duplicated
        ));
    }
    // What is left after dropping by identity: each reading once for each time that it was taken in.
    let counts = [report.records, report.duplicated, report.delivered, report.resent, report.qos2_repeats];
    if let [Some(records), Some(duplicated), Some(delivered), Some(resent), Some(repeats)] = counts
        && records.checked_sub(duplicated) != Some(delivered + resent + repeats)
    {
        broken.push(format!(
            "{records} records less {duplicated} duplicates are not {delivered} readings, {resent} resent, {repeats} repeats"
        ));
    }
    let peak = memory(&played.samples).peak;
    if peak > RSS_MAX {
        broken.push(format!("the gateway used {} MB of memory", peak.div_ceil(1_000_000)));
    }
    broken
}

fn memory(samples: &[Sample]) -> Memory {
    let third = samples.len().div_ceil(3);
    let median = |part: &[Sample]| {
        let mut sizes: Vec<u64> = part.iter().map(|sample| sample.rss_bytes).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied().unwrap_or(0)
    };
    Memory {
        peak: samples.iter().map(|sample| sample.rss_bytes).max().unwrap_or(0),
        first: median(samples.get(..third).unwrap_or_default()),
        last: median(samples.get(samples.len() - third..).unwrap_or_default()),
        samples: samples.len(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use serde_json::json;
    use testkit::drill::stage::Outcome;

    use super::*;

    fn played(change: impl FnOnce(&mut testkit::report::Report)) -> Played {
        let mut report = testkit::report::Report {
            acked: 10,
            records: Some(12),
            delivered: Some(10),
            duplicated: Some(1),
            resent: Some(1),
            qos2_repeats: Some(0),
            lost: Some(0),
            reordered: Some(0),
            unexpected: Some(0),
            ..testkit::report::Report::default()
        };
        change(&mut report);
        let outcome = Outcome {
            report,
            stopped: ExitStatus::from_raw(0),
            verified: ExitStatus::from_raw(0),
            verify_said: String::new(),
            verify_totals: json!({ "duplicates": 1 }),
            incidents: Vec::new(),
        };
        Played { outcome, kills: 0, troubles: Vec::new(), samples: Vec::new(), cloud: None }
    }

    fn check(change: impl FnOnce(&mut testkit::report::Report), expected: &[&str]) {
        let options = Options { no_tail_read: true, ..Options::default() };
        assert_eq!(broken(&options, &played(change)), expected);
    }

    #[test]
    fn duplicates_are_allowed_without_the_tail_read_if_they_vanish_by_identity() {
        check(|_| (), &[]);
        check(
            |report| report.records = Some(13),
            &["13 records less 1 duplicates are not 10 readings, 1 resent, 0 repeats"],
        );
    }

    #[test]
    fn loss_disorder_and_what_was_not_judged_fail() {
        check(|report| report.lost = Some(1), &["lost: Some(1)"]);
        check(|report| report.reordered = Some(2), &["reordered: Some(2)"]);
        check(|report| report.unexpected = None, &["unexpected: None"]);
        check(|report| report.acked = 0, &["nothing was acknowledged, so nothing was proved"]);
    }

    #[test]
    fn memory_is_compared_between_the_thirds() {
        let sample = |rss_bytes| Sample { rss_bytes, backlog_bytes: 0.0 };
        let samples: Vec<Sample> = [10, 20, 30, 90, 40, 50, 60].map(sample).to_vec();
        assert_eq!(memory(&samples), Memory { peak: 90, first: 20, last: 50, samples: 7 });
        assert_eq!(memory(&[]), Memory { peak: 0, first: 0, last: 0, samples: 0 });
        let mut played = played(|_| ());
        played.samples = vec![sample(RSS_MAX + 1)];
        let options = Options { no_tail_read: true, ..Options::default() };
        assert_eq!(broken(&options, &played), ["the gateway used 735 MB of memory"]);
    }
}
