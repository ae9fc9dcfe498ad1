//! The cloud goes away and comes back, in every way known, while devices publish all the time and the gateway is
//! killed now and then: nothing acknowledged is lost or out of order, and memory stays flat.

mod plan;
mod play;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Scale;
use crate::say;
use crate::signals;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Outage")]
pub(crate) struct Options {
    /// What stands for Event Hubs: the stand-in, with faults on order, or a real Apache Kafka that is killed
    #[arg(long, value_enum, default_value_t = BrokerKind::Sim)]
    pub(crate) broker: BrokerKind,
    /// What a Kafka record holds
    #[arg(long, value_enum, default_value_t = Format::PerMessage)]
    pub(crate) format: Format,
    /// What the gateway sends first after an outage
    #[arg(long, value_enum, default_value_t = CatchUp::InOrder)]
    pub(crate) catch_up: CatchUp,
    /// Let the gateway send again without looking at what had arrived, and count what is there twice
    #[arg(long)]
    pub(crate) no_tail_read: bool,
    /// How many devices.
    #[arg(skip = 60_u32)]
    pub(crate) devices: u32,
    /// Messages per second of all devices.
    #[arg(skip = 1500_u32)]
    pub(crate) rate: u32,
    /// Where the JSON report goes; `outage-report.json` in the target folder unless said otherwise.
    #[arg(skip)]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BrokerKind {
    Sim,
    Kafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    PerMessage,
    Packed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CatchUp {
    InOrder,
    LiveFirst,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            broker: BrokerKind::Sim,
            format: Format::PerMessage,
            catch_up: CatchUp::InOrder,
            no_tail_read: false,
            devices: 60,
            rate: 1500,
            report: None,
        }
    }
}

impl Options {
    /// How long the troubles go on unless said otherwise, in minutes.
    pub(crate) const MINUTES: u32 = 2;

    /// The same with what the command line says about the fleet.
    pub(super) fn scaled(self, scale: &Scale) -> Self {
        Self {
            devices: scale.devices.unwrap_or(self.devices),
            rate: scale.rate.unwrap_or(self.rate),
            report: scale.report.clone().or(self.report),
            ..self
        }
    }

    /// Whether nothing may arrive twice.
    fn strict(&self) -> bool {
        !self.no_tail_read
    }

    fn words(&self) -> String {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let tail_read = if self.no_tail_read { ", no tail read" } else { "" };
        format!(
            "broker {}, {}, {}{tail_read}, {} devices, {} messages/s",
            name(self.broker.to_possible_value()),
            name(self.format.to_possible_value()),
            name(self.catch_up.to_possible_value()),
            self.devices,
            self.rate
        )
    }
}

/// Plays the control and the drill in `folder`; the report goes beside it unless the options say where.
pub(super) fn run(options: &Options, lasts: Duration, seed: u64, folder: &Path) -> Result<()> {
    say::step(&format!("drill outage: {} s, {}, seed {seed}", lasts.as_secs(), options.words()));
    let beside = || folder.parent().map(|target| target.join("outage-report.json"));
    let file = options.report.clone().or_else(beside).context("no place for the report")?;
    let caught = control(options, seed, &folder.join("control"))?;
    let troubles = plan::troubles(options.broker, seed, lasts);
    if troubles.is_empty() {
        bail!("{} s are too short for any trouble", lasts.as_secs());
    }
    let played = play::play(options, &troubles, lasts, seed, &folder.join("drill"))?;
    signals::check()?;
    let report = report::Report::new(options, seed, lasts, &played, caught);
    report.write(&file)?;
    say::line(&report.summary());
    say::line(&format!("report: {}", file.display()));
    match &report.reasons[..] {
        [] => Ok(()),
        reasons => bail!("{}; seed {seed}", reasons.join("; ")),
    }
}

/// A drill that cannot fail proves nothing: one batch that the cloud confirmed and forgot must be missed by the
/// fleet and by `penstock verify`, each from its own evidence.
fn control(options: &Options, seed: u64, folder: &Path) -> Result<report::Control> {
    let outcome = play::control(options, seed, folder)?;
    let lost = outcome.report.lost.unwrap_or(0);
    let gaps = outcome.verify_totals["gaps"].as_u64().unwrap_or(0);
    if lost >= outcome.report.acked {
        bail!("control: nothing came back, so that nothing can be said");
    }
    if lost == 0 || gaps == 0 || outcome.verified.success() {
        bail!(
            "control: one batch was confirmed and not kept, and that was not noticed (lost {lost}, gaps {gaps})"
        );
    }
    say::line(&format!(
        "control: caught, one batch was confirmed and not kept: {lost} lost, {gaps} gaps in the chain"
    ));
    Ok(report::Control { lost, gaps })
}
