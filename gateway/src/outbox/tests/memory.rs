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
use super::super::space::{Disk, FileSystem};
use super::super::state::{StateOp, StateOps, VisitState};
use super::super::store::{Change, Condition, Engine, FileKind, Open, Store, Visit};
use crate::supervise::clock;

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and is not there afterwards.
    Lost,
    /// It fails and is there afterwards all the same.
    Kept,
    /// The disk is full: it fails and is not there afterwards.
    NoSpace,
}

/// An engine whose stores live in memory, also while none is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    exists: bool,
    now: Content,
    durable: Content,
    /// What the set-aside log holds.
    salvage: Content,
    write_faults: VecDeque<Fault>,
    open_faults: u32,
    dead: bool,
    reads_fail: bool,
    reclaimed: [Seq; Lane::COUNT],
    broken_rules: Vec<String>,
    cleaned: Vec<(Lane, Seq)>,
    disk: Option<PretendedDisk>,
    /// State between these keys cannot be read, both inclusive.
    bad_state: Option<(Vec<u8>, Vec<u8>)>,
}

/// A small disk: what was written and the files beside the database take up its space.
#[derive(Debug)]
struct PretendedDisk {
    root: PathBuf,
    size: u64,
    written: u64,
}

impl PretendedDisk {
    fn free(&self) -> u64 {
        let files = std::fs::read_dir(&self.root).unwrap().flatten();
        let files: u64 = files.map(|file| file.metadata().map_or(0, |found| found.len())).sum();
        self.size.saturating_sub(self.written).saturating_sub(files)
    }
}

