//! The thread that reads the committed log, and what it makes durable.
//!
//! One batch holds the events that alerts lead to, the changes of their table, and the position up to which edges were
//! taken. One batch is on its way at a time; meanwhile the thread reads on and gathers the next. When a batch fails, the
//! engine is built again from what is on the disk, and what it had in hand is read again.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use penstock_proto::{GatewayId, Lane, Seq};

use super::build::{Builder, Built};
use super::clock::Moment;
use super::config::Config;
use super::engine::Engine;
use super::lifecycle::{Complaint, Effects, Voice};
use super::mark::Mark;
use super::metrics::Metrics;
use super::publish;
use super::requests::Requests;
use super::rules::Rules;
use super::skipped;
use super::snapshot::Folder;
use super::status::Handle;
use super::{event_grid, service_bus};
use crate::commands::Sending;
use crate::mqtt::Publisher;
use crate::outbox::{self, Completion, Consumer, ConsumerId, Ticket};
use crate::supervise::{self, Phase, Shutdown, Supervisor, TaskKind, clock};

/// The name of the consumer of lane telemetry.
const CONSUMER: &str = "alerts";
/// How much one read from the disk fetches.
const READ_BYTES: usize = 1 << 20;
/// How much may be gathered while a batch is on its way; at the bound nothing more is read.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// How often the thread looks up while nothing comes.
const IDLE: Duration = Duration::from_millis(100);
/// Pause after something failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a stop may take to read what is there and to make the rest durable.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How often others are shown what it stands at.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Segments applied between two looks at anything else.
const ROUND_SEGMENTS: usize = 64;

/// The stage.
#[derive(Debug)]
pub struct Service;

