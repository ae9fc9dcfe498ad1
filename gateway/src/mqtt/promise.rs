//! What a publisher owes to lasting sessions: messages that are sent once their place in the store is
//! durable.

use std::collections::VecDeque;
use std::sync::Arc;

use super::session::Session;

/// Messages that wait for tickets of one submitter, in order.
#[derive(Debug, Default)]
pub(super) struct Promises(VecDeque<Promise>);

#[derive(Debug)]
struct Promise {
    ticket: u64,
    session: Arc<Session>,
    order: u64,
}

impl Promises {
    /// Message `order` of `session` waits for `ticket`.
    pub(super) fn push(&mut self, ticket: u64, session: Arc<Session>, order: u64) {
        self.0.push_back(Promise { ticket, session, order });
    }

    /// Everything up to `durable` is.
    pub(super) fn keep(&mut self, durable: u64) {
        while let Some(promise) = self.0.pop_front_if(|promise| promise.ticket <= durable) {
            promise.session.keep_promise(promise.order);
        }
        if self.0.is_empty() && self.0.capacity() > 0 {
            self.0 = VecDeque::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Promises {
    /// Of what is left nothing will be heard any more, and it must not wait for ever.
    fn drop(&mut self) {
        for promise in self.0.drain(..) {
            promise.session.keep_promise(promise.order);
        }
    }
}
