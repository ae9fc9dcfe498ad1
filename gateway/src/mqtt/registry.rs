//! Who is connected: by client id for take-over, by device for local deliveries.
//!
//! A connection has one [`Link`], through which everything outside its task reaches it. The device
//! of a link is looked up once, at CONNECT; whether anybody subscribes to it is one atomic load per
//! publish from then on.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::codec::{Delivery, PublishProperties, Qos, Version, filter_matches, publish_to};

const SHARDS: usize = 16;

/// Everything outside a connection's task that can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Signal {
    /// Its keep alive, or another deadline, may have passed.
    Deadline = 1,
    /// Another connection has its client id.
    TakenOver = 2,
    /// The gateway stops.
    Stop = 4,
    /// Something waits to be delivered.
    Delivery = 8,
}

/// The handle of one connection.
#[derive(Debug)]
pub(super) struct Link {
    client: Box<str>,
    device: Arc<Device>,
    version: Version,
    /// Largest packet the client takes, in bytes.
    packet_bytes_max: usize,
    signals: AtomicU8,
    /// Tick at which [`Signal::Deadline`] is due.
    deadline: AtomicU32,
    inbox: Mutex<Inbox>,
    /// Set when the connection is over: what it submitted is durable, failed or given up.
    gone: AtomicU8,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inbox {
    waker: Option<Waker>,
    /// Packets to deliver, encoded; owns no memory while it is empty.
    packets: Vec<u8>,
}

/// A device and who subscribes to what it publishes.
#[derive(Debug)]
pub(super) struct Device {
    id: Box<str>,
    /// Length of `subscriptions`.
    subscribed: AtomicUsize,
    subscriptions: Mutex<Vec<Subscription>>,
}

#[derive(Debug)]
struct Subscription {
    link: Arc<Link>,
    filter: Box<str>,
    options: SubscriptionOptions,
}

/// How a subscription wants its deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubscriptionOptions {
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
}

/// How many subscribers a publish reached.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) queued: u64,
    pub(super) dropped: u64,
}

/// Every connection after its CONNECT.
#[derive(Debug)]
pub(super) struct Registry {
    hasher: RandomState,
    shards: [Shard; SHARDS],
    outgoing_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    clients: Mutex<HashSet<ByClient>>,
    devices: Mutex<Devices>,
}

/// Each device with the number of its connections.
type Devices = HashMap<Box<str>, (Arc<Device>, usize)>;

#[derive(Debug)]
struct ByClient(Arc<Link>);

// === impl Link ===

impl Link {
    /// No deadline.
    pub(super) const NEVER: u32 = u32::MAX;

