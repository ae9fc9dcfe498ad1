//! What time brings: locks expire, waits end, messages age and come due, idle links go.

use super::links::session_lock_lost;
use super::message::{LinkId, Notice, Refusal};
use super::queue::{Place, QueueId};
use super::state::{State, Timer, Unlock};

impl State {
    /// Does everything that is due, in order of time and each as of its own time.
    pub(super) fn fire(&mut self, now: u64) {
        while let Some((due_ms, timer)) = self.timers.first().copied() {
            if due_ms > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Enqueue(queue, sequence) => self.come_due(queue, sequence, due_ms),
                Timer::Expire(queue, sequence) => self.age(queue, sequence, due_ms),
                Timer::MessageLock(queue, sequence) => self.expire_message_lock(queue, sequence, due_ms),
                Timer::SessionLock(link) => self.expire_session_lock(link, due_ms),
                Timer::Wait(link) => self.give_up(link, due_ms),
                Timer::Idle(link) => self.check_idle(link, due_ms),
            }
        }
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.timers.first().map(|(due_ms, _timer)| *due_ms)
    }

    /// A scheduled message is enqueued as if it came now, with a new number.
    fn come_due(&mut self, queue_id: QueueId, sequence: i64, now: u64) {
        if let Some((stored, session)) = self.take(queue_id, sequence) {
            self.enqueue(queue_id, &stored.message, now);
            self.serve(queue_id, session.as_ref(), now);
        }
    }

    /// Only a message that can be delivered expires: one that is locked does so when its lock comes off, one
    /// that was deferred never does.
    fn age(&mut self, queue_id: QueueId, sequence: i64, now: u64) {
        let stored = self.queues.get(&queue_id).and_then(|queue| queue.messages.get(&sequence));
        if stored.is_some_and(|stored| stored.place == Place::Ready) {
            self.expire(queue_id, sequence, now);
        }
    }

    fn expire_message_lock(&mut self, queue_id: QueueId, sequence: i64, now: u64) {
        self.counters.message_locks_lost += 1;
        self.unlock(queue_id, sequence, Unlock::Expiry, now);
        self.serve(queue_id, None, now);
    }

    pub(super) fn expire_session_lock(&mut self, link: LinkId, now: u64) {
        self.counters.session_locks_lost += 1;
        self.lose(link, Unlock::Expiry, session_lock_lost(), now);
    }

    fn give_up(&mut self, link: LinkId, now: u64) {
        let Some(found) = self.links.get(&link) else { return };
        let connection = found.connection;
        self.detach(link, now);
        let text = "The operation did not complete within the allocated time: no session became available.";
        let error = Refusal::new(Refusal::TIMEOUT, text);
        self.tell(connection, Notice::Refused { link, error });
    }

    fn check_idle(&mut self, link: LinkId, now: u64) {
        let idle_ms = self.faults.idle_detach_ms;
        let Some(found) = self.links.get_mut(&link) else { return };
        let check_ms = found.used_ms.saturating_add(idle_ms);
        if check_ms > now {
            found.idle_check_ms = Some(check_ms);
            self.timers.insert((check_ms, Timer::Idle(link)));
            return;
        }
        found.idle_check_ms = None;
        self.counters.idle_detached += 1;
        let text = format!(
            "The link is force detached. Code: consumer. Details: AmqpMessageConsumer.IdleTimerExpired: Idle timeout: {idle_ms} ms."
        );
        self.lose(link, Unlock::LinkEnd, Refusal::new(Refusal::DETACH_FORCED, text), now);
    }
}
