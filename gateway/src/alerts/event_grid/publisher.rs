//! The publisher's thread: one request at a time, until the gateway stops.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use penstock_proto::{GatewayId, Lane, Seq};
use reqwest::header::{HeaderName, HeaderValue};
use tokio::runtime;

use super::batch::{Batch, Settled};
use super::client::{Client, ClientError};
use super::config::{BatchBounds, Config, consumer};
use super::credential::{Credential, Renewal};
use super::disposition::{Cause, Disposition, Reply, Why, judge};
use super::envelope::Envelope;
use super::feed::{Feed, Found, Priority};
use super::metrics::{Metrics, Problem};
use super::progress::Progress;
use super::status::Handle;
use crate::alerts::burial::{self, Reason, Speaker};
use crate::alerts::circuit::{Circuit, Trouble};
use crate::alerts::durable::Unsaved;
use crate::azure::TokenHandle;
use crate::outbox::{self, ConsumerId, Encoded};
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, chain, clock};

/// Sends lane alerts to one destination.
#[derive(Debug)]
pub(crate) struct Publisher;

/// Why a publisher did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The outbox does not know it as a consumer.
    #[error("alerts cannot be read")]
    Outbox(#[from] outbox::Error),
    /// The HTTP client cannot be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system's refusal to start a thread.
    #[error("the thread for Event Grid cannot be started")]
    Thread(#[from] io::Error),
}

/// Everything the thread works with.
struct Worker {
    gateway: GatewayId,
    type_prefix: String,
    id: ConsumerId,
    outbox: outbox::Handle,
    runtime: runtime::Handle,
    shutdown: Shutdown,
    handle: Handle,
    metrics: Metrics,
    client: Client,
    credential: Credential,
    envelope: Envelope,
    bounds: BatchBounds,
    dead_letter_bytes_max: u64,
    circuit: Circuit,
    feed: Feed,
    /// Events in hand of each reading, until they are dealt with.
    critical: Option<Batch>,
    others: Option<Batch>,
    commits_seen: u64,
    /// The outbox is closed, or nobody knows whether the last progress is there: nothing more is sent.
    ended: bool,
    connected: bool,
    /// Since when nothing is confirmed, in Unix milliseconds.
    held_since_ms: Option<u64>,
    last_error: Option<String>,
    sent: u64,
    quarantined: u64,
}

/// How often the thread looks up from a wait.
const LOOK_UP: Duration = Duration::from_millis(200);
/// How long a stop waits for the answer to the last request.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How long a stop waits for the last progress to be durable.
const LAST_COMMIT: Duration = Duration::from_secs(1);
/// The pause after entries could not be read, or progress not be written.
const OUTBOX_PAUSE: Duration = Duration::from_millis(500);

// === impl Publisher ===

impl Publisher {
    /// Starts the thread. Returns at once; an unreachable service is no error. `tokens` take the place of those of the
    /// configuration, if given. To be called within the runtime that the requests are to run on.
    ///
    /// The thread ends in [`Phase::DrainUplink`], about two seconds later at the latest.
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with [`consumer`], a setting cannot be used, or no thread can be started.
    pub(crate) fn start(
        config: &Config,
        gateway: &GatewayId,
        outbox: &outbox::Handle,
        tokens: Option<TokenHandle>,
        supervisor: &Supervisor,
    ) -> Result<Handle, StartError> {
        let id = consumer(config);
        let (feed, junk) = Feed::open(outbox, &id)?;
        if junk {
            Metrics::problem(Problem::State);
        }
        let host = config.endpoint.host().to_owned();
        let handle = Handle::new(outbox.clone(), id.name.clone(), host, feed.progress());
        let worker = Worker {
            gateway: gateway.clone(),
            type_prefix: config.type_prefix.clone(),
            id,
            outbox: outbox.clone(),
            runtime: runtime::Handle::current(),
            shutdown: supervisor.shutdown(),
            handle: handle.clone(),
            metrics: Metrics::new(),
            client: Client::new(config.endpoint.clone())?,
            credential: Credential::new(&config.sign_in, &config.endpoint, tokens),
            envelope: Envelope::new(gateway, &config.type_prefix, config.source.clone()),
            bounds: config.batch,
            dead_letter_bytes_max: config.dead_letter_bytes_max,
            circuit: Circuit::new(config.retry),
            feed,
            critical: None,
            others: None,
            commits_seen: 0,
            ended: false,
            connected: false,
            held_since_ms: None,
            last_error: None,
            sent: 0,
            quarantined: 0,
        };
        supervisor.spawn_thread(TaskKind::EventGrid, move || worker.run())?;
        Ok(handle)
    }
}

// === impl Worker ===

impl Worker {
    fn run(mut self) -> Result<(), Infallible> {
        while !self.is_stopping() {
            self.feed.answer_drop_request();
            match self.circuit.due().filter(|due| *due > clock::now()) {
                Some(due) => self.wait(due),
                None => self.step(),
            }
            self.show();
        }
        self.feed.save();
        tracing::info!(sink = self.id.name, sent = self.sent, "alerts are no longer sent to Event Grid");
        Ok(())
    }

    /// Does the next thing there is to do: critical events first.
    fn step(&mut self) {
        // What is committed after this is seen by the wait.
        let seen = self.outbox.wait_commit_in(Lane::Alerts, self.commits_seen, Duration::ZERO);
        for priority in [Priority::Critical, Priority::Others] {
            if self.hand(priority).is_none() {
                match self.feed.read(priority, &self.envelope, self.bounds) {
                    Ok(Found::Nothing) => continue,
                    Ok(Found::Passed) => return,
                    Ok(Found::Batch(batch)) => *self.hand(priority) = Some(batch),
                    Ok(Found::Unusable { seq, why }) => {
                        let settled = Settled { position: seq.next(), events: 1, passed: 0 };
                        self.give_up(priority, seq, settled, &Reason::of_unusable(&why));
                        return;
                    }
                    Err(error) => return self.unreadable(&error),
                }
            }
            return self.attempt(priority);
        }
        self.feed.save();
        self.commits_seen = self.outbox.wait_commit_in(Lane::Alerts, seen, LOOK_UP);
    }

    fn hand(&mut self, priority: Priority) -> &mut Option<Batch> {
        match priority {
            Priority::Critical => &mut self.critical,
            Priority::Others => &mut self.others,
        }
    }

    /// Sends the next events of a reading, and does what follows from the answer.
    fn attempt(&mut self, priority: Priority) {
        let Some(batch) = self.hand(priority) else { return };
        let (events, body) = (batch.size(), batch.body());
        let credential = match self.credential.header(clock::unix_ms()) {
            Ok(credential) => credential,
            Err(reason) => {
                Metrics::problem(Problem::Credential);
                self.circuit.fail(clock::now(), None, rand::random());
                return self.failing(&reason);
            }
        };
        self.circuit.go();
        // Without an answer the gateway stops, and the events are sent again after the next start.
        let Some(reply) = self.exchange(credential, body) else { return };
        let disposition = judge(self.client.endpoint().kind, &reply, events);
        Metrics::answered(&disposition);
        if matches!(disposition, Disposition::Retry { .. }) && reply.may_have_been_accepted() {
            self.metrics.maybe_accepted(events as u64);
        }
        self.obey(priority, &reply, &disposition);
    }

    fn obey(&mut self, priority: Priority, reply: &Reply, disposition: &Disposition) {
        match *disposition {
            Disposition::Confirm => self.confirm(priority),
            Disposition::Split(_) => self.split(priority),
            Disposition::Quarantine(cause) => self.refused(priority, cause, reply),
            Disposition::Credential { halve } => {
                if halve {
                    self.split(priority);
                }
                self.credential_refused(&reply.describe());
            }
            Disposition::Configuration => self.hold(Trouble::Configuration, &reply.describe()),
            Disposition::Retry { after, why } => {
                self.circuit.fail(clock::now(), after, rand::random());
                self.connected &= why == Why::Throttled;
                self.failing(&reply.describe());
            }
        }
    }

    // --- what follows ---

    /// The events of the last request are accepted: that is made durable before anything else happens.
    fn confirm(&mut self, priority: Priority) {
        let Some(batch) = self.hand(priority) else { return };
        let settled = batch.next_settled();
        let received_ms = batch.front().map_or(u64::MAX, |event| event.received_ms);
        let progress = self.feed.with(priority, settled);
        self.recovered();
        self.sent += settled.events;
        self.metrics.confirmed(settled.events, clock::unix_ms().saturating_sub(received_ms));
        while self.save(progress, &Encoded::default()).is_err() {
            if self.is_stopping() {
                return;
            }
            self.wait(clock::now() + OUTBOX_PAUSE);
        }
        self.settle(priority);
    }

    fn settle(&mut self, priority: Priority) {
        let hand = self.hand(priority);
        if let Some(batch) = hand {
            batch.settle();
        }
        if hand.as_ref().is_some_and(Batch::is_empty) {
            *hand = None;
        }
    }

    fn split(&mut self, priority: Priority) {
        if let Some(batch) = self.hand(priority) {
            batch.split();
        }
    }

    /// The service refuses the only event of the last request for good.
    fn refused(&mut self, priority: Priority, cause: Cause, reply: &Reply) {
        let said = reply.describe();
        if !self.circuit.may_give_up() {
            return self.hold(Trouble::EverythingRefused, &said);
        }
        let Some(batch) = self.hand(priority) else { return };
        let (settled, seq) = (batch.next_settled(), batch.front().map(|event| event.seq));
        let Some(seq) = seq else { return };
        let body = match reply {
            Reply::Answer { body, .. } => body.as_slice(),
            Reply::Unreachable(_) | Reply::Lost(_) | Reply::TimedOut => &[],
        };
        if self.give_up(priority, seq, settled, &Reason::of_refusal(cause, said, body)) {
            self.settle(priority);
            self.circuit.gave_up(clock::now(), rand::random());
        }
    }

    /// Moves an entry to lane dead, in one batch with the progress that passes it. Says whether it is there.
    fn give_up(&mut self, priority: Priority, seq: Seq, settled: Settled, reason: &Reason) -> bool {
        let status = self.outbox.status();
        let dead = Lane::Dead.pick(&status.lanes).backlog_bytes;
        // Letters count in the outbox's quota and may not use up more than a quarter of it.
        if dead >= self.dead_letter_bytes_max.min(status.bytes_max / 4) {
            self.hold(Trouble::DeadLettersFull, &format!("lane dead is full ({dead} bytes)"));
            return false;
        }
        let speaker = Speaker {
            gateway: &self.gateway,
            type_prefix: &self.type_prefix,
            sink: &self.id.name,
            host: self.client.endpoint().host(),
            now_ms: clock::unix_ms(),
        };
        let buried = self.feed.look(seq, |place, record| {
            (burial::bury(&speaker, (place, seq), record, reason), record.device.to_owned())
        });
        let (outputs, device) = match buried {
            Ok(Some(buried)) => buried,
            // It was let go meanwhile.
            Ok(None) => (Encoded::default(), String::new()),
            Err(error) => {
                self.unreadable(&error);
                return false;
            }
        };
        let progress = self.feed.with(priority, settled);
        if self.save(progress, &outputs).is_err() {
            self.circuit.pause(clock::now(), OUTBOX_PAUSE);
            return false;
        }
        tracing::warn!(
            sink = self.id.name, device_id = device, lane = %self.id.lane, seq = seq.0,
            reason = reason.name, code = reason.code, error = reason.text,
            "an alert that Event Grid does not take goes to the dead letters"
        );
        self.circuit.room_again();
        self.quarantined += 1;
        Metrics::quarantined(reason.name);
        true
    }

    fn credential_refused(&mut self, said: &str) {
        let renewal = self.credential.refused();
        match renewal {
            Renewal::After(pause) if self.circuit.may_renew() => {
                self.circuit.pause(clock::now(), pause);
                self.failing(said);
            }
            Renewal::After(_) | Renewal::Nothing => self.hold(Trouble::Credential, said),
        }
    }

    /// Nothing but probes is sent from now on.
    fn hold(&mut self, trouble: Trouble, said: &str) {
        if self.circuit.trouble() != Some(trouble) {
            tracing::error!(
                sink = self.id.name,
                host = self.client.endpoint().host(),
                reason = trouble.name(),
                error = said,
                "alerts wait until somebody changes something"
            );
        }
        self.circuit.open(trouble, clock::now(), rand::random());
        self.connected = false;
        self.failing(said);
    }

    /// Nothing was confirmed.
    fn failing(&mut self, said: &str) {
        if self.held_since_ms.is_none() {
            self.held_since_ms = Some(clock::unix_ms());
            tracing::warn!(sink = self.id.name, error = said, "alerts cannot be sent; trying again");
        } else {
            tracing::debug!(sink = self.id.name, error = said, "alerts cannot be sent yet");
        }
        self.last_error = Some(said.to_owned());
    }

    fn recovered(&mut self) {
        if let Some(since) = self.held_since_ms.take() {
            let seconds = clock::unix_ms().saturating_sub(since) / 1000;
            tracing::info!(sink = self.id.name, seconds, "alerts are sent again");
        }
        self.circuit.succeed();
        self.connected = true;
    }

    fn unreadable(&mut self, error: &outbox::Error) {
        Metrics::problem(Problem::Outbox);
        let error = chain(error);
        tracing::warn!(sink = self.id.name, error, "committed alerts cannot be read; trying again");
        self.last_error = Some(error);
        self.circuit.pause(clock::now(), OUTBOX_PAUSE);
    }

    // --- waiting ---

    fn is_stopping(&self) -> bool {
        self.ended || self.shutdown.phase() >= Phase::DrainUplink
    }

    fn save(&mut self, progress: Progress, outputs: &Encoded) -> Result<(), Unsaved> {
        let shutdown = &self.shutdown;
        let mut stop_at: Option<Instant> = None;
        let wait = move || {
            if shutdown.phase() < Phase::DrainUplink {
                return true;
            }
            let now = clock::now();
            now < *stop_at.get_or_insert(now + LAST_COMMIT)
        };
        let saved = self.feed.save_durably(progress, outputs, wait);
        self.ended |= saved == Err(Unsaved::Ended);
        saved
    }

    /// Sends a request and waits for its answer; `None` if the gateway stops before it comes.
    fn exchange(&self, credential: (HeaderName, HeaderValue), body: Vec<u8>) -> Option<Reply> {
        let stopped = async {
            self.shutdown.reached(Phase::DrainUplink).await;
            tokio::time::sleep(LAST_ANSWER).await;
        };
        self.runtime.block_on(async {
            let sending = Box::pin(self.client.send(credential, body));
            tokio::pin!(sending, stopped);
            loop {
                tokio::select! {
                    biased;
                    reply = &mut sending => return Some(reply),
                    () = &mut stopped => return None,
                    () = tokio::time::sleep(LOOK_UP) => self.feed.answer_drop_request(),
                }
            }
        })
    }

    /// Waits until `due` or the stop.
    fn wait(&self, due: Instant) {
        self.runtime.block_on(async {
            let over = tokio::time::sleep_until(due.into());
            let stopped = self.shutdown.reached(Phase::DrainUplink);
            tokio::pin!(over, stopped);
            loop {
                tokio::select! {
                    () = &mut over => return,
                    () = &mut stopped => return,
                    () = tokio::time::sleep(LOOK_UP) => self.feed.answer_drop_request(),
                }
            }
        });
    }

    /// Tells operators.
    fn show(&mut self) {
        let held = self.circuit.trouble();
        self.metrics.show(self.connected, held);
        self.handle.update(|seen| {
            seen.progress = self.feed.progress();
            let status = &mut seen.status;
            (status.connected, status.held) = (self.connected, held);
            (status.sent, status.quarantined) = (self.sent, self.quarantined);
            status.held_since_ms = self.held_since_ms;
            status.last_error.clone_from(&self.last_error);
        });
    }
}
