//! `cargo xtask bench`: builds everything and hands over to `penstock-benches`, with as many descriptors as the
//! system allows.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cargo::Cargo;
use crate::packages::{self, Need};
use crate::say;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which benchmark
    pub(crate) name: Name,
    /// Options of the benchmark, such as `--seconds 3 --rounds 5 --cells 50x16,1000x16 --report FILE`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Durable ingest beside a broker that stores nothing, against the bars
    Ingest,
    /// The same load with the uplink on, against the bars
    EndToEnd,
    /// A full outbox on its way to the cloud stand-in, against the bars
    Uplink,
    /// The same while devices publish, against the bars
    Drain,
    /// What an outage of the cloud adds to the gateway's memory, against a bar
    Memory,
    /// The outbox beside a plain append log, against what is demanded of it
    Outbox,
}

/// Builds and runs the benchmark; its exit code decides.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(Need::BuildAndTest)?;
    let mut cargo = Cargo::new()?;
    cargo.build()?;
    let value = arguments.name.to_possible_value().context("every benchmark has a name")?;
    say::step(&format!("bench {}", value.get_name()));
    // The shell raises the soft limit of descriptors: a thousand connections need it on both sides.
    let script = "ulimit -n \"$(ulimit -Hn)\" && exec \"$0\" \"$@\"";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(cargo.binary("penstock-benches")?)
        .arg(value.get_name())
        .args(&arguments.options)
        .current_dir(cargo.root())
        .stdin(Stdio::null())
        .status()
        .context("sh cannot be started")?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}
