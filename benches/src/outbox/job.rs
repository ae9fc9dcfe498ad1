//! One measurement in a process of its own: its processor time, its bytes and its memory are nobody else's.
//!
//! The parent starts `penstock-benches outbox-job JOB FOLDER`, where `JOB` is JSON, and reads one line of JSON
//! with named figures.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use penstock_proto::Lane;
use serde::{Deserialize, Serialize};

use super::accounts::disk_bytes;
use super::drain;
use super::load::{Load, Pace, Seen};
use super::log::{Log, Message, Outbox, Setup};
use super::plain::Plain;
use super::telemetry::{PAYLOAD_BYTES, Telemetry};
use crate::load::count as float;
use crate::stats;

/// Producers that fill a backlog, and messages each has in flight.
const FILL: (u32, u32) = (16, 64);

/// Producers of a load with a fixed rate.
pub const PACED_PRODUCERS: u32 = 4;

/// How often a fill looks at what it has got, and the lanes' job at the log files.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Figures of one measurement by name.
pub type Figures = BTreeMap<String, f64>;

/// A log under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tested {
    /// The plain append log R1.
    Plain,
    /// The outbox.
    Outbox(Setup),
}

/// Times of one measurement, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Under load before it is measured.
    pub warm_up_ms: u64,
    /// Measured.
    pub measure_ms: u64,
}

/// What a process measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// Producers that keep a window in flight.
    Closed {
        /// The log.
        log: Tested,
        /// Whether a consumer follows; a plain log has none.
        drain: bool,
        /// How many producers.
        producers: u32,
        /// Messages each has in flight.
        window: u32,
        /// How long.
        timing: Timing,
    },
    /// A fixed rate; a consumer keeps up, or nobody reads.
    Steady {
        /// The outbox.
        setup: Setup,
        /// Messages per second.
        rate: u32,
        /// Whether a consumer reads and confirms.
        drain: bool,
        /// How long.
        timing: Timing,
    },
    /// A backlog that is drained while a fixed rate comes in.
    Drain {
        /// The outbox.
        setup: Setup,
        /// Bytes of records in the backlog.
        backlog_bytes: u64,
        /// Messages per second meanwhile.
        rate: u32,
        /// The most messages per second that the consumer takes.
        drain_rate: Option<u32>,
        /// How long without the consumer.
        timing: Timing,
    },
    /// Fills a backlog and says so; closed when standard input ends, or killed before.
    Fill {
        /// The outbox.
        setup: Setup,
        /// Bytes of records in the backlog.
        backlog_bytes: u64,
    },
    /// Opens what [`Job::Fill`] left and closes it.
    Open {
        /// The outbox.
        setup: Setup,
    },
    /// A busy lane beside one with a message per second, which keeps the shared log from being shortened.
    Lanes {
        /// The outbox.
        setup: Setup,
        /// Messages per second in the busy lane; a consumer keeps up.
        rate: u32,
        /// Whether the quiet lane has its message per second.
        quiet: bool,
        /// How long.
        timing: Timing,
    },
}

impl Timing {
    /// Time under load before the measurement.
    pub const fn warm_up(self) -> Duration {
        Duration::from_millis(self.warm_up_ms)
    }

    /// Time that is measured.
    pub const fn measure(self) -> Duration {
        Duration::from_millis(self.measure_ms)
    }
}

// === the parent's side ===

/// Runs `job` in a process of its own that keeps its data in `folder`, with `environment` added.
///
/// # Errors
/// The process fails or says nothing that is understood.
pub fn run(job: &Job, folder: &Path, environment: &[(&str, std::ffi::OsString)]) -> Result<Figures> {
    let mut running = start(job, folder, environment)?;
    let figures = read(&mut running);
    drop(running.stdin.take());
    let status = running.wait()?;
    if !status.success() {
        bail!("{job:?} failed: {status}");
    }
    figures.with_context(|| format!("{job:?}"))
}

/// Runs `job` until it has said its figures, and kills it then, in the middle of its work.
///
/// # Errors
/// As [`run`].
pub fn run_and_kill(job: &Job, folder: &Path) -> Result<Figures> {
    let mut running = start(job, folder, &[])?;
    let figures = read(&mut running);
    running.kill()?;
    running.wait()?;
    figures.with_context(|| format!("{job:?}"))
}

fn start(job: &Job, folder: &Path, environment: &[(&str, std::ffi::OsString)]) -> Result<Child> {
    let program = std::env::current_exe().context("this program's path is not known")?;
    let mut command = Command::new(program);
    command.arg("outbox-job").arg(serde_json::to_string(job)?).arg(folder);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("this program cannot be started again")
}

