//! The sidecar: a high-water mark beside the database, so that a loss cannot go unnoticed.
//!
//! RocksDB opens without a word after a flipped bit in its log and drops everything behind it. So
//! after each durable commit, and before anything is acknowledged, the next position of every lane
//! is written to this file, without a sync; once per second another thread makes it durable. After
//! a power cut it may lag behind the database. It never leads it: a database that knows less than
//! its mark has lost something.
//!
//! Two slots are written in turn, each with a checksum, so that a torn write leaves the other.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::wire::Input;

/// First bytes of a slot.
const MAGIC: [u8; 4] = *b"PSHW";
/// The layout this version writes.
const VERSION: u16 = 1;
/// Slots lie on pages of their own, so that no device tears both in one write.
const SLOT_STRIDE: usize = 4 << 10;
/// How many positions a slot holds.
const LANES: u16 = 5;
const _: () = assert!(LANES as usize == Lane::COUNT, "a new lane is a new version of this file");
const SLOT_LEN: usize = 4 + 2 + 2 + 8 + 4 + 8 + 8 * Lane::COUNT + 4;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
    /// The first position of each lane that is not known to be durable.
    pub(super) next: [Seq; Lane::COUNT],
}

/// The open file. The committer writes; whoever has the [`File`] may make it durable.
#[derive(Debug)]
pub(super) struct Sidecar {
    file: Arc<File>,
    /// Counts the writes; its parity picks the slot.
    write: u64,
}

/// Why a sidecar cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SidecarError {
    #[error("the file is missing")]
    Missing,
    #[error("no slot is valid")]
    Invalid,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Sidecar {
    /// Creates the file with `mark` and makes its content durable; it appears under its name whole
    /// or not at all. To make the name durable is the caller's business.
    pub(super) fn create(path: &Path, mark: &Mark) -> io::Result<Self> {
        let unfinished = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        // Both slots exist from the start, so that no later write has to allocate.
        file.set_len(2 * SLOT_STRIDE as u64)?;
        file.write_all_at(&[0; 2 * SLOT_STRIDE], 0)?;
        let mut sidecar = Self { file: Arc::new(file), write: 0 };
        sidecar.write(mark)?;
        sidecar.write(mark)?;
        sidecar.file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(sidecar)
    }

    /// Opens the file and reads the later of its valid slots.
    pub(super) fn open(path: &Path) -> Result<(Self, Mark), SidecarError> {
        let (file, write, mark) = latest(OpenOptions::new().read(true).write(true), path)?;
        Ok((Self { file: Arc::new(file), write }, mark))
    }

    /// Reads the mark beside the process that writes it: at worst the one before the last.
    pub(super) fn read(path: &Path) -> Result<Mark, SidecarError> {
        latest(OpenOptions::new().read(true), path).map(|(_, _, mark)| mark)
    }

    /// Writes the mark into the slot that was not written last.
    pub(super) fn write(&mut self, mark: &Mark) -> io::Result<()> {
        let write = self.write + 1;
        let at = if write.is_multiple_of(2) { 0 } else { SLOT_STRIDE as u64 };
        self.file.write_all_at(&encode(write, mark), at)?;
        self.write = write;
        Ok(())
    }

    /// The file, to make it durable from another thread.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// Opens the file; also the later of its valid slots and its count of writes.
fn latest(options: &OpenOptions, path: &Path) -> Result<(File, u64, Mark), SidecarError> {
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SidecarError::Missing),
        other => other?,
    };
    let slots = [0, SLOT_STRIDE as u64].map(|at| {
        let mut bytes = [0; SLOT_LEN];
        file.read_exact_at(&mut bytes, at).ok().and_then(|()| decode(&bytes))
    });
    let latest = slots.into_iter().flatten().max_by_key(|(write, _)| *write);
    let (write, mark) = latest.ok_or(SidecarError::Invalid)?;
    Ok((file, write, mark))
}

