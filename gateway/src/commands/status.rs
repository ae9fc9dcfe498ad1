//! What operators see of the commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// A view of the commands for operators. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<State>);

#[derive(Debug, Default)]
struct State {
    pending: AtomicUsize,
    entities: Mutex<Vec<EntityStatus>>,
}

/// The commands at one moment; at most a second old.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Messages received and neither settled nor left.
    pub pending: usize,
    /// The queues and subscriptions that commands come from.
    pub entities: Vec<EntityStatus>,
}

/// One queue or subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntityStatus {
    /// Its name.
    pub entity: String,
    /// Devices whose session is accepted.
    pub links: usize,
    /// Devices whose session is being accepted.
    pub accepting: usize,
    /// Connected devices that wait for their session.
    pub waiting: usize,
    /// Connected devices without a place among the links.
    pub passive: usize,
    /// Sessions held whose devices are not here.
    pub parked: usize,
    /// For how many more milliseconds nothing is accepted, if that is so.
    pub down_ms: Option<u64>,
    /// The newest error, also when it has passed.
    pub last_error: Option<String>,
    /// When that was, in Unix milliseconds.
    pub last_error_ms: Option<u64>,
}

impl Handle {
    /// The commands at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        Status { pending: self.0.pending.load(Ordering::Relaxed), entities: self.0.entities.lock().clone() }
    }

    pub(super) fn update(&self, entities: Vec<EntityStatus>) {
        *self.0.entities.lock() = entities;
    }

    /// How many messages are pending, for who receives and settles them.
    pub(super) fn pending(&self) -> &AtomicUsize {
        &self.0.pending
    }
}
