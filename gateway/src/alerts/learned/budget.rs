//! How many alerts a series may raise, and the threshold for that.
//!
//! A score says how rare a measurement is, whatever the distribution of its series; so the rate of alerts follows from
//! the threshold, and a user need not know what a score is. The table was measured on six kinds of noise without any
//! anomaly; `tests/calibration.rs` measures it again.

/// So many alerts of one series in so many of its intervals, when nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Budget {
    per_interval: f64,
}

/// Thresholds, and the alerts per 100,000 measurements that they let through: the geometric mean of six kinds of noise.
const CALIBRATION: [(f64, f64); 9] = [
    (0.40, 271.0),
    (0.425, 207.0),
    (0.45, 112.0),
    (0.475, 60.0),
    (0.50, 39.0),
    (0.525, 27.6),
    (0.55, 20.5),
    (0.575, 7.0),
    (0.60, 1.6),
];
/// Sensitivities are spread evenly, in the logarithm, between these rates: 1 and 100. The table holds both.
const SENSITIVITY: (f64, f64) = (1.6e-5, 2e-3);

impl Budget {
    /// `alerts` per `period_ms` for a series that is measured every `every_ms`; [`None`] if one of them is 0.
    pub fn new(alerts: u32, period_ms: u64, every_ms: u32) -> Option<Self> {
        let is_some = alerts > 0 && period_ms > 0 && every_ms > 0;
        let per_interval = f64::from(alerts) * f64::from(every_ms) / period_ms as f64;
        is_some.then_some(Self { per_interval })
    }

    /// One alert per `period_ms` for a series that is measured every `every_ms`, or the nearest to it that is kept.
    pub fn at_most(period_ms: u64, every_ms: u32) -> Self {
        let wanted = f64::from(every_ms.max(1)) / (period_ms.max(1) as f64);
        let (most, least) = Self::ends();
        Self { per_interval: wanted.clamp(least, most) }
    }

    /// The budget that a sensitivity from 1 to 100 stands for; [`None`] for others. 1 is one alert in 62,500
    /// measurements, 100 one in 500.
    pub fn of_sensitivity(sensitivity: u8) -> Option<Self> {
        let (least, most) = SENSITIVITY;
        let share = (f64::from(sensitivity) - 1.0) / 99.0;
        (1..=100).contains(&sensitivity).then(|| Self { per_interval: least * (most / least).powf(share) })
    }

    /// Alerts per measurement.
    pub fn per_interval(self) -> f64 {
        self.per_interval
    }

    /// Whether it lies within what was measured, so that a threshold keeps it.
    pub fn is_kept(self) -> bool {
        let (most, least) = Self::ends();
        (least..=most).contains(&self.per_interval)
    }

    /// The shortest and the longest time in milliseconds, rounded inwards, in which one alert is a budget that is kept
    /// for a series that is measured every `every_ms`.
    pub fn bounds_ms(every_ms: u32) -> (u64, u64) {
        let (most, least) = Self::ends();
        let periods = [f64::from(every_ms) / most, f64::from(every_ms) / least];
        let [shortest, longest] = periods.map(whole);
        (shortest + 1, longest)
    }

    /// Alerts per measurement at both ends of the table, the larger first.
    fn ends() -> (f64, f64) {
        let [(_, most), .., (_, least)] = CALIBRATION;
        (most / 1e5, least / 1e5)
    }

    /// The score from which on a series alerts about so often. Budgets beyond the table have the threshold at its end:
    /// from one alert in 370 measurements to one in 62,500.
    pub fn threshold(self) -> f32 {
        let wanted = (self.per_interval * 1e5).max(f64::MIN_POSITIVE).ln();
        let pairs = CALIBRATION.iter().zip(CALIBRATION.iter().skip(1));
        let between = pairs.map(|((low, often), (high, rare))| {
            let share = (often.ln() - wanted) / (often.ln() - rare.ln());
            (share, low + (high - low) * share)
        });
        let [(lowest, _), .., (highest, _)] = CALIBRATION;
        let inner = between.into_iter().find(|(share, _)| *share <= 1.0);
        let threshold = inner.map_or(highest, |(_, threshold)| threshold.max(lowest));
        #[expect(clippy::cast_possible_truncation, reason = "a number between 0 and 1")]
        let threshold = threshold as f32;
        threshold
    }
}

/// The part of a time before the point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of at most some thousand years"
)]
fn whole(time_ms: f64) -> u64 {
    time_ms as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_smaller_budget_has_a_higher_threshold() {
        let mut last = 0.0;
        for days in [1_u64, 7, 30, 365] {
            let threshold = Budget::new(1, days * DAY_MS, 60_000).unwrap().threshold();
            assert!(threshold > last, "{days}: {threshold}");
            last = threshold;
        }
        let weekly = Budget::new(1, 7 * DAY_MS, 60_000).unwrap().threshold();
        assert!((weekly - 0.567).abs() < 0.001, "{weekly}");
        for (threshold, rate) in CALIBRATION {
            let found = f64::from(Budget { per_interval: rate / 1e5 }.threshold());
            assert!((found - threshold).abs() < 1e-6, "{rate}: {found}");
        }
    }

    #[test]
    fn budgets_beyond_the_table_stay_at_its_ends() {
        assert_eq!(Budget::new(1000, 1, 60_000).unwrap().threshold(), 0.40);
        assert_eq!(Budget::new(1, u64::MAX, 1).unwrap().threshold(), 0.60);
        assert_eq!(Budget::new(0, 1, 1).or(Budget::new(1, 0, 1)).or(Budget::new(1, 1, 0)), None);
    }

    #[test]
    fn sensitivity_is_a_budget_by_another_name() {
        let of = |sensitivity| Budget::of_sensitivity(sensitivity).map(Budget::per_interval);
        assert!(of(0).is_none() && of(101).is_none());
        assert!((of(1).unwrap() - 1.6e-5).abs() < 1e-12 && (of(100).unwrap() - 2e-3).abs() < 1e-9);
        assert!((1..=100).all(|sensitivity| Budget::of_sensitivity(sensitivity).unwrap().is_kept()));
        assert!((1..100).all(|sensitivity| of(sensitivity) < of(sensitivity + 1)));
    }
}
