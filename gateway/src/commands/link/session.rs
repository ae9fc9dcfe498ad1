//! A session that is ours: one message at a time, its lock renewed, until the link ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep_until, timeout};

use super::cloud::{Cloud, Session as _};
use super::control::{News, Order, Report};
use super::fleet::Fleet;
use super::hand::Hand;
use super::renewal::Renewal;
use super::shared::Shared;
use super::task::Place;
use crate::commands::amqp::LinkError;
use crate::commands::message::Received;
use crate::commands::metrics::Metrics;
use crate::supervise::clock;

/// A link at work.
pub(super) struct Serving<'a, C: Cloud, F: Fleet> {
    pub(super) shared: &'a Shared<C, F>,
    pub(super) place: &'a Place,
    pub(super) device: &'a Arc<str>,
    pub(super) session: C::Session,
    renewal: Renewal,
    /// The memory of the message in hand, of what all links may hold.
    memory: Option<OwnedSemaphorePermit>,
    touched: Option<Instant>,
    /// Since when a message is waited for.
    asking_since: Option<Instant>,
    /// Nobody has looked at the state of the session yet.
    pub(super) fresh: bool,
}

/// What a link without a message in hand waits for.
enum Idle {
    Order,
    Renew,
    Received(Box<Received>),
    Lost(LinkError),
}

/// How often a link that works says so.
const TOUCH_INTERVAL: Duration = Duration::from_secs(1);
/// What waits in a queue comes sooner than this once it is asked for.
const AT_ONCE_AFTER: Duration = Duration::from_secs(3);
/// Longest wait for one renewal. Only the order to close is heard meanwhile.
const RENEW_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for giving a session back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl<'a, C: Cloud, F: Fleet> Serving<'a, C, F> {
    pub(super) fn new(
        shared: &'a Shared<C, F>,
        place: &'a Place,
        device: &'a Arc<str>,
        session: C::Session,
    ) -> Self {
        let (until_ms, now_ms, now) = (session.locked_until_ms(), clock::unix_ms(), clock::now());
        let renewal = Renewal::new(until_ms, now_ms, now, rand::random(), shared.lasting(place.entity));
        let (memory, touched, asking_since, fresh) = (None, None, None, true);
        Self { shared, place, device, session, renewal, memory, touched, asking_since, fresh }
    }

    /// Runs until the link is told to close (`Ok`), or is lost. [`Self::close`] is due then.
    pub(super) async fn run(&mut self) -> Result<(), LinkError> {
        let end = self.serve().await;
        if let Err(LinkError::LockLost(_)) = &end {
            self.shared.metrics.locks_lost.increment(1);
        }
        if let Some(memory) = self.memory.take() {
            self.shared.keep_memory(self.device, memory);
        }
        end
    }

    /// Gives the session back. One that is not given back in time is so when its link is gone.
    pub(super) async fn close(self) {
        drop(timeout(CLOSE_TIMEOUT, self.session.close()).await);
    }

    async fn serve(&mut self) -> Result<(), LinkError> {
        loop {
            let order = self.place.control.order();
            if order >= Order::Finish {
                return Ok(());
            }
            match self.idle(order).await {
                Idle::Order => {}
                Idle::Renew => self.renew().await?,
                Idle::Lost(error) => return Err(error),
                Idle::Received(received) => {
                    self.learn(received.enqueued_ms);
                    self.touch();
                    let Some(memory) = self.shared.memory(self.device, &received) else { return Ok(()) };
                    self.memory = Some(memory);
                    // On the heap, so that a link that waits is small: most links wait.
                    if !Box::pin(Hand::take(self, *received)).await? {
                        return Ok(());
                    }
                    self.memory = None;
                    self.touch();
                }
            }
        }
    }

    async fn idle(&mut self, order: Order) -> Idle {
        let due = self.renewal.due();
        if order == Order::Hold {
            return tokio::select! {
                biased;
                _ = self.place.control.other_than(order) => Idle::Order,
                () = sleep_until(due.into()) => Idle::Renew,
                error = self.session.lost() => Idle::Lost(error),
            };
        }
        self.asking_since.get_or_insert_with(clock::now);
        tokio::select! {
            biased;
            _ = self.place.control.other_than(order) => Idle::Order,
            () = sleep_until(due.into()) => Idle::Renew,
            received = self.session.receive() => match received {
                Ok(received) => Idle::Received(Box::new(received)),
                Err(error) => Idle::Lost(error),
            },
        }
    }

    /// What a message tells about the lock. One that comes after a while without any was enqueued just now.
    fn learn(&mut self, enqueued_ms: u64) {
        let now = clock::now();
        let since = self.asking_since.take();
        let at_once = since.is_some_and(|since| now.saturating_duration_since(since) >= AT_ONCE_AFTER);
        self.renewal.heard(enqueued_ms, at_once, now, self.shared.lasting(self.place.entity));
    }

    /// When the lock is to be renewed.
    pub(super) const fn renewal_due(&self) -> Instant {
        self.renewal.due()
    }

    /// Renews the lock. A failure that leaves hope is tried again soon. An order to close ends the wait; what is still
    /// to be written then gets one more try that is short.
    pub(super) async fn renew(&mut self) -> Result<(), LinkError> {
        let metrics = &self.shared.metrics;
        metrics.renewal_late.record(clock::now().saturating_duration_since(self.renewal.due()));
        let closes = self.place.control.order() >= Order::Close;
        let renewed = tokio::select! {
            biased;
            _ = self.place.control.closed(), if !closes => {
                self.renewal.failed(clock::now());
                return Ok(());
            }
            renewed = timeout(if closes { CLOSE_TIMEOUT } else { RENEW_TIMEOUT }, self.session.renew()) => renewed,
        };
        let now = clock::now();
        match renewed {
            Ok(Ok(until_ms)) => {
                metrics.renewed.increment(1);
                let lasting = self.shared.lasting(self.place.entity);
                self.renewal.renewed(until_ms, clock::unix_ms(), now, lasting);
            }
            Ok(Err(error @ LinkError::LockLost(_))) => {
                Metrics::not_renewed(true);
                return Err(error);
            }
            // What else ends a link shows by itself.
            Ok(Err(_)) | Err(_) => {
                Metrics::not_renewed(false);
                self.renewal.failed(now);
            }
        }
        Ok(())
    }

    /// Says that the link works, now and then.
    pub(super) fn touch(&mut self) {
        let now = clock::now();
        if self.touched.is_none_or(|before| now.saturating_duration_since(before) >= TOUCH_INTERVAL) {
            self.touched = Some(now);
            let news = News::Touched { device: Arc::clone(self.device) };
            let (link, entity) = (self.place.link, self.place.entity);
            self.shared.reports.push(Report { link, entity, news, error: None });
        }
    }
}
