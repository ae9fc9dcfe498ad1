//! What the detector does with series that are made up.

mod calibration;
mod faults;
mod machine;
mod noise;
