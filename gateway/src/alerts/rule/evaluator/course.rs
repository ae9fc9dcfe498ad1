//! From single samples that show a condition to edges: how long it must hold, how long it must be over, which severity.

use super::super::definition::{Level, Watch};
use crate::alerts::nouns::{Change, Position, Severity};

/// Severities of a rule, at most.
pub(super) const LEVELS_MAX: usize = 3;

/// What is remembered of a series while something of it is waiting or raised. Most series have none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Active {
    /// The entry of the sample that began it, and when that was.
    pub(super) episode: Position,
    pub(super) started_ms: u64,
    /// What is raised now.
    pub(super) told: Option<Severity>,
    /// In the order of the rule's levels.
    pub(super) phases: [Phase; LEVELS_MAX],
}

/// Where one severity stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Quiet,
    /// Shown by so many samples since then.
    Pending {
        since_ms: u64,
        samples: u32,
    },
    Raised,
    /// Raised, and over since then.
    Ending {
        since_ms: u64,
    },
}

/// The sample that is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at_ms: u64,
    /// What an episode that begins with it gives as its beginning.
    pub(super) episode: Position,
    pub(super) started_ms: u64,
}

/// Takes the next value of a series; not earlier than the one before.
pub(super) fn step(
    watch: &Watch,
    active: &mut Option<Box<Active>>,
    value: f64,
    moment: &Moment,
) -> Option<Change> {
    let Some(course) = active else {
        if !watch.levels.iter().any(|level| level.raise.holds(value)) {
            return None;
        }
        let mut course = Box::new(Active {
            episode: moment.episode,
            started_ms: moment.started_ms,
            told: None,
            phases: [Phase::Quiet; LEVELS_MAX],
        });
        let change = course.step(watch, value, moment);
        *active = Some(course);
        return change;
    };
    let change = course.step(watch, value, moment);
    if course.told.is_none() && course.phases.iter().all(|phase| *phase == Phase::Quiet) {
        *active = None;
    }
    change
}

impl Active {
    fn step(&mut self, watch: &Watch, value: f64, moment: &Moment) -> Option<Change> {
        let mut worst: Option<&Level> = None;
        for (level, phase) in watch.levels.iter().zip(&mut self.phases) {
            *phase = phase.next(level, watch, value, moment.at_ms);
            if matches!(phase, Phase::Raised | Phase::Ending { .. }) {
                worst = Some(level);
            }
        }
        let before = self.told;
        self.told = worst.map(|level| level.severity);
        match (before, worst) {
            (None, Some(level)) => Some(Change::Raised {
                severity: level.severity,
                threshold: threshold(level),
                score: None,
                episode: self.episode,
                started_ms: self.started_ms,
            }),
            (Some(before), Some(level)) if before != level.severity => {
                Some(Change::Severity { severity: level.severity, threshold: threshold(level) })
            }
            (Some(_), None) => {
                // What still waits at another severity will be another episode, which begins here.
                self.episode = moment.episode;
                self.started_ms = moment.started_ms;
                Some(Change::Cleared)
            }
            _ => None,
        }
    }
}

impl Phase {
    fn next(self, level: &Level, watch: &Watch, value: f64, at_ms: u64) -> Self {
        match self {
            Self::Quiet | Self::Pending { .. } => {
                if !level.raise.holds(value) {
                    return Self::Quiet;
                }
                let (since_ms, samples) = match self {
                    Self::Pending { since_ms, samples } => (since_ms, samples.saturating_add(1)),
                    _ => (at_ms, 1),
                };
                if samples >= watch.min_samples && at_ms.saturating_sub(since_ms) >= level.for_ms {
                    Self::Raised
                } else {
                    Self::Pending { since_ms, samples }
                }
            }
            Self::Raised | Self::Ending { .. } => {
                if !level.clear.holds(value) {
                    return Self::Raised;
                }
                let since_ms = if let Self::Ending { since_ms } = self { since_ms } else { at_ms };
                if at_ms.saturating_sub(since_ms) >= watch.keep_ms {
                    Self::Quiet
                } else {
                    Self::Ending { since_ms }
                }
            }
        }
    }
}

/// Whether it is more than waiting.
pub(super) fn told(active: Option<&Active>) -> bool {
    active.is_some_and(|active| active.told.is_some())
}

/// A condition that only holds or not has no limit that could be passed.
fn threshold(level: &Level) -> Option<f64> {
    level.is_limit.then_some(level.raise.limit)
}
