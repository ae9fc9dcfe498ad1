//! A message in hand, from its arrival until it is settled or left.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use penstock_proto::Lane;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, sleep_until, timeout};

use super::cloud::{Cloud, Session as _};
use super::control::Order;
use super::fleet::Fleet;
use super::reply;
use super::session::Serving;
use super::shared::{Kept, Pending};
use super::task::Place;
use crate::commands::amqp::LinkError;
use crate::commands::contract::{Command, Defaults, Identity, Phase, Record, Reply, StatusEvent};
use crate::commands::execution::{Arrival, Event, Now, Seat, Step};
use crate::commands::message::{Disposition, LockToken, Received};
use crate::commands::metrics::{Left, Metrics};
use crate::mqtt::{Fate, NotDelivered};
use crate::outbox::{Completion, Ticket};
use crate::supervise::clock;

/// A message in hand.
pub(super) struct Hand<'s, 'a, C: Cloud, F: Fleet> {
    link: &'s mut Serving<'a, C, F>,
    seat: Seat,
    delivery: Option<F::Delivery>,
    /// Given back when the device has said something.
    permit: Option<OwnedSemaphorePermit>,
    written: Option<(Arc<Completion>, Ticket)>,
    /// The outbox had no room for what is to be written.
    wants_room: bool,
    /// The link was told to close, and the execution knows.
    told: bool,
    /// The device refused it for now.
    refused: bool,
    received_at: Instant,
    published_at: Instant,
    pending: Pending<'a>,
}

/// How much longer Service Bus may take for what it was asked when the link is told to close.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What a message in hand waits for.
enum Happened {
    Told(Order),
    Written(bool),
    Fate(Fate),
    Moved,
    Lost(LinkError),
    Renew,
    Room,
    Time,
}

impl<'s, 'a, C: Cloud, F: Fleet> Hand<'s, 'a, C, F> {
    /// Has a message delivered and settles it. `Ok(true)`: the next one may come; `Ok(false)`: it is left, and the link
    /// is to be closed.
    pub(super) async fn take(link: &'s mut Serving<'a, C, F>, received: Received) -> Result<bool, LinkError> {
        let shared = link.shared;
        let mut pending = shared.pending();
        if received.delivery_count == 0 {
            let age_ms = clock::unix_ms().saturating_sub(received.enqueued_ms);
            shared.metrics.age.record(Duration::from_millis(age_ms).as_secs_f64());
        }
        // What is kept has the permit that it was sent with, or needs none any more.
        let permit = if shared.keeps(link.device) { Ok(Ok(None)) } else { permit(link).await };
        let permit = match permit {
            Ok(Ok(permit)) => permit,
            Ok(Err(order)) => {
                pending.reason = left_because(order);
                return Ok(false);
            }
            Err(error) => {
                pending.reason = left_by(&error);
                return Err(error);
            }
        };
        let place = link.place;
        let remote = match finish(place, Duration::ZERO, remote(link)).await {
            Ok(Ok(remote)) => remote,
            Ok(Err(error)) => {
                pending.reason = left_by(&error);
                return Err(error);
            }
            Err(order) => {
                pending.reason = left_because(order);
                return Ok(false);
            }
        };
        let kept = shared.kept(link.device);
        let (kept, delivery, permit) = match kept {
            Some(Kept { seat, delivery, permit: kept }) => (Some(seat), delivery, kept.or(permit)),
            None => (None, None, permit),
        };
        let Some(seat) = kept.or_else(|| shared.table.seat(link.device)) else {
            // The task before this one has not ended: whoever asks again finds the seat free.
            return Ok(false);
        };
        let now = clock::now();
        let hand = Hand {
            link,
            seat,
            delivery,
            permit,
            written: None,
            wants_room: false,
            told: false,
            refused: false,
            received_at: now,
            published_at: now,
            pending,
        };
        hand.begin(&received, remote);
        drop(received);
        hand.run().await
    }

