//! `drain`: a backlog goes to the cloud while devices go on publishing, held against what the same way reaches
//! without them.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::clock::now;
use crate::load::{Running, count};
use crate::machine::Machine;
use crate::outbox::telemetry::Telemetry;
use crate::packets::Payloads;
use crate::stats;
use crate::uplink::Payload;
use crate::uplink::backlog::Backlog;
use crate::uplink::site::Site;
use crate::uplink::way::Way;

/// Messages per second that arrive meanwhile.
pub const RATE: u32 = 20_000;

/// Connections and window of the devices.
const DEVICES: Cell = Cell { connections: 100, window: 64 };

/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 200;

/// How long the devices publish before anything is measured, and then without a cloud.
const WARM_UP: Duration = Duration::from_secs(1);
const ALONE: Duration = Duration::from_secs(4);

/// Least share of the way's own rate at which the backlog goes, and of the live rate that is kept.
const DRAIN_SHARE: f64 = 0.6;
const LIVE_SHARE: f64 = 0.95;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The ways, in turn.
    pub ways: Vec<Way>,
    /// How often; figures are medians.
    pub rounds: u32,
    /// Payload bytes of the backlog.
    pub backlog_bytes: u64,
    /// Messages sent to learn what the way reaches alone.
    pub reference_messages: u64,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The way.
    pub way: Way,
    /// Messages per second without devices.
    pub alone_per_second: f64,
    /// Messages of the backlog per second with them.
    pub drained_per_second: f64,
    /// Acknowledged per second while the cloud was away.
    pub live_before: f64,
    /// Acknowledged per second while the backlog went.
    pub live_during: f64,
    /// 99th percentile of the acknowledgement time while the cloud was away, in milliseconds.
    pub ack_p99_before_ms: f64,
    /// The same while the backlog went.
    pub ack_p99_during_ms: f64,
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
    /// Messages in the backlog.
    pub messages: u64,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// Runs the measurements with all data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// The outbox cannot be filled, a program cannot be started, a connection fails, or nothing is confirmed for too
/// long.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let reference = Backlog::fill(folder, plan.reference_messages, Telemetry::with_few_members()?).await?;
    let messages = plan.backlog_bytes / PAYLOAD_BYTES as u64;
    let backlog = Backlog::fill(folder, messages, Telemetry::with_few_members()?).await?;
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for &way in &plan.ways {
            let sample = sample(folder, &reference, &backlog, way).await;
            let sample = sample.with_context(|| format!("round {round}, {way}"))?;
            progress(&format!("round {round}: {}", sample.line()));
            samples.push(sample);
        }
    }
    let messages = backlog.messages();
    let mut report = Report { benchmark: "drain", machine, messages, samples, bars: Vec::new() };
    report.judge();
    Ok(report)
}

async fn sample(folder: &Path, reference: &Backlog, backlog: &Backlog, way: Way) -> Result<Sample> {
    let alone = crate::uplink::sample(folder, reference, way, Payload::Few).await?;
    let site = Site::start(folder, backlog, way)?;
    let payloads = Arc::new(Payloads::new(PAYLOAD_BYTES)?);
    let mut devices = Running::start(site.gateway.address(), DEVICES, &payloads, Some(RATE)).await?;
    tokio::time::sleep(WARM_UP).await;
    devices.restart_latency();
    let (start, acked) = (now(), devices.acked());
    tokio::time::sleep(ALONE).await;
    let live_before = count(devices.acked() - acked) / start.elapsed().as_secs_f64();
    let ack_p99_before_ms = p99_ms(&devices);
    devices.restart_latency();
    let (start, acked) = (now(), devices.acked());
    // What is older is sent first, so the backlog has gone when so many are confirmed.
    let drained = site.drain(backlog.messages()).await?;
    let live_during = count(devices.acked() - acked) / start.elapsed().as_secs_f64();
    let ack_p99_during_ms = p99_ms(&devices);
    devices.check()?;
    devices.stop().await;
    Ok(Sample {
        way,
        alone_per_second: alone.per_second,
        drained_per_second: drained.per_second,
        live_before,
        live_during,
        ack_p99_before_ms,
        ack_p99_during_ms,
        rss_bytes_max: drained.rss_bytes_max,
    })
}

