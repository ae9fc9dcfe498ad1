//! What is remembered of one series for a rule that learns: the window that is open, and what the detector knows.
//!
//! Samples of a window become one measurement, which the detector gets at the time at which the window begins. That is
//! when the first sample of a later window comes: time is that of the samples, and a series that says nothing is not
//! judged. So a gateway that reads a day of backlog finds what one that was there found.

use super::super::learned::{Aggregate, Learned};
use super::Counts;
use super::series::{Here, Shown};
use crate::alerts::learned::Series;
use crate::alerts::nouns::{Change, Sample};

/// Values are held within this, so that the sum of a window is finite.
pub(super) const VALUE_MAX: f64 = 1e290;

/// The state of a series for a rule that learns.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Watched {
    /// What the detector knows; none before the first sample.
    pub(super) series: Option<Box<Series>>,
    pub(super) window: Window,
}

/// The open window of a series, and whether something is raised.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Window {
    /// A multiple of its length, in Unix milliseconds.
    pub(super) start_ms: u64,
    /// The sum of its samples, or the one of them that counts.
    pub(super) value: f64,
    /// The entry of its first sample: its number, and the place of the rest among the sources.
    pub(super) seq: u64,
    /// Up to a bound; 0 before the first.
    pub(super) samples: u32,
    /// There are as many sources as starts of the gateway that states refer to.
    pub(super) source: u16,
    /// Whether the rule has raised the series.
    pub(super) raised: bool,
}

impl Watched {
    /// Begins the series: from here on it is remembered.
    pub(super) fn begin(&mut self) {
        self.series = Some(Box::new(Series::NEW));
    }

    pub(super) fn has_begun(&self) -> bool {
        self.series.is_some()
    }

    /// Takes the next sample of a series that has begun.
    pub(super) fn take(
        &mut self,
        learned: &Learned,
        sample: &Sample,
        here: &Here<'_>,
        counts: &mut Counts,
    ) -> Option<Shown> {
        let value = sample.value.clamp(-VALUE_MAX, VALUE_MAX);
        let window = &mut self.window;
        if window.samples == 0 {
            window.open(learned, sample.at_ms, value, here);
            return None;
        }
        if sample.at_ms.wrapping_sub(window.start_ms) < learned.every_ms {
            window.add(learned.aggregate, value);
            return None;
        }
        let complete = *window;
        window.open(learned, sample.at_ms, value, here);
        self.judge(&complete, learned, here, counts)
    }

    /// Gives a complete window to the detector.
    fn judge(
        &mut self,
        complete: &Window,
        learned: &Learned,
        here: &Here<'_>,
        counts: &mut Counts,
    ) -> Option<Shown> {
        let series = self.series.as_deref_mut()?;
        let value = complete.measurement(learned.aggregate);
        let Ok(observation) = learned.detector.observe(series, complete.start_ms, value) else {
            counts.late += u64::from(complete.samples);
            return None;
        };
        let raised = &mut self.window.raised;
        let change = if observation.alert && !*raised {
            Change::Raised {
                severity: learned.severity,
                threshold: Some(shown(learned.threshold)),
                score: Some(shown(observation.score)),
                episode: here.at(complete.source.into(), complete.seq),
                started_ms: complete.start_ms,
            }
        } else if *raised && !observation.alert && !series.is_quiet() {
            Change::Cleared
        } else {
            return None;
        };
        *raised = !*raised;
        Some(Shown { change, observed: Some(value) })
    }
}

impl Window {
    /// Begins the window of a sample, which is its first. What is raised stays so.
    fn open(&mut self, learned: &Learned, at_ms: u64, value: f64, here: &Here<'_>) {
        *self = Self {
            start_ms: at_ms - at_ms % learned.every_ms,
            value,
            seq: here.position.seq.0,
            samples: 1,
            source: u16::try_from(here.source).unwrap_or(u16::MAX),
            raised: self.raised,
        };
    }

    fn add(&mut self, aggregate: Aggregate, value: f64) {
        if self.samples == u32::MAX {
            return;
        }
        self.samples += 1;
        self.value = match aggregate {
            Aggregate::Mean => self.value + value,
            Aggregate::Min => self.value.min(value),
            Aggregate::Max => self.value.max(value),
            Aggregate::Last => value,
        };
    }

    fn measurement(&self, aggregate: Aggregate) -> f64 {
        match aggregate {
            Aggregate::Mean => self.value / f64::from(self.samples.max(1)),
            Aggregate::Min | Aggregate::Max | Aggregate::Last => self.value,
        }
    }
}

/// A score or its limit with the digits that mean something. What is not below stays so.
fn shown(score: f32) -> f64 {
    (f64::from(score) * 1e4).round() / 1e4
}
