//! Commands go down to devices while everything gets in their way: devices change their connections and move
//! between two gateways on one queue, Service Bus cuts connections, takes locks away and asks for patience, and a
//! gateway is killed. Each command ends in one final status, in order per device, settled after its device was
//! done with it, and no delivery is wasted on a device that is not there.

mod plan;
mod play;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::plan::Plan;
use super::Scale;
use crate::say;
use crate::signals;

#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Commands")]
pub(crate) struct Options {
    /// How many commands are sent
    #[arg(long, default_value_t = Options::COMMANDS, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) commands: u64,
}

impl Options {
    /// How long commands are sent unless said otherwise, in minutes.
    pub(crate) const MINUTES: u32 = 1;
    const COMMANDS: u64 = 20_000;
    const DEVICES: u32 = 1000;
}

impl Default for Options {
    fn default() -> Self {
        Self { commands: Self::COMMANDS }
    }
}

/// Plays the control and the drill in `folder`; the report goes beside it unless the options say where.
pub(super) fn run(options: Options, scale: &Scale, lasts: Duration, seed: u64, folder: &Path) -> Result<()> {
    let devices = scale.devices.unwrap_or(Options::DEVICES);
    let plan = Plan { devices, commands: options.commands, rate: scale.rate, lasts, seed };
    say::step(&format!("drill commands: {}", plan.words()));
    let beside = || folder.parent().map(|target| target.join("commands-report.json"));
    let file = scale.report.clone().or_else(beside).context("no place for the report")?;
    let caught = control(seed, &folder.join("control"))?;
    let played = play::play(&plan, &folder.join("drill"))?;
    signals::check()?;
    let report = report::Report::new(&plan, &played, caught);
    report.write(&file)?;
    say::line(&report.summary());
    say::line(&format!("report: {}", file.display()));
    match &report.reasons[..] {
        [] => Ok(()),
        reasons => bail!("{}; seed {seed}", reasons.join("; ")),
    }
}

/// A drill that cannot fail proves nothing: commands that are lost on the way, come twice or come out of order
/// must be found out.
fn control(seed: u64, folder: &Path) -> Result<report::Control> {
    let found = play::control(seed, folder)?;
    let caught = report::Control::of(&found);
    if !caught.is_complete() || found.reasons.is_empty() {
        bail!(
            "control: lost, repeated and reordered commands were not found out ({caught:?}), so this drill proves nothing"
        );
    }
    say::line(&format!("control (a faulty sender): caught, {}", caught.words()));
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(caught)
}
