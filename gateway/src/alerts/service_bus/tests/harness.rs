//! A site with its outbox, and a queue in memory that fails as it is told to.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{GatewayId, Lane};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::line::{Post, PostLine};
use super::super::poster::start;
use super::super::{Config, Handle, consumer};
use crate::alerts::nouns::Severity;
use crate::alerts::reaction::{Occasion, Reaction, Target};
use crate::commands::{NotTaken, Outgoing, Why};
use crate::dead_letter;
use crate::outbox::{self, Completion, ConsumerId, Encoded, StateOps};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const QUEUE: &str = "site-commands";

/// Waits for a condition.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn gateway() -> GatewayId {
    "site-7".parse().unwrap()
}

/// A queue without duplicate detection: it shows what a queue with it would not keep.
#[derive(Debug, Clone)]
pub(super) struct Bus(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    accepted: Vec<Outgoing>,
    /// What each link meets with.
    links: Option<Why>,
    /// What messages meet with whose body is this.
    cursed: Option<(&'static str, Why)>,
    /// Nobody answers.
    silent: bool,
    /// One in so many tries fails, in a way that is drawn.
    faults: Option<(StdRng, u32)>,
}

/// A link, dead after it was lost.
#[derive(Debug)]
pub(super) struct MemoryLine {
    bus: Bus,
    lost: bool,
}

type Answered = Pin<Box<dyn Future<Output = Result<(), NotTaken>> + Send>>;

fn no(why: Why) -> NotTaken {
    NotTaken { why, text: format!("it is {}", why.name()), after: None }
}

impl Bus {
    pub(super) fn new() -> Self {
        let state = State { accepted: Vec::new(), links: None, cursed: None, silent: false, faults: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// One try in so many fails, by this seed.
    pub(super) fn faulty(seed: u64, one_in: u32) -> Self {
        let bus = Self::new();
        bus.0.lock().faults = Some((StdRng::seed_from_u64(seed), one_in));
        bus
    }

    /// What links meet with from now on.
    pub(super) fn links(&self, why: Option<Why>) {
        self.0.lock().links = why;
    }

    /// What messages with this body meet with.
    pub(super) fn curse(&self, body: &'static str, why: Why) {
        self.0.lock().cursed = Some((body, why));
    }

    pub(super) fn silence(&self) {
        self.0.lock().silent = true;
    }

    pub(super) fn accepted(&self) -> Vec<Outgoing> {
        self.0.lock().accepted.clone()
    }

    /// The bodies of what was accepted.
    pub(super) fn bodies(&self) -> Vec<String> {
        self.accepted().into_iter().map(|message| String::from_utf8(message.body).unwrap()).collect()
    }
}

impl Post for Bus {
    type Line = MemoryLine;

    fn host(&self) -> &'static str {
        "bus.example"
    }

    async fn open(&self, entity: &str) -> Result<MemoryLine, NotTaken> {
        assert_eq!(entity, QUEUE);
        let mut state = self.0.lock();
        if let Some(why) = state.links {
            return Err(no(why));
        }
        if let Some((random, one_in)) = &mut state.faults
            && random.random_range(0..*one_in) == 0
        {
            return Err(no([Why::Lost, Why::Busy][random.random_range(0..2)]));
        }
        Ok(MemoryLine { bus: self.clone(), lost: false })
    }
}

impl PostLine for MemoryLine {
    type Answer = Answered;

    async fn send(&mut self, message: Outgoing) -> Result<Answered, NotTaken> {
        let mut state = self.bus.0.lock();
        if state.silent {
            return Ok(Box::pin(std::future::pending()));
        }
        if self.lost {
            return Ok(Box::pin(std::future::ready(Err(no(Why::Lost)))));
        }
        let cursed = state.cursed.filter(|(body, _)| body.as_bytes() == message.body);
        let fate = cursed.map(|(_, why)| why).or_else(|| {
            let (random, one_in) = state.faults.as_mut()?;
            let fates = [Why::Lost, Why::Busy, Why::Full, Why::Lost];
            (random.random_range(0..*one_in) == 0).then(|| fates[random.random_range(0..fates.len())])
        });
        // An answer that is lost may be about a message that was taken.
        let kept_all_the_same = fate == Some(Why::Lost)
            && state.faults.as_mut().is_some_and(|(random, _)| random.random_range(0..2) == 0);
        if fate.is_none() || kept_all_the_same {
            state.accepted.push(message);
        }
        self.lost = fate == Some(Why::Lost);
        let turns = state.faults.as_mut().map_or(0, |(random, _)| random.random_range(0..4));
        Ok(Box::pin(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            fate.map_or(Ok(()), |why| Err(no(why)))
        }))
    }

    async fn close(self) {}
}

/// A gateway's disk.
pub(super) struct Site {
    directory: TempDir,
    pub(super) config: Config,
}

/// A gateway's outbox and a poster at work.
pub(super) struct Running {
    supervisor: Supervisor,
    runtime: Runtime,
    pub(super) outbox: outbox::Handle,
    pub(super) post: Handle,
}

/// A reaction that asks for a command to be sent, wanted for a minute.
pub(super) fn command(device: &str, number: u32, body: &str) -> Reaction<'static> {
    let alert = format!("a1-{number:032x}");
    let now_ms = clock::unix_ms();
    Reaction {
        id: Reaction::id(&alert, 1, "stop").into(),
        alert: alert.into(),
        transition: 1,
        action: "stop".into(),
        rule: "too-hot".into(),
        on: Occasion::Raised,
        severity: Severity::Critical,
        device: device.to_owned().into(),
        tenant: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        origin: Some("site-7/00c0ffee12345678/3/2/1041".into()),
        decided_ms: now_ms,
        expires_ms: now_ms + 60_000,
        target: to(QUEUE, body),
    }
}

