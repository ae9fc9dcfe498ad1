//! What simulators, tests and drills share: the ledger, the judge, and control of processes.
//!
//! The judgement is independent of the gateway's code: a [`ledger::Ledger`] holds what devices
//! sent and what was acknowledged to them, a [`judge::Judge`] reads what arrived in the cloud, and
//! the difference is stated in the words of [`report::Report`]. [`commands`] does the same for what goes the other
//! way, and [`alerts`] for what the gateway was to notice. [`process`], [`gateway`],
//! [`cloud`] and [`kafka`] start the programs under test, talk to them and stop them again, on [`ports`] that they find
//! free when they return. [`missing`] says what a test could
//! not look at. [`fuzz`] feeds decoders random bytes.
//!
//! Everything here is blocking and pure Rust, so that a tool which only starts processes does not
//! compile RocksDB or librdkafka.

pub mod alerts;
pub mod azure_clients;
pub mod cloud;
pub mod commands;
pub mod drill;
pub mod fuzz;
pub mod gateway;
pub mod judge;
pub mod kafka;
pub mod ledger;
pub mod missing;
pub mod ports;
pub mod powercut;
pub mod process;
pub mod report;
