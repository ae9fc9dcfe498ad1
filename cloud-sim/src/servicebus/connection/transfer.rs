//! Transfers: messages that come in frame by frame, and those that go out.

use bytes::Bytes;

use super::session::{Sending, Session, Unsettled, WINDOW};
use super::shared::{Fault, Shared};
use crate::amqp::{
    DecodeError, ErrorInfo, FrameKind, Performative, Sections, State, Transfer, begin_frame, finish_frame,
};
use crate::servicebus::broker::{Lock, Outcome, Refusal};
use crate::servicebus::link::message;
use crate::servicebus::link::{
    CREDIT, Incoming, Link, LinkEnd, Node, PAYLOAD_BYTES_MAX, Partial, REPLIES_MAX,
};
use crate::servicebus::management::{self, Request};

/// More than the header of a frame and all fields of a transfer have in bytes.
const TRANSFER_BYTES_MAX: usize = 96;

/// What becomes of a frame of a message.
enum Taken {
    /// More frames are to come, or the message was given up.
    Unfinished,
    Finished(Partial),
    /// The link has to go.
    Broken(ErrorInfo),
}

impl Session {
    // === in ===

    pub(super) fn on_transfer(
        &mut self,
        shared: &mut Shared,
        transfer: &Transfer,
        payload: &Bytes,
    ) -> Result<(), Fault> {
        if self.incoming_window == 0 {
            let error = ErrorInfo::new("amqp:session:window-violation", "more frames than the window has");
            return Err(Fault::Session(error));
        }
        self.incoming_window -= 1;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        if self.incoming_window <= WINDOW / 2 {
            self.send_flow(shared, None);
        }
        let handle = transfer.handle;
        let link = self.link(handle)?;
        if link.closing {
            return Ok(());
        }
        let LinkEnd::In(incoming) = &mut link.end else {
            let error = ErrorInfo::new("amqp:session:errant-link", "the link is for the other direction");
            return Err(Fault::Session(error));
        };
        match incoming.take(shared, transfer, payload)? {
            Taken::Unfinished => {}
            Taken::Broken(error) => self.detach(shared, handle, error),
            Taken::Finished(partial) => {
                shared.release(partial.bytes.len());
                let top_up = incoming.credit <= CREDIT / 2;
                if top_up {
                    incoming.credit = CREDIT;
                }
                let state = self.finish(shared, handle, &partial);
                if !partial.settled {
                    self.send_settled(shared, true, partial.delivery_id, state);
                }
                if top_up {
                    self.send_flow(shared, Some(handle));
                }
            }
        }
        Ok(())
    }

    /// A whole message: for the broker, or a request. Returns its outcome.
    fn finish(&mut self, shared: &mut Shared, handle: u32, partial: &Partial) -> State {
        let Some(Link { node, .. }) = self.links.get(&handle) else { return State::Released };
        let done = match node {
            Node::Entity(entity) => {
                let messages = message::read_transfer(partial.format, &partial.bytes).map_err(unreadable);
                messages.and_then(|messages| shared.broker().send(entity, messages)).map(drop)
            }
            Node::Cbs | Node::Management(_) => match Sections::decode(&partial.bytes) {
                Ok(request) => {
                    let node = node.clone();
                    self.request(shared, &node, &request)
                }
                Err(error) => Err(unreadable(error)),
            },
        };
        match done {
            Ok(()) => State::Accepted,
            Err(refusal) => {
                tracing::debug!(
                    link = self.link_name(handle),
                    condition = refusal.condition,
                    "message refused"
                );
                State::Rejected(Some(refusal.into()))
            }
        }
    }

    fn link_name(&self, handle: u32) -> &str {
        self.links.get(&handle).map_or("", |link| &link.name)
    }

