//! How entities come and go, and what can be seen of them.

use serde::Serialize;

use super::filter::Matcher;
use super::links::not_found;
use super::message::{MessageState, Refusal};
use super::queue::{Kind, Place, Queue, QueueId, Rules, Settled};
use super::state::{State, Unlock};
use crate::servicebus::config::{
    ENTITIES_MAX, Entities, QueueSpec, SpecError, TopicSpec, milliseconds, subscription_path,
};

/// The part of an address that names a dead-letter queue.
pub(super) const DEAD: &str = "/$DeadLetterQueue";
/// Most messages that one view lists.
const LISTED_MAX: usize = 10_000;

/// What can be seen of an entity.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct View {
    pub(crate) name: String,
    /// Messages that are neither scheduled nor deferred; locked ones count.
    pub(crate) active: usize,
    pub(crate) locked: usize,
    pub(crate) deferred: usize,
    pub(crate) scheduled: usize,
    /// Messages in its dead-letter queue.
    pub(crate) dead: usize,
    /// Of all its messages and session states.
    pub(crate) bytes: usize,
    /// Sessions with a message, a state or a holder.
    pub(crate) sessions: usize,
    pub(crate) sessions_locked: usize,
    /// Receivers, waiting ones too.
    pub(crate) receivers: usize,
    pub(crate) receivers_waiting: usize,
    pub(crate) settled: Settled,
    /// The first ones by number; at most 10,000.
    pub(crate) messages: Vec<Seen>,
}

/// What can be seen of a message.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seen {
    pub(crate) sequence: i64,
    pub(crate) message_id: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) state: &'static str,
    pub(crate) locked: bool,
    pub(crate) enqueued_ms: u64,
    pub(crate) delivery_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
}

impl State {
    /// Creates entities; those that are there already are deleted first, with what is in them.
    pub(super) fn create(&mut self, entities: &Entities, now: u64) -> Result<(), SpecError> {
        entities.check()?;
        // Every entity that can hold messages has a dead-letter queue beside it.
        if self.names.len() / 2 + entities.count() > ENTITIES_MAX {
            return Err(SpecError::TooMany);
        }
        let names = entities.queues.iter().map(|queue| &queue.name);
        for name in names.chain(entities.topics.iter().map(|topic| &topic.name)) {
            self.delete(name, now);
        }
        for queue in &entities.queues {
            self.create_queue(&queue.name, queue, false);
        }
        for topic in &entities.topics {
            self.create_topic(topic);
        }
        Ok(())
    }

    fn create_queue(&mut self, path: &str, spec: &QueueSpec, subscription: bool) -> QueueId {
        let (id, dead) = (self.id(), self.id());
        let rules = Rules::of(spec);
        let dead_path = format!("{path}{DEAD}");
        self.queues.insert(dead, Queue::new(&dead_path, Kind::Dead, rules.dead()));
        self.queues.insert(id, Queue::new(path, Kind::Queue { dead, subscription }, rules));
        self.names.insert(dead_path.to_lowercase(), dead);
        self.names.insert(path.to_lowercase(), id);
        id
    }

    fn create_topic(&mut self, spec: &TopicSpec) {
        let mut subscriptions = Vec::with_capacity(spec.subscriptions.len());
        for subscription in &spec.subscriptions {
            let path = subscription_path(&spec.name, &subscription.name);
            let id = self.create_queue(&path, subscription, true);
            subscriptions.push((Matcher::new(subscription.filter.as_ref()), id));
        }
        let id = self.id();
        let window = spec.duplicate_window_seconds.map(milliseconds);
        let rules = Rules { duplicate_window_ms: window, ..Rules::default() };
        self.queues.insert(id, Queue::new(&spec.name, Kind::Topic { subscriptions }, rules));
        self.names.insert(spec.name.to_lowercase(), id);
    }

