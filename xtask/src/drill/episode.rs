//! An episode of the power-cut and crash drills: a gateway under a fleet dies, several times perhaps, and comes
//! back on what its death left.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::drill::stage::{self, Birth, Outcome, Stage, StageError};
use testkit::powercut::{Mode, PowerCut};

use super::plan::{Death, Plan};
use crate::signals;

/// How long the fleet goes on publishing to the last gateway.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// What became of an episode.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) outcome: Outcome,
    /// For each death at a named point, whether it was reached.
    pub(super) points: Vec<(&'static str, bool)>,
}

/// What became of a control.
#[derive(Debug)]
pub(super) enum Caught {
    /// Acknowledged messages were missing.
    Lost { lost: u64, acked: u64, announced: bool },
    /// The gateway would not start on what was left.
    Refused(String),
    /// Nothing was missing: the drill proves nothing.
    Nothing,
}

/// Cuts the power at each death: the next life begins on the twin.
pub(super) fn power_cut(plan: &Plan, folder: &Path, mode: Mode) -> Result<Played> {
    let mut lives = Lives::new(plan, folder);
    let mut stage = lives.first(cut(plan, folder, 0, mode)?)?;
    for (life, death) in plan.deaths.iter().enumerate() {
        if life > 0 {
            lives.next(&mut stage, life, cut(plan, folder, life, mode)?)?;
        }
        lives.end(&mut stage, *death)?;
        // The library's own links to the files of the twin; without them a file is as it is on a disk.
        let inodes = home(folder, life + 1).join("outbox.inodes");
        fs::remove_dir_all(&inodes).with_context(|| inodes.display().to_string())?;
    }
    lives.deliver(stage, &home(folder, plan.deaths.len()))
}

/// Kills the process at each death: the next life begins on the same files.
pub(super) fn crash(plan: &Plan, folder: &Path) -> Result<Played> {
    let place = home(folder, 0);
    // A plain kill -9 needs no library. A process that kills itself at a point does, and then all of them do.
    let prepared = match plan.has_points() {
        true => Some(PowerCut::prepare(&place.join("outbox"), &folder.join("twin"), Mode::Strict)?),
        false => None,
    };
    let environment = |death: Death| {
        let cut = prepared.clone().map(|cut| armed(cut, plan, death));
        cut.map_or_else(Vec::new, |cut| cut.environment())
    };
    let mut lives = Lives::new(plan, folder);
    let mut stage = None;
    for death in &plan.deaths {
        let stage = match &mut stage {
            None => stage.insert(lives.first(environment(*death))?),
            Some(stage) => {
                lives.born = stage.next_life(&place, environment(*death))?;
                stage
            }
        };
        lives.end(stage, *death)?;
    }
    lives.deliver(stage.context("an episode has a death")?, &place)
}

/// Plays an episode on a disk that lies, and says whether that was found out.
pub(super) fn control(plan: &Plan, folder: &Path, mode: Mode) -> Result<Caught> {
    let played = match power_cut(plan, folder, mode) {
        Ok(played) => played,
        Err(error) => return refusal(error),
    };
    let report = &played.outcome.report;
    let announced = !played.outcome.incidents.is_empty();
    match report.lost.unwrap_or(0) {
        0 if !announced => Ok(Caught::Nothing),
        lost => Ok(Caught::Lost { lost, acked: report.acked, announced }),
    }
}

/// A gateway that will not start knows that something is missing; any other error is one.
fn refusal(error: anyhow::Error) -> Result<Caught> {
    use testkit::process::ProcessError;
    match error.downcast_ref::<StageError>() {
        Some(StageError::Process(ProcessError::Ended { name, stderr, .. })) if name == "penstock" => {
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Ok(Caught::Refused(last.to_owned()))
        }
        _ => Err(error),
    }
}

struct Lives<'a> {
    plan: &'a Plan,
    folder: &'a Path,
    born: Birth,
    points: Vec<(&'static str, bool)>,
}

impl<'a> Lives<'a> {
    fn new(plan: &'a Plan, folder: &'a Path) -> Lives<'a> {
        Lives { plan, folder, born: Birth::Ready, points: Vec::new() }
    }

    fn first(&self, environment: Vec<(&'static str, OsString)>) -> Result<Stage> {
        let config = self.plan.config().environment(environment);
        let stage = Stage::set(self.folder, &home(self.folder, 0), config, self.plan.load)?;
        if self.plan.cloud_away {
            stage.cloud_is_there(false)?;
        }
        Ok(stage)
    }

    fn next(
        &mut self,
        stage: &mut Stage,
        life: usize,
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<()> {
        self.born = stage.next_life(&home(self.folder, life), environment)?;
        Ok(())
    }

    fn end(&mut self, stage: &mut Stage, death: Death) -> Result<()> {
        signals::check()?;
        let ended = match self.born {
            Birth::Stillborn => stage::Death::AtPoint,
            Birth::Ready => stage.end_life(death.within())?,
        };
        match death {
            Death::At(point, _) => self.points.push((point.name, ended == stage::Death::AtPoint)),
            Death::After(_) if ended == stage::Death::AtPoint => {
                bail!("the gateway was killed by somebody else");
            }
            Death::After(_) => {}
        }
        Ok(())
    }

    /// The last life: without any fault, on what the deaths left, until everything is judged.
    fn deliver(self, mut stage: Stage, place: &Path) -> Result<Played> {
        if stage.next_life(place, [])? == Birth::Stillborn {
            bail!("the last gateway was killed by somebody else");
        }
        if self.plan.cloud_away {
            stage.cloud_is_there(true)?;
        }
        Ok(Played { outcome: stage.judge(AFTERWARDS)?, points: self.points })
    }
}

fn home(folder: &Path, life: usize) -> std::path::PathBuf {
    folder.join(format!("life-{life}"))
}

fn cut(plan: &Plan, folder: &Path, life: usize, mode: Mode) -> Result<Vec<(&'static str, OsString)>> {
    let outbox = |life| home(folder, life).join("outbox");
    let cut = PowerCut::prepare(&outbox(life), &outbox(life + 1), mode)?;
    let cut = match plan.torn {
        Some(seed) => cut.torn(seed),
        None => cut,
    };
    let death = plan.deaths.get(life).context("each cut ends a life")?;
    Ok(armed(cut, plan, *death).environment())
}

fn armed(cut: PowerCut, plan: &Plan, death: Death) -> PowerCut {
    let cut = match plan.sync_delay {
        Some(delay) => cut.delayed(delay),
        None => cut,
    };
    match death.rule() {
        Some(rule) => cut.killed(&rule),
        None => cut,
    }
}