    fn begin(&self, received: &Received, remote: Option<Record>) {
        let shared = self.link.shared;
        let entity = &self.link.place.name;
        let defaults =
            Defaults { completion: shared.completion, tenant: shared.entities.tenant(self.link.device) };
        let identity = Identity::of(received, entity);
        let known = [shared.table.record(self.link.device), remote.clone()];
        let mut known = known.iter().flatten().filter(|record| record.identity == identity);
        if self.seat.has_in_flight(&identity) || known.any(|record| record.phase != Phase::Started) {
            shared.metrics.repeats.increment(1);
        }
        let message = Command::read(received, entity, &defaults);
        let message = message.and_then(|command| shared.fleet.examine(command));
        let message = message.map(Arc::new).map_err(Arc::from);
        self.seat.received(Arrival { lock: received.lock, message }, remote, now());
    }

    async fn run(mut self) -> Result<bool, LinkError> {
        loop {
            let now = now();
            let now_ms = now.unix_ms;
            let done = match self.seat.step(now) {
                Step::Receive => return Ok(true),
                Step::Close => return Ok(false),
                Step::Commit if self.commit(now_ms) => Ok(()),
                Step::Commit => self.wait(None).await,
                Step::Publish { command, redelivered } => {
                    self.publish(&command, redelivered, now_ms);
                    Ok(())
                }
                Step::Settle { lock, disposition, record, reply } => {
                    self.settle(lock, disposition, &record, reply.as_deref()).await
                }
                Step::Abandon { lock } => self.abandon(lock).await,
                Step::Wait { until_ms } => {
                    if self.delivery.is_none() && self.written.is_none() {
                        // Nothing is on its way to the device: an answer may take its time.
                        self.permit = None;
                    }
                    let left =
                        until_ms.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(now_ms)));
                    self.wait(left).await
                }
            };
            if let Err(error) = done {
                self.lost(&error).await;
                return Err(error);
            }
        }
    }

    /// Submits what is to be written; `false` if there is no room for it now.
    fn commit(&mut self, now_ms: u64) -> bool {
        let appender = &self.link.shared.appender;
        let Ok(permit) = appender.reserve(Lane::Status, StatusEvent::BYTES) else {
            self.wants_room = true;
            return false;
        };
        self.wants_room = false;
        let done = Arc::new(Completion::new());
        let ticket =
            self.seat.commit(now_ms, |entries, state| appender.submit(permit, entries, state, &done));
        self.written = ticket.map(|ticket| (done, ticket));
        true
    }

    fn publish(&mut self, command: &Command, redelivered: bool, now_ms: u64) {
        // What was kept of an earlier delivery is withdrawn first.
        self.delivery = None;
        if self.permit.is_none() {
            // It was given back since: without another one this waits as for a session that is full.
            self.permit = Arc::clone(&self.link.shared.in_flight).try_acquire_owned().ok();
        }
        if self.permit.is_none() {
            return self.on(Event::NotDelivered(NotDelivered::Full));
        }
        let message = command.message(redelivered, now_ms);
        let shared = self.link.shared;
        match message.with(|message| shared.fleet.deliver(self.link.device, message)) {
            Ok(delivery) => {
                shared.metrics.published.increment(1);
                self.published_at = clock::now();
                self.delivery = Some(delivery);
            }
            Err(reason) => self.on(Event::NotDelivered(reason)),
        }
    }

    async fn settle(
        &mut self,
        lock: LockToken,
        disposition: Disposition,
        record: &Record,
        reply: Option<&Reply>,
    ) -> Result<(), LinkError> {
        self.permit = None;
        let place = self.link.place;
        if let Some(reply) = reply {
            // At a stop it is left at once: it is sent again when the message comes again.
            let sent = finish(place, Duration::ZERO, Box::pin(reply::send(self.link, reply))).await;
            match sent {
                Ok(sent) => sent?,
                Err(order) => return self.leave(order),
            }
        }
        let session = &mut self.link.session;
        let state = record.session_state().filter(|_| self.link.shared.replicas);
        let settling = async {
            if let Some(state) = state {
                session.set_state(Some(&state)).await?;
            }
            session.settle(lock, &disposition).await
        };
        match finish(place, LAST_WORD, settling).await {
            Ok(settled) => settled?,
            Err(order) => return self.leave(order),
        }
        match &disposition {
            Disposition::Complete | Disposition::Abandon => Metrics::completed(),
            Disposition::DeadLetter { reason, .. } => Metrics::dead_lettered(reason),
        }
        self.pending.settled();
        let took = clock::now().saturating_duration_since(self.received_at);
        self.link.shared.metrics.settle_time.record(took);
        self.on(Event::Settled);
        Ok(())
    }

    async fn abandon(&mut self, lock: LockToken) -> Result<(), LinkError> {
        self.delivery = None;
        self.permit = None;
        let settling = self.link.session.settle(lock, &Disposition::Abandon);
        match finish(self.link.place, LAST_WORD, settling).await {
            Ok(settled) => settled?,
            Err(order) => return self.leave(order),
        }
        Metrics::abandoned(if self.refused { "refused" } else { "no-ack" });
        self.pending.settled();
        self.on(Event::Settled);
        Ok(())
    }

    /// The link is to close before it is known whether the message is settled. Should it come again, the record says how
    /// it ended.
    fn leave(&mut self, order: Order) -> Result<(), LinkError> {
        self.pending.reason = left_because(order);
        self.on(Event::LinkLost);
        self.on(Event::Gone);
        Ok(())
    }

    /// Waits until something happens, at most for `left`, and tells the execution.
    async fn wait(&mut self, left: Option<Duration>) -> Result<(), LinkError> {
        match self.happened(left).await {
            Happened::Told(order) => {
                self.told = true;
                self.pending.reason = left_because(order);
                self.on(Event::Gone);
            }
            Happened::Written(durable) => {
                self.written = None;
                self.on(Event::Committed(durable));
            }
            Happened::Fate(fate) => self.fate(fate),
            Happened::Lost(error) => return Err(error),
            Happened::Renew => return self.link.renew().await,
            Happened::Room => self.wants_room = false,
            Happened::Moved | Happened::Time => {}
        }
        Ok(())
    }

    async fn happened(&mut self, left: Option<Duration>) -> Happened {
        let Self { link, seat, delivery, written, wants_room, told, .. } = self;
        let due = link.renewal_due();
        let Serving { shared, place, session, .. } = &mut **link;
        tokio::select! {
            biased;
            order = place.control.closed(), if !*told => Happened::Told(order),
            durable = all_durable(written.as_ref()) => Happened::Written(durable),
            fate = fate_of(delivery.as_mut()) => Happened::Fate(fate),
            () = seat.moved() => Happened::Moved,
            error = session.lost() => Happened::Lost(error),
            () = sleep_until(due.into()) => Happened::Renew,
            () = shared.appender.room(Lane::Status), if *wants_room => Happened::Room,
            () = sleep(left.unwrap_or_default()), if left.is_some() => Happened::Time,
        }
    }

    fn fate(&mut self, fate: Fate) {
        self.delivery = None;
        self.permit = None;
        let metrics = &self.link.shared.metrics;
        let event = match fate {
            Fate::Acknowledged => {
                metrics.acknowledged.increment(1);
                let took = clock::now().saturating_duration_since(self.published_at);
                metrics.ack_time.record(took);
                Event::Acknowledged
            }
            Fate::Refused { reason } => {
                metrics.refused.increment(1);
                self.refused = true;
                Event::Refused(reason)
            }
            Fate::Expired => Event::ExpiredUnsent,
            Fate::Gone => {
                self.pending.reason = Left::Disconnected;
                Event::Gone
            }
        };
        self.on(event);
    }

    /// The link is lost. What was decided is still written; what the device has in hand is kept for the next link.
    async fn lost(mut self, error: &LinkError) {
        self.pending.reason = left_by(error);
        self.on(Event::LinkLost);
        loop {
            if self.written.is_some() {
                let durable = all_durable(self.written.as_ref()).await;
                self.written = None;
                self.on(Event::Committed(durable));
                continue;
            }
            let now = now();
            if self.seat.step(now) != Step::Commit || !self.commit(now.unix_ms) {
                break;
            }
        }
        if self.seat.standing().is_some() {
            let Self { link, seat, delivery, permit, .. } = self;
            link.shared.keep(link.device, Kept { seat, delivery, permit });
        }
    }

    fn on(&self, event: Event) {
        self.seat.on(event, now());
    }
}

