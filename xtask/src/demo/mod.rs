//! `cargo xtask demo`: everything on one machine, judged.
//!
//! ```text
//! fleet (firmware-sim) ──MQTT──► gateway (penstock) ──Kafka──► cloud stand-in (cloud-sim)
//!        │   ▲ ◄──── commands ────────┘ ◄─AMQP─ queue ──────────────────┤
//!        └───┴───────────── reads back and judges ◄─────────────────────┘
//! ```
//!
//! Meanwhile commands go to the devices, through the queue of the stand-in's Service Bus; the fleet judges them too. Some
//! devices have faults, of which the fleet keeps a list; rules find them, and their alerts go to the stand-in's Event Grid,
//! where they are held against the list.
//!
//! With `--kill-gateway K` the gateway is killed (SIGKILL) at K moments under load and started again on the same
//! ports. At the end it is asked to stop, which must succeed, and `penstock verify` proves from the topic alone
//! that no record is missing. The demo passes when the fleet's verdict and `verify` both do, and
//! no alert that must be there is missing.

mod alerts;
mod kills;
mod stage;
mod verdict;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo::Cargo;
use crate::packages::{self, Need};
use crate::say;
use crate::signals;

/// Most kills of one run: each costs a start of the gateway.
const KILLS_MAX: i64 = 100;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// How many devices
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) devices: u32,
    /// Messages per second of the whole fleet
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// How long the fleet publishes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// How many commands go to the devices meanwhile
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) commands: u32,
    /// How often the gateway is killed under load
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=KILLS_MAX))]
    pub(crate) kill_gateway: u32,
    /// Where the JSON report goes; `demo-report.json` in the target folder unless said otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Seed of the fleet and of the kills; a random one, printed, unless given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// Makes sure of the packages, builds, and plays the demo.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(Need::Build)?;
    let mut cargo = Cargo::new()?;
    cargo.build()?;
    play(arguments, &cargo)
}

/// A short demo with the programs that are already built, for `ci`.
pub(crate) fn short(cargo: &Cargo, kill_gateway: u32) -> Result<()> {
    let arguments = Arguments {
        devices: 200,
        rate: 10_000,
        seconds: 8,
        commands: 200,
        kill_gateway,
        report: None,
        seed: None,
    };
    play(&arguments, cargo)
}

/// Plays the demo in a folder of its own, which is removed on success and after Ctrl-C, and kept, with the logs, on failure.
fn play(arguments: &Arguments, cargo: &Cargo) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let report = arguments.report.clone().unwrap_or_else(|| cargo.target().join("demo-report.json"));
    say::step(&format!(
        "demo: {} devices, {} messages/s, {} s, {} commands, {} kills, seed {seed}",
        arguments.devices, arguments.rate, arguments.seconds, arguments.commands, arguments.kill_gateway
    ));
    // Beside the build and not in /tmp, which may be memory: a sync there would prove nothing.
    let folder = tempfile::Builder::new().prefix("demo-").tempdir_in(cargo.target());
    let folder = folder.context("no folder for the demo's data")?;
    let plan = stage::Plan { arguments, seed, folder: folder.path(), report: &report };
    match perform(&plan) {
        Ok(()) => Ok(()),
        Err(error) if signals::interrupted() => Err(error),
        Err(error) => {
            let kept = folder.keep();
            Err(error.context(format!("the demo failed; data and logs are kept in {}", kept.display())))
        }
    }
}

fn perform(plan: &stage::Plan<'_>) -> Result<()> {
    // A report of an earlier run must not be taken for this one's.
    remove(plan.report)?;
    let played = stage::Stage::set(plan)?.run()?;
    let report = verdict::complete(plan.report, &played)?;
    say::line(&verdict::summary(&report, &played, plan.report));
    verdict::check(&report, &played)
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", file.display()))
        }
        _ => Ok(()),
    }
}
