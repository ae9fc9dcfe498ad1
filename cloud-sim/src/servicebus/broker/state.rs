//! Everything the broker knows, and the primitives that the operations are made of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::faults::Faults;
use super::log::{Entry, Event, Log};
use super::message::{ConnectionId, DeadLetter, Delivery, LinkId, Notice, Refusal};
use super::queue::{Kind, Place, Queue, QueueId, Settled, Stored, Ticket};

/// Most messages and bytes of all entities together.
pub(super) const MESSAGES_MAX: usize = 1_000_000;
pub(super) const BYTES_MAX: usize = 1 << 30;

#[derive(Debug, Default)]
pub(super) struct State {
    /// By path in lower case.
    pub(super) names: BTreeMap<String, QueueId>,
    pub(super) queues: HashMap<QueueId, Queue>,
    pub(super) links: HashMap<LinkId, Link>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) timers: BTreeSet<(u64, Timer)>,
    pub(super) log: Log,
    pub(super) faults: Faults,
    pub(super) counters: Counters,
    /// Of all entities.
    pub(super) messages: usize,
    pub(super) bytes: usize,
    next_id: u64,
    /// Connections that took no notice any more; they end with the call that found out.
    doomed: Vec<ConnectionId>,
}

/// Something that happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A scheduled message is enqueued.
    Enqueue(QueueId, i64),
    /// A message's time to live is over.
    Expire(QueueId, i64),
    /// A message's lock expires; of a queue without sessions.
    MessageLock(QueueId, i64),
    /// The lock of the session that a link holds expires.
    SessionLock(LinkId),
    /// A link has waited long enough for a session.
    Wait(LinkId),
    /// A link may have been idle for too long.
    Idle(LinkId),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) links: BTreeSet<LinkId>,
    /// Half-open on order: it is told nothing any more.
    pub(super) frozen: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) queue: QueueId,
    pub(super) hold: Hold,
    /// What is locked for it.
    pub(super) in_hand: BTreeSet<i64>,
    /// It asked in vain; with its place in the line of a queue without sessions.
    pub(super) hungry: Option<Ticket>,
    /// It was told to ask and has not done so.
    pub(super) told: bool,
    /// The last delivery or settlement.
    pub(super) used_ms: u64,
    /// When its idleness is looked at next.
    pub(super) idle_check_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    Waiting {
        ticket: Ticket,
        until_ms: u64,
    },
    Session {
        id: Arc<str>,
        until_ms: u64,
    },
    Plain,
    /// It was told to detach, and holds nothing.
    Lost {
        condition: &'static str,
    },
}

/// What happened since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counters {
    pub(crate) connections_open: usize,
    pub(crate) connections_opened: u64,
    /// For taking no notices, or on order.
    pub(crate) connections_cut: u64,
    /// Receivers, waiting ones too.
    pub(crate) links_open: usize,
    pub(crate) links_attached: u64,
    pub(crate) messages_in: u64,
    pub(crate) deliveries: u64,
    pub(crate) session_locks_lost: u64,
    pub(crate) message_locks_lost: u64,
    pub(crate) idle_detached: u64,
    pub(crate) renewals: u64,
    /// Everything that was refused, by condition.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

/// Why a lock comes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlock {
    Abandon,
    Release,
    Expiry,
    LinkEnd,
}

// === impl State ===

impl State {
    /// A number that was never given out before: for queues, connections and tickets.
    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn resolve(&self, entity: &str) -> Result<QueueId, Refusal> {
        let id = self.names.get(&entity.to_lowercase()).copied();
        id.ok_or_else(|| {
            Refusal::new(
                Refusal::NOT_FOUND,
                format!("The messaging entity '{entity}' could not be found. To know more visit docs/cloud-sim.md."),
            )
        })
    }

    /// The entity with this id. It is there as long as anything refers to it.
    pub(super) fn queue(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.queues.get_mut(&id)
    }

