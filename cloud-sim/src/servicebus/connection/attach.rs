//! Attaching: who may, to what, and the answer, which may have to wait.

use std::time::Duration;

use tokio::time::Instant;

use super::session::{HANDLE_MAX, Session};
use super::shared::{Delayed, Fault, LINKS_MAX, Shared};
use crate::amqp::{Attach, Detach, ErrorInfo, Performative, Value};
use crate::servicebus::broker::{Accept, LinkId, Refusal, Wish};
use crate::servicebus::link::{CREDIT, Incoming, Link, LinkEnd, MESSAGE_BYTES_MAX, Node, Outgoing, ticks};

const SESSION_FILTER: &str = "com.microsoft:session-filter";
const TIMEOUT: &str = "com.microsoft:timeout";
const LOCKED_UNTIL: &str = "com.microsoft:locked-until-utc";
/// How long to wait for a session if the client does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest wait that is believed.
const WAIT_MAX: Duration = Duration::from_secs(3600);

impl Session {
    pub(super) fn on_attach(&mut self, shared: &mut Shared, attach: Attach) -> Result<(), Fault> {
        let handle = attach.handle;
        if handle > HANDLE_MAX {
            let error = ErrorInfo::new("amqp:framing-error", "the handle is above handle-max");
            return Err(Fault::Connection(error));
        }
        if self.links.contains_key(&handle) {
            let error = ErrorInfo::new("amqp:session:handle-in-use", format!("handle {handle} is in use"));
            return Err(Fault::Session(error));
        }
        // Refused links count until the client has answered; one that never answers gets no further than this.
        if shared.links >= 2 * LINKS_MAX {
            let error = ErrorInfo::new(Refusal::QUOTA, "too many links on this connection");
            return Err(Fault::Connection(error));
        }
        let terminus = if attach.receiver { attach.source.as_ref() } else { attach.target.as_ref() };
        let address = terminus.filter(|terminus| terminus.is_node()).and_then(|terminus| terminus.address());
        let node = Node::parse(address.unwrap_or_default());
        let unknown = address.is_none();
        let end = if attach.receiver {
            let out = Outgoing::new(shared.link_id(), &attach);
            LinkEnd::Out(out)
        } else {
            LinkEnd::In(Incoming::default())
        };
        self.links
            .insert(handle, Link { name: attach.name.clone(), node: node.clone(), end, closing: false });
        shared.links += 1;
        if shared.links > LINKS_MAX {
            let error = Refusal::new(Refusal::QUOTA, "too many links on this connection");
            self.refuse(shared, attach, error);
        } else if unknown {
            let error = Refusal::new("amqp:not-implemented", "only nodes with an address are known");
            self.refuse(shared, attach, error);
        } else if node.path().is_some_and(|path| !shared.claims.allow(&path, Instant::now())) {
            let error =
                Refusal::new(Refusal::UNAUTHORIZED, "Unauthorized access. A token is needed that is alive.");
            self.refuse(shared, attach, error);
        } else {
            self.admit(shared, attach, &node);
        }
        Ok(())
    }

    /// Lets a link in at once, or when the control API's delay is over.
    fn admit(&mut self, shared: &mut Shared, attach: Attach, node: &Node) {
        let handle = attach.handle;
        let Node::Entity(entity) = node else {
            if attach.receiver {
                self.answering.push(handle);
            }
            self.answer(shared, attach, None, None);
            return;
        };
        let delay = shared.broker().attach_delay();
        let Some(Link { end, .. }) = self.links.get_mut(&handle) else { return };
        let link = match end {
            LinkEnd::Out(out) => out.id,
            LinkEnd::In(_) => 0,
        };
        let put_off = !delay.is_zero() && {
            let delayed = Delayed::Attach { channel: self.channel, handle, link };
            shared.delay(Instant::now() + delay, delayed).is_ok()
        };
        if put_off {
            let held = Some(Box::new(attach));
            match end {
                LinkEnd::Out(out) => out.held = held,
                LinkEnd::In(incoming) => incoming.held = held,
            }
        } else {
            self.decide(shared, attach, &entity.clone());
        }
    }

    /// The delay of an attach is over. Nothing happens if the link has gone meanwhile.
    pub(super) fn resume_attach(&mut self, shared: &mut Shared, handle: u32, id: LinkId) {
        let Some(link) = self.links.get_mut(&handle).filter(|link| !link.closing) else { return };
        let Node::Entity(entity) = link.node.clone() else { return };
        let held = match &mut link.end {
            LinkEnd::Out(out) if out.id == id => out.held.take(),
            LinkEnd::In(incoming) if id == 0 => incoming.held.take(),
            _ => None,
        };
        if let Some(attach) = held {
            self.decide(shared, *attach, &entity);
        }
    }

