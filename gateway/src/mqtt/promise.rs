//! What a publisher owes to others: to lasting sessions messages that are sent once their place in the store
//! is durable, and to who took an answer the word that what follows from it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::devices::Durable;
use super::session::Session;

/// Messages and answers that wait for tickets of one submitter, in order.
#[derive(Debug, Default)]
pub(super) struct Promises {
    messages: VecDeque<Promise>,
    /// Few connections ever have one.
    answers: Option<Box<Answers>>,
}

type Answers = VecDeque<(u64, Arc<dyn Durable>)>;

#[derive(Debug)]
struct Promise {
    ticket: u64,
    session: Arc<Session>,
    order: u64,
}

impl Promises {
    /// Message `order` of `session` waits for `ticket`.
    pub(super) fn push(&mut self, ticket: u64, session: Arc<Session>, order: u64) {
        self.messages.push_back(Promise { ticket, session, order });
    }

    /// Who took an answer waits for `ticket`.
    pub(super) fn push_answer(&mut self, ticket: u64, waits: Arc<dyn Durable>) {
        self.answers.get_or_insert_default().push_back((ticket, waits));
    }

    /// Everything up to `durable` is.
    pub(super) fn keep(&mut self, durable: u64) {
        while let Some(promise) = self.messages.pop_front_if(|promise| promise.ticket <= durable) {
            promise.session.keep_promise(promise.order);
        }
        if self.messages.is_empty() && self.messages.capacity() > 0 {
            self.messages = VecDeque::new();
        }
        if let Some(answers) = &mut self.answers {
            while let Some((_, waits)) = answers.pop_front_if(|(ticket, _)| *ticket <= durable) {
                waits.settled(true);
            }
            if answers.is_empty() {
                self.answers = None;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.answers.is_none()
    }
}

impl Drop for Promises {
    /// Of what is left nothing will be heard any more, and it must not wait for ever.
    fn drop(&mut self) {
        for promise in self.messages.drain(..) {
            promise.session.keep_promise(promise.order);
        }
        for (_, waits) in self.answers.iter_mut().flat_map(|answers| answers.drain(..)) {
            waits.settled(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Waits(&'static str, Arc<Mutex<Vec<(&'static str, bool)>>>);

    impl Durable for Waits {
        fn settled(&self, durable: bool) {
            self.1.lock().push((self.0, durable));
        }
    }

    #[test]
    fn answers_are_told_in_order_when_they_are_durable_and_else_that_nobody_knows() {
        let told = Arc::default();
        let mut promises = Promises::default();
        assert!(promises.is_empty());
        for (ticket, name) in [(1, "a"), (2, "b"), (2, "c"), (3, "d")] {
            promises.push_answer(ticket, Arc::new(Waits(name, Arc::clone(&told))));
        }
        promises.keep(0);
        assert!(told.lock().is_empty() && !promises.is_empty());
        promises.keep(2);
        assert_eq!(*told.lock(), [("a", true), ("b", true), ("c", true)]);
        drop(promises);
        assert_eq!(told.lock().last(), Some(&("d", false)));
        assert_eq!(told.lock().len(), 4);
    }
}
