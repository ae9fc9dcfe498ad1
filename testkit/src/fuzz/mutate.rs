//! Random changes to byte strings, the same for the same seed.

use std::ops::Range;

/// Values on the edges of what length fields hold.
const EDGES: [u32; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x1_0000, 0x7fff_ffff, 0xffff_ffff];
/// Changes made to one case, at most.
const CHANGES_MAX: usize = 4;
/// Bytes that one change inserts or repeats, at most.
const GROWTH_MAX: usize = 64;

/// A stream of random numbers (splitmix64): quick, and not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; zero if `end` is zero.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// One byte.
    pub const fn byte(&mut self) -> u8 {
        let [byte, ..] = self.number().to_le_bytes();
        byte
    }

    /// One of several; `of` is not empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// A range of at most `most` bytes inside `bytes` bytes.
    fn range(&mut self, bytes: usize, most: usize) -> Range<usize> {
        let start = self.below(bytes);
        let end = start + self.below((bytes - start).min(most) + 1);
        start..end
    }
}

/// Changes `bytes` at random; `other` is a second case to take pieces from.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(CHANGES_MAX) {
        change(random, bytes, other);
    }
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let place = random.below(bytes.len());
    match random.below(10) {
        0 | 1 => {
            let flipped = bytes.get(place).unwrap_or(&0) ^ (1 << random.below(8));
            overwrite(bytes, place, &[flipped]);
        }
        2 => overwrite(bytes, place, &[random.byte()]),
        3 => {
            let inserted: Vec<u8> = (0..=random.below(4)).map(|_| random.byte()).collect();
            bytes.splice(place..place, inserted);
        }
        4 => drop(bytes.drain(random.range(bytes.len(), bytes.len()))),
        5 => {
            let repeated = bytes.get(random.range(bytes.len(), GROWTH_MAX)).unwrap_or_default().to_vec();
            bytes.splice(place..place, repeated);
        }
        6 => bytes.truncate(place),
        7 => force_length(random, bytes, place),
        8 => {
            bytes.truncate(place);
            bytes.extend_from_slice(other.get(random.below(other.len())..).unwrap_or_default());
        }
        _ => {
            let piece = other.get(random.range(other.len(), GROWTH_MAX)).unwrap_or_default();
            overwrite(bytes, place, piece);
        }
    }
}

/// Writes a number that decoders take for a length: an edge, or what is left of the bytes.
fn force_length(random: &mut Random, bytes: &mut [u8], place: usize) {
    let left = u32::try_from(bytes.len() - place).unwrap_or(u32::MAX);
    let near = left.wrapping_add(random.pick(&[0, 1, u32::MAX, u32::MAX - 1]).copied().unwrap_or(0));
    let edge = random.pick(&EDGES).copied().unwrap_or(0);
    let value = if random.below(2) == 0 { near } else { edge };
    let wide = value.to_be_bytes();
    let [_, _, high, low] = wide;
    match random.below(5) {
        0 => overwrite(bytes, place, &[low]),
        1 => overwrite(bytes, place, &[high, low]),
        2 => overwrite(bytes, place, &wide),
        3 => overwrite(bytes, place, &value.to_le_bytes()),
        _ => overwrite(bytes, place, &[0xff, 0xff, 0xff, low]),
    }
}

fn overwrite(bytes: &mut [u8], place: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(place).zip(with) {
        *byte = *new;
    }
}
