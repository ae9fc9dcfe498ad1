//! Service Bus as this sink sees it, so that tests can run it against queues in memory.

use std::future::Future;

use crate::commands::{Answer, Line, NotTaken, Outgoing, Sending};

/// A namespace that messages can be sent to.
pub(super) trait Post: Send + 'static {
    /// A link to one entity.
    type Line: PostLine;

    /// Its host.
    fn host(&self) -> &str;
    /// Opens a link to `entity`.
    fn open(&self, entity: &str) -> impl Future<Output = Result<Self::Line, NotTaken>> + Send;
}

/// A link to one entity.
pub(super) trait PostLine: Send + 'static {
    /// Whether the entity took a message, in time.
    type Answer: Future<Output = Result<(), NotTaken>> + Send + Unpin + 'static;

    /// Sends a message; others can be sent before the answer is there.
    fn send(&mut self, message: Outgoing) -> impl Future<Output = Result<Self::Answer, NotTaken>> + Send;
    /// Ends the link.
    fn close(self) -> impl Future<Output = ()> + Send;
}

impl Post for Sending {
    type Line = Line;

    fn host(&self) -> &str {
        Self::host(self)
    }

    async fn open(&self, entity: &str) -> Result<Line, NotTaken> {
        Self::open(self, entity).await
    }
}

impl PostLine for Line {
    type Answer = Answer;

    async fn send(&mut self, message: Outgoing) -> Result<Answer, NotTaken> {
        Self::send(self, message).await
    }

    async fn close(self) {
        Self::close(self).await;
    }
}
