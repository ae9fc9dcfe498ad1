//! A session: what the gateway knows of a client beyond its connection (MQTT 5, section 4.1).
//!
//! A session *lasts* if it outlives its connection: MQTT 5 with a session expiry, 3.1.1 without clean
//! session. What a lasting session must not forget is in the store, and every change of it is
//! submitted before anything is said that rests on it: subscriptions, received packet ids of QoS 2,
//! queued messages and the state of their exchanges. A queued message is sent when its place in the
//! store is durable, so that an exchange never begins that a crash could make happen twice.

mod commands;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::access::Who;
use super::codec::Qos;
use super::durable::{
    QueuedRecord, SessionRecord, Stage as StoredStage, StateKey, SubscriptionRecord, WillRecord,
};
use super::link::{Link, Signal};
use super::message::Message;
use super::outgoing::{Bounds, Fates, Gone, Grant, Loss, Losses, Offered, Outgoing, Received, Terms};
use super::router::{Options, Router};
use super::will::Will;
use crate::outbox::StateOps;

/// The session of one client id.
#[derive(Debug)]
pub(super) struct Session {
    number: u64,
    client: Arc<str>,
    device: Arc<str>,
    user: Option<Arc<str>>,
    connected: AtomicBool,
    /// It counts as a lasting one.
    counted: AtomicBool,
    state: Mutex<State>,
}

/// Who a client is, as access rules see it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: Arc<str>,
    pub(super) device: Arc<str>,
    pub(super) user: Option<Arc<str>>,
}

impl Client {
    pub(super) fn who(&self) -> Who<'_> {
        Who { user: self.user.as_deref(), client: &self.id, device: &self.device }
    }
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    lasting: bool,
    /// How long it outlives a connection.
    expiry_seconds: u32,
    /// When it ends unless a connection comes, in Unix milliseconds.
    ends_at_ms: Option<u64>,
    subscriptions: Vec<Subscription>,
    outgoing: Outgoing,
    /// Packet ids of QoS 2 publishes that were taken and not released, sorted. With a connection, the
    /// connection has them; `None` is not known: the store is to be asked.
    received: Option<Vec<u16>>,
    will: Option<Box<Will>>,
    /// When the will is due, in Unix milliseconds, once the connection is gone.
    will_due_ms: Option<u64>,
    /// The store has a record of it.
    in_store: bool,
    ended: bool,
}

#[derive(Debug)]
struct Subscription {
    /// With `$share/group/` if it is shared.
    filter: Box<str>,
    options: Options,
}

/// What became of a message for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    /// On its way, or waiting for it.
    Yes,
    /// It waits until this place in the store is durable.
    Promised(u64),
    Dropped(Loss),
    /// The session takes nothing now.
    No,
}

/// What was planned for a session before a connection came.
#[derive(Debug)]
pub(super) struct Before {
    /// When it would have ended.
    pub(super) ends_at_ms: Option<u64>,
    /// When its will would have been due.
    pub(super) will_due_ms: Option<u64>,
}

/// What PUBREC of the client leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// PUBREL; `stored` says that the store changes first.
    Release {
        stored: bool,
    },
    None,
    Unknown,
}

// === impl Session ===

