//! `outbox`: the outbox held against a plain append log, and its own figures under load, as one table.
//!
//! ```text
//! log       what the generator drives; the outbox as one
//! plain     R1, the plain append log
//! load      producers in a closed loop or at a fixed rate
//! accounts  processor time and bytes written, by the kernel's accounts
//! job       one measurement in a process of its own
//! drain     the measurement with a backlog and a consumer
//! telemetry what is sent
//! table     rows with what is demanded of them
//! ```
//!
//! Both logs are driven by the same generator in the same run, rounds alternate and swap the order, and every
//! figure that is held against a demand is a ratio within one round or a count of bytes, so that what the machine
//! does meanwhile hits both sides.

pub mod accounts;
pub mod drain;
pub mod job;
pub mod load;
pub mod log;
pub mod plain;
pub mod table;
pub mod telemetry;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::powercut::{Mode, PowerCut};

use self::job::{Figures, Job, Tested, Timing};
use self::log::{Codec, Setup};
use self::table::{Report, Sample};
use crate::load::count as load_float;
use crate::machine::Machine;
use crate::servers;

/// Producers and messages each has in flight.
pub const LOADS: [(u32, u32); 2] = [(4, 64), (16, 64)];

/// Delays of every sync that stand for slower disks, in milliseconds.
pub const DELAYS_MS: [u64; 2] = [2, 10];

/// Least time between two commits as shipped, in microseconds.
pub const FLOOR_MICROS: u64 = 1000;

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// Messages per second of the rows that say so.
pub const RATE: u32 = 20_000;

/// Messages per second of the rows about bytes written: enough that the log is flushed several times.
pub const STEADY_RATE: u32 = 40_000;

/// The bytes of the log are measured over this many times the seconds of a rate.
const STEADY_TIMES: u64 = 6;

/// The lanes' job takes this many times the seconds of a rate, and so many messages per second: the shared log
/// reaches its bound only then.
const LANES_TIMES: u64 = 10;
const LANES_RATE: u32 = 100_000;

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rows of the table that are wanted; those that come from the same measurements come along.
    pub rows: Vec<u8>,
    /// How many rounds; figures are medians over them.
    pub rounds: u32,
    /// Time under load before each measurement.
    pub warm_up: Duration,
    /// Time of each measurement.
    pub measure: Duration,
    /// Bytes of records in a backlog.
    pub backlog_bytes: u64,
}

/// One measurement of the run.
#[derive(Debug, Clone)]
struct Cell {
    name: String,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// On the disk as it is.
    Native(Job),
    /// Every sync takes so many milliseconds longer.
    Delayed(Job, u64),
    /// An outbox is filled, killed, opened, closed and opened again.
    Reopened(Setup),
}

/// Runs the comparison with all data in `folder`; `progress` hears of each sample.
///
/// # Errors
/// A measurement fails, or syncs are not delayed where they should be.
pub fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let mut cells = plan.cells();
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        for cell in &cells {
            let figures =
                cell.measure(plan, folder).with_context(|| format!("round {round}, {}", cell.name))?;
            let sample = Sample { cell: cell.name.clone(), round, figures };
            progress(&sample.line());
            samples.push(sample);
        }
        cells.reverse();
    }
    Ok(Report::new(machine, plan, samples))
}

/// The name of the cell of a closed loop.
fn closed_name((log, drain): (Tested, bool), (producers, window): (u32, u32), delay_ms: u64) -> String {
    let log = match log {
        Tested::Plain => "plain".to_owned(),
        Tested::Outbox(setup) if drain => format!("{} followed", setup_name(setup)),
        Tested::Outbox(setup) => setup_name(setup),
    };
    match delay_ms {
        0 => format!("{producers}x{window} {log}"),
        _ => format!("{producers}x{window} +{delay_ms}ms {log}"),
    }
}

fn setup_name(setup: Setup) -> String {
    let codec = match setup.codec {
        Codec::None => "none",
        Codec::Lz4 => "lz4",
    };
    if setup.floor_micros == 0 { format!("{codec} floor0") } else { codec.to_owned() }
}

/// The outbox with both codecs.
fn setups(floor_micros: u64) -> [Setup; 2] {
    [Codec::None, Codec::Lz4].map(|codec| Setup { codec, floor_micros })
}

