//! The thread that publishes reactions to devices of this gateway, in the order in which they were decided.
//!
//! Progress moves behind a reaction when what lasting sessions hold of it is durable, or when it cannot be published and is
//! counted. After a crash some are published again, under the same id: at least once, never in another order.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::{Lane, Seq};

use super::metrics::{Metrics, Outcome};
use super::status::Handle;
use crate::alerts::reaction::{Reaction, Target};
use crate::mqtt::{Outgoing, PublishError, Published, Publisher, Qos};
use crate::outbox::{self, Consumer, ConsumerId, Segment};
use crate::supervise::{self, Phase, Shutdown, Supervisor, TaskKind, clock};

/// Publishes what is to be done over MQTT.
#[derive(Debug)]
pub(crate) struct Sink;

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The outbox does not know it as a consumer.
    #[error("reactions cannot be read")]
    Outbox(#[from] outbox::Error),
    /// The operating system's refusal to start a thread.
    #[error("the thread for reactions cannot be started")]
    Thread(#[from] io::Error),
}

/// The name of the consumer of lane alerts.
const CONSUMER: &str = "alerts-mqtt";
/// How much one read from the disk fetches.
const READ_BYTES: usize = 1 << 20;
/// Publishes that are not known to be durable, at most.
const FLIGHTS_MAX: usize = 256;
/// How often the thread looks up from a wait.
const LOOK_UP: Duration = Duration::from_millis(200);
/// The pause after something failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Who reads lane alerts for it; there whether or not a rule has something to do, so that it never holds the lane.
pub(crate) fn consumer() -> ConsumerId {
    ConsumerId { name: CONSUMER.to_owned(), lane: Lane::Alerts }
}

/// What the thread works with.
struct Worker {
    consumer: Consumer,
    outbox: outbox::Handle,
    publisher: Publisher,
    shutdown: Shutdown,
    /// The first entry that was not looked at.
    next: Seq,
    flights: Vec<Published>,
    commits_seen: u64,
    metrics: Metrics,
    handle: Handle,
}

/// Why a segment was not carried out to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// What was published is not durable: it is published again.
    Again,
    /// The gateway stops.
    Ended,
}

impl Sink {
    /// Starts the thread. It ends in [`Phase::DrainUplink`].
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with [`consumer`], or no thread can be started.
    pub(crate) fn start(
        outbox: &outbox::Handle,
        publisher: Publisher,
        supervisor: &Supervisor,
    ) -> Result<Handle, StartError> {
        let consumer = outbox.consumer(CONSUMER, Lane::Alerts)?;
        let (next, _) = consumer.progress();
        let handle = Handle::new(outbox.clone(), next);
        let worker = Worker {
            consumer,
            outbox: outbox.clone(),
            publisher,
            shutdown: supervisor.shutdown(),
            next,
            flights: Vec::new(),
            commits_seen: 0,
            metrics: Metrics::new(),
            handle: handle.clone(),
        };
        supervisor.spawn_thread(TaskKind::Reactions, move || worker.run())?;
        Ok(handle)
    }
}

impl Worker {
    fn run(mut self) -> Result<(), Infallible> {
        while self.shutdown.phase() < Phase::DrainUplink {
            self.answer_drop_request();
            self.step();
        }
        Ok(())
    }

    fn step(&mut self) {
        // What is committed after this is seen by the wait.
        let seen = self.outbox.wait_commit_in(Lane::Alerts, self.commits_seen, Duration::ZERO);
        match self.consumer.try_next(READ_BYTES) {
            Ok(Some(segment)) => match self.carry_out(&segment) {
                Ok(()) => {}
                Err(stopped) => {
                    // What was not reached must not be passed over by a later segment.
                    self.consumer.rewind();
                    self.next = self.consumer.progress().0;
                    self.rest(if stopped == Stopped::Again { PAUSE } else { LOOK_UP });
                }
            },
            Ok(None) => self.commits_seen = self.outbox.wait_commit_in(Lane::Alerts, seen, LOOK_UP),
            Err(error) => {
                tracing::warn!(error = supervise::chain(&error), "reactions cannot be read; trying again");
                self.rest(PAUSE);
            }
        }
    }

