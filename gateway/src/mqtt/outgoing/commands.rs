//! Commands in the queue of a session: like any message of QoS 1 on the wire, but bound to the connection
//! and awaited by whoever sent them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Grant, IDS, Ids, Item, Outgoing, Stage, next_id};
use crate::mqtt::codec::{Delivery, Qos, publish_bytes};
use crate::mqtt::devices::Fate;
use crate::mqtt::message::Message;

/// Most commands that one queue holds, those included that nobody waits for any more.
pub(in crate::mqtt) const COMMANDS_MAX: usize = 16;

/// The commands of one queue.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// Every command in the queue by its order, and who waits for what becomes of it.
    queued: Vec<(u64, Option<oneshot::Sender<Fate>>)>,
    /// What became of others, not told yet.
    ended: Fates,
}

/// What became of commands. Whoever gets it tells it, when no lock is held: that wakes.
#[must_use]
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Fates(Vec<(oneshot::Sender<Fate>, Fate)>);

/// The queue holds as many commands as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct NoPlace;

// === impl Outgoing ===

impl Outgoing {
    /// Takes a command in. It is sent by the next [`Self::take`] that has room for it.
    pub(in crate::mqtt) fn command(
        &mut self,
        message: Arc<Message>,
        ids: Ids,
    ) -> Result<(u64, oneshot::Receiver<Fate>), NoPlace> {
        if self.commands() >= COMMANDS_MAX || self.items.len() >= IDS || self.ids_are_used_up() {
            return Err(NoPlace);
        }
        self.last_id = next_id(self.last_id);
        let (order, id) = (self.next_order, self.last_id);
        self.next_order += 1;
        self.items.push_back(Item {
            message: Some(message),
            grant: Grant { qos: Qos::AtLeastOnce, retain: false, ids },
            order,
            id,
            stage: Stage::Published,
            dup: false,
            stored: false,
            held: false,
            command: true,
        });
        let (teller, told) = oneshot::channel();
        self.commands.get_or_insert_default().queued.push((order, Some(teller)));
        Ok((order, told))
    }

    /// The size of the packet that a command becomes, in bytes, and the most that it may have.
    pub(in crate::mqtt) fn command_bytes(&self, message: &Message, ids: &Ids, now_ms: u64) -> (usize, usize) {
        let delivery = Delivery {
            topic: message.topic(),
            alias: None,
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            id: 0,
            expiry_seconds: message.expiry_seconds(now_ms),
            subscription_ids: ids.as_slice(),
            properties: message.properties(),
            payload: message.payload(),
        };
        (publish_bytes(self.terms.version, &delivery), self.terms.packet_bytes_max)
    }

    /// Nobody waits for this command any more: it leaves the queue, unless it is on its way. Then its packet
    /// id stays taken until the client acknowledges it.
    pub(in crate::mqtt) fn withdraw(&mut self, order: u64) {
        let Ok(at) = self.items.binary_search_by_key(&order, |item| item.order) else { return };
        if at >= self.sent {
            let _not_stored = self.remove(at, Fate::Gone);
        }
        self.forget_waiter(order);
    }

    /// Every command leaves the queue: the connection is over.
    pub(super) fn withdraw_all(&mut self) {
        if self.commands() == 0 {
            return;
        }
        self.sent = self.items.iter().take(self.sent).filter(|item| !item.command).count();
        self.items.retain(|item| !item.command);
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
        if let Some(commands) = &mut self.commands {
            let queued = commands.queued.drain(..).filter_map(|(_, teller)| teller);
            commands.ended.0.extend(queued.map(|teller| (teller, Fate::Gone)));
        }
    }

    /// A command left the queue.
    pub(super) fn end_command(&mut self, order: u64, fate: Fate) {
        let Some(commands) = &mut self.commands else { return };
        let Some(at) = commands.queued.iter().position(|(queued, _)| *queued == order) else { return };
        if let (_, Some(teller)) = commands.queued.swap_remove(at) {
            commands.ended.0.push((teller, fate));
        }
    }

    fn forget_waiter(&mut self, order: u64) {
        let Some(commands) = &mut self.commands else { return };
        for (_, teller) in commands.queued.iter_mut().filter(|(queued, _)| *queued == order) {
            *teller = None;
        }
    }

    /// Takes out what became of commands.
    #[inline]
    pub(in crate::mqtt) fn take_fates(&mut self) -> Fates {
        let Some(commands) = &mut self.commands else { return Fates::default() };
        let ended = std::mem::take(&mut commands.ended);
        if commands.queued.is_empty() {
            self.commands = None;
        }
        ended
    }

    /// Commands in the queue.
    pub(super) fn commands(&self) -> usize {
        self.commands.as_ref().map_or(0, |commands| commands.queued.len())
    }
}

// === impl Fates ===

impl Fates {
    /// Tells everybody who still waits.
    pub(in crate::mqtt) fn tell(self) {
        for (teller, fate) in self.0 {
            // An error says that nobody waits.
            let _heard = teller.send(fate).is_ok();
        }
    }
}
