//! A write that fails: nothing of it is acknowledged, and the outbox comes back by itself.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::keys::MetaKey;
use super::super::state::VisitState;
use super::super::store::{Change, Condition, FileKind, Open, Store, Visit};
use super::super::{OnMissingRange, Refused, StoreError, StoreErrorKind};
use super::memory::Fault;
use super::*;

fn wait_recovered(running: &Running, epoch: u32) {
    wait_until(&running.outbox, "the outbox to come back", || {
        running.outbox.epoch().0 == epoch && running.outbox.status().poisoned.is_none()
    });
}

/// Appends when the outbox takes entries again.
fn append_again(running: &Running, payloads: &[&str]) {
    wait_until(&running.outbox, "room", || running.outbox.appender().reserve(Lane::Telemetry, 1).is_ok());
    append(&running.outbox, &Arc::default(), Lane::Telemetry, payloads).expect("healthy again");
}

#[test]
fn a_lost_write_fails_its_tickets_and_its_positions_are_used_again() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_recovered(&running, 2);
    append_again(&running, &["c"]);
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(read(&mut consumer), expected(1, &["a", "c"]));
    assert_eq!(running.outbox.status().queue_bytes, 0);
    let other = encoded(Lane::Telemetry, &["d"]);
    let ticket = submit(&running.outbox, &running.done, &other, Lane::Telemetry);
    wait_until(&running.outbox, "the entry", || running.outbox.status().lanes[2].next == Seq(4));
    assert_eq!(
        wait_durable(&running.done, ticket),
        Err(CommitFailed),
        "it must not speak for the one before"
    );
    running.close();
}

#[test]
fn a_write_that_failed_and_is_there_is_published_without_an_acknowledgement() {
    let running = Running::new();
    let mut consumer = running.consumer(Lane::Telemetry);
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.fail_writes(&[Fault::Kept]);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_recovered(&running, 2);
    append_again(&running, &["c"]);
    let segments = [1, 2, 3].map(|_| consumer.try_next(1 << 20).unwrap().expect("three segments"));
    assert_eq!(segments.each_ref().map(|segment| segment.epoch().0), [1, 1, 2]);
    consumer.rewind();
    assert_eq!(read(&mut consumer), expected(1, &["a", "b", "c"]));
    running.close();
}

#[test]
fn entries_behind_a_failed_group_fail_too() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["the first group never waits"]).unwrap();
    running.memory.fail_opens(1);
    running.memory.fail_writes(&[Fault::Lost]);
    let alerts = Arc::default();
    assert_eq!(append(&running.outbox, &alerts, Lane::Alerts, &["a"]), Err(CommitFailed));
    wait_until(&running.outbox, "poison", || running.outbox.status().poisoned.is_some());
    let appender = running.outbox.appender();
    assert_eq!(appender.reserve(Lane::Telemetry, 1).unwrap_err(), Refused::Poisoned);
    assert_eq!(running.outbox.status().queue_bytes, 0);
}

#[test]
fn opening_again_is_tried_until_it_passes() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.fail_opens(1);
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_until(&running.outbox, "the reason", || {
        running.outbox.status().poisoned.is_some_and(|reason| reason.contains("injected: does not open"))
    });
    assert!(running.consumer(Lane::Bulk).try_next(1).expect("nothing to read is no error").is_none());
    wait_recovered(&running, 2);
    append_again(&running, &["c"]);
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["a", "c"]));
}

#[test]
fn an_outbox_that_lost_something_and_may_not_go_on_stays_shut() {
    let running = Running::with(|config| config.on_missing_range = OnMissingRange::Refuse);
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["c"]), Err(CommitFailed));
    wait_until(&running.outbox, "the reason", || {
        running.outbox.status().poisoned.is_some_and(|reason| reason.contains("at least 3, found 2"))
    });
    assert_eq!(running.outbox.appender().reserve(Lane::Alerts, 1).unwrap_err(), Refused::Poisoned);
    close(&running.outbox);
    assert_eq!(running.outbox.appender().reserve(Lane::Alerts, 1).unwrap_err(), Refused::Closed);
}

