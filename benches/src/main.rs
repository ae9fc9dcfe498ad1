//! `penstock-benches`: see the library's front page; `cargo xtask bench` builds and starts it.

mod fronts;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use penstock_benches::cell::Cell;
use penstock_benches::ingest::{self, Plan};
use penstock_benches::outbox::job::{self, Job};
use penstock_benches::peer::Peer;
use penstock_benches::uplink::Payload;
use penstock_benches::uplink::way::{Format, Security, Way};
use penstock_benches::{drain, end_to_end, memory, outbox, servers, uplink};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::fronts::{Commands, Detect, Fairness, Fanout, Idle, Nab, Offered, Servers, Storm};

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
    /// Durable ingest without an uplink beside brokers that store nothing, held against the bars
    Ingest {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        servers: Servers,
    },
    /// Acknowledgement times of fifty devices at 5000 messages/s, held against what the disk takes
    Offered(Offered),
    /// Resident memory of idle connections, held against a bar
    Idle(Idle),
    /// Processor time per delivery to subscribers beside brokers, held against a bar
    Fanout(Fanout),
    /// Ten thousand devices reconnect while others publish, held against a bar
    Storm(Storm),
    /// One device publishes all it can beside a thousand slow ones, held against a bar
    Fairness(Fairness),
    /// Thousands of devices with sessions at Service Bus get commands, held against the bars
    Commands(Commands),
    /// The same load with the uplink on, until everything is in the cloud stand-in, held against the bars
    EndToEnd {
        #[command(flatten)]
        options: Options,
        /// Formats of the records, separated by commas
        #[arg(long, value_delimiter = ',', default_value = "per-message,packed")]
        formats: Vec<Format>,
    },
    /// A full outbox on its way to the cloud stand-in, held against the bars
    Uplink(UplinkOptions),
    /// A backlog on its way to the cloud stand-in while devices publish, held against the bars
    Drain(DrainOptions),
    /// What an outage of the cloud adds to the gateway's memory, held against a bar
    Memory(MemoryOptions),
    /// The outbox beside a plain append log, and its figures under load, held against what is demanded
    Outbox(OutboxOptions),
    /// What rules cost, held against the bars
    Detect(Detect),
    /// The learned detector on the Numenta Anomaly Benchmark, held against the bars
    Nab(Nab),
    /// One measurement of `outbox`, in a process of its own
    #[command(hide = true)]
    OutboxJob {
        /// What is measured, as JSON
        #[arg(value_parser = a_job)]
        job: Job,
        /// Where its data goes
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct OutboxOptions {
    /// Measured seconds of each sample
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Seconds under load before each sample
    #[arg(long, default_value = "1", value_parser = seconds)]
    warm_up: Duration,
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Rows of the table, separated by commas: 1 and 4 the closed loop, 2 and 3 slower disks, 5 and 6 bytes written,
    /// 7 to 11 draining, 12 opening, 13 lanes of different rates
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,5,6,7,8,9,10,11,12",
          value_parser = clap::value_parser!(u8).range(1..=13))]
    rows: Vec<u8>,
    /// Gigabytes of records in a backlog
    #[arg(long, default_value = "1", value_parser = gigabytes)]
    backlog: u64,
    /// Folder for the data; it must lie on the disk that is to be measured
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Where the JSON report goes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Ways {
    /// Formats of the records, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "per-message,packed")]
    formats: Vec<Format>,
    /// Securities of the connection, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "plain,tls")]
    securities: Vec<Security>,
    /// How often each way is measured; figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Folder for the servers' data; it must lie on the disk that is to be measured
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Where the JSON report goes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct UplinkOptions {
    #[command(flatten)]
    ways: Ways,
    /// Messages in the outbox
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Members of the JSON in each message, separated by commas; the bars are about few
    #[arg(long, value_delimiter = ',', default_value = "few,many")]
    payloads: Vec<Payload>,
}

#[derive(Debug, clap::Args)]
struct MemoryOptions {
    #[command(flatten)]
    ways: Ways,
    /// Seconds that the cloud is away
    #[arg(long, default_value = "60", value_parser = seconds)]
    outage: Duration,
}

#[derive(Debug, clap::Args)]
struct DrainOptions {
    #[command(flatten)]
    ways: Ways,
    /// Gigabytes of payload in the backlog
    #[arg(long, default_value = "2", value_parser = gigabytes)]
    backlog: u64,
    /// Messages sent to learn what a way reaches without devices
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
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

fn a_job(text: &str) -> Result<Job, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}"))
}

