//! What the gateway itself publishes: it reaches subscribers as a client's publish does, and never the log.
//!
//! ```text
//! Publisher ──► retained, sessions ──► one submission ──► Pending ──► keeper: durable ──► sent, and told
//! ```
//!
//! What lasting sessions get of it, and the retained message, are durable before they are sent; [`Published`] says
//! when. Whoever waits for nothing drops it, and everybody gets the message all the same.
//!
//! | Bound | At the bound |
//! |---|---|
//! | [`TOPIC_BYTES_MAX`] | refused |
//! | the packet: `packet_bytes_max` | refused |
//! | publishes that are not durable yet, and their changes of state | refused, but for QoS 0 without retain |
//! | queues, buffers and retained messages | as for every other publisher: dropped, counted, and told |

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::codec::{Delivery, OwnProperties, PublishProperties, Qos, Version, is_topic_name, publish_bytes};
use super::promise::Promises;
use super::protocol::Batch;
use super::routing::{Routed, retain, route};
use super::shared::Shared;
use crate::outbox::{CommitFailed, Completion, Ticket, Urgency};
use crate::supervise::{clock, wait_for};

/// Longest topic of the gateway's own, in bytes.
pub(super) const TOPIC_BYTES_MAX: usize = 1_024;
/// Most publishes that are not durable yet.
pub(super) const PENDING_MAX: usize = 1_024;
/// Most bytes of changes of state that belong to them; the last one may go beyond.
pub(super) const PENDING_BYTES_MAX: usize = 4 << 20;

/// Publishes for the gateway itself. Clones are the same; any thread may call it.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// A message of the gateway's own. Content type, correlation data and properties reach MQTT 5 clients only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// A topic name of at most 1,024 bytes that belongs to no device and does not begin with `$`.
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    /// Most that a subscriber's quality of service may be.
    pub(crate) qos: Qos,
    /// It is kept as its topic's message; without a payload, what is kept there goes.
    pub(crate) retain: bool,
    /// When it is not worth delivering any more, in Unix milliseconds of the wall clock.
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) correlation: Option<&'a [u8]>,
    /// User properties, in order. NUL, which MQTT does not know, becomes U+FFFD.
    pub(crate) properties: &'a [(&'a str, &'a str)],
}

/// What became of a publish. Dropping it takes nothing back.
#[derive(Debug)]
pub(crate) struct Published {
    /// Sessions that took it in: it is on its way to them, or in their queues.
    pub(crate) takers: u64,
    /// Sessions that subscribe to it and had no room.
    pub(crate) dropped: u64,
    /// False if it was to be kept as its topic's message and there was no room for that.
    pub(crate) kept: bool,
    durable: Durable,
}

#[derive(Debug)]
enum Durable {
    /// What became of it; nothing of it has to be durable, or it is known.
    Known(Result<(), CommitFailed>),
    Waits(oneshot::Receiver<()>),
}

/// Why a message is not published; nothing happened then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// The topic is empty or too long, or has a wildcard or NUL.
    #[error("not a topic name of at most {TOPIC_BYTES_MAX} bytes")]
    Topic,
    /// The topic begins with `$`, which belongs to the broker.
    #[error("topics that begin with $ are not for messages")]
    Reserved,
    /// A template of telemetry, or that of answers to commands, matches the topic: a subscriber would take the message
    /// for a device's. Topics of commands are the gateway's own.
    #[error("the topic belongs to a device")]
    Template,
    /// The packet, or a field of it, is larger than the gateway or MQTT allows.
    #[error("{bytes} bytes, where at most {most} can be sent")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        most: usize,
    },
    /// It is too old already.
    #[error("its lifetime is over")]
    Expired,
    /// Too much that was published before is not durable yet.
    #[error("earlier messages are not durable yet")]
    Full,
    /// The gateway stops.
    #[error("the gateway stops")]
    Stopping,
}

/// What was published and is not durable yet.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    owed: Vec<Owed>,
    /// Those that are being waited for included.
    count: usize,
    bytes: usize,
    closed: bool,
}

