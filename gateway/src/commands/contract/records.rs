//! The records of all devices, in memory: read from the store once at the start, and kept up with what is committed.
//!
//! Each is held as it is stored, some 60 to 150 bytes beside the device's key, since it is looked at once per command.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Bound, ControlFlow};

use super::record::{KEY_PREFIX, Record, device_of, record_key};
use crate::outbox::{Error, StateOps, StateReader};
use crate::supervise::clock;

/// The last command of each device that ever had one, as far as it is remembered.
#[derive(Debug)]
pub(crate) struct Records {
    /// The key of a device, and its record as it is stored.
    stored: BTreeMap<Box<str>, Box<[u8]>>,
    /// Devices of whose record the store may have another version: a write failed, and may be there all the same.
    doubts: HashSet<Box<str>>,
    limits: Limits,
    /// How far the last pruning looked.
    looked: Option<Box<str>>,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Records older than this go, in milliseconds.
    pub(crate) kept_ms: u64,
    /// Beyond so many the oldest go.
    pub(crate) count_max: usize,
}

/// How many records one pruning looks at.
const LOOK_AT: usize = 1024;

impl Records {
    /// None at all.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { stored: BTreeMap::new(), doubts: HashSet::new(), limits, looked: None }
    }

    /// Reads those of the store, and puts down in `ops` which of them say nothing and are to be deleted. Blocks on
    /// the disk.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(crate) fn load(reader: &StateReader, limits: Limits, ops: &mut StateOps) -> Result<Self, Error> {
        let mut records = Self::new(limits);
        reader.scan(&[KEY_PREFIX], &mut |key, value| {
            match device_of(key).filter(|_| Record::decode(value).is_some()) {
                Some(device) => drop(records.stored.insert(device.into(), value.into())),
                None => ops.delete(key),
            }
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    /// Reads the record of one device from the store. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the store cannot be read, also while a failed one is being opened again.
    pub(crate) fn read(reader: &StateReader, device: &str) -> Result<Option<Record>, Error> {
        let (wanted, mut found) = (record_key(device), None);
        // Keys that have this one as their beginning come behind it.
        reader.scan(&wanted, &mut |key, value| {
            found = if key == wanted { Record::decode(value) } else { None };
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.stored.len()
    }

    /// The record of a device.
    pub(crate) fn get(&self, device: &str) -> Option<Record> {
        self.stored.get(device).and_then(|stored| Record::decode(stored))
    }

    /// Notes what is durable now.
    pub(crate) fn set(&mut self, device: &str, record: &Record) {
        let stored = record.encode().into_boxed_slice();
        match self.stored.get_mut(device) {
            Some(place) => *place = stored,
            None => drop(self.stored.insert(device.into(), stored)),
        }
    }

    /// Whether the store may have another record of a device than this.
    pub(crate) fn is_in_doubt(&self, device: &str) -> bool {
        self.doubts.contains(device)
    }

    /// A write of a device's record failed; whether it is there, the store is asked later.
    pub(crate) fn doubt(&mut self, device: &str) {
        self.doubts.insert(device.into());
    }

    /// The devices whose records are in doubt.
    pub(crate) fn doubts(&self) -> Vec<Box<str>> {
        self.doubts.iter().cloned().collect()
    }

    /// What the store has of a device, now that it was asked.
    pub(crate) fn resolve(&mut self, device: &str, found: Option<&Record>) {
        self.doubts.remove(device);
        match found {
            Some(record) => self.set(device, record),
            None => drop(self.stored.remove(device)),
        }
    }

    /// Forgets what is too old, and beyond the limit the oldest of what it looks at: the next 1024 records at each
    /// call. Those of `busy` devices stay. The deletions are put down in `ops`.
    pub(crate) fn prune(&mut self, now_ms: u64, busy: impl Fn(&str) -> bool, ops: &mut StateOps) {
        if !clock::plausible(now_ms) {
            return;
        }
        let after = self.looked.take().map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.stored.range::<Box<str>, _>((after, Bound::Unbounded));
        let mut seen: Vec<(u64, Box<str>)> = Vec::new();
        let (mut last, mut looked_at) = (None, 0);
        for (device, stored) in range.take(LOOK_AT) {
            (last, looked_at) = (Some(device.clone()), looked_at + 1);
            let at_ms = Record::decode(stored).map_or(0, |record| record.at_ms);
            if !busy(device) && !self.doubts.contains(device) {
                seen.push((at_ms, device.clone()));
            }
        }
        self.looked = last.filter(|_| looked_at == LOOK_AT);
        seen.sort_unstable();
        // Half of them at most, so that the younger ones of the next look count as well.
        let beyond = self.stored.len().saturating_sub(self.limits.count_max).min(seen.len().div_ceil(2));
        for (place, (at_ms, device)) in seen.iter().enumerate() {
            if !clock::plausible(*at_ms) && place >= beyond {
                self.stamp(device, now_ms, ops);
            } else if place < beyond || at_ms.saturating_add(self.limits.kept_ms) < now_ms {
                self.stored.remove(device);
                ops.delete(&record_key(device));
            }
        }
    }

    /// Gives a record that was written before the clock was set a time to count from.
    fn stamp(&mut self, device: &str, now_ms: u64, ops: &mut StateOps) {
        let Some(record) = self.get(device) else { return };
        let record = Record { at_ms: now_ms, ..record };
        ops.put(&record_key(device), &record.encode());
        self.set(device, &record);
    }
}
