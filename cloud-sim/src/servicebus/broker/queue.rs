//! One entity: what is stored in it and the indexes over it. Nothing here talks to links.
//!
//! A dead-letter queue is a queue of its own kind; a topic is one that keeps only what is scheduled. Every index
//! is ordered by sequence number or by ticket, so each operation costs a few look-ups, whatever is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::filter::Matcher;
use super::message::{DeadLetter, Delivery, LinkId, Lock, Message, MessageState};
use crate::servicebus::config::{QueueSpec, milliseconds};

/// An entity. Never used twice, so nothing that is late finds another entity of the same name.
pub(super) type QueueId = u64;
/// A place in a line; lower ones are served first.
pub(super) type Ticket = u64;

/// Message ids that are remembered per entity, whatever its window.
const DUPLICATES_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) rules: Rules,
    next_sequence: i64,
    pub(super) messages: BTreeMap<i64, Stored>,
    pub(super) locks: HashMap<Lock, i64>,
    /// What can be delivered now; of a queue without sessions.
    pub(super) ready: BTreeSet<i64>,
    /// Sessions that have a message, a state or a holder; no others.
    pub(super) sessions: BTreeMap<Arc<str>, Session>,
    /// Sessions with something to deliver and without a holder, in the order in which they became so.
    pub(super) available: BTreeMap<Ticket, Arc<str>>,
    /// Links that wait for a session.
    pub(super) waiters: BTreeMap<Ticket, LinkId>,
    /// Links of a queue without sessions that asked in vain.
    pub(super) hungry: BTreeMap<Ticket, LinkId>,
    /// Links of a queue without sessions that were told to ask and have not done so.
    pub(super) told: usize,
    /// Every link that counts as a receive request.
    pub(super) links: BTreeSet<LinkId>,
    pub(super) duplicates: Duplicates,
    pub(super) sessions_held: usize,
    pub(super) scheduled: usize,
    pub(super) deferred: usize,
    pub(super) bytes: usize,
    pub(super) settled: Settled,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A queue or a subscription, with its dead-letter queue.
    Queue { dead: QueueId, subscription: bool },
    /// A dead-letter queue.
    Dead,
    /// A topic, with its subscriptions.
    Topic { subscriptions: Vec<(Matcher, QueueId)> },
}

/// The rules of an entity, in the broker's units.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) sessions: bool,
    pub(super) lock_ms: u64,
    pub(super) max_delivery_count: u32,
    pub(super) ttl_ms: Option<u64>,
    pub(super) dead_letter_on_expiry: bool,
    pub(super) duplicate_window_ms: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message: Arc<Message>,
    pub(super) enqueued_ms: u64,
    /// When its time to live is over.
    pub(super) expires_ms: Option<u64>,
    pub(super) delivery_count: u32,
    pub(super) place: Place,
    /// Received by its sequence number only.
    pub(super) deferred: bool,
    pub(super) dead_letter: Option<DeadLetter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Scheduled {
        due_ms: u64,
    },
    Ready,
    /// Not locked; see [`Stored::deferred`].
    Aside,
    Locked {
        lock: Lock,
        link: Option<LinkId>,
        /// Of a queue without sessions; in a session its lock counts.
        until_ms: u64,
    },
}

#[derive(Debug, Default)]
pub(super) struct Session {
    /// All its messages, scheduled and deferred ones too.
    pub(super) all: BTreeSet<i64>,
    pub(super) ready: BTreeSet<i64>,
    pub(super) holder: Option<LinkId>,
    pub(super) locked_until_ms: u64,
    pub(super) state: Option<Bytes>,
    pub(super) state_set_ms: u64,
    pub(super) ticket: Option<Ticket>,
}

/// What became of messages since the entity was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Settled {
    pub(crate) completed: u64,
    pub(crate) abandoned: u64,
    pub(crate) released: u64,
    pub(crate) deferred: u64,
    /// By clients and by the broker.
    pub(crate) dead_lettered: u64,
    /// Gone because their time to live was over.
    pub(crate) expired: u64,
    /// Deliveries whose lock expired.
    pub(crate) lock_expired: u64,
    /// Deliveries that came back with the end of their link.
    pub(crate) returned: u64,
    /// Sent again within the window for duplicates, and dropped.
    pub(crate) duplicates: u64,
}