fn now() -> Now {
    Now { unix_ms: clock::unix_ms(), steady_ms: clock::steady_ms() }
}

/// Whether what was submitted is durable, once that is known; never if nothing was.
async fn all_durable(written: Option<&(Arc<Completion>, Ticket)>) -> bool {
    let Some((done, ticket)) = written else { return pending().await };
    let before = Ticket(ticket.0.saturating_sub(1));
    *ticket == Ticket::default() || poll_fn(|cx| done.poll_durable(before, cx)).await.is_ok()
}

/// What became of a delivery, once that is known; never if there is none.
async fn fate_of<D: Future<Output = Fate> + Unpin>(mut delivery: Option<&mut D>) -> Fate {
    poll_fn(|cx| match &mut delivery {
        Some(delivery) => Pin::new(&mut **delivery).poll(cx),
        None => Poll::Pending,
    })
    .await
}

/// Waits for what was asked of Service Bus. Once the link is told to close, that may take `at_stop` longer if the gateway
/// stops, and [`LAST_WORD`] if not; the error says what was told.
async fn finish<T>(place: &Place, at_stop: Duration, asked: impl Future<Output = T>) -> Result<T, Order> {
    tokio::pin!(asked);
    let order = tokio::select! {
        biased;
        answer = &mut asked => return Ok(answer),
        order = place.control.closed() => order,
    };
    let left = if order == Order::Stop { at_stop } else { LAST_WORD };
    timeout(left, asked).await.map_err(|_| order)
}

