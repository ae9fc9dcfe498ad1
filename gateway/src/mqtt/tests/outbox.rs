//! The real outbox in a temporary folder, with a hand on its commits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};

use crate::outbox::{
    Completion, Config, ConsumerId, Encoded, Entry, Handle, Permit, Properties, Refused, Service, StateOps,
    Ticket,
};
use crate::supervise::{Supervisor, TaskKind, clock};

/// An outbox whose commits can be held.
///
/// By default telemetry waits for a floor longer than any test. An alert does not, and takes everything that was
/// submitted before it along: a task submits one whenever something waits and nothing is held.
pub(super) struct Outbox {
    handle: Handle,
    held: Arc<AtomicBool>,
    /// All of the room there is, while the outbox plays full.
    full: Mutex<Option<Permit>>,
    _folder: tempfile::TempDir,
}

/// How the outbox of a test differs from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// The quota of unconfirmed bytes.
    pub(super) bytes_max: u64,
    /// Least time between two commits. With the default a test has a hand on them.
    pub(super) commit_floor: Duration,
    /// Space that has to stay free on the disk; 0 for no care.
    pub(super) disk_free_min: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { bytes_max: 16 << 30, commit_floor: Duration::from_secs(3600), disk_free_min: 0 }
    }
}

const QUEUE_BYTES_MAX: usize = 16 << 20;
const CONSUMER: &str = "test";
/// The topic of what fills the outbox.
const FILLER: &str = "filler";
const FILLER_BYTES_MIN: usize = 32 << 10;

impl Outbox {
    pub(super) fn open(setup: Setup, supervisor: &Supervisor) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = Config {
            commit_floor: setup.commit_floor,
            bytes_max: setup.bytes_max,
            disk_free_min: setup.disk_free_min,
            ballast: 0,
            queue_bytes_max: QUEUE_BYTES_MAX,
            realtime: false,
            ..Config::new(folder.path().join("outbox"))
        };
        let consumers = [Lane::Alerts, Lane::Status, Lane::Telemetry]
            .map(|lane| ConsumerId { name: CONSUMER.to_owned(), lane });
        let (_service, handle) = Service::open(config, &consumers, supervisor).expect("the outbox opens");
        // The first commit of all does not wait for the floor.
        let first = Arc::new(Completion::new());
        alert(&handle, &first);
        let _commits = handle.wait_commit(0, Duration::from_secs(20));
        let held = Arc::new(AtomicBool::new(false));
        supervisor.spawn(TaskKind::Admin, commit(handle.clone(), Arc::clone(&held)));
        Self { handle, held, full: Mutex::new(None), _folder: folder }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Nothing that is submitted from here on is committed.
    pub(super) async fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
        // A commit that is under way would take it along.
        let quiet = async {
            while self.handle.status().queue_bytes > 0 {
                tokio::task::yield_now().await;
            }
        };
        super::gateway::soon(quiet).await;
    }

    pub(super) fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Takes all the room there is, as soon as nobody else has any of it, or gives it back.
    pub(super) async fn set_full(&self, full: bool) {
        if !full {
            *self.full.lock() = None;
            return;
        }
        let reserved = async {
            loop {
                match self.handle.appender().reserve(Lane::Telemetry, QUEUE_BYTES_MAX) {
                    Ok(room) => break room,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let room = super::gateway::soon(reserved).await;
        *self.full.lock() = Some(room);
    }

    /// Uses up the quota of unconfirmed entries in lane telemetry, and waits until that is durable.
    pub(super) async fn fill(&self) {
        let share = usize::try_from(self.handle.status().bytes_max / 64).expect("a small quota");
        let payload = vec![b'x'; share.max(FILLER_BYTES_MIN)];
        let filler = encoded(Lane::Telemetry, FILLER, &payload);
        let done = Arc::new(Completion::new());
        let filled = async {
            loop {
                match self.handle.appender().reserve(Lane::Telemetry, filler.bytes()) {
                    Ok(room) => {
                        self.handle.appender().submit(room, &filler, &StateOps::default(), &done);
                    }
                    Err(Refused::Quota) => break,
                    Err(refused) => panic!("refused: {refused}"),
                }
                // One by one: the commit of all would be long.
                while self.handle.status().queue_bytes > 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        super::gateway::soon(filled).await;
    }

    /// Confirms everything in lane telemetry, and waits until there is room for a read again.
    pub(super) async fn confirm(&self) {
        let mut consumer = self.handle.consumer(CONSUMER, Lane::Telemetry).expect("a consumer");
        let mut low = Seq(1);
        while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
            low = segment.records().last().map_or(low, |(seq, _)| Seq(seq.0 + 1));
        }
        consumer.commit(low, Vec::new());
        let roomy = async {
            while self.handle.appender().reserve(Lane::Telemetry, 256 << 10).is_err() {
                tokio::task::yield_now().await;
            }
        };
        super::gateway::soon(roomy).await;
    }

    /// Waits until so many publishes are stored, and returns their payloads.
    pub(super) async fn stored(&self, count: usize) -> Vec<String> {
        let stored = async {
            loop {
                let payloads = self.payloads();
                if payloads.len() >= count {
                    return payloads;
                }
                tokio::task::yield_now().await;
            }
        };
        super::gateway::soon(stored).await
    }

    /// The payloads stored in lane telemetry and not confirmed, in order.
    pub(super) fn payloads(&self) -> Vec<String> {
        self.payloads_of(Lane::Telemetry)
    }

    /// The payloads stored in one of three lanes and not confirmed, in order, without the test's own.
    pub(super) fn payloads_of(&self, lane: Lane) -> Vec<String> {
        let mut payloads = Vec::new();
        let mut consumer = self.handle.consumer(CONSUMER, lane).expect("a consumer");
        while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
            for (_, record) in segment.records().filter(|(_, record)| record.topic != FILLER) {
                payloads.push(String::from_utf8_lossy(record.payload).into_owned());
            }
        }
        payloads
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.full.lock().take();
        let _in_time = self.handle.close(clock::now() + Duration::from_secs(5));
    }
}

async fn commit(handle: Handle, held: Arc<AtomicBool>) -> Result<(), io::Error> {
    let done = Arc::new(Completion::new());
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    loop {
        tick.tick().await;
        if !held.load(Ordering::SeqCst) && handle.status().queue_bytes > 0 {
            alert(&handle, &done);
        }
    }
}

fn alert(handle: &Handle, done: &Arc<Completion>) -> Option<Ticket> {
    let appender = handle.appender();
    let permit = appender.reserve(Lane::Alerts, 1024).ok()?;
    Some(appender.submit(permit, &encoded(Lane::Alerts, FILLER, b""), &StateOps::default(), done))
}

fn encoded(lane: Lane, topic: &str, payload: &[u8]) -> Encoded {
    let mut encoded = Encoded::default();
    encoded.push(&Entry {
        lane,
        device: "test",
        topic,
        received_ms: 0,
        qos: 0,
        retain: false,
        clock_synced: false,
        properties: Properties::default(),
        payload,
    });
    encoded
}