/// One publish whose changes of state are submitted.
#[derive(Debug)]
pub(super) struct Owed {
    done: Arc<Completion>,
    ticket: Ticket,
    promises: Promises,
    told: oneshot::Sender<()>,
    bytes: usize,
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    /// A message at QoS 0 that is not retained, does not expire and says nothing beside its payload.
    pub(crate) const fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            topic,
            payload,
            qos: Qos::AtMostOnce,
            retain: false,
            expires_at_ms: None,
            content_type: None,
            correlation: None,
            properties: &[],
        }
    }

    /// Its properties as they travel, encoded.
    fn block(&self) -> Result<Vec<u8>, PublishError> {
        let own = OwnProperties {
            content_type: self.content_type,
            response_topic: None,
            correlation_data: self.correlation.unwrap_or_default(),
        };
        let mut block = Vec::new();
        let encoded = own.encode(self.properties.iter().copied(), &mut block);
        encoded.map_err(|bytes| PublishError::TooLarge { bytes, most: usize::from(u16::MAX) })?;
        Ok(block)
    }

    /// Seconds that are left to it.
    fn expiry_seconds(&self) -> Result<Option<u32>, PublishError> {
        let Some(at_ms) = self.expires_at_ms else { return Ok(None) };
        let left = at_ms.saturating_sub(clock::unix_ms()).div_ceil(1000);
        if left == 0 {
            return Err(PublishError::Expired);
        }
        Ok(Some(u32::try_from(left).unwrap_or(u32::MAX)))
    }
}

// === impl Publisher ===

impl Publisher {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Hands a message to everybody who subscribes to its topic, and keeps it if it is to be retained.
    ///
    /// # Errors
    ///
    /// Why it cannot be published; nobody got it then.
    pub(crate) fn publish(&self, outgoing: &Outgoing<'_>) -> Result<Published, PublishError> {
        let published = self.publish_in(outgoing);
        self.shared.metrics.own(published.as_ref().err());
        published
    }

    fn publish_in(&self, outgoing: &Outgoing<'_>) -> Result<Published, PublishError> {
        let shared = &*self.shared;
        self.check_topic(outgoing.topic)?;
        let block = outgoing.block()?;
        let expiry_seconds = outgoing.expiry_seconds()?;
        self.check_size(outgoing, &block, expiry_seconds)?;
        if outgoing.qos != Qos::AtMostOnce || outgoing.retain {
            shared.pending.check()?;
        }
        let mut properties = PublishProperties::of_will(&block);
        properties.expiry_seconds = expiry_seconds;
        let publish = Routed {
            topic: outgoing.topic,
            publisher: "",
            qos: outgoing.qos,
            retain: outgoing.retain,
            properties: &properties,
            payload: outgoing.payload,
        };
        let mut batch = Batch::default();
        let kept = !outgoing.retain || retain(shared, &mut batch, &publish);
        batch.tally.not_retained += u64::from(!kept);
        route(shared, &mut batch, &publish);
        let (takers, dropped) = (batch.tally.delivered, batch.tally.dropped());
        shared.metrics.add(&mut batch.tally);
        Ok(Published { takers, dropped, kept, durable: self.submit(batch) })
    }

    fn check_topic(&self, topic: &str) -> Result<(), PublishError> {
        if topic.len() > TOPIC_BYTES_MAX || !is_topic_name(topic) {
            return Err(PublishError::Topic);
        }
        if topic.starts_with('$') {
            return Err(PublishError::Reserved);
        }
        if self.shared.templates.is_of_devices(topic) { Err(PublishError::Template) } else { Ok(()) }
    }

    /// The largest packet that it makes has to be within what the gateway takes itself.
    fn check_size(
        &self,
        outgoing: &Outgoing<'_>,
        properties: &[u8],
        expiry_seconds: Option<u32>,
    ) -> Result<(), PublishError> {
        let packet = Delivery {
            topic: outgoing.topic,
            alias: None,
            dup: false,
            qos: outgoing.qos,
            retain: outgoing.retain,
            id: 1,
            expiry_seconds,
            subscription_ids: &[],
            properties,
            payload: outgoing.payload,
        };
        let (bytes, most) = (publish_bytes(Version::V5, &packet), self.shared.limits.packet_bytes_max);
        if bytes > most { Err(PublishError::TooLarge { bytes, most }) } else { Ok(()) }
    }

