//! The uplink's thread: sessions of one producer each, until the gateway stops.
//!
//! A session learns the partitions of its topics, looks up what may have arrived unheard, feeds committed
//! entries to its producer, hears what was confirmed and gives progress to the outbox (`session.rs`, `doubt.rs`,
//! `feed.rs`). It ends when a record is refused, when the client library says it cannot go on, or when nothing is
//! confirmed for too long. Then the producer is dropped and the next session replays from the last progress.
//! An outage of the cloud is none of these: the window fills, and everything else waits in the outbox.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use penstock_proto::{GatewayId, Identity, Lane, Seq, Stream};

use super::backoff::Backoff;
use super::caution::Caution;
use super::config::{CatchUp, Config, Format};
use super::doubt::Doubts;
use super::failure::{Disposition, Failure};
use super::feed::Turn;
use super::headers::{HeaderMode, Headers};
use super::lane::LaneFeed;
use super::metrics::{Metrics, Rebuild};
use super::pace::{Limits, Pace};
use super::packer::Packer;
use super::producer::{Producer, Report, SetUpError, Settings};
use super::route::Routes;
use super::session::{End, Session};
use super::share::Drain;
use super::status::Handle;
use super::topics::{Readiness, Topics};
use super::tracker::TopicId;
use super::window::Window;
use crate::outbox;
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, clock};

/// The lanes that are sent, highest first; each one's place equals [`Lane::index`].
pub(super) const LANES: [Lane; 4] = [Lane::Alerts, Lane::Status, Lane::Telemetry, Lane::Bulk];

/// Longest wait for the reports of a producer that is given up.
const LAST_REPORTS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the thread looks up from a pause.
pub(super) const IDLE: Duration = Duration::from_millis(100);

/// The uplink stage.
#[derive(Debug)]
pub struct Service;

/// An uplink that is set up and sends nothing yet.
pub struct Prepared {
    worker: Box<Worker>,
    producer: Producer,
    handle: Handle,
}

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
    pub(super) drain_timeout: Duration,
    pub(super) gateway: GatewayId,
    pub(super) outbox: outbox::Handle,
    pub(super) shutdown: Shutdown,
    pub(super) handle: Handle,
    pub(super) metrics: Metrics,
    pub(super) routes: Routes,
    pub(super) topics: Topics,
    pub(super) lanes: Vec<LaneFeed>,
    pub(super) window: Window,
    pub(super) turn: Turn,
    pub(super) format: Format,
    /// The packs being built, if records are packed.
    pub(super) packer: Option<Packer>,
    pub(super) header_mode: HeaderMode,
    /// The identity and the headers of the record being sent.
    pub(super) identity: Identity,
    pub(super) headers: Headers,
    pub(super) catch_up: CatchUp,
    pub(super) live_first_after: Duration,
    pub(super) pace: Pace,
    /// The topics that operators paused, by number.
    pub(super) paused: Vec<bool>,
    /// Up to which change their wishes are known.
    pub(super) wishes_seen: u64,
    pub(super) drain: Drain,
    pub(super) caution: Caution,
    pub(super) dead_letter_bytes_max: u64,
    pub(super) tail_read: bool,
    pub(super) doubts: Doubts,
    /// Why nothing may be sent, for good.
    pub(super) fenced: Option<String>,
    pub(super) reports: Vec<Report>,
    pub(super) pauses: Backoff,
    pub(super) commits_seen: u64,
    pub(super) connected: bool,
    pub(super) acked: u64,
    pub(super) acked_bytes: u64,
    pub(super) rebuilds: u64,
    /// Once a stop was asked for: when it ends at the latest.
    pub(super) stop_at: Option<Instant>,
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
        Self::prepare(config, gateway, outbox, supervisor)?.start(supervisor)
    }

    /// The same without starting the thread: whoever has something to ask of the uplink from its first record on does so
    /// with [`Prepared::handle`] before [`Prepared::start`].
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with the consumers of [`super::consumers`], or the client library refuses a
    /// setting.
    pub fn prepare(
        config: &Config,
        gateway: GatewayId,
        outbox: &outbox::Handle,
        supervisor: &Supervisor,
    ) -> Result<Prepared, StartError> {
        let handle = Handle::new(Routes::new(&config.topic, &config.routes));
        let worker = Worker::new(config, gateway, outbox.clone(), supervisor.shutdown(), handle.clone())?;
        // The settings are checked here, where an error can still be told to whoever starts the gateway.
        let producer = worker.producer().map_err(|error| StartError::Client(Box::new(error)))?;
        Ok(Prepared { worker: Box::new(worker), producer, handle })
    }
}

