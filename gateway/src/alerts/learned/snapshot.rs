//! The state of a series as bytes, for a snapshot file.
//!
//! ```text
//! 0    version, 1
//! 1    base, f64             little-endian throughout
//! 9    last_ms, u64
//! 17   18 numbers, f32 each, in the order of the fields of `Numbers`
//! 89   24 hours of the day, f32 each
//! 185  7 tails of 38 bytes: 32 bins, n as u16, largest as f32
//! 451  gate: quiet and level, f32 each
//! ```

use super::Gate;
use super::series::{FEATURES, Numbers, Series};
use super::tail::{BINS, Tail};

const VERSION: u8 = 1;
const NUMBERS: usize = 18;
/// Nothing that is kept as a number is larger.
const LARGEST: f32 = 1e20;

/// Bytes that are no state of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Junk {
    /// Another version wrote them.
    #[error("version {0} of a learned series is not known")]
    Version(u8),
    /// There are too few of them.
    #[error("a learned series is cut off")]
    Short,
    /// A number that no series can have; says which field.
    #[error("{0} of a learned series is impossible")]
    Impossible(&'static str),
}

impl Series {
    /// How many bytes it takes when encoded.
    pub const ENCODED_BYTES: usize = 1 + 8 + 8 + 4 * NUMBERS + 4 * 24 + FEATURES * (BINS + 2 + 4) + 8;

    /// Appends the state to `out`: [`Self::ENCODED_BYTES`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(Self::ENCODED_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.last_ms.to_le_bytes());
        out.extend_from_slice(self.numbers.fields().map(f32::to_le_bytes).as_flattened());
        out.extend_from_slice(self.hours.map(f32::to_le_bytes).as_flattened());
        for tail in &self.tails {
            let (bins, n, largest) = tail.parts();
            out.extend_from_slice(&bins);
            out.extend_from_slice(&n.to_le_bytes());
            out.extend_from_slice(&largest.to_le_bytes());
        }
        out.extend_from_slice(&self.gate.quiet.to_le_bytes());
        out.extend_from_slice(&self.gate.level.to_le_bytes());
    }

    /// Reads a state from the beginning of `bytes`, and takes it off them.
    ///
    /// # Errors
    /// What is there was not written by [`Self::encode`]; `bytes` are as before.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Junk> {
        let mut rest = *bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(Junk::Version(version));
        }
        let base = f64::from_le_bytes(take(&mut rest)?);
        let last_ms = u64::from_le_bytes(take(&mut rest)?);
        let mut fields = [0.0; NUMBERS];
        let mut hours = [0.0; 24];
        for number in fields.iter_mut().chain(&mut hours) {
            *number = finite(&mut rest, "a number")?;
        }
        let mut tails = [Tail::EMPTY; FEATURES];
        for tail in &mut tails {
            let bins = take(&mut rest)?;
            let n = u16::from_le_bytes(take(&mut rest)?);
            let largest = finite(&mut rest, "the largest value")?;
            *tail = Tail::of_parts(bins, n, largest).ok_or(Junk::Impossible("a tail"))?;
        }
        let gate = Gate { quiet: finite(&mut rest, "quiet")?, level: finite(&mut rest, "level")? };
        let series = Self { base, last_ms, numbers: Numbers::of_fields(fields), hours, tails, gate };
        series.check()?;
        *bytes = rest;
        Ok(series)
    }

    /// Whether the detector can have left this behind.
    fn check(&self) -> Result<(), Junk> {
        let numbers = &self.numbers;
        let is_count = numbers.samples >= 0.0 && numbers.samples <= 1e6 && numbers.samples.fract() == 0.0;
        let sizes = [
            numbers.spread,
            numbers.scale,
            numbers.movement,
            numbers.long_movement,
            numbers.season_scale,
            numbers.age,
            numbers.interval,
        ];
        let weights_hold = numbers.weights.iter().all(|weight| (-0.5..=1.0).contains(weight));
        let checks = [
            (is_count, "the number of samples"),
            (self.base.is_finite(), "the base"),
            (sizes.iter().all(|size| *size >= 0.0), "a size"),
            (weights_hold, "a weight"),
        ];
        checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(Junk::Impossible(what)))
    }
}

impl Numbers {
    fn fields(&self) -> [f32; NUMBERS] {
        let Self {
            samples, age, interval, last, change, fast, mid, long, spread, scale, recent_error, ..
        } = *self;
        let [first, second, third] = self.weights;
        let Self { movement, long_movement, season_level, season_scale, .. } = *self;
        [
            samples,
            age,
            interval,
            last,
            change,
            fast,
            mid,
            long,
            spread,
            scale,
            recent_error,
            first,
            second,
            third,
            movement,
            long_movement,
            season_level,
            season_scale,
        ]
    }

    fn of_fields(fields: [f32; NUMBERS]) -> Self {
        let [samples, age, interval, last, change, fast, mid, long, spread, scale, recent_error, ..] = fields;
        let [.., first, second, third, movement, long_movement, season_level, season_scale] = fields;
        Self {
            samples,
            age,
            interval,
            last,
            change,
            fast,
            mid,
            long,
            spread,
            scale,
            recent_error,
            weights: [first, second, third],
            movement,
            long_movement,
            season_level,
            season_scale,
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Junk> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Junk::Short)?;
    *bytes = rest;
    Ok(*taken)
}

fn finite(bytes: &mut &[u8], what: &'static str) -> Result<f32, Junk> {
    let number = f32::from_le_bytes(take(bytes)?);
    if number.abs() <= LARGEST { Ok(number) } else { Err(Junk::Impossible(what)) }
}
