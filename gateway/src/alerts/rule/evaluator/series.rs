//! What is remembered of one series for one rule.

use super::super::definition::{Drift, Kind, Rate, Stuck};
use super::course::{Active, Moment, step, told};
use super::watched::Watched;
use crate::alerts::nouns::{Change, Position, Sample};

/// Values are held within this, so that no difference or product of them is infinite.
pub(super) const VALUE_MAX: f64 = 1e300;

/// The state of a series for a rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    Threshold(Option<Box<Active>>),
    Rate {
        active: Option<Box<Active>>,
        /// The sample that the next is compared with; none before the first.
        base: Option<(f64, u64)>,
    },
    Stuck {
        active: Option<Box<Active>>,
        /// The value that it has not left, and since when.
        anchor: f64,
        anchor_ms: u64,
        /// The entry of that sample: its number, and the place of the rest among the sources.
        seq: u64,
        source: u32,
        /// Samples since then; 0 before the first.
        samples: u32,
    },
    Drift(Averages),
    Learned(Watched),
}

/// State of a rule of kind `drift`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Averages {
    pub(super) active: Option<Box<Active>>,
    pub(super) fast: f64,
    pub(super) slow: f64,
    pub(super) deviation: f64,
    pub(super) last_ms: u64,
    /// When the first sample was, in Unix seconds.
    pub(super) first_s: u32,
    /// Up to a bound from which on it does not matter; 0 before the first.
    pub(super) samples: u16,
    /// Whether the warm-up is over. (Its unused values also let [`Entry`] do without a byte for its kind.)
    pub(super) warm: bool,
}

/// The beginning of a run, for rules that look back at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'s> {
    pub(super) position: Position,
    /// The place of its log, epoch and lane among the sources.
    pub(super) source: u32,
    /// All but the number of an entry, by that place.
    pub(super) sources: &'s [Position],
}

/// What a sample changed, and what was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) change: Change,
    pub(super) observed: Option<f64>,
}

impl Entry {
    /// The state before the first sample. None for kinds that look at no single series.
    pub(super) fn new(kind: &Kind) -> Option<Self> {
        let entry = match kind {
            Kind::Threshold { .. } => Self::Threshold(None),
            Kind::Rate { .. } => Self::Rate { active: None, base: None },
            Kind::Stuck { .. } => {
                Self::Stuck { active: None, anchor: 0.0, anchor_ms: 0, seq: 0, source: 0, samples: 0 }
            }
            Kind::Drift { .. } => Self::Drift(Averages {
                active: None,
                fast: 0.0,
                slow: 0.0,
                deviation: 0.0,
                last_ms: 0,
                first_s: 0,
                samples: 0,
                warm: false,
            }),
            Kind::Learned { .. } => Self::Learned(Watched::default()),
            Kind::Deadman(_) | Kind::Expression { .. } => return None,
        };
        Some(entry)
    }

    /// Whether its condition is raised, as the last edge about it said.
    pub(super) fn is_raised(&self) -> bool {
        let active = match self {
            Self::Threshold(active) | Self::Rate { active, .. } | Self::Stuck { active, .. } => active,
            Self::Drift(averages) => &averages.active,
            Self::Learned(watched) => return watched.window.raised,
        };
        told(active.as_deref())
    }

    /// Whether it is a series that a rule learns.
    pub(super) fn is_learned(&self) -> bool {
        matches!(self, Self::Learned(watched) if watched.has_begun())
    }

    /// Takes the next sample of the series, for a rule that does not learn. `last` gives the last value of another
    /// metric of the device.
    pub(super) fn take(
        &mut self,
        kind: &Kind,
        sample: &Sample,
        here: &Here<'_>,
        last: impl Fn(u16) -> Option<f64>,
    ) -> Option<Shown> {
        let moment = Moment { at_ms: sample.at_ms, episode: here.position, started_ms: sample.at_ms };
        match (self, kind) {
            (Self::Threshold(active), Kind::Threshold { watch, .. }) => {
                let change = step(watch, active, sample.value, &moment)?;
                Some(Shown { change, observed: Some(sample.value) })
            }
            (Self::Rate { active, base }, Kind::Rate { watch, rate, .. }) => {
                let value = rate.of(base, sample)?;
                let change = step(watch, active, value, &moment)?;
                Some(Shown { change, observed: Some(value) })
            }
            (entry @ Self::Stuck { .. }, Kind::Stuck { watch, stuck, .. }) => {
                let when =
                    stuck.when.is_none_or(|(metric, is)| last(metric).is_some_and(|value| is.holds(value)));
                let (held, begun) = entry.stand(stuck, when, sample, here);
                let moment = Moment { at_ms: sample.at_ms, episode: begun.0, started_ms: begun.1 };
                let Self::Stuck { active, .. } = entry else { return None };
                let change = step(watch, active, if held { 1.0 } else { 0.0 }, &moment)?;
                Some(Shown { change, observed: Some(sample.value) })
            }
            (Self::Drift(averages), Kind::Drift { watch, drift, .. }) => {
                let distance = averages.take(drift, sample)?;
                let change = step(watch, &mut averages.active, distance, &moment)?;
                Some(Shown { change, observed: Some(distance) })
            }
            _ => None,
        }
    }

