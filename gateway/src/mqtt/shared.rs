//! What all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use penstock_proto::Lane;
use tokio::sync::Semaphore;

use super::access::Access;
use super::config::{Config, Limits};
use super::error::Error;
use super::keep_alive::Clock;
use super::metrics::Metrics;
use super::registry::{Link, Registry};
use super::template::{Template, Templates};
use crate::outbox::Appender;

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
    pub(super) handshakes: Semaphore,
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

/// A connection's place in the registry; given back when it is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    link: Arc<Link>,
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
        let templates = Templates::new(templates);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            limits: config.limits.clone(),
            lane: templates.lanes().max().unwrap_or(Lane::Telemetry),
            templates,
            access: Access::new(&config.access)?,
            registry: Registry::new(config.limits.outgoing_bytes_max),
            clock: Clock::new(tick),
            metrics: Metrics::new(),
            appender,
            handshakes: Semaphore::new(cores * HANDSHAKES_PER_CORE),
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

// === impl Seat ===

impl Seat {
    pub(super) const fn new(shared: Arc<Shared>, link: Arc<Link>) -> Self {
        Self { shared, link }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) const fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.registry.leave(&self.link);
    }
}
