//! Alerts: what the stream of measurements says about the devices, durable before it is told, and calm.
//!
//! ```text
//! lane telemetry ──► measure ──► rule ──► lifecycle ──► lane alerts ──► event_grid ──HTTPS──► Event Grid
//!  (committed log)   samples     edges    alerts        one batch with
//!                                                       the progress
//! ```
//!
//! Nothing here stands between a device and its acknowledgement: the log is read after the commit, and read again after
//! a crash.

mod build;
mod clock;
mod config;
mod engine;
mod event_grid;
#[cfg(any(test, fuzzing))]
mod fuzzing;
pub mod learned;
mod lifecycle;
mod mark;
mod measure;
mod metrics;
mod nouns;
mod replay;
mod rule;
mod rules;
pub mod rules_cli;
mod service;
mod skipped;
mod snapshot;
mod status;

#[cfg(test)]
mod tests;

pub use config::Config;
pub(crate) use event_grid::METRICS as EVENT_GRID_METRICS;
pub(crate) use event_grid::Trouble;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use metrics::METRICS;
pub use replay::{Outcome, ReplayError, Trial, replay};
pub use rules::{Rules, RulesError};
pub(crate) use service::consumers;
pub use service::{Service, StartError};
pub use status::{Handle, Status};
