//! The verdict of the demo: the fleet's report, completed with what the gateway cost, and held against the
//! promises once more.

use std::path::Path;

use anyhow::{Context, Result, bail};
use testkit::report::{Commands, Outcome, Report};

use super::stage::Played;
use crate::say;

/// Reads the fleet's report, adds what only the stage knows, and writes it back.
pub(super) fn complete(file: &Path, played: &Played) -> Result<Report> {
    let mut report = Report::read(file).with_context(|| {
        format!("the fleet ({}) left no report in {}; see fleet.log", played.fleet, file.display())
    })?;
    report.kills = played.kills.into();
    report.gateway_cpu_us_per_message = cpu_micros_per_message(&report, played);
    report.gateway_rss_bytes = Some(played.cost.rss_peak);
    report.alerts = Some(played.alerts.verdict.counts.clone());
    report.set_reasons([report.reasons.clone(), broken(&report, played)].concat());
    report.write(file).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(report)
}

/// Fails unless every promise was kept.
pub(super) fn check(report: &Report, played: &Played) -> Result<()> {
    if report.verdict == Outcome::Pass && played.fleet.success() {
        return Ok(());
    }
    if report.reasons.is_empty() {
        bail!("the fleet says {}", played.fleet);
    }
    bail!("{}", report.reasons.join("; "));
}

#[expect(clippy::cast_precision_loss, reason = "messages of a demo stay far below 2^52")]
fn cpu_micros_per_message(report: &Report, played: &Played) -> Option<f64> {
    (report.acked > 0).then(|| played.cost.cpu.as_secs_f64() * 1e6 / report.acked as f64)
}

/// What was promised and not kept, one sentence each. The fleet judged its part already; this does not trust it
/// with the rule that only kills excuse duplicates.
fn broken(report: &Report, played: &Played) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut forbid = |name: &str, count: Option<u64>| match count {
        Some(0) => {}
        Some(count) => reasons.push(format!("{count} {name}")),
        None => reasons.push(format!("{name} was not judged")),
    };
    forbid("lost", report.lost);
    forbid("reordered", report.reordered);
    forbid("unexpected", report.unexpected);
    if played.kills_wanted == 0 {
        forbid("duplicated", report.duplicated);
    }
    if report.acked == 0 || report.delivered.unwrap_or(0) == 0 {
        reasons.push("nothing was acknowledged and delivered, so nothing was proved".to_owned());
    }
    if let Some(Commands { counts, .. }) =
        report.commands.filter(|commands| commands.counts.completed < commands.counts.sent)
    {
        reasons.push(format!(
            "{} of {} commands were not completed",
            counts.sent - counts.completed,
            counts.sent
        ));
    }
    if played.kills != played.kills_wanted {
        reasons.push(format!(
            "{} of {} kills took place before the fleet ended",
            played.kills, played.kills_wanted
        ));
    }
    reasons.extend(played.alerts.broken());
    if played.gateway.code() != Some(0) {
        reasons.push(format!("the gateway was asked to stop and ended with {}", played.gateway));
    }
    if !played.verify.success() {
        reasons.push(format!("penstock verify ended with {}", played.verify));
    }
    reasons
}

/// The last words of the demo.
pub(super) fn summary(report: &Report, played: &Played, file: &Path) -> String {
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let cpu = report.gateway_cpu_us_per_message.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1} µs"));
    let megabytes = played.cost.rss_peak.div_ceil(1_000_000);
    let verdict = match report.verdict {
        Outcome::Pass => "PASS",
        Outcome::Fail => "FAIL",
    };
    let commands = report.commands.map(|Commands { counts, settle_ms, .. }| {
        format!(
            "{} of {} completed ({} dead-lettered); {} stuck, {} repeated, {} out of order; p50 / p99 {:.0} / {:.0} ms",
            counts.completed,
            counts.sent,
            counts.dead_lettered,
            counts.stuck,
            counts.repeated,
            counts.out_of_order,
            settle_ms.p50,
            settle_ms.p99
        )
    });
    let before = [
        ("what", "result".to_owned()),
        ("acked", report.acked.to_string()),
        ("delivered", count(report.delivered)),
        ("lost", count(report.lost)),
        ("reordered", count(report.reordered)),
        ("duplicated (uplink replay)", count(report.duplicated)),
        ("resent (QoS 1)", count(report.resent)),
        ("QoS 2 repeats", count(report.qos2_repeats)),
        ("acked per second", format!("{:.0}", report.acked_per_second)),
        ("ack p50 / p99 / max", {
            format!("{:.1} / {:.1} / {:.1} ms", report.ack_ms.p50, report.ack_ms.p99, report.ack_ms.max)
        }),
        ("commands", commands.unwrap_or_else(|| "none".to_owned())),
    ];
    let after = [
        ("gateway CPU per message", cpu),
        ("gateway memory, peak", format!("{megabytes} MB")),
        ("gateway killed", played.kills.to_string()),
        ("penstock verify", format!("{} {}", passed(played.verify.success()), played.verified)),
        ("verdict", verdict.to_owned()),
        ("report", file.display().to_string()),
    ];
    let row = |(name, value): (&str, String)| vec![name.to_owned(), value];
    let mut rows: Vec<_> = before.map(row).into();
    rows.extend(played.alerts.rows().into_iter().map(|(name, value)| vec![name, value]));
    rows.extend(after.map(row));
    say::table(&rows)
}

