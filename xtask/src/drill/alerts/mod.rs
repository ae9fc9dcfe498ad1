//! Alerts, in four parts. *Kills*: out of a log that is read again and again, while the gateway is killed at any moment and
//! Event Grid refuses, repeats and forgets; what arrives must be what an undisturbed gateway sends. *Storm*: thousands of
//! devices breach their limits within a second. *Outage*: Event Grid is away for a scaled day. *Away*: it never answers, and
//! telemetry may not notice.

mod away;
mod finding;
mod fleet;
mod kills;
mod log;
mod outage;
mod report;
mod scene;
mod storm;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::finding::Finding;
use super::Scale;
use crate::say;
use crate::signals;

#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Alerts")]
pub(crate) struct Options {
    /// Only this part; all of them unless given
    #[arg(long)]
    pub(crate) part: Option<Part>,
    /// How often the gateway is killed while its rules read the log
    #[arg(long, default_value_t = Options::KILLS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) kills: u32,
    /// For how long a fleet fills the log that the rules read
    #[arg(long, default_value_t = Options::LOG_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(5..=3600))]
    pub(crate) log_seconds: u32,
    /// How many devices breach their limits within a second
    #[arg(long, default_value_t = Options::STORM_DEVICES, value_name = "N", value_parser = clap::value_parser!(u32).range(200..=100_000))]
    pub(crate) storm_devices: u32,
    /// For how many hours Event Grid is away
    #[arg(long, default_value_t = Options::HOURS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=720))]
    pub(crate) hours: u32,
    /// How many seconds of these hours pass in a second of the drill; an outage lasts 8 seconds at least
    #[arg(long, default_value_t = Options::SCALE, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) scale: u32,
    /// How often telemetry is measured without and with each trouble of Event Grid
    #[arg(long, default_value_t = Options::ROUNDS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// For how long, each time
    #[arg(long, default_value_t = Options::AWAY_SECONDS, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(3..=600))]
    pub(crate) away_seconds: u32,
    /// Least share in percent of messages per second, and of processor time per message, that a trouble leaves
    #[arg(long, default_value_t = Options::SHARE, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) away_share: u32,
}

/// A part of the drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The gateway is killed while its rules read one log, and Event Grid gets in the way
    Kills,
    /// Thousands of devices breach their limits within a second
    Storm,
    /// Event Grid is away for a scaled day, and the gateway is killed meanwhile
    Outage,
    /// Event Grid never answers while devices publish
    Away,
}

/// What the kills are to be.
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
    const STORM_DEVICES: u32 = 10_000;
    const HOURS: u32 = 24;
    const SCALE: u32 = 1440;
    const ROUNDS: u32 = 4;
    const AWAY_SECONDS: u32 = 6;
    const SHARE: u32 = 95;
    /// A shorter outage shows nothing.
    const OUTAGE_S_MIN: u32 = 8;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            part: None,
            kills: Self::KILLS,
            log_seconds: Self::LOG_SECONDS,
            storm_devices: Self::STORM_DEVICES,
            hours: Self::HOURS,
            scale: Self::SCALE,
            rounds: Self::ROUNDS,
            away_seconds: Self::AWAY_SECONDS,
            away_share: Self::SHARE,
        }
    }
}

/// Plays the drill in `folder`; the report goes beside it unless the options say where.
pub(super) fn run(options: Options, scale: &Scale, seed: u64, folder: &Path) -> Result<()> {
    let beside = || folder.parent().map(|target| target.join("alerts-report.json"));
    let file = scale.report.clone().or_else(beside).context("no place for the report")?;
    let mut findings = Vec::new();
    let parts = Part::value_variants().iter().filter(|part| options.part.is_none_or(|only| only == **part));
    for part in parts {
        signals::check()?;
        let finding = options.play(*part, scale, seed, folder)?;
        say::line(&finding.line());
        findings.push(finding);
    }
    finding::write(&findings, seed, &file)?;
    say::line(&format!("report: {}", file.display()));
    match &finding::reasons(&findings)[..] {
        [] => Ok(()),
        reasons => bail!("{}; seed {seed}", reasons.join("; ")),
    }
}

impl Options {
    fn play(self, part: Part, scale: &Scale, seed: u64, folder: &Path) -> Result<Finding> {
        let devices = scale.devices.unwrap_or(Self::DEVICES);
        let rate = scale.rate.unwrap_or(Self::RATE);
        match part {
            Part::Kills => {
                let Self { kills, log_seconds, .. } = self;
                say::step(&format!(
                    "drill alerts, kills: {devices} devices, {rate} messages/s for {log_seconds} s, {kills} kills, seed {seed}"
                ));
                play_kills(&Plan { devices, rate, log_seconds, kills, seed }, folder)
            }
            Part::Storm => {
                let devices = self.storm_devices;
                say::step(&format!("drill alerts, storm: {devices} devices, seed {seed}"));
                storm::play(storm::Plan { devices, seed }, &folder.join("storm"))
            }
            Part::Outage => {
                let away_s = (self.hours * 3600).div_ceil(self.scale).max(Self::OUTAGE_S_MIN);
                say::step(&format!(
                    "drill alerts, outage: {devices} devices, {rate} messages/s, {} hours in {away_s} s, seed {seed}",
                    self.hours
                ));
                let plan = outage::Plan { devices, rate, away_s, hours: self.hours, seed };
                outage::play(plan, &folder.join("outage"))
            }
            Part::Away => {
                let Self { rounds, away_seconds: seconds, away_share, .. } = self;
                say::step(&format!(
                    "drill alerts, away: {devices} devices, {rate} messages/s, {rounds} rounds of {seconds} s, seed {seed}"
                ));
                let share_min = f64::from(away_share) / 100.0;
                let plan = away::Plan { devices, rate, seconds, rounds, share_min, seed };
                away::play(plan, &folder.join("away"))
            }
        }
    }
}

/// Reads one log in peace, and once more while the gateway is killed.
fn play_kills(plan: &Plan, folder: &Path) -> Result<Finding> {
    let log = log::record(plan, &folder.join("log"))?;
    say::line(&format!("the log holds {} messages", log.messages));
    let undisturbed = kills::undisturbed(&log, &folder.join("undisturbed"))?;
    say::line(&format!("undisturbed: {}", undisturbed.words()));
    let killed = kills::killed(plan, &log, &folder.join("killed"))?;
    say::line(&format!("killed {} times: {}", killed.kills, killed.words()));
    report::Report::new(plan, &log, &undisturbed, &killed).finding()
}
