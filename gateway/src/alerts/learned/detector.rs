//! One step of the detector.

use super::features::{Pace, Season, Shares};
use super::series::FEATURES;
use super::tail::{Placed, surprises};
use super::tuning::{DAY_MS, GAP, WEIGHTS};
use super::{Series, Tuning};

/// Values are told apart up to so far from the base of the series; what is farther counts as being there.
const DISTANCE_MAX: f64 = 1e18;
/// A clock that goes back by so many usual intervals was set; by fewer, the sample is late.
const SET_BACK: f32 = 100.0;
/// Score is S / (S + 10), so that it lies between 0 and 1.
const HALF: f32 = 10.0;
/// A level so many times the usual distance from the base becomes the base, so that digits are not lost.
const FAR_FROM_BASE: f32 = 1000.0;

/// What a rule says about its detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The interval at which measurements come, in milliseconds; 0 if that is to be learned from the series.
    pub every_ms: u32,
    /// The score from which on it alerts, between 0 and 1; see [`super::Budget`].
    pub threshold: f32,
    /// For so long a new series raises no alert, in milliseconds.
    pub warm_up_ms: u64,
    /// Quiet time after an alert in milliseconds; without it [`Tuning::quiet`] intervals.
    pub cooldown_ms: Option<u64>,
    /// Whether the hour of the day (UTC) matters.
    pub season: bool,
    /// Whether it learns from what raised an alert, and from the quiet time after it. If not, it does so nevertheless
    /// when an alert follows at once on the quiet time of another: what stays is the new normal.
    pub learn_while_firing: bool,
}

impl Settings {
    /// Of a series that is measured every so many milliseconds: the defaults of a rule.
    pub const fn every_ms(every_ms: u32) -> Self {
        Self {
            every_ms,
            threshold: 0.5,
            warm_up_ms: 2 * 86_400_000,
            cooldown_ms: None,
            season: true,
            learn_while_firing: false,
        }
    }
}

/// The shared part: parameters and settings. States of series are the caller's.
#[derive(Debug, Clone)]
pub struct Detector {
    tuning: Tuning,
    settings: Settings,
    /// After one usual interval, which is usual.
    shares: Shares,
}

/// What a measurement is to its series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// How unusual it is, from 0 to below 1. 0 while nothing is known, and for the first one after a gap.
    pub score: f32,
    /// The time since the last measurement, in usual intervals of the series, at most a million.
    pub steps: f32,
    /// Whether it raises an alert.
    pub alert: bool,
}

/// Why a measurement was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not a number, or infinite.
    NotANumber,
    /// It is not after the last one.
    Late,
}

impl Detector {
    /// A detector.
    pub fn new(tuning: Tuning, settings: Settings) -> Self {
        Self { tuning, settings, shares: Shares::after(&tuning, 1.0) }
    }

