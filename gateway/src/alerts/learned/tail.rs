//! How rare a value of a feature is among its own past: counts in geometric bins, a byte each.
//!
//! A byte counts to 255 and stays there. That loses nothing where it matters: what is rare lies in bins that are not
//! full, and how much lies in the full ones follows from the number of all values.

use std::f32::consts::LN_2;

use super::arithmetic::ln;

/// Bins of a feature: one below 1/8, then three for each doubling; the last is open above.
pub(super) const BINS: usize = 32;
const LAST: u32 = 31;
/// How many surprises are computed side by side: as many as fill vectors.
const WIDE: usize = 8;

/// Past values below, taken for granted, so that early surprises compare with late ones.
const PRIOR: f32 = 20.0;
/// What a value counts that was never seen.
const UNSEEN: f32 = 0.2;
/// What stays of the largest value when the past is halved, so that one spike does not set the mark for ever.
const FADE: f32 = 0.9;

/// The past values of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tail {
    bins: [u8; BINS],
    /// Which bins are full, a bit each.
    full: u32,
    /// The sum of the bins.
    shown: u16,
    /// How many values are counted: the sum of the bins, or more if one is full.
    n: u16,
    largest: f32,
}

impl Tail {
    pub(super) const EMPTY: Self = Self { bins: [0; BINS], full: 0, shown: 0, n: 0, largest: 0.0 };

    /// A tail that was taken apart: its bins, how many values they count, and the largest one. [`None`] if no past
    /// leaves this behind.
    pub(super) fn of_parts(bins: [u8; BINS], n: u16, largest: f32) -> Option<Self> {
        let tail = Self::EMPTY.with(bins, n, largest);
        let is_possible = n == tail.shown || (n > tail.shown && tail.full != 0);
        (is_possible && largest >= 0.0).then_some(tail)
    }

    /// Bins, how many values they count, and the largest one.
    pub(super) fn parts(&self) -> ([u8; BINS], u16, f32) {
        (self.bins, self.n, self.largest)
    }

    /// How many times more values the past holds than in a bin and above it.
    #[inline]
    fn rarity(&self, bin: u8) -> f32 {
        (f32::from(self.n) + 1.0 + PRIOR) / (self.at_least(bin) + UNSEEN)
    }

    /// What is added to the surprise of a value that is larger than all before.
    #[cold]
    fn beyond(&self, z: f32) -> f32 {
        self.decay() * ln((z / self.largest).min(1e6))
    }

    /// How fast values become rarer beyond the largest one, as the power of their size: as between its half and it.
    fn decay(&self) -> f32 {
        ln(self.at_least(bin_of(self.largest * 0.5)).max(2.0)) / LN_2
    }

    /// How many values lie in a bin and above it. What full bins do not show is shared among them.
    #[inline]
    fn at_least(&self, bin: u8) -> f32 {
        let above = f32::from(sum_from(&self.bins, bin));
        let full_above = self.full.checked_shr(u32::from(bin)).unwrap_or_default();
        if full_above == 0 {
            return above;
        }
        let hidden = f32::from(self.n.saturating_sub(self.shown));
        above + hidden * full_above.count_ones() as f32 / self.full.count_ones() as f32
    }

    /// Counts a value. At `most` values everything is halved first: the past fades.
    #[inline]
    pub(super) fn learn(&mut self, Placed { z, bin }: Placed, most: u16) {
        if self.n >= most {
            self.halve();
        }
        if let Some(count) = self.bins.get_mut(usize::from(bin)).filter(|count| **count < u8::MAX) {
            *count += 1;
            self.shown += 1;
            self.full |= u32::from(*count == u8::MAX).checked_shl(u32::from(bin)).unwrap_or_default();
        }
        self.n = self.n.saturating_add(1);
        if z > self.largest {
            self.largest = z;
        }
    }

    fn halve(&mut self) {
        let full = u16::try_from(self.full.count_ones()).unwrap_or_default();
        let hidden = self.n.saturating_sub(self.shown).checked_div(full).unwrap_or_default();
        let half_of_full = u8::try_from((hidden + u16::from(u8::MAX)) / 2).unwrap_or(u8::MAX);
        let halved = self.bins.map(|count| if count == u8::MAX { half_of_full } else { count / 2 });
        *self = self.with(halved, self.n / 2, self.largest * FADE);
        // Halves are rounded down one by one.
        self.n = if self.full == 0 { self.shown } else { self.n.max(self.shown) };
    }

    fn with(&self, bins: [u8; BINS], n: u16, largest: f32) -> Self {
        let full = (0_u32..).zip(&bins).map(|(place, count)| u32::from(*count == u8::MAX) << place).sum();
        Self { bins, full, shown: sum_from(&bins, 0), n, largest }
    }
}

/// A value of a feature, and the bin it lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    z: f32,
    bin: u8,
}

impl Placed {
    #[inline]
    pub(super) fn of(z: f32) -> Self {
        Self { z, bin: bin_of(z) }
    }
}