    /// Tells a connection something. One that takes nothing any more is doomed.
    pub(super) fn tell(&mut self, connection: ConnectionId, notice: Notice) {
        let Some(found) = self.connections.get(&connection) else { return };
        if found.frozen && !matches!(notice, Notice::Disconnect { .. }) {
            return;
        }
        if found.notices.try_send(notice).is_err() {
            self.doomed.push(connection);
        }
    }

    /// Ends connections that took no notices.
    pub(super) fn bury(&mut self, now: u64) {
        while let Some(connection) = self.doomed.pop() {
            if self.connections.contains_key(&connection) {
                self.counters.connections_cut += 1;
                self.disconnect(connection, now);
            }
        }
    }

    /// Stores a message under a number, with the timers that it needs. Gives its session.
    pub(super) fn put(&mut self, queue_id: QueueId, sequence: i64, stored: Stored) -> Option<Arc<str>> {
        let queue = self.queues.get_mut(&queue_id)?;
        self.messages += 1;
        self.bytes += stored.message.cost();
        if let Place::Scheduled { due_ms } = stored.place {
            self.timers.insert((due_ms, Timer::Enqueue(queue_id, sequence)));
        }
        if let Some(expires) = stored.expires_ms {
            self.timers.insert((expires, Timer::Expire(queue_id, sequence)));
        }
        queue.insert(sequence, stored)
    }

