//! `uplink`: what it costs to bring stored messages to the cloud, without devices in front.
//!
//! ```text
//! way      format and security; the cloud stand-in
//! backlog  an outbox filled once and copied for every measurement
//! site     a gateway on such a copy and its cloud, which answers when told to
//! ```
//!
//! The gateway is the whole program in a process of its own. It starts with a full outbox and a cloud that takes no
//! connections; then the cloud opens, and what the gateway's process spends until everything is confirmed is
//! counted. The start is not in it. The cloud stand-in shares the machine, so rates are lower bounds.

pub mod backlog;
pub mod site;
pub mod way;

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use self::backlog::Backlog;
use self::site::{Cost, Site};
use self::way::{Format, Security, Way};
use crate::bars::Bar;
use crate::load::count;
use crate::machine::Machine;
use crate::outbox::telemetry::Telemetry;
use crate::stats;

/// Most processor time per message, in microseconds.
const BARS: [(Way, f64); 3] = [
    (Way { format: Format::PerMessage, security: Security::Plain }, 2.0),
    (Way { format: Format::PerMessage, security: Security::Tls }, 2.7),
    (Way { format: Format::Packed, security: Security::Plain }, 0.6),
];

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The ways, in turn.
    pub ways: Vec<Way>,
    /// How often; figures are medians.
    pub rounds: u32,
    /// Messages in the outbox.
    pub messages: u64,
    /// What they hold.
    pub payloads: Vec<Payload>,
}

/// What a message holds, 200 bytes each; packing as JSON lines reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// JSON with 3 members, one of them a long text: what the load over MQTT sends.
    Few,
    /// JSON with 11 members, most of them numbers.
    Many,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The way.
    pub way: Way,
    /// What the messages hold.
    pub payload: Payload,
    /// Processor time of the gateway per message, in microseconds.
    pub cpu_us: f64,
    /// Of it, the uplink's thread.
    pub uplink_us: f64,
    /// Of it, the client library's threads.
    pub client_us: f64,
    /// Messages confirmed per second.
    pub per_second: f64,
    /// The most memory that was resident, in bytes.
    pub rss_bytes_max: u64,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Messages of each measurement.
    pub messages: u64,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// Runs the measurements with all data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// The outbox cannot be filled, a program cannot be started, or nothing is confirmed for too long.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let mut backlogs = Vec::new();
    for &payload in &plan.payloads {
        backlogs.push((payload, Backlog::fill(folder, plan.messages, payload.messages()?).await?));
    }
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for &way in &plan.ways {
            for (payload, backlog) in &backlogs {
                let sample = sample(folder, backlog, way, *payload).await;
                let sample = sample.with_context(|| format!("round {round}, {way}"))?;
                progress(&format!("round {round}: {}", sample.line()));
                samples.push(sample);
            }
        }
    }
    let messages = plan.messages;
    let mut report = Report { benchmark: "uplink", machine, messages, samples, bars: Vec::new() };
    report.judge();
    Ok(report)
}

/// One gateway that sends the whole backlog.
///
/// # Errors
/// As [`run`].
pub async fn sample(folder: &Path, backlog: &Backlog, way: Way, payload: Payload) -> Result<Sample> {
    let site = Site::start(folder, backlog, way)?;
    Ok(Sample::new(way, payload, &site.drain(backlog.messages()).await?))
}

impl Payload {
    fn messages(self) -> Result<Telemetry> {
        Ok(match self {
            Self::Few => Telemetry::with_few_members()?,
            Self::Many => Telemetry::new()?,
        })
    }

    const fn members(self) -> u32 {
        match self {
            Self::Few => 3,
            Self::Many => 11,
        }
    }
}

impl Sample {
    fn new(way: Way, payload: Payload, cost: &Cost) -> Self {
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / count(cost.messages).max(1.0);
        Self {
            way,
            payload,
            cpu_us: each(cost.cpu),
            uplink_us: each(cost.uplink),
            client_us: each(cost.client),
            per_second: cost.per_second,
            rss_bytes_max: cost.rss_bytes_max,
        }
    }

