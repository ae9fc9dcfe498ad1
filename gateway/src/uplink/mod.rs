//! The uplink: committed entries in, Kafka records at Event Hubs out.
//!
//! One thread reads the lanes `alerts`, `status`, `telemetry` and `bulk` of the outbox in order, sends
//! each entry to the partition of its device's key, and gives progress back when the cloud has confirmed it.
//!
//! ```text
//! outbox ──segments──► lane ──entry──► route ► partition ► tracker ──record──► producer ──► Event Hubs
//!   ▲                                                          ▲                   │
//!   └────────────── low + what each partition confirmed ───────┴──── reports ──────┘
//! ```
//!
//! What holds:
//!
//! - An entry counts as delivered only after its delivery report (P2). A topic that the cloud refuses is held
//!   with the reason shown, while others flow, and gets everything in order when it takes records again. An entry
//!   that the cloud never takes goes to lane `dead`, in one synced commit with the progress that passes it.
//! - Records of a partition arrive in order, through outages, refusals and crashes (P3), and each one names the
//!   one before it (P4): see [`tracker`] for why a record sent twice carries the same header.
//! - In flight are at most `in_flight_max` records and `in_flight_bytes_max` bytes (P7). An outage fills
//!   that window and then only the outbox grows.
//! - An operator may cap what telemetry and bulk use, or pause a topic for them (`wishes.rs`): then their entries stay in
//!   the outbox as those of a held topic do. Alerts and status are never held back so.
//! - After an end that leaves doubt the ends of the partitions are read, and what arrived is not sent again. What
//!   may arrive twice: what that reading is not allowed or not able to see; after a change of the routes, what lies
//!   between `low` and the last confirmation. Duplicates carry the identity of the first copy.

mod backoff;
mod caution;
mod config;
mod connection;
mod doubt;
mod failure;
mod feed;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod headers;
mod lane;
mod metrics;
mod pace;
mod pack;
mod packer;
mod partition;
mod producer;
pub(crate) mod reader;
mod route;
mod service;
mod session;
mod share;
mod status;
mod tail;
mod topics;
mod tracker;
mod window;
mod wishes;

#[cfg(test)]
mod tests;

use penstock_proto::Seq;

use crate::outbox::ConsumerId;

pub use config::{CatchUp, Config, Format, PackSettings};
pub use connection::{Connection, Security};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub use headers::{HeaderMode, Headers};
pub(crate) use metrics::METRICS;
pub use pack::{CompressError, Pack, PackCompression, PackFormat};
pub use route::Route;
pub use service::{Prepared, Service, StartError};
pub use status::{Handle, Held, Status};
pub use wishes::{Selection, Unselectable, Wishes};

/// The name of the uplink's consumers in the outbox.
pub const CONSUMER: &str = lane::LaneFeed::CONSUMER;

/// The consumers that the outbox must be opened with.
#[must_use]
pub fn consumers() -> Vec<ConsumerId> {
    let consumer = |lane| ConsumerId { name: CONSUMER.to_owned(), lane };
    service::LANES.into_iter().map(consumer).collect()
}

/// The uplink's state for a replay from `low`, made from its `stored` one. A state that cannot be read
/// becomes the empty one, with which nothing is skipped and chains begin anew.
#[must_use]
pub fn replay_state(stored: &[u8], low: Seq) -> Vec<u8> {
    let Ok(mut state) = tracker::State::decode(stored) else { return Vec::new() };
    state.forget_from(low);
    state.encode()
}
