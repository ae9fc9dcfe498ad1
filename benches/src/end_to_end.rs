//! `end-to-end`: the same load with the uplink on, until everything stored has arrived in the cloud stand-in.
//!
//! The closed loop offers more than the uplink carries, so the outbox fills under load and drains afterwards: the
//! figure is the gateway's processor time for the whole way of a message. There are no bars; the stand-in shares
//! the machine.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use testkit::cloud::Cloud;

use crate::cell::Cell;
use crate::clock::now;
use crate::ingest::Plan;
use crate::load::{self, Load, count};
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::servers::{self, Server, TOPIC};
use crate::stats;

/// Longest time for the outbox to drain after the load.
const DRAIN_WITHIN: Duration = Duration::from_secs(180);

/// How often the cloud is asked how much arrived.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The cell.
    pub cell: Cell,
    /// The gateway's processor time, socket to cloud, per message that arrived, in microseconds.
    pub cpu_us: f64,
    /// Acknowledged messages per second under load.
    pub acked_per_second: f64,
    /// Messages that arrived, per second from the start of the load to the last of them.
    pub delivered_per_second: f64,
    /// Median acknowledgement time under load, in milliseconds.
    pub ack_p50_ms: f64,
    /// 99th percentile of it.
    pub ack_p99_ms: f64,
    /// Peak of the resident memory seen at the end of load and drain, in bytes.
    pub rss_bytes: u64,
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
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
}

/// Runs the measurements with the servers' data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// A server cannot be started, a connection fails, or the outbox does not drain.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let payloads = Arc::new(Payloads::new(plan.payload_bytes)?);
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for &cell in &plan.cells {
            let sample = sample(plan, folder, cell, &payloads).await;
            let sample = sample.with_context(|| format!("round {round}, {cell}"))?;
            progress(&format!(
                "round {round}: {cell} {:.2} µs/message, {:.0} acked/s, {:.0} delivered/s",
                sample.cpu_us, sample.acked_per_second, sample.delivered_per_second
            ));
            samples.push(sample);
        }
    }
    let seconds = plan.measure.as_secs_f64();
    Ok(Report { benchmark: "end-to-end", machine, seconds, payload_bytes: plan.payload_bytes, samples })
}

async fn sample(plan: &Plan, folder: &Path, cell: Cell, payloads: &Arc<Payloads>) -> Result<Sample> {
    let (cloud, _cloud_folder) = servers::cloud(folder)?;
    let server = Server::gateway(folder, Some(&cloud))?;
    let load = Load {
        address: server.address(),
        cell,
        payloads: Arc::clone(payloads),
        warm_up: plan.warm_up,
        measure: plan.measure,
    };
    let start = now();
    let outcome = load::run(&load, || Ok(server.usage()?.cpu)).await?;
    let loaded = server.usage()?;
    let delivered = drained(&cloud, outcome.acked_total).await?;
    let elapsed = start.elapsed();
    let usage = server.usage()?;
    Ok(Sample {
        cell,
        cpu_us: usage.cpu.as_secs_f64() * 1e6 / count(delivered).max(1.0),
        acked_per_second: outcome.acked_per_second(),
        delivered_per_second: count(delivered) / elapsed.as_secs_f64(),
        ack_p50_ms: outcome.latency_ms(50.0),
        ack_p99_ms: outcome.latency_ms(99.0),
        rss_bytes: usage.rss_bytes.max(loaded.rss_bytes),
    })
}

/// Waits until as many messages arrived as were acknowledged; how many did. Those that were stored and not
/// acknowledged any more when the load ended may come on top.
async fn drained(cloud: &Cloud, acked: u64) -> Result<u64> {
    let deadline = now() + DRAIN_WITHIN;
    loop {
        let topics = cloud.control().topics().context("the cloud stand-in does not say what it has")?;
        let arrived = arrived(&topics, TOPIC.0).context("the cloud stand-in's topics are not understood")?;
        if arrived >= acked {
            return Ok(arrived);
        }
        if now() > deadline {
            bail!("only {arrived} of {acked} acknowledged messages arrived within {DRAIN_WITHIN:?}");
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The records of a topic: the sum of its partitions' next offsets.
fn arrived(topics: &Value, name: &str) -> Option<u64> {
    let partitions = topics.get(name)?.get("partitions")?.as_array()?;
    partitions.iter().map(|partition| partition.get("high_watermark")?.as_u64()).sum()
}

impl Report {
    /// The run as Markdown.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn markdown(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "{}.", self.machine.line())?;
        writeln!(text, "Payload {} bytes, QoS 1, {} s under load.\n", self.payload_bytes, self.seconds)?;
        writeln!(
            text,
            "| cell | rounds | CPU µs/message to the cloud | acked/s | delivered/s | ack p50 ms | ack p99 ms | memory MB |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|")?;
        let mut cells: Vec<Cell> = self.samples.iter().map(|sample| sample.cell).collect();
        cells.sort_unstable_by_key(|cell| (cell.connections, cell.window));
        cells.dedup();
        for cell in cells {
            let all: Vec<&Sample> = self.samples.iter().filter(|sample| sample.cell == cell).collect();
            let median = |of: fn(&Sample) -> f64| {
                stats::median(&all.iter().map(|sample| of(sample)).collect::<Vec<_>>()).unwrap_or_default()
            };
            writeln!(
                text,
                "| {cell} | {} | {:.2} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} |",
                all.len(),
                median(|s| s.cpu_us),
                median(|s| s.acked_per_second),
                median(|s| s.delivered_per_second),
                median(|s| s.ack_p50_ms),
                median(|s| s.ack_p99_ms),
                median(|s| count(s.rss_bytes) / 1e6)
            )?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arrived_adds_the_partitions_up() {
        let topics = json!({"telemetry": {"partitions": [{"high_watermark": 3}, {"high_watermark": 4}]}});
        assert_eq!(arrived(&topics, "telemetry"), Some(7));
        assert_eq!(arrived(&topics, "other"), None);
        assert_eq!(arrived(&json!({"telemetry": {"partitions": [{}]}}), "telemetry"), None);
    }

    #[test]
    fn the_table_has_a_line_per_cell() {
        let sample = |connections| Sample {
            cell: Cell { connections, window: 16 },
            cpu_us: 5.0,
            acked_per_second: 100.0,
            delivered_per_second: 90.0,
            ack_p50_ms: 1.0,
            ack_p99_ms: 2.0,
            rss_bytes: 50_000_000,
        };
        let samples = vec![sample(50), sample(1000), sample(50), sample(1000)];
        let machine = Machine::look(Path::new("."));
        let report = Report { benchmark: "end-to-end", machine, seconds: 3.0, payload_bytes: 200, samples };
        let text = report.markdown().unwrap();
        assert!(text.contains("| 50x16 | 2 | 5.00 | 100 | 90 | 1.00 | 2.00 | 50 |"), "{text}");
        assert_eq!(text.matches("x16 |").count(), 2, "{text}");
    }
}
