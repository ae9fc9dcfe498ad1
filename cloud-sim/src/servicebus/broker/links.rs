//! Receivers: how they come, wait, get and lose what they hold, and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Accept, ConnectionId, Delivery, LinkId, Lock, Notice, Outcome, Refusal, Wish};
use super::queue::{Kind, Place, QueueId};
use super::state::{Connection, Hold, Link, State, Timer, Unlock};

/// Longest session id, in characters.
pub(super) const ID_CHARACTERS_MAX: usize = 128;
/// Longest wait for a session, whatever a client asks for.
const WAIT_MAX: Duration = Duration::from_hours(24);

impl State {
    pub(super) fn connect(&mut self, notices: tokio::sync::mpsc::Sender<Notice>) -> ConnectionId {
        let id = self.id();
        self.connections.insert(id, Connection { notices, links: BTreeSet::new(), frozen: false });
        self.counters.connections_opened += 1;
        id
    }

    pub(super) fn disconnect(&mut self, connection: ConnectionId, now: u64) {
        let Some(found) = self.connections.remove(&connection) else { return };
        for link in found.links {
            self.detach(link, now);
        }
    }

    pub(super) fn attach_receiver(
        &mut self,
        connection: ConnectionId,
        link: LinkId,
        entity: &str,
        wish: Wish,
        now: u64,
    ) -> Result<Accept, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        self.may_attach(connection, link, queue_id, &wish)?;
        self.counters.links_attached += 1;
        match wish {
            Wish::Plain => {
                self.enter(connection, link, queue_id, Hold::Plain);
                self.used(link, now);
                Ok(Accept::Granted { session: None, locked_until_ms: None })
            }
            Wish::Session(id) => {
                let queue = self.queue(queue_id);
                let known = queue.and_then(|queue| queue.sessions.get_key_value(id.as_str()));
                let id: Arc<str> = known.map_or_else(|| id.into(), |(id, _session)| Arc::clone(id));
                self.enter(connection, link, queue_id, Hold::Plain);
                let until_ms = self.grant(queue_id, link, &id, now);
                Ok(Accept::Granted { session: Some(id.to_string()), locked_until_ms: Some(until_ms) })
            }
            Wish::Next { wait } => {
                let first = self.queue(queue_id).and_then(|queue| queue.available.first_key_value());
                if let Some((_ticket, id)) = first {
                    let id = Arc::clone(id);
                    self.enter(connection, link, queue_id, Hold::Plain);
                    let until_ms = self.grant(queue_id, link, &id, now);
                    return Ok(Accept::Granted {
                        session: Some(id.to_string()),
                        locked_until_ms: Some(until_ms),
                    });
                }
                let wait = u64::try_from(wait.min(WAIT_MAX).as_millis()).unwrap_or(u64::MAX);
                let (ticket, until_ms) = (self.id(), now.saturating_add(wait));
                self.enter(connection, link, queue_id, Hold::Waiting { ticket, until_ms });
                if let Some(queue) = self.queue(queue_id) {
                    queue.waiters.insert(ticket, link);
                }
                self.timers.insert((until_ms, Timer::Wait(link)));
                Ok(Accept::Waiting)
            }
        }
    }

    fn may_attach(
        &self,
        connection: ConnectionId,
        link: LinkId,
        queue_id: QueueId,
        wish: &Wish,
    ) -> Result<(), Refusal> {
        let Some(queue) = self.queues.get(&queue_id) else {
            return Err(not_found());
        };
        let not_allowed = |text: &str| Err(Refusal::new(Refusal::NOT_ALLOWED, text));
        if !self.connections.contains_key(&connection) {
            return Err(Refusal::new(Refusal::CONNECTION_FORCED, "The connection is being closed."));
        }
        if self.links.contains_key(&link) {
            return not_allowed("The link is attached already.");
        }
        if matches!(queue.kind, Kind::Topic { .. }) {
            return not_allowed("A topic has no messages to receive: attach to one of its subscriptions.");
        }
        match (queue.rules.sessions, wish) {
            (true, Wish::Plain) => {
                return not_allowed(
                    "It is not possible for an entity that requires sessions to create a non-sessionful message receiver.",
                );
            }
            (false, Wish::Session(_) | Wish::Next { .. }) => {
                return not_allowed(
                    "A sessionful message receiver cannot be created on an entity that does not require sessions.",
                );
            }
            (true, Wish::Session(_) | Wish::Next { .. }) | (false, Wish::Plain) => {}
        }
        if queue.links.len() >= self.faults.receives_max {
            let most = self.faults.receives_max;
            return Err(Refusal::new(
                Refusal::QUOTA,
                format!("The maximum number of concurrent receive requests of '{}' is {most}.", queue.name),
            ));
        }
        let Wish::Session(id) = wish else { return Ok(()) };
        if id.chars().count() > ID_CHARACTERS_MAX {
            return Err(Refusal::new(Refusal::ARGUMENT, "The session id is longer than 128 characters."));
        }
        match queue.sessions.get(id.as_str()).and_then(|session| session.holder) {
            None => Ok(()),
            Some(_holder) => Err(Refusal::new(
                Refusal::SESSION_CANNOT_BE_LOCKED,
                format!(
                    "The requested session '{id}' cannot be accepted. It may be locked by another receiver."
                ),
            )),
        }
    }

    /// Writes a link down. What it holds is given to it next.
    fn enter(&mut self, connection: ConnectionId, link: LinkId, queue_id: QueueId, hold: Hold) {
        let entered = Link {
            connection,
            queue: queue_id,
            hold,
            in_hand: BTreeSet::new(),
            hungry: None,
            told: false,
            used_ms: 0,
            idle_check_ms: None,
        };
        self.links.insert(link, entered);
        if let Some(found) = self.connections.get_mut(&connection) {
            found.links.insert(link);
        }
        if let Some(queue) = self.queue(queue_id) {
            queue.links.insert(link);
        }
    }

    /// Gives a link a session that nobody holds. Gives the end of the lock.
    fn grant(&mut self, queue_id: QueueId, link: LinkId, id: &Arc<str>, now: u64) -> u64 {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return now };
        let until_ms = now.saturating_add(queue.rules.lock_ms);
        let session = queue.sessions.entry(Arc::clone(id)).or_default();
        session.holder = Some(link);
        session.locked_until_ms = until_ms;
        queue.sessions_held += 1;
        queue.tidy_session(id, || 0);
        if let Some(found) = self.links.get_mut(&link) {
            found.hold = Hold::Session { id: Arc::clone(id), until_ms };
        }
        self.timers.insert((until_ms, Timer::SessionLock(link)));
        self.used(link, now);
        until_ms
    }

    /// A link was used; from now on its idleness is watched.
    pub(super) fn used(&mut self, link: LinkId, now: u64) {
        let idle_ms = self.faults.idle_detach_ms;
        let Some(found) = self.links.get_mut(&link) else { return };
        found.used_ms = now;
        if found.idle_check_ms.is_none() {
            let check_ms = now.saturating_add(idle_ms);
            found.idle_check_ms = Some(check_ms);
            self.timers.insert((check_ms, Timer::Idle(link)));
        }
    }

    /// After a change: tells the holder of a session, or links of a plain queue, that there is something, or
    /// offers the session to who waits for one.
    pub(super) fn serve(&mut self, queue_id: QueueId, session: Option<&Arc<str>>, now: u64) {
        match session {
            None => self.wake(queue_id),
            Some(id) => self.offer(queue_id, id, now),
        }
    }

    fn wake(&mut self, queue_id: QueueId) {
        loop {
            let Some(queue) = self.queues.get_mut(&queue_id) else { return };
            if queue.told >= queue.ready.len() {
                return;
            }
            let Some((_ticket, link)) = queue.hungry.pop_first() else { return };
            let Some(found) = self.links.get_mut(&link) else { continue };
            found.hungry = None;
            found.told = true;
            queue.told += 1;
            let connection = found.connection;
            self.tell(connection, Notice::Ready { link });
        }
    }

    fn offer(&mut self, queue_id: QueueId, id: &Arc<str>, now: u64) {
        let next_ticket = self.id();
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        let Some(session) = queue.sessions.get(id) else { return };
        if session.ready.is_empty() || session.holder.is_none() {
            let wanted = !session.ready.is_empty();
            if wanted && let Some((_ticket, link)) = queue.waiters.pop_first() {
                self.end_wait(queue_id, link, id, now);
                return;
            }
            queue.tidy_session(id, || next_ticket);
            return;
        }
        let Some(link) = session.holder else { return };
        let Some(found) = self.links.get_mut(&link) else { return };
        if found.hungry.take().is_some() {
            let connection = found.connection;
            self.tell(connection, Notice::Ready { link });
        }
    }

    /// A link that waited gets a session.
    fn end_wait(&mut self, queue_id: QueueId, link: LinkId, id: &Arc<str>, now: u64) {
        let Some(found) = self.links.get(&link) else { return };
        let connection = found.connection;
        if let Hold::Waiting { until_ms, .. } = found.hold {
            self.timers.remove(&(until_ms, Timer::Wait(link)));
        }
        let locked_until_ms = self.grant(queue_id, link, id, now);
        self.tell(connection, Notice::Granted { link, session: id.to_string(), locked_until_ms });
    }

    pub(super) fn next(&mut self, link: LinkId, settled: bool, now: u64) -> Option<Delivery> {
        let found = self.links.get_mut(&link)?;
        let queue_id = found.queue;
        let session = match &found.hold {
            Hold::Session { id, .. } => Some(Arc::clone(id)),
            Hold::Plain => None,
            Hold::Waiting { .. } | Hold::Lost { .. } => return None,
        };
        let told = std::mem::take(&mut found.told);
        let queue = self.queues.get_mut(&queue_id)?;
        queue.told -= usize::from(told);
        let Some(sequence) = queue.first_ready(session.as_deref()) else {
            self.starve(link);
            return None;
        };
        if let Some(ticket) = self.links.get_mut(&link).and_then(|found| found.hungry.take()) {
            self.queue(queue_id)?.hungry.remove(&ticket);
        }
        let delivery = self.lock(queue_id, sequence, Some(link), now);
        if settled {
            self.finish(queue_id, sequence, &Outcome::Accepted, now).ok()?;
            return delivery.map(|delivery| Delivery { lock: [0; 16], locked_until_ms: 0, ..delivery });
        }
        if session.is_none() {
            self.wake(queue_id);
        }
        delivery
    }

    /// A link that has credit found nothing.
    fn starve(&mut self, link: LinkId) {
        let ticket = self.id();
        let Some(found) = self.links.get_mut(&link) else { return };
        if found.hungry.is_some() {
            return;
        }
        found.hungry = Some(ticket);
        if found.hold == Hold::Plain
            && let Some(queue) = self.queues.get_mut(&found.queue)
        {
            queue.hungry.insert(ticket, link);
        }
    }

    /// A link has no credit (any more).
    pub(super) fn pass(&mut self, link: LinkId) {
        let Some(found) = self.links.get_mut(&link) else { return };
        let (hungry, told) = (found.hungry.take(), std::mem::take(&mut found.told));
        let queue_id = found.queue;
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        if let Some(ticket) = hungry {
            queue.hungry.remove(&ticket);
        }
        queue.told -= usize::from(told);
        self.wake(queue_id);
    }

    pub(super) fn detach(&mut self, link: LinkId, now: u64) {
        self.let_go(link, Unlock::LinkEnd, "", now);
        let Some(found) = self.links.remove(&link) else { return };
        if let Some(connection) = self.connections.get_mut(&found.connection) {
            connection.links.remove(&link);
        }
    }

    /// A link loses what it holds, and is told to detach.
    pub(super) fn lose(&mut self, link: LinkId, why: Unlock, error: Refusal, now: u64) {
        let Some(found) = self.links.get(&link) else { return };
        let connection = found.connection;
        match found.hold {
            Hold::Lost { .. } => {}
            Hold::Waiting { .. } => {
                self.detach(link, now);
                self.tell(connection, Notice::Refused { link, error });
            }
            Hold::Session { .. } | Hold::Plain => {
                let condition = error.condition;
                self.tell(connection, Notice::Detach { link, error });
                self.let_go(link, why, condition, now);
            }
        }
    }

    /// Takes from a link what it holds; what was in its hands goes back.
    fn let_go(&mut self, link: LinkId, why: Unlock, condition: &'static str, now: u64) {
        self.pass(link);
        let Some(found) = self.links.get_mut(&link) else { return };
        let hold = std::mem::replace(&mut found.hold, Hold::Lost { condition });
        let in_hand = std::mem::take(&mut found.in_hand);
        let (queue_id, idle_check) = (found.queue, found.idle_check_ms.take());
        if let Some(check_ms) = idle_check {
            self.timers.remove(&(check_ms, Timer::Idle(link)));
        }
        for sequence in in_hand {
            self.unlock(queue_id, sequence, why, now);
        }
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        queue.links.remove(&link);
        match hold {
            Hold::Waiting { ticket, until_ms } => {
                queue.waiters.remove(&ticket);
                self.timers.remove(&(until_ms, Timer::Wait(link)));
            }
            Hold::Session { id, until_ms } => {
                queue.sessions_held -= 1;
                if let Some(session) = queue.sessions.get_mut(&id) {
                    session.holder = None;
                    session.locked_until_ms = 0;
                }
                self.timers.remove(&(until_ms, Timer::SessionLock(link)));
                self.serve(queue_id, Some(&id), now);
            }
            Hold::Plain => self.wake(queue_id),
            Hold::Lost { .. } => {}
        }
    }

    pub(super) fn settle(
        &mut self,
        link: LinkId,
        lock: Lock,
        outcome: &Outcome,
        now: u64,
    ) -> Result<(), Refusal> {
        let found = self.links.get(&link);
        let lost = found.is_some_and(
            |link| matches!(&link.hold, Hold::Lost { condition } if *condition == Refusal::SESSION_LOCK_LOST),
        );
        if lost {
            return Err(session_lock_lost());
        }
        let queue_id = found.map(|link| link.queue).ok_or_else(message_lock_lost)?;
        let queue = self.queues.get(&queue_id).ok_or_else(message_lock_lost)?;
        let sequence = queue.locks.get(&lock).copied().ok_or_else(message_lock_lost)?;
        match queue.messages.get(&sequence).map(|stored| stored.place) {
            Some(Place::Locked { link: Some(holder), .. }) if holder == link => {}
            Some(_) | None => return Err(message_lock_lost()),
        }
        self.used(link, now);
        self.finish(queue_id, sequence, outcome, now)
    }
}

pub(super) fn not_found() -> Refusal {
    Refusal::new(Refusal::NOT_FOUND, "The messaging entity could not be found.")
}

pub(super) fn message_lock_lost() -> Refusal {
    Refusal::new(
        Refusal::MESSAGE_LOCK_LOST,
        "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.",
    )
}

pub(super) fn session_lock_lost() -> Refusal {
    Refusal::new(
        Refusal::SESSION_LOCK_LOST,
        "The session lock has expired on the MessageSession. Accept a new MessageSession.",
    )
}
