//! From rounds to figures: medians, bars, a Markdown table and JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::cell::Cell;
use crate::idle::Idle;
use crate::load::Outcome;
use crate::machine::Machine;
use crate::stats;

/// A server of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// The gateway: every acknowledgement after an fdatasync.
    Penstock,
    /// mosquitto, storing nothing.
    Mosquitto,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The cell.
    pub cell: Cell,
    /// The server.
    pub peer: Peer,
    /// Server processor time per acknowledged message, in microseconds.
    pub cpu_us: f64,
    /// Acknowledged messages per second.
    pub acked_per_second: f64,
    /// Median acknowledgement time, in milliseconds.
    pub ack_p50_ms: f64,
    /// 99th percentile of it.
    pub ack_p99_ms: f64,
}

impl Sample {
    /// Takes the figures of a measurement.
    pub fn new(cell: Cell, peer: Peer, outcome: &Outcome) -> Self {
        Self {
            cell,
            peer,
            cpu_us: outcome.cpu_micros_per_message(),
            acked_per_second: outcome.acked_per_second(),
            ack_p50_ms: outcome.latency_ms(50.0),
            ack_p99_ms: outcome.latency_ms(99.0),
        }
    }
}

impl Sample {
    /// One line for somebody who waits.
    pub fn line(&self) -> String {
        let Self { cell, peer, cpu_us, acked_per_second, ack_p50_ms, ack_p99_ms } = self;
        format!(
            "{cell} {}: {cpu_us:.2} µs/message, {acked_per_second:.0} acked/s, ack p50 {ack_p50_ms:.2} ms, \
             p99 {ack_p99_ms:.2} ms",
            peer.name()
        )
    }
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
    /// Milliseconds of append 4 KiB + fdatasync, taken between the measurements.
    pub probe_ms: Vec<f64>,
    /// Memory of the gateway's idle connections.
    pub idle: Option<Idle>,
    /// Memory of the peer's idle connections.
    pub idle_mosquitto: Option<Idle>,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// A limit and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What is limited.
    pub name: String,
    /// The measured figure.
    pub measured: f64,
    /// The largest figure that passes, or the smallest where the name says so.
    pub limit: f64,
    /// Whether it holds.
    pub pass: bool,
}

impl Bar {
    pub(crate) fn at_most(name: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { name: name.into(), measured, limit, pass: measured <= limit }
    }

    pub(crate) fn at_least(name: impl Into<String>, measured: f64, limit: f64) -> Self {
        Self { name: format!("{}, at least", name.into()), measured, limit, pass: measured >= limit }
    }

    /// Writes bars as a table, if there are any.
    pub(crate) fn write(bars: &[Self], text: &mut String) -> std::fmt::Result {
        if !bars.is_empty() {
            writeln!(text, "\n| bar | measured | limit | |\n|---|---|---|---|")?;
        }
        for bar in bars {
            let word = if bar.pass { "PASS" } else { "FAIL" };
            writeln!(text, "| {} | {} | {} | {word} |", bar.name, figure(bar.measured), figure(bar.limit))?;
        }
        Ok(())
    }
}

/// Largest ratio of processor time per message to mosquitto's, by cell.
const RATIO_BARS: [(Cell, f64); 2] =
    [(Cell { connections: 50, window: 16 }, 0.38), (Cell { connections: 1000, window: 16 }, 0.30)];

/// Most resident bytes of an idle connection.
const IDLE_BYTES: f64 = 4096.0;

/// Most resident bytes of an idle gateway.
const IDLE_GATEWAY_BYTES: f64 = 60e6;

impl Report {
    /// Holds the figures against the bars. A cell without a bar or without a peer has none.
    pub fn judge(&mut self) {
        let ratios = RATIO_BARS.iter().filter_map(|&(cell, limit)| {
            let ratio = self.ratio(cell)?;
            Some(Bar::at_most(
                format!("processor time per message, {cell}, ratio to mosquitto"),
                ratio,
                limit,
            ))
        });
        let mut bars: Vec<Bar> = ratios.collect();
        if let Some(idle) = self.idle {
            let (each, before) = (float(idle.bytes_per_connection()), float(idle.rss_before));
            bars.push(Bar::at_most("resident bytes per idle connection", each, IDLE_BYTES));
            bars.push(Bar::at_most("resident bytes of an idle gateway", before, IDLE_GATEWAY_BYTES));
        }
        self.bars = bars;
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
        writeln!(text, "Payload {} bytes, QoS 1, {} s per sample.\n", self.payload_bytes, self.seconds)?;
        self.write_cells(&mut text)?;
        self.write_probe(&mut text)?;
        self.write_idle(&mut text)?;
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }

