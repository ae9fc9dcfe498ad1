//! What one session is to receive: the queue, the window and the packets on their way.
//!
//! No I/O and no clock. QoS 0 goes straight into the buffer that the connection writes, or is dropped.
//! QoS 1 and 2 get their packet id when they are queued and keep it: the front of the queue, up to
//! the window, is on its way; after a reconnect the same front is sent again, with DUP, in the same
//! order ([MQTT-4.4.0-1], [MQTT-4.6.0-1]). Acknowledgements may come in any order.
//!
//! | Bound | At the bound |
//! |---|---|
//! | bytes in the buffer | QoS 0 is dropped; QoS 1 and 2 wait |
//! | packets on their way: the window | they wait |
//! | waiting messages, and their bytes | the new message is dropped |
//! | the client's largest packet | dropped, as if it had been sent ([MQTT-3.1.2-25]) |
//!
//! Commands wait in the same queue, beside its bounds, and leave it when the connection ends (`commands`).

mod aliases;
mod commands;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use super::codec::{Delivery, Qos, Reason, Version, publish_to, pubrel};
use super::devices::Fate;
use super::message::Message;
use aliases::Aliases;
use commands::Commands;
pub(super) use commands::Fates;

/// How many packets ids there are.
const IDS: usize = 65_535;
/// Capacity above which an empty buffer gives its memory back.
const BUFFER_KEPT_MAX: usize = 4 << 10;

/// The deliveries of one session.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    terms: Terms,
    /// Encoded, to be written by the connection.
    packets: Vec<u8>,
    /// In the order of their packet ids.
    items: VecDeque<Item>,
    /// How many in front are on their way on this connection.
    sent: usize,
    /// Bytes of the messages in `items`, commands aside.
    bytes: usize,
    last_id: u16,
    next_order: u64,
    aliases: Option<Box<Aliases>>,
    /// Retained messages that a new subscription gets as there is room for them.
    replay: VecDeque<(Arc<Message>, Grant)>,
    /// Places in the store that are given up, for the connection to say so.
    gone: Vec<Gone>,
    /// How many were dropped after they had been queued.
    losses: Losses,
    /// What there is to know about commands, while there are some.
    commands: Option<Box<Commands>>,
}

/// What a connection can take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) version: Version,
    /// Most QoS 1 and 2 publishes on their way.
    pub(super) window: usize,
    pub(super) packet_bytes_max: usize,
    /// Topic aliases that the client understands.
    pub(super) aliases_max: u16,
}

/// What the gateway allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) buffer_bytes_max: usize,
    pub(super) queue_messages_max: usize,
    pub(super) queue_bytes_max: usize,
    /// All queues together hold as much as they may.
    pub(super) is_full: bool,
}

/// How one session gets a message: what its matching subscriptions come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) ids: Ids,
}

/// The subscription identifiers that a delivery carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Ids {
    #[default]
    None,
    One(u32),
    Many(Box<[u32]>),
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is in the buffer, or the session does not want it now.
    Done,
    /// It is in the queue at this place, under this packet id.
    Queued { order: u64, id: u16 },
    /// It is let go.
    Dropped(Loss),
}

/// Why a message is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Loss {
    /// A bound of the buffer or the queue.
    Full = 0,
    /// It is larger than the client takes.
    TooLarge = 1,
    /// Its lifetime ended while it waited.
    Expired = 2,
}

/// How many messages were let go after they had been queued.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) full: u64,
    pub(super) too_large: u64,
    pub(super) expired: u64,
}

/// A queued message.
#[derive(Debug)]
struct Item {
    /// Gone once it is sent and will not be sent again, or is released.
    message: Option<Arc<Message>>,
    grant: Grant,
    order: u64,
    id: u16,
    stage: Stage,
    /// It may have been sent on an earlier connection.
    dup: bool,
    /// A place in the store belongs to it.
    stored: bool,
    /// That place is not durable yet: it is not sent before.
    held: bool,
    /// It ends with the connection, and somebody waits for what becomes of it.
    command: bool,
}

