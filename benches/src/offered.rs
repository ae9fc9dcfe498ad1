//! `offered`: how long an acknowledgement takes when devices ask for little: fifty connections, one publish in flight
//! each, at a rate far below what the server could take. What the disk takes by itself is measured in the same run.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::peer::Peer;
use crate::probe;
use crate::servers::Server;
use crate::stats;
use crate::steady::Steady;

/// The devices.
pub const DEVICES: Cell = Cell { connections: 50, window: 1 };

/// Messages per second, of all devices.
pub const RATE: u32 = 5_000;

/// Appends of one probe; there is one before each measurement, when nothing else writes.
const PROBE_APPENDS: usize = 200;

/// What the median may take beyond two syncs, in milliseconds: the gateway's commit floor.
const BEYOND_SYNCS_MS: f64 = 1.0;

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The servers.
    pub peers: Vec<Peer>,
    /// How many rounds; figures are medians over them.
    pub rounds: u32,
    /// Time under load before each measurement.
    pub warm_up: Duration,
    /// Time of each measurement.
    pub measure: Duration,
    /// Bytes of each payload.
    pub payload_bytes: usize,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The server.
    pub peer: Peer,
    /// Acknowledged per second.
    pub acked_per_second: f64,
    /// Median acknowledgement time, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// The server's processor time per message, in microseconds.
    pub cpu_us: f64,
    /// Median of append 4 KiB + fdatasync just before, in milliseconds.
    pub sync_ms: f64,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Measured seconds of each sample.
    pub seconds: f64,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Whether probe and devices got real-time priority, as the gateway's committer asks for.
    pub realtime: bool,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// Runs the measurements with the servers' data in `folder`; `progress` hears of each.
///
/// # Errors
/// A server cannot be started or a connection fails.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let payloads = Arc::new(Payloads::new(plan.payload_bytes)?);
    let (mut samples, mut realtime) = (Vec::new(), true);
    for round in 0..plan.rounds {
        for peer in Peer::order(&plan.peers, round) {
            let sample = sample(plan, folder, peer, &payloads).await;
            let (sample, priority) = sample.with_context(|| format!("round {}, {peer}", round + 1))?;
            realtime &= priority;
            progress(&format!(
                "round {}: {peer} {:.0} acked/s, p50 {:.2} ms, p99 {:.2} ms, a sync {:.3} ms",
                round + 1,
                sample.acked_per_second,
                sample.p50_ms,
                sample.p99_ms,
                sample.sync_ms
            ));
            samples.push(sample);
        }
    }
    let (seconds, payload_bytes) = (plan.measure.as_secs_f64(), plan.payload_bytes);
    let bars = Vec::new();
    let mut report =
        Report { benchmark: "offered", machine, seconds, payload_bytes, realtime, samples, bars };
    report.judge();
    Ok(report)
}

async fn sample(plan: &Plan, folder: &Path, peer: Peer, payloads: &Arc<Payloads>) -> Result<(Sample, bool)> {
    let server = Server::start(peer, folder).await?;
    let (syncs, realtime) =
        probe::run_as_committer(folder, PROBE_APPENDS).context("the probe cannot write")?;
    let devices = Steady::start(server.address(), DEVICES, payloads, RATE).await?;
    tokio::time::sleep(plan.warm_up).await;
    let cpu = server.cpu()?;
    let seen = devices.measure(plan.measure).await?;
    let cpu = server.cpu()?.saturating_sub(cpu);
    let messages = seen.acked_per_second * plan.measure.as_secs_f64();
    let sample = Sample {
        peer,
        acked_per_second: seen.acked_per_second,
        p50_ms: seen.ms(50.0),
        p99_ms: seen.ms(99.0),
        cpu_us: cpu.as_secs_f64() * 1e6 / messages.max(1.0),
        sync_ms: stats::median(&syncs).unwrap_or_default(),
    };
    Ok((sample, realtime && devices.realtime()))
}

impl Report {
    fn judge(&mut self) {
        let Some(p50) = self.median(Peer::Penstock, |sample| sample.p50_ms) else { return };
        let syncs: Vec<f64> = self.samples.iter().map(|sample| sample.sync_ms).collect();
        let limit = 2.0 * stats::median(&syncs).unwrap_or_default() + BEYOND_SYNCS_MS;
        self.bars = vec![Bar::at_most("ack p50 in ms, two syncs and 1 ms", p50, limit)];
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        Bar::all(&self.bars)
    }

    /// The run as Markdown.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "{}.", self.machine.line())?;
        let priority = if self.realtime { "with" } else { "WITHOUT" };
        writeln!(
            text,
            "{DEVICES}, {RATE} messages/s offered altogether, payload {} bytes, QoS 1, {} s per sample; probe and devices {priority} \
             real-time priority.\n",
            self.payload_bytes, self.seconds
        )?;
        writeln!(
            text,
            "| server | rounds | acked/s | ack p50 ms | ack p99 ms | append + fdatasync p50 ms | CPU µs/message |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|")?;
        for peer in [Peer::Penstock, Peer::Mosquitto, Peer::Rumqttd] {
            let rounds = self.samples.iter().filter(|sample| sample.peer == peer).count();
            let median = |of: fn(&Sample) -> f64| self.median(peer, of).unwrap_or_default();
            if rounds > 0 {
                writeln!(
                    text,
                    "| {peer} | {rounds} | {:.0} | {:.2} | {:.2} | {:.3} | {:.1} |",
                    median(|s| s.acked_per_second),
                    median(|s| s.p50_ms),
                    median(|s| s.p99_ms),
                    median(|s| s.sync_ms),
                    median(|s| s.cpu_us)
                )?;
            }
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }

    fn median(&self, peer: Peer, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let of = self.samples.iter().filter(|sample| sample.peer == peer).map(of);
        stats::median(&of.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(p50_ms: f64) -> Report {
        let sample = |peer, p50_ms| Sample {
            peer,
            acked_per_second: 5000.0,
            p50_ms,
            p99_ms: 2.0,
            cpu_us: 30.0,
            sync_ms: 0.1,
        };
        let samples = vec![sample(Peer::Penstock, p50_ms), sample(Peer::Mosquitto, 0.05)];
        let machine = Machine::look(Path::new("."));
        let mut report = Report {
            benchmark: "offered",
            machine,
            seconds: 2.5,
            payload_bytes: 200,
            realtime: false,
            samples,
            bars: Vec::new(),
        };
        report.judge();
        report
    }

    #[test]
    fn the_median_is_held_against_two_syncs_and_the_commit_floor() {
        assert!(report(1.19).pass());
        assert!(!report(1.21).pass());
        let text = report(1.0).markdown().unwrap();
        assert!(text.contains("WITHOUT real-time"), "{text}");
        assert!(text.contains("| penstock | 1 | 5000 | 1.00 | 2.00 | 0.100 | 30.0 |"), "{text}");
    }
}