    fn write_cells(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "| cell | server | rounds | CPU µs/message, median (range) | ratio | acked/s | ack p50 ms | ack p99 ms |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|")?;
        for cell in self.cells() {
            for peer in [Peer::Penstock, Peer::Mosquitto] {
                let Some(cpu) = self.median(cell, peer, |sample| sample.cpu_us) else { continue };
                let all: Vec<f64> = self.of(cell, peer).map(|sample| sample.cpu_us).collect();
                let (low, high) = stats::range(&all).unwrap_or_default();
                let ratio = match peer {
                    Peer::Penstock => {
                        self.ratio(cell).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
                    }
                    Peer::Mosquitto => "1.00".to_owned(),
                };
                let rest = |of: fn(&Sample) -> f64| self.median(cell, peer, of).unwrap_or_default();
                let (rate, p50, p99) =
                    (rest(|s| s.acked_per_second), rest(|s| s.ack_p50_ms), rest(|s| s.ack_p99_ms));
                let (name, rounds) = (peer.name(), all.len());
                writeln!(
                    text,
                    "| {cell} | {name} | {rounds} | {cpu:.2} ({low:.2} to {high:.2}) | {ratio} | {rate:.0} | {p50:.2} | {p99:.2} |"
                )?;
            }
        }
        Ok(())
    }

    fn write_probe(&self, text: &mut String) -> std::fmt::Result {
        let percentile = |share| stats::percentile(&self.probe_ms, share).unwrap_or_default();
        if self.probe_ms.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\nAppend 4 KiB + fdatasync in the same folder and run: p50 {:.3} ms, p99 {:.3} ms ({} appends).",
            percentile(0.5),
            percentile(0.99),
            self.probe_ms.len()
        )
    }

    fn write_idle(&self, text: &mut String) -> std::fmt::Result {
        for (name, idle) in [("penstock", self.idle), ("mosquitto", self.idle_mosquitto)] {
            let Some(idle) = idle else { continue };
            writeln!(
                text,
                "\nIdle, {name}: {:.1} MB resident without connections; {} idle connections cost {} bytes each.",
                float(idle.rss_before) / 1e6,
                idle.connections,
                idle.bytes_per_connection()
            )?;
        }
        Ok(())
    }

    /// The median over the rounds of the ratio within each round, so that a slow minute hits both sides.
    fn ratio(&self, cell: Cell) -> Option<f64> {
        let ours = self.of(cell, Peer::Penstock);
        let theirs = self.of(cell, Peer::Mosquitto);
        let ratios: Vec<f64> = ours.zip(theirs).map(|(ours, theirs)| ours.cpu_us / theirs.cpu_us).collect();
        stats::median(&ratios)
    }

    fn median(&self, cell: Cell, peer: Peer, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        stats::median(&self.of(cell, peer).map(of).collect::<Vec<_>>())
    }

    fn of(&self, cell: Cell, peer: Peer) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.cell == cell && sample.peer == peer)
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for sample in &self.samples {
            if !cells.contains(&sample.cell) {
                cells.push(sample.cell);
            }
        }
        cells
    }
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory stay far below 2^52")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CELL: Cell = Cell { connections: 50, window: 16 };

    fn sample(peer: Peer, cpu_us: f64) -> Sample {
        Sample { cell: CELL, peer, cpu_us, acked_per_second: 1000.0, ack_p50_ms: 1.0, ack_p99_ms: 2.0 }
    }

    fn report(samples: Vec<Sample>, idle: Option<Idle>) -> Report {
        let mut report = Report {
            benchmark: "ingest",
            machine: Machine::look(Path::new(".")),
            seconds: 3.0,
            payload_bytes: 200,
            samples,
            probe_ms: vec![0.1, 0.2],
            idle,
            idle_mosquitto: None,
            bars: Vec::new(),
        };
        report.judge();
        report
    }

    #[test]
    fn the_ratio_is_taken_round_by_round() {
        // The machine is ten times slower in the second round; the ratio does not notice.
        let pairs = [(1.0, 5.0), (10.0, 50.0), (1.0, 4.0)];
        let samples = pairs
            .into_iter()
            .flat_map(|(ours, theirs)| [sample(Peer::Penstock, ours), sample(Peer::Mosquitto, theirs)]);
        let report = report(samples.collect(), None);
        assert_eq!(report.ratio(CELL), Some(0.2));
        assert!(report.pass());
    }

    #[test]
    fn a_figure_above_its_bar_fails() {
        let slow = report(vec![sample(Peer::Penstock, 2.0), sample(Peer::Mosquitto, 5.0)], None);
        assert!(!slow.pass(), "{:?}", slow.bars);
        assert!(slow.markdown().unwrap().contains("| 0.40 | 0.38 | FAIL |"));
        let heavy = Idle { connections: 1000, rss_before: 1_000_000, rss_after: 6_000_000 };
        assert_eq!(report(vec![], Some(heavy)).bars.iter().filter(|bar| !bar.pass).count(), 1);
    }

    #[test]
    fn without_a_peer_there_is_no_ratio_and_no_bar() {
        let report = report(vec![sample(Peer::Penstock, 2.0)], None);
        assert_eq!(report.ratio(CELL), None);
        assert!(report.bars.is_empty());
        assert!(report.markdown().unwrap().contains("| 50x16 | penstock | 1 | 2.00 (2.00 to 2.00) | - |"));
    }

    #[test]
    fn the_table_names_the_machine_and_the_disk() {
        let text = report(vec![sample(Peer::Penstock, 1.0)], None).markdown().unwrap();
        assert!(text.contains("kernel") && text.contains("fdatasync in the same folder"), "{text}");
    }
}
