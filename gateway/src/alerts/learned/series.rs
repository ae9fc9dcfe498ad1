//! What is known of one series.

use super::Gate;
use super::tail::Tail;

/// How many features there are.
pub(super) const FEATURES: usize = 7;

/// The state of one series. A new one knows nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The first value, or a later level; everything else is kept relative to it, so that large values lose no digits.
    pub(super) base: f64,
    /// When it last spoke, in Unix milliseconds.
    pub(super) last_ms: u64,
    pub(super) numbers: Numbers,
    /// What an hour of the day is beside the long level, at the middle of the hour, in UTC.
    pub(super) hours: [f32; 24],
    pub(super) tails: [Tail; FEATURES],
    pub(super) gate: Gate,
}

/// What is kept as a number; all of them averages, or weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Numbers {
    /// Samples taken, up to a million; 0 says that nothing is known.
    pub(super) samples: f32,
    /// For how long the series has been known, in usual intervals; gaps count little.
    pub(super) age: f32,
    /// The usual interval between samples, in milliseconds.
    pub(super) interval: f32,
    pub(super) last: f32,
    pub(super) change: f32,
    pub(super) fast: f32,
    pub(super) mid: f32,
    pub(super) long: f32,
    /// Usual distance to the long level.
    pub(super) spread: f32,
    /// Usual error of the prediction.
    pub(super) scale: f32,
    pub(super) recent_error: f32,
    /// What the corrections of the prediction count.
    pub(super) weights: [f32; 3],
    pub(super) movement: f32,
    pub(super) long_movement: f32,
    pub(super) season_level: f32,
    pub(super) season_scale: f32,
}

impl Series {
    /// A series of which nothing is known.
    pub const NEW: Self = Self {
        base: 0.0,
        last_ms: 0,
        numbers: Numbers::NEW,
        hours: [0.0; 24],
        tails: [Tail::EMPTY; FEATURES],
        gate: Gate::NEW,
    };

    /// Whether it is in the quiet time after an alert.
    pub fn is_quiet(&self) -> bool {
        self.gate.is_quiet()
    }
}

impl Numbers {
    const NEW: Self = Self {
        samples: 0.0,
        age: 0.0,
        interval: 0.0,
        last: 0.0,
        change: 0.0,
        fast: 0.0,
        mid: 0.0,
        long: 0.0,
        spread: 0.0,
        scale: 0.0,
        recent_error: 0.0,
        weights: [0.0; 3],
        movement: 0.0,
        long_movement: 0.0,
        season_level: 0.0,
        season_scale: 0.0,
    };
}

const _: () = assert!(size_of::<Series>() <= 512, "the memory of a fleet is a multiple of this");