pub(super) fn encode(write: u64, mark: &Mark) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT_LEN);
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&VERSION.to_le_bytes());
    slot.extend_from_slice(&LANES.to_le_bytes());
    slot.extend_from_slice(&mark.log.0.to_le_bytes());
    slot.extend_from_slice(&mark.epoch.0.to_le_bytes());
    slot.extend_from_slice(&write.to_le_bytes());
    for next in mark.next {
        slot.extend_from_slice(&next.0.to_le_bytes());
    }
    slot.extend_from_slice(&crc32c::crc32c(&slot).to_le_bytes());
    slot
}

pub(super) fn decode(slot: &[u8]) -> Option<(u64, Mark)> {
    let (content, sum) = slot.split_last_chunk::<4>()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut input = Input::new(content);
    if input.array::<4>()? != MAGIC || input.u16()? != VERSION || usize::from(input.u16()?) != Lane::COUNT {
        return None;
    }
    let (log, epoch, write) = (LogId(input.u64()?), Epoch(input.u32()?), input.u64()?);
    let mut next = [Seq::ZERO; Lane::COUNT];
    for seq in &mut next {
        *seq = Seq(input.u64()?);
    }
    Some((write, Mark { log, epoch, next }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(telemetry: u64) -> Mark {
        Mark { log: LogId(7), epoch: Epoch(2), next: [1, 1, telemetry, 1, 1].map(Seq) }
    }

    fn reopened(path: &Path) -> Mark {
        Sidecar::open(path).expect("a slot is valid").1
    }

    #[test]
    fn the_last_mark_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("high-water");
        assert!(matches!(Sidecar::open(&path), Err(SidecarError::Missing)));
        let mut sidecar = Sidecar::create(&path, &mark(1)).unwrap();
        assert_eq!(reopened(&path), mark(1));
        for telemetry in 2..6 {
            sidecar.write(&mark(telemetry)).unwrap();
            assert_eq!(reopened(&path), mark(telemetry));
        }
        let (mut sidecar, _) = Sidecar::open(&path).unwrap();
        sidecar.write(&mark(9)).unwrap();
        assert_eq!(reopened(&path), mark(9), "a reopened file goes on in turn");
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("high-water");
        let mut sidecar = Sidecar::create(&path, &mark(1)).unwrap();
        sidecar.write(&mark(2)).unwrap();
        sidecar.write(&mark(3)).unwrap();
        let last = if sidecar.write.is_multiple_of(2) { 0 } else { SLOT_STRIDE as u64 };
        sidecar.file.write_all_at(&[0xff; 20], last + 30).unwrap();
        assert_eq!(reopened(&path), mark(2));
        sidecar.file.write_all_at(&[0xff; 20], (SLOT_STRIDE as u64 - last) + 30).unwrap();
        assert!(matches!(Sidecar::open(&path), Err(SidecarError::Invalid)));
        sidecar.file.set_len(10).unwrap();
        assert!(matches!(Sidecar::open(&path), Err(SidecarError::Invalid)));
    }

    proptest! {
        #[test]
        fn slots_round_trip(log: u64, epoch: u32, write: u64, next: [u64; Lane::COUNT]) {
            let mark = Mark { log: LogId(log), epoch: Epoch(epoch), next: next.map(Seq) };
            let slot = encode(write, &mark);
            prop_assert_eq!(slot.len(), SLOT_LEN);
            prop_assert_eq!(decode(&slot), Some((write, mark)));
        }

        #[test]
        fn damage_and_junk_are_refused(at in 0..SLOT_LEN, bit in 0_u8..8, junk in prop::collection::vec(any::<u8>(), 0..90)) {
            let mut slot = encode(5, &mark(9));
            slot[at] ^= 1 << bit;
            prop_assert_eq!(decode(&slot), None);
            prop_assert_eq!(decode(&junk), None);
        }
    }
}