    pub(super) fn client(&self) -> &str {
        &self.client
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Remembers whom to wake; cheap if it is the same task as before.
    pub(super) fn register(&self, waker: &Waker) {
        let known = &mut self.inbox.lock().waker;
        match known {
            Some(known) => known.clone_from(waker),
            None => *known = Some(waker.clone()),
        }
    }

    /// Raises a signal and wakes the connection, unless it is raised already.
    pub(super) fn raise(&self, signal: Signal) {
        if self.signals.fetch_or(signal as u8, Ordering::AcqRel) & signal as u8 == 0 {
            self.wake();
        }
    }

    fn wake(&self) {
        let waker = self.inbox.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The raised signals as bits; lowers them.
    pub(super) fn take_signals(&self) -> u8 {
        if self.signals.load(Ordering::Acquire) == 0 { 0 } else { self.signals.swap(0, Ordering::AcqRel) }
    }

    /// Whether a signal is raised; leaves it raised.
    pub(super) fn is_raised(&self, signal: Signal) -> bool {
        self.signals.load(Ordering::Acquire) & signal as u8 != 0
    }

    /// Sets the tick of the next [`Signal::Deadline`].
    pub(super) fn set_deadline(&self, tick: u32) {
        self.deadline.store(tick, Ordering::Relaxed);
    }

    pub(super) fn deadline(&self) -> u32 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// Appends what waits to be delivered to `out`.
    pub(super) fn take_deliveries(&self, out: &mut Vec<u8>) {
        let packets = std::mem::take(&mut self.inbox.lock().packets);
        out.extend_from_slice(&packets);
    }

    /// Queues one delivery; refuses it if the queue has no room.
    fn deliver(&self, delivery: &Delivery<'_>, outgoing_bytes_max: usize) -> bool {
        let mut inbox = self.inbox.lock();
        let room = outgoing_bytes_max.saturating_sub(inbox.packets.len()).min(self.packet_bytes_max);
        let queued = publish_to(&mut inbox.packets, self.version, delivery, room);
        drop(inbox);
        if queued {
            self.raise(Signal::Delivery);
        }
        queued
    }

    fn leave(&self) {
        self.gone.store(1, Ordering::Release);
        self.left.notify_waiters();
    }

    /// Waits until the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it holds no state.
    pub(super) async fn gone(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.gone.load(Ordering::Acquire) != 0 {
                return;
            }
            left.await;
        }
    }
}

// === impl Device ===

impl Device {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether anybody subscribes to this device's publishes.
    #[inline]
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed.load(Ordering::Relaxed) != 0
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Subscription>) -> T) -> T {
        let mut subscriptions = self.subscriptions.lock();
        let result = change(&mut subscriptions);
        self.subscribed.store(subscriptions.len(), Ordering::Relaxed);
        result
    }
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(outgoing_bytes_max: usize) -> Self {
        Self { hasher: RandomState::new(), shards: Default::default(), outgoing_bytes_max }
    }

    /// Enters a connection and returns the one that had its client id, which is told so.
    pub(super) fn enter(
        &self,
        client: &str,
        device: &str,
        version: Version,
        packet_bytes_max: usize,
    ) -> (Arc<Link>, Option<Arc<Link>>) {
        let link = Arc::new(Link {
            client: client.into(),
            device: self.device(device),
            version,
            packet_bytes_max,
            signals: AtomicU8::new(0),
            deadline: AtomicU32::new(Link::NEVER),
            inbox: Mutex::default(),
            gone: AtomicU8::new(0),
            left: Notify::new(),
        });
        let older = self.shard(client).clients.lock().replace(ByClient(Arc::clone(&link)));
        if let Some(ByClient(older)) = &older {
            older.raise(Signal::TakenOver);
        }
        (link, older.map(|ByClient(older)| older))
    }

    /// Takes a connection out, with its subscriptions; once per connection.
    pub(super) fn leave(&self, link: &Arc<Link>) {
        let shard = self.shard(&link.client);
        {
            let mut clients = shard.clients.lock();
            if clients.get(&*link.client).is_some_and(|entry| Arc::ptr_eq(&entry.0, link)) {
                clients.remove(&*link.client);
            }
        }
        if link.device.is_subscribed() {
            link.device.change(|all| all.retain(|one| !Arc::ptr_eq(&one.link, link)));
        }
        self.forget(&link.device);
        link.leave();
    }

    /// Whether a client is connected.
    pub(super) fn contains(&self, client: &str) -> bool {
        self.shard(client).clients.lock().contains(client)
    }

    /// How many clients are connected.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.clients.lock().len()).sum()
    }

    /// Raises a signal on every connection.
    pub(super) fn raise_all(&self, signal: Signal) {
        for shard in &self.shards {
            let links: Vec<_> = shard.clients.lock().iter().map(|entry| Arc::clone(&entry.0)).collect();
            for link in links {
                link.raise(signal);
            }
        }
    }

    /// Subscribes a connection to its own device; false if it has `most` subscriptions already. The
    /// same filter again replaces the subscription ([MQTT-3.8.4-3]).
    pub(super) fn subscribe(
        link: &Arc<Link>,
        filter: &str,
        options: SubscriptionOptions,
        most: usize,
    ) -> bool {
        link.device.change(|all| {
            let mut own = 0;
            for one in all.iter_mut().filter(|one| Arc::ptr_eq(&one.link, link)) {
                if *one.filter == *filter {
                    one.options = options;
                    return true;
                }
                own += 1;
            }
            if own < most {
                all.push(Subscription { link: Arc::clone(link), filter: filter.into(), options });
            }
            own < most
        })
    }

    /// Ends a subscription; false if there was none.
    pub(super) fn unsubscribe(link: &Arc<Link>, filter: &str) -> bool {
        link.device.change(|all| {
            let before = all.len();
            all.retain(|one| !(Arc::ptr_eq(&one.link, link) && *one.filter == *filter));
            all.len() < before
        })
    }

    /// Queues a publish of `from`'s device for its subscribers. A connection whose subscriptions
    /// overlap gets it once.
    pub(super) fn deliver(
        &self,
        from: &Link,
        topic: &str,
        retain: bool,
        properties: &PublishProperties<'_>,
        payload: &[u8],
    ) -> Delivered {
        let mut count = Delivered::default();
        let mut forwarded = Vec::new();
        properties.forward(&mut forwarded);
        let subscriptions = from.device.subscriptions.lock();
        for (place, one) in subscriptions.iter().enumerate() {
            let matches = |one: &Subscription| {
                let echo = one.options.no_local && std::ptr::eq(Arc::as_ptr(&one.link), from);
                !echo && filter_matches(&one.filter, topic)
            };
            let earlier = subscriptions.iter().take(place);
            if !matches(one) || earlier.filter(|other| Arc::ptr_eq(&other.link, &one.link)).any(matches) {
                continue;
            }
            let retain = retain && one.options.retain_as_published;
            let delivery = Delivery {
                topic,
                alias: None,
                dup: false,
                qos: Qos::AtMostOnce,
                retain,
                id: 0,
                expiry_seconds: properties.expiry_seconds,
                subscription_ids: &[],
                properties: &forwarded,
                payload,
            };
            if one.link.deliver(&delivery, self.outgoing_bytes_max) {
                count.queued += 1;
            } else {
                count.dropped += 1;
            }
        }
        count
    }

    /// The device of one more connection.
    fn device(&self, id: &str) -> Arc<Device> {
        let mut devices = self.shard(id).devices.lock();
        if let Some((device, links)) = devices.get_mut(id) {
            *links += 1;
            return Arc::clone(device);
        }
        let (subscribed, subscriptions) = (AtomicUsize::new(0), Mutex::default());
        let device = Arc::new(Device { id: id.into(), subscribed, subscriptions });
        devices.insert(id.into(), (Arc::clone(&device), 1));
        device
    }

    /// One connection of a device is gone.
    fn forget(&self, device: &Device) {
        let mut devices = self.shard(&device.id).devices.lock();
        if let Some((_, links)) = devices.get_mut(&device.id) {
            *links -= 1;
            if *links == 0 {
                devices.remove(&device.id);
            }
        }
    }

    fn shard(&self, id: &str) -> &Shard {
        let hash = self.hasher.hash_one(id);
        let place = usize::try_from(hash % 16).unwrap_or(0);
        self.shards.get(place).unwrap_or(&self.shards[0])
    }
}

