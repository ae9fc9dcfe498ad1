//! What becomes of locked messages, and what `$management` offers.

use bytes::Bytes;

use super::links::{message_lock_lost, session_lock_lost};
use super::log::Event;
use super::message::{Delivery, LinkId, Lock, Outcome, Refusal};
use super::queue::{Kind, Place, QueueId, Stored};
use super::state::{Hold, State, Timer, Unlock};

/// Largest state of a session, in bytes.
const STATE_BYTES_MAX: usize = 256 * 1024;
/// Most messages that one peek gives.
const PEEK_MAX: usize = 1_000;
/// Most bytes of messages that one peek gives, unless the first is larger.
const PEEK_BYTES_MAX: usize = 4 << 20;

impl State {
    /// Carries out an outcome on a message that is locked.
    pub(super) fn finish(
        &mut self,
        queue_id: QueueId,
        sequence: i64,
        outcome: &Outcome,
        now: u64,
    ) -> Result<(), Refusal> {
        let queue = self.queues.get_mut(&queue_id).ok_or_else(message_lock_lost)?;
        let place = queue.messages.get(&sequence).map(|stored| stored.place);
        let link = if let Some(Place::Locked { link, .. }) = place { link } else { None };
        let session = queue.messages.get(&sequence).and_then(|stored| queue.session_of(&stored.message));
        match outcome {
            Outcome::Accepted => {
                queue.settled.completed += 1;
                self.note(queue_id, sequence, Event::Completed, link, None, now);
                self.take(queue_id, sequence);
            }
            Outcome::Rejected { reason, description } => {
                if matches!(queue.kind, Kind::Dead) {
                    let text = "A message in a dead-letter queue cannot be dead-lettered.";
                    return Err(Refusal::new(Refusal::NOT_ALLOWED, text));
                }
                self.bury_message(queue_id, sequence, reason.clone(), description.clone(), now);
            }
            Outcome::Modified { undeliverable: true, .. } => {
                queue.settled.deferred += 1;
                self.defer(queue_id, sequence);
                self.note(queue_id, sequence, Event::Deferred, link, None, now);
            }
            // Whether or not it says `delivery-failed`: the library for JavaScript does not.
            Outcome::Modified { undeliverable: false, .. } => {
                self.unlock(queue_id, sequence, Unlock::Abandon, now);
            }
            Outcome::Released => {
                self.unlock(queue_id, sequence, Unlock::Release, now);
            }
        }
        self.serve(queue_id, session.as_ref(), now);
        Ok(())
    }