/// How a publish goes out.
#[derive(Debug, Clone, Copy)]
struct Sending {
    id: u16,
    dup: bool,
    /// Whether its topic may get an alias: not one that never comes again.
    alias: bool,
}

/// Where an exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// PUBLISH is or will be sent.
    Published,
    /// PUBREC came; PUBREL is or will be sent.
    Released,
}

/// A queued message as the store has it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) message: Option<Arc<Message>>,
    pub(super) grant: Grant,
    pub(super) order: u64,
    pub(super) id: u16,
    pub(super) stage: Stage,
}

/// An item that left the queue and has a place in the store.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) order: u64,
    /// Its message, unless that left the store before.
    pub(super) message: Option<Arc<Message>>,
}

/// What PUBREC of a client does.
#[derive(Debug)]
pub(super) enum Received {
    /// PUBREL goes out; the place in the store, if there is one, changes before.
    Release(Option<Gone>),
    /// The exchange ended with the client's refusal.
    Ended(Option<Gone>),
    Unknown,
}

// === impl Outgoing ===

impl Outgoing {
    /// A connection takes over: everything that was on its way is sent again.
    pub(super) fn attach(&mut self, terms: Terms) {
        self.detach();
        self.terms = terms;
    }

    /// The connection is gone; what was sent on it may not have arrived.
    pub(super) fn detach(&mut self) {
        self.withdraw_all();
        for item in self.items.iter_mut().take(self.sent) {
            item.dup = true;
        }
        self.sent = 0;
        self.packets = Vec::new();
        self.aliases = None;
        // Without a window nothing counts as sent until the next connection.
        self.terms = Terms::default();
    }

    /// The version that the connection speaks.
    pub(super) const fn version(&self) -> Version {
        self.terms.version
    }

    /// Takes a message in. `stored`: the caller stores what is queued, and calls [`Self::confirm`].
    pub(super) fn offer(
        &mut self,
        message: &Arc<Message>,
        grant: Grant,
        stored: bool,
        bounds: Bounds,
        now_ms: u64,
    ) -> Offered {
        if !self.hasten(message.topic(), bounds, now_ms) {
            return Offered::Dropped(Loss::Full);
        }
        if grant.qos == Qos::AtMostOnce {
            return match self.put_unasked(message, &grant, bounds, now_ms) {
                Ok(()) => Offered::Done,
                Err(loss) => Offered::Dropped(loss),
            };
        }
        if !self.has_place(message, bounds) {
            self.drop_expired(now_ms);
            if !self.has_place(message, bounds) {
                return Offered::Dropped(Loss::Full);
            }
        }
        let (order, id) = self.push(Arc::clone(message), grant, stored);
        self.pump(stored, bounds, now_ms);
        Offered::Queued { order, id }
    }

    /// The place `order` in the store is durable, or nobody knows: its message may be sent.
    pub(super) fn confirm(&mut self, order: u64) {
        if let Ok(at) = self.items.binary_search_by_key(&order, |item| item.order)
            && let Some(item) = self.items.get_mut(at)
        {
            item.held = false;
        }
    }

    /// Lines retained messages up for a new subscription.
    pub(super) fn replay(&mut self, messages: impl Iterator<Item = (Arc<Message>, Grant)>) {
        self.replay.extend(messages);
    }

    /// Retained messages that wait for room in the window or the buffer.
    pub(super) fn replays(&self) -> usize {
        self.replay.len()
    }

    /// Puts an item back that the store had; items come in their order.
    pub(super) fn restore(&mut self, stored: Stored, may_be_sent: bool) {
        let Stored { message, grant, order, id, stage } = stored;
        self.bytes += message.as_ref().map_or(0, |message| message.bytes());
        if let Some(message) = &message {
            message.hold();
        }
        self.last_id = id;
        self.next_order = order + 1;
        self.items.push_back(Item {
            message,
            grant,
            order,
            id,
            stage,
            dup: may_be_sent,
            stored: true,
            held: false,
            command: false,
        });
    }

