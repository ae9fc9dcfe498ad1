//! From rounds to rows: medians, ratios within each round, what is demanded, Markdown and JSON.

use std::fmt::Write;

use serde::Serialize;

use super::job::{Figures, Tested};
use super::{DELAYS_MS, FLOOR_MICROS, LOADS, Plan, RATE, STEADY_RATE, closed_name, setup_name, setups};
use crate::load::count as float;
use crate::machine::Machine;
use crate::stats;

/// Memory that a lane collects before it becomes a file, and the bound of the shared log: what row 11 allows.
const LANE_BUFFER_BYTES: u64 = 16 << 20;
const LOG_BYTES_MAX: u64 = 128 << 20;

/// What row 5 demands was found with records of 216 bytes for a payload of 200; a topic and a device key make them
/// longer, which is no fault of the log.
const PER_PAYLOAD: f64 = 200.0 / 216.0;

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// What was measured.
    pub cell: String,
    /// In which round, from 1.
    pub round: u32,
    /// What was found.
    pub figures: Figures,
}

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Measured seconds of each sample at a rate.
    pub seconds: f64,
    /// Bytes of records in a backlog.
    pub backlog_bytes: u64,
    /// Every measurement, in the order taken.
    pub samples: Vec<Sample>,
    /// The rows of the table.
    pub rows: Vec<Row>,
}

/// A figure, what is demanded of it, and whether that holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its number, as on the command line.
    pub number: u8,
    /// What it is.
    pub name: String,
    /// The figure of each round.
    pub measured: Vec<f64>,
    /// What the median must be.
    pub demand: Demand,
    /// Whether it is.
    pub pass: bool,
}

/// What the median of a figure must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Anything: shown for comparison.
    Nothing,
}

// === impl Sample ===

impl Sample {
    /// One line for somebody who waits.
    pub fn line(&self) -> String {
        let mut line = format!("round {}: {}:", self.round, self.cell);
        for (name, value) in &self.figures {
            line.push_str(&format!(" {name} {}", figure(*value)));
        }
        line
    }
}

// === impl Row ===

impl Row {
    fn new(number: u8, name: impl Into<String>, measured: Vec<f64>, demand: Demand) -> Option<Self> {
        let median = stats::median(&measured)?;
        let pass = match demand {
            Demand::AtLeast(bound) => median >= bound,
            Demand::AtMost(bound) => median <= bound,
            Demand::Nothing => true,
        };
        Some(Self { number, name: name.into(), measured, demand, pass })
    }

    fn line(&self) -> String {
        let median = figure(stats::median(&self.measured).unwrap_or_default());
        let (low, high) = stats::range(&self.measured).unwrap_or_default();
        let (demand, word) = match self.demand {
            Demand::AtLeast(bound) => {
                (format!("≥ {}", figure(bound)), if self.pass { "PASS" } else { "FAIL" })
            }
            Demand::AtMost(bound) => {
                (format!("≤ {}", figure(bound)), if self.pass { "PASS" } else { "FAIL" })
            }
            Demand::Nothing => (String::new(), ""),
        };
        let Self { number, name, .. } = self;
        format!("| {number} | {name} | {median} ({} to {}) | {demand} | {word} |", figure(low), figure(high))
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(machine: Machine, plan: &Plan, samples: Vec<Sample>) -> Self {
        let rounds = Rounds(&samples);
        let rows = [
            rounds.native(),
            rounds.delayed(),
            rounds.steady(),
            rounds.drained(),
            rounds.opened(),
            rounds.lanes(),
        ];
        Self {
            benchmark: "outbox",
            machine,
            seconds: plan.measure.as_secs_f64(),
            backlog_bytes: plan.backlog_bytes,
            rows: in_order(rows.into_iter().flatten().collect()),
            samples,
        }
    }

    /// Whether every demand is met.
    pub fn pass(&self) -> bool {
        self.rows.iter().all(|row| row.pass)
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
            "Payload 200 bytes, {} s per sample, backlog {:.1} GB of records. Medians, with the range in brackets.\n",
            self.seconds,
            float(self.backlog_bytes) / 1e9
        )?;
        self.write_loads(&mut text)?;
        writeln!(text, "| row | figure | median (range) | demanded | |\n|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(text, "{}", row.line().trim_end())?;
        }
        Ok(text)
    }