    /// Takes a message out of its entity, its timers and the hands of its link. Gives its session too.
    pub(super) fn take(&mut self, queue_id: QueueId, sequence: i64) -> Option<(Stored, Option<Arc<str>>)> {
        let queue = self.queues.get_mut(&queue_id)?;
        let (stored, session) = queue.remove(sequence)?;
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(stored.message.cost());
        match stored.place {
            Place::Scheduled { due_ms } => {
                self.timers.remove(&(due_ms, Timer::Enqueue(queue_id, sequence)));
            }
            Place::Locked { link, until_ms, .. } => {
                self.timers.remove(&(until_ms, Timer::MessageLock(queue_id, sequence)));
                if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
                    link.in_hand.remove(&sequence);
                }
            }
            Place::Ready | Place::Aside => {}
        }
        if let Some(expires) = stored.expires_ms {
            self.timers.remove(&(expires, Timer::Expire(queue_id, sequence)));
        }
        Some((stored, session))
    }

    /// Locks a message for a link, or for nobody in particular, and gives it out.
    pub(super) fn lock(
        &mut self,
        queue_id: QueueId,
        sequence: i64,
        link: Option<LinkId>,
        now: u64,
    ) -> Option<Delivery> {
        let queue = self.queues.get_mut(&queue_id)?;
        let stored = queue.messages.get(&sequence)?;
        let session = queue.session_of(&stored.message);
        let until_ms = match session.as_ref().and_then(|id| queue.sessions.get(id)) {
            Some(session) => session.locked_until_ms,
            None => now.saturating_add(queue.rules.lock_ms),
        };
        let delivery = queue.lock(sequence, rand::random(), link, until_ms)?;
        if session.is_none() {
            self.timers.insert((until_ms, Timer::MessageLock(queue_id, sequence)));
        }
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.in_hand.insert(sequence);
            link.used_ms = now;
        }
        self.counters.deliveries += 1;
        self.note(queue_id, sequence, Event::Delivered, link, None, now);
        Some(delivery)
    }

    /// Takes the lock off a message. It goes back to its place, or on to where too many deliveries or its age
    /// bring it. The caller serves its session or queue afterwards.
    pub(super) fn unlock(&mut self, queue_id: QueueId, sequence: i64, why: Unlock, now: u64) {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        let Some(stored) = queue.messages.get_mut(&sequence) else { return };
        let Place::Locked { link, until_ms, .. } = stored.place else { return };
        let failed = matches!(why, Unlock::Abandon | Unlock::Expiry);
        stored.delivery_count += u32::from(failed);
        let exhausted = failed && stored.delivery_count >= queue.rules.max_delivery_count;
        let expired = !stored.deferred && stored.is_expired(now);
        queue.unlock(sequence);
        let event = queue.settled.count(why);
        self.timers.remove(&(until_ms, Timer::MessageLock(queue_id, sequence)));
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.in_hand.remove(&sequence);
        }
        self.note(queue_id, sequence, event, link, None, now);
        if exhausted {
            let most = self.queues.get(&queue_id).map_or(0, |queue| queue.rules.max_delivery_count);
            let text = format!("Message could not be consumed after {most} delivery attempts.");
            self.bury_message(
                queue_id,
                sequence,
                Some("MaxDeliveryCountExceeded".to_owned()),
                Some(text),
                now,
            );
        } else if expired {
            self.expire(queue_id, sequence, now);
        }
    }

    /// Writes an entry about a stored message.
    pub(super) fn note(
        &mut self,
        queue_id: QueueId,
        sequence: i64,
        event: Event,
        link: Option<LinkId>,
        reason: Option<&str>,
        now: u64,
    ) {
        let Some(queue) = self.queues.get(&queue_id) else { return };
        let Some(stored) = queue.messages.get(&sequence) else { return };
        self.log.push(Entry {
            id: 0,
            at_ms: now,
            event,
            entity: Arc::clone(&queue.name),
            link,
            session: stored.message.session_id.clone(),
            sequence,
            message_id: stored.message.message_id.clone(),
            delivery_count: stored.delivery_count,
            reason: reason.map(|reason| reason.chars().take(256).collect()),
        });
    }

    /// A message's time to live is over and nobody holds it.
    pub(super) fn expire(&mut self, queue_id: QueueId, sequence: i64, now: u64) {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        if queue.rules.dead_letter_on_expiry {
            let (reason, text) = ("TTLExpiredException", "The message expired and was dead lettered.");
            self.bury_message(queue_id, sequence, Some(reason.to_owned()), Some(text.to_owned()), now);
            return;
        }
        queue.settled.expired += 1;
        self.note(queue_id, sequence, Event::Expired, None, None, now);
        if let Some((_stored, session)) = self.take(queue_id, sequence) {
            self.serve(queue_id, session.as_ref(), now);
        }
    }

    /// Moves a message to the dead-letter queue of its entity, where it keeps its number.
    pub(super) fn bury_message(
        &mut self,
        queue_id: QueueId,
        sequence: i64,
        reason: Option<String>,
        description: Option<String>,
        now: u64,
    ) {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        let Kind::Queue { dead, .. } = queue.kind else { return };
        queue.settled.dead_lettered += 1;
        let source = queue.name.to_string();
        let link = match queue.messages.get(&sequence).map(|stored| stored.place) {
            Some(Place::Locked { link, .. }) => link,
            Some(_) | None => None,
        };
        self.note(queue_id, sequence, Event::DeadLettered, link, reason.as_deref(), now);
        let Some((stored, session)) = self.take(queue_id, sequence) else { return };
        let dead_letter = Some(DeadLetter { source, reason, description });
        let stored = Stored { place: Place::Ready, expires_ms: None, deferred: false, dead_letter, ..stored };
        self.put(dead, sequence, stored);
        self.serve(dead, None, now);
        self.serve(queue_id, session.as_ref(), now);
    }

    /// Whether so many more messages and bytes find room.
    pub(super) fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.messages.saturating_add(messages) <= MESSAGES_MAX
            && self.bytes.saturating_add(bytes) <= BYTES_MAX
    }
}

// === impl Settled ===

impl Settled {
    fn count(&mut self, why: Unlock) -> Event {
        let (count, event) = match why {
            Unlock::Abandon => (&mut self.abandoned, Event::Abandoned),
            Unlock::Release => (&mut self.released, Event::Released),
            Unlock::Expiry => (&mut self.lock_expired, Event::LockExpired),
            Unlock::LinkEnd => (&mut self.returned, Event::Returned),
        };
        *count += 1;
        event
    }
}
