//! The poster's thread: sends what is in hand, until the gateway stops.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use penstock_proto::{GatewayId, Lane, Seq};
use tokio::runtime;

use super::config::{Config, consumer};
use super::feed::{Feed, Stop};
use super::flights::{Flight, LOOK_UP, Patience, landed, landed_already};
use super::line::{Post, PostLine};
use super::metrics::Metrics;
use super::posting::{Posting, Whose};
use super::status::{Handle, Status};
use super::window::{Verdict, Window};
use crate::alerts::burial::{self, Reason, Speaker};
use crate::alerts::circuit::{Circuit, Trouble};
use crate::alerts::durable::Unsaved;
use crate::commands::{NotTaken, Sending, Why};
use crate::outbox::{self, ConsumerId, Encoded};
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, chain, clock};

/// Sends commands to one entity.
#[derive(Debug)]
pub(crate) struct Poster;

/// Why a poster did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The outbox does not know it as a consumer.
    #[error("alerts cannot be read")]
    Outbox(#[from] outbox::Error),
    /// The operating system's refusal to start a thread.
    #[error("the thread for Service Bus cannot be started")]
    Thread(#[from] io::Error),
}

/// Everything the thread works with.
struct Worker<P: Post> {
    gateway: GatewayId,
    type_prefix: String,
    id: ConsumerId,
    entity: String,
    /// Where the destinations send to.
    entities: Vec<String>,
    /// Whether this is the one that tells of commands that none of them sends.
    first: bool,
    outbox: outbox::Handle,
    runtime: runtime::Handle,
    supervisor: Supervisor,
    shutdown: Shutdown,
    handle: Handle,
    metrics: Metrics,
    post: P,
    circuit: Circuit,
    feed: Feed,
    window: Window,
    line: Option<P::Line>,
    /// What happened on the link may have ended it.
    doubtful: bool,
    flights: Vec<Flight<<P::Line as PostLine>::Answer>>,
    dead_letter_bytes_max: u64,
    commits_seen: u64,
    /// When something was sent last.
    used: Instant,
    /// Something was accepted since progress was durable.
    accepted: bool,
    /// The outbox is closed, or nobody knows whether the last progress is there: nothing more is sent.
    ended: bool,
    /// Since when nothing is accepted, in Unix milliseconds.
    held_since_ms: Option<u64>,
    last_error: Option<String>,
    sent: u64,
    expired: u64,
    quarantined: u64,
}

/// Longest wait for a link.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until the entity has room for a message on its way.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A link without anything to send is closed then. Service Bus ends it after ten minutes.
const IDLE: Duration = Duration::from_secs(300);
/// How long a stop waits for the answers that are still due, and then for the link to end.
const LAST_ANSWERS: Duration = Duration::from_millis(800);
const LAST_CLOSE: Duration = Duration::from_millis(200);
/// How long a stop waits for the last progress to be durable.
const LAST_COMMIT: Duration = Duration::from_secs(1);
/// The pause after entries could not be read, or progress not be written.
const OUTBOX_PAUSE: Duration = Duration::from_millis(500);

// === impl Poster ===

impl Poster {
    /// Starts a thread for each destination. Returns at once; an unreachable service is no error. To be called within the
    /// runtime that connections are to run on.
    ///
    /// The threads end in [`Phase::DrainUplink`], about two seconds later at the latest.
    ///
    /// # Errors
    ///
    /// When the outbox was not opened with [`consumer`] of each, or no thread can be started.
    pub(crate) fn start(
        all: &[Config],
        gateway: &GatewayId,
        outbox: &outbox::Handle,
        sending: &Sending,
        supervisor: &Supervisor,
    ) -> Result<Vec<Handle>, StartError> {
        let entities: Vec<String> = all.iter().map(|config| config.entity.clone()).collect();
        let started = all.iter().enumerate().map(|(place, config)| {
            let known = (entities.clone(), place == 0);
            start(config, known, gateway, outbox, sending.clone(), supervisor)
        });
        started.collect()
    }
}

/// Starts the thread on whatever takes messages.
pub(super) fn start<P: Post>(
    config: &Config,
    (entities, first): (Vec<String>, bool),
    gateway: &GatewayId,
    outbox: &outbox::Handle,
    post: P,
    supervisor: &Supervisor,
) -> Result<Handle, StartError> {
    let id = consumer(config);
    let feed = Feed::open(outbox, &id)?;
    let status = Status {
        name: id.name.clone(),
        host: post.host().to_owned(),
        entity: config.entity.clone(),
        ..Status::default()
    };
    let handle = Handle::new(outbox.clone(), status, feed.saved());
    let worker = Worker {
        gateway: gateway.clone(),
        type_prefix: config.type_prefix.clone(),
        id,
        entity: config.entity.clone(),
        entities,
        first,
        outbox: outbox.clone(),
        runtime: runtime::Handle::current(),
        supervisor: supervisor.clone(),
        shutdown: supervisor.shutdown(),
        handle: handle.clone(),
        metrics: Metrics::new(),
        post,
        circuit: Circuit::new(config.retry),
        window: Window::new(feed.saved()),
        feed,
        line: None,
        doubtful: false,
        flights: Vec::new(),
        dead_letter_bytes_max: config.dead_letter_bytes_max,
        commits_seen: 0,
        used: clock::now(),
        accepted: false,
        ended: false,
        held_since_ms: None,
        last_error: None,
        sent: 0,
        expired: 0,
        quarantined: 0,
    };
    supervisor.spawn_thread(TaskKind::AlertCommands, move || worker.run())?;
    Ok(handle)
}

// === impl Worker ===

impl<P: Post> Worker<P> {
    fn run(mut self) -> Result<(), Infallible> {
        while !self.is_stopping() {
            self.feed.answer_drop_request(self.window.low());
            self.round();
            self.show();
        }
        self.leave();
        Ok(())
    }

    fn round(&mut self) {
        // What is committed after this is seen by the wait.
        let seen = self.outbox.wait_commit_in(Lane::Alerts, self.commits_seen, Duration::ZERO);
        self.fill();
        self.expire();
        self.save();
        if self.window.is_empty() {
            self.rest(seen);
            return;
        }
        let now = clock::now();
        let due = self.circuit.due().filter(|due| *due > now);
        if due.is_none() && !self.is_stopping() {
            self.send();
        }
        let now = clock::now();
        let due = self.circuit.due().map_or(LOOK_UP, |due| due.saturating_duration_since(now));
        self.collect(due.min(LOOK_UP));
    }

    // --- the lane ---

    fn fill(&mut self) {
        let Self { feed, window, entity, entities, first, id, .. } = self;
        let whose = |queue: &str| {
            if queue.eq_ignore_ascii_case(entity) {
                Whose::Ours
            } else if *first && !entities.iter().any(|other| other.eq_ignore_ascii_case(queue)) {
                Whose::Nobodys
            } else {
                Whose::Others
            }
        };
        let nobodys = |seq: Seq, reason| {
            Metrics::refused(reason);
            tracing::warn!(sink = id.name, seq = seq.0, reason, "a command of a rule is sent to nobody");
        };
        match feed.fill(window, whose, nobodys) {
            Ok(Stop::End | Stop::Enough) => {}
            Ok(Stop::Unsendable { seq, reason, expires_ms }) => {
                let over = expires_ms <= clock::unix_ms();
                if over {
                    self.over(1, None);
                }
                if over || self.give_up(seq, seq.next(), &reason) {
                    self.window.pass(seq.next());
                }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(sink = self.id.name, error, "committed alerts cannot be read; trying again");
                self.last_error = Some(error);
                let patience = Patience::new(&self.feed, &self.shutdown, self.window.low());
                self.runtime.block_on(patience.wait(std::future::pending::<()>(), OUTBOX_PAUSE));
            }
        }
    }

    fn expire(&mut self) {
        let expired = self.window.expire(clock::unix_ms());
        if let Some(first) = expired.first() {
            self.over(expired.len(), first.message.message_id.as_deref());
        }
    }

    /// Nobody wants so many commands any more.
    fn over(&mut self, commands: usize, first: Option<&str>) {
        self.expired += commands as u64;
        self.metrics.expired(commands as u64);
        let error = self.last_error.as_deref();
        tracing::warn!(
            sink = self.id.name,
            commands,
            first,
            error,
            "commands of rules could not be sent in time"
        );
    }

    /// What was accepted is made durable before more is sent: what a crash forgets is sent again.
    fn save(&mut self) {
        let low = self.window.low();
        if !self.accepted {
            return self.feed.save(low);
        }
        if low > self.feed.saved() {
            match self.commit(low, &Encoded::default()) {
                Ok(()) => self.accepted = false,
                Err(Unsaved::Again) => self.pause(OUTBOX_PAUSE),
                Err(Unsaved::Ended) => {}
            }
        }
    }

    fn commit(&mut self, low: Seq, outputs: &Encoded) -> Result<(), Unsaved> {
        let shutdown = &self.shutdown;
        let mut stop_at: Option<Instant> = None;
        let wait = move || {
            if shutdown.phase() < Phase::DrainUplink {
                return true;
            }
            let now = clock::now();
            now < *stop_at.get_or_insert(now + LAST_COMMIT)
        };
        let saved = self.feed.save_durably(low, outputs, wait);
        self.ended |= saved == Err(Unsaved::Ended);
        saved
    }

    // --- the link ---

    /// Sends what may be sent.
    fn send(&mut self) {
        self.circuit.go();
        if self.doubtful && self.flights.is_empty() {
            self.hang_up();
        }
        while !self.is_stopping() {
            if self.line.is_none() && !self.window.is_sending() && !self.connect() {
                return;
            }
            let Some(line) = &mut self.line else { return };
            let Some((seq, posting)) = self.window.send() else { return };
            let message = posting.message(clock::unix_ms());
            let patience = Patience::new(&self.feed, &self.shutdown, self.window.low());
            let sent = self.runtime.block_on(patience.wait(line.send(message), SEND_TIMEOUT));
            self.used = clock::now();
            match sent {
                Some(Ok(answer)) => self.flights.push(Flight { seq, answer, since: clock::now() }),
                Some(Err(refusal)) => return self.not_taken(vec![(seq, refusal)]),
                None => return self.lost("no room for a message on its way"),
            }
        }
    }

    /// Opens a link. Says whether there is one.
    fn connect(&mut self) -> bool {
        let patience = Patience::new(&self.feed, &self.shutdown, self.window.low());
        let opening = Box::pin(self.post.open(&self.entity));
        match self.runtime.block_on(patience.wait(opening, OPEN_TIMEOUT)) {
            Some(Ok(line)) => {
                self.line = Some(line);
                self.used = clock::now();
                return true;
            }
            Some(Err(refusal)) => {
                Metrics::not_taken(refusal.why);
                self.no_link(&refusal);
            }
            None => self.lost("the service does not open a link"),
        }
        false
    }

    /// Nothing can be sent now, for this reason.
    fn no_link(&mut self, refusal: &NotTaken) {
        match refusal.why {
            Why::NoEntity => self.hold(Trouble::Configuration, &refusal.text),
            Why::NotAllowed => self.hold(Trouble::Credential, &refusal.text),
            Why::Lost | Why::Busy | Why::Full | Why::TooLarge | Why::Refused => {
                self.fail(refusal.after, &refusal.text);
            }
        }
    }

    /// Ends the link; what is on its way is sent again.
    fn hang_up(&mut self) {
        self.flights.clear();
        self.window.all_again();
        self.doubtful = false;
        if let Some(line) = self.line.take() {
            let _inside = self.runtime.enter();
            self.supervisor.spawn(TaskKind::ServiceBus, async move {
                line.close().await;
                Ok::<(), Infallible>(())
            });
        }
    }

    fn lost(&mut self, said: &str) {
        if self.is_stopping() {
            return;
        }
        self.hang_up();
        Metrics::not_taken(Why::Lost);
        self.fail(None, said);
    }

    // --- answers ---

    /// Takes the answers that are there, waiting for the first at most for `limit`.
    fn collect(&mut self, limit: Duration) {
        let patience = Patience::new(&self.feed, &self.shutdown, self.window.low());
        let first = self.runtime.block_on(patience.wait(landed(&mut self.flights), limit));
        let mut all: Vec<_> = first.into_iter().collect();
        while let Some(next) = self.runtime.block_on(landed_already(&mut self.flights)) {
            all.push(next);
        }
        // Those that were accepted first: a link that ended says nothing against them.
        let (taken, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, answer)| answer.is_ok());
        for (seq, _) in taken {
            if let Some(posting) = self.window.taken(seq) {
                self.taken(&posting);
            }
        }
        self.not_taken(refused.into_iter().filter_map(|(seq, answer)| Some((seq, answer.err()?))).collect());
        let oldest = self.flights.iter().map(|flight| flight.since).min();
        if oldest.is_some_and(|since| clock::now().saturating_duration_since(since) > ANSWER_TIMEOUT) {
            self.lost("the service does not answer");
        }
    }

    fn taken(&mut self, posting: &Posting) {
        self.accepted = true;
        self.sent += 1;
        self.metrics.sent(clock::unix_ms().saturating_sub(posting.decided_ms));
        self.circuit.succeed();
        if let Some(since) = self.held_since_ms.take() {
            let seconds = clock::unix_ms().saturating_sub(since) / 1000;
            tracing::info!(sink = self.id.name, seconds, "commands of rules are sent again");
        }
    }

    fn not_taken(&mut self, refused: Vec<(Seq, NotTaken)>) {
        let mut of_all: Option<NotTaken> = None;
        for (seq, refusal) in refused {
            match refusal.why {
                Why::TooLarge | Why::Refused => {
                    self.doubtful = true;
                    match self.window.refused(seq) {
                        Verdict::Alone => Metrics::not_taken(refusal.why),
                        Verdict::Guilty => self.guilty(seq, &refusal),
                    }
                }
                why => {
                    Metrics::not_taken(why);
                    self.window.again(seq);
                    if of_all.as_ref().is_none_or(|other| other.is_mild() && !refusal.is_mild()) {
                        of_all = Some(refusal);
                    }
                }
            }
        }
        if let Some(refusal) = of_all {
            if !refusal.is_mild() {
                self.hang_up();
            }
            self.no_link(&refusal);
        }
    }

    /// The service refuses this command for what it is.
    fn guilty(&mut self, seq: Seq, refusal: &NotTaken) {
        if !self.circuit.may_give_up() {
            return self.hold(Trouble::EverythingRefused, &refusal.text);
        }
        let reason = Reason { name: refusal.why.name(), code: String::new(), text: refusal.text.clone() };
        if self.give_up(seq, self.window.low_without(seq), &reason) {
            self.window.done(seq);
            self.circuit.gave_up(clock::now(), rand::random());
        }
    }

    /// Moves an entry to lane dead, in one batch with the progress that passes it. Says whether it is there.
    fn give_up(&mut self, seq: Seq, low: Seq, reason: &Reason) -> bool {
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
            host: self.post.host(),
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
                self.last_error = Some(chain(&error));
                self.pause(OUTBOX_PAUSE);
                return false;
            }
        };
        if self.commit(low, &outputs).is_err() {
            self.pause(OUTBOX_PAUSE);
            return false;
        }
        tracing::warn!(
            sink = self.id.name,
            entity = self.entity,
            device_id = device,
            seq = seq.0,
            reason = reason.name,
            error = reason.text,
            "a command that Service Bus does not take goes to the dead letters"
        );
        self.circuit.room_again();
        self.quarantined += 1;
        Metrics::refused(reason.name);
        true
    }

    // --- pauses ---

    /// Nothing is sent for a while, drawn at random; not before what the service asked for.
    fn fail(&mut self, after: Option<Duration>, said: &str) {
        let dice: f64 = rand::random();
        let after = after.map(|after| after.mul_f64(dice.mul_add(0.2, 1.0)));
        self.circuit.fail(clock::now(), after, dice);
        self.failing(said);
    }

    /// One try per interval from now on.
    fn hold(&mut self, trouble: Trouble, said: &str) {
        if self.circuit.trouble() != Some(trouble) {
            tracing::error!(
                sink = self.id.name,
                host = self.post.host(),
                entity = self.entity,
                reason = trouble.name(),
                error = said,
                "commands of rules wait until somebody changes something"
            );
        }
        self.circuit.open(trouble, clock::now(), rand::random());
        self.failing(said);
    }

    fn pause(&mut self, pause: Duration) {
        self.circuit.pause(clock::now(), pause);
    }

    /// Nothing was accepted.
    fn failing(&mut self, said: &str) {
        if self.held_since_ms.is_none() {
            self.held_since_ms = Some(clock::unix_ms());
            tracing::warn!(
                sink = self.id.name,
                error = said,
                "commands of rules cannot be sent; trying again"
            );
        } else {
            tracing::debug!(sink = self.id.name, error = said, "commands of rules cannot be sent yet");
        }
        self.last_error = Some(said.to_owned());
    }

    /// Waits for something to send.
    fn rest(&mut self, seen: u64) {
        if clock::now().saturating_duration_since(self.used) > IDLE {
            self.hang_up();
        }
        self.commits_seen = self.outbox.wait_commit_in(Lane::Alerts, seen, LOOK_UP);
    }

    fn is_stopping(&self) -> bool {
        self.ended || self.shutdown.phase() >= Phase::DrainUplink
    }

    /// Waits a moment for the answers that are due, and says goodbye.
    fn leave(mut self) {
        let deadline = clock::now() + LAST_ANSWERS;
        let landing = async {
            let mut all = Vec::new();
            while !self.flights.is_empty() {
                match tokio::time::timeout_at(deadline.into(), landed(&mut self.flights)).await {
                    Ok(landed) => all.push(landed),
                    Err(_) => break,
                }
            }
            all
        };
        let answers = self.runtime.block_on(landing);
        for (seq, answer) in answers {
            if answer.is_ok()
                && let Some(posting) = self.window.taken(seq)
            {
                self.taken(&posting);
            }
        }
        self.save();
        if let Some(line) = self.line.take() {
            // The other side may be gone.
            drop(self.runtime.block_on(async { tokio::time::timeout(LAST_CLOSE, line.close()).await }));
        }
        self.show();
        tracing::info!(sink = self.id.name, sent = self.sent, "commands of rules are no longer sent");
    }

    /// Tells operators.
    fn show(&mut self) {
        let (pending, connected, held) = (self.window.len(), self.line.is_some(), self.circuit.trouble());
        self.metrics.show(pending, connected, held);
        let low = self.window.low();
        self.handle.update(|seen| {
            seen.low = low;
            let status = &mut seen.status;
            (status.connected, status.held, status.pending) = (connected, held, pending as u64);
            (status.sent, status.expired, status.quarantined) = (self.sent, self.expired, self.quarantined);
            status.held_since_ms = self.held_since_ms.filter(|_| pending > 0);
            status.last_error.clone_from(&self.last_error);
        });
    }
}