    /// Moves what is to be written to `out`, at most about the buffer's bound, and fills the buffer
    /// again. Returns whether more is there.
    pub(super) fn take(&mut self, out: &mut Vec<u8>, lasting: bool, bounds: Bounds, now_ms: u64) -> bool {
        self.pump(lasting, bounds, now_ms);
        out.extend_from_slice(&self.packets);
        if self.packets.capacity() > BUFFER_KEPT_MAX {
            self.packets = Vec::new();
        } else {
            self.packets.clear();
        }
        self.pump(lasting, bounds, now_ms);
        if self.packets.is_empty() {
            self.packets = Vec::new();
        }
        !self.packets.is_empty()
    }

    /// PUBACK: the exchange is over. `None` if there is none with this id.
    pub(super) fn acknowledged(&mut self, id: u16, reason: u8) -> Option<Option<Gone>> {
        let at = self.find(id, Stage::Published, Qos::AtLeastOnce)?;
        let fate = if reason < 0x80 { Fate::Acknowledged } else { Fate::Refused { reason } };
        Some(self.remove(at, fate))
    }

    /// PUBREC, which accepts or refuses.
    pub(super) fn received(&mut self, id: u16, accepted: bool) -> Received {
        let found = self.find(id, Stage::Published, Qos::ExactlyOnce);
        let Some(at) = found.or_else(|| self.find(id, Stage::Released, Qos::ExactlyOnce)) else {
            return Received::Unknown;
        };
        if !accepted {
            return Received::Ended(self.remove(at, Fate::Gone));
        }
        let Some(item) = self.items.get_mut(at) else { return Received::Unknown };
        item.stage = Stage::Released;
        let message = item.message.take();
        self.bytes -= message.as_ref().map_or(0, |message| message.bytes());
        Received::Release(item.stored.then_some(Gone { order: item.order, message }))
    }

    /// PUBCOMP: the exchange is over. `None` if there is none with this id.
    pub(super) fn completed(&mut self, id: u16) -> Option<Option<Gone>> {
        let at = self.find(id, Stage::Released, Qos::ExactlyOnce)?;
        Some(self.remove(at, Fate::Gone))
    }

    /// Takes out what left the queue on its own, and how many were let go.
    pub(super) fn take_gone(&mut self) -> (Vec<Gone>, Losses) {
        (std::mem::take(&mut self.gone), std::mem::take(&mut self.losses))
    }

    /// Empties it for good; what has a place in the store comes out.
    pub(super) fn clear(&mut self) -> Vec<Gone> {
        self.withdraw_all();
        let mut gone = std::mem::take(&mut self.gone);
        let stored = self.items.drain(..).filter(|item| item.stored);
        gone.extend(stored.map(|item| Gone { order: item.order, message: item.message }));
        *self = Self { next_order: self.next_order, commands: self.commands.take(), ..Self::default() };
        gone
    }

    /// Nothing of it belongs to the store any more; what did comes out.
    pub(super) fn unstore(&mut self) -> Vec<Gone> {
        let mut gone = std::mem::take(&mut self.gone);
        for item in self.items.iter_mut().filter(|item| item.stored) {
            (item.stored, item.held) = (false, false);
            gone.push(Gone { order: item.order, message: item.message.clone() });
        }
        gone
    }