#[derive(Debug, Clone, Default)]
struct Content {
    lanes: [BTreeMap<Seq, Arc<[u8]>>; Lane::COUNT],
    trimmed: [Seq; Lane::COUNT],
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Memory {
    /// The next writes meet these faults, in turn.
    pub(crate) fn fail_writes(&self, faults: &[Fault]) {
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
    pub(crate) fn die(&self) {
        self.0.0.lock().dead = true;
    }

    /// Works again: after a power cut with what was durable, otherwise with everything.
    pub(crate) fn revive_after_power_cut_if(&self, power_cut: bool) {
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
        let stored = change(stored).map(Arc::from);
        // Damage is on the disk: a power cut does not undo it.
        let State { now, durable, .. } = &mut *state;
        for content in [now, durable] {
            let segments = &mut content.lanes[lane.index()];
            segments.remove(&first);
            segments.extend(stored.clone().map(|stored| (first, stored)));
        }
    }

    /// The log that the next opening sets aside holds everything that is there now.
    pub(super) fn keep_for_salvage(&self) {
        let mut state = self.0.0.lock();
        state.salvage = state.now.clone();
    }

    pub(super) fn put_meta(&self, key: &MetaKey, value: Vec<u8>) {
        self.0.0.lock().now.meta.insert(key.encode(), value);
    }

    /// Removes the last segments of `lane` from everything but the set-aside log.
    pub(super) fn lose_tail(&self, lane: Lane, count: usize) {
        let mut state = self.0.0.lock();
        let State { now, durable, .. } = &mut *state;
        for content in [now, durable] {
            for _ in 0..count {
                content.lanes[lane.index()].pop_last();
            }
        }
    }

    /// Gives up the state of the front end in everything but the set-aside log, but for one key.
    pub(super) fn lose_state(&self, kept: &[u8], value: &[u8]) {
        let mut state = self.0.0.lock();
        let State { now, durable, .. } = &mut *state;
        for content in [now, durable] {
            content.state = BTreeMap::from([(kept.to_vec(), value.to_vec())]);
        }
    }

    /// State between these keys, both inclusive, cannot be read until it is replaced.
    pub(super) fn damage_state(&self, from: &[u8], to: &[u8]) {
        self.0.0.lock().bad_state = Some((from.to_vec(), to.to_vec()));
    }

    /// The set-aside log holds nothing.
    pub(super) fn lose_salvage(&self) {
        self.0.0.lock().salvage = Content::default();
    }

    /// The stored bytes of the segments of `lane`.
    pub(super) fn stored(&self, lane: Lane) -> Vec<(Seq, Arc<[u8]>)> {
        let state = self.0.0.lock();
        state.now.lanes[lane.index()].iter().map(|(first, stored)| (*first, Arc::clone(stored))).collect()
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

    /// The lanes that were cleaned and up to where.
    pub(super) fn cleaned(&self) -> Vec<(Lane, Seq)> {
        self.0.0.lock().cleaned.clone()
    }

    /// From now on there is a disk with so many free bytes, or its size changes to that.
    pub(super) fn set_free(&self, root: &Path, free: u64) {
        let mut state = self.0.0.lock();
        let mut disk = PretendedDisk { root: root.to_owned(), size: u64::MAX, written: 0 };
        disk.size = u64::MAX - disk.free() + free;
        state.disk = Some(disk);
    }

    /// Free bytes on the pretended disk.
    pub(super) fn free(&self) -> u64 {
        self.0.0.lock().disk.as_ref().expect("there is a disk").free()
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

    fn files(&self, _path: &Path) -> io::Result<Vec<(PathBuf, FileKind)>> {
        Ok(Vec::new())
    }

    fn open(&self, _path: &Path, how: Open) -> Result<Box<dyn Store>, StoreError> {
        let mut state = self.0.0.lock();
        if how == Open::Salvage {
            let copy = Self::default();
            copy.0.0.lock().now = state.salvage.clone();
            return Ok(Box::new(copy));
        }
        if state.dead {
            return Err(failed("dead"));
        }
        if state.open_faults > 0 {
            state.open_faults -= 1;
            return Err(failed("injected: does not open"));
        }
        if state.disk.as_ref().is_some_and(|disk| disk.free() < OPENING_BYTES) {
            return Err(no_space());
        }
        state.exists = true;
        Ok(Box::new(self.clone()))
    }

    fn replace_state(&self, _path: &Path, content: &StateOps) -> Result<(), StoreError> {
        let mut state = self.0.0.lock();
        let State { now, durable, bad_state, broken_rules, .. } = &mut *state;
        *bad_state = None;
        for content_of in [now, durable] {
            content_of.state.clear();
            content_of.apply(&[Change::State { ops: content }], broken_rules);
        }
        Ok(())
    }

    fn disk(&self, path: &Path) -> Box<dyn Disk> {
        Box::new(MemoryDisk { memory: self.clone(), real: FileSystem::of(path) })
    }
}

/// The pretended disk if there is one, otherwise the real one.
#[derive(Debug)]
struct MemoryDisk {
    memory: Memory,
    real: FileSystem,
}

impl Disk for MemoryDisk {
    fn free(&self) -> io::Result<u64> {
        let state = self.memory.0.0.lock();
        state.disk.as_ref().map_or_else(|| self.real.free(), |disk| Ok(disk.free()))
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
        let bytes: usize = changes.iter().map(stored_bytes).sum();
        if let Some(disk) = &mut state.disk {
            if bytes as u64 > disk.free() {
                return Err(no_space());
            }
            disk.written += bytes as u64;
        }
        let fault = state.write_faults.pop_front();
        if !matches!(fault, Some(Fault::Lost | Fault::NoSpace)) {
            state.now.apply(changes, &mut state.broken_rules);
            if sync {
                state.durable = state.now.clone();
            }
            changed.notify_all();
        }
        match fault {
            None => Ok(()),
            Some(Fault::Lost | Fault::Kept) => Err(failed("injected: the write failed")),
            Some(Fault::NoSpace) => {
                Err(StoreError { kind: StoreErrorKind::NoSpace, message: "injected: no space".to_owned() })
            }
        }
    }

    fn meta(&self, key: &MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.0.lock().now.meta.get(&key.encode()).cloned())
    }

    fn metas(&self) -> Result<Vec<(MetaKey, Vec<u8>)>, StoreError> {
        let state = self.0.0.lock();
        let known = |(key, value): (&Vec<u8>, &Vec<u8>)| Some((MetaKey::decode(key)?, value.clone()));
        Ok(state.now.meta.iter().filter_map(known).collect())
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
        if state.reads_fail {
            return Err(failed("injected: the read failed"));
        }
        for (first, stored) in state.now.lanes[lane.index()].range(..=from).rev() {
            if visit(*first, stored) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn scan_state(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        let state = self.0.0.lock();
        if state.reads_fail {
            return Err(failed("injected: the read failed"));
        }
        for (key, value) in state.now.state.range(prefix.to_vec()..) {
            state.check_state(key)?;
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_state_back(&self, visit: &mut VisitState<'_>) -> Result<(), StoreError> {
        let state = self.0.0.lock();
        for (key, value) in state.now.state.iter().rev() {
            state.check_state(key)?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn reclaim(&self, lane: Lane, below: Seq) -> Result<u64, StoreError> {
        let mut state = self.0.0.lock();
        if below > state.durable.trimmed[lane.index()] {
            let rule = format!("{lane}: files deleted below {below} before the trim was durable");
            state.broken_rules.push(rule);
        }
        state.reclaimed[lane.index()] = below;
        Ok(0)
    }

    fn clean(&self, lane: Lane, below: Seq) -> Result<(), StoreError> {
        self.reclaim(lane, below)?;
        self.0.0.lock().cleaned.push((lane, below));
        Ok(())
    }

    fn condition(&self) -> Result<Condition, StoreError> {
        Ok(Condition::default())
    }
}

impl State {
    fn check_state(&self, key: &[u8]) -> Result<(), StoreError> {
        let bad = self.bad_state.as_ref().is_some_and(|(from, to)| (from.as_slice()..=to).contains(&key));
        let message = "injected: block checksum mismatch".to_owned();
        if bad { Err(StoreError { kind: StoreErrorKind::Corruption, message }) } else { Ok(()) }
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
                Change::Forget { key } => drop(self.meta.remove(&key.encode())),
                Change::State { ops } => ops.iter().for_each(|op| match op {
                    StateOp::Put { key, value } => drop(self.state.insert(key.to_vec(), value.to_vec())),
                    StateOp::Delete { key } => drop(self.state.remove(key)),
                }),
                Change::Trim { lane, below } => {
                    let kept = self.lanes[lane.index()].split_off(below);
                    self.lanes[lane.index()] = kept;
                    self.trimmed[lane.index()] = *below;
                }
            }
        }
    }
}

/// What an opening needs on the pretended disk.
pub(super) const OPENING_BYTES: u64 = 1000;

fn stored_bytes(change: &Change<'_>) -> usize {
    match change {
        Change::Segment { stored, .. } => stored.len(),
        Change::State { ops } => ops.bytes(),
        _ => 0,
    }
}

fn no_space() -> StoreError {
    StoreError { kind: StoreErrorKind::NoSpace, message: "No space left on device".to_owned() }
}

fn failed(message: &str) -> StoreError {
    StoreError { kind: StoreErrorKind::Other, message: message.to_owned() }
}
