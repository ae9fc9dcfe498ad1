//! What operators see of the commands.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::amqp::PoolView;
use super::control::LimitStatus;

/// A view of the commands for operators. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<State>);

#[derive(Debug, Default)]
struct State {
    pending: AtomicUsize,
    entities: Mutex<Vec<EntityStatus>>,
    dead_letters: Mutex<Vec<DeadLetterStatus>>,
    connections: OnceLock<PoolView>,
    control: Mutex<Option<ControlStatus>>,
}

/// The commands at one moment; at most a second old.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Messages received and neither settled nor left.
    pub pending: usize,
    /// The queues and subscriptions that commands come from.
    pub entities: Vec<EntityStatus>,
    /// The connections to Service Bus.
    pub connection: ConnectionStatus,
    /// The dead-letter queues that are watched; none where they are not.
    pub dead_letters: Vec<DeadLetterStatus>,
    /// What the gateway itself was told, if it takes commands.
    pub control: Option<ControlStatus>,
}

/// The connections to Service Bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Those that are open.
    pub open: usize,
    /// Links on them, and those that wait for one.
    pub links: usize,
    /// Why the last one ended or did not open, if none opened since.
    pub last_error: Option<String>,
}

/// What the gateway itself was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlStatus {
    /// The session that holds its commands.
    pub session: String,
    /// The limits that hold now.
    pub limits: Vec<LimitStatus>,
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

/// A dead-letter queue that is watched, as the last whole look found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterStatus {
    /// The queue or subscription it belongs to.
    pub entity: String,
    /// Whether there was a look since the start.
    pub looked: bool,
    /// Letters whose commands were told of, now or before.
    pub told: u64,
    /// Letters that gateways gave up, and have told of.
    pub own: u64,
    /// Letters whose command is still in hand here.
    pub open: u64,
    /// Letters not told of, since too many are remembered.
    pub held: u64,
    /// Messages that are not AMQP.
    pub unreadable: u64,
    /// Whether the last try to look failed.
    pub failing: bool,
    /// The newest error, also when it has passed.
    pub last_error: Option<String>,
    /// When that was, in Unix milliseconds.
    pub last_error_ms: Option<u64>,
}

impl Handle {
    /// The commands at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            pending: self.0.pending.load(Ordering::Relaxed),
            entities: self.0.entities.lock().clone(),
            connection: self.connection(),
            dead_letters: self.0.dead_letters.lock().clone(),
            control: self.0.control.lock().clone(),
        }
    }

    pub(super) fn set_control(&self, control: ControlStatus) {
        *self.0.control.lock() = Some(control);
    }

    pub(super) fn update(&self, entities: Vec<EntityStatus>) {
        *self.0.entities.lock() = entities;
    }

    fn connection(&self) -> ConnectionStatus {
        let Some(pool) = self.0.connections.get().and_then(PoolView::status) else {
            return ConnectionStatus::default();
        };
        let last_error = pool.last_error.map(|error| error.to_string());
        ConnectionStatus { open: pool.connections, links: pool.links, last_error }
    }

    /// Shows these connections from now on.
    pub(super) fn connections(&self, view: PoolView) {
        drop(self.0.connections.set(view));
    }

    pub(super) fn update_dead_letters(&self, dead_letters: Vec<DeadLetterStatus>) {
        *self.0.dead_letters.lock() = dead_letters;
    }

    /// How many messages are pending, for who receives and settles them.
    pub(super) fn pending(&self) -> &AtomicUsize {
        &self.0.pending
    }
}
