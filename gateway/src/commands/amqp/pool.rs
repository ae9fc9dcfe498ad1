//! Connections to a namespace, opened when links need them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::carrier::{self, Carrier, Shared};
use super::error::{Cause, LinkError};
use super::schedule::Backoff;
use crate::commands::metrics::Metrics;
use crate::supervise::{Phase, clock};

/// The connections of a namespace.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    bounds: Bounds,
    state: Mutex<State>,
}

/// How links are spread over connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most links on a connection.
    pub(super) links_per_connection: usize,
    /// So many connections open, though the first has room, while many links wait to be attached.
    pub(super) parallel_connections: usize,
}

/// A link's place on a connection. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    pub(super) carrier: Arc<Carrier>,
    seat: Seat,
}

/// A view of the connections, which keeps none of them open.
#[derive(Debug, Clone)]
pub(crate) struct PoolView(Weak<Pool>);

/// What can be seen of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolStatus {
    /// Connections that are open.
    pub(crate) connections: usize,
    /// Links on them, and those that wait for one.
    pub(crate) links: usize,
    /// Why the last connection ended or did not open, if none opened since.
    pub(crate) last_error: Option<LinkError>,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Arc<Slot>>,
    backoff: Backoff,
    last_error: Option<LinkError>,
}

/// A connection, from before it opens until it ended.
struct Slot {
    links: AtomicUsize,
    /// Those of them that are not attached yet.
    waiting: AtomicUsize,
    stage: watch::Sender<Stage>,
}

#[derive(Debug, Clone)]
enum Stage {
    Opening,
    Open(Arc<Carrier>),
    Over(LinkError),
}

/// Counts a link on a slot.
#[derive(Debug)]
struct Seat {
    slot: Arc<Slot>,
    is_waiting: bool,
}

/// Links that may wait to be attached before another connection opens beside one with room. A connection begins its links
/// one after the other, a round trip each ([`carrier::run`]): at 20 ms this many take more than a second.
const WAITING_MAX: usize = 64;

// === impl Pool ===

impl Pool {
    pub(super) fn new(shared: Shared, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { shared: Arc::new(shared), bounds, state: Mutex::default() })
    }

    /// A place on a connection, which opens if need be. While connecting is paused after failures it fails at once,
    /// with the rest of the pause.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the place is free again, and the connection stays for others.
    pub(super) async fn permit(self: &Arc<Self>) -> Result<Permit, LinkError> {
        let seat = self.seat()?;
        let mut stage = seat.slot.stage.subscribe();
        let opened = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await;
        let opened = match opened.as_deref() {
            Ok(Stage::Open(carrier)) => Ok(Arc::clone(carrier)),
            Ok(Stage::Over(error)) => Err(error.clone()),
            Ok(Stage::Opening) | Err(_) => Err(LinkError::lost("the connection ended")),
        };
        opened.map(|carrier| Permit { carrier, seat })
    }

    pub(super) fn view(self: &Arc<Self>) -> PoolView {
        PoolView(Arc::downgrade(self))
    }

    pub(super) fn status(&self) -> PoolStatus {
        let state = self.state.lock();
        let open = |slot: &&Arc<Slot>| matches!(&*slot.stage.borrow(), Stage::Open(_));
        PoolStatus {
            connections: state.slots.iter().filter(open).count(),
            links: state.slots.iter().map(|slot| slot.links.load(Ordering::Relaxed)).sum(),
            last_error: state.last_error.clone(),
        }
    }

    /// Takes a place on the connection with the fewest links to attach, or on a new one if there is none with room or
    /// those with room have too many.
    fn seat(self: &Arc<Self>) -> Result<Seat, LinkError> {
        let Bounds { links_per_connection, parallel_connections } = self.bounds;
        let mut state = self.state.lock();
        // Counts go up under this lock only, so that there is still room when it is taken.
        let room = |slot: &&Arc<Slot>| slot.links.load(Ordering::Relaxed) < links_per_connection;
        let waiting = |slot: &&Arc<Slot>| slot.waiting.load(Ordering::Relaxed);
        let known = state.slots.iter().filter(room).min_by_key(waiting);
        let may_open = state.slots.len() < parallel_connections && state.backoff.wait(clock::now()).is_none();
        match known {
            Some(slot) if !may_open || waiting(&slot) < WAITING_MAX => return Ok(Seat::take(slot)),
            Some(_) | None => {}
        }
        if self.shared.tasks.shutdown().phase() >= Phase::Close {
            return Err(LinkError::lost("the gateway stops"));
        }
        if let Some(pause) = state.backoff.wait(clock::now()) {
            let why = state.last_error.as_ref().map(|error| error.cause().text.clone()).unwrap_or_default();
            return Err(LinkError::Lost(Cause { retry_after: Some(pause), ..Cause::local(why) }));
        }
        let stage = watch::Sender::new(Stage::Opening);
        let slot = Arc::new(Slot { links: AtomicUsize::new(0), waiting: AtomicUsize::new(0), stage });
        let seat = Seat::take(&slot);
        state.slots.push(Arc::clone(&slot));
        let running = run(Arc::clone(&self.shared), Arc::downgrade(self), Arc::downgrade(&slot));
        self.shared.tasks.spawn(running);
        Ok(seat)
    }

    fn opened(&self) {
        self.state.lock().last_error = None;
        Metrics::connected(Ok(()));
    }

    /// Forgets a connection that ended after `life`, or did not open.
    fn over(&self, slot: &Weak<Slot>, error: &LinkError, life: Option<Duration>) {
        let mut state = self.state.lock();
        state.slots.retain(|known| !std::ptr::eq(Arc::as_ptr(known), slot.as_ptr()));
        state.last_error = Some(error.clone());
        let (now, chance, pause_min) = (clock::now(), rand::random(), error.retry_after());
        match life {
            Some(life) => state.backoff.ended(now, life, pause_min, chance),
            None => {
                state.backoff.failed(now, pause_min, chance);
                Metrics::connected(Err(error.word()));
            }
        }
    }
}

