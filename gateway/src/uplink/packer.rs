//! The packed records being built: at most one per chain.
//!
//! A pack is sent when it is full, when its first entry has waited long enough, or when something else must
//! go first. Its entries count as sent from the moment they are in it, so that nothing of their chain
//! overtakes them; memory is bounded by the uplink's window, which counts the packs too.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::config::PackSettings;
use super::pack::Pack;
use super::tracker::ChainId;
use super::wishes::PACED;
use crate::outbox::{Record, Segment};

/// Most packs kept for their buffers.
const SPARE_MAX: usize = 64;

/// Which pack: a lane's place and a chain.
pub(super) type Key = (usize, ChainId);

/// A pack being built.
pub(super) struct Open {
    pub(super) pack: Pack,
    pub(super) lane: Lane,
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
    /// What its first entry follows.
    pub(super) prev: Seq,
    /// When the newest of its entries was received.
    pub(super) received_ms: u64,
    pub(super) opened: Instant,
    /// Whether its entries are backlog to the pacing.
    pub(super) old: bool,
    /// Bytes that were counted for it under the cap.
    pub(super) capped: usize,
}

/// All packs being built.
pub(super) struct Packer {
    settings: PackSettings,
    open: HashMap<Key, Open, BuildHasherDefault<Mix>>,
    /// In the order of their opening; a key may be stale.
    due: VecDeque<(Instant, Key)>,
    spare: Vec<Pack>,
    bytes: usize,
}

/// Every entry looks its pack up. Keys are a few small numbers that no stranger chooses, so a multiplication mixes
/// them well enough.
#[derive(Debug, Clone, Copy, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_usize(number.cast_unsigned());
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio; the table looks at the highest bits and at the lowest.
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Packer {
    pub(super) fn new(settings: PackSettings) -> Self {
        Self { settings, open: HashMap::default(), due: VecDeque::new(), spare: Vec::new(), bytes: 0 }
    }

    /// Bytes of all entries in packs.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Open> {
        self.open.get(key)
    }

    /// Whether an entry may join the pack of its chain, which holds `group` entries at most.
    pub(super) fn fits(&self, open: &Open, segment: &Segment, record: &Record<'_>, group: u32) -> bool {
        let room = open.pack.bytes() + open.pack.entry_bytes(record) <= self.settings.bytes_max;
        let count = open.pack.count() < self.settings.messages_max.min(group);
        room && count && open.epoch == segment.epoch() && open.log == segment.log()
    }

    /// What an entry counts under a cap until its pack is made, which tells what it takes.
    pub(super) fn cost(record: &Record<'_>) -> usize {
        record.device.len() + record.topic.len() + record.payload.len()
    }

    /// Begins a pack with its first entry.
    pub(super) fn begin(
        &mut self,
        key: Key,
        segment: &Segment,
        prev: Seq,
        entry: (Seq, &Record<'_>),
        now: Instant,
        old: bool,
    ) {
        let (format, compression) = (self.settings.format, self.settings.compression);
        let mut pack = self.spare.pop().unwrap_or_else(|| Pack::new(format, compression));
        let (seq, record) = entry;
        pack.begin(seq);
        let open = Open {
            pack,
            lane: segment.lane(),
            log: segment.log(),
            epoch: segment.epoch(),
            prev,
            received_ms: record.received_ms,
            opened: now,
            old,
            capped: 0,
        };
        self.open.insert(key, open);
        self.due.push_back((now, key));
        self.push(key, seq, record);
    }

    /// Adds an entry. Returns whether the pack is full now.
    pub(super) fn push(&mut self, key: Key, seq: Seq, record: &Record<'_>) -> bool {
        let Some(open) = self.open.get_mut(&key) else { return false };
        let before = open.pack.bytes();
        open.pack.push(seq, record);
        open.received_ms = open.received_ms.max(record.received_ms);
        self.bytes += open.pack.bytes().saturating_sub(before);
        if PACED.contains(&open.lane) {
            open.capped += Self::cost(record);
        }
        open.pack.bytes() >= self.settings.bytes_max || open.pack.count() >= self.settings.messages_max
    }

    /// The pack whose turn it is, if its first entry has waited long enough, or if `all` are to go.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Option<Key> {
        while let Some((opened, key)) = self.due.front().copied() {
            match self.open.get(&key) {
                Some(open) if open.opened == opened => {
                    let waited = now.saturating_duration_since(opened) >= self.settings.linger;
                    return (waited || all).then_some(key);
                }
                _ => drop(self.due.pop_front()),
            }
        }
        None
    }

    /// When the next pack is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(opened, _)| *opened + self.settings.linger)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Open> {
        self.open.get_mut(key)
    }

    /// Forgets a pack: it was sent, or taken apart.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(open) = self.open.remove(key) {
            self.bytes = self.bytes.saturating_sub(open.pack.bytes());
            if self.spare.len() < SPARE_MAX {
                self.spare.push(open.pack);
            }
        }
    }

    /// Forgets all packs: their producer is gone.
    pub(super) fn clear(&mut self) {
        let keys: Vec<Key> = self.open.keys().copied().collect();
        keys.iter().for_each(|key| self.remove(key));
        self.due.clear();
    }
}