    /// Puts a locked message aside.
    fn defer(&mut self, queue_id: QueueId, sequence: i64) {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        let Some(stored) = queue.messages.get_mut(&sequence) else { return };
        let Place::Locked { link, until_ms, .. } = stored.place else { return };
        queue.deferred += usize::from(!stored.deferred);
        stored.deferred = true;
        queue.unlock(sequence);
        self.timers.remove(&(until_ms, Timer::MessageLock(queue_id, sequence)));
        if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
            link.in_hand.remove(&sequence);
        }
    }

    /// Who holds a session; `link` is who should, if that is known.
    fn holder(&self, queue_id: QueueId, session: &str, link: Option<LinkId>) -> Result<LinkId, Refusal> {
        let session = self.queues.get(&queue_id).and_then(|queue| queue.sessions.get(session));
        let holder = session.and_then(|session| session.holder).ok_or_else(session_lock_lost)?;
        if link.is_some_and(|link| link != holder) {
            return Err(session_lock_lost());
        }
        Ok(holder)
    }

    pub(super) fn renew_session(
        &mut self,
        entity: &str,
        session: &str,
        link: Option<LinkId>,
        now: u64,
    ) -> Result<u64, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let holder = self.holder(queue_id, session, link)?;
        let queue = self.queues.get_mut(&queue_id).ok_or_else(session_lock_lost)?;
        let renewed_ms = now.saturating_add(queue.rules.lock_ms);
        if let Some(session) = queue.sessions.get_mut(session) {
            session.locked_until_ms = renewed_ms;
        }
        if let Some(found) = self.links.get_mut(&holder)
            && let Hold::Session { until_ms, .. } = &mut found.hold
        {
            self.timers.remove(&(*until_ms, Timer::SessionLock(holder)));
            self.timers.insert((renewed_ms, Timer::SessionLock(holder)));
            *until_ms = renewed_ms;
        }
        self.counters.renewals += 1;
        Ok(renewed_ms)
    }

    /// The messages of these locks; every one must be held.
    fn locked(&self, queue_id: QueueId, locks: &[Lock]) -> Result<Vec<i64>, Refusal> {
        let queue = self.queues.get(&queue_id).ok_or_else(message_lock_lost)?;
        locks.iter().map(|lock| queue.locks.get(lock).copied().ok_or_else(message_lock_lost)).collect()
    }

    pub(super) fn renew_lock(&mut self, entity: &str, locks: &[Lock], now: u64) -> Result<Vec<u64>, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let sequences = self.locked(queue_id, locks)?;
        let queue = self.queues.get_mut(&queue_id).ok_or_else(message_lock_lost)?;
        if queue.rules.sessions {
            let text = "Messages of a session have no locks of their own: renew the lock of the session.";
            return Err(Refusal::new(Refusal::NOT_ALLOWED, text));
        }
        let renewed_ms = now.saturating_add(queue.rules.lock_ms);
        for sequence in &sequences {
            if let Some(stored) = queue.messages.get_mut(sequence)
                && let Place::Locked { until_ms, .. } = &mut stored.place
            {
                self.timers.remove(&(*until_ms, Timer::MessageLock(queue_id, *sequence)));
                self.timers.insert((renewed_ms, Timer::MessageLock(queue_id, *sequence)));
                *until_ms = renewed_ms;
            }
        }
        self.counters.renewals += 1;
        Ok(vec![renewed_ms; sequences.len()])
    }

    pub(super) fn session_state(&mut self, entity: &str, session: &str) -> Result<Option<Bytes>, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        self.holder(queue_id, session, None)?;
        let queue = self.queues.get(&queue_id);
        Ok(queue.and_then(|queue| queue.sessions.get(session)?.state.clone()))
    }

    pub(super) fn set_session_state(
        &mut self,
        entity: &str,
        session: &str,
        state: Option<Bytes>,
        now: u64,
    ) -> Result<(), Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        self.holder(queue_id, session, None)?;
        let bytes = state.as_ref().map_or(0, Bytes::len);
        if bytes > STATE_BYTES_MAX {
            return Err(Refusal::new(Refusal::TOO_LARGE, "The state of a session has at most 262144 bytes."));
        }
        if !self.has_room(0, bytes) {
            return Err(Refusal::new(
                Refusal::QUOTA,
                "The maximum entity size has been reached or exceeded.",
            ));
        }
        let queue = self.queues.get_mut(&queue_id).ok_or_else(session_lock_lost)?;
        if let Some(session) = queue.sessions.get_mut(session) {
            let before = session.state.as_ref().map_or(0, Bytes::len);
            session.state = state;
            session.state_set_ms = now;
            queue.bytes = (queue.bytes + bytes).saturating_sub(before);
            self.bytes = (self.bytes + bytes).saturating_sub(before);
        }
        Ok(())
    }

    pub(super) fn peek(
        &mut self,
        entity: &str,
        from: i64,
        count: usize,
        session: Option<&str>,
    ) -> Result<Vec<Delivery>, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let Some(queue) = self.queues.get(&queue_id) else { return Ok(Vec::new()) };
        let count = count.min(PEEK_MAX);
        let mut bytes = 0;
        let mut fits = |stored: &Stored| {
            let first = bytes == 0;
            bytes += stored.message.cost();
            first || bytes <= PEEK_BYTES_MAX
        };
        let numbers: Box<dyn Iterator<Item = &i64>> = match session {
            Some(id) if queue.rules.sessions => match queue.sessions.get(id) {
                Some(session) => Box::new(session.all.range(from..)),
                None => Box::new(std::iter::empty()),
            },
            Some(_) | None => Box::new(queue.messages.range(from..).map(|(number, _stored)| number)),
        };
        let stored = numbers.filter_map(|number| Some((*number, queue.messages.get(number)?)));
        let some = stored.take(count).take_while(|(_number, stored)| fits(stored));
        Ok(some.map(|(number, stored)| stored.delivery(number, [0; 16], 0)).collect())
    }

    pub(super) fn receive_by_sequence(
        &mut self,
        entity: &str,
        numbers: &[i64],
        session: Option<&str>,
        settled: bool,
        now: u64,
    ) -> Result<Vec<Delivery>, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let sessions = self.queues.get(&queue_id).is_some_and(|queue| queue.rules.sessions);
        let holder = match (sessions, session) {
            (true, Some(session)) => Some(self.holder(queue_id, session, None)?),
            (true, None) => return Err(session_lock_lost()),
            (false, _) => None,
        };
        let queue = self.queues.get(&queue_id).ok_or_else(message_lock_lost)?;
        for number in numbers {
            let stored = queue.messages.get(number).filter(|stored| {
                let same = !sessions || stored.message.session_id.as_deref() == session;
                same && stored.deferred && stored.place == Place::Aside
            });
            if stored.is_none() {
                let text =
                    format!("There is no deferred message with sequence number {number} that is not locked.");
                return Err(Refusal::new(Refusal::MESSAGE_NOT_FOUND, text));
            }
        }
        let mut deliveries = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(delivery) = self.lock(queue_id, *number, holder, now) else { continue };
            if settled {
                self.finish(queue_id, *number, &Outcome::Accepted, now)?;
            }
            deliveries.push(delivery);
        }
        Ok(deliveries)
    }

    pub(super) fn update_disposition(
        &mut self,
        entity: &str,
        locks: &[Lock],
        outcome: &Outcome,
        now: u64,
    ) -> Result<(), Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let sequences = self.locked(queue_id, locks)?;
        for sequence in sequences {
            self.finish(queue_id, sequence, outcome, now)?;
        }
        Ok(())
    }

    pub(super) fn sessions(
        &mut self,
        entity: &str,
        updated_since_ms: Option<u64>,
        skip: usize,
        top: usize,
    ) -> Result<Vec<String>, Refusal> {
        self.busy()?;
        let queue_id = self.resolve(entity)?;
        let Some(queue) = self.queues.get(&queue_id) else { return Ok(Vec::new()) };
        let wanted = queue.sessions.iter().filter(|(_id, session)| match updated_since_ms {
            None => !session.all.is_empty(),
            Some(since) => session.state.is_some() && session.state_set_ms >= since,
        });
        Ok(wanted.skip(skip).take(top.min(PEEK_MAX)).map(|(id, _session)| id.to_string()).collect())
    }
}
