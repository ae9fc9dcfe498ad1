//! What all sessions of a connection share: the output, the broker, the tokens, the line of links with work.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::amqp::{Disposition, ErrorInfo, Performative};
use crate::servicebus::broker::{Broker, ConnectionId, LinkId};
use crate::servicebus::cbs::Claims;
use crate::servicebus::listener::Wire;

/// Links of one connection.
pub(super) const LINKS_MAX: usize = 10_000;
/// Bytes of messages of which only some frames have come, over all links.
const PARTIAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Attaches and dispositions held back at a time.
const DELAYED_MAX: usize = 65_536;

/// What ends a session or the connection.
#[derive(Debug)]
pub(super) enum Fault {
    Session(ErrorInfo),
    Connection(ErrorInfo),
}

/// What waits by order of the control API.
#[derive(Debug)]
pub(super) enum Delayed {
    Attach { channel: u16, handle: u32, link: LinkId },
    Disposition { channel: u16, disposition: Disposition },
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) wire: Arc<Wire>,
    pub(super) connection: ConnectionId,
    pub(super) output: Vec<u8>,
    /// Largest frame that the client takes.
    pub(super) frame_bytes_max: usize,
    pub(super) claims: Claims,
    /// Where the broker's links are.
    pub(super) routes: HashMap<LinkId, (u16, u32)>,
    /// Receiving links by name, which requests about sessions carry.
    pub(super) names: HashMap<String, LinkId>,
    /// Links to be served, in line.
    pub(super) ready: VecDeque<(u16, u32)>,
    /// Links of all sessions.
    pub(super) links: usize,
    delayed: BTreeMap<(Instant, u64), Delayed>,
    delayed_count: u64,
    partial_bytes: usize,
}

impl Shared {
    pub(super) fn new(wire: Arc<Wire>, connection: ConnectionId) -> Self {
        let claims = Claims::new(Arc::clone(&wire.key), wire.tokens.clone());
        Self {
            wire,
            connection,
            output: Vec::new(),
            frame_bytes_max: 512,
            claims,
            routes: HashMap::new(),
            names: HashMap::new(),
            ready: VecDeque::new(),
            links: 0,
            delayed: BTreeMap::new(),
            delayed_count: 0,
            partial_bytes: 0,
        }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.wire.broker
    }

    pub(super) fn link_id(&self) -> LinkId {
        self.wire.links.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn send(&mut self, channel: u16, performative: &Performative) {
        performative.encode(&mut self.output, channel, &[]);
    }

    /// Puts something off. False when too much is put off already: do it now.
    pub(super) fn delay(&mut self, due: Instant, what: Delayed) -> Result<(), Delayed> {
        if self.delayed.len() >= DELAYED_MAX {
            return Err(what);
        }
        self.delayed_count += 1;
        self.delayed.insert((due, self.delayed_count), what);
        Ok(())
    }

    /// The next thing whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Delayed> {
        let first = self.delayed.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(key, _)| key.0)
    }

    /// Makes room for a part of a message.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.partial_bytes + bytes > PARTIAL_BYTES_MAX {
            let error = ErrorInfo::new("amqp:resource-limit-exceeded", "too many unfinished messages");
            return Err(Fault::Connection(error));
        }
        self.partial_bytes += bytes;
        Ok(())
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.partial_bytes = self.partial_bytes.saturating_sub(bytes);
    }
}