#[test]
fn an_outbox_that_lost_something_goes_on_behind_it_and_says_so() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["c"]), Err(CommitFailed));
    wait_recovered(&running, 2);
    append_again(&running, &["d"]);
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(read(&mut consumer), [(1, "a".to_owned()), (3, "d".to_owned())]);
    let alerts = read(&mut running.consumer(Lane::Alerts));
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].1.contains(r#""first":2,"last":2"#), "{alerts:?}");
}

#[test]
fn progress_is_not_forgotten_by_a_failure() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    running.memory.fail_writes(&[Fault::Lost]);
    consumer.commit(Seq(2), b"kept".to_vec());
    wait_recovered(&running, 2);
    running.memory.wait_firsts(Lane::Telemetry, &[2]);
    drop(consumer);
    let running = running.restarted();
    assert_eq!(running.consumer(Lane::Telemetry).progress(), (Seq(2), b"kept".as_slice()));
}

/// RocksDB whose next synced write reaches its log and then fails, as a failed sync does.
#[derive(Debug, Clone, Default)]
struct FailingSync(Arc<AtomicBool>);

#[derive(Debug)]
struct FailingSyncStore {
    rocks: Box<dyn Store>,
    fail: FailingSync,
}

impl Engine for FailingSync {
    fn exists(&self, path: &Path) -> bool {
        RocksEngine.exists(path)
    }

    fn files(&self, path: &Path) -> io::Result<Vec<(PathBuf, FileKind)>> {
        RocksEngine.files(path)
    }

    fn replace_state(&self, path: &Path, content: &StateOps) -> Result<(), StoreError> {
        RocksEngine.replace_state(path, content)
    }

    fn open(&self, path: &Path, how: Open) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(FailingSyncStore { rocks: RocksEngine.open(path, how)?, fail: self.clone() }))
    }
}

impl Store for FailingSyncStore {
    fn write(&self, changes: &[Change<'_>], sync: bool) -> Result<(), StoreError> {
        let fail = sync && self.fail.0.swap(false, Ordering::AcqRel);
        self.rocks.write(changes, sync && !fail)?;
        let message = "injected: the sync failed".to_owned();
        if fail { Err(StoreError { kind: StoreErrorKind::Other, message }) } else { Ok(()) }
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.rocks.meta(key)
    }

    fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError> {
        self.rocks.metas()
    }

    fn scan(&self, lane: Lane, from: Seq, below: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rocks.scan(lane, from, below, visit)
    }

    fn scan_back(&self, lane: Lane, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rocks.scan_back(lane, from, visit)
    }

    fn scan_state(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        self.rocks.scan_state(prefix, visit)
    }

    fn scan_state_back(&self, visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        self.rocks.scan_state_back(visit)
    }

    fn reclaim(&self, lane: Lane, below: Seq) -> Result<u64, StoreError> {
        self.rocks.reclaim(lane, below)
    }

    fn clean(&self, lane: Lane, below: Seq) -> Result<(), StoreError> {
        self.rocks.clean(lane, below)
    }

    fn condition(&self) -> Result<Condition, StoreError> {
        self.rocks.condition()
    }
}

#[test]
fn rocksdb_is_opened_again_in_process_after_a_failed_sync() {
    let directory = tempfile::tempdir().unwrap();
    let engine = FailingSync::default();
    let outbox = open_with(Box::new(engine.clone()), config(directory.path())).unwrap();
    append(&outbox, &Arc::default(), Lane::Telemetry, &["a"]).unwrap();
    engine.0.store(true, Ordering::Release);
    assert_eq!(append(&outbox, &Arc::default(), Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_until(&outbox, "the outbox to come back", || outbox.appender().reserve(Lane::Telemetry, 1).is_ok());
    append(&outbox, &Arc::default(), Lane::Telemetry, &["c"]).unwrap();
    assert_eq!(outbox.epoch().0, 2);
    let mut consumer = outbox.consumer("uplink", Lane::Telemetry).unwrap();
    let all = read(&mut consumer);
    assert_eq!(all, expected(1, &["a", "b", "c"]), "the log had it, so it is there");
    assert!(!directory.path().join("wal-aside").exists());
    close(&outbox);
}
