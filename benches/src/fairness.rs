//! `fairness`: one connection that publishes as much as it may, beside many that publish little: what the many notice.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use testkit::gateway::Config;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::clock::now;
use crate::load::{Running, count};
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::peer::Peer;
use crate::servers::{Server, TELEMETRY, Wish};
use crate::stats;
use crate::steady::{Seen, Steady};

/// The many, and what they publish altogether, in messages per second.
pub const MANY: Cell = Cell { connections: 1000, window: 1 };
/// See [`MANY`].
pub const RATE: u32 = 2_000;

/// The one.
pub const GREEDY: Cell = Cell { connections: 1, window: 100 };

/// Bytes of its payloads, and how many different ones there are: 16 MiB.
const GREEDY_BYTES: usize = 256 * 1024;
const GREEDY_PAYLOADS: usize = 64;

/// Bytes of the others' payloads.
const PAYLOAD_BYTES: usize = 200;

/// Largest packet that the gateway is set to take; its default is 256 KiB with everything around the payload.
const PACKET_BYTES_MAX: &str = "packet_bytes_max = \"300KiB\"";

/// Largest ratio of the many's 99th percentile with the one to without.
const P99_RATIO: f64 = 2.0;

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
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The server.
    pub peer: Peer,
    /// Median of the many's acknowledgement time alone, in milliseconds.
    pub p50_alone_ms: f64,
    /// 99th percentile of it.
    pub p99_alone_ms: f64,
    /// Median of the many's acknowledgement time with the one, in milliseconds.
    pub p50_with_ms: f64,
    /// 99th percentile of it.
    pub p99_with_ms: f64,
    /// Payload that the one had acknowledged meanwhile, in megabytes per second.
    pub greedy_mb_per_second: f64,
    /// The many's messages acknowledged per second meanwhile.
    pub acked_per_second: f64,
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
    /// Whether the many's thread got real-time priority.
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
    let (mut samples, mut realtime) = (Vec::new(), true);
    for round in 0..plan.rounds {
        for peer in Peer::order(&plan.peers, round) {
            let sample = sample(plan, folder, peer).await;
            let (sample, priority) = sample.with_context(|| format!("round {}, {peer}", round + 1))?;
            realtime &= priority;
            progress(&format!("round {}: {}", round + 1, sample.line()));
            samples.push(sample);
        }
    }
    let (seconds, bars) = (plan.measure.as_secs_f64(), Vec::new());
    let mut report = Report { benchmark: "fairness", machine, seconds, realtime, samples, bars };
    report.judge();
    Ok(report)
}

async fn sample(plan: &Plan, folder: &Path, peer: Peer) -> Result<(Sample, bool)> {
    let wish = Wish {
        config: Config::default().set("mqtt", PACKET_BYTES_MAX),
        consumed: Some(TELEMETRY),
        ..Wish::default()
    };
    let server = Server::start_with(peer, folder, wish).await?;
    let payloads = Arc::new(Payloads::new(PAYLOAD_BYTES)?);
    let large = Arc::new(Payloads::few(GREEDY_BYTES, GREEDY_PAYLOADS)?);
    let many = Steady::start(server.address(), MANY, &payloads, RATE).await?;
    tokio::time::sleep(plan.warm_up).await;
    let alone = many.measure(plan.measure).await?;
    let mut greedy = Running::start_as(server.address(), GREEDY, &large, None, "greedy-").await?;
    tokio::time::sleep(plan.warm_up).await;
    let (start, acked) = (now(), greedy.acked());
    let with = many.measure(plan.measure).await?;
    let greedy_mb_per_second = megabytes(greedy.acked() - acked) / start.elapsed().as_secs_f64();
    greedy.check()?;
    greedy.stop().await;
    Ok((Sample::new(peer, &alone, &with, greedy_mb_per_second), many.realtime()))
}

fn megabytes(messages: u64) -> f64 {
    let bytes = u64::try_from(GREEDY_BYTES).map_or(0.0, count);
    count(messages) * bytes / 1e6
}

impl Sample {
    fn new(peer: Peer, alone: &Seen, with: &Seen, greedy_mb_per_second: f64) -> Self {
        Self {
            peer,
            p50_alone_ms: alone.ms(50.0),
            p99_alone_ms: alone.ms(99.0),
            p50_with_ms: with.ms(50.0),
            p99_with_ms: with.ms(99.0),
            greedy_mb_per_second,
            acked_per_second: with.acked_per_second,
        }
    }

    fn ratio(&self) -> f64 {
        self.p99_with_ms / self.p99_alone_ms.max(1e-3)
    }

    fn line(&self) -> String {
        format!(
            "{}: p99 {:.2} ms alone, {:.2} ms beside {:.0} MB/s",
            self.peer, self.p99_alone_ms, self.p99_with_ms, self.greedy_mb_per_second
        )
    }
}

impl Report {
    fn judge(&mut self) {
        let ratio = self.median(Peer::Penstock, Sample::ratio);
        let bar =
            ratio.map(|ratio| Bar::at_most("ack p99 of the many with the one ÷ without", ratio, P99_RATIO));
        self.bars = bar.into_iter().collect();
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
            "The many: {} devices, {RATE} messages/s altogether, {PAYLOAD_BYTES} bytes, {priority} real-time priority. The one: {} in \
             flight, {} KiB. QoS 1, {} s per sample.\n",
            MANY.connections,
            GREEDY.window,
            GREEDY_BYTES / 1024,
            self.seconds
        )?;
        writeln!(
            text,
            "| server | rounds | ack p50 ms alone | p99 | ack p50 ms with the one | p99 | p99 ratio | the one, MB/s | the many, acked/s |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        for peer in [Peer::Penstock, Peer::Mosquitto, Peer::Rumqttd] {
            let median = |of: fn(&Sample) -> f64| self.median(peer, of).unwrap_or_default();
            let rounds = self.samples.iter().filter(|sample| sample.peer == peer).count();
            if rounds > 0 {
                writeln!(
                    text,
                    "| {peer} | {rounds} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
                    median(|s| s.p50_alone_ms),
                    median(|s| s.p99_alone_ms),
                    median(|s| s.p50_with_ms),
                    median(|s| s.p99_with_ms),
                    median(Sample::ratio),
                    median(|s| s.greedy_mb_per_second),
                    median(|s| s.acked_per_second)
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

    fn report(peer: Peer, p99_with_ms: f64) -> Report {
        let sample = Sample {
            peer,
            p50_alone_ms: 0.5,
            p99_alone_ms: 1.5,
            p50_with_ms: 0.75,
            p99_with_ms,
            greedy_mb_per_second: 200.0,
            acked_per_second: 2000.0,
        };
        let machine = Machine::look(Path::new("."));
        let (samples, bars) = (vec![sample], Vec::new());
        let mut report =
            Report { benchmark: "fairness", machine, seconds: 2.5, realtime: true, samples, bars };
        report.judge();
        report
    }

    #[test]
    fn the_many_may_wait_twice_as_long() {
        assert!(report(Peer::Penstock, 3.0).pass());
        assert!(!report(Peer::Penstock, 3.1).pass());
        assert!(report(Peer::Mosquitto, 90.0).bars.is_empty());
        let text = report(Peer::Penstock, 3.0).markdown().unwrap();
        assert!(text.contains("| penstock | 1 | 0.50 | 1.50 | 0.75 | 3.00 | 2.00 | 200 | 2000 |"), "{text}");
    }

    #[test]
    fn megabytes_are_of_payload() {
        assert!((megabytes(1000) - 262.144).abs() < 1e-9);
    }
}