/// A command to an entity.
pub(super) fn to(queue: &str, body: &str) -> Target<'static> {
    Target::ServiceBus {
        queue: queue.to_owned().into(),
        payload: body.to_owned().into(),
        subject: Some("set-speed".into()),
        content_type: "application/json".into(),
    }
}

impl Site {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), config: Config::for_tests(QUEUE) }
    }

    /// Opens the outbox and has a poster send to a queue.
    pub(super) fn start(&self, bus: &Bus) -> Running {
        let supervisor = Supervisor::new();
        let settings = outbox::Config { realtime: false, ..outbox::Config::new(self.directory.path()) };
        let status = ConsumerId { name: "reader".to_owned(), lane: Lane::Status };
        let consumers = [consumer(&self.config), dead_letter::consumer(), status];
        let (service, outbox) = outbox::Service::open(settings, &consumers, &supervisor).unwrap();
        drop(service);
        let runtime = Runtime::new().unwrap();
        let post = {
            let _inside = runtime.enter();
            let known = (vec![QUEUE.to_owned()], true);
            start(&self.config, known, &gateway(), &outbox, bus.clone(), &supervisor).unwrap()
        };
        Running { supervisor, runtime, outbox, post }
    }
}

impl Running {
    /// Appends reactions and waits until they are durable.
    pub(super) fn react(&self, reactions: &[Reaction<'_>]) {
        let mut entries = Encoded::default();
        reactions.iter().for_each(|reaction| reaction.push("site-7", &mut entries));
        self.submit(&entries);
    }

    pub(super) fn submit(&self, entries: &Encoded) {
        let done = Arc::new(Completion::new());
        let permit = self.outbox.appender().reserve(Lane::Alerts, entries.bytes()).unwrap();
        let ticket = self.outbox.appender().submit(permit, entries, &StateOps::default(), &done);
        assert_eq!(done.wait(ticket, clock::now() + PATIENCE), Some(Ok(())));
    }

    /// Waits until everything is dealt with and the outbox knows.
    pub(super) fn wait_done(&self) {
        until("everything is dealt with", || {
            let lane = &self.outbox.status().lanes[Lane::Alerts.index()];
            lane.low == lane.next && self.post.status().backlog == 0
        });
    }

    /// Stops as the gateway does, and says how long the poster took to end.
    pub(super) fn stop(self) -> Duration {
        let begun = clock::now();
        self.supervisor.enter(Phase::DrainUplink);
        self.outbox.wake();
        until("the poster ended", || self.supervisor.live(TaskKind::AlertCommands) == 0);
        let took = clock::now() - begun;
        self.supervisor.enter(Phase::Close);
        assert!(self.outbox.close(clock::now() + PATIENCE));
        let ended =
            || [TaskKind::Committer, TaskKind::Sidecar].iter().all(|kind| self.supervisor.live(*kind) == 0);
        until("the outbox ended", ended);
        drop(self.runtime);
        took
    }

    /// How many letters there are, and the events of lane status.
    pub(super) fn dead(&self) -> (u64, Vec<Value>) {
        let letters = dead_letter::Handle::open(gateway(), &self.outbox).unwrap();
        let mut reader = self.outbox.consumer("reader", Lane::Status).unwrap();
        let mut events = Vec::new();
        while let Some(segment) = reader.try_next(1 << 20).unwrap() {
            events
                .extend(segment.records().map(|(_, record)| serde_json::from_slice(record.payload).unwrap()));
        }
        (letters.status().entries, events)
    }
}
