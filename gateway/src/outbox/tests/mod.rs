//! Tests of the stage as a whole, on a store in memory and on RocksDB.

mod appending;
mod consuming;
mod cursors;
mod dropping;
mod housekeeping;
pub(crate) mod memory;
mod model;
mod offline;
mod opening;
mod poisoning;
mod quarantine;
mod space;
mod state;
mod together;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use penstock_proto::{Lane, Seq};
use tempfile::TempDir;

use super::store::{Engine, RocksEngine};
use super::{
    CommitFailed, Completion, Config, Consumer, ConsumerId, Encoded, Entry, Handle, OpenError, Properties,
    Service, StateOps, Ticket, Urgency,
};
use crate::supervise::{Supervisor, clock};
use memory::Memory;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open outbox in a directory that goes with it.
struct Running {
    outbox: Handle,
    memory: Memory,
    directory: Arc<TempDir>,
    done: Arc<Completion>,
}

fn config(directory: &Path) -> Config {
    Config { realtime: false, disk_free_min: 0, ballast: 0, ..Config::new(directory) }
}

fn consumers() -> Vec<ConsumerId> {
    let uplink = [Lane::Alerts, Lane::Status, Lane::Telemetry, Lane::Bulk];
    uplink.map(|lane| ConsumerId { name: "uplink".to_owned(), lane }).to_vec()
}

fn open_with(engine: Box<dyn Engine>, config: Config) -> Result<Handle, OpenError> {
    Service::open_with(engine, config, &consumers(), &Supervisor::new()).map(|(_, handle)| handle)
}

/// Opens an outbox on `memory` for the tests of other stages.
pub(crate) fn open_in_memory(memory: &Memory, directory: &Path, consumers: &[ConsumerId]) -> Handle {
    let opened =
        Service::open_with(Box::new(memory.clone()), config(directory), consumers, &Supervisor::new());
    opened.expect("nothing is missing").1
}

fn open_rocks(directory: &Path) -> Result<Handle, OpenError> {
    open_with(Box::new(RocksEngine), config(directory))
}

impl Running {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::again(directory, Memory::default(), change).expect("a new directory opens")
    }

    fn again(
        directory: Arc<TempDir>,
        memory: Memory,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, OpenError> {
        let mut config = config(directory.path());
        change(&mut config);
        let outbox = open_with(Box::new(memory.clone()), config)?;
        Ok(Self { outbox, memory, directory, done: Arc::default() })
    }

    /// Closes in order and opens again.
    fn restarted(self) -> Self {
        self.close();
        Self::again(Arc::clone(&self.directory), self.memory.clone(), |_| {}).expect("nothing is missing")
    }

    fn close(&self) {
        close(&self.outbox);
        assert_eq!(self.memory.broken_rules(), Vec::<String>::new());
    }

    /// Appends one entry per payload and waits until they are durable.
    fn append(&self, lane: Lane, payloads: &[&str]) -> Result<(), CommitFailed> {
        append(&self.outbox, &self.done, lane, payloads)
    }

    fn consumer(&self, lane: Lane) -> Consumer {
        self.outbox.consumer("uplink", lane).expect("it is configured and free")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        close(&self.outbox);
    }
}

fn close(outbox: &Handle) {
    assert!(outbox.close(clock::now() + PATIENCE), "closed in time");
}

fn entry(lane: Lane, payload: &str) -> Entry<'_> {
    Entry {
        lane,
        device: "device-000001",
        topic: "devices/device-000001/telemetry",
        received_ms: 1_700_000_000_000,
        qos: 1,
        retain: false,
        clock_synced: true,
        properties: Properties::default(),
        payload: payload.as_bytes(),
    }
}

fn encoded(lane: Lane, payloads: &[&str]) -> Encoded {
    let mut encoded = Encoded::default();
    payloads.iter().for_each(|payload| encoded.push(&entry(lane, payload)));
    encoded
}

fn submit(outbox: &Handle, done: &Arc<Completion>, entries: &Encoded, lane: Lane) -> Ticket {
    let appender = outbox.appender();
    let permit = appender.reserve(lane, entries.bytes()).expect("there is room");
    appender.submit(permit, entries, &StateOps::default(), done)
}

fn append(
    outbox: &Handle,
    done: &Arc<Completion>,
    lane: Lane,
    payloads: &[&str],
) -> Result<(), CommitFailed> {
    let ticket = submit(outbox, done, &encoded(lane, payloads), lane);
    wait_durable(done, ticket)
}

/// All state below `prefix`, as text.
fn state_of(outbox: &Handle, prefix: &str) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found = Vec::new();
    let reader = outbox.appender().state();
    let scanned = reader.scan(prefix.as_bytes(), &mut |key, value| {
        found.push((text(key), text(value)));
        ControlFlow::Continue(())
    });
    scanned.expect("it can be read");
    found
}

/// Changes of state: a put per pair, a deletion where the value is missing.
fn changes(changes: &[(&str, Option<&str>)]) -> StateOps {
    let mut ops = StateOps::default();
    for (key, value) in changes {
        match value {
            Some(value) => ops.put(key.as_bytes(), value.as_bytes()),
            None => ops.delete(key.as_bytes()),
        }
    }
    ops
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks until `ticket` is durable or failed.
fn wait_durable(done: &Completion, ticket: Ticket) -> Result<(), CommitFailed> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut seen = Ticket(ticket.0.saturating_sub(1));
    let deadline = clock::now() + PATIENCE;
    loop {
        match done.poll_durable(seen, &mut cx) {
            Poll::Ready(Err(failed)) => return Err(failed),
            Poll::Ready(Ok(durable)) if durable >= ticket => return Ok(()),
            Poll::Ready(Ok(durable)) => seen = durable,
            Poll::Pending => std::thread::park_timeout(left(deadline)),
        }
    }
}

fn left(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(clock::now());
    assert!(!left.is_zero(), "waited too long");
    left
}

/// Reads all there is: positions and payloads.
fn read(consumer: &mut Consumer) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
        let records = segment.records();
        all.extend(
            records.map(|(Seq(seq), record)| (seq, String::from_utf8_lossy(record.payload).into_owned())),
        );
    }
    all
}

fn expected(first: u64, payloads: &[&str]) -> Vec<(u64, String)> {
    (first..).zip(payloads.iter().map(|payload| (*payload).to_owned())).collect()
}

/// Waits until `condition` holds, checked at every commit and every few milliseconds.
fn wait_until(outbox: &Handle, what: &str, condition: impl Fn() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited too long for: {what}");
        let count = outbox.wait_commit(u64::MAX, Duration::ZERO);
        std::hint::black_box(outbox.wait_commit(count, Duration::from_millis(5)));
    }
}