    /// Takes the next measurement of a series, at a time in Unix milliseconds.
    ///
    /// # Errors
    /// It is none, or not after the last one; what is known of the series is as before. A clock that was set back by
    /// more than a hundred usual intervals is followed: the sample that shows it is refused, the next ones are not.
    pub fn observe(&self, series: &mut Series, at_ms: u64, value: f64) -> Result<Observation, Refused> {
        if !value.is_finite() {
            return Err(Refused::NotANumber);
        }
        if series.numbers.samples == 0.0 {
            *series = Series { base: value, last_ms: at_ms, ..Series::NEW };
            series.numbers.samples = 1.0;
            return Ok(Observation { score: 0.0, steps: 1.0, alert: false });
        }
        let (interval, steps) = self.advance(series, at_ms)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bounded; digits beyond f32 are noise, as the base is near"
        )]
        let x = (value - series.base).clamp(-DISTANCE_MAX, DISTANCE_MAX) as f32;
        let numbers = &mut series.numbers;
        numbers.age = (numbers.age + steps.min(GAP)).min(1e9);
        if steps >= GAP {
            numbers.resume(x);
            series.gate.pass(self.quiet(interval), self.settings.threshold, 0.0, steps);
            return Ok(Observation { score: 0.0, steps, alert: false });
        }
        let is_usual = (steps - 1.0).abs() < 0.01;
        let shares = if is_usual { self.shares } else { Shares::after(&self.tuning, steps) };
        let pace = Pace { shares, first: 1.0 / numbers.samples, interval };
        let age_ms = numbers.age * interval;
        let season = self.settings.season.then(|| Season::at(at_ms));
        let found = series.look(&self.tuning, &pace, season, x);
        // The day is not known before it was seen once.
        let judged = if season.is_some() && age_ms > DAY_MS { FEATURES } else { FEATURES - 2 };
        let values = found.features.map(Placed::of);
        let score = self.score(series, &values, judged);
        let is_warm = series.numbers.is_warm() && age_ms >= self.settings.warm_up_ms as f32;
        let counts = if is_warm { score } else { 0.0 };
        let alert = series.gate.pass(self.quiet(interval), self.settings.threshold, counts, steps);
        let learns = self.settings.learn_while_firing || !series.gate.holds_learning();
        // What raises an alert is counted in any case, or the next one like it would be as rare.
        if series.numbers.is_warm() && (learns || alert) {
            for (tail, value) in series.tails.iter_mut().zip(values).take(judged) {
                tail.learn(value, self.tuning.memory);
            }
        }
        if learns {
            series.learn(&self.tuning, &pace, season, x, &found);
            series.stay_near_base();
        }
        Ok(Observation { score, steps, alert })
    }

    /// The largest surprise and a share of the sum of all, as a number between 0 and 1.
    fn score(&self, series: &Series, values: &[Placed; FEATURES], judged: usize) -> f32 {
        let (mut largest, mut sum) = (0.0_f32, 0.0);
        for (surprise, weight) in surprises(&series.tails, values).into_iter().zip(WEIGHTS).take(judged) {
            let surprise = weight * surprise;
            largest = largest.max(surprise);
            sum += surprise;
        }
        let surprise = (largest + self.tuning.sum * sum).max(0.0);
        surprise / (surprise + HALF)
    }

    /// The quiet time in usual intervals.
    fn quiet(&self, interval: f32) -> f32 {
        self.settings.cooldown_ms.map_or(self.tuning.quiet, |quiet| quiet as f32 / interval)
    }

    /// Moves the clock of the series and learns its interval: what it was in milliseconds, and how many have passed.
    fn advance(&self, series: &mut Series, at_ms: u64) -> Result<(f32, f32), Refused> {
        let numbers = &mut series.numbers;
        // The last digits of a gap do not matter.
        let Some(passed) = at_ms.checked_sub(series.last_ms).filter(|passed| *passed > 0) else {
            let back = (series.last_ms - at_ms) as f32;
            if numbers.interval > 0.0 && back > SET_BACK * numbers.interval {
                series.last_ms = at_ms;
            }
            return Err(Refused::Late);
        };
        series.last_ms = at_ms;
        let passed = passed as f32;
        if self.settings.every_ms > 0 {
            numbers.interval = self.settings.every_ms as f32;
        } else if numbers.interval == 0.0 {
            numbers.interval = passed;
        }
        let interval = numbers.interval;
        // Towards the median, by small factors.
        let factor = 1.0 + 0.3 * (1.0 / numbers.samples).max(0.02);
        if self.settings.every_ms == 0 && passed > 1.02 * interval {
            numbers.interval = (interval * factor).min(1e12);
        } else if self.settings.every_ms == 0 && passed < 0.98 * interval {
            numbers.interval = (interval / factor).max(1.0);
        }
        Ok((interval, (passed / interval).clamp(0.1, 1e6)))
    }
}

impl Series {
    /// Keeps numbers small beside what they are relative to.
    fn stay_near_base(&mut self) {
        let numbers = &mut self.numbers;
        let level = numbers.long;
        if !numbers.is_warm() || level.abs() <= FAR_FROM_BASE * (numbers.spread + numbers.scale) {
            return;
        }
        self.base += f64::from(level);
        for number in [&mut numbers.last, &mut numbers.fast, &mut numbers.mid, &mut numbers.long] {
            *number -= level;
        }
    }
}