/// Opens a connection, runs it, and tells the others when it is over.
///
/// It holds nothing that would keep the connection open: it ends when the pool and the last link are gone.
async fn run(shared: Arc<Shared>, pool: Weak<Pool>, slot: Weak<Slot>) -> Result<(), LinkError> {
    let (error, life) = match carrier::open(&shared).await {
        Err(error) => (error, None),
        Ok(opened) => {
            let since = clock::now();
            let _open = Metrics::connection();
            let (carrier, wishes) = Carrier::new(Arc::clone(&shared));
            match (pool.upgrade(), slot.upgrade()) {
                (Some(pool), Some(slot)) => {
                    pool.opened();
                    slot.stage.send_replace(Stage::Open(Arc::new(carrier)));
                    tracing::info!(host = shared.dialer.host(), "connected to Service Bus");
                }
                // Nobody wants it any more.
                _ => drop(carrier),
            }
            let error = carrier::run(opened, wishes, shared.tasks.shutdown()).await;
            (error, Some(clock::now() - since))
        }
    };
    if let Some(pool) = pool.upgrade() {
        pool.over(&slot, &error, life);
        if shared.tasks.shutdown().phase() < Phase::Close {
            let (host, lived_s) = (shared.dialer.host(), life.map(|life| life.as_secs()));
            tracing::warn!(host, %error, lived_s, "no connection to Service Bus");
        }
    }
    if let Some(slot) = slot.upgrade() {
        slot.stage.send_replace(Stage::Over(error.clone()));
    }
    Err(error)
}

// === impl Permit ===

impl Permit {
    /// The link is attached: it has its place and holds nobody up.
    pub(super) fn attached(&mut self) {
        self.seat.attached();
    }
}

// === impl PoolView ===

impl PoolView {
    /// The connections at this moment; `None` once nobody uses them any more.
    pub(crate) fn status(&self) -> Option<PoolStatus> {
        self.0.upgrade().map(|pool| pool.status())
    }
}

// === impl Seat ===

impl Seat {
    fn take(slot: &Arc<Slot>) -> Self {
        slot.links.fetch_add(1, Ordering::Relaxed);
        slot.waiting.fetch_add(1, Ordering::Relaxed);
        Self { slot: Arc::clone(slot), is_waiting: true }
    }

    fn attached(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.slot.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.attached();
        self.slot.links.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("links", &self.links).finish_non_exhaustive()
    }
}
