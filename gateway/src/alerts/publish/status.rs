//! What operators see of reactions that are published.

use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use crate::outbox;

/// A view of the sink. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    outbox: outbox::Handle,
    seen: Arc<Mutex<(Seq, u64)>>,
}

/// The sink at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// Reactions published since the start.
    pub(crate) published: u64,
    /// Entries of lane alerts that it has not looked at.
    pub(crate) backlog: u64,
}

impl Handle {
    pub(super) fn new(outbox: outbox::Handle, next: Seq) -> Self {
        Self { outbox, seen: Arc::new(Mutex::new((next, 0))) }
    }

    /// How it is now. Does not touch the disk.
    pub(crate) fn status(&self) -> Status {
        let Seq(end) = Lane::Alerts.pick(&self.outbox.status().lanes).next;
        let (Seq(next), published) = *self.seen.lock();
        Status { published, backlog: end.saturating_sub(next) }
    }

    pub(super) fn published(&self) {
        self.seen.lock().1 += 1;
    }

    pub(super) fn stands_at(&self, next: Seq) {
        self.seen.lock().0 = next;
    }
}
