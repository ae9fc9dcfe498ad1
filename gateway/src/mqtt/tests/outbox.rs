//! The real outbox in a temporary folder, with a hand on its commits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::Lane;

use crate::outbox::{
    Completion, Config, ConsumerId, Encoded, Entry, Handle, Permit, Properties, Service, Ticket,
};
use crate::supervise::{Supervisor, TaskKind, clock};

/// An outbox whose commits can be held.
///
/// Telemetry waits for a floor longer than any test. An alert does not, and takes everything that was
/// submitted before it along: a task submits one whenever something waits and nothing is held.
pub(super) struct Outbox {
    handle: Handle,
    held: Arc<AtomicBool>,
    /// All of the room there is, while the outbox plays full.
    full: Mutex<Option<Permit>>,
    _folder: tempfile::TempDir,
}

const FLOOR: Duration = Duration::from_secs(3600);
const QUEUE_BYTES_MAX: usize = 16 << 20;
const CONSUMER: &str = "test";

impl Outbox {
    pub(super) fn open(supervisor: &Supervisor) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = Config {
            commit_floor: FLOOR,
            queue_bytes_max: QUEUE_BYTES_MAX,
            realtime: false,
            ..Config::new(folder.path().join("outbox"))
        };
        let consumer = ConsumerId { name: CONSUMER.to_owned(), lane: Lane::Telemetry };
        let (_service, handle) = Service::open(config, &[consumer], supervisor).expect("the outbox opens");
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

    /// Takes all the room there is, or gives it back.
    pub(super) fn set_full(&self, full: bool) {
        let room = full.then(|| {
            self.handle.appender().reserve(Lane::Telemetry, QUEUE_BYTES_MAX).expect("nothing is queued")
        });
        *self.full.lock() = room;
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

    /// The payloads stored in lane telemetry, in order.
    pub(super) fn payloads(&self) -> Vec<String> {
        let mut payloads = Vec::new();
        let mut consumer = self.handle.consumer(CONSUMER, Lane::Telemetry).expect("a consumer");
        while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
            for (_, record) in segment.records() {
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
    let mut encoded = Encoded::default();
    encoded.push(&Entry {
        lane: Lane::Alerts,
        device: "test",
        topic: "test",
        received_ms: 0,
        qos: 0,
        retain: false,
        clock_synced: false,
        properties: Properties::default(),
        payload: b"",
    });
    Some(appender.submit(permit, &encoded, done))
}
