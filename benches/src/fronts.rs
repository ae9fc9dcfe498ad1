//! The command lines of the benchmarks of the front end, and how each is run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use penstock_benches::fanout::scene::{Shape, Topics};
use penstock_benches::peer::Peer;
use penstock_benches::storm::Transport;
use penstock_benches::{commands, detect, fairness, fanout, idle, nab, offered, servers, storm};
use serde::Serialize;

use crate::{progress, publish, runtime, seconds};

/// The servers, where rumqttd takes part unless it is left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Servers {
    /// Servers, separated by commas; `cargo xtask bench` builds rumqttd only if it is among them
    #[arg(long, value_delimiter = ',', default_value = "penstock,mosquitto,rumqttd")]
    pub(crate) servers: Vec<Peer>,
}

/// The servers, where rumqttd takes part only if it is asked for.
#[derive(Debug, clap::Args)]
struct TwoServers {
    /// Servers, separated by commas; `cargo xtask bench` builds rumqttd only if it is among them
    #[arg(long, value_delimiter = ',', default_value = "penstock,mosquitto")]
    servers: Vec<Peer>,
}

#[derive(Debug, clap::Args)]
struct Times {
    /// Measured seconds of each sample
    #[arg(long, default_value = "2.5", value_parser = seconds)]
    seconds: Duration,
    /// Seconds under load before each sample
    #[arg(long, default_value = "1.5", value_parser = seconds)]
    warm_up: Duration,
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// Folder for the servers' data; it must lie on the disk that is to be measured
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Where the JSON report goes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Offered {
    #[command(flatten)]
    servers: TwoServers,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    output: Output,
    /// Bytes of each payload
    #[arg(long, default_value_t = 200)]
    payload: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    output: Output,
    /// Connections wanted; as many as the limit of descriptors allows
    #[arg(long, default_value_t = 18_000)]
    connections: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    output: Output,
    /// Publishers x subscribers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1x1000,1000x1")]
    shapes: Vec<Shape>,
    /// Topics the gateway is measured with, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "local,telemetry")]
    topics: Vec<Topics>,
    /// Bytes of each payload
    #[arg(long, default_value_t = 200)]
    payload: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Storm {
    /// Servers, separated by commas; mosquitto's backlog of 100 makes a storm into it take minutes
    #[arg(long, value_delimiter = ',', default_value = "penstock")]
    servers: Vec<Peer>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    output: Output,
    /// Devices that reconnect
    #[arg(long, default_value_t = 10_000)]
    devices: u32,
    /// How they connect, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "plain,tls")]
    transports: Vec<Transport>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Commands {
    /// Measured seconds of each round; long enough for every lock to be renewed
    #[arg(long, default_value = "15", value_parser = seconds)]
    seconds: Duration,
    /// Seconds under load before
    #[arg(long, default_value = "2", value_parser = seconds)]
    warm_up: Duration,
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Connected devices, all with links on one connection to Service Bus
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=4500))]
    devices: u32,
    /// Commands per second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Fairness {
    #[command(flatten)]
    servers: TwoServers,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    output: Output,
}

/// The options of `detect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Detect {
    /// Devices, each with three metrics in one message
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Messages of each device
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// How often everything is measured; figures are medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Where the JSON report goes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Detect {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = detect::Plan { devices: self.devices, rounds: self.messages, repeats: self.rounds };
        let report = detect::run(&plan, progress)?;
        publish(&report.markdown()?, &report, self.report.as_deref())?;
        Ok(report.pass())
    }
}

/// The options of `nab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Nab {
    /// Of the searches for parameters
    #[arg(long, default_value_t = 17)]
    seed: u64,
    /// Where result files go that the benchmark's own scorer reads
    #[arg(long, value_name = "DIR")]
    scores: Option<PathBuf>,
    /// Where the JSON report goes
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Nab {
    pub(crate) fn run(&self) -> Result<bool> {
        let Some(folder) = std::env::var_os(nab::FOLDER) else {
            progress(&format!("skipped: {} does not say where the corpus is", nab::FOLDER));
            return Ok(true);
        };
        let report = nab::run(Path::new(&folder), self.seed, self.scores.as_deref(), progress)?;
        publish(&report.markdown()?, &report, self.report.as_deref())?;
        Ok(report.pass())
    }
}

impl Output {
    /// Runs the benchmark with one thread for the generator, prints its table and tells whether every bar holds.
    fn take<R: Serialize>(
        &self,
        run: impl AsyncFnOnce(&Path) -> Result<R>,
        table: impl FnOnce(&R) -> Result<(String, bool)>,
    ) -> Result<bool> {
        let folder = servers::folder(&self.folder, "bench-")?;
        let report = runtime(1)?.block_on(run(folder.path()))?;
        let (markdown, pass) = table(&report)?;
        publish(&markdown, &report, self.report.as_deref())?;
        Ok(pass)
    }
}

impl Offered {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = offered::Plan {
            peers: self.servers.servers.clone(),
            rounds: self.times.rounds,
            warm_up: self.times.warm_up,
            measure: self.times.seconds,
            payload_bytes: self.payload,
        };
        let run = async |folder: &Path| offered::run(&plan, folder, progress).await;
        self.output.take(run, |report| Ok((report.markdown()?, report.pass())))
    }
}

impl Idle {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = idle::Plan { connections: self.connections, peers: self.servers.servers.clone() };
        let run = async |folder: &Path| idle::run(&plan, folder, progress).await;
        self.output.take(run, |report| Ok((report.markdown()?, report.pass())))
    }
}

impl Fanout {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = fanout::Plan {
            shapes: self.shapes.clone(),
            topics: self.topics.clone(),
            peers: self.servers.servers.clone(),
            rounds: self.times.rounds,
            warm_up: self.times.warm_up,
            measure: self.times.seconds,
            payload_bytes: self.payload,
        };
        let run = async |folder: &Path| fanout::run(&plan, folder, progress).await;
        self.output.take(run, |report| Ok((report.markdown()?, report.pass())))
    }
}

impl Storm {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = storm::Plan {
            peers: self.servers.clone(),
            transports: self.transports.clone(),
            rounds: self.times.rounds,
            devices: self.devices,
            warm_up: self.times.warm_up,
            before: self.times.seconds,
        };
        let run = async |folder: &Path| storm::run(&plan, folder, progress).await;
        self.output.take(run, |report| Ok((report.markdown()?, report.pass())))
    }
}

impl Commands {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = commands::Plan {
            devices: self.devices,
            rate: self.rate,
            rounds: self.rounds,
            warm_up: self.warm_up,
            measure: self.seconds,
        };
        let run = async |folder: &Path| commands::run(&plan, folder, progress).await;
        self.output.take(run, |report| Ok((report.markdown()?, report.pass())))
    }
}

impl Fairness {
    pub(crate) fn run(&self) -> Result<bool> {
        let plan = fairness::Plan {
            peers: self.servers.servers.clone(),
            rounds: self.times.rounds,
            warm_up: self.times.warm_up,
            measure: self.times.seconds,
        };
        let run = async |folder: &Path| fairness::run(&plan, folder, progress).await;
        self.output.take(run, |report| Ok((report.markdown()?, report.pass())))
    }
}