    /// Answers a request on the link that the client has for the answers of this node.
    fn request(&mut self, shared: &mut Shared, node: &Node, request: &Sections<'_>) -> Result<(), Refusal> {
        let handle = self.answering_link(node, request.properties.reply_to.as_deref());
        let Some(handle) = handle else {
            return Err(Refusal::new(Refusal::NOT_FOUND, "there is no link to send the answer on"));
        };
        let answer = match node {
            Node::Management(entity) => {
                let request = Request { entity, sections: request, names: &shared.names };
                management::answer(&shared.wire.broker, &request)
            }
            Node::Cbs | Node::Entity(_) => {
                let life_max = shared.broker().token_life_max();
                let (code, description) = shared.claims.put(request, life_max);
                management::put_token_answer(request, code, &description)
            }
        };
        let channel = self.channel;
        let Some(LinkEnd::Out(out)) = self.links.get_mut(&handle).map(|link| &mut link.end) else {
            return Ok(());
        };
        if out.replies.len() >= REPLIES_MAX {
            return Err(Refusal::new(Refusal::QUOTA, "too many answers wait for credit"));
        }
        out.replies.push_back(answer);
        if !out.queued {
            out.queued = true;
            shared.ready.push_back((channel, handle));
        }
        Ok(())
    }

    /// The client's link for answers of `node`: the one whose target `reply_to` names, or the only one.
    fn answering_link(&self, node: &Node, reply_to: Option<&str>) -> Option<u32> {
        let mut found = None;
        for handle in &self.answering {
            let Some(Link { node: of, end: LinkEnd::Out(out), .. }) = self.links.get(handle) else {
                continue;
            };
            if !same_node(of, node) {
                continue;
            }
            if reply_to.is_some() && out.target.as_deref() == reply_to {
                return Some(*handle);
            }
            found = Some(*handle);
        }
        found
    }

    // === out ===

    /// Sends one message on a link, if there is one, credit for it, and room in the window.
    pub(super) fn pump(&mut self, shared: &mut Shared, handle: u32) {
        if !self.send_frames(shared) || !self.may_send() {
            self.blocked.push(handle);
            return;
        }
        let Some(Link { node, end: LinkEnd::Out(out), closing: false, .. }) = self.links.get_mut(&handle)
        else {
            return;
        };
        if out.held.is_some() {
            out.queued = false;
            return;
        }
        let found = match (&*node, out.credit) {
            (_, 0) => None,
            (Node::Entity(_), _) => delivery(shared, out.id, out.settled),
            _ => out.replies.pop_front().map(|payload| (payload, rand::random(), true)),
        };
        let Some((payload, tag, settled)) = found else {
            out.queued = false;
            if out.credit == 0 && matches!(node, Node::Entity(_)) {
                shared.broker().pass(out.id);
            }
            self.drained(shared, handle);
            return;
        };
        out.credit -= 1;
        out.delivery_count = out.delivery_count.wrapping_add(1);
        let delivery_id = self.next_delivery_id;
        self.next_delivery_id = delivery_id.wrapping_add(1);
        if !settled {
            self.unsettled.insert(delivery_id, Unsettled { handle, lock: tag });
        }
        self.sending.push_back(Sending { handle, delivery_id, tag, settled, payload, sent: 0, begun: false });
        shared.ready.push_back((self.channel, handle));
        self.send_frames(shared);
    }

    /// There is nothing more to send: credit that is to be drained is used up.
    fn drained(&mut self, shared: &mut Shared, handle: u32) {
        let Some(LinkEnd::Out(out)) = self.links.get_mut(&handle).map(|link| &mut link.end) else { return };
        if !out.drain {
            return;
        }
        out.delivery_count = out.delivery_count.wrapping_add(out.credit);
        out.credit = 0;
        self.send_flow(shared, Some(handle));
        if let Some(LinkEnd::Out(out)) = self.links.get_mut(&handle).map(|link| &mut link.end) {
            out.drain = false;
        }
    }

