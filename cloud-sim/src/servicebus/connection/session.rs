//! A session: its windows, its links, and the deliveries on it that are not settled.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use super::shared::{Delayed, Fault, Shared};
use crate::amqp::{Begin, Detach, Disposition, ErrorInfo, Flow, Performative, State};
use crate::servicebus::broker::Lock;
use crate::servicebus::link::{Link, LinkEnd, Node, echo, outcome};

/// Frames that the client may send before it hears of a new window.
pub(super) const WINDOW: u32 = 5_000;
/// Deliveries not settled, per session. No more are sent while there are as many.
const UNSETTLED_MAX: usize = 16_384;
/// Links of one session, and the largest handle.
pub(super) const HANDLE_MAX: u32 = 9_999;

/// A delivery whose outcome is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsettled {
    pub(super) handle: u32,
    pub(super) lock: Lock,
}

/// A message that goes out, frame by frame.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) handle: u32,
    pub(super) delivery_id: u32,
    pub(super) tag: Lock,
    pub(super) settled: bool,
    pub(super) payload: Vec<u8>,
    pub(super) sent: usize,
    pub(super) begun: bool,
}

/// One session. Both directions use the channel number the client chose, and the handles it chose.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) channel: u16,
    /// Our end is out; theirs is awaited, and all else is ignored.
    pub(super) ending: bool,
    /// Transfer frames, as ids of the standard (part 2, section 2.5.6).
    pub(super) next_incoming_id: u32,
    pub(super) incoming_window: u32,
    pub(super) next_outgoing_id: u32,
    pub(super) remote_window: u32,
    pub(super) next_delivery_id: u32,
    pub(super) links: HashMap<u32, Link>,
    /// Links out of `$cbs` and `$management`.
    pub(super) answering: Vec<u32>,
    pub(super) unsettled: BTreeMap<u32, Unsettled>,
    pub(super) sending: VecDeque<Sending>,
    /// Links that have to wait for the window or for dispositions.
    pub(super) blocked: Vec<u32>,
}

impl Session {
    pub(super) fn new(channel: u16, begin: &Begin) -> Self {
        Self {
            channel,
            ending: false,
            next_incoming_id: begin.next_outgoing_id,
            incoming_window: WINDOW,
            next_outgoing_id: 0,
            remote_window: begin.incoming_window,
            next_delivery_id: 0,
            links: HashMap::new(),
            answering: Vec::new(),
            unsettled: BTreeMap::new(),
            sending: VecDeque::new(),
            blocked: Vec::new(),
        }
    }

    /// The answer to their begin.
    pub(super) fn begin(&self, shared: &mut Shared) {
        let begin = Begin {
            remote_channel: Some(self.channel),
            next_outgoing_id: self.next_outgoing_id,
            incoming_window: self.incoming_window,
            outgoing_window: WINDOW,
            handle_max: HANDLE_MAX,
        };
        shared.send(self.channel, &Performative::Begin(begin));
    }

    // === flow ===

    pub(super) fn on_flow(&mut self, shared: &mut Shared, flow: &Flow) -> Result<(), Fault> {
        // Before our begin has reached them, they do not know our ids: those start at zero.
        let base = flow.next_incoming_id.unwrap_or(0);
        self.remote_window = base.wrapping_add(flow.incoming_window).wrapping_sub(self.next_outgoing_id);
        if self.remote_window > u32::MAX / 2 {
            self.remote_window = 0;
        }
        self.unblock(shared);
        let Some(handle) = flow.handle else {
            if flow.echo {
                self.send_flow(shared, None);
            }
            return Ok(());
        };
        let channel = self.channel;
        let link = self.link(handle)?;
        if link.closing {
            return Ok(());
        }
        if let LinkEnd::Out(out) = &mut link.end {
            let base = flow.delivery_count.unwrap_or(0);
            let limit = base.wrapping_add(flow.credit.unwrap_or(0));
            let credit = limit.wrapping_sub(out.delivery_count);
            out.credit = if credit > u32::MAX / 2 { 0 } else { credit };
            out.drain = flow.drain;
            if !out.queued && out.held.is_none() && (out.credit > 0 || out.drain) {
                out.queued = true;
                shared.ready.push_back((channel, handle));
            }
        }
        if flow.echo {
            self.send_flow(shared, Some(handle));
        }
        Ok(())
    }