    /// The absolute figures of every load, which the ratios do not show.
    fn write_loads(&self, text: &mut String) -> std::fmt::Result {
        let rounds = Rounds(&self.samples);
        let mut cells: Vec<&str> = Vec::new();
        let under_load = self.samples.iter().filter(|sample| sample.figures.contains_key("group"));
        for sample in under_load.filter(|sample| sample.round == 1) {
            cells.push(&sample.cell);
        }
        if cells.is_empty() {
            return Ok(());
        }
        writeln!(text, "| load | messages/s | p50 µs | p99 µs | CPU µs/message | messages/commit |")?;
        writeln!(text, "|---|---|---|---|---|---|")?;
        for cell in cells {
            let each = |name: &str| rounds.each(cell, name);
            let median = |name: &str| figure(stats::median(&each(name)).unwrap_or_default());
            let (low, high) = stats::range(&each("per_second")).unwrap_or_default();
            writeln!(
                text,
                "| {cell} | {} ({} to {}) | {} | {} | {} | {} |",
                median("per_second"),
                figure(low),
                figure(high),
                median("p50_us"),
                median("p99_us"),
                median("cpu_us"),
                median("group")
            )?;
        }
        writeln!(text)
    }
}

/// The samples, asked for rows.
struct Rounds<'a>(&'a [Sample]);

