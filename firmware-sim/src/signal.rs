//! What a device measures when nothing is wrong: a slow wave and noise around a level of its own.
//!
//! Wave and noise go by the number of the reading and not by the time, so that a device measures the same whatever the
//! network does. The noise of a reading depends on the one before (AR(1)), as in anything that has a mass.

use std::f64::consts::TAU;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

/// What a reading tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// In degrees Celsius.
    Temperature,
    /// In kilopascal.
    Pressure,
    /// In millimetres per second.
    Vibration,
}

/// The wave and the noise of every metric.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Length of the wave in readings, 2 to 10000000.
    pub period_readings: u32,
    /// Height of the wave above its middle, in deviations of the noise, 0 to 100.
    pub swing_deviations: f64,
    /// How much of its noise a reading has from the one before, 0 to 0.99.
    pub correlation: f64,
}

/// The readings of one device without faults, one after the other.
#[derive(Debug)]
pub(crate) struct Signal {
    shape: Shape,
    reading: u64,
    tracks: [Track; 3],
    rng: StdRng,
}

/// One metric of a device.
#[derive(Debug)]
struct Track {
    metric: Metric,
    level: f64,
    /// Where its wave begins, as a share of it.
    phase: f64,
    /// In deviations.
    noise: f64,
}

/// One metric of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    pub(crate) metric: Metric,
    /// Level and wave.
    pub(crate) calm: f64,
    pub(crate) noise: f64,
}

// === impl Metric ===

impl Metric {
    /// All of them, in the order of a reading.
    pub const ALL: [Self; 3] = [Self::Temperature, Self::Pressure, Self::Vibration];

    /// Its key in a reading.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Pressure => "pressure",
            Self::Vibration => "vibration",
        }
    }

    /// The standard deviation of its noise.
    #[must_use]
    pub const fn deviation(self) -> f64 {
        match self {
            Self::Temperature => 0.5,
            Self::Pressure => 0.2,
            Self::Vibration => 0.1,
        }
    }

    /// The level around which those of the devices lie, and how far at most.
    const fn level(self) -> (f64, f64) {
        match self {
            Self::Temperature => (20.0, 2.0),
            Self::Pressure => (100.0, 2.0),
            Self::Vibration => (2.0, 0.2),
        }
    }
}

// === impl Shape ===

impl Default for Shape {
    fn default() -> Self {
        Self { period_readings: 600, swing_deviations: 5.0, correlation: 0.8 }
    }
}

impl Shape {
    /// The keys with their values, whether they fit, and what is allowed.
    pub(crate) fn checks(&self) -> [(&'static str, String, bool, &'static str); 3] {
        let Self { period_readings, swing_deviations, correlation } = *self;
        [
            (
                "signal.period_readings",
                period_readings.to_string(),
                (2..=10_000_000).contains(&period_readings),
                "2 to 10000000",
            ),
            (
                "signal.swing_deviations",
                swing_deviations.to_string(),
                (0.0..=100.0).contains(&swing_deviations),
                "0 to 100",
            ),
            ("signal.correlation", correlation.to_string(), (0.0..=0.99).contains(&correlation), "0 to 0.99"),
        ]
    }
}

// === impl Signal ===

impl Signal {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tracks = Metric::ALL.map(|metric| {
            let (level, around) = metric.level();
            let level = level + rng.random_range(-around..=around);
            Track { metric, level, phase: rng.random_range(0.0..1.0), noise: normal(&mut rng) }
        });
        Self { shape, reading: 0, tracks, rng }
    }

    /// The next reading.
    pub(crate) fn next(&mut self) -> [Part; 3] {
        let Shape { period_readings, swing_deviations, correlation } = self.shape;
        let place = u32::try_from(self.reading % u64::from(period_readings.max(1))).unwrap_or_default();
        let along = f64::from(place) / f64::from(period_readings.max(1));
        self.reading += 1;
        let fresh = (1.0 - correlation * correlation).sqrt();
        let rng = &mut self.rng;
        self.tracks.each_mut().map(|track| {
            let deviation = track.metric.deviation();
            let part = Part {
                metric: track.metric,
                calm: track.level + deviation * swing_deviations * (TAU * (along + track.phase)).sin(),
                noise: deviation * track.noise,
            };
            track.noise = correlation * track.noise + fresh * normal(rng);
            part
        })
    }
}

/// A number from the standard normal distribution (Box and Muller).
fn normal(rng: &mut StdRng) -> f64 {
    let (one, two): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..1.0));
    (-2.0 * one.ln()).sqrt() * (TAU * two).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(shape: Shape, readings: usize) -> Vec<f64> {
        let mut signal = Signal::new(3, shape);
        (0..readings).map(|_| signal.next()[0].noise).collect()
    }

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = values.len() as f64;
        values.sum::<f64>() / count
    }

    #[test]
    fn the_noise_has_its_deviation_and_its_correlation() {
        for correlation in [0.0, 0.8] {
            let noise = noise(Shape { correlation, ..Shape::default() }, 100_000);
            let variance = mean(noise.iter().map(|value| value * value));
            let deviation = Metric::Temperature.deviation();
            assert!((variance.sqrt() / deviation - 1.0).abs() < 0.03, "{variance}");
            let pairs = noise.windows(2).map(|pair| pair[0] * pair[1]);
            assert!((mean(pairs) / variance - correlation).abs() < 0.03);
        }
    }

    #[test]
    fn the_wave_returns_after_its_period() {
        let shape = Shape { period_readings: 50, swing_deviations: 5.0, ..Shape::default() };
        let mut signal = Signal::new(3, shape);
        let calm: Vec<f64> = (0..100).map(|_| signal.next()[2].calm).collect();
        assert_eq!(calm[..50], calm[50..]);
        let (low, high) =
            calm.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        assert!((high - low - 1.0).abs() < 0.01, "{low} {high}");
    }

    #[test]
    fn the_same_seed_measures_the_same() {
        let first = |seed| Signal::new(seed, Shape::default()).next();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
