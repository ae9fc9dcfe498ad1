//! A seeded fleet of MQTT devices that remembers what was acknowledged to it.
//!
//! ```text
//! plan + profile ──► device tasks ──rumqttc──► any MQTT endpoint ──► … ──► Kafka topic
//!                        │ ledger                                             │
//!                        └───────────────► judge ◄────────────────────── readback
//! ```
//!
//! Everything random follows from one seed: which device uses which QoS and protocol version, when
//! it publishes, what it measures ([`signal`]) and what is wrong with that ([`fault`]), when it drops its connection, what it does with a command. A
//! [`device::Device`] is a pure state machine, and so is what executes commands ([`execute`]); [`commander`] sends
//! them. [`link`] is the only file that uses rumqttc's client and [`bare`] the only one that uses no more of it
//! than its packets; [`readback`] is the only one that names rdkafka. The judgement itself is `testkit`'s and
//! shares no code with the gateway.

mod bare;
mod churn;
pub mod cli;
mod command_report;
mod commander;
pub mod device;
#[cfg(test)]
mod examples;
mod execute;
pub mod fault;
pub mod fleet;
mod instruments;
mod link;
pub mod pace;
pub mod plan;
pub mod profile;
mod progress;
pub mod readback;
mod run;
mod runner;
pub mod signal;
mod stats;
mod table;
mod truth;

pub use run::{Cancel, RunError, run};
