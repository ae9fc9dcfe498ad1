//! What operators see of the uplink.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

/// A view of the uplink for health checks and operators. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<Mutex<Status>>);

/// The uplink at one moment; at most about 100 ms old while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the cloud answered last.
    pub connected: bool,
    /// Topics that get nothing now, and why.
    pub held: Vec<Held>,
    /// Records sent and not confirmed.
    pub in_flight: usize,
    /// Bytes sent and not confirmed.
    pub in_flight_bytes: usize,
    /// Records confirmed since the start.
    pub acked: u64,
    /// How often the Kafka client was built anew.
    pub rebuilds: u64,
    /// The newest error, also when it has passed.
    pub last_error: Option<String>,
    /// Why nothing is sent for good: another gateway sends from a copy of this outbox.
    pub fenced: Option<String>,
    /// How long until everything that waits is sent, as fast as it goes now; `None` while that is not known.
    pub drain: Option<Duration>,
    /// Per lane the first position that is not confirmed.
    pub low: Vec<(Lane, Seq)>,
}

/// A topic that gets nothing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub topic: String,
    /// Why.
    pub reason: String,
}

impl Handle {
    /// The uplink at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.lock().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock());
    }
}
