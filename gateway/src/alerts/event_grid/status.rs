//! What operators see of a destination.

use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::Lane;

use super::progress::Progress;
use crate::alerts::circuit::Trouble;
use crate::outbox;

/// A view of a destination. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    outbox: outbox::Handle,
    seen: Arc<Mutex<Seen>>,
}

/// What the publisher tells.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) status: Status,
    pub(super) progress: Progress,
}

/// A destination at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The consumer's name.
    pub(crate) name: String,
    /// The host of the service.
    pub(crate) host: String,
    /// Whether the last request was confirmed.
    pub(crate) connected: bool,
    /// Why nothing but probes is sent, if so.
    pub(crate) held: Option<Trouble>,
    /// Since when nothing was confirmed although something is to be sent, in Unix milliseconds.
    pub(crate) held_since_ms: Option<u64>,
    /// The newest error, also when it has passed.
    pub(crate) last_error: Option<String>,
    /// Events confirmed since the start.
    pub(crate) sent: u64,
    /// Events that went to lane `dead` since the start.
    pub(crate) quarantined: u64,
    /// Events that wait.
    pub(crate) backlog: u64,
}

// === impl Handle ===

impl Handle {
    pub(super) fn new(outbox: outbox::Handle, name: String, host: String, progress: Progress) -> Self {
        let status = Status { name, host, ..Status::default() };
        Self { outbox, seen: Arc::new(Mutex::new(Seen { status, progress })) }
    }

    /// How it is now. Does not touch the disk.
    pub(crate) fn status(&self) -> Status {
        let end = Lane::Alerts.pick(&self.outbox.status().lanes).next;
        let Seen { status, progress } = self.seen.lock().clone();
        Status { backlog: progress.open_below(end), ..status }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
    }
}
