//! The command line of firmware-sim. See `docs/firmware-sim.md`.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use firmware_sim::cli::{Arguments, Command};
use firmware_sim::{Cancel, RunError, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("FIRMWARE_SIM_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Command::Run(arguments) = Arguments::parse().command;
    match run(&arguments, &Cancel::on_signals()) {
        Ok(report) if report.reasons.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            drop(writeln!(std::io::stderr(), "firmware-sim: {error:#}"));
            ExitCode::from(if matches!(error, RunError::Arguments(_)) { 2 } else { 1 })
        }
    }
}
