//! `penstock-benches`: see the library's front page; `cargo xtask bench` builds and starts it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use penstock_benches::cell::Cell;
use penstock_benches::ingest::{self, Plan};
use penstock_benches::{end_to_end, servers};
use serde::Serialize;

#[derive(Debug, Parser)]
#[command(
    name = "penstock-benches",
    about = "Comparisons of the gateway under load",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Durable ingest without an uplink beside mosquitto storing nothing, held against the bars
    Ingest(Options),
    /// The same load with the uplink on, until everything is in the cloud stand-in; figures without bars
    EndToEnd(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Measured seconds of each sample
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Seconds under load before each sample
    #[arg(long, default_value = "1.5", value_parser = seconds)]
    warm_up: Duration,
    /// How often each cell is measured; figures are medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Connections x window, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "50x16,1000x16")]
    cells: Vec<Cell>,
    /// Bytes of each payload
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Idle connections whose memory is measured; 0 for none
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    /// Threads of the generator; half of the processors unless given
    #[arg(long)]
    threads: Option<usize>,
    /// Folder for the servers' data; it must lie on the disk that is to be measured
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Where the JSON report goes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let duration = (0.1..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds));
    duration.ok_or_else(|| "0.1 to 3600 seconds".to_owned())
}

fn main() -> ExitCode {
    match run(&Arguments::parse().benchmark) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            progress("a bar does not hold");
            ExitCode::FAILURE
        }
        Err(error) => {
            progress(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs the benchmark, prints its table and tells whether every bar holds.
fn run(benchmark: &Benchmark) -> Result<bool> {
    let (Benchmark::Ingest(options) | Benchmark::EndToEnd(options)) = benchmark;
    let half = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads.unwrap_or(half).max(1))
        .enable_all()
        .build()
        .context("no runtime for the generator")?;
    let folder = servers::folder(&options.folder, "bench-")?;
    let plan = plan(options);
    match benchmark {
        Benchmark::Ingest(_) => {
            let report = runtime.block_on(ingest::run(&plan, folder.path(), progress))?;
            publish(&report.markdown()?, &report, options.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::EndToEnd(_) => {
            let report = runtime.block_on(end_to_end::run(&plan, folder.path(), progress))?;
            publish(&report.markdown()?, &report, options.report.as_deref())?;
            Ok(true)
        }
    }
}

fn plan(options: &Options) -> Plan {
    Plan {
        cells: options.cells.clone(),
        rounds: options.rounds,
        warm_up: options.warm_up,
        measure: options.seconds,
        payload_bytes: options.payload,
        idle: options.idle,
    }
}

/// Prints the table and writes the JSON.
fn publish(markdown: &str, report: &impl Serialize, file: Option<&Path>) -> Result<()> {
    result(markdown);
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))
}

#[expect(clippy::print_stdout, reason = "the table is the program's result")]
fn result(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress is not the result")]
fn progress(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn cells_are_separated_by_commas() {
        let words = ["penstock-benches", "ingest", "--cells", "1x1,50x16", "--seconds", "2.5"];
        let Benchmark::Ingest(options) = Arguments::try_parse_from(words).unwrap().benchmark else {
            panic!("another benchmark")
        };
        assert_eq!(options.cells.len(), 2);
        assert_eq!(options.seconds, Duration::from_millis(2500));
    }

    #[test]
    fn bad_cells_and_times_are_refused() {
        for words in [["--cells", "50"], ["--seconds", "0"], ["--rounds", "0"]] {
            let words = ["penstock-benches", "ingest"].into_iter().chain(words);
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }
}