impl Rounds<'_> {
    /// A figure of a cell in each round.
    fn each(&self, cell: &str, name: &str) -> Vec<f64> {
        let of = self.0.iter().filter(|sample| sample.cell == cell);
        of.filter_map(|sample| sample.figures.get(name).copied()).collect()
    }

    /// A figure of a cell in relation to another's in the same round.
    fn ratio(&self, (cell, name): (&str, &str), (base, base_name): (&str, &str)) -> Vec<f64> {
        let pairs = self.each(cell, name).into_iter().zip(self.each(base, base_name));
        pairs.map(|(ours, theirs)| ours / theirs).collect()
    }

    fn native(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (floor, drain) in [(0, false), (0, true), (FLOOR_MICROS, false)] {
            for (setup, bound) in setups(floor).into_iter().zip([0.85, 0.75]) {
                for load in LOADS {
                    let ours = closed_name((Tested::Outbox(setup), drain), load, 0);
                    let plain = closed_name((Tested::Plain, false), load, 0);
                    // With a floor the outbox waits on purpose, and a consumer takes a processor of its own.
                    let demanded = floor == 0 && !drain;
                    let demand = |demand| if demanded { demand } else { Demand::Nothing };
                    let name = format!("messages/s ÷ plain log, {ours}");
                    let ratio = self.ratio((&ours, "per_second"), (&plain, "per_second"));
                    rows.extend(Row::new(1, name, ratio, demand(Demand::AtLeast(bound))));
                    let name = format!("CPU/message ÷ plain log, {ours}");
                    let ratio = self.ratio((&ours, "cpu_us"), (&plain, "cpu_us"));
                    rows.extend(Row::new(4, name, ratio, demand(Demand::AtMost(1.8))));
                }
            }
        }
        rows
    }

    fn delayed(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for delay in DELAYS_MS {
            for (setup, load) in
                setups(FLOOR_MICROS).into_iter().flat_map(|setup| LOADS.map(|load| (setup, load)))
            {
                let (ours, plain) = (
                    closed_name((Tested::Outbox(setup), false), load, delay),
                    closed_name((Tested::Plain, false), load, delay),
                );
                let name = format!("messages/s ÷ plain log, {ours}");
                let ratio = self.ratio((&ours, "per_second"), (&plain, "per_second"));
                rows.extend(Row::new(2, name, ratio, Demand::AtLeast(0.9)));
                let name = format!("p50 ÷ plain log, {ours}");
                let ratio = self.ratio((&ours, "p50_us"), (&plain, "p50_us"));
                rows.extend(Row::new(3, name, ratio, Demand::AtMost(1.15)));
            }
        }
        rows
    }

    fn steady(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (setup, bound) in setups(FLOOR_MICROS).into_iter().zip([1.7, 1.2]) {
            for (state, bound) in [("uplink up", bound), ("outage", 2.7)] {
                let cell = format!("steady {} {state}", setup_name(setup));
                let name = format!("device bytes ÷ record bytes, {STEADY_RATE}/s, {cell}");
                let demand = Demand::AtMost(bound * PER_PAYLOAD);
                rows.extend(Row::new(5, name, self.each(&cell, "device_per_record"), demand));
                let name = format!("device bytes ÷ payload, {STEADY_RATE}/s, {cell}");
                rows.extend(Row::new(5, name, self.each(&cell, "device_ratio"), Demand::Nothing));
                let demand = if state == "outage" { Demand::Nothing } else { Demand::AtMost(0.15) };
                let name = format!("flushed ÷ payload bytes, {cell}");
                rows.extend(Row::new(6, name, self.each(&cell, "flush_ratio"), demand));
                let name = format!("compaction ÷ payload bytes, {cell}");
                rows.extend(Row::new(9, name, self.each(&cell, "compaction_ratio"), Demand::AtMost(0.02)));
            }
        }
        rows
    }

    fn drained(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for setup in setups(FLOOR_MICROS) {
            let cell = format!("drain {}", setup_name(setup));
            let ratio = |name: &str, base: &str| self.ratio((&cell, name), (&cell, base));
            let each = |name: &str| self.each(&cell, name);
            let left: Vec<_> = each("left_bytes").iter().map(|bytes| bytes / f64::from(1 << 20)).collect();
            let left_max = float((8 * LANE_BUFFER_BYTES + LOG_BYTES_MAX) >> 20);
            rows.extend(
                [
                    (
                        7,
                        format!("ingest at {RATE}/s, with drain ÷ without, {cell}"),
                        ratio("with_per_second", "alone_per_second"),
                        Demand::AtLeast(0.95),
                    ),
                    (
                        7,
                        format!("its p99, with drain ÷ without, {cell}"),
                        ratio("with_p99_us", "alone_p99_us"),
                        Demand::AtMost(2.0),
                    ),
                    (
                        8,
                        format!("messages/s drained meanwhile, {cell}"),
                        each("drained_per_second"),
                        Demand::AtLeast(200_000.0),
                    ),
                    (
                        9,
                        format!("compaction ÷ payload bytes, {cell}"),
                        each("compaction_ratio"),
                        Demand::AtMost(0.02),
                    ),
                    (
                        10,
                        format!("µs to read at the watermark, {cell}"),
                        each("seek_us"),
                        Demand::AtMost(100.0),
                    ),
                    (
                        11,
                        format!("MiB on the disk 10 s after a full trim, {cell}"),
                        left,
                        Demand::AtMost(left_max),
                    ),
                ]
                .into_iter()
                .filter_map(|(number, name, measured, demand)| Row::new(number, name, measured, demand)),
            );
        }
        rows
    }

    fn opened(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for setup in setups(FLOOR_MICROS) {
            let cell = format!("open {}", setup_name(setup));
            for (end, bound) in [("killed", 1000.0), ("closed", 100.0)] {
                let name = format!("ms to open after it was {end}, {cell}");
                rows.extend(Row::new(
                    12,
                    name,
                    self.each(&cell, &format!("{end}_open_ms")),
                    Demand::AtMost(bound),
                ));
            }
        }
        rows
    }

    fn lanes(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for cell in ["lanes busy alone", "lanes busy and quiet"] {
            let mebibytes = |name: &str| -> Vec<f64> {
                self.each(cell, name).iter().map(|bytes| bytes / f64::from(1 << 20)).collect()
            };
            let name = format!("MiB of log at most, {cell}");
            // The bound starts a flush; a little is written until it has ended.
            let bound = Demand::AtMost(float((LOG_BYTES_MAX + 2 * LANE_BUFFER_BYTES) >> 20));
            rows.extend(Row::new(13, name, mebibytes("wal_bytes_max"), bound));
            let name = format!("MiB flushed, {cell}");
            rows.extend(Row::new(13, name, mebibytes("flush_bytes"), Demand::Nothing));
        }
        rows
    }
}