// === impl ByClient ===

impl Borrow<str> for ByClient {
    fn borrow(&self) -> &str {
        &self.0.client
    }
}

impl PartialEq for ByClient {
    fn eq(&self, other: &Self) -> bool {
        self.0.client == other.0.client
    }
}

impl Eq for ByClient {}

impl Hash for ByClient {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0.client).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SubscriptionOptions = SubscriptionOptions { no_local: false, retain_as_published: false };

    #[test]
    fn nothing_is_left_when_everybody_left() {
        let registry = Registry::new(1024);
        let (one, older) = registry.enter("a", "d", Version::V3, 1024);
        assert!(older.is_none());
        let (two, older) = registry.enter("a", "d", Version::V3, 1024);
        assert!(older.is_some_and(|older| Arc::ptr_eq(&older, &one)) && one.is_raised(Signal::TakenOver));
        let (three, _) = registry.enter("b", "d", Version::V5, 1024);
        assert!(Registry::subscribe(&one, "devices/d/#", OPTIONS, 1));
        assert!(Registry::subscribe(&three, "devices/d/#", OPTIONS, 1));
        assert!(!Registry::subscribe(&three, "devices/d/x", OPTIONS, 1));
        assert_eq!(registry.len(), 2);
        registry.leave(&one);
        assert!(registry.contains("a"), "the older connection does not take the newer one out");
        assert!(two.device().is_subscribed());
        registry.leave(&three);
        assert!(!two.device().is_subscribed());
        registry.leave(&two);
        assert_eq!(registry.len(), 0);
        assert!(registry.shards.iter().all(|shard| shard.devices.lock().is_empty()));
    }

    #[test]
    fn a_full_queue_and_a_small_client_drop_deliveries() {
        let registry = Registry::new(100);
        let (link, _) = registry.enter("a", "d", Version::V3, 60);
        assert!(Registry::subscribe(&link, "#", OPTIONS, 1));
        let deliver = |bytes: usize| {
            registry.deliver(&link, "t", false, &PublishProperties::default(), &vec![0; bytes])
        };
        let queued = Delivered { queued: 1, dropped: 0 };
        let dropped = Delivered { queued: 0, dropped: 1 };
        assert_eq!(deliver(56), dropped, "61 bytes are too large for the client");
        assert_eq!(deliver(55), queued);
        assert_eq!(deliver(55), dropped, "120 bytes do not fit the queue");
        assert_eq!(deliver(30), queued);
        assert!(link.is_raised(Signal::Delivery));
        let mut out = Vec::new();
        link.take_deliveries(&mut out);
        assert_eq!(out.len(), 60 + 35);
        assert_eq!(deliver(55), queued);
    }
}
