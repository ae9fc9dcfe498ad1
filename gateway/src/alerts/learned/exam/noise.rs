//! Series in which nothing is wrong.

use std::f64::consts::TAU;

/// SplitMix64.
#[derive(Debug)]
pub(in super::super) struct Random(pub(in super::super) u64);

impl Random {
    pub(in super::super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    pub(in super::super) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    pub(in super::super) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }
}

/// A kind of noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Around a level.
    Gaussian,
    /// Each value remembers 0.95 of the last one.
    Remembering,
    /// Heavy tails.
    Laplace,
    /// A sine by day, and noise.
    Daily,
    /// The sum of all before.
    RandomWalk,
    /// Few different values.
    Quantised,
}

impl Noise {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Gaussian, Self::Remembering, Self::Laplace, Self::Daily, Self::RandomWalk, Self::Quantised];

    /// `count` values, one every `every_ms`.
    pub(in super::super) fn values(self, seed: u64, count: u32, every_ms: u32) -> Vec<f64> {
        let mut random = Random(seed);
        let mut last = 0.0;
        let per_day = 86_400_000.0 / f64::from(every_ms);
        let value = |at: u32| {
            let normal = random.normal();
            last = match self {
                Self::Gaussian => 20.0 + normal,
                Self::Remembering => 0.95 * last + normal,
                Self::Laplace => {
                    let sign = if random.unit() > 0.5 { 1.0 } else { -1.0 };
                    sign * -random.unit().ln()
                }
                Self::Daily => 50.0 + 5.0 * (TAU * f64::from(at) / per_day).sin() + normal,
                Self::RandomWalk => last + normal,
                Self::Quantised => (1.5 * normal).round(),
            };
            last
        };
        (0..count).map(value).collect()
    }
}
