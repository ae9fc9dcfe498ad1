//! What the detector does with series that are made up: the figures behind docs/detector.md, for tests and benchmarks.
//!
//! Seeds are fixed, so that every run finds the same.

mod calibration;
mod faults;
mod noise;

pub use calibration::{Calibration, calibrate};
pub use faults::{Fault, Recall, recall};
pub use noise::Noise;
#[cfg(test)]
pub(super) use noise::Random;
