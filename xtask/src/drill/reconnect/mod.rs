//! Devices change their connections all the time while everything else goes on: closed without a word, reset in
//! the middle of a packet, taken over by the next one. What is acknowledged is not lost and not out of order, a
//! QoS 2 message of a session that lasts is there once, and memory stays flat.

mod play;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Scale;
use crate::say;
use crate::signals;

#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Reconnect")]
pub(crate) struct Options {
    /// Which share of the devices changes its connections all the time
    #[arg(long, default_value = "10%", value_name = "PERCENT", value_parser = percent)]
    pub(crate) share: u8,
    /// How often the gateway is killed meanwhile
    #[arg(long, default_value_t = 0, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(..=100))]
    pub(crate) kill: u32,
}

/// What is drilled.
#[derive(Debug, Clone, Copy)]
struct Plan {
    devices: u32,
    rate: u32,
    share: u8,
    kill: u32,
    lasts: Duration,
    seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { share: 10, kill: 0 }
    }
}

impl Options {
    /// How long it goes on unless said otherwise, in minutes.
    pub(crate) const MINUTES: u32 = 5;
    const DEVICES: u32 = 10_000;
    const RATE: u32 = 2000;
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok();
    number.filter(|percent| *percent <= 100).ok_or_else(|| "allowed is 0% to 100%".to_owned())
}

/// Plays the control and the drill in `folder`; the report goes beside it unless the options say where.
pub(super) fn run(options: Options, scale: &Scale, lasts: Duration, seed: u64, folder: &Path) -> Result<()> {
    let plan = Plan {
        devices: scale.devices.unwrap_or(Options::DEVICES),
        rate: scale.rate.unwrap_or(Options::RATE),
        share: options.share,
        kill: options.kill,
        lasts,
        seed,
    };
    say::step(&format!("drill reconnect: {}", plan.words()));
    let beside = || folder.parent().map(|target| target.join("reconnect-report.json"));
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

/// A drill that cannot fail proves nothing: a gateway that keeps no sessions must be found out by what it says on
/// each connection and, if the devices go on as if it had them, by QoS 2 messages that are there twice.
fn control(seed: u64, folder: &Path) -> Result<report::Control> {
    let found = play::control(seed, folder)?.report;
    let caught =
        report::Control { sessions_lost: found.sessions_lost, stored_twice: found.unexpected.unwrap_or(0) };
    if caught.sessions_lost == 0 || caught.stored_twice == 0 || found.reasons.is_empty() {
        bail!(
            "control: a gateway without sessions was not found out ({caught:?}), so this drill proves nothing"
        );
    }
    say::line(&format!(
        "control (no sessions): caught, {} times without its session, {} QoS 2 messages stored again",
        caught.sessions_lost, caught.stored_twice
    ));
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(caught)
}

impl Plan {
    fn words(&self) -> String {
        let Self { devices, rate, share, kill, lasts, seed } = self;
        format!(
            "{} s, {devices} devices of which {share} % change connections, {rate} messages/s, {kill} kills, seed {seed}",
            lasts.as_secs()
        )
    }

    /// When the gateway is killed: spread over the time after the first fifth.
    fn kills(&self) -> impl Iterator<Item = Duration> {
        let (lasts, kill) = (self.lasts, self.kill);
        let rest = lasts - lasts / 5;
        (0..kill).map(move |number| lasts / 5 + rest * number / kill.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_come_after_the_ramp_and_in_time() {
        let plan =
            Plan { devices: 1, rate: 10, share: 10, kill: 4, lasts: Duration::from_secs(100), seed: 1 };
        assert_eq!(plan.kills().map(|at| at.as_secs()).collect::<Vec<_>>(), [20, 40, 60, 80]);
        assert_eq!(Plan { kill: 0, ..plan }.kills().count(), 0);
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!((percent("10%"), percent("7"), percent("100%")), (Ok(10), Ok(7), Ok(100)));
        assert!(percent("101%").is_err() && percent("-1").is_err() && percent("a tenth").is_err());
    }
}