fn p99_ms(devices: &Running) -> f64 {
    count(devices.latency().value_at_percentile(99.0)) / 1e3
}

impl Sample {
    fn drain_share(&self) -> f64 {
        self.drained_per_second / self.alone_per_second.max(1e-9)
    }

    fn live_share(&self) -> f64 {
        // More than the rate comes only while devices make up for a pause before.
        self.live_during / self.live_before.min(f64::from(RATE)).max(1e-9)
    }

    fn line(&self) -> String {
        format!(
            "{} {:.0} drained/s, {:.2} of the way alone; live {:.0} acked/s, {:.2} of before",
            self.way,
            self.drained_per_second,
            self.drain_share(),
            self.live_during,
            self.live_share()
        )
    }
}

impl Report {
    fn judge(&mut self) {
        for way in self.ways() {
            let (drain, live) = (self.median(way, Sample::drain_share), self.median(way, Sample::live_share));
            self.bars.push(Bar::at_least(
                format!("backlog, share of the way alone, {way}"),
                drain,
                DRAIN_SHARE,
            ));
            self.bars.push(Bar::at_least(format!("live ingest, share kept, {way}"), live, LIVE_SHARE));
        }
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        self.bars.iter().all(|bar| bar.pass)
    }

    fn ways(&self) -> Vec<Way> {
        let mut ways: Vec<Way> = self.samples.iter().map(|sample| sample.way).collect();
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    fn median(&self, way: Way, of: impl Fn(&Sample) -> f64) -> f64 {
        let all: Vec<f64> = self.samples.iter().filter(|sample| sample.way == way).map(of).collect();
        stats::median(&all).unwrap_or_default()
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
            "{} messages of {PAYLOAD_BYTES} bytes stored before, {RATE} messages/s from {} devices meanwhile.\n",
            self.messages, DEVICES.connections
        )?;
        writeln!(
            text,
            "| way | drained/s | alone/s | share | live acked/s, cloud away | while draining | share | ack p99 ms, away | while draining | peak RSS MB |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|---|")?;
        for way in self.ways() {
            let median = |of: fn(&Sample) -> f64| self.median(way, of);
            writeln!(
                text,
                "| {way} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {:.0} |",
                median(|s| s.drained_per_second),
                median(|s| s.alone_per_second),
                median(Sample::drain_share),
                median(|s| s.live_before),
                median(|s| s.live_during),
                median(Sample::live_share),
                median(|s| s.ack_p99_before_ms),
                median(|s| s.ack_p99_during_ms),
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
    use crate::uplink::way::{Format, Security};

    fn report(drained_per_second: f64, live_during: f64) -> Report {
        let sample = Sample {
            way: Way { format: Format::Packed, security: Security::Plain },
            alone_per_second: 1000.0,
            drained_per_second,
            live_before: 100.0,
            live_during,
            ack_p99_before_ms: 1.0,
            ack_p99_during_ms: 2.0,
            rss_bytes_max: 1,
        };
        let machine = Machine::look(Path::new("."));
        let mut report =
            Report { benchmark: "drain", machine, messages: 1, samples: vec![sample], bars: Vec::new() };
        report.judge();
        report
    }

    #[test]
    fn both_shares_have_a_bar() {
        assert!(report(600.0, 95.0).pass());
        assert!(!report(590.0, 95.0).pass());
        assert!(!report(600.0, 94.0).pass());
    }

    #[test]
    fn the_table_has_a_line_per_way() {
        let text = report(700.0, 96.0).markdown().unwrap();
        assert!(text.contains("| packed plain | 700 | 1000 | 0.70 | 100 | 96 | 0.96 |"), "{text}");
    }
}
