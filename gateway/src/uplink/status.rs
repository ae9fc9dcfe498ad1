//! What operators see of the uplink.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use super::route::Routes;
use super::wishes::{Selection, Shared as SharedWishes, Unselectable, Wishes};

/// A view of the uplink for health checks and operators, and the way to what they may ask of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    status: Arc<Mutex<Status>>,
    routes: Arc<Routes>,
    wishes: Arc<SharedWishes>,
}

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
    /// What operators ask for at the moment.
    pub wishes: Wishes,
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
    pub(super) fn new(routes: Routes) -> Self {
        Self { status: Arc::default(), routes: Arc::new(routes), wishes: Arc::default() }
    }

    /// The uplink at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status.lock().clone();
        status.wishes = self.wishes.get();
        status
    }

    /// Has the uplink do as operators ask, in place of what they asked before. It does within 100 ms, or as soon as the
    /// Kafka client that is being built is there.
    pub fn wish(&self, wishes: Wishes) {
        self.wishes.set(wishes);
    }

    /// The topics that a pause of this selection stops.
    ///
    /// # Errors
    ///
    /// When it stops nothing, or would stop more than was asked for.
    pub fn select(&self, selection: Selection<'_>) -> Result<Vec<String>, Unselectable> {
        self.routes.select(selection)
    }

    /// What operators ask for, if that is not what `seen` stands for; `seen` is brought up to it.
    pub(super) fn news(&self, seen: &mut u64) -> Option<Wishes> {
        self.wishes.news(seen)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock());
    }
}
