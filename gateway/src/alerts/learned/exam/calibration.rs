//! Alerts of series in which nothing is wrong, beside the budget.

use super::super::{Budget, Detector, Gate, Series, Settings, Tuning};
use super::Noise;

const SEED: u64 = 20_261_121;
const SERIES: u32 = 6;
const VALUES: u32 = 60_000;
const WARM_UP: u32 = 3000;
/// Budgets that are asked for, in alerts per 100,000 measurements.
const BUDGETS: [u32; 3] = [100, 30, 10];
/// How far measurements are apart.
const EVERY_MS: [u32; 2] = [60_000, 300_000];

/// How well a budget is kept on one kind of noise. Rates are alerts per 100,000 measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The series.
    pub noise: Noise,
    /// How far its measurements are apart, in milliseconds.
    pub every_ms: u32,
    /// What was allowed.
    pub budget: f64,
    /// What came.
    pub measured: f64,
}

impl Calibration {
    /// How many times too many or too few came; at least 1.
    #[must_use]
    pub fn factor(&self) -> f64 {
        let factor = self.measured / self.budget;
        factor.max(1.0 / factor)
    }
}

/// Scores of one kind of noise, of each series after its warm-up.
#[derive(Debug)]
pub(super) struct Scores {
    noise: Noise,
    every_ms: u32,
    series: Vec<Vec<f32>>,
}

impl Scores {
    pub(super) fn all() -> Vec<Self> {
        let each = |every_ms| Noise::ALL.map(|noise| Self::of(noise, every_ms));
        EVERY_MS.into_iter().flat_map(each).collect()
    }

    fn of(noise: Noise, every_ms: u32) -> Self {
        let settings = Settings { threshold: 1.0, ..Settings::every_ms(every_ms) };
        let detector = Detector::new(Tuning::SHIPPED, settings);
        let one = |seed: u32| {
            let mut series = Series::NEW;
            let values = noise.values(SEED + u64::from(seed), VALUES, every_ms);
            let scored = (0_u32..).zip(values).filter_map(|(at, value)| {
                let at_ms = 1_700_000_000_000 + u64::from(at) * u64::from(every_ms);
                let observed = detector.observe(&mut series, at_ms, value).ok()?;
                (at >= WARM_UP).then_some(observed.score)
            });
            scored.collect()
        };
        Self { noise, every_ms, series: (0..SERIES).map(one).collect() }
    }

    /// Alerts per 100,000 measurements.
    pub(super) fn rate(&self, threshold: f32) -> f64 {
        let mut alerts = 0_u32;
        for scores in &self.series {
            let mut gate = Gate::NEW;
            for score in scores {
                alerts += u32::from(gate.pass(Tuning::SHIPPED.quiet, threshold, *score, 1.0));
            }
        }
        f64::from(alerts) * 1e5 / (f64::from(SERIES) * f64::from(VALUES - WARM_UP))
    }
}

/// Runs every kind of noise against three budgets. Takes about a second.
#[must_use]
pub fn calibrate() -> Vec<Calibration> {
    against_budgets(&Scores::all())
}

fn against_budgets(all: &[Scores]) -> Vec<Calibration> {
    let mut found = Vec::new();
    for budget in BUDGETS.into_iter().filter_map(|alerts| Budget::new(alerts, 100_000, 1)) {
        found.extend(all.iter().map(|scores| Calibration {
            noise: scores.noise,
            every_ms: scores.every_ms,
            budget: budget.per_interval() * 1e5,
            measured: scores.rate(budget.threshold()),
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the table behind the budgets.
    #[test]
    fn a_series_without_anomalies_alerts_as_often_as_its_budget_says() {
        println!("seed {SEED}");
        let all = Scores::all();
        for percent in [40.0_f32, 42.5, 45.0, 47.5, 50.0, 52.5, 55.0, 57.5, 60.0] {
            let rates: Vec<f64> = all.iter().map(|scores| scores.rate(percent / 100.0)).collect();
            let mean = rates.iter().map(|rate| rate.max(0.1).ln()).sum::<f64>() / rates.len() as f64;
            println!("{percent}: mean {:.2}, each {rates:.1?}", mean.exp());
        }
        let found = against_budgets(&all);
        assert_eq!(found.len(), BUDGETS.len() * EVERY_MS.len() * Noise::ALL.len());
        for calibration in found {
            println!("{calibration:?}");
            assert!(calibration.factor() <= 3.0, "{calibration:?}");
        }
    }
}