impl Session {
    pub(super) fn new(number: u64, client: Client) -> Self {
        let Client { id, device, user } = client;
        let state = State { received: Some(Vec::new()), ..State::default() };
        Self {
            number,
            client: id,
            device,
            user,
            connected: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// A session that the store has, without a connection.
    pub(super) fn restored(
        number: u64,
        record: &SessionRecord<'_>,
        ends_at_ms: u64,
        will_due_ms: Option<u64>,
    ) -> Self {
        let device: Arc<str> = record.device.into();
        let client = if record.client == record.device { Arc::clone(&device) } else { record.client.into() };
        let user = record.user.map(Arc::from);
        let session = Self::new(number, Client { id: client, device, user });
        {
            let mut state = session.state.lock();
            state.lasting = true;
            state.in_store = true;
            state.expiry_seconds = record.expiry_seconds;
            state.ends_at_ms = Some(ends_at_ms);
            state.subscriptions = record
                .subscriptions
                .iter()
                .map(|one| Subscription { filter: one.filter.into(), options: options_of(one) })
                .collect();
            state.will = record.will.as_ref().map(|will| Box::new(Will::restored(&will.message)));
            state.will_due_ms = will_due_ms;
        }
        session
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn client(&self) -> &Arc<str> {
        &self.client
    }

    pub(super) const fn device(&self) -> &Arc<str> {
        &self.device
    }

    pub(super) const fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// Who it is, for access rules.
    pub(super) fn who(&self) -> Who<'_> {
        Who { user: self.user.as_deref(), client: &self.client, device: &self.device }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn is_lasting(&self) -> bool {
        self.state.lock().lasting
    }

    /// Notes whether it counts as a lasting one; says whether that is a change.
    pub(super) fn count(&self, lasting: bool) -> bool {
        self.counted.swap(lasting, Ordering::Relaxed) != lasting
    }

    /// Gives it a connection. What was on its way is sent again.
    pub(super) fn attach(
        &self,
        link: &Arc<Link>,
        terms: Terms,
        expiry_seconds: u32,
        will: Option<Box<Will>>,
    ) -> Before {
        let mut state = self.state.lock();
        state.link = Some(Arc::clone(link));
        state.lasting = expiry_seconds > 0;
        state.expiry_seconds = expiry_seconds;
        let before = Before { ends_at_ms: state.ends_at_ms.take(), will_due_ms: state.will_due_ms.take() };
        state.will = will;
        state.outgoing.attach(terms);
        state.received = None;
        let waiting = state.outgoing.len() > 0;
        drop(state);
        self.connected.store(true, Ordering::Relaxed);
        if waiting {
            link.raise(Signal::Delivery);
        }
        before
    }

    /// Takes the connection away, unless another one has it by now. Returns what became of commands.
    /// `received`: the ids that the connection had, if it is sure of them.
    pub(super) fn detach(&self, link: &Arc<Link>, received: Option<Vec<u16>>, now_ms: u64) -> Option<Fates> {
        let mut state = self.state.lock();
        if !state.link.as_ref().is_some_and(|known| Arc::ptr_eq(known, link)) {
            return None;
        }
        state.link = None;
        state.outgoing.detach();
        let fates = state.outgoing.take_fates();
        state.received = received;
        state.ends_at_ms = Some(now_ms.saturating_add(u64::from(state.expiry_seconds) * 1000));
        state.subscriptions.shrink_to_fit();
        drop(state);
        self.connected.store(false, Ordering::Relaxed);
        Some(fates)
    }

    /// Changes how long it outlives its connection (MQTT 5, section 3.14.2.2.2).
    pub(super) fn set_expiry(&self, seconds: u32) {
        let mut state = self.state.lock();
        state.expiry_seconds = seconds;
        state.lasting = seconds > 0;
    }

    /// When it ends unless a connection comes, in Unix milliseconds; `None` while it has one.
    pub(super) fn ends_at_ms(&self) -> Option<u64> {
        let state = self.state.lock();
        state.ends_at_ms.filter(|_| state.link.is_none())
    }

    pub(super) fn take_received(&self) -> Option<Vec<u16>> {
        self.state.lock().received.take()
    }

    /// Adds a packet id that the store has, after a restart; they come in order.
    pub(super) fn restore_received(&self, id: u16) {
        self.state.lock().received.get_or_insert_default().push(id);
    }

    // --- wills ---

    /// Takes the will away: the client said goodbye, or it is published now.
    pub(super) fn take_will(&self) -> Option<Box<Will>> {
        let mut state = self.state.lock();
        state.will_due_ms = None;
        state.will.take()
    }

    pub(super) fn has_will(&self) -> bool {
        self.state.lock().will.is_some()
    }

    /// The connection ended without a goodbye. Returns the will if it is due at once, else when it is
    /// due: after its delay or at the session's end, whichever is first ([MQTT-3.1.3-9]).
    pub(super) fn will_due(&self, now_ms: u64) -> (Option<Box<Will>>, Option<u64>) {
        let mut state = self.state.lock();
        let Some(will) = &state.will else { return (None, None) };
        let delay = will.delay_seconds().min(state.expiry_seconds);
        if delay == 0 {
            return (state.will.take(), None);
        }
        let due = now_ms.saturating_add(u64::from(delay) * 1000);
        state.will_due_ms = Some(due);
        (None, Some(due))
    }

    /// The will, if it is due now and no connection came.
    pub(super) fn take_due_will(&self, now_ms: u64) -> Option<Box<Will>> {
        let mut state = self.state.lock();
        if state.link.is_some() || state.will_due_ms.is_none_or(|due| due > now_ms) {
            return None;
        }
        state.will_due_ms = None;
        state.will.take()
    }

    // --- subscriptions ---

    /// Adds or replaces a subscription; `None` if it would be one more than `most`, else whether it
    /// is new.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        router: &Router<Self>,
        filter: &str,
        options: Options,
        most: usize,
    ) -> Option<bool> {
        let mut state = self.state.lock();
        let count = state.subscriptions.len();
        match state.subscriptions.iter_mut().find(|one| *one.filter == *filter) {
            Some(one) => one.options = options,
            None if count >= most => return None,
            None => {
                state.subscriptions.reserve_exact(1);
                state.subscriptions.push(Subscription { filter: filter.into(), options });
            }
        }
        drop(state);
        Some(router.subscribe(split_shared(filter), (self.number, self), options))
    }

    /// Ends a subscription; false if there was none.
    pub(super) fn unsubscribe(&self, router: &Router<Self>, filter: &str) -> bool {
        let mut state = self.state.lock();
        let before = state.subscriptions.len();
        state.subscriptions.retain(|one| *one.filter != *filter);
        let found = state.subscriptions.len() < before;
        drop(state);
        if found {
            router.unsubscribe(split_shared(filter), self.number);
        }
        found
    }

    /// Enters what it subscribes to into the router, after a restart.
    pub(super) fn enter_subscriptions(self: &Arc<Self>, router: &Router<Self>) {
        let state = self.state.lock();
        for one in &state.subscriptions {
            router.subscribe(split_shared(&one.filter), (self.number, self), one.options);
        }
    }

    // --- deliveries ---

    /// Takes a message in. What is queued for a lasting session is written to `ops` and waits for
    /// [`Self::keep_promise`].
    pub(super) fn deliver(
        &self,
        message: &Arc<Message>,
        grant: Grant,
        bounds: Bounds,
        now_ms: u64,
        ops: &mut StateOps,
    ) -> Delivered {
        let (delivered, fates) = {
            let mut state = self.state.lock();
            let delivered = self.deliver_in(&mut state, message, grant, (bounds, now_ms), ops);
            (delivered, state.outgoing.take_fates())
        };
        fates.tell();
        delivered
    }

    fn deliver_in(
        &self,
        state: &mut State,
        message: &Arc<Message>,
        grant: Grant,
        (bounds, now_ms): (Bounds, u64),
        ops: &mut StateOps,
    ) -> Delivered {
        let waits = state.lasting && grant.qos != Qos::AtMostOnce;
        let offline = state.link.is_none();
        if offline && waits && bounds.is_full && !state.ended {
            return Delivered::Dropped(Loss::Full);
        }
        if state.ended || (offline && !waits) {
            return Delivered::No;
        }
        let ids = if waits { grant.ids.clone() } else { super::outgoing::Ids::None };
        let (qos, retain) = (grant.qos, grant.retain);
        match state.outgoing.offer(message, grant, waits, bounds, now_ms) {
            Offered::Dropped(loss) => Delivered::Dropped(loss),
            Offered::Queued { order, id } if waits => {
                if message.store() == 1 {
                    message.put(ops);
                }
                let record = QueuedRecord {
                    packet_id: id,
                    stage: StoredStage::Waiting,
                    message: message.number(),
                    qos: qos.number(),
                    retain,
                    subscription_ids: ids.as_slice().to_vec(),
                };
                put(&StateKey::Queued(self.number, order), |value| record.encode(value), ops);
                Delivered::Promised(order)
            }
            Offered::Done | Offered::Queued { .. } => {
                if let Some(link) = &state.link {
                    link.raise(Signal::Delivery);
                }
                Delivered::Yes
            }
        }
    }

    /// The place `order` in the store is durable, or nobody knows what became of it: the message is
    /// sent. In doubt it may come twice, since its publisher was not told that it is taken.
    pub(super) fn keep_promise(&self, order: u64) {
        let mut state = self.state.lock();
        state.outgoing.confirm(order);
        if let Some(link) = &state.link {
            link.raise(Signal::Delivery);
        }
    }

    /// Lines retained messages up for a new subscription.
    ///
    /// They are looked up in here: what is published from now on waits for this session's lock, so that it
    /// comes after them.
    pub(super) fn replay<T>(&self, messages: impl FnOnce() -> T)
    where
        T: Iterator<Item = (Arc<Message>, Grant)>,
    {
        let mut state = self.state.lock();
        state.outgoing.replay(messages());
        if state.outgoing.replays() == 0 {
            return;
        }
        if let Some(link) = &state.link {
            link.raise(Signal::Delivery);
        }
    }

    /// Retained messages that wait for room in the window or the buffer.
    pub(super) fn replays(&self) -> usize {
        self.state.lock().outgoing.replays()
    }

    /// Moves what is to be written to `out`; says whether there is more, and what was let go.
    pub(super) fn take_packets(
        &self,
        out: &mut Vec<u8>,
        bounds: Bounds,
        now_ms: u64,
        ops: &mut StateOps,
    ) -> (bool, Losses) {
        let mut state = self.state.lock();
        let lasting = state.lasting;
        let more = state.outgoing.take(out, lasting, bounds, now_ms);
        let fates = state.outgoing.take_fates();
        let (gone, losses) = state.outgoing.take_gone();
        drop(state);
        fates.tell();
        self.give_up(gone, ops);
        (more, losses)
    }

    /// PUBACK of the client; false if nothing is on its way under this id.
    pub(super) fn acknowledged(&self, id: u16, reason: u8, ops: &mut StateOps) -> bool {
        let (gone, fates) = {
            let mut state = self.state.lock();
            let Some(gone) = state.outgoing.acknowledged(id, reason) else { return false };
            (gone, state.outgoing.take_fates())
        };
        fates.tell();
        self.give_up(gone, ops);
        true
    }

    /// PUBREC of the client.
    pub(super) fn received(&self, id: u16, accepted: bool, ops: &mut StateOps) -> Answer {
        let received = self.state.lock().outgoing.received(id, accepted);
        match received {
            Received::Unknown => Answer::Unknown,
            Received::Ended(gone) => {
                self.give_up(gone, ops);
                Answer::None
            }
            Received::Release(None) => Answer::Release { stored: false },
            Received::Release(Some(Gone { order, message })) => {
                let record = QueuedRecord {
                    packet_id: id,
                    stage: StoredStage::Released,
                    message: 0,
                    qos: Qos::ExactlyOnce.number(),
                    retain: false,
                    subscription_ids: Vec::new(),
                };
                put(&StateKey::Queued(self.number, order), |value| record.encode(value), ops);
                release(message, ops);
                Answer::Release { stored: true }
            }
        }
    }

    /// PUBCOMP of the client; false if nothing is on its way under this id.
    pub(super) fn completed(&self, id: u16, ops: &mut StateOps) -> bool {
        let Some(gone) = self.state.lock().outgoing.completed(id) else { return false };
        self.give_up(gone, ops);
        true
    }

    /// Puts back what the store had queued; the first `window` of it may have been sent.
    pub(super) fn restore(&self, items: Vec<super::outgoing::Stored>, window: usize) {
        let mut state = self.state.lock();
        for (place, item) in items.into_iter().enumerate() {
            state.outgoing.restore(item, place < window);
        }
    }

    // --- the store ---

    /// Writes its record to `ops`, if a restart has to know of it: it lasts, or has a will.
    pub(super) fn record(&self, ops: &mut StateOps) {
        let mut state = self.state.lock();
        if state.ended || !(state.lasting || state.will.is_some()) {
            return;
        }
        state.in_store = true;
        let record = SessionRecord {
            client: &self.client,
            device: &self.device,
            user: self.user.as_deref(),
            expiry_seconds: state.expiry_seconds,
            ends_at_ms: state.ends_at_ms,
            subscriptions: state.subscriptions.iter().map(record_of).collect(),
            will: state.will.as_ref().map(|will| WillRecord {
                due_ms: state.will_due_ms.unwrap_or(u64::from(will.delay_seconds()) * 1000),
                message: will.record(&self.client),
            }),
        };
        put(&StateKey::Session(self.number), |value| record.encode(value), ops);
    }

    /// Takes out of the store what a session that lasted has there, if it does not last any more.
    pub(super) fn forget(&self, received: &[u16], ops: &mut StateOps) {
        let mut state = self.state.lock();
        if state.lasting || !state.in_store {
            return;
        }
        state.in_store = false;
        let gone = state.outgoing.unstore();
        drop(state);
        self.give_up(gone, ops);
        self.delete(received, ops);
    }

    fn delete(&self, received: &[u16], ops: &mut StateOps) {
        ops.delete(&StateKey::Session(self.number).encode());
        for id in received {
            ops.delete(&StateKey::Received(self.number, *id).encode());
        }
    }

    /// Ends it for good. Its will, if it has one left, comes out; `received` are its packet ids.
    pub(super) fn end(
        &self,
        router: &Router<Self>,
        received: &[u16],
        ops: &mut StateOps,
    ) -> Option<Box<Will>> {
        let mut state = self.state.lock();
        if state.ended {
            return None;
        }
        state.ended = true;
        let subscriptions = std::mem::take(&mut state.subscriptions);
        let gone = state.outgoing.clear();
        let fates = state.outgoing.take_fates();
        let will = state.will.take();
        let in_store = state.in_store;
        drop(state);
        fates.tell();
        for one in subscriptions {
            router.unsubscribe(split_shared(&one.filter), self.number);
        }
        self.give_up(gone, ops);
        if in_store {
            self.delete(received, ops);
        }
        will
    }

    fn give_up(&self, gone: impl IntoIterator<Item = Gone>, ops: &mut StateOps) {
        for Gone { order, message } in gone {
            ops.delete(&StateKey::Queued(self.number, order).encode());
            release(message, ops);
        }
    }
}

fn put(key: &StateKey, encode: impl FnOnce(&mut Vec<u8>), ops: &mut StateOps) {
    let mut value = Vec::new();
    encode(&mut value);
    ops.put(&key.encode(), &value);
}

/// A place in the store does not hold the message any more.
fn release(message: Option<Arc<Message>>, ops: &mut StateOps) {
    if let Some(message) = message.filter(|message| message.release()) {
        ops.delete(&StateKey::Message(message.number()).encode());
    }
}

/// The group of a shared subscription, and the filter.
pub(super) fn split_shared(filter: &str) -> (Option<&str>, &str) {
    match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((group, filter)) => (Some(group), filter),
        None => (None, filter),
    }
}

fn options_of(record: &SubscriptionRecord<'_>) -> Options {
    Options {
        id: record.id,
        qos: record.qos,
        no_local: record.no_local,
        retain_as_published: record.retain_as_published,
        // Rules may have changed since: they are asked for every delivery.
        guarded: true,
    }
}

fn record_of(one: &Subscription) -> SubscriptionRecord<'_> {
    SubscriptionRecord {
        filter: &one.filter,
        qos: one.options.qos,
        no_local: one.options.no_local,
        retain_as_published: one.options.retain_as_published,
        id: one.options.id,
    }
}
