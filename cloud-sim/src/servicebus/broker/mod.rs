//! The broker of the Service Bus stand-in: entities, sessions, locks and settlement, without any I/O.
//!
//! All state is behind one lock that every call takes briefly; nothing scans all links or all messages. Time
//! comes from a [`Clock`] that tests can drive, and what is due is done before anything else of a call, so a
//! lock that has expired is lost also when the timer task comes late. Entity names are compared without case;
//! the wire strips scheme and host. A dead-letter queue is `<entity>/$DeadLetterQueue`, a subscription
//! `<topic>/Subscriptions/<name>`.
//!
//! Contract with the wire:
//! * Notices come on the channel of [`Broker::connect`]. Give it room for four notices per link. When it is
//!   full or closed, the broker drops its sender and takes the connection for disconnected: a `recv` that
//!   gives `None` means "cut the socket".
//! * [`Broker::next`] is called while a link has credit, after [`Notice::Ready`] and when credit comes. When
//!   it gave `None`, `Ready` follows once there is something. Whoever gets `Ready` and has no credit (any
//!   more) calls [`Broker::pass`], so that another receiver of a plain queue gets its chance.
//! * [`Broker::detach`] and [`Broker::disconnect`] may be called for what the broker has forgotten already.
//! * The wire waits [`Broker::attach_delay`] and [`Broker::disposition_delay`] itself before it passes on an
//!   attach or a disposition.

mod clock;
mod due;
mod entities;
mod faults;
mod filter;
mod links;
mod log;
mod message;
mod queue;
mod send;
mod settle;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

pub(crate) use self::clock::Clock;
pub(crate) use self::entities::View;
pub(crate) use self::faults::Fault;
pub(crate) use self::log::Page;
#[cfg(test)]
pub(crate) use self::message::DeadLetter;
pub(crate) use self::message::{
    Accept, ConnectionId, Delivery, LinkId, Lock, Message, MessageState, Notice, Outcome, Refusal, Simple,
    Wish,
};
pub(crate) use self::state::Counters;
use self::state::State;
use crate::servicebus::config::{Entities, SpecError};

/// The broker. Cheap to clone; every clone is the same broker.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    guarded: Mutex<Guarded>,
    /// Something is due earlier than the timer task knows.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Guarded {
    state: State,
    /// What the timer task sleeps for.
    armed_ms: Option<u64>,
}

impl Broker {
    /// A broker with these entities.
    ///
    /// # Errors
    /// The first thing that is wrong with the entities.
    pub(crate) fn new(entities: &Entities, clock: Clock) -> Result<Self, SpecError> {
        let shared = Shared { clock, guarded: Mutex::default(), earlier: Notify::new() };
        let broker = Self { shared: Arc::new(shared) };
        broker.create(entities)?;
        Ok(broker)
    }

