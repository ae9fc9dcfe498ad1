//! Medians: rounds are few and neighbours are noisy, so one bad round must not move a figure.

/// The median; of an even number, the mean of the middle two. `None` without samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The smallest and the largest sample. `None` without samples.
pub fn range(samples: &[f64]) -> Option<(f64, f64)> {
    let low = samples.iter().copied().min_by(f64::total_cmp)?;
    let high = samples.iter().copied().max_by(f64::total_cmp)?;
    Some((low, high))
}

/// The smallest sample with at least this share of the samples at or below it (nearest rank); `share` in 0 to 1.
/// `None` without samples.
pub fn percentile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let mut below: f64 = 0.0;
    let total = sorted.iter().fold(0.0, |total: f64, _| total + 1.0);
    let reached = |_: &f64| {
        below += 1.0;
        below >= share * total
    };
    sorted.iter().copied().find(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_and_ignores_an_outlier() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 900.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn range_holds_the_extremes() {
        assert_eq!(range(&[]), None);
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn percentile_is_a_sample() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 0.5), Some(50.0));
        assert_eq!(percentile(&samples, 0.99), Some(99.0));
        assert_eq!(percentile(&samples, 1.0), Some(100.0));
        assert_eq!(percentile(&[7.0], 0.01), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