/// The message ids of the last while.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    seen: HashMap<String, i64>,
    order: VecDeque<(u64, String)>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(name: &str, kind: Kind, rules: Rules) -> Self {
        Self {
            name: name.into(),
            kind,
            rules,
            next_sequence: 1,
            messages: BTreeMap::new(),
            locks: HashMap::new(),
            ready: BTreeSet::new(),
            sessions: BTreeMap::new(),
            available: BTreeMap::new(),
            waiters: BTreeMap::new(),
            hungry: BTreeMap::new(),
            told: 0,
            links: BTreeSet::new(),
            duplicates: Duplicates::default(),
            sessions_held: 0,
            scheduled: 0,
            deferred: 0,
            bytes: 0,
            settled: Settled::default(),
        }
    }

    /// A number that was never given out before by this entity; the first is 1.
    pub(super) fn number(&mut self) -> i64 {
        let number = self.next_sequence;
        self.next_sequence += 1;
        number
    }

    /// The number that the next message gets.
    pub(super) fn peek_number(&self) -> i64 {
        self.next_sequence
    }

    /// The session that a message belongs to here.
    pub(super) fn session_of(&self, message: &Message) -> Option<Arc<str>> {
        if !self.rules.sessions {
            return None;
        }
        let id = message.session_id.as_deref()?;
        let known = self.sessions.get_key_value(id).map(|(id, _session)| Arc::clone(id));
        Some(known.unwrap_or_else(|| id.into()))
    }

    /// Puts a message in and into the indexes that its place asks for. Gives its session.
    pub(super) fn insert(&mut self, sequence: i64, stored: Stored) -> Option<Arc<str>> {
        self.bytes += stored.message.cost();
        let session = self.session_of(&stored.message);
        if let Some(id) = &session {
            self.sessions.entry(Arc::clone(id)).or_default().all.insert(sequence);
        }
        match stored.place {
            Place::Scheduled { .. } => self.scheduled += 1,
            Place::Ready => self.line_up(sequence, session.as_deref()),
            Place::Aside => {}
            Place::Locked { lock, .. } => {
                self.locks.insert(lock, sequence);
            }
        }
        self.deferred += usize::from(stored.deferred);
        self.messages.insert(sequence, stored);
        session
    }

    /// Takes a message out of everything but the hands of its link.
    pub(super) fn remove(&mut self, sequence: i64) -> Option<(Stored, Option<Arc<str>>)> {
        let stored = self.messages.remove(&sequence)?;
        self.bytes = self.bytes.saturating_sub(stored.message.cost());
        match stored.place {
            Place::Scheduled { .. } => self.scheduled -= 1,
            Place::Ready => {
                self.ready.remove(&sequence);
            }
            Place::Aside => {}
            Place::Locked { lock, .. } => {
                self.locks.remove(&lock);
            }
        }
        self.deferred -= usize::from(stored.deferred);
        let session = self.session_of(&stored.message);
        if let Some(session) = session.as_deref().and_then(|id| self.sessions.get_mut(id)) {
            session.all.remove(&sequence);
            session.ready.remove(&sequence);
        }
        Some((stored, session))
    }

    /// Makes a message deliverable.
    fn line_up(&mut self, sequence: i64, session: Option<&str>) {
        match session {
            None => {
                self.ready.insert(sequence);
            }
            Some(id) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.ready.insert(sequence);
                }
            }
        }
    }

    /// Takes the lock off a message, which is ready again or, when it is deferred, aside.
    pub(super) fn unlock(&mut self, sequence: i64) -> Option<Arc<str>> {
        let stored = self.messages.get_mut(&sequence)?;
        let Place::Locked { lock, .. } = stored.place else { return None };
        stored.place = if stored.deferred { Place::Aside } else { Place::Ready };
        let (deferred, message) = (stored.deferred, Arc::clone(&stored.message));
        self.locks.remove(&lock);
        let session = self.session_of(&message);
        if !deferred {
            self.line_up(sequence, session.as_deref());
        }
        session
    }

    /// Locks a message that is ready or aside, and gives it out. `until_ms` is the session's where there is one.
    pub(super) fn lock(
        &mut self,
        sequence: i64,
        lock: Lock,
        link: Option<LinkId>,
        until_ms: u64,
    ) -> Option<Delivery> {
        let stored = self.messages.get_mut(&sequence)?;
        stored.place = Place::Locked { lock, link, until_ms };
        let message = Arc::clone(&stored.message);
        self.locks.insert(lock, sequence);
        self.ready.remove(&sequence);
        if let Some(session) = self.session_of(&message).and_then(|id| self.sessions.get_mut(&id)) {
            session.ready.remove(&sequence);
        }
        let stored = self.messages.get(&sequence)?;
        Some(stored.delivery(sequence, lock, until_ms))
    }

    /// What a link of this queue, or the holder of `session`, gets next.
    pub(super) fn first_ready(&self, session: Option<&str>) -> Option<i64> {
        match session {
            None => self.ready.first().copied(),
            Some(id) => self.sessions.get(id)?.ready.first().copied(),
        }
    }

    /// Forgets a session without messages, state and holder; keeps the line of available sessions right.
    pub(super) fn tidy_session(&mut self, id: &Arc<str>, ticket: impl FnOnce() -> Ticket) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let available = session.holder.is_none() && !session.ready.is_empty();
        match (available, session.ticket) {
            (true, None) => {
                let ticket = ticket();
                session.ticket = Some(ticket);
                self.available.insert(ticket, Arc::clone(id));
            }
            (false, Some(ticket)) => {
                session.ticket = None;
                self.available.remove(&ticket);
            }
            (true, Some(_)) | (false, None) => {}
        }
        if session.all.is_empty() && session.state.is_none() && session.holder.is_none() {
            self.sessions.remove(id);
        }
    }
}