fn read(running: &mut Child) -> Result<Figures> {
    let stdout = running.stdout.take().context("its output is read once")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("figures were expected, not {line:?}"))
}

// === the child's side ===

/// Does the job and prints its figures.
///
/// # Errors
/// Whatever goes wrong: figures of half a measurement mean nothing.
pub async fn work(job: &Job, folder: &Path) -> Result<()> {
    let payloads = Arc::new(Telemetry::new()?);
    let figures = match *job {
        Job::Closed { log: Tested::Plain, producers, window, timing, .. } => {
            let log = Arc::new(Plain::create(&folder.join("plain.log"))?);
            let mut figures = closed(&log, &payloads, producers, window, timing).await?;
            figures.insert("realtime".to_owned(), f64::from(u8::from(log.realtime())));
            alone(log)?.close()?;
            figures
        }
        Job::Closed { log: Tested::Outbox(setup), drain, producers, window, timing } => {
            let (log, follower) = followed(folder, setup, drain)?;
            let mut figures = closed(&log, &payloads, producers, window, timing).await?;
            figures.insert("realtime".to_owned(), f64::from(u8::from(log.realtime())));
            follower.map(drain::Drain::stop).transpose()?;
            alone(log)?.close()?;
            figures
        }
        Job::Steady { setup, rate, drain, timing } => {
            steady(folder, setup, &payloads, rate, drain, timing).await?
        }
        Job::Drain { setup, backlog_bytes, rate, drain_rate, timing } => {
            drain::run(folder, setup, &payloads, backlog_bytes, rate, drain_rate, timing).await?
        }
        Job::Fill { setup, backlog_bytes } => {
            return keep_filled(folder, setup, &payloads, backlog_bytes).await;
        }
        Job::Open { setup } => {
            let (log, took) = Outbox::open(&folder.join("outbox"), setup, &[Lane::Telemetry], |_| {})?;
            let backlog = log.handle().status().backlog_bytes;
            log.close()?;
            named([("open_ms", took.as_secs_f64() * 1e3), ("backlog_bytes", float(backlog))])
        }
        Job::Lanes { setup, rate, quiet, timing } => {
            lanes(folder, setup, &payloads, rate, quiet, timing).await?
        }
    };
    say(&figures)
}

/// Figures with their names.
pub fn named<const N: usize>(figures: [(&str, f64); N]) -> Figures {
    figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
}

/// Takes the log back from those who drove it and are gone.
///
/// # Errors
/// Somebody still has it.
pub fn alone<L>(log: Arc<L>) -> Result<L> {
    Arc::into_inner(log).context("somebody still uses the log")
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(figures: &Figures) -> Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(io::stdout().flush()?)
}

async fn closed<L: Log>(
    log: &Arc<L>,
    payloads: &Arc<Telemetry>,
    producers: u32,
    window: u32,
    timing: Timing,
) -> Result<Figures> {
    let mut load = Load::new(log, payloads)?;
    load.start(producers, Lane::Telemetry, Pace::Window(window));
    tokio::time::sleep(timing.warm_up()).await;
    let seen = load.measure(timing.measure()).await?;
    load.stop().await?;
    Ok(figures_of(&seen))
}

/// Bytes of one record as the outbox stores it, uncompressed: the payload with its device, topic and time.
fn record_bytes() -> u64 {
    let mut records = <Outbox as Log>::Records::default();
    let message = Message {
        lane: Lane::Telemetry,
        device: "device-000000",
        topic: "devices/device-000000/telemetry",
        received_ms: 0,
        payload: &[0; PAYLOAD_BYTES],
    };
    Outbox::push(&mut records, &message);
    records.bytes() as u64
}

/// What every measurement of a load tells.
pub fn figures_of(seen: &Seen) -> Figures {
    let payload = float(seen.acked) * float(PAYLOAD_BYTES as u64);
    let records = float(seen.acked) * float(record_bytes());
    named([
        ("per_second", seen.per_second()),
        ("least_us", float(seen.latency.min())),
        ("p50_us", seen.micros(50.0)),
        ("p99_us", seen.micros(99.0)),
        ("p999_us", seen.micros(99.9)),
        ("cpu_us", seen.cpu_micros()),
        ("group", seen.group()),
        ("device_ratio", float(seen.spent.device_bytes) / payload.max(1.0)),
        ("device_per_record", float(seen.spent.device_bytes) / records.max(1.0)),
        ("flush_ratio", float(seen.spent.flush_bytes) / payload.max(1.0)),
        ("compaction_ratio", float(seen.spent.compaction_bytes) / payload.max(1.0)),
    ])
}

