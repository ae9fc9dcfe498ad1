//! Dead letters: entries that a destination refused for good, kept until an operator decides.
//!
//! ```text
//! uplink ──bury──► lane `dead` ──► list, export            (change nothing)
//!                     ▲            retry   ──► the lane it came from, as a new entry
//!                     └── consumer `dead-letter` ──► discard ──► a loss record in lane `status`
//! ```
//!
//! What enters: [`bury`] makes the outputs that a consumer commits together with the progress that
//! passes the entry: the letter in lane `dead`, an event for whoever watches, and the loss record
//! that explains the gap in the chain to `penstock verify`. What leaves: [`Handle::retry`] and
//! [`Handle::discard`], each in synced batches of outputs and progress, so that a crash between any
//! two steps loses nothing and does nothing twice.
//!
//! Nothing in lane `dead` is trimmed before it was retried or discarded. What bounds the lane is the
//! limit of whoever buries. A retried entry is a new entry at the end of its lane: it has lost its
//! place in the order of its device, and says where it was before.
//!
//! The layout of a letter is documented in `docs/formats/dead-letter-v1.md`.

mod event;
mod handle;
mod letter;
mod metrics;

#[cfg(test)]
mod tests;

use penstock_proto::Lane;

use crate::outbox::ConsumerId;

pub use handle::{Error, Handle, Outcome, Reason, Status, Through};
pub use letter::{Letter, Origin, bury, entry};
pub(crate) use metrics::METRICS;

/// The name of the consumer of lane `dead`.
pub const CONSUMER: &str = "dead-letter";

/// The consumer that the outbox must be opened with.
#[must_use]
pub fn consumer() -> ConsumerId {
    ConsumerId { name: CONSUMER.to_owned(), lane: Lane::Dead }
}