    /// Asks the broker.
    fn decide(&mut self, shared: &mut Shared, attach: Attach, entity: &str) {
        let Some(LinkEnd::Out(out)) = self.links.get_mut(&attach.handle).map(|link| &mut link.end) else {
            match shared.broker().attach_sender(entity) {
                Ok(()) => self.answer(shared, attach, None, None),
                Err(error) => self.refuse(shared, attach, error),
            }
            return;
        };
        let id = out.id;
        shared.routes.insert(id, (self.channel, attach.handle));
        shared.names.insert(attach.name.clone(), id);
        match shared.broker().attach_receiver(shared.connection, id, entity, wish(&attach)) {
            Ok(Accept::Granted { session, locked_until_ms }) => {
                self.answer(shared, attach, session, locked_until_ms);
            }
            Ok(Accept::Waiting) => out.held = Some(Box::new(attach)),
            Err(error) => self.refuse(shared, attach, error),
        }
    }

    /// A receiver that waited got a session.
    pub(super) fn granted(
        &mut self,
        shared: &mut Shared,
        handle: u32,
        session: String,
        locked_until_ms: u64,
    ) {
        if let Some(attach) = self.held(handle) {
            self.answer(shared, *attach, Some(session), Some(locked_until_ms));
        }
    }

    /// A receiver that waited gets none.
    pub(super) fn refused(&mut self, shared: &mut Shared, handle: u32, error: Refusal) {
        if let Some(attach) = self.held(handle) {
            self.refuse(shared, *attach, error);
        }
    }

    fn held(&mut self, handle: u32) -> Option<Box<Attach>> {
        match &mut self.links.get_mut(&handle)?.end {
            LinkEnd::Out(out) => out.held.take(),
            LinkEnd::In(_) => None,
        }
    }

    /// Attaches our side: the same termini, with the id of the session that was locked in the filter.
    fn answer(
        &mut self,
        shared: &mut Shared,
        attach: Attach,
        session: Option<String>,
        locked_ms: Option<u64>,
    ) {
        let handle = attach.handle;
        let mut answer = Attach {
            receiver: !attach.receiver,
            initial_delivery_count: attach.receiver.then_some(0),
            message_bytes_max: u64::try_from(MESSAGE_BYTES_MAX).ok(),
            properties: Vec::new(),
            ..attach
        };
        if let (Some(source), Some(session)) = (&mut answer.source, session) {
            source.set_filter(SESSION_FILTER, Value::String(session));
        }
        if let Some(locked_ms) = locked_ms {
            answer.properties.push((Value::symbol(LOCKED_UNTIL), Value::Long(ticks(locked_ms))));
        }
        shared.send(self.channel, &Performative::Attach(Box::new(answer)));
        let channel = self.channel;
        let Some(link) = self.links.get_mut(&handle) else { return };
        match &mut link.end {
            LinkEnd::In(incoming) => {
                incoming.credit = CREDIT;
                self.send_flow(shared, Some(handle));
            }
            // It may have given credit before it was let in.
            LinkEnd::Out(out) => {
                out.queued = true;
                shared.ready.push_back((channel, handle));
            }
        }
    }

    /// Attaches without termini and detaches with the reason: no node was made (part 2, section 2.6.3).
    fn refuse(&mut self, shared: &mut Shared, attach: Attach, error: Refusal) {
        let handle = attach.handle;
        tracing::debug!(link = attach.name, condition = error.condition, error.description, "link refused");
        shared.send(self.channel, &Performative::Attach(Box::new(refused(attach))));
        self.let_go(shared, handle);
        if let Some(link) = self.links.get_mut(&handle) {
            link.closing = true;
        }
        let detach = Detach { handle, closed: true, error: Some(error.into()) };
        shared.send(self.channel, &Performative::Detach(detach));
    }
}

/// The answer to an attach that leads nowhere.
pub(super) fn refused(attach: Attach) -> Attach {
    Attach {
        receiver: !attach.receiver,
        source: None,
        target: None,
        initial_delivery_count: attach.receiver.then_some(0),
        message_bytes_max: None,
        properties: Vec::new(),
        ..attach
    }
}

/// What a receiver wants, from its filter.
fn wish(attach: &Attach) -> Wish {
    let filter = attach.source.as_ref().and_then(|source| source.filter(SESSION_FILTER));
    match filter {
        None => Wish::Plain,
        Some(Value::String(session) | Value::Symbol(session)) => Wish::Session(session.clone()),
        Some(_) => {
            let asked = attach.property(TIMEOUT).and_then(Value::integer);
            let asked = asked.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
            Wish::Next { wait: asked.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX) }
        }
    }
}