    /// Submits what has to be durable, if there is any, and leaves it to the keeper of sessions to wait for that.
    fn submit(&self, mut batch: Batch) -> Durable {
        let shared = &*self.shared;
        if batch.state.is_empty() {
            return Durable::Known(Ok(()));
        }
        let done = Arc::new(Completion::new());
        let ticket = shared.appender.submit_state(&batch.state, Urgency::Prompt, &done);
        let mut promises = Promises::default();
        for (session, order) in batch.promised.drain(..) {
            promises.push(ticket.0, session, order);
        }
        let (told, waits) = oneshot::channel();
        shared.pending.push(Owed { done, ticket, promises, told, bytes: batch.state.bytes() });
        shared.keeper.wake();
        Durable::Waits(waits)
    }
}

// === impl Published ===

impl Published {
    /// Blocks until it is known whether what lasting sessions hold of it, and the retained message, are durable; `None`
    /// if that is not known by `deadline`. Not for async workers.
    ///
    /// # Errors
    ///
    /// [`CommitFailed`] when it is not durable, or nobody will know: those who were connected may have it.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Option<Result<(), CommitFailed>> {
        wait_for(pin!(self.durable()), deadline)
    }

    /// As [`Self::wait`], for a task and without a deadline.
    ///
    /// # Errors
    ///
    /// As those of [`Self::wait`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next call goes on waiting.
    pub(crate) async fn durable(&mut self) -> Result<(), CommitFailed> {
        let known = match &mut self.durable {
            Durable::Known(known) => *known,
            Durable::Waits(told) => told.await.map_err(|_| CommitFailed),
        };
        self.durable = Durable::Known(known);
        known
    }
}

// === impl Pending ===

impl Pending {
    fn check(&self) -> Result<(), PublishError> {
        let waiting = self.0.lock();
        if waiting.closed {
            return Err(PublishError::Stopping);
        }
        let full = waiting.count >= PENDING_MAX || waiting.bytes >= PENDING_BYTES_MAX;
        if full { Err(PublishError::Full) } else { Ok(()) }
    }

    fn push(&self, owed: Owed) {
        let mut waiting = self.0.lock();
        if waiting.closed {
            // Nobody looks any more: it says so when it is dropped.
            return;
        }
        waiting.count += 1;
        waiting.bytes += owed.bytes;
        waiting.owed.push(owed);
    }

    /// Takes out what is there, for [`Owed::settle`].
    pub(super) fn take(&self) -> Vec<Owed> {
        std::mem::take(&mut self.0.lock().owed)
    }

    /// Nobody settles anything any more.
    pub(super) fn close(&self) {
        let owed = {
            let mut waiting = self.0.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.owed)
        };
        drop(owed);
    }
}

// === impl Owed ===

impl Owed {
    /// Waits until it is durable, or never will be, and lets it go out.
    pub(super) async fn settle(self, pending: &Pending) {
        let Self { done, ticket, mut promises, told, bytes } = self;
        let before = Ticket(ticket.0.saturating_sub(1));
        let durable = poll_fn(|cx| done.poll_durable(before, cx)).await.is_ok();
        {
            let mut waiting = pending.0.lock();
            waiting.count -= 1;
            waiting.bytes -= bytes;
        }
        if durable {
            promises.keep(ticket.0);
            // Whoever published it may not wait.
            let _waits = told.send(());
        }
    }
}

impl PublishError {
    /// Names for metrics, with that of success in front.
    pub(super) const NAMES: [&'static str; 8] =
        ["taken", "topic", "reserved", "template", "too_large", "expired", "full", "stopping"];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Topic => 1,
            Self::Reserved => 2,
            Self::Template => 3,
            Self::TooLarge { .. } => 4,
            Self::Expired => 5,
            Self::Full => 6,
            Self::Stopping => 7,
        }
    }
}