    /// Sends frames of messages that are under way. False when the window ends before they do.
    pub(super) fn send_frames(&mut self, shared: &mut Shared) -> bool {
        let chunk_max = shared.frame_bytes_max.saturating_sub(TRANSFER_BYTES_MAX);
        while let Some(sending) = self.sending.front_mut() {
            if self.remote_window == 0 {
                return false;
            }
            let end = sending.payload.len().min(sending.sent + chunk_max);
            let chunk = sending.payload.get(sending.sent..end).unwrap_or_default();
            let more = end < sending.payload.len();
            let first = !sending.begun;
            let transfer = Transfer {
                handle: sending.handle,
                delivery_id: first.then_some(sending.delivery_id),
                tag: first.then(|| Bytes::copy_from_slice(&sending.tag)),
                format: first.then_some(0),
                settled: Some(sending.settled),
                more,
                state: None,
                aborted: false,
            };
            let start = begin_frame(&mut shared.output, FrameKind::Amqp, self.channel);
            Performative::Transfer(transfer).value().encode(&mut shared.output);
            shared.output.extend_from_slice(chunk);
            finish_frame(&mut shared.output, start);
            self.remote_window -= 1;
            self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
            sending.sent = end;
            sending.begun = true;
            if !more {
                self.sending.pop_front();
            }
        }
        true
    }
}

impl Incoming {
    fn take(&mut self, shared: &mut Shared, transfer: &Transfer, payload: &Bytes) -> Result<Taken, Fault> {
        if self.partial.is_none() {
            if self.credit == 0 {
                let error = ErrorInfo::new("amqp:link:transfer-limit-exceeded", "there is no credit");
                return Ok(Taken::Broken(error));
            }
            let Some(delivery_id) = transfer.delivery_id else {
                let error = ErrorInfo::new("amqp:invalid-field", "a transfer without delivery-id");
                return Err(Fault::Session(error));
            };
            self.credit -= 1;
            self.delivery_count = self.delivery_count.wrapping_add(1);
            let format = transfer.format.unwrap_or(0);
            self.partial = Some(Partial { delivery_id, format, settled: false, bytes: Vec::new() });
        }
        let Some(partial) = &mut self.partial else { return Ok(Taken::Unfinished) };
        partial.settled |= transfer.settled.unwrap_or(false);
        if transfer.aborted {
            shared.release(partial.bytes.len());
            self.partial = None;
            return Ok(Taken::Unfinished);
        }
        if partial.bytes.len() + payload.len() > PAYLOAD_BYTES_MAX {
            let error = ErrorInfo::new(Refusal::TOO_LARGE, "The message is larger than max-message-size.");
            return Ok(Taken::Broken(error));
        }
        shared.reserve(payload.len())?;
        partial.bytes.extend_from_slice(payload);
        if transfer.more {
            return Ok(Taken::Unfinished);
        }
        Ok(self.partial.take().map_or(Taken::Unfinished, Taken::Finished))
    }
}

/// The next delivery of the broker: payload, tag, and whether it counts as settled.
fn delivery(shared: &Shared, id: u64, settled: bool) -> Option<(Vec<u8>, Lock, bool)> {
    loop {
        let delivery = if settled { shared.broker().next_settled(id) } else { shared.broker().next(id) }?;
        let error = match message::write(&delivery) {
            Ok(payload) => {
                let tag = if settled { rand::random() } else { delivery.lock };
                return Some((payload, tag, settled));
            }
            Err(error) => error,
        };
        // It was decoded when it came in, so this does not happen; it must not stay at the head for ever.
        tracing::error!(%error, sequence = delivery.sequence, "message cannot be sent");
        let outcome = Outcome::Rejected { reason: None, description: None };
        shared.broker().settle(id, delivery.lock, &outcome).ok()?;
    }
}

fn unreadable(error: DecodeError) -> Refusal {
    Refusal::new("amqp:decode-error", error.to_string())
}

/// Nodes are the same whatever the case of their names.
fn same_node(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (Node::Cbs, Node::Cbs) => true,
        (Node::Management(one), Node::Management(other)) | (Node::Entity(one), Node::Entity(other)) => {
            one.eq_ignore_ascii_case(other)
        }
        _ => false,
    }
}
