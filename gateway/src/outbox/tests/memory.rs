//! A store in memory with faults, and with a crash that loses what was not synced.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use penstock_proto::{Lane, Seq};

use super::super::error::{StoreError, StoreErrorKind};
use super::super::keys::MetaKey;
use super::super::store::{Change, Engine, Store, Visit};
use crate::supervise::clock;

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails and is not there afterwards.
    Lost,
    /// It fails and is there afterwards all the same.
    Kept,
}

/// An engine whose stores live in memory, also while none is open.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    exists: bool,
    now: Content,
    durable: Content,
    write_faults: VecDeque<Fault>,
    open_faults: u32,
    dead: bool,
    reads_fail: bool,
    reclaimed: [Seq; Lane::COUNT],
    broken_rules: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    lanes: [BTreeMap<Seq, Arc<[u8]>>; Lane::COUNT],
    trimmed: [Seq; Lane::COUNT],
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Memory {
    /// The next writes meet these faults, in turn.
    pub(super) fn fail_writes(&self, faults: &[Fault]) {
        self.0.0.lock().write_faults.extend(faults);
    }

    /// The next openings fail.
    pub(super) fn fail_opens(&self, count: u32) {
        self.0.0.lock().open_faults = count;
    }

    /// Whether scans fail.
    pub(super) fn set_reads_fail(&self, fail: bool) {
        self.0.0.lock().reads_fail = fail;
    }

    /// Nothing works any more, as if the process had been killed.
    pub(super) fn die(&self) {
        self.0.0.lock().dead = true;
    }

    /// Works again: after a power cut with what was durable, otherwise with everything.
    pub(super) fn revive_after_power_cut_if(&self, power_cut: bool) {
        let mut state = self.0.0.lock();
        state.dead = false;
        state.write_faults.clear();
        if power_cut {
            state.now = state.durable.clone();
        }
    }

    /// Changes the stored bytes of a segment, or removes it.
    pub(super) fn damage(&self, lane: Lane, first: Seq, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let mut state = self.0.0.lock();
        let segments = &mut state.now.lanes[lane.index()];
        let stored = segments.remove(&first).expect("the segment is there").to_vec();
        if let Some(stored) = change(stored) {
            segments.insert(first, stored.into());
        }
    }

    pub(super) fn put_meta(&self, key: &MetaKey, value: Vec<u8>) {
        self.0.0.lock().now.meta.insert(key.encode(), value);
    }

    /// Where the segments of `lane` begin.
    pub(super) fn firsts(&self, lane: Lane) -> Vec<u64> {
        self.0.0.lock().now.lanes[lane.index()].keys().map(|first| first.0).collect()
    }

    /// Waits until the lane's segments begin as expected.
    pub(super) fn wait_firsts(&self, lane: Lane, expected: &[u64]) {
        let deadline = clock::now() + Duration::from_secs(10);
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        while !state.now.lanes[lane.index()].keys().map(|first| first.0).eq(expected.iter().copied()) {
            let late = changed.wait_until(&mut state, deadline).timed_out();
            assert!(!late, "{lane}: {:?}, expected {expected:?}", state.now.lanes[lane.index()].keys());
        }
    }

    /// Below this position the files of `lane` were deleted.
    pub(super) fn reclaimed(&self, lane: Lane) -> Seq {
        self.0.0.lock().reclaimed[lane.index()]
    }

    /// What the outbox did that it must not do.
    pub(super) fn broken_rules(&self) -> Vec<String> {
        self.0.0.lock().broken_rules.clone()
    }
}

impl Engine for Memory {
    fn exists(&self, _path: &Path) -> bool {
        self.0.0.lock().exists
    }

    fn logs(&self, _path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn open(&self, _path: &Path, _create: bool) -> Result<Box<dyn Store>, StoreError> {
        let mut state = self.0.0.lock();
        if state.dead {
            return Err(failed("dead"));
        }
        if state.open_faults > 0 {
            state.open_faults -= 1;
            return Err(failed("injected: does not open"));
        }
        state.exists = true;
        Ok(Box::new(self.clone()))
    }
}

impl Store for Memory {
    fn write(&self, changes: &[Change<'_>], sync: bool) -> Result<(), StoreError> {
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        let state = &mut *state;
        if state.dead {
            return Err(failed("dead"));
        }
        let fault = state.write_faults.pop_front();
        if fault != Some(Fault::Lost) {
            state.now.apply(changes, &mut state.broken_rules);
            if sync {
                state.durable = state.now.clone();
            }
            changed.notify_all();
        }
        fault.map_or(Ok(()), |_| Err(failed("injected: the write failed")))
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.0.lock().now.meta.get(&key.encode()).cloned())
    }

    fn scan(&self, lane: Lane, from: Seq, below: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let state = self.0.0.lock();
        if state.reads_fail {
            return Err(failed("injected: the read failed"));
        }
        for (first, stored) in state.now.lanes[lane.index()].range(from..below) {
            if visit(*first, stored) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&self, lane: Lane, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let state = self.0.0.lock();
        for (first, stored) in state.now.lanes[lane.index()].range(..=from).rev() {
            if visit(*first, stored) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn reclaim(&self, lane: Lane, below: Seq) -> Result<(), StoreError> {
        let mut state = self.0.0.lock();
        if below > state.durable.trimmed[lane.index()] {
            let rule = format!("{lane}: files deleted below {below} before the trim was durable");
            state.broken_rules.push(rule);
        }
        state.reclaimed[lane.index()] = below;
        Ok(())
    }
}

impl Content {
    fn apply(&mut self, changes: &[Change<'_>], broken: &mut Vec<String>) {
        for change in changes {
            match change {
                Change::Segment { lane, first, stored } => {
                    let segments = &mut self.lanes[lane.index()];
                    if segments.last_key_value().is_some_and(|(last, _)| last >= first) {
                        broken.push(format!("{lane}: segment {first} is not above the last"));
                    }
                    segments.insert(*first, Arc::from(*stored));
                }
                Change::Meta { key, value } => drop(self.meta.insert(key.encode(), value.clone())),
                Change::Trim { lane, below } => {
                    let kept = self.lanes[lane.index()].split_off(below);
                    self.lanes[lane.index()] = kept;
                    self.trimmed[lane.index()] = *below;
                }
            }
        }
    }
}

fn failed(message: &str) -> StoreError {
    StoreError { kind: StoreErrorKind::Other, message: message.to_owned() }
}
