//! What all connections share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use penstock_proto::Lane;
use tokio::sync::Semaphore;

use super::access::Access;
use super::config::{Config, Limits};
use super::devices::{Answers, Presence};
use super::error::Error;
use super::keep_alive::Clock;
use super::keeper::Keeper;
use super::link::Link;
use super::message::Gauge;
use super::metrics::Metrics;
use super::publisher::Pending;
use super::registry::Registry;
use super::retained::Retained;
use super::router::Router;
use super::session::Session;
use super::template::{Template, Templates};
use super::turns::Turns;
use crate::outbox::{Appender, Completion};
use crate::supervise::clock;

/// Connections above the limit that are still heard, so that most learn why they are refused.
const HEARD_ABOVE_MAX: usize = 64;
/// TLS handshakes that run at once, per core: few, so that a storm of them leaves the processor to
/// established devices; enough that some slow ones do not hold up the others.
const HANDSHAKES_PER_CORE: usize = 16;

/// What all connections share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) templates: Templates,
    /// The lane whose room decides whether sockets are read: the least privileged of the templates'.
    pub(super) lane: Lane,
    pub(super) access: Access,
    pub(super) registry: Registry,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) appender: Appender,
    pub(super) router: Router<Session>,
    pub(super) retained: Retained,
    pub(super) keeper: Keeper,
    /// What the gateway itself published and is not durable yet.
    pub(super) pending: Pending,
    pub(super) presence: Presence,
    /// Who takes what devices answer to commands.
    pub(super) answers: OnceLock<Arc<dyn Answers>>,
    /// Bytes of messages that wait in queues.
    pub(super) gauge: Arc<Gauge>,
    /// Changes of state that nobody waits for are submitted with it.
    pub(super) relaxed: Arc<Completion>,
    /// Sessions that outlive their connections.
    lasting: AtomicUsize,
    /// The start, on both clocks.
    started: (Instant, u64),
    pub(super) handshakes: Semaphore,
    /// The next packet that anybody sends makes its connection's task panic.
    #[cfg(test)]
    pub(super) panics: AtomicBool,
    /// For connections that open and that end.
    pub(super) turns: Turns,
    open: AtomicUsize,
    stopping: AtomicBool,
}

/// Counts a connection for as long as it is open.
#[derive(Debug)]
pub(super) struct Permit {
    shared: Arc<Shared>,
    /// The limit was reached before it.
    above_max: bool,
}

/// A connection's claim on its client id; given back when it is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Claimed {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

/// A connection's place: its client id and its session, given back in the same way.
#[derive(Debug)]
pub(super) struct Seat {
    session: Arc<Session>,
    /// What is open of QoS 2, if the connection is sure of it.
    received: Option<Vec<u16>>,
    /// Given back after the session.
    claimed: Claimed,
}

// === impl Shared ===

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("open", &self.open()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(config: &Config, appender: Appender, tick: Duration) -> Result<Self, Error> {
        let templates = config
            .topics
            .iter()
            .map(|topic| {
                let error = |source: super::template::TemplateError| Error::Template {
                    template: topic.template.clone(),
                    expected: source.to_string(),
                };
                Template::parse(&topic.template, topic.lane).map_err(error)
            })
            .collect::<Result<_, _>>()?;
        if let Some(commands) = &config.commands
            && let Some(topic) = config.topics.iter().find(|topic| commands.overlaps(&topic.template))
        {
            let expected = format!("no topic of commands or answers, {commands}, to match it");
            return Err(Error::Template { template: topic.template.clone(), expected });
        }
        let templates = Templates::new(templates, config.commands.clone());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            limits: config.limits.clone(),
            lane: templates.lanes().max().unwrap_or(Lane::Telemetry),
            templates,
            access: Access::new(&config.access)?,
            registry: Registry::new(),
            router: Router::new(),
            retained: Retained::new(config.limits.retained_max, config.limits.retained_bytes_max),
            keeper: Keeper::default(),
            pending: Pending::default(),
            presence: Presence::new(config.limits.connections_max),
            answers: OnceLock::new(),
            gauge: Arc::default(),
            relaxed: Arc::new(Completion::new()),
            lasting: AtomicUsize::new(0),
            started: (clock::now(), clock::unix_ms()),
            clock: Clock::new(tick),
            metrics: Metrics::new(),
            appender,
            handshakes: Semaphore::new(cores * HANDSHAKES_PER_CORE),
            #[cfg(test)]
            panics: AtomicBool::new(false),
            turns: Turns::new(cores / 2),
            open: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// Counts a new connection, or refuses to hear it at all.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Permit> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { shared: Arc::clone(self), above_max: before >= self.limits.connections_max };
        self.metrics.connections.increment(1.0);
        (before < self.limits.connections_max + HEARD_ABOVE_MAX).then_some(permit)
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Sessions that outlive their connections.
    pub(super) fn lasting(&self) -> usize {
        self.lasting.load(Ordering::Relaxed)
    }

    /// Counts a session in or out of those that outlive their connections.
    pub(super) fn count_lasting(&self, session: &Session, lasts: bool) {
        if !session.count(lasts) {
            return;
        }
        if lasts {
            self.lasting.fetch_add(1, Ordering::Relaxed);
            self.metrics.sessions.increment(1.0);
        } else {
            self.lasting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.sessions.decrement(1.0);
        }
    }

    /// Unix milliseconds on a clock that never jumps: what it is now if nobody set it since the start.
    pub(super) fn now_ms(&self) -> u64 {
        let (start, unix_ms) = self.started;
        let since = clock::now().saturating_duration_since(start).as_millis();
        unix_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

// === impl Permit ===

impl Permit {
    pub(super) const fn above_max(&self) -> bool {
        self.above_max
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.connections.decrement(1.0);
    }
}

// === impl Claimed ===

impl Claimed {
    pub(super) const fn new(shared: Arc<Shared>, link: Arc<Link>) -> Self {
        Self { shared, link }
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.shared.registry.leave(&self.link);
    }
}

// === impl Seat ===

impl Seat {
    pub(super) const fn new(claimed: Claimed, session: Arc<Session>) -> Self {
        Self { session, received: None, claimed }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.claimed.shared
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.claimed.link
    }

    pub(super) const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What the session gets back: the open exchanges of QoS 2, if the connection knows them.
    pub(super) fn give_back(&mut self, received: Option<Vec<u16>>) {
        self.received = received;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let received = self.received.take();
        let Claimed { shared, link } = &self.claimed;
        shared.close_session(&self.session, link, received);
    }
}
