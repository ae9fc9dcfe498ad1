//! The scoring of the Numenta Anomaly Benchmark, version 1.1, in `f64`.
//!
//! The first 15 % of a series, at most 750 rows, are not scored. The earliest detection within a window earns the
//! more the earlier it is: a sigmoid of its place that is 1 at the left edge and almost nothing at the right one. A
//! detection outside of windows costs a share of the profile's weight that grows with the distance to the last
//! window. A window without a detection costs what the profile says. The sum over all files is scaled so that no
//! detections at all give 0 and perfect ones 100.

/// Share of a series that is not scored, in percent.
const PROBATION_PERCENT: usize = 15;
/// Most rows of it.
const PROBATION_ROWS_MAX: usize = 750;

/// What mistakes cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Profile {
    /// Its name in the benchmark.
    pub(super) name: &'static str,
    /// The cost of a detection far from any window.
    pub(super) false_positive: f64,
    /// The cost of a window without a detection.
    pub(super) missed: f64,
}

/// The three profiles of the benchmark.
pub(super) const PROFILES: [Profile; 3] = [
    Profile { name: "standard", false_positive: 0.11, missed: 1.0 },
    Profile { name: "low FP", false_positive: 0.22, missed: 1.0 },
    Profile { name: "low FN", false_positive: 0.11, missed: 2.0 },
];

/// Where the anomalies of a series are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Windows {
    rows: usize,
    /// First and last row of each, in order.
    windows: Vec<(usize, usize)>,
}

/// What a detector did on one series or many, before a profile is applied.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Tally {
    /// What detections in windows earned.
    pub(super) earned: f64,
    /// Windows with a detection.
    pub(super) found: u32,
    /// Windows without.
    pub(super) missed: u32,
    /// Rows outside of windows that were called anomalies.
    pub(super) false_rows: u32,
    /// What they cost, times the weight of the profile.
    pub(super) false_cost: f64,
}

/// What a row is worth if it is called an anomaly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Worth {
    /// Nothing: it is not scored.
    Unscored,
    /// In a window, by number: what the detection earns if it is the best of its window.
    Hit(usize, f64),
    /// Outside: what it costs, as a share of the profile's weight; negative.
    False(f64),
}

impl Windows {
    /// The windows of a series of `rows` rows, in order.
    pub(super) fn new(rows: usize, windows: Vec<(usize, usize)>) -> Self {
        Self { rows, windows }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.windows.len()
    }

    /// Rows at the beginning that are not scored.
    pub(super) fn probation(&self) -> usize {
        (self.rows * PROBATION_PERCENT / 100).min(PROBATION_ROWS_MAX)
    }

    /// Whether the row lies in one.
    pub(super) fn contains(&self, row: usize) -> bool {
        self.windows.iter().any(|(from, to)| (*from..=*to).contains(&row))
    }

    /// What the row is worth.
    pub(super) fn worth(&self, row: usize) -> Worth {
        if row < self.probation() {
            return Worth::Unscored;
        }
        let begun = self.windows.partition_point(|(from, _)| *from <= row);
        let Some((from, to)) = begun.checked_sub(1).map(|last| self.windows[last]) else {
            return Worth::False(-1.0);
        };
        if row <= to {
            let place = -rows(to - row + 1) / rows(to - from + 1);
            return Worth::Hit(begun - 1, sigmoid(place) / sigmoid(-1.0));
        }
        Worth::False(sigmoid(rows(row - to) / rows(to - from)))
    }

    /// Scores the rows that were called anomalies.
    pub(super) fn tally(&self, called: impl IntoIterator<Item = usize>) -> Tally {
        let mut best = vec![None; self.windows.len()];
        let mut tally = Tally::default();
        for row in called {
            match self.worth(row) {
                Worth::Unscored => {}
                Worth::Hit(window, worth) => {
                    let earlier: Option<f64> = best[window];
                    best[window] = Some(earlier.map_or(worth, |earlier| earlier.max(worth)));
                }
                Worth::False(cost) => {
                    tally.false_rows += 1;
                    tally.false_cost += cost;
                }
            }
        }
        for found in best {
            match found {
                Some(worth) => {
                    tally.found += 1;
                    tally.earned += worth;
                }
                None => tally.missed += 1,
            }
        }
        tally
    }
}

impl Tally {
    /// Adds another series.
    pub(super) fn add(&mut self, other: &Self) {
        self.earned += other.earned;
        self.found += other.found;
        self.missed += other.missed;
        self.false_rows += other.false_rows;
        self.false_cost += other.false_cost;
    }

    /// The score of everything added up: 0 without detections, 100 for perfect ones.
    pub(super) fn score(&self, profile: &Profile) -> f64 {
        let windows = f64::from(self.found + self.missed);
        let sum =
            self.earned - profile.missed * f64::from(self.missed) + profile.false_positive * self.false_cost;
        let nothing = -profile.missed * windows;
        100.0 * (sum - nothing) / (windows - nothing)
    }
}

/// 1 far to the left, 0 at the right edge of a window, -1 three widths beyond it.
fn sigmoid(place: f64) -> f64 {
    if place > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * place).exp()) - 1.0 }
}

fn rows(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDARD: &Profile = &PROFILES[0];

    #[test]
    fn nothing_called_is_zero_and_left_edges_are_a_hundred() {
        let windows = Windows::new(1000, vec![(300, 349), (600, 649)]);
        for profile in &PROFILES {
            assert_eq!(windows.tally([]).score(profile), 0.0);
            assert!((windows.tally([300, 600]).score(profile) - 100.0).abs() < 1e-9);
        }
    }

    /// By hand: the middle of a window is 2 / (1 + e^-2.5) - 1 = 0.848284 over 2 / (1 + e^-5) - 1 = 0.986614.
    #[test]
    fn the_best_detection_of_a_window_counts() {
        let windows = Windows::new(1000, vec![(300, 349)]);
        let tally = windows.tally([325, 326, 349]);
        assert!((tally.earned - 0.848_284 / 0.986_614).abs() < 1e-5, "{tally:?}");
        assert_eq!((tally.found, tally.missed, tally.false_rows), (1, 0, 0));
    }

    /// By hand: just behind a window costs next to nothing, half a width later 0.848284, before any window all.
    #[test]
    fn false_rows_cost_by_their_distance_and_probation_is_free() {
        let windows = Windows::new(1000, vec![(300, 400)]);
        assert_eq!(windows.tally([0, 149]).false_rows, 0);
        assert_eq!(windows.tally([150]).false_cost, -1.0);
        assert!((windows.tally([450]).false_cost + 0.848_284).abs() < 1e-5);
        assert_eq!(windows.tally([701]).false_cost, -1.0);
        let score = windows.tally([150]).score(STANDARD);
        assert!((score + 100.0 * 0.11 / 2.0).abs() < 1e-9, "{score}");
    }

    #[test]
    fn at_most_750_rows_are_free() {
        assert_eq!(Windows::new(100_000, vec![]).probation(), 750);
        assert_eq!(Windows::new(1624, vec![]).probation(), 243);
    }
}