    /// Whether the value has stood still for long enough, and the sample since which it has.
    fn stand(
        &mut self,
        stuck: &Stuck,
        when: bool,
        sample: &Sample,
        here: &Here<'_>,
    ) -> (bool, (Position, u64)) {
        let Self::Stuck { anchor, anchor_ms, seq, source, samples, .. } = self else {
            return (false, (here.position, sample.at_ms));
        };
        let moved = (bounded(sample.value) - bounded(*anchor)).abs() > stuck.epsilon;
        if !when {
            *samples = 0;
            return (false, (here.position, sample.at_ms));
        }
        if *samples == 0 || moved {
            (*anchor, *anchor_ms, *samples) = (sample.value, sample.at_ms, 0);
            (*seq, *source) = (here.position.seq.0, here.source);
        }
        *samples = samples.saturating_add(1);
        let long = sample.at_ms.saturating_sub(*anchor_ms) >= stuck.for_ms;
        let held = long && *samples >= stuck.min_samples;
        (held, (here.at(*source, *seq), *anchor_ms))
    }
}

impl Here<'_> {
    /// The entry with this number.
    pub(super) fn at(&self, source: u32, seq: u64) -> Position {
        let source = usize::try_from(source).ok().and_then(|source| self.sources.get(source));
        Position { seq: penstock_proto::Seq(seq), ..*source.unwrap_or(&self.position) }
    }
}

impl Rate {
    /// The change since the sample that is long enough ago, in the rule's unit. None if none is.
    fn of(&self, base: &mut Option<(f64, u64)>, sample: &Sample) -> Option<f64> {
        let value = bounded(sample.value);
        let Some((before, before_ms)) = *base else {
            *base = Some((value, sample.at_ms));
            return None;
        };
        let passed = sample.at_ms.saturating_sub(before_ms);
        if passed < self.over_ms {
            return None;
        }
        *base = Some((value, sample.at_ms));
        Some((value - before) / passed as f64 * self.per_ms)
    }
}

impl Averages {
    /// How far the recent average is from the long one. None while too little is known.
    fn take(&mut self, drift: &Drift, sample: &Sample) -> Option<f64> {
        let value = bounded(sample.value);
        let second = u32::try_from(sample.at_ms / 1_000).unwrap_or(u32::MAX);
        if self.samples == 0 {
            (self.fast, self.slow, self.deviation) = (value, value, 0.0);
            self.first_s = second;
        } else {
            let passed = sample.at_ms.saturating_sub(self.last_ms) as f64;
            // The first samples are averaged evenly.
            let least = 1.0 / (f64::from(self.samples) + 1.0);
            let share = |time_ms: f64| (-(-passed / time_ms).exp_m1()).max(least);
            let slow = share(drift.slow_ms);
            let deviation = (value - self.slow).abs().min(VALUE_MAX);
            self.deviation += slow * (deviation - self.deviation);
            self.fast += share(drift.fast_ms) * (value - self.fast);
            self.slow += slow * (value - self.slow);
        }
        self.last_ms = sample.at_ms;
        self.samples = self.samples.saturating_add(1);
        self.warm |= second.saturating_sub(self.first_s) >= drift.warmup_s;
        if !self.warm {
            return None;
        }
        let distance = (self.fast - self.slow).abs();
        if !drift.in_deviations {
            return Some(distance);
        }
        // What never moved has a deviation of nothing: its last digits are no drift.
        let tiny = self.slow.abs() * 1e-9 + 1e-300;
        Some((distance / self.deviation.max(tiny)).min(VALUE_MAX))
    }
}

fn bounded(value: f64) -> f64 {
    value.clamp(-VALUE_MAX, VALUE_MAX)
}
