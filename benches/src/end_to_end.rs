//! `end-to-end`: the same load with the uplink on, until everything stored is confirmed by the cloud stand-in.
//!
//! The closed loop offers more than the uplink carries, so the outbox fills under load and drains afterwards: the
//! figure is the gateway's processor time for the whole way of a message, in each format of records.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::clock::now;
use crate::ingest::Plan;
use crate::load::{self, Load, count};
use crate::machine::Machine;
use crate::packets::Payloads;
use crate::servers::Server;
use crate::stats;
use crate::uplink::way::{Format, Security, Sky, Way};

/// Longest time for the outbox to drain after the load.
const DRAIN_WITHIN: Duration = Duration::from_secs(180);

/// How often the gateway is asked how much is confirmed.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Most processor time per message in this cell, in microseconds.
const BARS: [(Format, f64); 2] = [(Format::Packed, 3.0), (Format::PerMessage, 4.5)];
const BAR_CELL: Cell = Cell { connections: 1000, window: 16 };

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The cell.
    pub cell: Cell,
    /// Format of the records.
    pub format: Format,
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
    /// Measured seconds of each sample.
    pub seconds: f64,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// Runs the measurements with the servers' data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// A server cannot be started, a connection fails, or the outbox does not drain.
pub async fn run(plan: &Plan, formats: &[Format], folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let payloads = Arc::new(Payloads::new(plan.payload_bytes)?);
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for (&cell, &format) in
            plan.cells.iter().flat_map(|cell| formats.iter().map(move |format| (cell, format)))
        {
            let sample = sample(plan, folder, cell, format, &payloads).await;
            let sample = sample.with_context(|| format!("round {round}, {cell} {format}"))?;
            progress(&format!(
                "round {round}: {cell} {format} {:.2} µs/message, {:.0} acked/s, {:.0} delivered/s",
                sample.cpu_us, sample.acked_per_second, sample.delivered_per_second
            ));
            samples.push(sample);
        }
    }
    let seconds = plan.measure.as_secs_f64();
    let payload_bytes = plan.payload_bytes;
    let mut report =
        Report { benchmark: "end-to-end", machine, seconds, payload_bytes, samples, bars: Vec::new() };
    report.judge();
    Ok(report)
}

async fn sample(
    plan: &Plan,
    folder: &Path,
    cell: Cell,
    format: Format,
    payloads: &Arc<Payloads>,
) -> Result<Sample> {
    let sky = Sky::start(folder)?;
    let way = Way { format, security: Security::Plain };
    let server = Server::gateway_with(folder, sky.config(way)?, None)?;
    let load = Load {
        address: server.address(),
        cell,
        payloads: Arc::clone(payloads),
        warm_up: plan.warm_up,
        measure: plan.measure,
    };
    let start = now();
    let outcome = load::run(&load, || Ok(server.usage()?.cpu)).await?;
    let delivered = drained(&server, outcome.acked_total).await?;
    let elapsed = start.elapsed();
    let usage = server.usage()?;
    Ok(Sample {
        cell,
        format,
        cpu_us: usage.cpu.as_secs_f64() * 1e6 / count(delivered).max(1.0),
        acked_per_second: outcome.acked_per_second(),
        delivered_per_second: count(delivered) / elapsed.as_secs_f64(),
        ack_p50_ms: outcome.latency_ms(50.0),
        ack_p99_ms: outcome.latency_ms(99.0),
        rss_bytes_max: server.rss_bytes_max()?,
    })
}

/// Waits until as many messages are confirmed as were acknowledged; how many are. Those that were stored and not
/// acknowledged any more when the load ended may come on top.
async fn drained(server: &Server, acked: u64) -> Result<u64> {
    let deadline = now() + DRAIN_WITHIN;
    loop {
        let confirmed = server.confirmed()?;
        if confirmed >= acked {
            return Ok(confirmed);
        }
        if now() > deadline {
            bail!("only {confirmed} of {acked} acknowledged messages arrived within {DRAIN_WITHIN:?}");
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

impl Report {
    fn judge(&mut self) {
        let bars = BARS.iter().filter_map(|&(format, limit)| {
            let of = |sample: &&Sample| sample.cell == BAR_CELL && sample.format == format;
            let all: Vec<f64> = self.samples.iter().filter(of).map(|sample| sample.cpu_us).collect();
            let name = format!("processor time per message to the cloud, {BAR_CELL} {format}, µs");
            Some(Bar::at_most(name, stats::median(&all)?, limit))
        });
        self.bars = bars.collect();
    }

    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        self.bars.iter().all(|bar| bar.pass)
    }

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
            "| cell | format | rounds | CPU µs/message to the cloud | acked/s | delivered/s | ack p50 ms | ack p99 ms | peak RSS MB |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        let key = |(cell, format): &(Cell, Format)| (cell.connections, cell.window, *format);
        let mut rows: Vec<_> = self.samples.iter().map(|sample| (sample.cell, sample.format)).collect();
        rows.sort_unstable_by_key(key);
        rows.dedup();
        for row @ (cell, format) in rows {
            let of = |sample: &&Sample| (sample.cell, sample.format) == row;
            let all: Vec<&Sample> = self.samples.iter().filter(of).collect();
            let median = |of: fn(&Sample) -> f64| {
                stats::median(&all.iter().map(|sample| of(sample)).collect::<Vec<_>>()).unwrap_or_default()
            };
            writeln!(
                text,
                "| {cell} | {format} | {} | {:.2} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} |",
                all.len(),
                median(|s| s.cpu_us),
                median(|s| s.acked_per_second),
                median(|s| s.delivered_per_second),
                median(|s| s.ack_p50_ms),
                median(|s| s.ack_p99_ms),
                median(|s| count(s.rss_bytes_max) / 1e6)
            )?;
        }
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cpu_us: f64) -> Report {
        let sample = |connections, format| Sample {
            cell: Cell { connections, window: 16 },
            format,
            cpu_us,
            acked_per_second: 100.0,
            delivered_per_second: 90.0,
            ack_p50_ms: 1.0,
            ack_p99_ms: 2.0,
            rss_bytes_max: 50_000_000,
        };
        let (one, many) = (Format::PerMessage, Format::Packed);
        let samples = vec![sample(50, one), sample(1000, one), sample(50, one), sample(1000, many)];
        let machine = Machine::look(Path::new("."));
        let mut report = Report {
            benchmark: "end-to-end",
            machine,
            seconds: 3.0,
            payload_bytes: 200,
            samples,
            bars: Vec::new(),
        };
        report.judge();
        report
    }

    #[test]
    fn the_table_has_a_line_per_cell_and_format() {
        let text = report(5.0).markdown().unwrap();
        assert!(text.contains("| 50x16 | per-message | 2 | 5.00 | 100 | 90 | 1.00 | 2.00 | 50 |"), "{text}");
        assert!(text.contains("| 1000x16 | packed | 1 | 5.00 |"), "{text}");
    }

    #[test]
    fn each_format_has_its_bar() {
        let passed = |cpu_us| report(cpu_us).bars.iter().map(|bar| bar.pass).collect::<Vec<_>>();
        assert_eq!(passed(2.9), [true, true]);
        assert_eq!(passed(4.0), [false, true]);
        assert_eq!(passed(5.0), [false, false]);
    }
}
