//! Dead-letter queues as the watcher sees them, so that tests can run it against queues in memory.

use std::future::Future;

use crate::commands::amqp::{LinkError, Namespace};
use crate::commands::message::Received;

/// Where dead letters are looked at, without taking any.
pub(crate) trait Source: Send + Sync + 'static {
    /// Messages in the dead-letter queue of `entity`, locked ones too, from the sequence number `from` on, in that
    /// order: at most `count`, at least one if there is any.
    fn peek(
        &self,
        entity: &str,
        from: i64,
        count: u32,
    ) -> impl Future<Output = Result<Vec<Received>, LinkError>> + Send;
}

impl Source for Namespace {
    async fn peek(&self, entity: &str, from: i64, count: u32) -> Result<Vec<Received>, LinkError> {
        Self::peek(self, &format!("{entity}/$DeadLetterQueue"), from, count).await
    }
}
