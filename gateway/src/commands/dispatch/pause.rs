//! Pauses between tries: they double, and no two who wait try again at the same moment.

use std::time::Duration;

/// Random numbers for jitter. Not for secrets. The same seed gives the same numbers, so that a test can repeat a run.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Begins at `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`; 0 if there are none. SplitMix64.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(sides).unwrap_or_default()
    }

    /// A time from `least` to `most`.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
        least + Duration::from_micros(self.below(span.saturating_add(1)))
    }

    /// The pause after `failures` in a row: `first`, doubled for each further one up to `longest`; half of it is certain,
    /// half is luck.
    pub(crate) fn pause(&mut self, failures: u32, first: Duration, longest: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(u32::MAX);
        let whole = first.saturating_mul(doubled).min(longest);
        self.between(whole / 2, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_at_least_half_is_certain() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut dice = Dice::new(7);
        for (failures, whole) in [(1, 100), (2, 200), (3, 400), (5, 1600), (6, 2000), (4_000_000_000, 2000)] {
            for _ in 0..100 {
                let pause = dice.pause(failures, first, longest).as_millis();
                assert!((whole / 2..=whole).contains(&pause), "{failures} failures: {pause} ms");
            }
        }
    }

    #[test]
    fn many_who_failed_together_do_not_try_again_together() {
        let mut dice = Dice::new(7);
        let pauses =
            (0..1000).map(|_| dice.between(Duration::ZERO, Duration::from_secs(1)).as_millis() / 100);
        let mut tenths = [0; 11];
        pauses.for_each(|tenth| tenths[usize::try_from(tenth).unwrap()] += 1);
        assert!(tenths[..10].iter().all(|count| (50..=150).contains(count)), "{tenths:?}");
    }
}
