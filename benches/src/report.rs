//! From rounds to figures: medians, bars, a Markdown table and JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::bars::Bar;
use crate::cell::Cell;
use crate::load::Outcome;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::stats;

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
            peer
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
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// Largest ratio of processor time per message to another server's, by cell.
const RATIO_BARS: [(Cell, Peer, f64); 6] = [
    (Cell { connections: 1, window: 100 }, Peer::Mosquitto, 0.45),
    (Cell { connections: 50, window: 16 }, Peer::Mosquitto, 0.30),
    (Cell { connections: 1000, window: 1 }, Peer::Mosquitto, 1.3),
    (Cell { connections: 1000, window: 16 }, Peer::Mosquitto, 0.22),
    (Cell { connections: 50, window: 16 }, Peer::Rumqttd, 1.3),
    (Cell { connections: 1000, window: 16 }, Peer::Rumqttd, 1.0),
];

impl Report {
    /// Holds the figures against the bars. A cell without a bar or without a peer has none.
    pub fn judge(&mut self) {
        let ratios = RATIO_BARS.iter().filter_map(|&(cell, peer, limit)| {
            let ratio = self.ratio(cell, Peer::Penstock, peer)?;
            Some(Bar::at_most(format!("processor time per message, {cell}, ratio to {peer}"), ratio, limit))
        });
        self.bars = ratios.collect();
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
        writeln!(text, "Payload {} bytes, QoS 1, {} s per sample.\n", self.payload_bytes, self.seconds)?;
        self.write_cells(&mut text)?;
        self.write_probe(&mut text)?;
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }

    fn write_cells(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "| cell | server | rounds | CPU µs/message, median (range) | ÷ mosquitto | ÷ rumqttd | acked/s | ack p50 ms | ack p99 ms |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
        for cell in self.cells() {
            for peer in [Peer::Penstock, Peer::Mosquitto, Peer::Rumqttd] {
                let Some(cpu) = self.median(cell, peer, |sample| sample.cpu_us) else { continue };
                let all: Vec<f64> = self.of(cell, peer).map(|sample| sample.cpu_us).collect();
                let (low, high) = stats::range(&all).unwrap_or_default();
                let [mosquitto, rumqttd] = [Peer::Mosquitto, Peer::Rumqttd].map(|other| {
                    let ratio = self.ratio(cell, peer, other);
                    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
                });
                let rest = |of: fn(&Sample) -> f64| self.median(cell, peer, of).unwrap_or_default();
                let (rate, p50, p99) =
                    (rest(|s| s.acked_per_second), rest(|s| s.ack_p50_ms), rest(|s| s.ack_p99_ms));
                writeln!(
                    text,
                    "| {cell} | {peer} | {} | {cpu:.2} ({low:.2} to {high:.2}) | {mosquitto} | {rumqttd} | {rate:.0} | {p50:.2} | {p99:.2} |",
                    all.len()
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

    /// The median over the rounds of the ratio of two servers within each round, so that a slow minute hits both.
    fn ratio(&self, cell: Cell, one: Peer, other: Peer) -> Option<f64> {
        let pairs = self.of(cell, one).zip(self.of(cell, other));
        let ratios: Vec<f64> = pairs.map(|(one, other)| one.cpu_us / other.cpu_us).collect();
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CELL: Cell = Cell { connections: 50, window: 16 };

    fn sample(peer: Peer, cpu_us: f64) -> Sample {
        Sample { cell: CELL, peer, cpu_us, acked_per_second: 1000.0, ack_p50_ms: 1.0, ack_p99_ms: 2.0 }
    }

    fn report(samples: Vec<Sample>) -> Report {
        let mut report = Report {
            benchmark: "ingest",
            machine: Machine::look(Path::new(".")),
            seconds: 3.0,
            payload_bytes: 200,
            samples,
            probe_ms: vec![0.1, 0.2],
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
        let report = report(samples.collect());
        assert_eq!(report.ratio(CELL, Peer::Penstock, Peer::Mosquitto), Some(0.2));
        assert!(report.pass());
    }

    #[test]
    fn a_figure_above_its_bar_fails() {
        let slow = report(vec![sample(Peer::Penstock, 2.0), sample(Peer::Mosquitto, 5.0)]);
        assert!(!slow.pass(), "{:?}", slow.bars);
        assert!(slow.markdown().unwrap().contains("| 0.40 | 0.30 | **missed** |"));
    }

    #[test]
    fn each_peer_has_bars_of_its_own() {
        let peers = [(Peer::Penstock, 1.5), (Peer::Mosquitto, 6.0), (Peer::Rumqttd, 1.0)];
        let report = report(peers.map(|(peer, cpu)| sample(peer, cpu)).to_vec());
        let passed: Vec<_> = report.bars.iter().map(|bar| (bar.limit, bar.pass)).collect();
        assert_eq!(passed, [(0.30, true), (1.3, false)]);
        let text = report.markdown().unwrap();
        assert!(text.contains("| 50x16 | penstock | 1 | 1.50 (1.50 to 1.50) | 0.25 | 1.50 |"), "{text}");
        assert!(text.contains("| 50x16 | rumqttd | 1 | 1.00 (1.00 to 1.00) | 0.17 | 1.00 |"), "{text}");
    }

    #[test]
    fn without_a_peer_there_is_no_ratio_and_no_bar() {
        let report = report(vec![sample(Peer::Penstock, 2.0)]);
        assert_eq!(report.ratio(CELL, Peer::Penstock, Peer::Mosquitto), None);
        assert!(report.bars.is_empty());
        assert!(
            report.markdown().unwrap().contains("| 50x16 | penstock | 1 | 2.00 (2.00 to 2.00) | - | - |")
        );
    }

    #[test]
    fn the_table_names_the_machine_and_the_disk() {
        let text = report(vec![sample(Peer::Penstock, 1.0)]).markdown().unwrap();
        assert!(text.contains("kernel") && text.contains("fdatasync in the same folder"), "{text}");
    }
}