fn in_order(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| row.number);
    rows
}

fn figure(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.3}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cell: &str, round: u32, figures: &[(&str, f64)]) -> Sample {
        let figures = figures.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect();
        Sample { cell: cell.to_owned(), round, figures }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is ten times slower in the second round; the ratio does not notice.
        let samples = [
            sample("4x64 plain", 1, &[("per_second", 1000.0), ("cpu_us", 1.0)]),
            sample("4x64 none floor0", 1, &[("per_second", 900.0), ("cpu_us", 2.0)]),
            sample("4x64 none floor0", 2, &[("per_second", 90.0), ("cpu_us", 20.0)]),
            sample("4x64 plain", 2, &[("per_second", 100.0), ("cpu_us", 10.0)]),
        ];
        let rows = in_order(Rounds(&samples).native());
        let [rate, cpu] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((rate.number, rate.measured.as_slice(), rate.pass), (1, [0.9, 0.9].as_slice(), true));
        assert_eq!((cpu.number, cpu.measured.as_slice(), cpu.pass), (4, [2.0, 2.0].as_slice(), false));
        assert!(cpu.line().contains("| 2.000 (2.000 to 2.000) | ≤ 1.800 | FAIL |"), "{}", cpu.line());
    }

    #[test]
    fn demands_bind_the_median() {
        let check = |measured: &[f64], demand, expected| {
            assert_eq!(
                Row::new(1, "", measured.to_vec(), demand).unwrap().pass,
                expected,
                "{measured:?} {demand:?}"
            );
        };
        check(&[0.1, 0.9, 0.95], Demand::AtLeast(0.9), true);
        check(&[0.1, 0.89, 0.95], Demand::AtLeast(0.9), false);
        check(&[1.0, 9.0, 1.1], Demand::AtMost(1.1), true);
        check(&[1.2], Demand::AtMost(1.1), false);
        check(&[99.0], Demand::Nothing, true);
        assert_eq!(Row::new(1, "", Vec::new(), Demand::Nothing), None);
    }

    #[test]
    fn every_part_has_rows_of_its_own() {
        let ms = |end: &str| format!("{end}_open_ms");
        let samples = [
            sample("open lz4", 1, &[(&ms("killed"), 900.0), (&ms("closed"), 101.0)]),
            sample("drain none", 1, &[("with_p99_us", 3.0), ("alone_p99_us", 2.0), ("left_bytes", 3e8)]),
            sample(
                "steady lz4 outage",
                1,
                &[("device_ratio", 9.0), ("device_per_record", 2.0), ("flush_ratio", 1.0)],
            ),
            sample("16x64 +10ms plain", 1, &[("per_second", 10.0)]),
            sample("16x64 +10ms lz4", 1, &[("per_second", 8.0)]),
            sample("lanes busy alone", 1, &[("wal_bytes_max", 1e8)]),
        ];
        let rounds = Rounds(&samples);
        let passes =
            |rows: Vec<Row>| in_order(rows).iter().map(|row| (row.number, row.pass)).collect::<Vec<_>>();
        assert_eq!(passes(rounds.opened()), [(12, true), (12, false)]);
        assert_eq!(passes(rounds.drained()), [(7, true), (11, false)]);
        assert_eq!(passes(rounds.steady()), [(5, true), (5, true), (6, true)]);
        assert_eq!(passes(rounds.delayed()), [(2, false)]);
        assert_eq!(passes(rounds.lanes()), [(13, true)]);
    }
}
