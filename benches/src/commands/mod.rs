//! `commands`: thousands of connected devices on one connection to Service Bus: how fast their sessions are
//! accepted, what each link costs in memory, how long a command takes to its settlement, and whether locks are
//! renewed in time meanwhile.
//!
//! The stand-in for Service Bus runs on the same machine and takes its share of the processors.

mod flow;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use testkit::cloud::{Cloud, Control};
use testkit::commands::queue;
use testkit::gateway::Config;

use crate::clock::now;
use crate::idle;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::servers::{self, Server, TOPIC, Wish};
use flow::{Fleet, Sender};
pub use table::Report;

/// How long locks last, in seconds. They are renewed at half of it, so that each link does so under load.
const LOCK_SECONDS: u32 = 20;
/// Most sessions accepted per second: no limit that would be felt.
const ACCEPTS_PER_SECOND: &str = "accepts_per_second = 10000";
/// Everything on one AMQP connection.
const LINKS_PER_CONNECTION: &str = "links_per_connection = 4500\nparallel_connections = 1";
/// Longest time for all sessions to be accepted.
const ACCEPT_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest time for commands to be settled when no more are sent.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Devices that are connected, each with a session.
    pub devices: u32,
    /// Commands per second.
    pub rate: u32,
    /// How often everything is measured; figures are medians.
    pub rounds: u32,
    /// Under load before latencies count.
    pub warm_up: Duration,
    /// Under load while they do.
    pub measure: Duration,
}

/// The figures of one round.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// From the first subscription to the last session, in sessions per second.
    pub accepts_per_second: f64,
    /// Resident bytes that a session and its link add to those of its connected device.
    pub bytes_per_link: f64,
    /// Commands that were settled in the time that counts.
    pub settled: u64,
    /// Commands that were sent and never settled.
    pub stuck: u64,
    /// From handing a command to Service Bus to its settlement there, in milliseconds.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// Locks renewed under load.
    pub renewals: u64,
    /// Share of renewals that came more than a second later than planned.
    pub late_share: f64,
    /// Sessions whose lock ran out.
    pub locks_lost: u64,
    /// The gateway's processor time per command, in microseconds, renewals included.
    pub cpu_us: f64,
}

/// Runs the measurements with all data in `folder`; `progress` hears of each round.
///
/// # Errors
/// A program cannot be started, a device is refused, or sessions are not accepted in time.
pub async fn run(plan: &Plan, folder: &Path, progress: impl Fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    if idle::possible(plan.devices)? < plan.devices {
        bail!("descriptors are short for {} devices; raise their limit with `ulimit -n`", plan.devices);
    }
    let mut samples = Vec::new();
    for round in 1..=plan.rounds {
        let sample = sample(plan, folder).await.with_context(|| format!("round {round}"))?;
        progress(&format!(
            "round {round}: {:.0} accepts/s, {:.0} bytes per link, p50 {:.1} ms, p99 {:.1} ms, {} locks lost",
            sample.accepts_per_second, sample.bytes_per_link, sample.p50_ms, sample.p99_ms, sample.locks_lost
        ));
        samples.push(sample);
    }
    Ok(Report::new(machine, plan, samples))
}

async fn sample(plan: &Plan, parent: &Path) -> Result<Sample> {
    let folder = servers::folder(parent, "cloud-")?;
    let (cloud, connection_string) = queue::start(folder.path(), &[TOPIC], LOCK_SECONDS)?;
    let config = Config::default()
        .commands(&connection_string)
        .set("commands", ACCEPTS_PER_SECOND)
        .set("commands.connection", LINKS_PER_CONNECTION);
    let server = Server::start_with(Peer::Penstock, parent, Wish { config, ..Wish::default() }).await?;
    let mut fleet = Fleet::connect(server.address(), plan.devices).await?;
    let before = idle::at_rest(&server).await?;
    let start = now();
    fleet.subscribe().await?;
    accepted(&cloud, &mut fleet, plan.devices).await?;
    let accepts_per_second = f64::from(plan.devices) / start.elapsed().as_secs_f64();
    let added = idle::at_rest(&server).await?.saturating_sub(before);
    let mut sample = load(plan, &cloud, &server, &mut fleet).await?;
    sample.accepts_per_second = accepts_per_second;
    sample.bytes_per_link = crate::load::count(added) / f64::from(plan.devices.max(1));
    Ok(sample)
}

/// Waits until every device's session is accepted.
async fn accepted(cloud: &Cloud, fleet: &mut Fleet, devices: u32) -> Result<()> {
    let deadline = now() + ACCEPT_WITHIN;
    loop {
        fleet.check()?;
        let open = counter(cloud.control(), "links_open").await?;
        if open >= u64::from(devices) {
            return Ok(());
        }
        if now() > deadline {
            bail!("{open} of {devices} sessions were accepted within {} s", ACCEPT_WITHIN.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Sends commands at the plan's rate and follows them to their settlement.
async fn load(plan: &Plan, cloud: &Cloud, server: &Server, fleet: &mut Fleet) -> Result<Sample> {
    let lost_before = counter(cloud.control(), "session_locks_lost").await?;
    let renewed_before = counter(cloud.control(), "renewals").await?;
    let (cpu_before, start) = (server.cpu()?, now());
    let mut sender = Sender::new(cloud.control().clone(), plan.devices, plan.rate, plan.warm_up);
    let end = start + plan.warm_up + plan.measure;
    while now() < end {
        fleet.check()?;
        sender.send(start.elapsed()).await?;
        sender.follow().await?;
    }
    let deadline = now() + SETTLE_WITHIN;
    while sender.open() > 0 && now() < deadline {
        fleet.check()?;
        tokio::time::sleep(LOOK_EVERY).await;
        sender.follow().await?;
    }
    let cpu = server.cpu()?.saturating_sub(cpu_before);
    let metrics = server.metrics()?;
    Ok(Sample {
        accepts_per_second: 0.0,
        bytes_per_link: 0.0,
        settled: sender.settled(),
        stuck: sender.open(),
        p50_ms: sender.percentile(0.5),
        p99_ms: sender.percentile(0.99),
        renewals: counter(cloud.control(), "renewals").await? - renewed_before,
        late_share: table::late_share(&metrics),
        locks_lost: counter(cloud.control(), "session_locks_lost").await? - lost_before,
        cpu_us: cpu.as_secs_f64() * 1e6 / crate::load::count(sender.sent().max(1)),
    })
}

/// A figure that the stand-in counts about Service Bus.
async fn counter(control: &Control, name: &'static str) -> Result<u64> {
    let control = control.clone();
    let counters = tokio::task::spawn_blocking(move || control.get("/servicebus/counters")).await??;
    counters[name].as_u64().with_context(|| format!("the stand-in does not count {name}"))
}
