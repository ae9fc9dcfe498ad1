//! How messages come in: checks, duplicates, topics, schedules.

use std::sync::Arc;

use super::links::{ID_CHARACTERS_MAX, not_found};
use super::message::{Message, Refusal};
use super::queue::{Kind, Place, QueueId, Stored};
use super::state::State;

/// Reason and text for a message without session id on a subscription that requires sessions.
const NO_SESSION: (&str, &str) = ("Session id is null.", "The subscription requires sessions.");

impl State {
    pub(super) fn attach_sender(&mut self, entity: &str) -> Result<(), Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        self.may_send(queue_id)
    }

    fn may_send(&self, queue_id: QueueId) -> Result<(), Refusal> {
        match self.queues.get(&queue_id).map(|queue| &queue.kind) {
            Some(Kind::Topic { .. } | Kind::Queue { subscription: false, .. }) => Ok(()),
            Some(Kind::Queue { subscription: true, .. } | Kind::Dead) => {
                let text = "Nothing can be sent to a subscription or a dead-letter queue.";
                Err(Refusal::new(Refusal::NOT_ALLOWED, text))
            }
            None => Err(not_found()),
        }
    }

    pub(super) fn send(
        &mut self,
        entity: &str,
        messages: Vec<Message>,
        now: u64,
    ) -> Result<Vec<i64>, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        self.may_send(queue_id)?;
        self.check(queue_id, &messages)?;
        self.counters.messages_in += u64::try_from(messages.len()).unwrap_or(u64::MAX);
        Ok(messages.into_iter().map(|message| self.accept(queue_id, message, now)).collect())
    }

    /// Whether all of them can be taken.
    fn check(&self, queue_id: QueueId, messages: &[Message]) -> Result<(), Refusal> {
        let Some(queue) = self.queues.get(&queue_id) else {
            return Err(not_found());
        };
        let too_long =
            |id: &Option<String>| id.as_ref().is_some_and(|id| id.chars().count() > ID_CHARACTERS_MAX);
        for message in messages {
            if too_long(&message.message_id) || too_long(&message.session_id) {
                let text = "Message ids and session ids have at most 128 characters.";
                return Err(Refusal::new(Refusal::ARGUMENT, text));
            }
            if queue.rules.sessions && message.session_id.is_none() {
                let text = "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that \
                            have session support enabled can only receive messages that have the SessionId set to a valid value.";
                return Err(Refusal::new(Refusal::NOT_ALLOWED, text));
            }
        }
        let copies = match &queue.kind {
            Kind::Topic { subscriptions } => subscriptions.len().max(1),
            Kind::Queue { .. } | Kind::Dead => 1,
        };
        let bytes: usize = messages.iter().map(Message::cost).sum();
        if !self.has_room(messages.len().saturating_mul(copies), bytes.saturating_mul(copies)) {
            return Err(Refusal::new(
                Refusal::QUOTA,
                "The maximum entity size has been reached or exceeded.",
            ));
        }
        Ok(())
    }

    /// Takes a message that was checked. Gives its number, or that of the message that it repeats.
    fn accept(&mut self, queue_id: QueueId, message: Message, now: u64) -> i64 {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return 0 };
        if let (Some(window), Some(id)) = (queue.rules.duplicate_window_ms, &message.message_id) {
            if let Some(first) = queue.duplicates.find(id, now) {
                queue.settled.duplicates += 1;
                return first;
            }
            let next = queue.peek_number();
            queue.duplicates.remember(id, next, now.saturating_add(window));
        }
        match message.scheduled_ms {
            Some(due_ms) if due_ms > now => {
                let sequence = queue.number();
                let stored = Stored {
                    message: Arc::new(message),
                    enqueued_ms: now,
                    expires_ms: None,
                    delivery_count: 0,
                    place: Place::Scheduled { due_ms },
                    deferred: false,
                    dead_letter: None,
                };
                self.put(queue_id, sequence, stored);
                sequence
            }
            Some(_) | None => self.enqueue(queue_id, &Arc::new(message), now),
        }
    }

    /// Puts a message where receivers get it: into the queue, or into every subscription that wants it.
    pub(super) fn enqueue(&mut self, queue_id: QueueId, message: &Arc<Message>, now: u64) -> i64 {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return 0 };
        let sequence = queue.number();
        if let Kind::Topic { subscriptions } = &queue.kind {
            let wanted = subscriptions.iter().filter(|(filter, _id)| filter.matches(message));
            let wanted: Vec<QueueId> = wanted.map(|(_filter, id)| *id).collect();
            for subscription in wanted {
                self.enqueue(subscription, message, now);
            }
            return sequence;
        }
        let ttl = [message.header_ttl_ms.map(u64::from), queue.rules.ttl_ms].into_iter().flatten().min();
        let homeless = queue.rules.sessions && message.session_id.is_none();
        let stored = Stored {
            message: Arc::clone(message),
            enqueued_ms: now,
            expires_ms: ttl.map(|ttl| now.saturating_add(ttl)),
            delivery_count: 0,
            place: Place::Ready,
            deferred: false,
            dead_letter: None,
        };
        let session = self.put(queue_id, sequence, stored);
        if homeless {
            let (reason, text) = NO_SESSION;
            self.bury_message(queue_id, sequence, Some(reason.to_owned()), Some(text.to_owned()), now);
        } else {
            self.serve(queue_id, session.as_ref(), now);
        }
        sequence
    }

    /// `schedule-message`: like a send whose messages say when they are due.
    pub(super) fn schedule(
        &mut self,
        entity: &str,
        messages: Vec<Message>,
        now: u64,
    ) -> Result<Vec<i64>, Refusal> {
        if messages.iter().any(|message| message.scheduled_ms.is_none()) {
            return Err(Refusal::new(Refusal::ARGUMENT, "A message to be scheduled does not say when."));
        }
        self.send(entity, messages, now)
    }

    pub(super) fn cancel(&mut self, entity: &str, numbers: &[i64]) -> Result<(), Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let queue = self.queues.get(&queue_id);
        let scheduled = |number: &i64| {
            let stored = queue.and_then(|queue| queue.messages.get(number));
            stored.is_some_and(|stored| matches!(stored.place, Place::Scheduled { .. }))
        };
        if let Some(missing) = numbers.iter().find(|number| !scheduled(number)) {
            let text = format!("There is no scheduled message with sequence number {missing}.");
            return Err(Refusal::new(Refusal::MESSAGE_NOT_FOUND, text));
        }
        for number in numbers {
            if let Some((_stored, Some(session))) = self.take(queue_id, *number) {
                let ticket = self.id();
                if let Some(queue) = self.queue(queue_id) {
                    queue.tidy_session(&session, || ticket);
                }
            }
        }
        Ok(())
    }
}
