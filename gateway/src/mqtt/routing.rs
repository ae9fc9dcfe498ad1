//! From a publish to everybody who wants it: the retained message and the sessions that subscribe.

use std::sync::Arc;

use super::codec::{PublishProperties, Qos};
use super::durable::{MessageRecord, StateKey};
use super::message::{Message, Parts};
use super::outgoing::{Grant, Ids};
use super::protocol::Batch;
use super::router::Match;
use super::session::{Delivered, Session};
use super::shared::Shared;
use crate::outbox::StateOps;

/// A publish as routing sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed<'a> {
    pub(super) topic: &'a str,
    /// The client id of who publishes it; empty for the gateway itself.
    pub(super) publisher: &'a str,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) properties: &'a PublishProperties<'a>,
    pub(super) payload: &'a [u8],
}

/// Keeps a publish with the retain flag as its topic's message, or takes that away if it is empty.
/// False if a bound leaves no room for it.
#[cold]
pub(super) fn retain(shared: &Shared, batch: &mut Batch, publish: &Routed<'_>) -> bool {
    let key = StateKey::Retained(publish.topic.to_owned()).encode();
    if publish.payload.is_empty() {
        if shared.retained.clear(publish.topic) {
            batch.state.delete(&key);
        }
        return true;
    }
    let message = Arc::new(message(shared, batch, publish, shared.now_ms()));
    let kept = shared.retained.set(Arc::clone(&message)).is_ok();
    if kept {
        batch.scratch.clear();
        message.record().encode(&mut batch.scratch);
        batch.state.put(&key, &batch.scratch);
    }
    kept
}

/// Keeps a publish of the gateway itself as its topic's message, until the next start. The bounds on
/// retained messages are there for clients: there are few of these.
pub(super) fn keep_in_memory(shared: &Shared, batch: &mut Batch, publish: &Routed<'_>) {
    let message = Arc::new(message(shared, batch, publish, shared.now_ms()));
    shared.retained.set_own(message);
}

/// Hands a publish to every session that subscribes to its topic; says whether there was one.
///
/// A session whose subscriptions overlap gets it once, at the highest quality of service that they
/// grant, with all their identifiers ([MQTT-3.3.4-2], [MQTT-3.3.4-3]).
#[cold]
pub(super) fn route(shared: &Shared, batch: &mut Batch, publish: &Routed<'_>) -> bool {
    let now_ms = shared.now_ms();
    let mut matches = std::mem::take(&mut batch.matches);
    shared.router.matches(publish.topic, Session::is_connected, &mut matches);
    let mut made = None;
    let mut wanted = false;
    let mut rest = matches.as_slice();
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|one| one.number == first.number).count();
        let (of_one, others) = rest.split_at(count);
        rest = others;
        let Some(grant) = grant(shared, publish, of_one) else { continue };
        wanted = true;
        let message = made.get_or_insert_with(|| Arc::new(message(shared, batch, publish, now_ms)));
        deliver(shared, batch, message, &first.session, (grant, now_ms));
    }
    matches.clear();
    batch.matches = matches;
    wanted
}

fn deliver(
    shared: &Shared,
    batch: &mut Batch,
    message: &Arc<Message>,
    session: &Arc<Session>,
    (grant, now_ms): (Grant, u64),
) {
    let bounds = shared.bounds();
    batch.fanned_out += 1;
    match session.deliver(message, grant, bounds, now_ms, &mut batch.state) {
        Delivered::Yes => batch.tally.delivered += 1,
        Delivered::Promised(order) => {
            batch.tally.delivered += 1;
            batch.promised.push((Arc::clone(session), order));
        }
        Delivered::Dropped(loss) => batch.tally.lose(loss, 1),
        Delivered::No => {}
    }
}

/// What the matching subscriptions of one session come to; nothing if none wants it.
fn grant(shared: &Shared, publish: &Routed<'_>, subscriptions: &[Match<Session>]) -> Option<Grant> {
    let mut granted: Option<Grant> = None;
    for Match { session, options, .. } in subscriptions {
        if options.no_local && **session.client() == *publish.publisher {
            continue;
        }
        if !shared.may_receive(session, options, publish.topic) {
            continue;
        }
        let qos = publish.qos.min(Qos::from_number(options.qos));
        let retain = publish.retain && options.retain_as_published;
        let grant = granted.get_or_insert(Grant { qos, retain, ids: Ids::None });
        grant.qos = grant.qos.max(qos);
        grant.retain |= retain;
        grant.ids.push(options.id);
    }
    granted
}

fn message(shared: &Shared, batch: &mut Batch, publish: &Routed<'_>, now_ms: u64) -> Message {
    batch.scratch.clear();
    publish.properties.forward(&mut batch.scratch);
    let seconds = publish.properties.expiry_seconds;
    let parts = Parts {
        topic: publish.topic,
        publisher: publish.publisher,
        qos: publish.qos,
        retain: publish.retain,
        received_ms: now_ms,
        expires_ms: seconds.map(|seconds| now_ms.saturating_add(u64::from(seconds) * 1000)),
        properties: &batch.scratch,
        payload: publish.payload,
    };
    shared.message(parts)
}

// === impl Message ===

impl Message {
    /// As the store keeps it.
    pub(super) fn record(&self) -> MessageRecord<'_> {
        let Parts { topic, publisher, qos, retain, received_ms, expires_ms, properties, payload } =
            self.parts();
        let qos = qos.number();
        MessageRecord {
            topic,
            qos,
            retain,
            expires_at_ms: expires_ms,
            received_ms,
            properties,
            payload,
            publisher,
        }
    }

    /// Puts it into the store, for the places that refer to it.
    pub(super) fn put(&self, ops: &mut StateOps) {
        let mut value = Vec::new();
        self.record().encode(&mut value);
        ops.put(&StateKey::Message(self.number()).encode(), &value);
    }
}