/// An outbox, with a consumer that follows if one is wanted.
fn followed(folder: &Path, setup: Setup, drain: bool) -> Result<(Arc<Outbox>, Option<drain::Drain>)> {
    let consumed: &[Lane] = if drain { &[Lane::Telemetry] } else { &[] };
    let (log, _) = Outbox::open(&folder.join("outbox"), setup, consumed, |_| {})?;
    let follower = if drain { Some(drain::Drain::start(log.handle(), false, None)?) } else { None };
    Ok((Arc::new(log), follower))
}

async fn steady(
    folder: &Path,
    setup: Setup,
    payloads: &Arc<Telemetry>,
    rate: u32,
    drain: bool,
    timing: Timing,
) -> Result<Figures> {
    let (log, follower) = followed(folder, setup, drain)?;
    let mut load = Load::new(&log, payloads)?;
    load.start(PACED_PRODUCERS, Lane::Telemetry, Pace::Rate(rate / PACED_PRODUCERS));
    tokio::time::sleep(timing.warm_up()).await;
    let seen = load.measure(timing.measure()).await?;
    load.stop().await?;
    follower.map(drain::Drain::stop).transpose()?;
    alone(log)?.close()?;
    Ok(figures_of(&seen))
}

/// Fills the outbox until `backlog_bytes` are in it; how long a message took meanwhile, and what it cost.
///
/// # Errors
/// A producer fails.
pub async fn fill(
    log: &Arc<Outbox>,
    payloads: &Arc<Telemetry>,
    backlog_bytes: u64,
) -> Result<(Load<Outbox>, Seen)> {
    let mut load = Load::new(log, payloads)?;
    let window = load.window()?;
    load.start(FILL.0, Lane::Telemetry, Pace::Window(FILL.1));
    while log.handle().status().backlog_bytes < backlog_bytes {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let seen = load.seen(&window)?;
    Ok((load, seen))
}

async fn keep_filled(
    folder: &Path,
    setup: Setup,
    payloads: &Arc<Telemetry>,
    backlog_bytes: u64,
) -> Result<()> {
    let directory = folder.join("outbox");
    let (log, _) = Outbox::open(&directory, setup, &[Lane::Telemetry], |_| {})?;
    let log = Arc::new(log);
    let (load, seen) = fill(&log, payloads, backlog_bytes).await?;
    let mut figures = figures_of(&seen);
    figures.insert("disk_bytes".to_owned(), float(disk_bytes(&directory, "")?));
    say(&figures)?;
    // The load goes on, so that a kill falls into the middle of it.
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
    load.stop().await?;
    alone(log)?.close()
}

async fn lanes(
    folder: &Path,
    setup: Setup,
    payloads: &Arc<Telemetry>,
    rate: u32,
    quiet: bool,
    timing: Timing,
) -> Result<Figures> {
    let directory = folder.join("outbox");
    let (log, _) = Outbox::open(&directory, setup, &[Lane::Telemetry], |_| {})?;
    let log = Arc::new(log);
    let follower = drain::Drain::start(log.handle(), false, None)?;
    let mut load = Load::new(&log, payloads)?;
    load.start(PACED_PRODUCERS, Lane::Telemetry, Pace::Rate(rate / PACED_PRODUCERS));
    if quiet {
        load.start(1, Lane::Status, Pace::Rate(1));
    }
    tokio::time::sleep(timing.warm_up()).await;
    let window = load.window()?;
    let (mut sizes, end) = (Vec::new(), crate::clock::now() + timing.measure());
    while crate::clock::now() < end {
        sizes.push(float(disk_bytes(&directory.join("database"), ".log")?));
        tokio::time::sleep(LOOK_EVERY * 5).await;
    }
    let seen = load.seen(&window)?;
    load.stop().await?;
    follower.stop()?;
    alone(log)?.close()?;
    let mut figures = figures_of(&seen);
    let (_, largest) = stats::range(&sizes).unwrap_or_default();
    figures.extend(named([
        ("wal_bytes_max", largest),
        ("wal_bytes_median", stats::median(&sizes).unwrap_or_default()),
        ("flush_bytes", float(seen.spent.flush_bytes)),
    ]));
    Ok(figures)
}
