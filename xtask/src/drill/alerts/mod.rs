//! Alerts out of a log that is read again and again: the gateway is killed at any moment while its rules read one fixed log
//! and Event Grid refuses, repeats and forgets. What arrives must be what an undisturbed gateway sends.

mod kills;
mod log;
mod report;
mod scene;

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Scale;
use crate::say;
use crate::signals;

#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Alerts")]
pub(crate) struct Options {
    /// How often the gateway is killed while its rules read the log
    #[arg(long, default_value_t = Options::KILLS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) kills: u32,
    /// For how long a fleet fills the log that the rules read
    #[arg(long, default_value_t = Options::LOG_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(5..=3600))]
    pub(crate) log_seconds: u32,
}

/// What a drill is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) devices: u32,
    pub(super) rate: u32,
    pub(super) log_seconds: u32,
    pub(super) kills: u32,
    pub(super) seed: u64,
}

impl Options {
    const KILLS: u32 = 50;
    const LOG_SECONDS: u32 = 60;
    const DEVICES: u32 = 200;
    const RATE: u32 = 5000;
}

impl Default for Options {
    fn default() -> Self {
        Self { kills: Self::KILLS, log_seconds: Self::LOG_SECONDS }
    }
}

/// Plays the drill in `folder`; the report goes beside it unless the options say where.
pub(super) fn run(options: Options, scale: &Scale, seed: u64, folder: &Path) -> Result<()> {
    let devices = scale.devices.unwrap_or(Options::DEVICES);
    let rate = scale.rate.unwrap_or(Options::RATE);
    let Options { kills, log_seconds } = options;
    let plan = Plan { devices, rate, log_seconds, kills, seed };
    say::step(&format!(
        "drill alerts: {devices} devices, {rate} messages/s for {log_seconds} s, {kills} kills, seed {seed}"
    ));
    let beside = || folder.parent().map(|target| target.join("alerts-report.json"));
    let file = scale.report.clone().or_else(beside).context("no place for the report")?;
    let log = log::record(&plan, &folder.join("log"))?;
    say::line(&format!("the log holds {} messages", log.messages));
    let undisturbed = kills::undisturbed(&log, &folder.join("undisturbed"))?;
    say::line(&format!("undisturbed: {}", undisturbed.words()));
    let killed = kills::killed(&plan, &log, &folder.join("killed"))?;
    say::line(&format!("killed {} times: {}", killed.kills, killed.words()));
    signals::check()?;
    let report = report::Report::new(&plan, &log, &undisturbed, &killed);
    report.write(&file)?;
    say::line(&report.summary());
    say::line(&format!("report: {}", file.display()));
    match &report.reasons[..] {
        [] => Ok(()),
        reasons => bail!("{}; seed {seed}", reasons.join("; ")),
    }
}