    /// Does what is due when it is due, until `stop` changes or its sender is gone.
    pub(crate) async fn run_timers(self, mut stop: watch::Receiver<bool>) {
        loop {
            let wait = {
                let mut guarded = self.shared.guarded.lock();
                let now = self.shared.clock.now_ms();
                guarded.state.fire(now);
                guarded.state.bury(now);
                guarded.armed_ms = guarded.state.next_due();
                guarded.armed_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now)))
            };
            let due = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.shared.earlier.notified() => {}
                _changed = stop.changed() => return,
            }
        }
    }

    /// Runs an operation on a state in which everything that is due was done.
    fn with<T>(&self, operation: impl FnOnce(&mut State, u64) -> T) -> T {
        let mut guarded = self.shared.guarded.lock();
        let now = self.shared.clock.now_ms();
        guarded.state.fire(now);
        let answer = operation(&mut guarded.state, now);
        guarded.state.bury(now);
        let earlier = match (guarded.state.next_due(), guarded.armed_ms) {
            (Some(due_ms), Some(armed_ms)) => due_ms < armed_ms,
            (Some(_due_ms), None) => true,
            (None, _) => false,
        };
        if earlier {
            guarded.armed_ms = guarded.state.next_due();
        }
        drop(guarded);
        if earlier {
            self.shared.earlier.notify_one();
        }
        answer
    }

    /// As [`Self::with`]; counts a refusal.
    fn attempt<T>(
        &self,
        operation: impl FnOnce(&mut State, u64) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.with(|state, now| {
            let answer = operation(state, now);
            if let Err(refusal) = &answer {
                *state.counters.refused.entry(refusal.condition).or_default() += 1;
            }
            answer
        })
    }

    /// A new connection. See the module for what becomes of a channel that is full.
    pub(crate) fn connect(&self, notices: mpsc::Sender<Notice>) -> ConnectionId {
        self.with(|state, _now| state.connect(notices))
    }

    /// The connection is over: its session locks are free, its unsettled messages go back, delivery counts stay.
    pub(crate) fn disconnect(&self, connection: ConnectionId) {
        self.with(|state, now| state.disconnect(connection, now));
    }

    /// Takes messages into a queue or a topic; all or nothing. Gives their sequence numbers.
    pub(crate) fn send(&self, entity: &str, messages: Vec<Message>) -> Result<Vec<i64>, Refusal> {
        self.attempt(|state, now| state.send(entity, messages, now))
    }

    /// Whether a sender may attach.
    pub(crate) fn attach_sender(&self, entity: &str) -> Result<(), Refusal> {
        self.attempt(|state, _now| state.attach_sender(entity))
    }

    /// A receiver attaches. After `Err` the link is not known.
    pub(crate) fn attach_receiver(
        &self,
        connection: ConnectionId,
        link: LinkId,
        entity: &str,
        wish: Wish,
    ) -> Result<Accept, Refusal> {
        self.attempt(|state, now| state.attach_receiver(connection, link, entity, wish, now))
    }

    /// The link is over: frees the session lock, unsettled messages go back, counts stay.
    pub(crate) fn detach(&self, link: LinkId) {
        self.with(|state, now| state.detach(link, now));
    }

    /// The next delivery for a link that has credit; locked for it.
    pub(crate) fn next(&self, link: LinkId) -> Option<Delivery> {
        self.with(|state, now| state.next(link, false, now))
    }

    /// As `next`, for a receiver whose deliveries are settled when they are sent: the message is gone.
    pub(crate) fn next_settled(&self, link: LinkId) -> Option<Delivery> {
        self.with(|state, now| state.next(link, true, now))
    }

    /// A link that was told [`Notice::Ready`], or got `None` from `next`, has no credit any more.
    pub(crate) fn pass(&self, link: LinkId) {
        self.with(|state, _now| state.pass(link));
    }

    /// Settles one delivery of a link.
    ///
    /// # Errors
    /// `message-lock-lost`, or `session-lock-lost` when the link lost its session.
    pub(crate) fn settle(&self, link: LinkId, lock: Lock, outcome: &Outcome) -> Result<(), Refusal> {
        self.attempt(|state, now| state.settle(link, lock, outcome, now))
    }
}

/// What `$management` offers. `session-lock-lost` and `message-lock-lost` are status 410, `not-found` and
/// `message-not-found` 404, `server-busy` 503, everything else 400.
impl Broker {
    /// Unix time in milliseconds until which the session is locked now. `link`: who must hold it, if that is known.
    pub(crate) fn renew_session(
        &self,
        entity: &str,
        session: &str,
        link: Option<LinkId>,
    ) -> Result<u64, Refusal> {
        self.attempt(|state, now| state.renew_session(entity, session, link, now))
    }

    /// The same for messages of an entity without sessions; all or nothing.
    pub(crate) fn renew_lock(&self, entity: &str, locks: &[Lock]) -> Result<Vec<u64>, Refusal> {
        self.attempt(|state, now| state.renew_lock(entity, locks, now))
    }

    /// The state of a session that somebody holds.
    pub(crate) fn session_state(&self, entity: &str, session: &str) -> Result<Option<Bytes>, Refusal> {
        self.attempt(|state, _now| state.session_state(entity, session))
    }

    /// Sets it, at most 256 KiB; `None` takes it away.
    pub(crate) fn set_session_state(
        &self,
        entity: &str,
        session: &str,
        value: Option<Bytes>,
    ) -> Result<(), Refusal> {
        self.attempt(|state, now| state.set_session_state(entity, session, value, now))
    }

    /// Messages from a sequence number on, whatever their state, without locking them; at most 1,000 and 4 MiB.
    pub(crate) fn peek(
        &self,
        entity: &str,
        from: i64,
        count: usize,
        session: Option<&str>,
    ) -> Result<Vec<Delivery>, Refusal> {
        self.attempt(|state, _now| state.peek(entity, from, count, session))
    }

