//! `cargo xtask drill`: the real gateway under a real fleet dies in a hundred ways, and everything that was
//! acknowledged must arrive all the same. `docs/durability.md` says what is promised and what this shows.

mod alerts;
pub(crate) mod commands;
mod disk_full;
mod episode;
pub(crate) mod metrics;
pub(crate) mod outage;
mod plan;
pub(crate) mod reconnect;
pub(crate) mod tally;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use testkit::powercut::Mode;

#[cfg(test)]
pub(crate) use self::alerts::Part as AlertsPart;
use self::episode::{Caught, Played};
use self::plan::{Death, Plan};
use self::tally::Tally;
use crate::cargo::Cargo;
use crate::packages::{self, Need};
use crate::say;
use crate::signals;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// What happens to the gateway
    pub(crate) kind: Kind,
    /// How many episodes; a disk-full drill has its own
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) episodes: u32,
    /// From this every episode follows; the time unless given, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Only the episode with this number, to look at it again
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) only: Option<u32>,
    #[command(flatten)]
    pub(crate) scale: Scale,
    #[command(flatten)]
    pub(crate) outage: outage::Options,
    #[command(flatten)]
    pub(crate) reconnect: reconnect::Options,
    #[command(flatten)]
    pub(crate) commands: commands::Options,
    #[command(flatten)]
    pub(crate) alerts: alerts::Options,
}

/// The size of a drill that lasts.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Outage, reconnect and commands")]
pub(crate) struct Scale {
    /// How long the troubles go on; 2 in an outage, 5 in a reconnect drill, 1 in a drill of commands
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    pub(crate) minutes: Option<u32>,
    /// How many devices; 60 in an outage, 10000 in a reconnect drill, 1000 in a drill of commands, 200 in one of alerts
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    pub(crate) devices: Option<u32>,
    /// Messages per second of all devices; 1500 in an outage, 2000 in a reconnect drill, 0.2 for each device in a drill
    /// of commands, 5000 in one of alerts
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    pub(crate) rate: Option<u32>,
    /// Where the JSON report goes; `outage-report.json`, `reconnect-report.json`, `commands-report.json` or
    /// `alerts-report.json` in the
    /// target folder unless said otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The power goes away: only what was synced is left
    PowerCut,
    /// The process is killed, at any time or at a named point
    Crash,
    /// The disk fills, or a sync fails, and the gateway has to stay up
    DiskFull,
    /// The cloud goes away, refuses, forgets and comes back, and the gateway is killed meanwhile
    Outage,
    /// Devices change their connections all the time: closed, reset, taken over; sessions last, or not
    Reconnect,
    /// Commands go to devices that come, go and move between two gateways, while Service Bus and kills get in the way
    Commands,
    /// The gateway is killed while its rules read one fixed log, thousands of devices breach their limits at once, and Event
    /// Grid is away, for a day or for ever
    Alerts,
}

/// Makes sure of the packages, builds, and drills.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(Need::Build)?;
    let mut cargo = Cargo::new()?;
    cargo.build()?;
    let minutes = match arguments.kind {
        Kind::Reconnect => reconnect::Options::MINUTES,
        Kind::Commands => commands::Options::MINUTES,
        _ => outage::Options::MINUTES,
    };
    let minutes = Duration::from_mins(arguments.scale.minutes.unwrap_or(minutes).into());
    drill(arguments, minutes, &cargo)
}

/// A few episodes of each with the programs that are already built, for `ci`.
pub(crate) fn short(cargo: &Cargo) -> Result<()> {
    for kind in [Kind::PowerCut, Kind::Crash, Kind::DiskFull] {
        drill(&arguments(kind), Duration::ZERO, cargo)?;
    }
    drill(&arguments(Kind::Outage), LASTS_IN_CI, cargo)?;
    let scale = Scale { devices: Some(300), ..Scale::default() };
    let reconnect = reconnect::Options { kill: 2, ..reconnect::Options::default() };
    drill(&Arguments { scale, reconnect, ..arguments(Kind::Reconnect) }, LASTS_IN_CI, cargo)?;
    let scale = Scale { devices: Some(60), ..Scale::default() };
    let commands = commands::Options { commands: 600 };
    drill(&Arguments { scale, commands, ..arguments(Kind::Commands) }, COMMANDS_IN_CI, cargo)?;
    let scale = Scale { devices: Some(50), rate: Some(2000), ..Scale::default() };
    drill(&Arguments { scale, alerts: ALERTS_IN_CI, ..arguments(Kind::Alerts) }, Duration::ZERO, cargo)
}

/// How long the troubles of an outage or of a reconnect drill go on in `ci`.
const LASTS_IN_CI: Duration = Duration::from_secs(25);
/// How long commands are sent in a drill of them in `ci`.
const COMMANDS_IN_CI: Duration = Duration::from_secs(10);
/// How large the parts of a drill of alerts are in `ci`. One short round on a machine that does other things is too noisy
/// to tell a few percent.
const ALERTS_IN_CI: alerts::Options = alerts::Options {
    part: None,
    kills: 8,
    log_seconds: 10,
    storm_devices: 1000,
    hours: 24,
    scale: 10_800,
    rounds: 1,
    away_seconds: 3,
    away_share: 70,
};

fn arguments(kind: Kind) -> Arguments {
    Arguments {
        kind,
        episodes: 4,
        seed: None,
        only: None,
        scale: Scale::default(),
        outage: outage::Options::default(),
        reconnect: reconnect::Options::default(),
        commands: commands::Options::default(),
        alerts: alerts::Options::default(),
    }
}