    /// Deletes a queue or a topic with all that belongs to it. Receivers are told to detach. Whether there was one.
    pub(super) fn delete(&mut self, name: &str, now: u64) -> bool {
        let Some(id) = self.names.get(&name.to_lowercase()).copied() else { return false };
        let mut ids = vec![id];
        match self.queues.get(&id).map(|queue| &queue.kind) {
            Some(Kind::Queue { dead, subscription: false }) => ids.push(*dead),
            Some(Kind::Topic { subscriptions }) => {
                for (_filter, subscription) in subscriptions {
                    ids.push(*subscription);
                    if let Some(Kind::Queue { dead, .. }) =
                        self.queues.get(subscription).map(|queue| &queue.kind)
                    {
                        ids.push(*dead);
                    }
                }
            }
            Some(Kind::Queue { subscription: true, .. } | Kind::Dead) | None => return false,
        }
        for id in ids {
            self.delete_queue(id, now);
        }
        true
    }

    fn delete_queue(&mut self, id: QueueId, now: u64) {
        let Some(queue) = self.queues.get(&id) else { return };
        let path = queue.name.to_lowercase();
        let links: Vec<u64> = queue.links.iter().copied().collect();
        // From here on nobody finds it; those who hold something of it give it back, and then it goes.
        self.names.remove(&path);
        for link in links {
            self.lose(link, Unlock::LinkEnd, not_found(), now);
        }
        let numbers: Vec<i64> =
            self.queues.get(&id).map(|queue| queue.messages.keys().copied().collect()).unwrap_or_default();
        for number in numbers {
            self.take(id, number);
        }
        if let Some(queue) = self.queues.remove(&id) {
            // What is left are the states of sessions.
            self.bytes = self.bytes.saturating_sub(queue.bytes);
        }
    }

    /// The names of all queues, topics and subscriptions.
    pub(super) fn entities(&self) -> Vec<String> {
        let queues = self.names.values().filter_map(|id| self.queues.get(id));
        queues.filter(|queue| !matches!(queue.kind, Kind::Dead)).map(|queue| queue.name.to_string()).collect()
    }

    pub(super) fn view(&self, entity: &str) -> Result<View, Refusal> {
        let id = self.resolve(entity)?;
        let queue = self.queues.get(&id).ok_or_else(not_found)?;
        let dead = match queue.kind {
            Kind::Queue { dead, .. } => self.queues.get(&dead).map_or(0, |dead| dead.messages.len()),
            Kind::Dead | Kind::Topic { .. } => 0,
        };
        let seen = queue.messages.iter().take(LISTED_MAX).map(|(sequence, stored)| {
            let delivery = stored.delivery(*sequence, [0; 16], 0);
            let dead_letter = stored.dead_letter.clone();
            Seen {
                sequence: *sequence,
                message_id: stored.message.message_id.clone(),
                session_id: stored.message.session_id.clone(),
                subject: stored.message.subject.clone(),
                state: match delivery.state {
                    MessageState::Active => "active",
                    MessageState::Deferred => "deferred",
                    MessageState::Scheduled => "scheduled",
                },
                locked: matches!(stored.place, Place::Locked { .. }),
                enqueued_ms: stored.enqueued_ms,
                delivery_count: stored.delivery_count,
                reason: dead_letter.as_ref().and_then(|dead| dead.reason.clone()),
                description: dead_letter.as_ref().and_then(|dead| dead.description.clone()),
                source: dead_letter.map(|dead| dead.source),
            }
        });
        Ok(View {
            name: queue.name.to_string(),
            active: queue.messages.len() - queue.scheduled - queue.deferred,
            locked: queue.locks.len(),
            deferred: queue.deferred,
            scheduled: queue.scheduled,
            dead,
            bytes: queue.bytes,
            sessions: queue.sessions.len(),
            sessions_locked: queue.sessions_held,
            receivers: queue.links.len(),
            receivers_waiting: queue.waiters.len(),
            settled: queue.settled.clone(),
            messages: seen.collect(),
        })
    }
}