    /// Does what is to be done of a segment, and moves the progress behind it.
    fn carry_out(&mut self, segment: &Arc<Segment>) -> Result<(), Stopped> {
        let start = self.next.max(self.consumer.progress().0);
        for (seq, record) in segment.records_from(start) {
            match Reaction::of(&record) {
                None => {}
                Some(Ok(reaction)) => self.publish(&reaction)?,
                Some(Err(error)) => {
                    self.metrics.count(Outcome::Unreadable);
                    tracing::error!(%seq, %error, "a reaction cannot be read and is left out");
                }
            }
            self.next = seq.next();
        }
        self.next = self.next.max(segment.last().next());
        self.settle()
    }

    /// Publishes it, if it is for MQTT. What cannot be published is counted and passed over.
    fn publish(&mut self, reaction: &Reaction<'_>) -> Result<(), Stopped> {
        let Target::Mqtt { topic, payload, qos, retain, content_type } = &reaction.target else {
            return Ok(());
        };
        let properties = [
            ("penstock-reaction-id", &*reaction.id),
            ("penstock-alert-id", &*reaction.alert),
            ("penstock-rule", &*reaction.rule),
            ("penstock-on", reaction.on.name()),
        ];
        let outgoing = Outgoing {
            topic,
            payload: payload.as_bytes(),
            qos: Qos::from_number(*qos),
            retain: *retain,
            expires_at_ms: Some(reaction.expires_ms),
            content_type: Some(content_type),
            correlation: Some(reaction.id.as_bytes()),
            properties: &properties,
        };
        loop {
            match self.publisher.publish(&outgoing) {
                Ok(published) => {
                    self.metrics.count(Outcome::of(published.takers, published.dropped, published.kept));
                    self.handle.published();
                    self.flights.push(published);
                    return if self.flights.len() < FLIGHTS_MAX { Ok(()) } else { self.settle() };
                }
                Err(PublishError::Full) => {
                    self.settle()?;
                    self.rest(LOOK_UP);
                    if self.is_stopping() {
                        return Err(Stopped::Ended);
                    }
                }
                Err(PublishError::Stopping) => return Err(Stopped::Ended),
                Err(error) => {
                    self.leave_out(reaction, error);
                    return Ok(());
                }
            }
        }
    }

    fn leave_out(&self, reaction: &Reaction<'_>, error: PublishError) {
        let outcome = match error {
            PublishError::Expired => Outcome::Expired,
            PublishError::TooLarge { .. } => Outcome::TooLarge,
            _ => Outcome::Topic,
        };
        self.metrics.count(outcome);
        let (id, device_id) = (&*reaction.id, &*reaction.device);
        tracing::warn!(id, device_id, %error, "a reaction is not carried out");
    }

    /// Waits until everything that was published is durable, and moves the progress behind it.
    fn settle(&mut self) -> Result<(), Stopped> {
        for mut published in std::mem::take(&mut self.flights) {
            loop {
                match published.wait(clock::now() + LOOK_UP) {
                    Some(Ok(())) => break,
                    Some(Err(_)) if self.is_stopping() => return Err(Stopped::Ended),
                    Some(Err(_)) => {
                        tracing::warn!("reactions did not become durable; they are published again");
                        return Err(Stopped::Again);
                    }
                    None if self.is_stopping() => return Err(Stopped::Ended),
                    None => self.answer_drop_request(),
                }
            }
        }
        self.consumer.commit(self.next, Vec::new());
        self.handle.stands_at(self.next);
        Ok(())
    }

    /// Entries may be about to be let go: says how many of them were not looked at.
    fn answer_drop_request(&self) {
        if let Some(below) = self.consumer.drop_request() {
            let (low, _) = self.consumer.progress();
            self.consumer.answer_drop(below, below.0.saturating_sub(low.0));
        }
    }

    fn is_stopping(&self) -> bool {
        self.shutdown.phase() >= Phase::DrainUplink
    }

    fn rest(&self, limit: Duration) {
        let seen = self.outbox.wait_commit_in(Lane::Alerts, self.commits_seen, Duration::ZERO);
        let _seen = self.outbox.wait_commit_in(Lane::Alerts, seen, limit);
    }
}
