//! Faults put into a series, and how soon they are found.

use super::super::{Detector, Gate, Series, Settings, Tuning};
use super::noise::{Noise, Random};

const SEED: u64 = 20_261_122;
const TRIALS: u64 = 150;
const EVERY_MS: u32 = 300_000;
/// A fault counts as found within so many measurements.
const WITHIN: u32 = 120;
/// The threshold of 10 alerts in 100,000 measurements: one a week for a series that is measured every minute.
const USUAL: f32 = 0.567;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Nothing,
    Spike(f64),
    Shift(f64),
    Drift,
    Stuck,
    Noise,
    Zero,
}

impl Fault {
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
struct Trial {
    series: Series,
    onset: u32,
    last: f64,
    after: Vec<f64>,
}

impl Trial {
    fn new(number: u64) -> Self {
        let onset = 6000 + u32::try_from(Random(SEED + number).bits() % 3000).unwrap();
        let mut values = Noise::Daily.values(SEED ^ (number << 32), onset + WITHIN, EVERY_MS);
        let after = values.split_off(onset as usize);
        let (mut series, detector) = (Series::NEW, detector(USUAL));
        for (at, value) in (0..).zip(&values) {
            detector.observe(&mut series, time_ms(at), *value).unwrap();
        }
        // What was raised before is another matter.
        series.gate = Gate::NEW;
        Self { series, onset, last: values[onset as usize - 1], after }
    }

    /// After how many measurements the fault is found.
    fn delay(&self, fault: Fault, threshold: f32) -> Option<u32> {
        let (mut series, detector) = (self.series.clone(), detector(threshold));
        let mut random = Random(u64::from(self.onset));
        let found = (0..).zip(&self.after).find(|(since, value)| {
            let value = fault.change(**value, self.last, *since, &mut random);
            detector.observe(&mut series, time_ms(self.onset + since), value).unwrap().alert
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

/// Figure 8 of what is demanded of alerts. Prints the table in docs/detector.md.
#[test]
fn clear_faults_are_found_at_once() {
    println!("seed {SEED}; found in percent and mean delay at a threshold of 0.50, {USUAL} and 0.60");
    let trials: Vec<Trial> = (0..TRIALS).map(Trial::new).collect();
    let recall = |fault: Fault, threshold: f32| {
        let delays: Vec<u32> = trials.iter().filter_map(|trial| trial.delay(fault, threshold)).collect();
        let found = 100.0 * delays.len() as f64 / trials.len() as f64;
        (found, f64::from(delays.iter().sum::<u32>()) / delays.len().max(1) as f64)
    };
    for fault in [
        Fault::Nothing,
        Fault::Spike(6.0),
        Fault::Spike(10.0),
        Fault::Shift(3.0),
        Fault::Shift(6.0),
        Fault::Drift,
        Fault::Stuck,
        Fault::Noise,
        Fault::Zero,
    ] {
        let [low, usual, high] = [0.50, USUAL, 0.60].map(|threshold| recall(fault, threshold));
        println!("{fault:?}: {low:.1?} {usual:.1?} {high:.1?}");
        if matches!(fault, Fault::Spike(_) | Fault::Shift(6.0) | Fault::Noise | Fault::Zero) {
            assert!(usual.0 >= 93.0 && usual.1 <= 3.0, "{fault:?}: {usual:?}");
        }
    }
}
