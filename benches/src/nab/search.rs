//! Fitting the seven parameters and the threshold: a random search with a seed, the same for every fold.
//!
//! With 116 windows the best of many tries is lucky as well as good. Two things keep the luck small: a threshold counts
//! with its neighbours, and the result is the mean of the best few tries.

use penstock::alerts::learned::{Detector, Gate, Series as State, Settings, Tuning};

use super::corpus::Series;
use super::scorer::{PROFILES, Tally};

/// Parameters that are tried, in each search.
pub(super) const STEPS: u32 = 110;
/// Of them, how many are drawn from everywhere before the others are drawn near the best one.
const FAR: u32 = 40;
/// The result is the mean of so many of the best.
const BEST: usize = 5;
/// Thresholds that are tried: from, step, how many.
const THRESHOLDS: (f32, f32, u16) = (0.3, 0.005, 80);
/// So many thresholds on either side count as much as the one between.
const NEIGHBOURS: usize = 2;

/// The range of each parameter, in the order of [`Tuning`]. Draws are even in the logarithm.
const RANGES: [(f32, f32); 7] =
    [(0.01, 0.3), (0.004, 0.1), (0.0001, 0.004), (40.0, 300.0), (500.0, 7000.0), (0.02, 0.7), (2.0, 12.0)];

/// Parameters with their thresholds, one for each profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    /// The parameters.
    pub(super) tuning: Tuning,
    /// The best threshold of each of the [`PROFILES`].
    pub(super) thresholds: [f32; 3],
    /// The scores that they reach on what they were fitted to.
    pub(super) scores: [f64; 3],
    /// What a search maximises: the standard score, meaned over neighbouring thresholds.
    pub(super) worth: f64,
}

/// A row whose score can be above a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    /// Its number.
    pub(super) row: usize,
    /// Its score.
    pub(super) score: f32,
    /// The time since the last such row, in usual intervals of the series.
    steps: f32,
}

/// The rows of a series whose scores reach the lowest threshold.
pub(super) fn scores(tuning: &Tuning, series: &Series) -> Vec<Scored> {
    // Nothing is an alert here: that is looked at afterwards, for many thresholds.
    let settings = Settings {
        every_ms: 0,
        threshold: f32::INFINITY,
        warm_up_ms: 0,
        cooldown_ms: None,
        season: true,
        learn_while_firing: true,
    };
    let detector = Detector::new(*tuning, settings);
    let (mut state, mut passed, mut scored) = (State::NEW, 0.0, Vec::new());
    for (number, row) in series.rows.iter().enumerate() {
        let Ok(observed) = detector.observe(&mut state, row.time_ms, row.value) else { continue };
        passed += observed.steps;
        if observed.score >= THRESHOLDS.0 {
            scored.push(Scored { row: number, score: observed.score, steps: passed });
            passed = 0.0;
        }
    }
    scored
}

/// The rows that are alerts from `threshold` on.
pub(super) fn alerts<'a>(
    tuning: &'a Tuning,
    threshold: f32,
    scores: &'a [Scored],
) -> impl Iterator<Item = &'a Scored> {
    let mut gate = Gate::default();
    scores.iter().filter(move |scored| gate.pass(tuning.quiet, threshold, scored.score, scored.steps))
}

/// The thresholds that give most with these parameters.
pub(super) fn fit_thresholds(tuning: &Tuning, set: &[&Series]) -> Fit {
    let scored: Vec<_> = set.iter().map(|series| (*series, scores(tuning, series))).collect();
    let (from, step, count) = THRESHOLDS;
    let thresholds: Vec<f32> = (0..count).map(|at| from + step * f32::from(at)).collect();
    let tally = |threshold: &f32| {
        let mut tally = Tally::default();
        for (series, scores) in &scored {
            let alerts = alerts(tuning, *threshold, scores).map(|scored| scored.row);
            tally.add(&series.windows.tally(alerts));
        }
        tally
    };
    let tallies: Vec<Tally> = thresholds.iter().map(tally).collect();
    let best = PROFILES.map(|profile| {
        let scores: Vec<f64> = tallies.iter().map(|tally| tally.score(&profile)).collect();
        let means =
            scores.windows(2 * NEIGHBOURS + 1).map(|near| near.iter().sum::<f64>() / near.len() as f64);
        let best = means.zip(NEIGHBOURS..).max_by(|one, other| one.0.total_cmp(&other.0));
        best.map_or((0.0, 1.0, 0.0), |(worth, at)| (worth, thresholds[at], scores[at]))
    });
    Fit {
        tuning: *tuning,
        thresholds: best.map(|(_, threshold, _)| threshold),
        scores: best.map(|(.., score)| score),
        worth: best[0].0,
    }
}

/// Parameters and thresholds that give most on the set, by the standard profile.
pub(super) fn fit(set: &[&Series], seed: u64) -> Fit {
    let mut random = Random(seed);
    let mut tried: Vec<Fit> = Vec::new();
    for step in 0..STEPS {
        let near = tried.first().filter(|_| step >= FAR).map(|best| best.tuning);
        tried.push(fit_thresholds(&random.tuning(near.as_ref()), set));
        tried.sort_by(|one, other| other.worth.total_cmp(&one.worth));
        tried.truncate(BEST);
    }
    let tunings: Vec<Tuning> = tried.iter().map(|fit| fit.tuning).collect();
    fit_thresholds(&mean(&tunings), set)
}

/// The geometric mean of each parameter.
fn mean(tunings: &[Tuning]) -> Tuning {
    let mut sums = [0.0_f32; 7];
    for tuning in tunings {
        sums.iter_mut().zip(values_of(tuning)).for_each(|(sum, value)| *sum += value.ln());
    }
    of_values(sums.map(|sum| (sum / tunings.len() as f32).exp()))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// From 0 to below 1, with 24 bits.
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let [.., high, higher, highest] = z.to_le_bytes();
        (f32::from(highest) + (f32::from(higher) + f32::from(high) / 256.0) / 256.0) / 256.0
    }

    /// Roughly normal.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    /// Parameters near others, about half of them changed, or anywhere.
    fn tuning(&mut self, near: Option<&Tuning>) -> Tuning {
        let mut values = near.map_or([0.0; 7], values_of);
        for (value, (low, high)) in values.iter_mut().zip(RANGES) {
            if near.is_none() {
                *value = low * (high / low).powf(self.unit());
            } else if self.unit() < 0.5 {
                *value = (*value * (0.35 * self.normal()).exp()).clamp(low, high);
            }
        }
        of_values(values)
    }
}

fn values_of(tuning: &Tuning) -> [f32; 7] {
    let Tuning { short, mid, long, quiet, memory, sum, clip } = *tuning;
    [short, mid, long, quiet, f32::from(memory), sum, clip]
}

fn of_values([short, mid, long, quiet, memory, sum, clip]: [f32; 7]) -> Tuning {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within its range")]
    let memory = memory as u16;
    Tuning { short, mid, long, quiet, memory, sum, clip }
}