/// Why the stage did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The outbox does not know the stage as a consumer, or cannot read the table of alerts.
    #[error("the alerts cannot read the outbox")]
    Outbox(#[from] outbox::Error),
    /// The folder of snapshots cannot be used.
    #[error("the folder of the alerts cannot be used")]
    Folder(#[source] io::Error),
    /// No thread can be started.
    #[error("the thread of the alerts cannot be started")]
    Thread(#[source] io::Error),
    /// A sink does not take a setting.
    #[error("alerts cannot be sent as configured")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who reads the outbox for this stage.
pub(crate) fn consumers(config: &Config) -> Vec<ConsumerId> {
    let own = ConsumerId { name: CONSUMER.to_owned(), lane: Lane::Telemetry };
    let sinks = config.event_grid.iter().map(event_grid::consumer);
    let posts = config.service_bus.iter().map(service_bus::consumer);
    [own, publish::consumer()].into_iter().chain(sinks).chain(posts).collect()
}

impl Service {
    /// Starts the rules and the sinks. Neither waits for anybody: an unreachable cloud is no error. `sending` is how commands
    /// are sent; without it none are.
    ///
    /// `publisher` reaches devices: with reactions, and Sparkplug nodes. Without it reactions stay where they are. Ends in [`Phase::DrainUplink`], when what was read before is durable.
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with the consumers of [`consumers`], the folder cannot be used, or a setting
    /// cannot work.
    pub fn start(
        config: &Config,
        rules: Rules,
        gateway: &GatewayId,
        outbox: &outbox::Handle,
        (publisher, sending): (Option<Publisher>, Option<Sending>),
        supervisor: &Supervisor,
    ) -> Result<Handle, StartError> {
        let folder = Folder::open(&config.directory).map_err(StartError::Folder)?;
        let consumer = outbox.consumer(CONSUMER, Lane::Telemetry)?;
        let builder = Builder {
            outbox: outbox.clone(),
            folder,
            voice: Voice::of(gateway, &config.type_prefix),
            time: config.time.clone(),
            limits: config.limits(),
        };
        let mut sinks = Vec::new();
        for sink in &config.event_grid {
            let started = event_grid::Publisher::start(sink, gateway, outbox, None, supervisor);
            sinks.push(started.map_err(|error| StartError::Sink(Box::new(error)))?);
        }
        let posts = sending.map(|sending| {
            service_bus::Poster::start(&config.service_bus, gateway, outbox, &sending, supervisor)
        });
        let posts = posts.transpose().map_err(|error| StartError::Sink(Box::new(error)))?;
        let reactions =
            publisher.clone().map(|publisher| publish::Sink::start(outbox, publisher, supervisor));
        let reactions = reactions.transpose().map_err(|error| StartError::Sink(Box::new(error)))?;
        let handle = Handle::new(&rules, sinks, posts.unwrap_or_default(), reactions);
        let requests = Requests::new(publisher.filter(|_| config.sparkplug_rebirth));
        let worker = Worker::new(config, rules, (consumer, builder, requests), supervisor, handle.clone())?;
        supervisor.spawn_thread(TaskKind::Alerts, move || worker.run()).map_err(StartError::Thread)?;
        Ok(handle)
    }
}

/// What the thread works with.
struct Worker {
    builder: Builder,
    rules: Rules,
    consumer: Consumer,
    engine: Engine,
    /// What is gathered for the next batch.
    effects: Effects,
    /// The commit time of the oldest segment that is in it.
    gathered_since_ms: Option<u64>,
    flight: Option<Flight>,
    /// The snapshot that the stored progress rests on.
    snapshot: Option<Seq>,
    writing: Option<Receiver<io::Result<(Seq, u64)>>>,
    snapshot_due: Instant,
    snapshot_every: Duration,
    lag: Lag,
    requests: Requests,
    handle: Handle,
    metrics: Metrics,
    supervisor: Supervisor,
    shutdown: Shutdown,
    commits_seen: u64,
    tell_due: Instant,
}

/// A batch on its way to the disk.
struct Flight {
    done: Arc<Completion>,
    ticket: Ticket,
    /// The snapshot that its progress rests on.
    snapshot: Option<Seq>,
    since_ms: Option<u64>,
}

/// How far the rules may lag behind, and since when they do.
#[derive(Debug, Clone, Copy)]
struct Lag {
    time_max: Duration,
    bytes_max: u64,
    /// When they had looked at everything last.
    even: Instant,
    /// Bytes and records applied since then: what a record costs.
    bytes: u64,
    records: u64,
}

impl Worker {
    fn new(
        config: &Config,
        rules: Rules,
        (consumer, builder, requests): (Consumer, Builder, Requests),
        supervisor: &Supervisor,
        handle: Handle,
    ) -> Result<Self, outbox::Error> {
        let (low, state) = consumer.progress();
        let Built { engine, snapshot, lost, stale } = builder.build(&rules, low, state)?;
        let now = clock::now();
        let metrics = Metrics::new();
        metrics.snapshot_failures.increment(u64::from(lost));
        metrics.rules(rules.len(), rules.errors().len());
        let (time_max, bytes_max) = (config.lag_max, config.lag_bytes_max);
        Ok(Self {
            builder,
            rules,
            consumer,
            engine,
            effects: Effects { table: stale, ..Effects::default() },
            gathered_since_ms: None,
            flight: None,
            snapshot,
            writing: None,
            snapshot_due: now + config.snapshot_every,
            snapshot_every: config.snapshot_every,
            lag: Lag { time_max, bytes_max, even: now, bytes: 0, records: 0 },
            requests,
            handle,
            metrics,
            supervisor: supervisor.clone(),
            shutdown: supervisor.shutdown(),
            commits_seen: 0,
            tell_due: now,
        })
    }

    fn run(mut self) -> Result<(), outbox::Error> {
        for error in self.rules.errors() {
            tracing::error!(error, "a rule is left out");
        }
        while self.shutdown.phase() < Phase::DrainUplink {
            self.round();
        }
        let deadline = clock::now() + STOP_MAX;
        while clock::now() < deadline && self.read_round() {
            self.settle();
            self.submit();
        }
        self.leave(deadline);
        Ok(())
    }

    fn round(&mut self) {
        self.commits_seen = self.builder.outbox.wait_commit(self.commits_seen, Duration::ZERO);
        self.settle();
        self.reload();
        self.answer_drop_request();
        let more = self.read_round();
        self.submit();
        self.take_snapshot();
        if clock::now() >= self.tell_due {
            self.tell();
        }
        if !more {
            self.rest(self.pause());
        }
    }

    /// Applies what is there, up to a bound. Returns whether there may be more.
    fn read_round(&mut self) -> bool {
        for _ in 0..ROUND_SEGMENTS {
            if self.is_full() {
                return false;
            }
            // Before the look: what is committed later must not seem to be missing now.
            let wall_ms = clock::unix_ms();
            let segment = match self.consumer.try_next(READ_BYTES) {
                Ok(Some(segment)) => segment,
                Ok(None) => {
                    self.at_the_end(wall_ms);
                    return false;
                }
                Err(error) => {
                    let error = supervise::chain(&error);
                    tracing::warn!(error, "committed telemetry cannot be read by the rules; trying again");
                    self.rest(PAUSE);
                    return false;
                }
            };
            self.lag.bytes += u64::from(segment.bytes());
            self.lag.records += u64::from(segment.count());
            self.engine.apply(&segment, &mut self.effects);
            if !self.effects.is_empty() {
                self.gathered_since_ms.get_or_insert(segment.committed_ms());
            }
        }
        self.skip_if_too_far_behind();
        true
    }

    /// There is nothing to read: the wall clock takes over, unless something is on its way to the log or cannot come.
    fn at_the_end(&mut self, wall_ms: u64) {
        let status = self.builder.outbox.status();
        let lane = Lane::Telemetry.pick(&status.lanes);
        if lane.next > self.engine.position() || status.poisoned.is_some() {
            // It cannot be read now.
            return;
        }
        self.lag = Lag { even: clock::now(), bytes: 0, records: 0, ..self.lag };
        if lane.refusing.is_some() {
            // Devices are not listened to; their silence says nothing.
            self.engine.hold(wall_ms);
        }
        if status.queue_bytes > 0 {
            return;
        }
        let moment = Moment { now_ms: wall_ms, epoch: self.builder.outbox.epoch() };
        self.engine.idle(moment, &mut self.effects);
        if !self.effects.is_empty() {
            self.gathered_since_ms.get_or_insert(moment.now_ms);
        }
    }

    fn is_full(&self) -> bool {
        self.effects.bytes() >= GATHERED_BYTES_MAX
    }

    fn pause(&self) -> Duration {
        let wall_ms = clock::unix_ms();
        let due =
            self.engine.next_due_ms().map_or(IDLE, |due| Duration::from_millis(due.saturating_sub(wall_ms)));
        due.clamp(Duration::from_millis(1), IDLE)
    }

    /// Waits for the next commit of anybody, or until `limit` is over.
    fn rest(&self, limit: Duration) {
        // What was committed is looked for at the beginning of a round.
        let _seen = self.builder.outbox.wait_commit(self.commits_seen, limit);
    }

    // --- what becomes durable ---

    fn mark(&self, snapshot: Option<Seq>) -> Vec<u8> {
        Mark { emitted: self.engine.told(), moment: self.engine.moment(), snapshot }.encode()
    }

    /// Looks at the batch that is on its way.
    fn settle(&mut self) {
        let Some(flight) = &self.flight else { return };
        match flight.done.wait(flight.ticket, clock::now()) {
            None => {}
            Some(Ok(())) => {
                self.metrics.commits.increment(1);
                if let Some(since_ms) = flight.since_ms {
                    let took_ms = clock::unix_ms().saturating_sub(since_ms);
                    self.metrics.latency.record(Duration::from_millis(took_ms).as_secs_f64());
                }
                if flight.snapshot != self.snapshot {
                    self.snapshot = flight.snapshot;
                    self.snapshot.into_iter().for_each(|at| self.builder.folder.remove_below(at));
                }
                self.flight = None;
            }
            Some(Err(_)) => {
                self.metrics.commit_failures.increment(1);
                tracing::warn!("alerts did not become durable; their messages are looked at again");
                self.build_again();
            }
        }
    }

    /// Gives what is gathered to the outbox, unless something is on its way.
    fn submit(&mut self) {
        if self.flight.is_some() {
            return;
        }
        self.engine.flush(&mut self.effects);
        if self.effects.is_empty() {
            return;
        }
        self.commit(self.consumer.progress().0, self.snapshot);
    }

    /// Gives what is gathered to the outbox, with a progress at `low` that rests on `snapshot`.
    fn commit(&mut self, low: Seq, snapshot: Option<Seq>) {
        self.engine.flush(&mut self.effects);
        let done = Arc::new(Completion::new());
        let state = self.mark(snapshot);
        let Effects { entries, table, .. } = &self.effects;
        match self.consumer.commit_all(low, state, (entries, table), &done) {
            Ok(ticket) => {
                let since_ms = self.gathered_since_ms.take();
                self.flight = Some(Flight { done, ticket, snapshot, since_ms });
                self.effects.clear();
            }
            Err(refused) => {
                tracing::debug!(%refused, "alerts wait");
                self.metrics.commit_failures.increment(1);
                self.rest(IDLE);
            }
        }
    }

    /// Builds the engine from the disk, and reads again what it had in hand. Tries until it can, or the gateway stops.
    fn build_again(&mut self) {
        self.flight = None;
        self.effects.clear();
        self.gathered_since_ms = None;
        while self.shutdown.phase() < Phase::Close {
            self.consumer.rewind();
            let (low, state) = self.consumer.progress();
            match self.builder.build(&self.rules, low, state) {
                Ok(Built { engine, snapshot, lost, stale }) => {
                    self.effects.table = stale;
                    self.metrics.snapshot_failures.increment(u64::from(lost));
                    (self.engine, self.snapshot) = (engine, snapshot);
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = supervise::chain(&error), "the table of alerts is away")
                }
            }
            self.commits_seen = self.builder.outbox.wait_commit(self.commits_seen, PAUSE);
        }
    }

    // --- snapshots ---

    fn take_snapshot(&mut self) {
        self.collect_snapshot();
        let new = self.snapshot.is_none_or(|at| at < self.engine.position());
        if self.writing.is_some() || !new || clock::now() < self.snapshot_due {
            return;
        }
        self.start_snapshot();
    }

    /// Has a snapshot written beside the thread.
    fn start_snapshot(&mut self) {
        if self.engine.position() < self.engine.told() {
            // It still catches up with what it has told.
            return;
        }
        self.snapshot_due = clock::now() + self.snapshot_every;
        let snapshot = self.engine.snapshot(self.builder.outbox.log());
        let (done, writing): (SyncSender<_>, _) = sync_channel(1);
        let folder = self.builder.folder.clone();
        let write = move || {
            let written = folder.write(&snapshot).map(|bytes| (snapshot.at, bytes));
            // Whoever asked may be gone, at a stop.
            drop(done.send(written));
            Ok::<(), io::Error>(())
        };
        match self.supervisor.spawn_thread(TaskKind::AlertsSnapshot, write) {
            Ok(_) => self.writing = Some(writing),
            Err(error) => self.snapshot_failed(&error),
        }
    }

    /// Rests the progress on a snapshot that was written.
    fn collect_snapshot(&mut self) {
        let Some(writing) = &self.writing else { return };
        if self.flight.is_some() {
            return;
        }
        let written = match writing.try_recv() {
            Ok(written) => written,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread ended")),
        };
        self.writing = None;
        match written {
            Ok((at, bytes)) => {
                self.metrics.snapshots.increment(1);
                #[expect(clippy::cast_precision_loss, reason = "a size in a gauge")]
                self.metrics.snapshot_bytes.set(bytes as f64);
                // Writing less than a hundredth of a disk's speed is worth more than a short replay.
                let cost = Duration::from_millis(bytes / SNAPSHOT_BYTES_PER_MS);
                self.snapshot_due = self.snapshot_due.max(clock::now() + cost);
                self.commit(at, Some(at));
            }
            Err(error) => self.snapshot_failed(&error),
        }
    }

    fn snapshot_failed(&mut self, error: &io::Error) {
        self.metrics.snapshot_failures.increment(1);
        tracing::warn!(%error, "a snapshot of the rules could not be written");
    }

    /// Makes durable what is left, with a last snapshot.
    fn leave(&mut self, deadline: Instant) {
        self.wait(deadline);
        if let Some(writing) = self.writing.take() {
            drop(writing.recv_timeout(deadline.saturating_duration_since(clock::now())));
        }
        let at = self.engine.position();
        if at >= self.engine.told() {
            let snapshot = self.engine.snapshot(self.builder.outbox.log());
            match self.builder.folder.write(&snapshot) {
                Ok(_) => self.commit(at, Some(at)),
                Err(error) => self.snapshot_failed(&error),
            }
        } else {
            self.submit();
        }
        self.wait(deadline);
        self.tell();
    }

    fn wait(&mut self, deadline: Instant) {
        if let Some(flight) = &self.flight {
            let _known = flight.done.wait(flight.ticket, deadline);
            self.settle();
        }
    }

    // --- what others ask for ---

    fn reload(&mut self) {
        if self.flight.is_some() {
            return;
        }
        let Some(rules) = self.handle.take_wanted() else { return };
        self.engine.replace(&self.rules, &rules, &mut self.effects);
        self.handle.note_rules(&rules);
        self.metrics.rules(rules.len(), rules.errors().len());
        self.metrics.reloaded();
        tracing::info!(rules = rules.len(), left_out = rules.errors().len(), "rules read again");
        for error in rules.errors() {
            tracing::error!(error, "a rule is left out");
        }
        self.rules = rules;
        // What was seen under the old rules is not to be read again under the new ones.
        self.snapshot_due = clock::now();
    }

    fn answer_drop_request(&self) {
        if let Some(below) = self.consumer.drop_request() {
            // Its own progress is behind by design; what it has looked at is not lost to it.
            let unseen = below.0.saturating_sub(self.engine.position().0);
            self.consumer.answer_drop(below, unseen);
        }
    }

    fn skip_if_too_far_behind(&mut self) {
        let behind = self.behind();
        let bytes = behind.saturating_mul(self.lag.bytes / self.lag.records.max(1));
        let late = clock::now().saturating_duration_since(self.lag.even);
        if late < self.lag.time_max && bytes < self.lag.bytes_max {
            return;
        }
        let (from, to) = (self.engine.position(), self.end());
        let skipped = to.0.saturating_sub(from.0);
        tracing::error!(
            messages = skipped,
            "the rules are too slow for what comes in; they skip to the newest"
        );
        self.engine.skip(to);
        let moment = self.engine.moment();
        skipped::push(
            &self.builder.voice,
            self.builder.outbox.log(),
            (from, to),
            moment,
            &mut self.effects.entries,
        );
        // A cursor at the new position lets the progress go there.
        drop(self.consumer.cursor(to));
        self.lag = Lag { even: clock::now(), bytes: 0, records: 0, ..self.lag };
        self.settle_all();
        self.commit(to, None);
        self.settle_all();
        self.consumer.rewind();
    }

    /// Waits for the batch that is on its way, as long as the gateway runs.
    fn settle_all(&mut self) {
        while self.flight.is_some() && self.shutdown.phase() < Phase::Close {
            self.wait(clock::now() + IDLE);
        }
    }

    // --- what others see ---

    fn end(&self) -> Seq {
        let status = self.builder.outbox.status();
        status.lanes.get(Lane::Telemetry.index()).map_or(Seq::ZERO, |lane| lane.next)
    }

    fn behind(&self) -> u64 {
        self.end().0.saturating_sub(self.engine.position().0)
    }

    fn tell(&mut self) {
        self.tell_due = clock::now() + TELL_EVERY;
        for wish in self.engine.take_rebirths() {
            self.requests.make(&wish, clock::unix_ms());
        }
        for Complaint { rule, action, device, why } in self.effects.complaints.drain(..) {
            tracing::warn!(
                rule,
                action,
                device_id = device,
                why,
                "a reaction cannot be; others of the rule are counted only"
            );
        }
        let behind = self.behind();
        let told = std::mem::take(&mut self.effects.counts);
        self.metrics.show(&self.engine, &told, behind);
        let (series, open) = (self.engine.evaluator().series(), self.engine.lifecycle().open());
        let skipped = self.engine.counts().skipped;
        let settled = self.flight.is_none() && self.effects.is_empty();
        let position = self.engine.position();
        self.handle.note(|status| {
            (status.series, status.open) = (series, open);
            (status.lag_messages, status.skipped) = (behind, skipped);
            (status.position, status.settled) = (position, settled);
        });
    }
}

/// What snapshots may cost the disk on average, in bytes per millisecond: 2 MB/s.
const SNAPSHOT_BYTES_PER_MS: u64 = 2_000;