/// A permit to send a command to its device. The lock is renewed while it is waited for.
async fn permit<C: Cloud, F: Fleet>(
    link: &mut Serving<'_, C, F>,
) -> Result<Result<Option<OwnedSemaphorePermit>, Order>, LinkError> {
    let acquire = Arc::clone(&link.shared.in_flight).acquire_owned();
    tokio::pin!(acquire);
    loop {
        let due = link.renewal_due();
        tokio::select! {
            biased;
            order = link.place.control.closed() => return Ok(Err(order)),
            // The semaphore is never closed.
            permit = &mut acquire => return Ok(permit.map(Some).map_err(|_| Order::Stop)),
            error = link.session.lost() => return Err(error),
            () = sleep_until(due.into()) => {}
        }
        link.renew().await?;
    }
}

/// What another gateway left with the session, asked for once: after that the lock is ours.
async fn remote<C: Cloud, F: Fleet>(link: &mut Serving<'_, C, F>) -> Result<Option<Record>, LinkError> {
    if !link.shared.replicas || !std::mem::take(&mut link.fresh) {
        return Ok(None);
    }
    let state = link.session.state().await?;
    Ok(state.as_deref().and_then(Record::from_session_state))
}

const fn left_because(order: Order) -> Left {
    match order {
        Order::Stop => Left::Stopped,
        Order::Hold | Order::Serve | Order::Finish | Order::Close => Left::Disconnected,
    }
}

const fn left_by(error: &LinkError) -> Left {
    match error {
        LinkError::LockLost(_) | LinkError::Locked(_) => Left::LockLost,
        _ => Left::Lost,
    }
}
