//! How sessions begin and end: the part of [`Shared`] between CONNECT and what is left of a client.

use std::sync::Arc;

use super::codec::Reason;
use super::durable::StateKey;
use super::link::Link;
use super::message::{Message, Parts};
use super::outgoing::{Bounds, Terms};
use super::router::Options;
use super::session::{Client, Session};
use super::shared::Shared;
use super::will::Will;
use crate::outbox::{StateOps, Urgency};

/// What CONNECT asks for, as far as the session is concerned.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) client: Client,
    pub(super) clean: bool,
    pub(super) expiry_seconds: u32,
    pub(super) terms: Terms,
    pub(super) will: Option<Box<Will>>,
}

/// A session that has its connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: Arc<Session>,
    /// It was there before ([MQTT-3.2.2-2]).
    pub(super) present: bool,
    /// Packet ids of QoS 2 that an earlier connection left open.
    pub(super) received: Vec<u16>,
}

/// There are as many lasting sessions as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Shared {
    /// Gives a claimed client id its session: the one it has, unless a clean one is wanted. `received`
    /// are the packet ids of the one it has.
    pub(super) fn open_session(
        &self,
        link: &Arc<Link>,
        wanted: Wanted,
        known: Option<(Arc<Session>, Vec<u16>)>,
    ) -> Result<Opened, TooMany> {
        let Wanted { client, clean, expiry_seconds, terms, will } = wanted;
        let (present, session, received) = match known {
            Some((known, received)) if !clean && *known.device() == client.device => (true, known, received),
            known => {
                if let Some((old, received)) = known {
                    self.registry.forget_session(&old, false);
                    self.end(&old, &received);
                }
                if expiry_seconds > 0 && self.lasting() >= self.limits.sessions_max {
                    return Err(TooMany);
                }
                let session = Arc::new(Session::new(self.registry.next_session(), client));
                self.registry.set_session(&session);
                self.count_lasting(&session, expiry_seconds > 0);
                (false, session, Vec::new())
            }
        };
        let before = session.attach(link, terms, expiry_seconds, will);
        self.keeper.forget(session.number(), before.ends_at_ms, before.will_due_ms);
        let mut ops = StateOps::default();
        if expiry_seconds == 0 && present {
            self.count_lasting(&session, false);
            session.forget(&received, &mut ops);
        }
        session.record(&mut ops);
        self.submit_relaxed(&ops);
        self.note_presence(&session);
        Ok(Opened { session, present, received })
    }

    /// A connection is gone. `received`: what it had open of QoS 2, if it is sure of that.
    ///
    /// When the gateway stops, wills stay in the store: they are published after the next start, as if
    /// the connection had been lost then (MQTT 5, section 3.1.2.5).
    pub(super) fn close_session(&self, session: &Arc<Session>, link: &Arc<Link>, received: Option<Vec<u16>>) {
        let now_ms = self.now_ms();
        let stopping = self.is_stopping();
        let (will, will_at) = if stopping { (None, None) } else { session.will_due(now_ms) };
        let lasts = session.is_lasting() || (stopping && session.has_will());
        let known = received.clone();
        let Some(fates) = session.detach(link, received, now_ms) else { return };
        // Whoever hears that a command is gone finds the device gone, too.
        self.note_presence(session);
        fates.tell();
        if let Some(will) = will {
            self.keeper.publish(session, will, now_ms);
        }
        if let (true, Some(ends_at)) = (lasts, session.ends_at_ms()) {
            let mut ops = StateOps::default();
            session.record(&mut ops);
            self.submit_relaxed(&ops);
            self.keeper.end_at(ends_at, session);
            if let Some(at) = will_at {
                self.keeper.will_at(at, session);
            }
        } else {
            self.registry.forget_session(session, false);
            self.end(session, &known.unwrap_or_default());
        }
    }

    /// Ends a session for good; a will that still waits is due ([MQTT-3.1.3-9]).
    pub(super) fn end(&self, session: &Arc<Session>, received: &[u16]) {
        let mut ops = StateOps::default();
        self.count_lasting(session, false);
        if let Some(will) = session.end(&self.router, received, &mut ops) {
            self.keeper.publish(session, will, self.now_ms());
        }
        self.submit_relaxed(&ops);
    }

    /// Submits changes of state that nobody waits for.
    pub(super) fn submit_relaxed(&self, ops: &StateOps) {
        if !ops.is_empty() {
            self.appender.submit_state(ops, Urgency::Relaxed, &self.relaxed);
        }
    }

    /// A message with a number of its own.
    pub(super) fn message(&self, parts: Parts<'_>) -> Message {
        Message::new(self.registry.next_message(), parts, &self.gauge)
    }

    /// What queues may hold now.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            buffer_bytes_max: self.limits.outgoing_bytes_max,
            queue_messages_max: self.limits.queue_messages_max,
            queue_bytes_max: self.limits.queue_bytes_max,
            is_full: self.gauge.bytes() >= self.limits.queues_bytes_max,
        }
    }

    // --- access ---

    /// Whether a client may publish to a topic that is no telemetry.
    pub(super) fn may_publish(&self, session: &Session, topic: &str) -> Result<(), Reason> {
        self.access.rules().may_publish(session.who(), topic)
    }

    /// Whether a client may subscribe to a filter outside its own topics, and whether each delivery is
    /// to be asked for.
    pub(super) fn may_subscribe(&self, session: &Session, filter: &str) -> Result<bool, Reason> {
        self.access.rules().may_subscribe(session.who(), filter).map(|grant| grant.guarded)
    }

    /// Whether a client may get a publish to `topic` through a subscription that was granted with
    /// these options. Rules that came later bind it as well.
    #[inline]
    pub(super) fn may_receive(&self, session: &Session, options: &Options, topic: &str) -> bool {
        let asks = options.guarded || self.access.have_rules_changed();
        !asks || self.is_allowed(session, topic)
    }

    fn is_allowed(&self, session: &Session, topic: &str) -> bool {
        self.templates.owns_filter(topic, session.device())
            || self.access.rules().may_receive(session.who(), topic)
    }

    /// What was retained under a topic is gone from the store.
    pub(super) fn forget_retained(&self, topics: Vec<Box<str>>) {
        let mut ops = StateOps::default();
        for topic in topics {
            ops.delete(&StateKey::Retained(topic.into()).encode());
        }
        self.submit_relaxed(&ops);
    }
}
