//! Sends lane alerts to Azure Event Grid: one thread per destination, durable and calm.
//!
//! ```text
//! lane alerts ──► feed ──► envelope ──► batch ──► client ──HTTPS──► Event Grid
//!   ▲  critical ahead,     CloudEvents   one request   │
//!   │  others behind                     at a time     ▼
//!   └── progress, durable after each answer ◄── disposition ◄── answer
//!                                                   └──► circuit: when next; burial: lane dead
//! ```
//!
//! What enters: every entry of lane `alerts`. What the gateway raised is a CloudEvent already; what devices published is
//! wrapped into one. What leaves: batches of CloudEvents, each event at least once, under an id that never changes.
//!
//! What holds:
//!
//! - Two readings of the lane: critical events go first, oldest first, however long the backlog; the others follow up to
//!   where the first reading came. How far both are is durable after each answer and before the next request: after a
//!   restart only what was in flight is sent again.
//! - One request is in flight at a time. A batch is bounded by count and bytes; it is sent at once when there is
//!   something to send.
//! - What follows from an answer is decided by one function, [`disposition::judge`], and when the next request may be
//!   sent by [`super::circuit::Circuit`]. Neither has a clock or I/O.
//! - A failure is retried for ever, with growing pauses drawn at random. Where only somebody's action can help, the circuit
//!   opens: everything is kept, and one probe is sent per interval.
//! - An event that the service refuses is found by halving the batch and goes to lane `dead`, in one batch with the
//!   progress that passes it. Lane `dead` has a bound; beyond it the destination waits.
//! - Nothing here is waited for by anybody else: an outage shows in status, metrics and a growing lane.

mod batch;
mod client;
mod config;
mod credential;
mod disposition;
mod envelope;
mod feed;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod metrics;
mod progress;
mod publisher;
mod refusal;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use config::{Config, consumer};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use metrics::METRICS;
pub(crate) use publisher::Publisher;
pub(crate) use status::{Handle, Status};
