//! The uplink's thread: sessions of one producer each, until the gateway stops.
//!
//! A session feeds committed entries to its producer, hears what was confirmed and gives progress to the
//! outbox. It ends when a record is refused, when the client library says it cannot go on, or when nothing is
//! confirmed for too long. Then the producer is dropped and the next session replays from the last progress.
//! An outage of the cloud is none of these: the window fills, and everything else waits in the outbox.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use penstock_proto::{GatewayId, Lane, Seq};

use super::backoff::Backoff;
use super::config::Config;
use super::failure::{Disposition, Failure};
use super::feed::{Fed, Turn};
use super::headers::{HeaderMode, Headers};
use super::lane::LaneFeed;
use super::metrics::{Metrics, Rebuild};
use super::producer::{Producer, Report, SetUpError, Settings};
use super::route::Routes;
use super::status::Handle;
use super::topics::Topics;
use super::tracker::{Ack, Partitions, TopicId};
use super::window::Window;
use crate::outbox;
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, clock};

/// The lanes that are sent, highest first; each one's place equals [`Lane::index`].
pub(super) const LANES: [Lane; 4] = [Lane::Alerts, Lane::Status, Lane::Telemetry, Lane::Bulk];

/// Progress goes to the outbox at least this often while something is confirmed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Or after this many confirmations.
const COMMIT_RECORDS: u64 = 65_536;
/// Longest wait for a topic's partitions, during which no report is handled.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the reports of a producer that is given up.
const LAST_REPORTS_TIMEOUT: Duration = Duration::from_secs(5);
/// Socket timeouts without any confirmation after which a producer is given up.
const STALL_TIMEOUTS: u32 = 3;
/// Shortest and longest wait while something is in flight, and the wait while nothing is.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(100);

/// The uplink stage.
#[derive(Debug)]
pub struct Service;