impl Plan {
    fn cells(&self) -> Vec<Cell> {
        let wanted = |rows: &[u8]| rows.iter().any(|row| self.rows.contains(row));
        let mut cells = Vec::new();
        let both = |setups: [Setup; 2], drain| setups.map(|setup| (Tested::Outbox(setup), drain)).to_vec();
        let plain = vec![(Tested::Plain, false)];
        if wanted(&[1, 4]) {
            let floors = [both(setups(0), false), both(setups(FLOOR_MICROS), false)].concat();
            let logs = [plain.clone(), floors, both(setups(0), true)].concat();
            cells.extend(self.closed(0, &logs));
        }
        if wanted(&[2, 3]) {
            let logs = [plain, both(setups(FLOOR_MICROS), false)].concat();
            cells.extend(DELAYS_MS.iter().flat_map(|delay| self.closed(*delay, &logs)));
        }
        for setup in setups(FLOOR_MICROS) {
            let name = setup_name(setup);
            if wanted(&[5, 6]) {
                let timing = Timing { measure_ms: self.timing().measure_ms * STEADY_TIMES, ..self.timing() };
                for (drain, state) in [(true, "uplink up"), (false, "outage")] {
                    let job = Job::Steady { setup, rate: STEADY_RATE, drain, timing };
                    cells.push(Cell { name: format!("steady {name} {state}"), what: What::Native(job) });
                }
            }
            if wanted(&[7, 8, 9, 10, 11]) {
                let (backlog_bytes, timing) = (self.backlog_bytes, self.timing());
                let job = Job::Drain { setup, backlog_bytes, rate: RATE, drain_rate: None, timing };
                cells.push(Cell { name: format!("drain {name}"), what: What::Native(job) });
            }
            if wanted(&[12]) {
                cells.push(Cell { name: format!("open {name}"), what: What::Reopened(setup) });
            }
        }
        if wanted(&[13]) {
            cells.extend(self.lanes());
        }
        cells
    }

    /// These logs, some with a consumer that follows, under every closed load.
    fn closed(&self, delay_ms: u64, logs: &[(Tested, bool)]) -> Vec<Cell> {
        let cell = |load: (u32, u32), (log, drain)| {
            let job = Job::Closed { log, drain, producers: load.0, window: load.1, timing: self.timing() };
            let what = if delay_ms == 0 { What::Native(job) } else { What::Delayed(job, delay_ms) };
            Cell { name: closed_name((log, drain), load, delay_ms), what }
        };
        LOADS.into_iter().flat_map(|load| logs.iter().map(move |log| cell(load, *log))).collect()
    }

    fn lanes(&self) -> Vec<Cell> {
        let [_, setup] = setups(FLOOR_MICROS);
        let timing = Timing { measure_ms: self.timing().measure_ms * LANES_TIMES, ..self.timing() };
        let lanes = |(quiet, name): (bool, &str)| Cell {
            name: format!("lanes {name}"),
            what: What::Native(Job::Lanes { setup, rate: LANES_RATE, quiet, timing }),
        };
        [(false, "busy alone"), (true, "busy and quiet")].map(lanes).into()
    }

    fn timing(&self) -> Timing {
        // What does not fit is an age, and the next line of a progress bar away from being interrupted.
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timing { warm_up_ms: millis(self.warm_up), measure_ms: millis(self.measure) }
    }
}

impl Cell {
    fn measure(&self, plan: &Plan, parent: &Path) -> Result<Figures> {
        let folder = servers::folder(parent, "outbox-")?;
        match &self.what {
            What::Native(job) => job::run(job, folder.path(), &[]),
            What::Delayed(job, delay_ms) => delayed(job, *delay_ms, folder.path()),
            What::Reopened(setup) => reopened(*setup, plan.backlog_bytes, folder.path()),
        }
    }
}

/// Runs a closed loop with slow syncs, and does not believe it without proof.
fn delayed(job: &Job, delay_ms: u64, folder: &Path) -> Result<Figures> {
    let data = folder.join("data");
    // The library's copy must not compete for the disk that is measured.
    let memory = Path::new(MEMORY);
    let twin = servers::folder(if memory.is_dir() { memory } else { folder }, "outbox-twin-")?;
    let mut environment = PowerCut::prepare(&data, &twin.path().join("twin"), Mode::Strict)?.environment();
    let delay_us = delay_ms * 1000;
    environment.push(("POWERCUT_SYNC_DELAY_US", OsString::from(delay_us.to_string())));
    let figures = job::run(job, &data, &environment)?;
    let fastest = figures.get("least_us").copied().unwrap_or_default();
    // A message waits for its own sync at least.
    if fastest < load_float(delay_us) {
        bail!("syncs are not delayed: a message was durable after {fastest} of {delay_us} µs");
    }
    Ok(figures)
}

fn reopened(setup: Setup, backlog_bytes: u64, folder: &Path) -> Result<Figures> {
    let mut figures = job::run_and_kill(&Job::Fill { setup, backlog_bytes }, folder)?;
    for end in ["killed", "closed"] {
        let opened = job::run(&Job::Open { setup }, folder, &[])?;
        figures.extend(opened.into_iter().map(|(name, figure)| (format!("{end}_{name}"), figure)));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rows: &[u8]) -> Plan {
        let second = Duration::from_secs(1);
        Plan { rows: rows.to_vec(), rounds: 1, warm_up: second, measure: second, backlog_bytes: 1 << 20 }
    }

    #[test]
    fn only_what_the_wanted_rows_need_is_measured() {
        let check = |rows: &[u8], expected: &[&str]| {
            let names: Vec<_> = plan(rows).cells().into_iter().map(|cell| cell.name).collect();
            assert_eq!(names, expected, "{rows:?}");
        };
        check(&[12], &["open none", "open lz4"]);
        check(&[8, 10], &["drain none", "drain lz4"]);
        check(&[], &[]);
        assert_eq!(plan(&[1]).cells().len(), 2 * 7);
        assert_eq!(plan(&[3]).cells().len(), 2 * 2 * 3);
    }

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let rows: Vec<u8> = (1..=13).collect();
        let mut names: Vec<_> = plan(&rows).cells().into_iter().map(|cell| cell.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