fn gigabytes(text: &str) -> Result<u64, String> {
    let gigabytes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.01..=1000.0).contains(&gigabytes) {
        return Err("0.01 to 1000 gigabytes".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
    Ok((gigabytes * 1e9) as u64)
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
    match benchmark {
        Benchmark::Ingest { options, servers } => {
            let folder = servers::folder(&options.folder, "bench-")?;
            let plan = Plan { peers: servers.servers.clone(), ..plan(options) };
            let report = generator(options)?.block_on(ingest::run(&plan, folder.path(), progress))?;
            publish(&report.markdown()?, &report, options.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::Offered(options) => options.run(),
        Benchmark::Idle(options) => options.run(),
        Benchmark::Fanout(options) => options.run(),
        Benchmark::Storm(options) => options.run(),
        Benchmark::Fairness(options) => options.run(),
        Benchmark::Commands(options) => options.run(),
        Benchmark::Detect(options) => options.run(),
        Benchmark::Nab(options) => options.run(),
        Benchmark::EndToEnd { options, formats } => {
            let folder = servers::folder(&options.folder, "bench-")?;
            let plan = plan(options);
            let run = end_to_end::run(&plan, formats, folder.path(), progress);
            let report = generator(options)?.block_on(run)?;
            publish(&report.markdown()?, &report, options.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::Uplink(UplinkOptions { ways, messages, payloads }) => {
            let folder = servers::folder(&ways.folder, "bench-")?;
            let plan = uplink::Plan {
                ways: ways.list(),
                rounds: ways.rounds,
                messages: *messages,
                payloads: payloads.clone(),
            };
            let report = runtime(all_cores())?.block_on(uplink::run(&plan, folder.path(), progress))?;
            publish(&report.markdown()?, &report, ways.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::Drain(options) => {
            let ways = &options.ways;
            let folder = servers::folder(&ways.folder, "bench-")?;
            let plan = drain::Plan {
                ways: ways.list(),
                rounds: ways.rounds,
                backlog_bytes: options.backlog,
                reference_messages: options.messages,
            };
            let report = runtime(all_cores())?.block_on(drain::run(&plan, folder.path(), progress))?;
            publish(&report.markdown()?, &report, ways.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::Memory(MemoryOptions { ways, outage }) => {
            let folder = servers::folder(&ways.folder, "bench-")?;
            let plan = memory::Plan { ways: ways.list(), rounds: ways.rounds, outage: *outage };
            let report = runtime(all_cores())?.block_on(memory::run(&plan, folder.path(), progress))?;
            publish(&report.markdown()?, &report, ways.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::Outbox(options) => {
            let folder = servers::folder(&options.folder, "bench-")?;
            let report = outbox::run(&outbox_plan(options), folder.path(), progress)?;
            publish(&report.markdown()?, &report, options.report.as_deref())?;
            Ok(report.pass())
        }
        Benchmark::OutboxJob { job, folder } => {
            // As the gateway's: a thread for every processor.
            let runtime = runtime(all_cores())?;
            runtime.block_on(job::work(job, folder))?;
            Ok(true)
        }
    }
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Ways {
    fn list(&self) -> Vec<Way> {
        let ways = self
            .formats
            .iter()
            .flat_map(|&format| self.securities.iter().map(move |&security| Way { format, security }));
        ways.collect()
    }
}

fn generator(options: &Options) -> Result<Runtime> {
    let half = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    runtime(options.threads.unwrap_or(half).max(1))
}

fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().context("no runtime for the generator")
}

fn outbox_plan(options: &OutboxOptions) -> outbox::Plan {
    outbox::Plan {
        rows: options.rows.clone(),
        rounds: options.rounds,
        warm_up: options.warm_up,
        measure: options.seconds,
        backlog_bytes: options.backlog,
    }
}

fn plan(options: &Options) -> Plan {
    Plan {
        cells: options.cells.clone(),
        rounds: options.rounds,
        warm_up: options.warm_up,
        measure: options.seconds,
        payload_bytes: options.payload,
        peers: vec![Peer::Penstock],
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
        let Benchmark::Ingest { options, servers } = Arguments::try_parse_from(words).unwrap().benchmark
        else {
            panic!("another benchmark")
        };
        assert_eq!(servers.servers, [Peer::Penstock, Peer::Mosquitto, Peer::Rumqttd]);
        assert_eq!(options.cells.len(), 2);
        assert_eq!(options.seconds, Duration::from_millis(2500));
    }

    #[test]
    fn ways_are_every_format_with_every_security() {
        let words = ["penstock-benches", "uplink", "--formats", "packed", "--securities", "tls,plain"];
        let Benchmark::Uplink(options) = Arguments::try_parse_from(words).unwrap().benchmark else {
            panic!("another benchmark")
        };
        let names: Vec<_> = options.ways.list().iter().map(Way::to_string).collect();
        assert_eq!(names, ["packed TLS", "packed plain"]);
    }

    #[test]
    fn a_job_is_understood_by_the_process_that_gets_it() {
        let setup = outbox::log::Setup { codec: outbox::log::Codec::Lz4, floor_micros: 7 };
        let sent = Job::Fill { setup, backlog_bytes: 9 };
        let text = serde_json::to_string(&sent).unwrap();
        let words = ["penstock-benches", "outbox-job", &text, "/tmp/x"];
        let Benchmark::OutboxJob { job, .. } = Arguments::try_parse_from(words).unwrap().benchmark else {
            panic!("another benchmark")
        };
        assert_eq!(job, sent);
    }

    #[test]
    fn bad_rows_and_backlogs_are_refused() {
        for words in [["--rows", "14"], ["--rows", "x"], ["--backlog", "0"], ["--backlog", "nan"]] {
            let words = ["penstock-benches", "outbox"].into_iter().chain(words);
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }

    #[test]
    fn bad_cells_and_times_are_refused() {
        for words in [["--cells", "50"], ["--seconds", "0"], ["--rounds", "0"]] {
            let words = ["penstock-benches", "ingest"].into_iter().chain(words);
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }
}
