//! What one pass over a connection makes: entries, changes of state, packets and counts.

use std::sync::Arc;

use crate::mqtt::codec::{PublishProperties, Qos};
use crate::mqtt::devices::Durable;
use crate::mqtt::metrics::Tally;
use crate::mqtt::router::Match;
use crate::mqtt::session::Session;
use crate::mqtt::template::Matched;
use crate::outbox::{Encoded, Entry, Properties, StateOps, UserProperties};
use crate::supervise::clock;

/// Buffers that one pass over a connection fills; kept per thread.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Batch {
    /// Entries for the next submission.
    pub(in crate::mqtt) encoded: Encoded,
    /// Changes of state that somebody waits for; they go with the entries.
    pub(in crate::mqtt) state: StateOps,
    /// Changes of state that nobody waits for.
    pub(in crate::mqtt) relaxed: StateOps,
    /// Messages that are sent to lasting sessions when the submission is durable.
    pub(in crate::mqtt) promised: Vec<(Arc<Session>, u64)>,
    /// Who waits for what was put down for answers to commands.
    pub(in crate::mqtt) answered: Vec<Arc<dyn Durable>>,
    /// Packets to send at once.
    pub(in crate::mqtt) out: Vec<u8>,
    /// Deliveries that publishes of this pass led to.
    pub(in crate::mqtt) fanned_out: usize,
    /// The client's own deliveries may go on.
    pub(in crate::mqtt) deliveries: bool,
    pub(in crate::mqtt) tally: Tally,
    /// Scratch of routing.
    pub(in crate::mqtt) matches: Vec<Match<Session>>,
    /// Scratch for encoded properties.
    pub(in crate::mqtt) scratch: Vec<u8>,
    user: Vec<u8>,
    /// When what is being taken came, in Unix milliseconds.
    pub(in crate::mqtt) received_ms: u64,
}

/// A publish for the outbox.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Stored<'a> {
    pub(in crate::mqtt) device: &'a str,
    pub(in crate::mqtt) topic: &'a str,
    pub(in crate::mqtt) qos: Qos,
    pub(in crate::mqtt) retain: bool,
    pub(in crate::mqtt) properties: &'a PublishProperties<'a>,
    pub(in crate::mqtt) payload: &'a [u8],
}

impl Batch {
    /// Whether the next submission will have a ticket that replies wait for.
    #[inline]
    pub(in crate::mqtt) fn owes(&self) -> bool {
        !self.encoded.is_empty() || !self.state.is_empty()
    }

    /// Bytes that wait to be submitted.
    pub(in crate::mqtt) fn bytes(&self) -> usize {
        self.encoded.bytes() + self.state.bytes()
    }

    /// Encodes one publish.
    #[inline]
    pub(in crate::mqtt) fn store(&mut self, publish: Stored<'_>, matched: &Matched<'_>) {
        let told = publish.properties;
        let mut properties = Properties {
            tenant: matched.tenant,
            site: matched.site,
            class: matched.class,
            stream: matched.stream,
            content_type: told.content_type,
            response_topic: told.response_topic,
            correlation_data: told.correlation_data,
            expiry_seconds: told.expiry_seconds,
            ..Properties::default()
        };
        if told.has_user {
            keep_user(told, &mut properties, &mut self.user);
        }
        properties.user = UserProperties::new(&self.user).unwrap_or_default();
        self.encoded.push(&Entry {
            lane: matched.lane,
            device: publish.device,
            topic: publish.topic,
            received_ms: self.received_ms,
            qos: publish.qos.number(),
            retain: publish.retain,
            clock_synced: clock::plausible(self.received_ms),
            properties,
            payload: publish.payload,
        });
        self.user.clear();
    }

    /// Counts a publish that is taken.
    #[inline]
    pub(in crate::mqtt) fn count(&mut self, qos: Qos) {
        if let Some(count) = self.tally.publishes.get_mut(usize::from(qos.number())) {
            *count += 1;
        }
    }

    /// Empties it; what a pass before it left behind, by a panic, must not be submitted.
    pub(in crate::mqtt) fn clear(&mut self) {
        if !self.encoded.is_empty() {
            self.encoded.clear();
        }
        self.state.clear();
        self.relaxed.clear();
        for (session, order) in self.promised.drain(..) {
            session.keep_promise(order);
        }
        for waits in self.answered.drain(..) {
            waits.settled(false);
        }
        self.out.clear();
        self.deliveries = false;
        self.fanned_out = 0;
        self.matches.clear();
        self.user.clear();
        self.tally = Tally::default();
    }
}

/// Encodes user properties; the trace context has fields of its own.
fn keep_user<'a>(told: &PublishProperties<'a>, properties: &mut Properties<'a>, user: &mut Vec<u8>) {
    for (name, value) in told.user() {
        match name {
            "traceparent" if properties.traceparent.is_none() => properties.traceparent = Some(value),
            "tracestate" if properties.tracestate.is_none() => properties.tracestate = Some(value),
            _ => UserProperties::push(user, name, value),
        }
    }
}