    /// Deferred messages, locked (`settled`: gone with this); all or nothing. Where there are sessions, theirs
    /// must be held.
    pub(crate) fn receive_by_sequence(
        &self,
        entity: &str,
        numbers: &[i64],
        session: Option<&str>,
        settled: bool,
    ) -> Result<Vec<Delivery>, Refusal> {
        self.attempt(|state, now| state.receive_by_sequence(entity, numbers, session, settled, now))
    }

    /// Settles by lock token; nothing happens when one of the locks is lost.
    pub(crate) fn update_disposition(
        &self,
        entity: &str,
        locks: &[Lock],
        outcome: &Outcome,
    ) -> Result<(), Refusal> {
        self.attempt(|state, now| state.update_disposition(entity, locks, outcome, now))
    }

    /// Takes messages that are enqueued at their `scheduled_ms`. Gives the numbers to cancel them by.
    pub(crate) fn schedule(&self, entity: &str, messages: Vec<Message>) -> Result<Vec<i64>, Refusal> {
        self.attempt(|state, now| state.schedule(entity, messages, now))
    }

    /// Takes scheduled messages back; all or nothing.
    pub(crate) fn cancel(&self, entity: &str, numbers: &[i64]) -> Result<(), Refusal> {
        self.attempt(|state, _now| state.cancel(entity, numbers))
    }

    /// Ids of sessions with messages (`updated_since_ms` `None`), or whose state was set since then, in their order.
    pub(crate) fn sessions(
        &self,
        entity: &str,
        updated_since_ms: Option<u64>,
        skip: usize,
        top: usize,
    ) -> Result<Vec<String>, Refusal> {
        self.attempt(|state, _now| state.sessions(entity, updated_since_ms, skip, top))
    }
}

/// Faults that the wire carries out.
impl Broker {
    /// How long an attach is held back.
    pub(crate) fn attach_delay(&self) -> Duration {
        Duration::from_millis(self.with(|state, _now| state.faults.attach_delay_ms))
    }

    /// How long a disposition is held back.
    pub(crate) fn disposition_delay(&self) -> Duration {
        Duration::from_millis(self.with(|state, _now| state.faults.disposition_delay_ms))
    }

    /// The longest life of a token that `$cbs` takes, whatever the token says; `None`: no limit.
    pub(crate) fn token_life_max(&self) -> Option<Duration> {
        self.with(|state, _now| state.faults.token_life_max_ms).map(Duration::from_millis)
    }
}

/// What the control API orders and asks for.
impl Broker {
    /// Creates entities; those that are there already are deleted first, with what is in them.
    pub(crate) fn create(&self, entities: &Entities) -> Result<(), SpecError> {
        self.with(|state, now| state.create(entities, now))
    }

    /// Deletes a queue or a topic with all that belongs to it. Whether there was one.
    pub(crate) fn delete(&self, name: &str) -> bool {
        self.with(|state, now| state.delete(name, now))
    }

    /// The names of all entities, without dead-letter queues.
    pub(crate) fn entities(&self) -> Vec<String> {
        self.with(|state, _now| state.entities())
    }

    /// What can be seen of an entity.
    pub(crate) fn view(&self, entity: &str) -> Result<View, Refusal> {
        self.with(|state, _now| state.view(entity))
    }

    /// Carries out an order. Gives how many connections, links or sessions it met.
    pub(crate) fn order(&self, fault: Fault) -> Result<usize, Refusal> {
        self.with(|state, now| state.order(fault, now))
    }

    /// Entries of the log with a number above `after`.
    pub(crate) fn log_after(&self, after: u64) -> Page {
        self.with(|state, _now| state.log.after(after))
    }

    /// What happened since the start.
    pub(crate) fn counters(&self) -> Counters {
        self.with(|state, _now| Counters {
            connections_open: state.connections.len(),
            links_open: state.links.len(),
            ..state.counters.clone()
        })
    }
}

#[cfg(test)]
impl Broker {
    /// Moves the clock, and does what is due.
    fn advance(&self, by: Duration) {
        if let Clock::Driven(now) = &self.shared.clock {
            let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            now.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
        }
        self.with(|_state, _now| ());
    }
}
