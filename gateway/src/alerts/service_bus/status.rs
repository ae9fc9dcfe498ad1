//! What operators see of a destination.

use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use crate::alerts::circuit::Trouble;
use crate::outbox;

/// A view of a destination. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    outbox: outbox::Handle,
    seen: Arc<Mutex<Seen>>,
}

/// What the poster tells.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) status: Status,
    /// The first position that is not dealt with.
    pub(super) low: Seq,
}

/// A destination at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The consumer's name.
    pub(crate) name: String,
    /// The host of the namespace.
    pub(crate) host: String,
    /// The queue or topic.
    pub(crate) entity: String,
    /// Whether there is a link to it.
    pub(crate) connected: bool,
    /// Why it is tried once per interval only, if so.
    pub(crate) held: Option<Trouble>,
    /// Since when nothing was accepted although something is to be sent, in Unix milliseconds.
    pub(crate) held_since_ms: Option<u64>,
    /// The newest error, also when it has passed.
    pub(crate) last_error: Option<String>,
    /// Commands accepted since the start.
    pub(crate) sent: u64,
    /// Commands that nobody wanted any more, since the start.
    pub(crate) expired: u64,
    /// Commands that went to lane `dead` since the start.
    pub(crate) quarantined: u64,
    /// Commands in hand; there may be more behind them.
    pub(crate) pending: u64,
    /// Entries of the lane that are not dealt with, of whatever kind.
    pub(crate) backlog: u64,
}

// === impl Handle ===

impl Handle {
    pub(super) fn new(outbox: outbox::Handle, status: Status, low: Seq) -> Self {
        Self { outbox, seen: Arc::new(Mutex::new(Seen { status, low })) }
    }

    /// How it is now. Does not touch the disk.
    pub(crate) fn status(&self) -> Status {
        let end = Lane::Alerts.pick(&self.outbox.status().lanes).next;
        let Seen { status, low } = self.seen.lock().clone();
        Status { backlog: end.0.saturating_sub(low.0), ..status }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
    }
}
