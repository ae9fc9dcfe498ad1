//! What is to be wrong with what devices say: `[[fault]]` in the profile, and which readings of which devices that means.
//!
//! Everything follows from the numbers of readings: the plan is made before anything is sent, and the same seed gives the
//! same faults whatever the network does. A start or a length in seconds is turned into readings by the schedule of each
//! device.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use testkit::alerts::Kind;

use crate::pace;
use crate::plan::DevicePlan;
use crate::profile::Duty;
use crate::signal::Metric;

/// Most faults of a profile.
pub(crate) const FAULTS_MAX: usize = 64;
/// Furthest start, and longest length and spread, in readings.
const READINGS_MAX: u64 = 1_000_000_000;
/// The same in seconds.
const SECONDS_MAX: f64 = 2_592_000.0;
/// Largest error of a value, in its unit or in deviations.
const ERROR_MAX: f64 = 1e9;
/// Largest factor.
const FACTOR_MAX: f64 = 1e6;
/// Furthest jump of a clock, in seconds: ten years.
const JUMP_MAX: f64 = 315_360_000.0;

/// One `[[fault]]` of a profile.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// Of what; not for `dropout` and `clock-jump`, which concern the device as a whole.
    pub metric: Option<Metric>,
    /// Share of devices that have it, in percent.
    #[serde(default = "default_percent")]
    pub percent: u8,
    /// How far off, in deviations of the metric's noise: `drift` (at its end), `spike`, `shift`.
    pub deviations: Option<f64>,
    /// The same in the unit of the metric.
    pub absolute: Option<f64>,
    /// By what the value (`gain`) or its noise (`noise`, 3 unless given) is multiplied.
    pub factor: Option<f64>,
    /// How far the clock jumps (`clock-jump`), in seconds; below 0 into the past.
    pub jump_seconds: Option<f64>,
    /// The first reading concerned, from 1 …
    pub start_reading: Option<u64>,
    /// … or the time since the start of the run from which on readings are concerned, in seconds.
    pub start_seconds: Option<f64>,
    /// Each device begins up to so many readings later …
    pub spread_readings: Option<u64>,
    /// … or seconds.
    pub spread_seconds: Option<f64>,
    /// How many readings are concerned (`dropout`: are not taken); one for `spike` unless given …
    pub length_readings: Option<u64>,
    /// … or as many as the device takes in this time.
    pub length_seconds: Option<f64>,
    /// Which devices have it and when each of them begins; the fleet's seed decides unless given.
    pub seed: Option<u64>,
}

/// A fault of one device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// Which fault of the profile, from 1.
    pub number: u32,
    /// What goes wrong.
    pub kind: Kind,
    /// Of what, unless the device as a whole.
    pub metric: Option<Metric>,
    /// The error in the unit of the metric, the factor, or the jump in milliseconds.
    pub size: f64,
    /// The first reading concerned; for a dropout the last one before it.
    pub first: u64,
    /// How many readings are concerned, at least 1; for a dropout are not taken.
    pub readings: u64,
}

fn default_percent() -> u8 {
    5
}

