//! Tests of the broker, on a clock that stands still until a test moves it.

mod cost;
mod dead;
mod entities;
mod links;
mod model;
mod plain;
mod sessions;
mod wakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{
    Accept, Broker, Clock, ConnectionId, Delivery, LinkId, Lock, Message, Notice, Outcome, Refusal, Wish,
};
use crate::servicebus::config::{Entities, QueueSpec};

const START_MS: u64 = 1_700_000_000_000;
const ABANDON: Outcome = Outcome::Modified { failed: true, undeliverable: false };
const DEFER: Outcome = Outcome::Modified { failed: false, undeliverable: true };

/// A broker, and numbers for links.
struct Rig {
    broker: Broker,
    links: AtomicU64,
}

/// A connection.
struct Client<'a> {
    rig: &'a Rig,
    id: ConnectionId,
    notices: mpsc::Receiver<Notice>,
}

impl Rig {
    fn new(entities: &Entities) -> Self {
        let clock = Clock::Driven(Arc::new(AtomicU64::new(START_MS)));
        Self { broker: Broker::new(entities, clock).unwrap(), links: AtomicU64::new(1) }
    }

    /// One with this queue.
    fn with(queue: QueueSpec) -> Self {
        Self::new(&Entities::queues([queue]))
    }

    /// One with the session queue `q`.
    fn sessions() -> Self {
        Self::with(QueueSpec::with_sessions("q"))
    }

    /// One with the plain queue `q`.
    fn plain() -> Self {
        Self::with(QueueSpec::new("q"))
    }

    fn connect(&self) -> Client<'_> {
        self.connect_with(1_000)
    }

    fn connect_with(&self, notices: usize) -> Client<'_> {
        let (sender, notices) = mpsc::channel(notices);
        Client { rig: self, id: self.broker.connect(sender), notices }
    }

    fn seconds(&self, seconds: u64) {
        self.broker.advance(Duration::from_secs(seconds));
    }

    /// Sends messages to session `session` of `q`, with these ids.
    fn send(&self, session: &str, ids: &[&str]) -> Vec<i64> {
        self.broker.send("q", ids.iter().map(|id| message(session, id)).collect()).unwrap()
    }

    /// Sends messages without session to `q`.
    fn send_plain(&self, ids: &[&str]) -> Vec<i64> {
        self.broker.send("q", ids.iter().map(|id| plain(id)).collect()).unwrap()
    }
}

impl Client<'_> {
    fn attach(&self, entity: &str, wish: Wish) -> (LinkId, Result<Accept, Refusal>) {
        let link = self.rig.links.fetch_add(1, Ordering::Relaxed);
        (link, self.rig.broker.attach_receiver(self.id, link, entity, wish))
    }

    /// Accepts a session of `q`.
    fn session(&self, id: &str) -> LinkId {
        let (link, accept) = self.attach("q", Wish::Session(id.to_owned()));
        assert!(matches!(accept, Ok(Accept::Granted { .. })), "{accept:?}");
        link
    }

    /// A receiver of an entity without sessions.
    fn plain(&self, entity: &str) -> LinkId {
        let (link, accept) = self.attach(entity, Wish::Plain);
        assert_eq!(accept, Ok(Accept::Granted { session: None, locked_until_ms: None }));
        link
    }

    /// A receiver that waits.
    fn wait(&self, seconds: u64) -> LinkId {
        let (link, accept) = self.attach("q", Wish::Next { wait: Duration::from_secs(seconds) });
        assert_eq!(accept, Ok(Accept::Waiting));
        link
    }

    /// Receives the message with this id, which must come next. Gives its lock.
    fn receive(&self, link: LinkId, expected: &str) -> Lock {
        let delivery = self.rig.broker.next(link).unwrap_or_else(|| panic!("{expected} does not come"));
        assert_eq!(id(&delivery), expected);
        delivery.lock
    }

    /// Receives it and settles it.
    fn settle(&self, link: LinkId, expected: &str, outcome: &Outcome) {
        let lock = self.receive(link, expected);
        self.rig.broker.settle(link, lock, outcome).unwrap();
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }
}

fn message(session: &str, id: &str) -> Message {
    Message { session_id: Some(session.to_owned()), ..plain(id) }
}

fn plain(id: &str) -> Message {
    Message { message_id: Some(id.to_owned()), bare: id.to_owned().into(), ..Message::default() }
}

fn id(delivery: &Delivery) -> &str {
    delivery.message.message_id.as_deref().unwrap_or("")
}

fn condition<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> &'static str {
    answer.unwrap_err().condition
}
