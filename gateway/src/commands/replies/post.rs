//! Service Bus as replies see it, so that tests can run them against a namespace in memory.

use std::future::Future;

use crate::commands::amqp::{LinkError, Namespace, Sender, Taking};
use crate::commands::message::Outgoing;

/// A namespace that messages can be sent to. Clones are the same.
pub(crate) trait Post: Clone + Send + Sync + 'static {
    /// A link that sends to one entity.
    type Link: PostLink;

    /// Opens a link to `entity`.
    fn open(&self, entity: &str) -> impl Future<Output = Result<Self::Link, LinkError>> + Send;
}

/// A link that sends to one entity.
pub(crate) trait PostLink: Send + 'static {
    /// Whether the entity has taken a message, in time.
    type Taking: Future<Output = Result<(), LinkError>> + Send + 'static;

    /// Sends a message; others can be sent before the entity has taken it.
    fn send(&mut self, message: Outgoing) -> impl Future<Output = Result<Self::Taking, LinkError>> + Send;
    /// Ends the link.
    fn close(self) -> impl Future<Output = ()> + Send;
}

impl Post for Namespace {
    type Link = Sender;

    async fn open(&self, entity: &str) -> Result<Sender, LinkError> {
        self.sender(entity).await
    }
}

impl PostLink for Sender {
    type Taking = Taking;

    async fn send(&mut self, message: Outgoing) -> Result<Taking, LinkError> {
        Self::send(self, message).await
    }

    async fn close(self) {
        Self::close(self).await;
    }
}
