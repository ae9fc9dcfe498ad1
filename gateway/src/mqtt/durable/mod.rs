//! What of the front end survives a restart, as keys and values of the outbox's state.
//!
//! `docs/formats/mqtt-state-v1.md` has every byte. Pure: no I/O and no clock; times are Unix
//! milliseconds that callers give. Values begin with their own version; what cannot be read is
//! `None`, never a panic, and its caller counts it.
//!
//! Records are borrowed views: encoding appends to a buffer that the caller keeps, decoding borrows
//! from the value, so that neither copies a payload.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod key;
mod message;
mod queued;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub(super) use key::StateKey;
pub(super) use message::MessageRecord;
pub(super) use queued::{QueuedRecord, RECEIVED_VALUE, Stage, is_received};
pub(super) use session::{SessionRecord, SubscriptionRecord, WillRecord};

/// The version of the value layouts.
const VALUE_VERSION: u8 = 1;
