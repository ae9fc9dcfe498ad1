//! Service Bus as links see it, so that tests can run them against a namespace in memory.

use std::future::Future;

use crate::commands::amqp::{LinkError, Namespace, SessionLink, Wish};
use crate::commands::dispatch::{Ended, Refusal};
use crate::commands::message::{Disposition, LockToken, Received};
use crate::commands::replies::Post;

/// A namespace that sessions are accepted from, and replies sent to. Clones are the same.
pub(crate) trait Cloud: Post {
    /// An accepted session.
    type Session: Session;

    /// Accepts a session of `entity`.
    fn accept(
        &self,
        entity: &str,
        wish: Wish<'_>,
    ) -> impl Future<Output = Result<Self::Session, LinkError>> + Send;
}

/// An accepted session with one receiver.
pub(crate) trait Session: Send + 'static {
    /// Its id.
    fn session(&self) -> &str;
    /// Until when it is locked, by the clock of the service.
    fn locked_until_ms(&self) -> u64;
    /// The next message. Cancel safe.
    fn receive(&mut self) -> impl Future<Output = Result<Received, LinkError>> + Send;
    /// Waits until the link is no more, without asking for a message. Cancel safe.
    fn lost(&mut self) -> impl Future<Output = LinkError> + Send;
    /// Settles a message and returns when the service has done it.
    fn settle(
        &mut self,
        lock: LockToken,
        disposition: &Disposition,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Renews the lock and says until when.
    fn renew(&mut self) -> impl Future<Output = Result<u64, LinkError>> + Send;
    /// What is kept with the session.
    fn state(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, LinkError>> + Send;
    /// Keeps something with the session.
    fn set_state(&mut self, state: Option<&[u8]>) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Gives the session back without settling what was received.
    fn close(self) -> impl Future<Output = ()> + Send;
}

impl Cloud for Namespace {
    // A link is about 1 KB, and what passes it on would keep room for it.
    type Session = Box<SessionLink>;

    async fn accept(&self, entity: &str, wish: Wish<'_>) -> Result<Box<SessionLink>, LinkError> {
        Self::accept(self, entity, wish).await
    }
}

impl Session for Box<SessionLink> {
    fn session(&self) -> &str {
        (**self).session()
    }

    fn locked_until_ms(&self) -> u64 {
        (**self).locked_until_ms()
    }

    async fn receive(&mut self) -> Result<Received, LinkError> {
        (**self).receive().await
    }

    async fn lost(&mut self) -> LinkError {
        (**self).lost().await
    }

    async fn settle(&mut self, lock: LockToken, disposition: &Disposition) -> Result<(), LinkError> {
        (**self).settle(lock, disposition).await
    }

    async fn renew(&mut self) -> Result<u64, LinkError> {
        (**self).renew().await
    }

    async fn state(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        (**self).state().await
    }

    async fn set_state(&mut self, state: Option<&[u8]>) -> Result<(), LinkError> {
        (**self).set_state(state).await
    }

    async fn close(self) {
        SessionLink::close(*self).await;
    }
}

/// What a failure to accept says to the dispatcher.
pub(crate) fn refusal(error: &LinkError) -> Refusal {
    match error {
        LinkError::Locked(_) => Refusal::Locked,
        LinkError::Busy(_) => Refusal::Busy(error.retry_after().unwrap_or_default()),
        LinkError::Quota(_) => Refusal::Quota,
        LinkError::Lost(_) => Refusal::Lost,
        LinkError::TimedOut(_) => Refusal::TimedOut,
        LinkError::NotFound(_) | LinkError::Refused(_) => Refusal::Forbidden,
        LinkError::LockLost(_) | LinkError::Other(_) => Refusal::Other,
    }
}

/// What the failure of a link says to the dispatcher.
pub(crate) fn ended(error: &LinkError) -> Ended {
    /// Service Bus does this to links that were idle for ten minutes ("AMQP errors in Azure Service Bus").
    const DETACHED: &str = "amqp:link:detach-forced";
    match error {
        LinkError::Locked(_) | LinkError::LockLost(_) => Ended::LockLost,
        LinkError::Lost(cause) if cause.condition == DETACHED => Ended::Detached,
        LinkError::Lost(_) => Ended::Lost,
        LinkError::Busy(_)
        | LinkError::Quota(_)
        | LinkError::TimedOut(_)
        | LinkError::NotFound(_)
        | LinkError::Refused(_)
        | LinkError::Other(_) => Ended::Failed,
    }
}