    /// Messages in the queue.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether anything is to be written or waits for room.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.packets.is_empty() && self.items.is_empty() && self.replay.is_empty()
    }

    fn has_place(&self, message: &Message, bounds: Bounds) -> bool {
        let waiting = self.items.len() - self.commands();
        waiting < bounds.queue_messages_max
            && self.items.len() < IDS
            && (waiting == 0 || (!bounds.is_full && self.bytes + message.bytes() <= bounds.queue_bytes_max))
            && !self.ids_are_used_up()
    }

    /// Whether the packet ids went round to one that is taken.
    fn ids_are_used_up(&self) -> bool {
        self.items.front().is_some_and(|first| first.id == next_id(self.last_id))
    }

    fn push(&mut self, message: Arc<Message>, grant: Grant, stored: bool) -> (u64, u16) {
        self.last_id = next_id(self.last_id);
        let (order, id) = (self.next_order, self.last_id);
        self.next_order += 1;
        self.bytes += message.bytes();
        message.hold();
        let message = Some(message);
        let stage = Stage::Published;
        let (dup, held, command) = (false, stored, false);
        self.items.push_back(Item { message, grant, order, id, stage, dup, stored, held, command });
        (order, id)
    }

    /// Sends what the window and the buffer have room for.
    fn pump(&mut self, lasting: bool, bounds: Bounds, now_ms: u64) {
        self.send_items(lasting, bounds, now_ms);
        while let Some((message, grant)) = self.replay.pop_front() {
            let waits = if grant.qos == Qos::AtMostOnce {
                self.put_unasked(&message, &grant, bounds, now_ms) == Err(Loss::Full)
            } else {
                self.sent < self.items.len() || self.sent >= self.terms.window
            };
            if waits {
                self.replay.push_front((message, grant));
                break;
            }
            if grant.qos != Qos::AtMostOnce {
                self.push(message, grant, false);
                self.send_items(lasting, bounds, now_ms);
            }
        }
        if self.replay.is_empty() && self.replay.capacity() > 0 {
            self.replay = VecDeque::new();
        }
    }

    fn send_items(&mut self, lasting: bool, bounds: Bounds, now_ms: u64) {
        while self.sent < self.terms.window.min(self.items.len()) {
            let Some(item) = self.items.get_mut(self.sent).filter(|item| !item.held) else { break };
            if item.stage == Stage::Released {
                pubrel(&mut self.packets, item.id, Reason::Success);
                self.sent += 1;
                continue;
            }
            let Some(message) = item.message.clone() else {
                // It was sent on an earlier connection of a session that should have ended with it.
                self.forget(self.sent, Fate::Gone);
                continue;
            };
            if message.is_expired(now_ms) && !item.dup {
                self.losses.expired += 1;
                self.forget(self.sent, Fate::Expired);
                continue;
            }
            let command = item.command;
            let (grant, sending) =
                (item.grant.clone(), Sending { id: item.id, dup: item.dup, alias: !command });
            match self.put(&message, &grant, sending, bounds, now_ms) {
                Ok(()) => {
                    if (command || !lasting)
                        && let Some(item) = self.items.get_mut(self.sent)
                    {
                        item.message = None;
                        self.bytes -= if command { 0 } else { message.bytes() };
                    }
                    self.sent += 1;
                }
                Err(Loss::TooLarge) => {
                    self.losses.too_large += 1;
                    self.forget(self.sent, Fate::Gone);
                }
                Err(_) => break,
            }
        }
    }

    /// Lets what is retained of a topic go before a newer message of it ([MQTT-4.6.0-5]); false if it finds
    /// no place. At QoS 0 the newer one may do without it.
    fn hasten(&mut self, topic: &str, bounds: Bounds, now_ms: u64) -> bool {
        while let Some(at) = self.replay.iter().position(|(kept, _)| kept.topic() == topic) {
            let Some((kept, grant)) = self.replay.remove(at) else { return true };
            if grant.qos == Qos::AtMostOnce {
                let is_connected = self.terms.window > 0;
                let put = is_connected.then(|| self.put_unasked(&kept, &grant, bounds, now_ms));
                let full = put.unwrap_or(Err(Loss::Full)) == Err(Loss::Full);
                self.losses.full += u64::from(full);
            } else if self.has_place(&kept, bounds) {
                self.push(kept, grant, false);
            } else {
                self.replay.insert(at, (kept, grant));
                return false;
            }
        }
        true
    }

    /// Encodes a publish at QoS 0.
    fn put_unasked(
        &mut self,
        message: &Message,
        grant: &Grant,
        bounds: Bounds,
        now_ms: u64,
    ) -> Result<(), Loss> {
        if message.is_expired(now_ms) {
            return Err(Loss::Expired);
        }
        self.put(message, grant, Sending { id: 0, dup: false, alias: true }, bounds, now_ms)
    }

    /// Encodes a publish if the buffer has room; an empty one takes any.
    fn put(
        &mut self,
        message: &Message,
        grant: &Grant,
        Sending { id, dup, alias }: Sending,
        bounds: Bounds,
        now_ms: u64,
    ) -> Result<(), Loss> {
        let mut delivery = Delivery {
            topic: message.topic(),
            alias: None,
            dup,
            qos: grant.qos,
            retain: grant.retain,
            id,
            expiry_seconds: message.expiry_seconds(now_ms),
            subscription_ids: grant.ids.as_slice(),
            properties: message.properties(),
            payload: message.payload(),
        };
        let used = self.packets.len();
        let room = if used == 0 { usize::MAX } else { bounds.buffer_bytes_max.saturating_sub(used) };
        let room = room.min(self.terms.packet_bytes_max);
        let version = self.terms.version;
        if self.terms.aliases_max == 0 || !alias {
            let written = publish_to(&mut self.packets, version, &delivery, room);
            return if written { Ok(()) } else { Err(self.why_not(room)) };
        }
        let aliases = self.aliases.get_or_insert_default();
        let (alias, new) = aliases.of(message.topic(), self.terms.aliases_max);
        delivery.alias = alias;
        if alias.is_some() && !new {
            delivery.topic = "";
        }
        if publish_to(&mut self.packets, version, &delivery, room) {
            return Ok(());
        }
        if new {
            // The client has not heard of it.
            aliases.forget(message.topic());
        }
        Err(self.why_not(room))
    }

    const fn why_not(&self, room: usize) -> Loss {
        if room >= self.terms.packet_bytes_max { Loss::TooLarge } else { Loss::Full }
    }

    /// Finds what is on its way under `id`.
    fn find(&self, id: u16, stage: Stage, qos: Qos) -> Option<usize> {
        let on_their_way = self.items.iter().take(self.sent);
        let is = |item: &Item| item.id == id && item.stage == stage && item.grant.qos == qos;
        on_their_way.into_iter().position(is)
    }

    /// Takes out an item; `fate` is what became of it, if it is a command.
    fn remove(&mut self, at: usize, fate: Fate) -> Option<Gone> {
        let item = self.items.remove(at)?;
        self.sent -= usize::from(at < self.sent);
        if item.command {
            self.end_command(item.order, fate);
        } else {
            self.bytes -= item.message.as_ref().map_or(0, |message| message.bytes());
        }
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
        item.stored.then_some(Gone { order: item.order, message: item.message })
    }

    /// Takes out an item that will not be sent.
    fn forget(&mut self, at: usize, fate: Fate) {
        let gone = self.remove(at, fate);
        self.gone.extend(gone);
    }

    fn drop_expired(&mut self, now_ms: u64) {
        let mut at = self.sent;
        while let Some(item) = self.items.get(at) {
            if !item.dup && item.message.as_ref().is_some_and(|message| message.is_expired(now_ms)) {
                self.losses.expired += 1;
                self.forget(at, Fate::Expired);
            } else {
                at += 1;
            }
        }
    }
}

const fn next_id(id: u16) -> u16 {
    if id == u16::MAX { 1 } else { id + 1 }
}

// === impl Terms ===

impl Default for Terms {
    fn default() -> Self {
        Self { version: Version::V3, window: 0, packet_bytes_max: usize::MAX, aliases_max: 0 }
    }
}

// === impl Ids ===

impl Ids {
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    /// One more; 0 is none.
    pub(super) fn push(&mut self, id: u32) {
        if id != 0 {
            let ids = match std::mem::take(self) {
                Self::None => return *self = Self::One(id),
                Self::One(first) => vec![first, id],
                Self::Many(ids) => [&ids[..], &[id]].concat(),
            };
            *self = Self::Many(ids.into());
        }
    }
}

// === impl Loss ===

impl Loss {
    /// Every value of the label `reason`, in order.
    pub(super) const NAMES: [&str; 3] = ["full", "too_large", "expired"];

    /// Its place in [`Self::NAMES`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}