    fn line(&self) -> String {
        let Self { way, payload, cpu_us, uplink_us, client_us, per_second, rss_bytes_max } = self;
        let members = payload.members();
        format!(
            "{way}, {members} members: {cpu_us:.2} µs/message (uplink {uplink_us:.2}, client library {client_us:.2}), {per_second:.0}/s, \
             {:.0} MB",
            count(*rss_bytes_max) / 1e6
        )
    }
}

impl Report {
    fn judge(&mut self) {
        let bars = BARS.iter().filter_map(|&(way, limit)| {
            let cpu = self.median((way, Payload::Few), |sample| sample.cpu_us)?;
            Some(Bar::at_most(format!("processor time per message, {way}, µs"), cpu, limit))
        });
        self.bars = bars.collect();
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        self.bars.iter().all(|bar| bar.pass)
    }

    fn of(&self, row: (Way, Payload)) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| (sample.way, sample.payload) == row)
    }

    fn median(&self, row: (Way, Payload), of: impl Fn(&Sample) -> f64) -> Option<f64> {
        stats::median(&self.of(row).map(of).collect::<Vec<_>>())
    }

    /// The run as Markdown.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "{}.", self.machine.line())?;
        writeln!(
            text,
            "{} messages of 200 bytes from 1000 devices, stored before; JSON with 3 or 11 members.\n",
            self.messages
        )?;
        writeln!(
            text,
            "| way | members | rounds | CPU µs/message, median (range) | uplink's thread | client library | the rest | messages/s | peak RSS MB |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        let mut rows: Vec<_> = self.samples.iter().map(|sample| (sample.way, sample.payload)).collect();
        rows.sort_unstable();
        rows.dedup();
        for row @ (way, payload) in rows {
            let all: Vec<f64> = self.of(row).map(|sample| sample.cpu_us).collect();
            let (low, high) = stats::range(&all).unwrap_or_default();
            let median = |of: fn(&Sample) -> f64| self.median(row, of).unwrap_or_default();
            writeln!(
                text,
                "| {way} | {} | {} | {:.2} ({low:.2} to {high:.2}) | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
                payload.members(),
                all.len(),
                median(|s| s.cpu_us),
                median(|s| s.uplink_us),
                median(|s| s.client_us),
                median(|s| s.cpu_us - s.uplink_us - s.client_us),
                median(|s| s.per_second),
                median(|s| count(s.rss_bytes_max) / 1e6),
            )?;
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Way = Way { format: Format::PerMessage, security: Security::Plain };

    fn sample(cpu_us: f64) -> Sample {
        Sample {
            way: PLAIN,
            payload: Payload::Few,
            cpu_us,
            uplink_us: 1.0,
            client_us: 0.5,
            per_second: 1000.0,
            rss_bytes_max: 50_000_000,
        }
    }

    fn report(samples: Vec<Sample>) -> Report {
        let machine = Machine::look(Path::new("."));
        let mut report = Report { benchmark: "uplink", machine, messages: 1, samples, bars: Vec::new() };
        report.judge();
        report
    }

    #[test]
    fn the_table_has_a_line_per_way_and_its_bar() {
        let report = report(vec![sample(1.5), sample(9.0), sample(1.75)]);
        let text = report.markdown().unwrap();
        let line = "| per-message plain | 3 | 3 | 1.75 (1.50 to 9.00) | 1.00 | 0.50 | 0.25 | 1000 | 50 |";
        assert!(text.contains(line), "{text}");
        assert!(report.pass() && text.contains("per-message plain, µs | 1.75 | 2.00 | met |"), "{text}");
    }

    #[test]
    fn what_is_dearer_than_its_bar_fails() {
        assert!(!report(vec![sample(2.5)]).pass());
    }
}