/// Why the uplink did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The outbox does not know the uplink as a consumer.
    #[error("the uplink cannot read the outbox")]
    Outbox(#[from] outbox::Error),
    /// The operating system's refusal to start a thread.
    #[error("the uplink's thread cannot be started")]
    Thread(#[from] io::Error),
    /// A setting that the Kafka client does not take.
    #[error(transparent)]
    Client(Box<dyn std::error::Error + Send + Sync>),
}

/// Everything the thread works with.
pub(super) struct Worker {
    pub(super) settings: Settings,
    drain_timeout: Duration,
    pub(super) gateway: GatewayId,
    outbox: outbox::Handle,
    shutdown: Shutdown,
    handle: Handle,
    pub(super) metrics: Metrics,
    pub(super) routes: Routes,
    pub(super) topics: Topics,
    pub(super) lanes: Vec<LaneFeed>,
    pub(super) window: Window,
    pub(super) turn: Turn,
    pub(super) header_mode: HeaderMode,
    /// The headers of the record being sent.
    pub(super) headers: Headers,
    reports: Vec<Report>,
    pauses: Backoff,
    commits_seen: u64,
    connected: bool,
    acked: u64,
    rebuilds: u64,
    /// Once a stop was asked for: when it ends at the latest.
    stop_at: Option<Instant>,
}

/// What one session keeps track of.
struct Session {
    /// Last report, or the moment the window stopped being empty.
    heard: Instant,
    committed: Instant,
    acked_since_commit: u64,
    acked: u64,
    /// Rounds without any event, for the length of the next wait.
    quiet: u32,
}

/// Why a session ended.
enum End {
    Stopped,
    Rebuild(Rebuild, Failure),
}

impl Service {
    /// Starts the uplink's thread. Returns at once; an unreachable cloud is no error.
    ///
    /// The thread ends in [`Phase::DrainUplink`], after `uplink.drain_timeout` at the latest plus what the
    /// client library takes to close.
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with the consumers of [`super::consumers`], the client library refuses
    /// a setting, or no thread can be started.
    pub fn start(
        config: &Config,
        gateway: GatewayId,
        outbox: &outbox::Handle,
        supervisor: &Supervisor,
    ) -> Result<Handle, StartError> {
        let handle = Handle::default();
        let worker = Worker::new(config, gateway, outbox.clone(), supervisor.shutdown(), handle.clone())?;
        // The settings are checked here, where an error can still be told to whoever starts the gateway.
        let producer = worker.producer().map_err(|error| StartError::Client(Box::new(error)))?;
        supervisor.spawn_thread(TaskKind::Uplink, move || worker.run(producer))?;
        Ok(handle)
    }
}

impl Session {
    const fn new(now: Instant) -> Self {
        Self { heard: now, committed: now, acked_since_commit: 0, acked: 0, quiet: 0 }
    }
}

impl Worker {
    fn new(
        config: &Config,
        gateway: GatewayId,
        outbox: outbox::Handle,
        shutdown: Shutdown,
        handle: Handle,
    ) -> Result<Self, outbox::Error> {
        let routes = Routes::new(&config.topic, &config.routes);
        let lanes: Result<Vec<_>, _> =
            LANES.into_iter().map(|lane| LaneFeed::open(&outbox, lane, &routes)).collect();
        Ok(Self {
            settings: Settings {
                connection: config.connection.clone(),
                client_id: format!("penstock-{gateway}"),
                linger: config.linger,
                in_flight_max: config.in_flight_max,
                in_flight_bytes_max: config.in_flight_bytes_max,
                gzip: config.gzip,
            },
            drain_timeout: config.drain_timeout,
            gateway,
            outbox,
            shutdown,
            handle,
            metrics: Metrics::new(),
            topics: Topics::new(routes.topics()),
            routes,
            lanes: lanes?,
            window: Window::new(config.in_flight_max, config.in_flight_bytes_max),
            turn: Turn::default(),
            header_mode: config.headers,
            headers: Headers::default(),
            reports: Vec::with_capacity(config.in_flight_max),
            pauses: Backoff::default(),
            commits_seen: 0,
            connected: false,
            acked: 0,
            rebuilds: 0,
            stop_at: None,
        })
    }

    fn producer(&self) -> Result<Producer, SetUpError> {
        Producer::new(&self.settings)
    }

    fn run(mut self, first: Producer) -> Result<(), Infallible> {
        let mut producer = first;
        loop {
            match self.session(&producer) {
                End::Stopped => {
                    self.finish(&producer);
                    return Ok(());
                }
                End::Rebuild(reason, failure) => {
                    self.give_up(producer, reason, &failure);
                    let Some(next) = self.build_anew() else { return Ok(()) };
                    producer = next;
                }
            }
        }
    }

    /// The settings were good at the start, so what fails now is their surroundings, such as a certificate
    /// file that is being replaced: trying again until a stop, which gives `None`.
    fn build_anew(&mut self) -> Option<Producer> {
        loop {
            match self.producer() {
                Ok(producer) => return Some(producer),
                Err(error) => {
                    let error = crate::supervise::chain(&error);
                    tracing::error!(error, "the Kafka client cannot be built; trying again");
                    self.handle.update(|status| {
                        status.connected = false;
                        status.last_error = Some(error);
                    });
                    let until = self.pauses.fail(clock::now());
                    self.pause(until);
                }
            }
            if self.shutdown.phase() >= Phase::DrainUplink {
                return None;
            }
        }
    }

    fn session(&mut self, producer: &Producer) -> End {
        let mut session = Session::new(clock::now());
        loop {
            let now = clock::now();
            producer.poll(Duration::ZERO, &mut self.reports);
            if let Some(failure) = self.collect(&mut session, now) {
                return End::Rebuild(Rebuild::Refused, failure);
            }
            let was_empty = self.window.is_empty();
            if let Some(failure) = producer.fatal() {
                return End::Rebuild(Rebuild::Fatal, failure);
            }
            self.ask_for_partitions(producer, now);
            let fed = self.feed(producer, now);
            if let Fed::Fatal(failure) = fed {
                return End::Rebuild(Rebuild::Fatal, failure);
            }
            if was_empty {
                session.heard = now;
            }
            if now.duration_since(session.heard) > self.settings.connection.socket_timeout * STALL_TIMEOUTS {
                let reason = "nothing was confirmed for three socket timeouts".to_owned();
                return End::Rebuild(Rebuild::Stalled, Failure { disposition: Disposition::Retry, reason });
            }
            self.commit_if_due(producer, &mut session, now);
            if self.is_over(&fed, now) {
                return End::Stopped;
            }
            self.wait(&mut session, &fed);
        }
    }

    /// Takes the reports in. Returns the failure that ends the session, if there is one.
    fn collect(&mut self, session: &mut Session, now: Instant) -> Option<Failure> {
        let (mut acked, mut newest_ms) = (0_u64, 0);
        let mut failed: Option<(TopicId, Failure)> = None;
        for Report { slot, result } in self.reports.drain(..) {
            let Some(flight) = self.window.leave(slot) else { continue };
            match result {
                Ok(offset) => {
                    let lane = &mut self.lanes[flight.lane.index()];
                    let known = lane.tracker.acked(flight.target, flight.seq, offset);
                    assert!(known != Ack::Unknown, "what holds a slot is known to its tracker");
                    lane.touch();
                    self.topics.confirmed(flight.target.topic);
                    newest_ms = flight.received_ms;
                    acked += 1;
                }
                Err(failure) => {
                    Metrics::error(failure.disposition);
                    let known = failed.as_ref().map(|(_, failure)| failure.disposition);
                    if known.is_none_or(|known| failure.disposition > known) {
                        failed = Some((flight.target.topic, failure));
                    }
                }
            }
        }
        if acked > 0 {
            self.metrics.acked.increment(acked);
            let age = clock::unix_ms().saturating_sub(newest_ms);
            self.metrics.ack_age.record(Duration::from_millis(age).as_secs_f64());
            self.acked += acked;
            self.connected = true;
            session.acked += acked;
            session.acked_since_commit += acked;
        }
        if acked > 0 || failed.is_some() {
            session.heard = now;
            session.quiet = 0;
        }
        let (topic, failure) = failed?;
        if failure.disposition >= Disposition::Hold {
            self.topics.fail(topic, &failure, now);
        }
        if session.acked > 0 {
            self.pauses.succeed();
        }
        Some(failure)
    }

    /// Reads the partition count of one topic that is due. Nothing of it is in flight then, except after a
    /// record that the library itself refused.
    fn ask_for_partitions(&mut self, producer: &Producer, now: Instant) {
        let Some(topic) = self.topics.due(now) else { return };
        match producer.partitions(self.routes.name(topic), ASK_TIMEOUT) {
            Ok(count) => {
                self.connected = true;
                self.set_partitions(topic, count, now);
            }
            Err(failure) => {
                if failure.disposition != Disposition::Hold {
                    self.connected = false;
                }
                self.topics.fail(topic, &failure, clock::now());
            }
        }
    }

    fn set_partitions(&mut self, topic: TopicId, count: u32, now: Instant) {
        let name = self.routes.name(topic);
        let heads = self.outbox.status().lanes;
        let mut busy = false;
        for lane in &mut self.lanes {
            let head = Seq(heads[lane.lane.index()].next.0.saturating_sub(1));
            match lane.tracker.set_partitions(topic, count, head) {
                Ok(Partitions::First | Partitions::Same) => {}
                Ok(Partitions::Busy) => busy = true,
                Ok(change @ (Partitions::Grown { .. } | Partitions::Shrunk)) => {
                    tracing::warn!(topic = name, lane = %lane.lane, count, ?change, "the number of partitions changed");
                    self.metrics.repartitioned.increment(1);
                    lane.touch();
                    lane.commit();
                }
                Err(error) => {
                    let failure = Failure { disposition: Disposition::Hold, reason: error.to_string() };
                    return self.topics.fail(topic, &failure, now);
                }
            }
        }
        if busy {
            let reason = "the number of partitions changed while records are in flight".to_owned();
            self.topics.fail(topic, &Failure { disposition: Disposition::Retry, reason }, now);
        } else {
            self.topics.ready(topic);
        }
    }

    fn commit_if_due(&mut self, producer: &Producer, session: &mut Session, now: Instant) {
        let waited = now.duration_since(session.committed) >= COMMIT_INTERVAL;
        let drained = session.acked_since_commit > 0 && self.window.is_empty();
        if waited || drained || session.acked_since_commit >= COMMIT_RECORDS {
            for lane in &mut self.lanes {
                lane.commit();
            }
            session.committed = now;
            session.acked_since_commit = 0;
            self.publish(producer);
        }
    }

    /// Whether a stop was asked for and there is nothing more to do about it.
    fn is_over(&mut self, fed: &Fed, now: Instant) -> bool {
        let phase = self.shutdown.phase();
        if phase < Phase::DrainUplink {
            return false;
        }
        let stop_at = *self.stop_at.get_or_insert(now + self.drain_timeout);
        let sent = matches!(fed, Fed::Nothing) && self.lanes.iter().all(LaneFeed::is_between_segments);
        (sent && self.window.is_empty()) || now >= stop_at || phase >= Phase::Close
    }

    fn wait(&mut self, session: &mut Session, fed: &Fed) {
        if matches!(fed, Fed::Some) {
            session.quiet = 0;
            return;
        }
        let timeout = if self.window.is_empty() {
            IDLE
        } else {
            (POLL_MIN * (1 << session.quiet.min(8))).min(POLL_MAX)
        };
        session.quiet = session.quiet.saturating_add(1);
        self.commits_seen = self.outbox.wait_commit(self.commits_seen, timeout);
    }

    /// Hears the last reports of a producer, drops it and goes back to the last progress.
    fn give_up(&mut self, producer: Producer, reason: Rebuild, failure: &Failure) {
        tracing::warn!(
            reason = reason.name(),
            error = failure.reason,
            in_flight = self.window.count(),
            "the Kafka client is built anew"
        );
        let timeout = LAST_REPORTS_TIMEOUT.min(self.settings.connection.socket_timeout);
        producer.flush(timeout, &mut self.reports);
        let now = clock::now();
        let later = self.collect(&mut Session::new(now), now);
        drop(producer);
        self.window.clear();
        for lane in &mut self.lanes {
            lane.commit();
            lane.restart();
        }
        self.topics.restart();
        self.turn = Turn::default();
        self.rebuilds += 1;
        Metrics::rebuild(reason);
        self.handle.update(|status| {
            status.rebuilds = self.rebuilds;
            status.last_error = Some(failure.reason.clone());
        });
        // A held topic has pauses of its own; others need not wait for it.
        let held = [Some(failure), later.as_ref()].into_iter().flatten();
        if !held.into_iter().any(|failure| failure.disposition >= Disposition::Hold) {
            let until = self.pauses.fail(now);
            self.pause(until);
        }
    }

    fn pause(&mut self, until: Instant) {
        loop {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() || self.shutdown.phase() >= Phase::DrainUplink {
                return;
            }
            self.commits_seen = self.outbox.wait_commit(self.commits_seen, left.min(IDLE));
        }
    }

    /// Saves what is confirmed. What is not stays in the outbox.
    fn finish(&mut self, producer: &Producer) {
        let now = clock::now();
        producer.poll(Duration::ZERO, &mut self.reports);
        if let Some(failure) = self.collect(&mut Session::new(now), now) {
            tracing::debug!(
                error = failure.reason,
                "refused while stopping; it is sent again after the next start"
            );
        }
        for lane in &mut self.lanes {
            lane.commit();
        }
        self.publish(producer);
        tracing::info!(acked = self.acked, in_flight = self.window.count(), "uplink stopped");
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact up to 2^53")]
    fn publish(&mut self, producer: &Producer) {
        let (newest, all_down) = producer.trouble();
        self.connected &= !all_down;
        let held = self.topics.held();
        self.metrics.in_flight.set(self.window.count() as f64);
        self.metrics.in_flight_bytes.set(self.window.bytes() as f64);
        self.metrics.connected.set(if self.connected { 1.0 } else { 0.0 });
        self.metrics.held_refused.set(held.len() as f64);
        self.metrics.held_unreachable.set(self.topics.unreachable() as f64);
        self.handle.update(|status| {
            status.connected = self.connected;
            status.held = held;
            status.in_flight = self.window.count();
            status.in_flight_bytes = self.window.bytes();
            status.acked = self.acked;
            status.last_error = newest.or(status.last_error.take());
            status.low = self.lanes.iter().map(|lane| (lane.lane, lane.tracker.low())).collect();
        });
    }
}
