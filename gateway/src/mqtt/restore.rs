//! What the store has of sessions and retained messages, taken up at the start.
//!
//! A session that was connected when the gateway died ends as if it had lost its connection now. What
//! does not belong to anything any more is deleted.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::codec::Qos;
use super::durable::{
    MessageRecord, QueuedRecord, SessionRecord, Stage as StoredStage, StateKey, is_received,
};
use super::error::Error;
use super::message::{Message, Parts};
use super::outgoing::{Grant, Ids, Stage, Stored};
use super::session::Session;
use super::shared::Shared;
use crate::outbox::StateOps;
use crate::supervise::clock;

/// What has been read so far; keys come in the order of their kinds.
#[derive(Debug, Default)]
struct Found {
    sessions: HashMap<u64, Arc<Session>>,
    /// Session, order and record.
    queued: Vec<(u64, u64, QueuedRecord)>,
    messages: HashMap<u64, Arc<Message>>,
    /// Wills, with the session and when they are due.
    wills: Vec<(Arc<Session>, u64)>,
    session_max: u64,
    message_max: u64,
    /// Keys that say nothing, or belong to nothing.
    stray: StateOps,
    strays: u64,
}

/// Takes up what the store has. Blocks.
pub(super) fn restore(shared: &Shared) -> Result<(), Error> {
    let mut found = Found::default();
    let now_ms = shared.now_ms();
    let reader = shared.appender.state();
    for kind in StateKey::KINDS {
        reader.scan(&[kind], &mut |key, value| {
            if found.take(shared, key, value, now_ms).is_none() {
                found.stray(key);
            }
            ControlFlow::Continue(())
        })?;
    }
    shared.registry.number_above(found.session_max, found.message_max);
    found.fill_queues(usize::from(shared.limits.outgoing_inflight_max));
    for session in found.sessions.values() {
        shared.registry.set_session(session);
        session.enter_subscriptions(&shared.router);
        shared.count_lasting(session, true);
        if let Some(at) = session.ends_at_ms() {
            shared.keeper.end_at(at, session);
        }
    }
    for (session, due_ms) in &found.wills {
        shared.keeper.will_at(*due_ms, session);
    }
    if found.strays > 0 {
        tracing::warn!(keys = found.strays, "dropped what belongs to no session");
        shared.submit_relaxed(&found.stray);
    }
    let (retained, _) = shared.retained.size();
    if retained > 0 || !found.sessions.is_empty() {
        tracing::info!(sessions = found.sessions.len(), retained, "took up sessions and retained messages");
    }
    Ok(())
}

impl Found {
    /// Takes one key up; `None` if it says nothing.
    fn take(&mut self, shared: &Shared, key: &[u8], value: &[u8], now_ms: u64) -> Option<()> {
        match StateKey::decode(key)? {
            StateKey::Session(number) => {
                self.session_max = self.session_max.max(number);
                self.session(number, &SessionRecord::decode(value)?, now_ms);
            }
            StateKey::Received(number, id) => {
                let session = self.sessions.get(&number).filter(|_| is_received(value))?;
                session.restore_received(id);
            }
            StateKey::Queued(number, order) => {
                self.sessions.get(&number)?;
                self.queued.push((number, order, QueuedRecord::decode(value)?));
            }
            StateKey::Message(number) => {
                self.message_max = self.message_max.max(number);
                let record = MessageRecord::decode(value)?;
                self.messages.insert(number, Arc::new(message(shared, number, &record, now_ms)));
            }
            StateKey::Retained(_) => {
                let record = MessageRecord::decode(value)?;
                let number = shared.registry.next_message();
                // With smaller bounds than before some find no room: they go.
                shared.retained.set(Arc::new(message(shared, number, &record, now_ms))).ok()?;
            }
        }
        Some(())
    }

    fn session(&mut self, number: u64, record: &SessionRecord<'_>, now_ms: u64) {
        let longest = now_ms.saturating_add(u64::from(record.expiry_seconds) * 1000);
        let ends_at = record.ends_at_ms.filter(|at| clock::plausible(*at) && clock::plausible(now_ms));
        let ends_at = ends_at.map_or(longest, |at| at.min(longest));
        // Of a client that was connected: its delay, which begins now.
        let will = record.will.as_ref().map(|will| match clock::plausible(will.due_ms) {
            true => will.due_ms.min(ends_at),
            false => now_ms.saturating_add(will.due_ms).min(ends_at),
        });
        let session = Arc::new(Session::restored(number, record, ends_at, will));
        self.wills.extend(will.map(|due| (Arc::clone(&session), due)));
        self.sessions.insert(number, session);
    }

    /// Puts what was queued back into its sessions. Everything that may have been sent, which is the
    /// first `window`, is sent with DUP.
    fn fill_queues(&mut self, window: usize) {
        let mut queues: HashMap<u64, Vec<Stored>> = HashMap::new();
        for (number, order, record) in std::mem::take(&mut self.queued) {
            let released = record.stage == StoredStage::Released;
            let message = self.messages.get(&record.message).filter(|_| !released).cloned();
            if message.is_none() && !released {
                self.stray(&StateKey::Queued(number, order).encode());
                continue;
            }
            if let Some(message) = &message {
                message.store();
            }
            let mut ids = Ids::None;
            record.subscription_ids.iter().for_each(|id| ids.push(*id));
            queues.entry(number).or_default().push(Stored {
                message,
                grant: Grant { qos: Qos::from_number(record.qos), retain: record.retain, ids },
                order,
                id: record.packet_id,
                stage: if released { Stage::Released } else { Stage::Published },
            });
        }
        for (number, queue) in queues {
            if let Some(session) = self.sessions.get(&number) {
                session.restore(queue, window);
            }
        }
        let unused: Vec<_> =
            self.messages.values().filter(|one| !one.is_stored()).map(|one| one.number()).collect();
        for number in unused {
            self.stray(&StateKey::Message(number).encode());
        }
    }

    fn stray(&mut self, key: &[u8]) {
        self.strays += 1;
        self.stray.delete(key);
    }
}

fn message(shared: &Shared, number: u64, record: &MessageRecord<'_>, now_ms: u64) -> Message {
    let MessageRecord { topic, qos, retain, expires_at_ms, received_ms, properties, payload, publisher } =
        *record;
    // If either clock was not set, the time between the two means nothing.
    let comparable = clock::plausible(received_ms) && clock::plausible(now_ms);
    let expires_ms = expires_at_ms
        .map(|at| if comparable { at } else { now_ms.saturating_add(at.saturating_sub(received_ms)) });
    let qos = Qos::from_number(qos);
    let parts = Parts { topic, publisher, qos, retain, received_ms, expires_ms, properties, payload };
    Message::new(number, parts, &shared.gauge)
}
