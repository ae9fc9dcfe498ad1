//! The parameters that are searched for, and the constants of the design.

use super::series::FEATURES;

/// The seven parameters of the detector. Rates are shares by which an average moves in one usual interval of the
/// series: their inverses are time constants in such intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Rate of the recent average of errors; 0.001 to 0.5.
    pub short: f32,
    /// Rate of the level; 0.001 to 0.5.
    pub mid: f32,
    /// Rate of the long level; 0.00001 to 0.1.
    pub long: f32,
    /// After an alert, so many usual intervals are quiet; 0 to 100,000. A rule's `cooldown` takes its place.
    pub quiet: f32,
    /// Past values of a feature at which they are halved; 100 to 7000.
    pub memory: u16,
    /// The weight of the sum of all surprises beside the largest one; 0 to 2.
    pub sum: f32,
    /// Deviations are learned up to so many usual ones; 1 to 100.
    pub clip: f32,
}

impl Tuning {
    /// The shipped defaults: docs/decisions/0046-seven-parameters.md says where they come from.
    pub const SHIPPED: Self =
        Self { short: 0.019, mid: 0.018, long: 0.0001, quiet: 88.0, memory: 6300, sum: 0.106, clip: 7.0 };
}

/// Rate of the prediction's average.
pub(super) const FAST: f32 = 0.35;
/// Rate at which the prediction learns which corrections help.
pub(super) const CORRECTION: f32 = 0.01;
/// Rate of the usual size of errors.
pub(super) const SCALE: f32 = 0.015;
/// Rate of the usual distance to the season.
pub(super) const SEASON_SCALE: f32 = 0.0005;
/// Rate of an hour's place in the day, per hour in it.
pub(super) const HOUR: f32 = 0.325;
/// Movement is averaged so many times faster than errors, and its long average than the long level.
pub(super) const MOVEMENT: (f32, f32) = (2.0, 5.0);
/// No rate is larger.
pub(super) const RATE_MAX: f32 = 3.0;

/// Samples before deviations are clipped.
pub(super) const WARM_UP: f32 = 40.0;
/// The day must have been seen once before distances to it mean anything.
pub(super) const DAY_MS: f32 = 8.64e7;
/// What bring the features other than the first two to the scale of the bins: level, movement more and less than
/// usual, distance to the day at once and averaged.
pub(super) const UNITS: [f32; 5] = [0.3, 5.0, 2.5, 1.0, 2.5];
/// How much the surprise of each feature counts. Less movement than usual counts half: a sensor that is stuck is found
/// for sure by a rule that says so.
pub(super) const WEIGHTS: [f32; FEATURES] = [1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0];
/// Errors enter their recent average up to so many clips.
pub(super) const ERROR_CLIPS: f32 = 4.0;
/// Levels and movements are learned up to so many clips.
pub(super) const LEVEL_CLIPS: f32 = 2.0;
/// A change smaller than this share of the value is none.
pub(super) const RESOLUTION: f32 = 1e-6;
/// A gap of so many usual intervals starts the prediction anew.
pub(super) const GAP: f32 = 24.0;
