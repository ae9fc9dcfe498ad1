//! Faults put into a series, and how soon they are found.

use super::super::{Detector, Gate, Series, Settings, Tuning};
use super::noise::{Noise, Random};

const SEED: u64 = 20_261_122;
const TRIALS: u32 = 150;
const EVERY_MS: u32 = 300_000;
/// A fault counts as found within so many measurements.
const WITHIN: u32 = 120;
/// The threshold of 10 alerts in 100,000 measurements: one a week for a series that is measured every minute.
const USUAL: f32 = 0.567;

/// What is put into a daily sine of plus and minus 5 with noise of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing: what is found is false.
    Nothing,
    /// One value is so much higher.
    Spike(f64),
    /// All values are.
    Shift(f64),
    /// They become 6 higher within 300 measurements.
    Drift,
    /// 60 values are those of the last one.
    Stuck,
    /// 60 values have noise of 3.6.
    Noise,
    /// 60 values are 0.
    Zero,
}

/// How often a fault is found within 120 measurements, and how soon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// What was wrong.
    pub fault: Fault,
    /// From which score on it counts.
    pub threshold: f32,
    /// In how many of a hundred cases it was found.
    pub percent: f64,
    /// After how many measurements, on average of those in which it was.
    pub delay: f64,
}

impl Fault {
    /// Those that are tried.
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Spike(6.0),
        Self::Spike(10.0),
        Self::Shift(3.0),
        Self::Shift(6.0),
        Self::Drift,
        Self::Stuck,
        Self::Noise,
        Self::Zero,
    ];

    /// Whether it has to be found at once: a spike or shift of six times the noise, far more noise, zero.
    #[must_use]
    pub const fn is_clear(self) -> bool {
        match self {
            Self::Spike(sigmas) | Self::Shift(sigmas) => sigmas >= 6.0,
            Self::Noise | Self::Zero => true,
            Self::Nothing | Self::Drift | Self::Stuck => false,
        }
    }

    /// What a value becomes `since` measurements after the onset.
    fn change(self, value: f64, frozen: f64, since: u32, random: &mut Random) -> f64 {
        match self {
            Self::Spike(sigmas) if since == 0 => value + sigmas,
            Self::Shift(sigmas) => value + sigmas,
            Self::Drift => value + 6.0 * (f64::from(since) / 300.0).min(1.0),
            Self::Stuck if since < 60 => frozen,
            Self::Noise if since < 60 => value + 3.5 * random.normal(),
            Self::Zero if since < 60 => 0.0,
            _ => value,
        }
    }
}

/// A series up to the onset of a fault, and what it would have gone on with.
#[derive(Debug)]
struct Trial {
    series: Series,
    onset: u32,
    last: f64,
    after: Vec<f64>,
}

impl Trial {
    fn new(number: u32) -> Self {
        let more = Random(SEED + u64::from(number)).bits() % 3000;
        let onset = 6000 + u32::try_from(more).unwrap_or_default();
        let values = Noise::Daily.values(SEED ^ (u64::from(number) << 32), onset + WITHIN, EVERY_MS);
        let (mut series, detector, mut last, mut after) = (Series::NEW, detector(USUAL), 0.0, Vec::new());
        for (at, value) in (0..).zip(values) {
            if at < onset {
                // It is finite and later than the one before.
                let _taken = detector.observe(&mut series, time_ms(at), value);
                last = value;
            } else {
                after.push(value);
            }
        }
        // What was raised before is another matter.
        series.gate = Gate::NEW;
        Self { series, onset, last, after }
    }

    /// After how many measurements the fault is found.
    fn delay(&self, fault: Fault, threshold: f32) -> Option<u32> {
        let (mut series, detector) = (self.series.clone(), detector(threshold));
        let mut random = Random(u64::from(self.onset));
        let found = (0..).zip(&self.after).find(|(since, value)| {
            let value = fault.change(**value, self.last, *since, &mut random);
            let observed = detector.observe(&mut series, time_ms(self.onset + since), value);
            observed.is_ok_and(|observed| observed.alert)
        });
        found.map(|(since, _)| since)
    }
}

fn detector(threshold: f32) -> Detector {
    Detector::new(Tuning::SHIPPED, Settings { threshold, ..Settings::every_ms(EVERY_MS) })
}

fn time_ms(at: u32) -> u64 {
    1_700_000_000_000 + u64::from(at) * u64::from(EVERY_MS)
}

/// Puts each fault into 150 series, at the threshold of 10 alerts in 100,000 measurements. Takes about a second.
#[must_use]
pub fn recall() -> Vec<Recall> {
    at_thresholds(&[USUAL])
}

fn at_thresholds(thresholds: &[f32]) -> Vec<Recall> {
    let trials: Vec<Trial> = (0..TRIALS).map(Trial::new).collect();
    let one = |fault: Fault, threshold: f32| {
        let (mut found, mut delays) = (0_u32, 0_u32);
        for delay in trials.iter().filter_map(|trial| trial.delay(fault, threshold)) {
            found += 1;
            delays += delay;
        }
        let percent = 100.0 * f64::from(found) / f64::from(TRIALS);
        Recall { fault, threshold, percent, delay: f64::from(delays) / f64::from(found.max(1)) }
    };
    Fault::ALL
        .into_iter()
        .flat_map(|fault| thresholds.iter().map(move |threshold| (fault, *threshold)))
        .map(|(fault, threshold)| one(fault, threshold))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the table in docs/detector.md.
    #[test]
    fn clear_faults_are_found_at_once() {
        println!("seed {SEED}");
        for recall in at_thresholds(&[0.50, USUAL, 0.60]) {
            println!("{recall:.1?}");
            if recall.fault.is_clear() && recall.threshold == USUAL {
                assert!(recall.percent >= 93.0 && recall.delay <= 3.0, "{recall:?}");
            }
        }
    }
}