/// How surprising each value is to the past of its feature: the logarithm of how many times more values the past holds
/// than such as large ones.
#[inline]
pub(super) fn surprises<const N: usize>(tails: &[Tail; N], values: &[Placed; N]) -> [f32; N] {
    const { assert!(N <= WIDE, "there is a lane for each feature") }
    let mut wide = [1.0; WIDE];
    for ((rarity, tail), value) in wide.iter_mut().zip(tails).zip(values) {
        *rarity = tail.rarity(value.bin);
    }
    // The compiler makes vectors of these.
    let wide = wide.map(ln);
    let mut surprises = [0.0; N];
    for ((surprise, wide), (tail, value)) in surprises.iter_mut().zip(wide).zip(tails.iter().zip(values)) {
        *surprise = wide;
        if value.z > tail.largest && tail.largest > 0.0 {
            *surprise += tail.beyond(value.z);
        }
    }
    surprises
}

/// The sum of a bin and those above it.
#[inline]
fn sum_from(bins: &[u8; BINS], bin: u8) -> u16 {
    let mut above = [0_u8; BINS];
    let mask = FROM.get(usize::from(bin)).unwrap_or(&[0; BINS]);
    // Both loops become a few instructions for sixteen bytes each.
    for ((above, count), mask) in above.iter_mut().zip(bins).zip(mask) {
        *above = count & mask;
    }
    let sum: u32 = above.iter().map(|count| u32::from(*count)).sum();
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// For each bin what keeps it and those above it.
static FROM: [[u8; BINS]; BINS] = {
    let mut from = [[0; BINS]; BINS];
    let mut bin = 0;
    while bin < BINS {
        let mut kept = bin;
        while kept < BINS {
            from[bin][kept] = u8::MAX;
            kept += 1;
        }
        bin += 1;
    }
    from
};

/// The bin of a value, by the bits of the number: its power of two and the third of the doubling it lies in.
#[inline]
fn bin_of(z: f32) -> u8 {
    const FIRST: f32 = 0.125;
    /// The mantissas of 2^(1/3) and 2^(2/3).
    const THIRDS: [u32; 2] = [0x0021_4518, 0x004B_2FF5];
    let bits = z.max(FIRST).to_bits();
    let doublings = (bits - FIRST.to_bits()) >> 23;
    let mantissa = bits & 0x007F_FFFF;
    let third: u32 = THIRDS.iter().map(|start| u32::from(mantissa >= *start)).sum();
    let bin = if z < FIRST { 0 } else { (doublings * 3 + third + 1).min(LAST) };
    u8::try_from(bin).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_thirds_of_doublings() {
        let check = |z: f32, bin: u8| assert_eq!(bin_of(z), bin, "{z}");
        check(0.0, 0);
        check(0.1249, 0);
        check(0.125, 1);
        check(0.125 * 1.2599, 1);
        check(0.125 * 1.26, 2);
        check(0.125 * 1.5874, 2);
        check(0.125 * 1.5875, 3);
        check(0.25, 4);
        check(1.0, 10);
        check(127.9, 30);
        check(128.0, 31);
        check(f32::MAX, 31);
    }

    #[test]
    fn a_value_is_as_surprising_as_it_is_rare() {
        let mut tail = Tail::EMPTY;
        for _ in 0..99 {
            tail.learn(Placed::of(1.0), 1000);
        }
        tail.learn(Placed::of(8.0), 1000);
        let check = |z: f32, expected: f32| {
            let [surprise] = surprises(&[tail], &[Placed::of(z)]);
            assert!((surprise - expected).abs() < 1e-5, "{z}: {surprise}, {expected}");
        };
        check(0.5, (121.0_f32 / 100.2).ln());
        check(8.0, (121.0_f32 / 1.2).ln());
        // One value lies at its half and above, which is taken for two: a doubling is half as rare.
        check(16.0, (121.0_f32 / 0.2).ln() + 2.0_f32.ln());
    }

    /// The bin of what is usual is full; what is rare is still counted one by one.
    #[test]
    fn full_bins_hide_nothing_that_is_rare() {
        let mut tail = Tail::EMPTY;
        for at in 0..3000 {
            tail.learn(Placed::of(if at % 300 == 0 { 8.0 } else { 1.0 }), 7000);
        }
        assert_eq!((tail.n, tail.at_least(bin_of(8.0)), tail.at_least(0)), (3000, 10.0, 3000.0));
        assert_eq!(tail.at_least(bin_of(1.0)), 3000.0);
    }

    #[test]
    fn the_past_fades_and_no_count_overflows() {
        let mut tail = Tail::EMPTY;
        for at in 0..40_000_u16 {
            tail.learn(Placed::of(if at % 50 == 0 { 3.0 } else { 1.0 }), 7000);
            assert!(tail.shown <= tail.n && tail.n <= 7000, "{tail:?}");
        }
        let share = tail.at_least(bin_of(3.0)) / f32::from(tail.n);
        assert!((0.01..0.03).contains(&share), "{share}");
        for _ in 0..1000 {
            tail.learn(Placed::of(4.0), 200);
        }
        assert!(tail.n <= 201 && tail.bins[usize::from(bin_of(1.0))] < 10, "{tail:?}");
    }
}
