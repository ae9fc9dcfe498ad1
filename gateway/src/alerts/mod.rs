//! Alerts: what the stream of measurements says about the devices, durable before it is told, and calm.
//!
//! ```text
//! lane telemetry ──► measure ──► rule ──► lifecycle ──► lane alerts ──┬► event_grid ──HTTPS──► Event Grid
//!  (committed log)   samples     edges    alerts and    one batch with ├► publish ──MQTT──► devices
//!                                         reactions     the progress   └► service_bus ──AMQP──► Service Bus
//! ```
//!
//! Nothing here stands between a device and its acknowledgement: the log is read after the commit, and read again after
//! a crash.

mod build;
mod burial;
mod circuit;
mod clock;
mod config;
mod durable;
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
mod publish;
mod reaction;
mod replay;
mod requests;
mod rule;
mod rules;
pub mod rules_cli;
mod service;
mod service_bus;
mod skipped;
mod snapshot;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use circuit::Trouble;
pub use config::Config;
pub(crate) use event_grid::METRICS as EVENT_GRID_METRICS;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use metrics::METRICS;
pub(crate) use publish::METRICS as REACTION_METRICS;
pub use replay::{Outcome, ReplayError, Trial, replay};
pub use rules::{Rules, RulesError, RulesFile};
pub(crate) use service::consumers;
pub use service::{Service, StartError};
pub(crate) use service_bus::METRICS as SERVICE_BUS_METRICS;
pub use status::{Handle, Status};