fn passed(passed: bool) -> &'static str {
    if passed { "pass" } else { "FAIL" }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use testkit::alerts::{Counts, Verdict};

    use super::super::alerts::Account;
    use super::super::stage::Cost;
    use super::*;

    fn report() -> Report {
        Report {
            acked: 1000,
            delivered: Some(1000),
            lost: Some(0),
            duplicated: Some(0),
            reordered: Some(0),
            unexpected: Some(0),
            verdict: Outcome::Pass,
            ..Report::default()
        }
    }

    fn played(kills: u32) -> Played {
        let success = ExitStatus::from_raw(0);
        let cost = Cost { cpu: Duration::from_millis(30), rss_peak: 5_000_000 };
        let verdict = Verdict { counts: Counts::default(), reasons: Vec::new() };
        let alerts = Account { verdict, raised: 0, resolved: 0, entries: 0, arrived: 0, open: 0 };
        Played {
            fleet: success,
            gateway: success,
            verify: success,
            verified: String::new(),
            kills_wanted: kills,
            kills,
            cost,
            alerts,
        }
    }

    fn check(change: impl FnOnce(&mut Report, &mut Played), kills: u32, expected: &[&str]) {
        let (mut report, mut played) = (report(), played(kills));
        change(&mut report, &mut played);
        assert_eq!(broken(&report, &played), expected);
    }

    #[test]
    fn a_clean_run_breaks_nothing() {
        check(|_, _| {}, 0, &[]);
        check(|_, _| {}, 3, &[]);
    }

    #[test]
    fn loss_and_disorder_are_never_excused() {
        for kills in [0, 3] {
            check(|report, _| report.lost = Some(2), kills, &["2 lost"]);
            check(|report, _| report.reordered = Some(1), kills, &["1 reordered"]);
            check(|report, _| report.lost = None, kills, &["lost was not judged"]);
        }
    }

    #[test]
    fn every_command_is_completed() {
        let commands = |completed| {
            let mut commands = Commands::default();
            (commands.counts.sent, commands.counts.completed) = (5, completed);
            Some(commands)
        };
        check(|report, _| report.commands = commands(5), 0, &[]);
        check(|report, _| report.commands = commands(3), 0, &["2 of 5 commands were not completed"]);
    }

    #[test]
    fn only_kills_excuse_duplicates() {
        check(|report, _| report.duplicated = Some(4), 0, &["4 duplicated"]);
        check(|report, _| report.duplicated = Some(4), 1, &[]);
    }

    #[test]
    fn alerts_that_are_missing_fail() {
        let expected = "lane alerts has 3 entries, and Event Grid 0 different events";
        check(|_, played| played.alerts.entries = 3, 0, &[expected]);
        let missed = || vec!["missed".to_owned()];
        check(|_, played| played.alerts.verdict.reasons = missed(), 0, &["missed"]);
    }

    #[test]
    fn a_run_that_proves_nothing_fails() {
        let nothing = "nothing was acknowledged and delivered, so nothing was proved";
        check(|report, _| report.acked = 0, 0, &[nothing]);
        check(|_, played| played.kills = 1, 2, &["1 of 2 kills took place before the fleet ended"]);
    }

    #[test]
    fn a_bad_end_of_the_gateway_or_of_verify_fails() {
        let killed = ExitStatus::from_raw(9);
        let gateway = "the gateway was asked to stop and ended with signal: 9 (SIGKILL)";
        check(|_, played| played.gateway = killed, 0, &[gateway]);
        check(
            |_, played| played.verify = ExitStatus::from_raw(256),
            0,
            &["penstock verify ended with exit status: 1"],
        );
    }

    #[test]
    fn the_report_gains_what_the_gateway_cost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        report().write(&file).unwrap();
        let completed = complete(&file, &played(2)).unwrap();
        assert_eq!(completed, Report::read(&file).unwrap());
        assert_eq!(completed.gateway_cpu_us_per_message, Some(30.0));
        assert_eq!((completed.gateway_rss_bytes, completed.kills), (Some(5_000_000), 2));
        assert_eq!(completed.verdict, Outcome::Pass);
    }
}
