//! `cargo xtask kafka`: a real Apache Kafka on this machine, to try things on; `cargo xtask kafka suite` sends
//! through the real gateway to it and judges what arrived.
//!
//! The stand-in of the tests was written by those who wrote the gateway, and may share their mistakes. This broker
//! was not.

mod suite;

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use testkit::kafka::{self, Kafka, VERSION};

use crate::cargo::Cargo;
use crate::packages::{self, Need};
use crate::say;
use crate::signals;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// What to do
    #[arg(value_enum, default_value_t = What::Up)]
    pub(crate) what: What,
    /// A topic to create, NAME:PARTITIONS (up)
    #[arg(long = "topic", value_name = "NAME:PARTITIONS", value_parser = topic)]
    pub(crate) topics: Vec<(String, u32)>,
    /// Only the scenario with this name (suite)
    #[arg(long, value_name = "SCENARIO")]
    pub(crate) only: Option<String>,
    /// From this the fleets follow; a random one, printed, unless given (suite)
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Start a broker and keep it until Ctrl-C
    Up,
    /// Play every scenario with a gateway and a fleet, and judge
    Suite,
}

/// Does what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(missing) = kafka::missing() {
        bail!("{missing}");
    }
    match arguments.what {
        What::Up => up(arguments),
        What::Suite => {
            packages::ensure(Need::BuildAndTest)?;
            let mut cargo = Cargo::new()?;
            cargo.build()?;
            play(arguments, &cargo)
        }
    }
}

/// The suite with the programs that are already built, for `ci`. Where Java or Maven are not installed it says so
/// and does nothing: the stand-in covers the same ground everywhere.
pub(crate) fn short(cargo: &Cargo) -> Result<()> {
    if let Some(missing) = kafka::missing() {
        say::line(&format!("skipped: the uplink was not tested against Apache Kafka. {missing}"));
        return Ok(());
    }
    play(&Arguments { what: What::Suite, topics: Vec::new(), only: None, seed: None }, cargo)
}

/// Parses `NAME:PARTITIONS`.
fn topic(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("{text:?} is not NAME:PARTITIONS");
    let (name, partitions) = text.rsplit_once(':').ok_or_else(wrong)?;
    let partitions = partitions.parse().ok().filter(|partitions| (1..=1024).contains(partitions));
    Ok((name.to_owned(), partitions.ok_or_else(wrong)?))
}

fn up(arguments: &Arguments) -> Result<()> {
    say::step(&format!("Apache Kafka {VERSION}"));
    let folder =
        tempfile::Builder::new().prefix("penstock-kafka-").tempdir().context("no temporary folder")?;
    let topics: Vec<(&str, u32)> =
        arguments.topics.iter().map(|(name, partitions)| (name.as_str(), *partitions)).collect();
    let mut kafka = Kafka::start(folder.path(), &topics)?;
    let secured = kafka.secured();
    say::line(&format!("without TLS                  {}", kafka.plain()));
    say::line(&format!("TLS and SASL, as Event Hubs  {}", secured.address));
    say::line(&format!("connection_string_file       {}", secured.connection_string_file.display()));
    say::line(&format!("ca_file                      {}", secured.ca_file.display()));
    say::line("Ctrl-C ends it and removes its data.");
    while !signals::interrupted() {
        if !kafka.process().running()? {
            bail!("kafka ended by itself; its last words:\n{}", kafka.process().stderr_tail());
        }
        thread::park_timeout(Duration::from_millis(200));
    }
    kafka.stop()?;
    Ok(())
}

fn play(arguments: &Arguments, cargo: &Cargo) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    // Beside the build and not in /tmp, which may be memory: a sync there would prove nothing.
    let folder = tempfile::Builder::new().prefix("kafka-").tempdir_in(cargo.target());
    let folder = folder.context("no folder for the broker's data")?;
    match in_folder(arguments, seed, folder.path()) {
        Ok(()) => Ok(()),
        Err(error) if signals::interrupted() => Err(error),
        Err(error) => {
            let kept = folder.keep();
            Err(error.context(format!("the suite failed; data and logs are kept in {}", kept.display())))
        }
    }
}

fn in_folder(arguments: &Arguments, seed: u64, folder: &Path) -> Result<()> {
    say::step(&format!("uplink against Apache Kafka {VERSION}, seed {seed}"));
    suite::run(folder, seed, arguments.only.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_names_with_partitions() {
        assert_eq!(topic("telemetry:4"), Ok(("telemetry".to_owned(), 4)));
        for text in ["telemetry", "telemetry:", "telemetry:0", "telemetry:x"] {
            assert!(topic(text).is_err(), "{text}");
        }
    }
}
