//! One AMQP connection and what lives on it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fe2o3_amqp::Session;
use fe2o3_amqp::connection::{self, ConnectionHandle};
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::credential::Credential;
use super::dial::Dialer;
use super::entity::Entity;
use super::error::{Cause, LinkError};
use super::exchange::Exchange;
use super::settlement::{Answers, Listener, Settlements};
use super::tasks::Tasks;
use crate::supervise::{Phase, Shutdown, chain};

/// What every connection to a namespace needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dialer: Dialer,
    pub(super) credential: Credential,
    pub(super) idle_timeout: Duration,
    pub(super) names: Names,
    pub(super) tasks: Tasks,
}

/// One AMQP connection, as those see it who use it. It closes when nobody holds it any more.
#[derive(Debug)]
pub(super) struct Carrier {
    shared: Arc<Shared>,
    begins: Begins,
    tokens: Arc<Exchange>,
    entities: Mutex<HashMap<Box<str>, Arc<Entity>>>,
}

/// A connection that opened, for [`run`].
#[derive(Debug)]
pub(super) struct Opened {
    handle: ConnectionHandle<()>,
    settlements: Settlements,
}

/// An AMQP session, and what the service answers to settlements on it.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) session: SessionHandle<()>,
    pub(super) answers: Answers,
}

/// Begins AMQP sessions on a connection. One at a time, as the library has it: each takes a round trip.
#[derive(Debug, Clone)]
pub(super) struct Begins(mpsc::Sender<Begin>);

/// A wish for a session. One that nobody wants any more ends at once.
pub(super) struct Begin(oneshot::Sender<Result<Begun, LinkError>>);

/// Names that are given once only: links of the same name would end each other.
#[derive(Debug, Clone)]
pub(super) struct Names(Arc<(String, AtomicU64)>);

/// Wishes for sessions that wait for their turn.
const BEGINS: usize = 1024;
/// The largest frame: what Service Bus takes.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Most sessions of a connection, as Service Bus has it.
const CHANNEL_MAX: u16 = 4_999;
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

// === impl Carrier ===

impl Carrier {
    /// A connection that [`run`] is to run with what is returned beside it.
    pub(super) fn new(shared: Arc<Shared>) -> (Self, mpsc::Receiver<Begin>) {
        let (begins, wishes) = mpsc::channel(BEGINS);
        let begins = Begins(begins);
        let (names, tasks) = (shared.names.clone(), shared.tasks.clone());
        let tokens = Arc::new(Exchange::new("$cbs".to_owned(), begins.clone(), names, tasks));
        (Self { shared, begins, tokens, entities: Mutex::default() }, wishes)
    }

    pub(super) const fn begins(&self) -> &Begins {
        &self.begins
    }

    pub(super) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// An entity on this connection; from the first time on its token is kept fresh.
    pub(super) fn entity(&self, address: &str) -> Arc<Entity> {
        let mut entities = self.entities.lock();
        if let Some(entity) = entities.get(address) {
            return Arc::clone(entity);
        }
        let entity = Arc::new(Entity::start(address, &self.shared, &self.begins, &self.tokens));
        entities.insert(address.into(), Arc::clone(&entity));
        entity
    }
}

/// Opens a connection.
///
/// # Cancel safety
///
/// Cancelling it closes the stream.
pub(super) async fn open(shared: &Shared) -> Result<Opened, LinkError> {
    let opening = async {
        let settlements = Settlements::default();
        let host = shared.dialer.host();
        let stream = shared.dialer.dial().await;
        let stream = stream
            .map_err(|error| LinkError::lost(format!("{host} cannot be reached: {}", chain(&error))))?;
        let idle_timeout_ms = u32::try_from(shared.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let builder = connection::Connection::builder()
            .container_id(shared.names.next("gateway"))
            .hostname(host)
            .sasl_hostname(host)
            .scheme("amqp")
            .sasl_profile(SaslProfile::Anonymous)
            .max_frame_size(FRAME_BYTES_MAX)
            .session_max(CHANNEL_MAX)
            .idle_time_out(idle_timeout_ms);
        let stream = Listener::new(stream, settlements.clone());
        let handle = builder.open_with_stream(stream).await?;
        Ok(Opened { handle, settlements })
    };
    match timeout(OPEN_TIMEOUT, opening).await {
        Ok(opened) => opened,
        Err(_) => {
            Err(LinkError::lost(format!("{} did not answer within {OPEN_TIMEOUT:?}", shared.dialer.host())))
        }
    }
}

/// Runs a connection until it ends, nobody holds it any more, or the gateway closes; says why it ended.
pub(super) async fn run(opened: Opened, mut wishes: mpsc::Receiver<Begin>, shutdown: Shutdown) -> LinkError {
    let Opened { mut handle, settlements } = opened;
    let stopped = shutdown.reached(Phase::Close);
    tokio::pin!(stopped);
    loop {
        let wish = tokio::select! {
            closed = handle.on_close() => {
                return closed.map_or_else(LinkError::from, |()| LinkError::lost("the service closed the connection"));
            }
            wish = wishes.recv() => wish,
            () = stopped.as_mut() => None,
        };
        let Some(Begin(wanted)) = wish else { break };
        // Most wishes that wait while a connection fails have been given up before their turn.
        if wanted.is_closed() {
            continue;
        }
        let begun = match timeout(BEGIN_TIMEOUT, Session::builder().begin(&mut handle)).await {
            Ok(Ok(session)) => Ok(Begun { session, answers: settlements.begun() }),
            Ok(Err(error)) => Err(LinkError::from(error)),
            Err(_) => {
                drop(wanted.send(Err(LinkError::lost("the service does not begin sessions"))));
                break;
            }
        };
        // A session that nobody wants any more ends as it is dropped.
        drop(wanted.send(begun));
    }
    // The other side may be gone.
    drop(timeout(CLOSE_TIMEOUT, handle.close()).await);
    LinkError::lost("the connection was closed")
}

/// Ends an AMQP session; nothing depends on whether the other side agrees.
pub(super) async fn end(mut session: SessionHandle<()>) {
    drop(timeout(CLOSE_TIMEOUT, session.end()).await);
}

// === impl Begins ===

impl Begins {
    /// A new AMQP session.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a session that begins nevertheless ends at once.
    pub(super) async fn begin(&self) -> Result<Begun, LinkError> {
        let over = || LinkError::Lost(Cause::local("the connection ended"));
        let (wanted, begun) = oneshot::channel();
        self.0.send(Begin(wanted)).await.map_err(|_| over())?;
        begun.await.map_err(|_| over())?
    }
}

// === impl Names ===

impl Names {
    pub(super) fn new() -> Self {
        Self(Arc::new((format!("{:016x}", rand::random::<u64>()), AtomicU64::new(1))))
    }

    /// A name that nobody else has.
    pub(super) fn next(&self, purpose: &str) -> String {
        let (prefix, next) = &*self.0;
        format!("penstock-{prefix}-{purpose}-{}", next.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begin").finish_non_exhaustive()
    }
}