impl Prepared {
    /// The way to the uplink.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Starts the thread. Returns at once; an unreachable cloud is no error.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(self, supervisor: &Supervisor) -> Result<Handle, StartError> {
        let Self { worker, producer, handle } = self;
        supervisor.spawn_thread(TaskKind::Uplink, move || worker.run(producer))?;
        Ok(handle)
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
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
        let share = match config.catch_up {
            CatchUp::InOrder => 99,
            CatchUp::LiveFirst { share } => share,
        };
        let lanes: Result<Vec<_>, _> =
            LANES.into_iter().map(|lane| LaneFeed::open(&outbox, lane, &routes, share)).collect();
        let limits = Limits {
            throughput_units: config.throughput_units,
            backlog_bytes_per_second: config.backlog_rate,
        };
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
            identity: Identity {
                gateway: gateway.clone(),
                log: outbox.log(),
                epoch: outbox.epoch(),
                lane: Lane::Telemetry,
                seq: Seq::ZERO,
                prev: Seq::ZERO,
                stream: Stream::Live,
            },
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
            format: config.format,
            packer: match config.format {
                Format::PerMessage => None,
                Format::Packed(settings) => Some(Packer::new(settings)),
            },
            header_mode: config.headers,
            headers: Headers::default(),
            catch_up: config.catch_up,
            live_first_after: config.live_first_after,
            pace: Pace::new(limits, clock::now()),
            paused: Vec::new(),
            wishes_seen: 0,
            drain: Drain::default(),
            caution: Caution::default(),
            dead_letter_bytes_max: config.dead_letter_bytes_max,
            tail_read: config.tail_read,
            doubts: Doubts::new(config.tail_quiet),
            fenced: None,
            reports: Vec::with_capacity(config.in_flight_max.min(65_536)),
            pauses: Backoff::default(),
            commits_seen: 0,
            connected: false,
            acked: 0,
            acked_bytes: 0,
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
        if let Some(packer) = &mut self.packer {
            packer.clear();
        }
        for lane in &mut self.lanes {
            lane.commit();
            lane.restart();
        }
        self.caution.restart();
        self.topics.restart();
        self.turn = Turn::default();
        self.rebuilds += 1;
        Metrics::rebuild(reason);
        self.handle.update(|status| {
            status.rebuilds = self.rebuilds;
            status.last_error = Some(failure.reason.clone());
        });
        // A held topic has pauses of its own, and a record is looked for: others need not wait.
        let held = [Some(failure), later.as_ref()].into_iter().flatten();
        if !held.into_iter().any(|failure| failure.disposition >= Disposition::Hold) {
            let until = self.pauses.fail(now);
            self.pause(until);
        }
    }

    pub(super) fn pause(&mut self, until: Instant) {
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
        self.close_topics(None);
        for lane in &mut self.lanes {
            lane.commit();
        }
        self.publish(producer);
        tracing::info!(acked = self.acked, in_flight = self.window.count(), "uplink stopped");
    }

    /// Closes, lane by lane, the topics of which nothing is in flight and nothing was sent since `before`, if
    /// that is given. A topic that this session has not looked up yet, because the cloud is away or refuses it,
    /// keeps the doubt that the one before left.
    pub(super) fn close_topics(&mut self, before: Option<Instant>) {
        let count = u16::try_from(self.routes.topics().len()).unwrap_or(u16::MAX);
        let settled = |topic: &TopicId| self.topics.readiness(*topic) == Readiness::Ready;
        for lane in &mut self.lanes {
            lane.close_quiet((0..count).map(TopicId).filter(settled), before);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact up to 2^53")]
    pub(super) fn publish(&mut self, producer: &Producer) {
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
            status.fenced.clone_from(&self.fenced);
            status.low = self.lanes.iter().map(|lane| (lane.lane, lane.tracker.low())).collect();
        });
    }

    /// Shows how fast it goes; about once a second.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact up to 2^53")]
    pub(super) fn publish_rates(&mut self, producer: &Producer, now: Instant) {
        self.metrics.throttle.set(producer.throttle().as_secs_f64());
        self.metrics.pace.set(self.pace.limit().map_or(0.0, |rates| rates.bytes_per_second as f64));
        let backlog: u64 = self.lanes.iter().map(|lane| lane.tracker.backlog()).sum();
        self.metrics.backlog.set(backlog as f64);
        let status = self.outbox.status();
        let (mut waits, mut arrived) = (0, 0);
        for lane in &self.lanes {
            let seen = &status.lanes[lane.lane.index()];
            let low = lane.tracker.low();
            waits += seen.next.0.saturating_sub(low.0);
            arrived += seen.next.0;
        }
        self.drain.observe(now, arrived.saturating_sub(waits), arrived);
        let left = self.drain.left(waits);
        self.metrics.drain.set(left.map_or(-1.0, |left| left.as_secs_f64()));
        self.handle.update(|status| status.drain = left);
    }
}
