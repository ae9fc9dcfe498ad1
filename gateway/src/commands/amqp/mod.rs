//! Service Bus over AMQP 1.0: a thin layer over `fe2o3-amqp`, and the only folder that names it.
//!
//! ```text
//! Namespace ── pool ── carrier (one connection, at most links_per_connection links)
//!                        ├─ $cbs             tokens of each entity, put and renewed
//!                        ├─ <entity>/$management   renewals, states, peeks
//!                        └─ SessionLink, Sender    an AMQP session of their own each
//! ```
//!
//! What holds, much of it because of what the library does and does not do:
//!
//! - **Small frames go at once.** Streams are our own ([`dial`]), with `TCP_NODELAY`: without it an attach takes 45 ms.
//! - **One AMQP session per link**, ended after a refused attach. On a session on which an attach was refused the library
//!   takes the handle of the next link for the refused one's, and later attaches fail or end the session.
//! - **Attaching runs in a task of its own.** A dropped attach would leave a link behind that the service gives a
//!   session to. Callers may drop their future: the task then ends the whole AMQP session, and with it whatever was given.
//! - **A settlement is over when the service has answered it.** The library does not tell what the service made of one, so
//!   the incoming frames are read along ([`settlement`]).
//! - **A lost lock shows as the end of the link**, in [`SessionLink::receive`] and [`SessionLink::lost`] alone: one of
//!   the two is to be polled always.
//! - **One message at a time**: credit for one is given when it is asked for, and none while one is held.
//! - **Answers find their callers by number** ([`exchange`]), many requests are in flight at once, and a late answer is
//!   nobody's.
//! - **Half-open connections end** by the idle timeout, and take their links with them ([`LinkError::Lost`]).
//! - **Nothing blocks others**: connections, tokens and links each have their own tasks and deadlines.
//! - Names of links are given once only. The library was built without its logging, which tells of closed links as errors.

mod carrier;
mod config;
mod correlation;
mod credential;
mod dial;
mod entity;
mod error;
mod exchange;
mod http;
mod link;
mod management;
mod message;
mod pool;
mod sas;
mod schedule;
mod sender;
mod settlement;
mod tasks;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use config::{Connection, Proxy, SignIn, Transport};
pub(crate) use dial::SetUpError;
#[cfg(test)]
pub(crate) use error::Cause;
pub(crate) use error::LinkError;
pub(crate) use link::{SessionLink, Wish};
#[cfg(test)]
pub(crate) use pool::PoolStatus;
pub(crate) use pool::PoolView;
pub(crate) use sender::{Sender, Taking};

use super::message::Received;
use crate::azure::TokenHandle;
use crate::supervise::{Supervisor, TaskKind};
use carrier::{Names, Shared};
use credential::Credential;
use dial::Dialer;
use pool::{Bounds, Pool};
use tasks::Tasks;

/// A namespace of Service Bus. Connections open when they are needed. Clones share them, and they close when the last
/// clone and the last link are gone.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pool: Arc<Pool>,
    tasks: Tasks,
}

impl Namespace {
    /// Prepares connections to a namespace; opens none. `tokens` are for [`SignIn::Entra`]. Its tasks are links of commands,
    /// unless [`Self::of_kind`] says otherwise. Reads the certificates to trust: blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the settings cannot work.
    pub(crate) fn new(
        connection: &Connection,
        tokens: Option<TokenHandle>,
        supervisor: &Supervisor,
    ) -> Result<Self, SetUpError> {
        Self::of_kind(TaskKind::CommandLink, connection, tokens, supervisor)
    }

    /// The same with tasks of another kind, which decides when a stop waits for them.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub(crate) fn of_kind(
        kind: TaskKind,
        connection: &Connection,
        tokens: Option<TokenHandle>,
        supervisor: &Supervisor,
    ) -> Result<Self, SetUpError> {
        let tasks = Tasks::new(supervisor, kind);
        let shared = Shared {
            dialer: Dialer::new(connection)?,
            credential: Credential::new(connection, tokens)?,
            idle_timeout: connection.idle_timeout,
            names: Names::new(),
            tasks: tasks.clone(),
        };
        let bounds = Bounds {
            links_per_connection: connection.links_per_connection.clamp(1, Connection::LINKS_MAX),
            parallel_connections: connection.parallel_connections,
        };
        Ok(Self { pool: Pool::new(shared, bounds), tasks })
    }

    /// Takes a session of an entity. The service gives it to nobody else while the link lives and the lock is renewed.
    ///
    /// # Errors
    ///
    /// [`LinkError::Locked`] if the session is somebody else's, [`LinkError::TimedOut`] if none came, and what else can
    /// go wrong with links.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a session that comes nevertheless is given back.
    pub(crate) async fn accept(&self, entity: &str, wish: Wish<'_>) -> Result<Box<SessionLink>, LinkError> {
        let (pool, address) = (Arc::clone(&self.pool), entity.to_owned());
        let (session, wait) = match wish {
            Wish::Session(id) => (Some(id.to_owned()), Duration::ZERO),
            Wish::Next { wait } => (None, wait),
        };
        // Large, and most links live far longer than it takes.
        let accepting = Box::pin(async move {
            let wish = session.as_deref().map_or(Wish::Next { wait }, Wish::Session);
            link::accept(pool.permit().await?, &address, wish).await
        });
        self.detached(accepting).await
    }

    /// A link that sends to an entity.
    ///
    /// # Errors
    ///
    /// Why there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn sender(&self, entity: &str) -> Result<Sender, LinkError> {
        let (pool, address) = (Arc::clone(&self.pool), entity.to_owned());
        self.detached(async move { sender::attach(pool.permit().await?, &address).await }).await
    }

    /// Looks at messages of an entity from a sequence number on, without any lock; at most `count`, and fewer if the
    /// service thinks so. A dead-letter queue is the entity `NAME/$DeadLetterQueue`.
    ///
    /// # Errors
    ///
    /// Why the service could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn peek(&self, entity: &str, from: i64, count: u32) -> Result<Vec<Received>, LinkError> {
        let permit = self.pool.permit().await?;
        let entity = permit.carrier.entity(entity);
        entity.authorized().await?;
        management::peek(&entity.management, from, count).await
    }

    /// A view of the connections for operators.
    pub(crate) fn view(&self) -> PoolView {
        self.pool.view()
    }

    /// The connections at this moment.
    #[cfg(test)]
    pub(crate) fn status(&self) -> PoolStatus {
        self.pool.status()
    }

    /// Runs something in a task of its own, which ends it when nobody waits any more.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LinkError>> + Send + 'static,
    ) -> Result<T, LinkError> {
        let (mut wanted, done) = oneshot::channel();
        self.tasks.spawn(async move {
            let done = tokio::select! {
                done = work => done,
                () = wanted.closed() => return Ok::<(), LinkError>(()),
            };
            // What nobody wants any more ends as it is dropped.
            drop(wanted.send(done));
            Ok(())
        });
        done.await.unwrap_or_else(|_| Err(LinkError::lost("the task of the link ended")))
    }
}

#[cfg(test)]
pub(super) mod tests;
