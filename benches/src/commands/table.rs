//! The table of `commands` and its bars.

use std::fmt::{self, Write};

use serde::Serialize;

use super::{Plan, Sample};
use crate::bars::Bar;
use crate::load::count;
use crate::machine::Machine;
use crate::stats;

/// Fewest sessions accepted per second.
const ACCEPTS_MIN: f64 = 4000.0;
/// Most resident bytes per link: 40 KB.
const LINK_BYTES_MAX: f64 = 40_000.0;
/// Longest time from handing a command over to its settlement, of 99 in 100, in milliseconds.
const P99_MS_MAX: f64 = 20.0;
/// Largest share of renewals that come more than a second later than planned.
const LATE_SHARE_MAX: f64 = 0.01;

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Connected devices.
    pub devices: u32,
    /// Commands per second.
    pub rate: u32,
    /// Seconds that count in each round.
    pub seconds: f64,
    /// Every round.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

impl Report {
    pub(super) fn new(machine: Machine, plan: &Plan, samples: Vec<Sample>) -> Self {
        let Plan { devices, rate, measure, .. } = *plan;
        let seconds = measure.as_secs_f64();
        let mut report =
            Self { benchmark: "commands", machine, devices, rate, seconds, samples, bars: Vec::new() };
        report.judge();
        report
    }

    fn judge(&mut self) {
        let median = |of: fn(&Sample) -> f64| self.median(of).unwrap_or(f64::INFINITY);
        let sum = |of: fn(&Sample) -> u64| count(self.samples.iter().map(of).sum());
        self.bars = vec![
            // Without a sample there is no rate.
            Bar::at_least(
                "sessions accepted per second",
                self.median(|s| s.accepts_per_second).unwrap_or(0.0),
                ACCEPTS_MIN,
            ),
            Bar::at_most("resident bytes per link", median(|s| s.bytes_per_link), LINK_BYTES_MAX),
            Bar::at_most("p99 from sent to settled, ms", median(|s| s.p99_ms), P99_MS_MAX),
            Bar::at_most("share of renewals more than 1 s late", median(|s| s.late_share), LATE_SHARE_MAX),
            Bar::at_most("locks lost", sum(|s| s.locks_lost), 0.0),
            Bar::at_most("commands never settled", sum(|s| s.stuck), 0.0),
        ];
    }

    fn median(&self, of: fn(&Sample) -> f64) -> Option<f64> {
        stats::median(&self.samples.iter().map(of).collect::<Vec<_>>())
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        Bar::all(&self.bars)
    }

    /// The run as Markdown.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn markdown(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        writeln!(text, "{}.", self.machine.line())?;
        writeln!(
            text,
            "{} devices on one connection to the stand-in, {} commands/s, {} s per round.\n",
            self.devices, self.rate, self.seconds
        )?;
        writeln!(
            text,
            "| round | accepts/s | bytes per link | settled | p50 ms | p99 ms | renewals | late | locks lost | CPU µs/command |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|---|")?;
        for (round, sample) in (1..).zip(&self.samples) {
            writeln!(
                text,
                "| {round} | {:.0} | {:.0} | {} | {:.1} | {:.1} | {} | {:.1} % | {} | {:.0} |",
                sample.accepts_per_second,
                sample.bytes_per_link,
                sample.settled,
                sample.p50_ms,
                sample.p99_ms,
                sample.renewals,
                sample.late_share * 100.0,
                sample.locks_lost,
                sample.cpu_us
            )?;
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }
}

/// The share of renewals that came more than a second late, from the gateway's metrics; all of them where the
/// metrics know of none, so that a renamed metric is no good result.
pub(super) fn late_share(metrics: &str) -> f64 {
    const NAME: &str = "penstock_commands_renewal_delay_seconds";
    let value = |suffix: &str| -> Option<f64> {
        let line = metrics.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix(suffix))?;
        line.trim().parse().ok()
    };
    match (value("_count"), value("_bucket{le=\"1\"}")) {
        (Some(all), Some(in_time)) if all > 0.0 => (all - in_time) / all,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn sample() -> Sample {
        Sample {
            accepts_per_second: 5000.0,
            bytes_per_link: 30_000.0,
            settled: 10_000,
            stuck: 0,
            p50_ms: 3.0,
            p99_ms: 12.0,
            renewals: 4000,
            late_share: 0.0,
            locks_lost: 0,
            cpu_us: 150.0,
        }
    }

    fn check(change: impl FnOnce(&mut Sample), missed: &[usize]) {
        let mut sample = sample();
        change(&mut sample);
        let plan = Plan {
            devices: 4000,
            rate: 1000,
            rounds: 1,
            warm_up: Duration::ZERO,
            measure: Duration::from_secs(10),
        };
        let report = Report::new(Machine::look(Path::new(".")), &plan, vec![sample]);
        let found: Vec<usize> =
            report.bars.iter().enumerate().filter(|(_, bar)| !bar.pass).map(|(place, _)| place).collect();
        assert_eq!(found, missed);
        assert_eq!(report.pass(), missed.is_empty());
        assert!(report.markdown().unwrap().contains("4000 devices on one connection"));
    }

    #[test]
    fn each_figure_has_its_bar() {
        check(|_| (), &[]);
        check(|sample| sample.accepts_per_second = 3999.0, &[0]);
        check(|sample| sample.bytes_per_link = 40_001.0, &[1]);
        check(|sample| sample.p99_ms = 20.1, &[2]);
        check(|sample| sample.late_share = 0.02, &[3]);
        check(|sample| sample.locks_lost = 1, &[4]);
        check(|sample| sample.stuck = 1, &[5]);
    }

    #[test]
    fn late_renewals_are_those_above_the_bucket_of_a_second() {
        let metrics = "penstock_commands_renewal_delay_seconds_bucket{le=\"0.5\"} 3\n\
            penstock_commands_renewal_delay_seconds_bucket{le=\"1\"} 6\n\
            penstock_commands_renewal_delay_seconds_count 8\n";
        assert!((late_share(metrics) - 0.25).abs() < 1e-9);
        assert!((late_share("") - 1.0).abs() < 1e-9);
    }
}