    /// The state of the session, and of a link if it has a handle.
    pub(super) fn send_flow(&mut self, shared: &mut Shared, handle: Option<u32>) {
        self.incoming_window = WINDOW;
        let mut flow = Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: WINDOW,
            handle: None,
            delivery_count: None,
            credit: None,
            available: None,
            drain: false,
            echo: false,
        };
        if let Some(link) = handle.and_then(|handle| self.links.get(&handle)) {
            flow.handle = handle;
            match &link.end {
                LinkEnd::In(incoming) => {
                    flow.delivery_count = Some(incoming.delivery_count);
                    flow.credit = Some(incoming.credit);
                }
                LinkEnd::Out(out) => {
                    flow.delivery_count = Some(out.delivery_count);
                    flow.credit = Some(out.credit);
                    flow.available = Some(u32::try_from(out.replies.len()).unwrap_or(u32::MAX));
                    flow.drain = out.drain;
                }
            }
        }
        shared.send(self.channel, &Performative::Flow(flow));
    }

    /// Puts every link that had to wait back into line, if there is no reason to wait any more.
    pub(super) fn unblock(&mut self, shared: &mut Shared) {
        if self.blocked.is_empty() || !self.may_send() {
            return;
        }
        for handle in self.blocked.drain(..) {
            shared.ready.push_back((self.channel, handle));
        }
    }

    /// Whether another message may be started or continued.
    pub(super) fn may_send(&self) -> bool {
        self.remote_window > 0 && self.unsettled.len() < UNSETTLED_MAX
    }

    // === dispositions ===

    pub(super) fn on_disposition(
        &mut self,
        shared: &mut Shared,
        disposition: Disposition,
    ) -> Result<(), Fault> {
        // Of the other role: the client settles what it sent, which was settled here already.
        if !disposition.receiver {
            return Ok(());
        }
        let delay = shared.broker().disposition_delay();
        if delay.is_zero() {
            return self.settle(shared, &disposition);
        }
        let held = Delayed::Disposition { channel: self.channel, disposition };
        match shared.delay(Instant::now() + delay, held) {
            Err(Delayed::Disposition { disposition, .. }) => self.settle(shared, &disposition),
            _ => Ok(()),
        }
    }

    /// Passes outcomes on to the broker and answers those that are not settled yet.
    pub(super) fn settle(&mut self, shared: &mut Shared, disposition: &Disposition) -> Result<(), Fault> {
        let (first, last) = (disposition.first, disposition.last.unwrap_or(disposition.first));
        if last < first {
            let error = ErrorInfo::new("amqp:invalid-field", "disposition: last is before first");
            return Err(Fault::Session(error));
        }
        let wanted = outcome(disposition.state.as_ref());
        if wanted.is_none() && !disposition.settled {
            return Ok(());
        }
        let found: Vec<_> =
            self.unsettled.range(first..=last).map(|(id, delivery)| (*id, *delivery)).collect();
        for (id, delivery) in found {
            self.unsettled.remove(&id);
            let Some(LinkEnd::Out(out)) = self.links.get(&delivery.handle).map(|link| &link.end) else {
                continue;
            };
            // Settled without an outcome: the default of these nodes, which is to let go of it.
            let outcome = wanted.clone().unwrap_or(crate::servicebus::broker::Outcome::Released);
            let settled = shared.broker().settle(out.id, delivery.lock, &outcome);
            if disposition.settled {
                continue;
            }
            let state = match settled {
                Ok(()) => echo(&outcome),
                Err(refusal) => State::Rejected(Some(refusal.into())),
            };
            self.send_settled(shared, false, id, state);
        }
        self.unblock(shared);
        Ok(())
    }

    /// Settles a delivery towards the client. `receiver`: it was one of the client's.
    pub(super) fn send_settled(&self, shared: &mut Shared, receiver: bool, id: u32, state: State) {
        let disposition =
            Disposition { receiver, first: id, last: Some(id), settled: true, state: Some(state) };
        shared.send(self.channel, &Performative::Disposition(disposition));
    }

    // === the end of links and sessions ===

    pub(super) fn on_detach(&mut self, shared: &mut Shared, detach: &Detach) -> Result<(), Fault> {
        let handle = detach.handle;
        let link = self.link(handle)?;
        let (closing, held) = match &mut link.end {
            LinkEnd::In(incoming) => (link.closing, incoming.held.take()),
            LinkEnd::Out(out) => (link.closing, out.held.take()),
        };
        if let Some(attach) = held {
            // It was not attached on our side yet, and only what is attached can be detached.
            shared.send(self.channel, &Performative::Attach(Box::new(super::attach::refused(*attach))));
        }
        self.forget(shared, handle);
        if !closing {
            let answer = Detach { handle, closed: detach.closed, error: None };
            shared.send(self.channel, &Performative::Detach(answer));
        }
        Ok(())
    }

    /// Detaches a link on our own account. It is forgotten when the client has answered.
    pub(super) fn detach(&mut self, shared: &mut Shared, handle: u32, error: ErrorInfo) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        if link.closing {
            return;
        }
        link.closing = true;
        self.let_go(shared, handle);
        let detach = Detach { handle, closed: true, error: Some(error) };
        shared.send(self.channel, &Performative::Detach(detach));
    }

    /// Frees all that a link holds.
    pub(super) fn let_go(&mut self, shared: &mut Shared, handle: u32) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        match &mut link.end {
            LinkEnd::In(incoming) => {
                if let Some(partial) = incoming.partial.take() {
                    shared.release(partial.bytes.len());
                }
            }
            LinkEnd::Out(out) => {
                out.replies.clear();
                let id = out.id;
                if matches!(link.node, Node::Entity(_)) && shared.routes.remove(&id).is_some() {
                    shared.broker().detach(id);
                }
                if shared.names.get(&link.name) == Some(&id) {
                    shared.names.remove(&link.name);
                }
                self.unsettled.retain(|_, delivery| delivery.handle != handle);
                self.sending.retain(|sending| sending.handle != handle);
                self.answering.retain(|answering| *answering != handle);
            }
        }
    }

    fn forget(&mut self, shared: &mut Shared, handle: u32) {
        self.let_go(shared, handle);
        if self.links.remove(&handle).is_some() {
            shared.links = shared.links.saturating_sub(1);
        }
        // What it kept from going out may go now.
        self.unblock(shared);
    }

    /// Frees all that the session holds.
    pub(super) fn close(&mut self, shared: &mut Shared) {
        let handles: Vec<u32> = self.links.keys().copied().collect();
        for handle in handles {
            self.forget(shared, handle);
        }
    }

    /// The link with this handle, which must be attached.
    pub(super) fn link(&mut self, handle: u32) -> Result<&mut Link, Fault> {
        let unattached = || {
            Fault::Session(ErrorInfo::new(
                "amqp:session:unattached-handle",
                format!("handle {handle} is not attached"),
            ))
        };
        self.links.get_mut(&handle).ok_or_else(unattached)
    }
}