// === impl Stored ===

impl Stored {
    pub(super) fn delivery(&self, sequence: i64, lock: Lock, locked_until_ms: u64) -> Delivery {
        let state = match (self.place, self.deferred) {
            (Place::Scheduled { .. }, _) => MessageState::Scheduled,
            (_, true) => MessageState::Deferred,
            (_, false) => MessageState::Active,
        };
        Delivery {
            message: Arc::clone(&self.message),
            lock,
            sequence,
            enqueued_ms: self.enqueued_ms,
            locked_until_ms,
            delivery_count: self.delivery_count,
            state,
            dead_letter: self.dead_letter.clone(),
        }
    }

    /// Whether its time to live is over.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now)
    }
}

// === impl Rules ===

impl Rules {
    pub(super) fn of(spec: &QueueSpec) -> Self {
        Self {
            sessions: spec.sessions,
            lock_ms: milliseconds(spec.lock_seconds),
            max_delivery_count: spec.max_delivery_count,
            ttl_ms: spec.ttl_seconds.map(milliseconds),
            dead_letter_on_expiry: spec.dead_letter_on_expiry,
            duplicate_window_ms: spec.duplicate_window_seconds.map(milliseconds),
        }
    }

    /// A dead-letter queue has its entity's locks and nothing else.
    pub(super) fn dead(&self) -> Self {
        Self { lock_ms: self.lock_ms, max_delivery_count: u32::MAX, ..Self::default() }
    }
}

// === impl Duplicates ===

impl Duplicates {
    /// The number under which this id was taken within the window.
    pub(super) fn find(&mut self, id: &str, now: u64) -> Option<i64> {
        while self.order.front().is_some_and(|(forget_ms, _id)| *forget_ms <= now) {
            if let Some((_forget_ms, id)) = self.order.pop_front() {
                self.seen.remove(&id);
            }
        }
        self.seen.get(id).copied()
    }

    pub(super) fn remember(&mut self, id: &str, sequence: i64, forget_ms: u64) {
        if self.order.len() == DUPLICATES_MAX
            && let Some((_forget_ms, oldest)) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(id.to_owned(), sequence);
        self.order.push_back((forget_ms, id.to_owned()));
    }
}