/// Drills in a folder of its own, which is removed unless something failed.
fn drill(arguments: &Arguments, lasts: Duration, cargo: &Cargo) -> Result<()> {
    let seed = arguments.seed.map_or_else(unix_ms, Ok)?;
    // Beside the build and not in /tmp, which may be memory: a sync there would prove nothing.
    let folder = tempfile::Builder::new().prefix("drill-").tempdir_in(cargo.target());
    let folder = folder.context("no folder for the drill's data")?;
    let outcome = match arguments.kind {
        Kind::DiskFull => disk_full::run(folder.path(), seed),
        Kind::Outage => {
            outage::run(&arguments.outage.clone().scaled(&arguments.scale), lasts, seed, folder.path())
        }
        Kind::Reconnect => reconnect::run(arguments.reconnect, &arguments.scale, lasts, seed, folder.path()),
        Kind::Commands => commands::run(arguments.commands, &arguments.scale, lasts, seed, folder.path()),
        Kind::Alerts => alerts::run(arguments.alerts, &arguments.scale, seed, folder.path()),
        kind => episodes(kind, arguments, seed, folder.path()),
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if signals::interrupted() => Err(error),
        Err(error) => {
            let kept = folder.keep();
            Err(error.context(format!("the drill failed; data and logs are kept in {}", kept.display())))
        }
    }
}

/// The time of the machine's clock, by which events are stamped too.
#[expect(clippy::disallowed_methods, reason = "a tool has no clock of the gateway's")]
pub(super) fn unix_ms() -> Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(u64::try_from(since.context("the clock stands before 1970")?.as_millis())?)
}

fn episodes(kind: Kind, arguments: &Arguments, seed: u64, folder: &Path) -> Result<()> {
    let name = kind.to_possible_value().context("every drill has a name")?;
    say::step(&format!("drill {}: {} episodes, seed {seed}", name.get_name(), arguments.episodes));
    if kind == Kind::PowerCut {
        controls(seed, folder)?;
    }
    let mut tally = Tally::default();
    let numbers = arguments.only.map_or(1..=arguments.episodes, |only| only..=only);
    for number in numbers {
        signals::check()?;
        let plan = Plan::new(kind, seed, number);
        let place = folder.join(format!("episode-{number}"));
        let start = signals::now();
        let played = match kind {
            Kind::PowerCut => episode::power_cut(&plan, &place, Mode::Strict),
            _ => episode::crash(&plan, &place),
        };
        signals::check()?;
        tell(&plan, &played, start.elapsed().as_secs_f64());
        let kept = match &played {
            Ok(played) => {
                tally.add(number, played, plan.deaths.len());
                played.outcome.broken().is_empty()
            }
            Err(_) => {
                tally.broke_off(number);
                false
            }
        };
        if kept {
            std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
        }
    }
    tally.points().iter().for_each(|line| say::line(line));
    say::line(&tally.summary(seed));
    match tally.failed() {
        [] => Ok(()),
        failed => bail!("promises were broken in the episodes {failed:?} of seed {seed}"),
    }
}

/// A drill that cannot fail proves nothing: on a disk that lies, acknowledged messages must be missing.
fn controls(seed: u64, folder: &Path) -> Result<()> {
    let disks = [("every sync is a lie", Mode::Lie), ("syncs of the log are lies", Mode::LieLogs)];
    for (index, (what, mode)) in disks.into_iter().enumerate() {
        let place = folder.join(format!("control-{index}"));
        let plan = Plan::control(seed.wrapping_add(index as u64));
        match episode::control(&plan, &place, mode)? {
            Caught::Nothing => bail!("control ({what}): nothing was lost, so this drill proves nothing"),
            Caught::Refused(why) => {
                say::line(&format!("control ({what}): caught, the gateway refuses to start: {why}"));
            }
            // The mark is durable on the second disk, and it says that something was there.
            Caught::Lost { announced: false, .. } if mode == Mode::LieLogs => {
                bail!("control ({what}): the gateway started without a word on a log that was lost");
            }
            Caught::Lost { lost, acked, announced } => {
                let how = if announced { "announced" } else { "without a word" };
                say::line(&format!(
                    "control ({what}): caught, {lost} of {acked} acknowledged are lost, {how}"
                ));
            }
        }
        std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
    }
    Ok(())
}

/// The line of an episode, and what was broken in it.
fn tell(plan: &Plan, played: &Result<Played>, seconds: f64) {
    let disk = if plan.torn.is_some() { ", torn" } else { "" };
    let cloud = if plan.cloud_away { ", cloud away" } else { "" };
    let mut points = played.as_ref().map(|played| played.points.iter()).unwrap_or_default();
    let deaths = plan.deaths.iter().map(|death| match death {
        Death::After(time) => format!("{} ms", time.as_millis()),
        Death::At(point, number) => {
            let reached = points.next().is_none_or(|(_, reached)| *reached);
            format!("{} {number}{}", point.name, if reached { "" } else { " (not reached)" })
        }
    });
    let deaths = deaths.collect::<Vec<_>>().join(" | ");
    let slow = plan.sync_delay.map_or_else(String::new, |delay| format!(", syncs +{} ms", delay.as_millis()));
    let about = format!("episode {} ({deaths}; {}{disk}{slow}{cloud})", plan.number, plan.lane);
    match played {
        Ok(played) => {
            say::line(&format!("{about}: {}, {seconds:.1} s", tally::line(&played.outcome.report)));
            played.outcome.broken().iter().for_each(|broken| say::failure(broken));
        }
        Err(error) => say::failure(&format!("{about}: {error:#}")),
    }
}