/// Gives the devices of a fleet their faults.
pub(crate) fn assign(faults: &[Fault], seed: u64, duty: Duty, devices: &mut [DevicePlan]) {
    for (number, fault) in (1..).zip(faults) {
        let seed = fault.seed.unwrap_or_else(|| seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut rng = StdRng::seed_from_u64(seed);
        let mut order: Vec<(&mut DevicePlan, f64)> =
            devices.iter_mut().map(|device| (device, rng.random_range(0.0..1.0))).collect();
        order.shuffle(&mut rng);
        // Devices without a fault come first: of two at once it is hard to say which one was noticed.
        order.sort_by_key(|(device, _)| device.faults.len());
        let count = (order.len() * usize::from(fault.percent) + 50) / 100;
        for (device, late) in order.into_iter().take(count) {
            device.faults.push(fault.episode(number, late, duty, device));
        }
    }
}

// === impl Fault ===

impl Fault {
    /// Says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let about_values = !matches!(self.kind, Kind::Dropout | Kind::ClockJump);
        match (about_values, self.metric) {
            (true, None) => return Err("needs a metric: temperature, pressure or vibration".to_owned()),
            (false, Some(_)) => return Err("concerns the device as a whole and takes no metric".to_owned()),
            _ => {}
        }
        if self.percent > 100 {
            return Err(format!("percent is {}, allowed is 0 to 100", self.percent));
        }
        self.check_size()?;
        let start = one_of("start", self.start_reading, self.start_seconds)?;
        let length = one_of("length", self.length_readings, self.length_seconds)?;
        one_of("spread", self.spread_readings, self.spread_seconds)?;
        if !start {
            return Err("needs start_reading or start_seconds".to_owned());
        }
        if !length && self.kind != Kind::Spike {
            return Err("needs length_readings or length_seconds".to_owned());
        }
        for (key, readings, least) in [
            ("start_reading", self.start_reading, 1),
            ("length_readings", self.length_readings, 1),
            ("spread_readings", self.spread_readings, 0),
        ] {
            if let Some(readings) = readings.filter(|readings| !(least..=READINGS_MAX).contains(readings)) {
                return Err(format!("{key} is {readings}, allowed is {least} to {READINGS_MAX}"));
            }
        }
        for (key, seconds) in [
            ("start_seconds", self.start_seconds),
            ("length_seconds", self.length_seconds),
            ("spread_seconds", self.spread_seconds),
        ] {
            if let Some(seconds) = seconds.filter(|seconds| !(0.0..=SECONDS_MAX).contains(seconds)) {
                return Err(format!("{key} is {seconds}, allowed is 0 to {SECONDS_MAX}"));
            }
        }
        Ok(())
    }

    /// Checks that it has the size its kind needs, and no other.
    fn check_size(&self) -> Result<(), String> {
        let sizes = [
            ("deviations", self.deviations, ERROR_MAX),
            ("absolute", self.absolute, ERROR_MAX),
            ("factor", self.factor, FACTOR_MAX),
            ("jump_seconds", self.jump_seconds, JUMP_MAX),
        ];
        let wanted: &[&str] = match self.kind {
            Kind::Drift | Kind::Spike | Kind::Shift => &["deviations", "absolute"],
            Kind::Noise | Kind::Gain => &["factor"],
            Kind::ClockJump => &["jump_seconds"],
            Kind::Stuck | Kind::Dropout => &[],
        };
        let mut given = 0;
        for (key, size, most) in sizes {
            let Some(size) = size else { continue };
            if !wanted.contains(&key) {
                return Err(format!("takes no {key}"));
            }
            // A size without effect would be a fault that nobody can notice.
            let idle = if key == "factor" { 1.0 } else { 0.0 };
            if !(-most..=most).contains(&size) || size == idle {
                return Err(format!("{key} is {size}, allowed is -{most} to {most} but not {idle}"));
            }
            given += 1;
        }
        if given > 1 {
            return Err("takes deviations or absolute, not both".to_owned());
        }
        if given == 0 && !wanted.is_empty() && self.kind != Kind::Noise {
            return Err(format!("needs {}", wanted.join(" or ")));
        }
        Ok(())
    }

    fn episode(&self, number: u32, late: f64, duty: Duty, device: &DevicePlan) -> Episode {
        let later = late * self.spread_seconds.unwrap_or_default();
        let start = match (self.start_reading, self.start_seconds) {
            (Some(reading), _) => reading.saturating_add(readings_in(later, device.period)),
            (None, seconds) => {
                let after = seconds.unwrap_or_default() + later - device.connect_after.as_secs_f64();
                pace::reading_from(after, device.phase, device.period, duty)
            }
        };
        let start = start.saturating_add(share(self.spread_readings.unwrap_or_default(), late));
        let length = match (self.length_readings, self.length_seconds) {
            (Some(readings), _) => readings,
            (None, Some(seconds)) => readings_in(seconds, device.period),
            (None, None) => 1,
        };
        // A device that never said anything is not noticed to be silent.
        let first = if self.kind == Kind::Dropout { start.max(2) - 1 } else { start.max(1) };
        Episode {
            number,
            kind: self.kind,
            metric: self.metric,
            size: self.size(),
            first,
            readings: length.max(1),
        }
    }

    fn size(&self) -> f64 {
        let deviation = self.metric.map_or(0.0, Metric::deviation);
        match self.kind {
            Kind::Drift | Kind::Spike | Kind::Shift => {
                self.absolute.unwrap_or_else(|| self.deviations.unwrap_or_default() * deviation)
            }
            Kind::Noise => self.factor.unwrap_or(3.0),
            Kind::Gain => self.factor.unwrap_or(1.0),
            Kind::ClockJump => self.jump_seconds.unwrap_or_default() * 1000.0,
            Kind::Stuck | Kind::Dropout => 0.0,
        }
    }
}

// === impl Episode ===

impl Episode {
    /// The last reading concerned; for a dropout the first one after it.
    #[must_use]
    pub fn last(&self) -> u64 {
        if self.kind == Kind::Dropout { self.first + 1 } else { self.first.saturating_add(self.readings - 1) }
    }

    /// Whether the reading is concerned.
    #[must_use]
    pub fn concerns(&self, reading: u64) -> bool {
        (self.first..=self.last()).contains(&reading)
    }
}

/// Whether one of two ways to say the same is used; both are too many.
fn one_of<A, B>(what: &str, readings: Option<A>, seconds: Option<B>) -> Result<bool, String> {
    match (readings.is_some(), seconds.is_some()) {
        (true, true) => Err(format!("takes its {what} in readings or in seconds, not both")),
        (readings, seconds) => Ok(readings || seconds),
    }
}

/// How many readings a device takes in a time, to the nearest whole one.
fn readings_in(seconds: f64, period: Duration) -> u64 {
    let period = period.as_nanos().max(1);
    let nanos = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos();
    u64::try_from((nanos + period / 2) / period).unwrap_or(READINGS_MAX)
}

/// A share of a number of readings, 0 to 1.
fn share(readings: u64, share: f64) -> u64 {
    let millionths = Duration::try_from_secs_f64(share).unwrap_or_default().as_micros();
    u64::try_from(u128::from(readings) * millionths / 1_000_000).unwrap_or(readings)
}

#[cfg(test)]
mod tests;
