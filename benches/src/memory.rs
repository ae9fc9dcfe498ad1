//! `memory`: what an outage of the cloud costs in resident memory, while devices go on publishing and while the
//! backlog goes afterwards.

use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::clock::now;
use crate::load::{Running, count};
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::servers::Server;
use crate::stats;
use crate::uplink::way::{Sky, Way};

/// Messages per second, and the devices they come from.
const RATE: u32 = 20_000;
const DEVICES: Cell = Cell { connections: 1000, window: 16 };
/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 200;
/// How long the devices publish before the memory without an outage is taken.
const STEADY: Duration = Duration::from_secs(10);
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest time for the backlog to go.
const DRAIN_WITHIN: Duration = Duration::from_secs(180);
/// Most bytes that an outage and what follows may add.
const GROWTH_MAX: f64 = 120e6;

/// How the cloud is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Away {
    /// Connections are cut, and new ones are closed at once.
    Closed,
    /// Connections stay and nothing is answered.
    Silent,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The ways, in turn.
    pub ways: Vec<Way>,
    /// How often; figures are medians.
    pub rounds: u32,
    /// How long the cloud is away.
    pub outage: Duration,
}

/// The figures of one measurement, all of resident memory in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The way.
    pub way: Way,
    /// How the cloud was away.
    pub away: Away,
    /// With devices and a cloud that answers.
    pub steady: u64,
    /// The most while the cloud was away.
    pub outage: u64,
    /// The most while the backlog went.
    pub drain: u64,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Seconds of each outage.
    pub outage_seconds: f64,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
        })
    }
}

/// Runs the measurements with all data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// A program cannot be started, a connection fails, or the backlog does not go.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for &way in &plan.ways {
            for away in [Away::Closed, Away::Silent] {
                let sample = sample(folder, way, away, plan.outage).await;
                let sample = sample.with_context(|| format!("round {round}, {way} {away}"))?;
                progress(&format!("round {round}: {}", sample.line()));
                samples.push(sample);
            }
        }
    }
    let outage_seconds = plan.outage.as_secs_f64();
    let mut report = Report { benchmark: "memory", machine, outage_seconds, samples, bars: Vec::new() };
    report.judge();
    Ok(report)
}

async fn sample(folder: &Path, way: Way, away: Away, outage: Duration) -> Result<Sample> {
    let mut sky = Sky::start(folder)?;
    let gateway = Server::gateway_with(folder, sky.config(way)?, None)?;
    let payloads = Arc::new(Payloads::new(PAYLOAD_BYTES)?);
    let mut devices = Running::start(gateway.address(), DEVICES, &payloads, Some(RATE)).await?;
    let steady = most(&gateway, STEADY).await?;
    match away {
        Away::Closed => {
            sky.cloud.control().accepting(false)?;
            sky.cloud.control().cut()?;
        }
        Away::Silent => sky.cloud.process().signal("STOP")?,
    }
    let during = most(&gateway, outage).await?;
    match away {
        Away::Closed => sky.cloud.control().accepting(true)?,
        Away::Silent => sky.cloud.process().signal("CONT")?,
    }
    devices.check()?;
    let acked = devices.stop().await;
    let (deadline, mut drain) = (now() + DRAIN_WITHIN, 0);
    while gateway.confirmed()? < acked {
        if now() > deadline {
            bail!("the backlog does not go within {DRAIN_WITHIN:?}");
        }
        drain = drain.max(most(&gateway, LOOK_EVERY).await?);
    }
    Ok(Sample { way, away, steady, outage: during, drain })
}

/// The most memory resident at any look within this time.
async fn most(gateway: &Server, time: Duration) -> Result<u64> {
    let (end, mut most) = (now() + time, 0);
    loop {
        most = most.max(gateway.usage()?.rss_bytes);
        if now() >= end {
            return Ok(most);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Sample {
    fn growth(&self) -> f64 {
        count(self.outage.max(self.drain).saturating_sub(self.steady))
    }

    fn line(&self) -> String {
        let mb = |bytes| count(bytes) / 1e6;
        let Self { way, away, steady, outage, drain } = self;
        format!(
            "{way}, {away}: {:.0} MB steady, {:.0} away, {:.0} draining",
            mb(*steady),
            mb(*outage),
            mb(*drain)
        )
    }
}

impl Report {
    fn rows(&self) -> Vec<(Way, Away)> {
        let mut rows: Vec<_> = Vec::new();
        for row in self.samples.iter().map(|sample| (sample.way, sample.away)) {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows
    }

    fn median(&self, row: (Way, Away), of: impl Fn(&Sample) -> f64) -> f64 {
        let all = self.samples.iter().filter(|sample| (sample.way, sample.away) == row);
        stats::median(&all.map(of).collect::<Vec<_>>()).unwrap_or_default()
    }

    fn judge(&mut self) {
        for row @ (way, away) in self.rows() {
            let growth = self.median(row, Sample::growth) / 1e6;
            let name = format!("resident memory that an outage adds, {way}, {away}, MB");
            self.bars.push(Bar::at_most(name, growth, GROWTH_MAX / 1e6));
        }
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        self.bars.iter().all(|bar| bar.pass)
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
            "{RATE} messages/s of {PAYLOAD_BYTES} bytes from {} devices; the cloud away for {} s.\n",
            DEVICES.connections, self.outage_seconds
        )?;
        writeln!(text, "| way | the cloud is | rounds | RSS MB, steady | away | draining |")?;
        writeln!(text, "|---|---|---|---|---|---|")?;
        for row @ (way, away) in self.rows() {
            let rounds = self.samples.iter().filter(|sample| (sample.way, sample.away) == row).count();
            let median = |of: fn(&Sample) -> u64| self.median(row, |sample| count(of(sample)) / 1e6);
            writeln!(
                text,
                "| {way} | {away} | {rounds} | {:.0} | {:.0} | {:.0} |",
                median(|s| s.steady),
                median(|s| s.outage),
                median(|s| s.drain)
            )?;
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::way::{Format, Security};

    fn report(outage: u64, drain: u64) -> Report {
        let (way, away) = (Way { format: Format::PerMessage, security: Security::Tls }, Away::Silent);
        let samples = vec![Sample { way, away, steady: 50_000_000, outage, drain }];
        let machine = Machine::look(Path::new("."));
        let mut report =
            Report { benchmark: "memory", machine, outage_seconds: 60.0, samples, bars: Vec::new() };
        report.judge();
        report
    }

    #[test]
    fn the_most_of_outage_and_drain_counts() {
        assert!(report(170_000_000, 160_000_000).pass());
        assert!(!report(170_000_000, 171_000_000).pass());
        assert!(!report(180_000_000, 60_000_000).pass());
    }

    #[test]
    fn the_table_has_a_line_per_format_and_outage() {
        let text = report(150_000_000, 160_000_000).markdown().unwrap();
        assert!(text.contains("| per-message TLS | silent | 1 | 50 | 150 | 160 |"), "{text}");
        assert!(text.contains("| 110 | 120 | met |"), "{text}");
    }
}
