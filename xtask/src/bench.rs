//! `cargo xtask bench`: builds everything and hands over to `penstock-benches`, with as many descriptors as the
//! system allows.
//!
//! Where rumqttd takes part, it is built first: a workspace of its own in `benches/rumqttd-peer`, with a lock file
//! and a build folder of its own, so that its older dependencies touch neither the gateway's nor what `cargo xtask
//! ci` checks. `ci` does not build it.

use std::path::PathBuf;
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
    /// Durable ingest beside brokers that store nothing, against the bars
    Ingest,
    /// Acknowledgement times at a low rate, against what the disk takes
    Offered,
    /// Resident memory of idle connections, against a bar
    Idle,
    /// Processor time per delivery to subscribers beside brokers, against a bar
    Fanout,
    /// Ten thousand devices reconnect while others publish, against a bar
    Storm,
    /// One device publishes all it can beside a thousand slow ones, against a bar
    Fairness,
    /// Thousands of devices with sessions at Service Bus get commands, against the bars
    Commands,
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
    /// What rules on measurements cost in processor time and memory, against the bars
    Detect,
    /// The learned detector on the Numenta Anomaly Benchmark, if `PENSTOCK_NAB_DIR` says where it is
    Nab,
}

/// What tells `penstock-benches` where rumqttd is.
const RUMQTTD_PROGRAM: &str = "PENSTOCK_BENCH_RUMQTTD";

/// Builds and runs the benchmark; its exit code decides.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(Need::BuildAndTest)?;
    let mut cargo = Cargo::new()?;
    cargo.build()?;
    let rumqttd = wants_rumqttd(arguments.name, &arguments.options).then(|| build_rumqttd(&mut cargo));
    let value = arguments.name.to_possible_value().context("every benchmark has a name")?;
    say::step(&format!("bench {}", value.get_name()));
    // The shell raises the soft limit of descriptors: a thousand connections need it on both sides.
    let script = "ulimit -n \"$(ulimit -Hn)\" && exec \"$0\" \"$@\"";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(cargo.binary("penstock-benches")?)
        .arg(value.get_name())
        .args(&arguments.options)
        .envs(rumqttd.transpose()?.map(|program| (RUMQTTD_PROGRAM, program)))
        .current_dir(cargo.root())
        .stdin(Stdio::null())
        .status()
        .context("sh cannot be started")?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}

/// Whether rumqttd takes part: some benchmarks have it among their servers unless it is left out.
fn wants_rumqttd(name: Name, options: &[String]) -> bool {
    let at = options.iter().position(|option| option == "--servers");
    let given = match at {
        Some(at) => options.get(at + 1).map(String::as_str),
        None => options.iter().find_map(|option| option.strip_prefix("--servers=")),
    };
    match given {
        Some(servers) => servers.split(',').any(|server| server == "rumqttd"),
        None => matches!(name, Name::Ingest | Name::Idle | Name::Fanout),
    }
}

/// Builds rumqttd as a program, with everything of it in one folder of the target directory.
fn build_rumqttd(cargo: &mut Cargo) -> Result<PathBuf> {
    say::step("building rumqttd for comparison (the first time takes minutes and the network)");
    let folder = cargo.target().join("rumqttd-peer");
    let folder_text = folder.to_str().context("the target directory's name is no text")?;
    let arguments = ["build", "--release", "--locked", "--manifest-path", "benches/rumqttd-peer/Cargo.toml"];
    let built = cargo.run(
        &[arguments.as_slice(), &["--target-dir", folder_text]].concat(),
        &[("CARGO_BUILD_BUILD_DIR", folder_text)],
    );
    built.context("rumqttd cannot be built; leave it out with `--servers penstock,mosquitto`")?;
    Ok(folder.join("release").join("rumqttd-peer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(name: Name, line: &str) -> bool {
        let options: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        wants_rumqttd(name, &options)
    }

    #[test]
    fn rumqttd_is_built_only_where_it_takes_part() {
        assert!(wants(Name::Ingest, "--rounds 5"));
        assert!(!wants(Name::Ingest, "--rounds 5 --servers penstock,mosquitto"));
        assert!(!wants(Name::Ingest, "--servers=penstock"));
        assert!(wants(Name::Fairness, "--servers penstock,rumqttd --rounds 1"));
        assert!(!wants(Name::Fairness, "") && !wants(Name::Uplink, ""));
    }
}
