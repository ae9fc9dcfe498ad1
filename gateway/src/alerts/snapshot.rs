//! Snapshots: what the numbers of all series stood at, in a file, so that a start need not read the whole log.
//!
//! A file is written whole, synced and given its name before any progress rests on it. The layout is in
//! `docs/formats/alerts-snapshot-v1.md`. One that cannot be used costs warmth and nothing else: what is built from nothing
//! has to learn again.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use penstock_proto::{Epoch, LogId, Seq};

use super::clock::Moment;
use crate::outbox::Input;

/// First bytes of every file.
const MAGIC: [u8; 8] = *b"PNSTKAS1";
/// Largest file that is read: a damaged length must not ask for all memory.
const BYTES_MAX: u64 = 4 << 30;
const SUFFIX: &str = ".snapshot";

/// The folder of the snapshots.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

/// What the stage stood at before the entry `at` of lane telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The outbox directory it belongs to.
    pub(super) log: LogId,
    pub(super) at: Seq,
    pub(super) moment: Moment,
    /// As [`super::measure::Reader::encode`] wrote it.
    pub(super) reader: Vec<u8>,
    /// As [`super::rule::Evaluator::encode`] wrote it.
    pub(super) evaluator: Vec<u8>,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("cannot read {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is {what}")]
    Damaged { path: PathBuf, what: &'static str },
}

// === impl Folder ===

impl Folder {
    /// Makes the folder if it is not there, and removes what a crash left half written.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let folder = Self(path.to_owned());
        for name in folder.names()?.into_iter().filter(|name| name.ends_with(".new")) {
            fs::remove_file(folder.0.join(name))?;
        }
        Ok(folder)
    }

    /// Writes `snapshot`; it is durable when this returns. Blocks on the disk.
    pub(super) fn write(&self, snapshot: &Snapshot) -> io::Result<u64> {
        let path = self.path(snapshot.at);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        let bytes = snapshot.write(&mut file)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.0)?.sync_all()?;
        Ok(bytes)
    }

    /// The snapshot at `at` of the log `log`.
    pub(super) fn read(&self, at: Seq, log: LogId) -> Result<Snapshot, SnapshotError> {
        let path = self.path(at);
        let read = || {
            let file = File::open(&path)?;
            let mut bytes = Vec::new();
            file.take(BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| SnapshotError::Io { path: path.clone(), source })?;
        let snapshot =
            Snapshot::decode(&bytes).map_err(|what| SnapshotError::Damaged { path: path.clone(), what })?;
        if (snapshot.log, snapshot.at) != (log, at) {
            return Err(SnapshotError::Damaged { path, what: "of another log or position" });
        }
        Ok(snapshot)
    }

    /// Removes the snapshots below `at`. A newer one may be there already, to be rested on soon. What cannot be removed
    /// is tried again next time.
    pub(super) fn remove_below(&self, at: Seq) {
        for name in self.names().unwrap_or_default() {
            let position = name.strip_suffix(SUFFIX).and_then(|digits| digits.parse().ok()).map(Seq);
            let old = position.is_some_and(|position| position < at);
            if old && fs::remove_file(self.0.join(&name)).is_err() {
                tracing::debug!(name, "an old snapshot stays");
            }
        }
    }

    fn path(&self, at: Seq) -> PathBuf {
        self.0.join(format!("{:020}{SUFFIX}", at.0))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.0)?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Writes it without a copy of its parts, which may be a hundred megabytes. Returns how many bytes there are.
    fn write(&self, out: &mut impl Write) -> io::Result<u64> {
        let (mut bytes, mut checksum) = (0, 0);
        let mut write = |part: &[u8]| {
            bytes += part.len() as u64;
            checksum = crc32c::crc32c_append(checksum, part);
            out.write_all(part)
        };
        write(&MAGIC)?;
        write(&self.log.0.to_le_bytes())?;
        write(&self.at.0.to_le_bytes())?;
        write(&self.moment.now_ms.to_le_bytes())?;
        write(&self.moment.epoch.0.to_le_bytes())?;
        for part in [&self.reader, &self.evaluator] {
            write(&(part.len() as u64).to_le_bytes())?;
            write(part)?;
        }
        out.write_all(&checksum.to_le_bytes())?;
        Ok(bytes + 4)
    }

    #[cfg(any(test, fuzzing))]
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = self.write(&mut bytes).expect("memory takes everything");
        assert_eq!(written, bytes.len() as u64);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or("cut short")?;
        let rest = body.strip_prefix(&MAGIC).ok_or("something else, or of another version")?;
        if u32::from_le_bytes(*checksum) != crc32c::crc32c(body) {
            return Err("damaged: its checksum is wrong");
        }
        Self::fields(rest).ok_or("damaged: a length is wrong")
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        let (log, at) = (LogId(input.u64()?), Seq(input.u64()?));
        let moment = Moment { now_ms: input.u64()?, epoch: Epoch(input.u32()?) };
        let mut part = || {
            let length = usize::try_from(input.u64()?).ok()?;
            input.take(length).map(<[u8]>::to_vec)
        };
        let (reader, evaluator) = (part()?, part()?);
        input.is_empty().then_some(Self { log, at, moment, reader, evaluator })
    }
}

/// Feeds a decoder of files that the disk vouches for: also with the checksum put right.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_for_fuzzing(bytes: &[u8]) {
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        assert_eq!(snapshot.encode(), bytes);
    }
    let mut sealed = [&MAGIC[..], bytes].concat();
    let checksum = crc32c::crc32c(&sealed);
    sealed.extend_from_slice(&checksum.to_le_bytes());
    if let Ok(snapshot) = Snapshot::decode(&sealed) {
        assert_eq!(snapshot.encode(), sealed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0xabc);

    fn snapshot(at: u64) -> Snapshot {
        let moment = Moment { now_ms: 1_700_000_000_000, epoch: Epoch(2) };
        Snapshot { log: LOG, at: Seq(at), moment, reader: vec![1, 2], evaluator: vec![3; 1000] }
    }

    #[test]
    fn a_snapshot_reads_as_it_was_written_and_older_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alerts");
        let folder = Folder::open(&path).unwrap();
        for at in [7, 9, 10] {
            folder.write(&snapshot(at)).unwrap();
        }
        assert_eq!(folder.read(Seq(7), LOG).unwrap(), snapshot(7));
        fs::write(path.join("00000000000000000011.new"), b"half").unwrap();
        let folder = Folder::open(&path).unwrap();
        folder.remove_below(Seq(9));
        let mut names = folder.names().unwrap();
        names.sort();
        assert_eq!(names, ["00000000000000000009.snapshot", "00000000000000000010.snapshot"]);
        assert_eq!(folder.read(Seq(9), LOG).unwrap(), snapshot(9));
    }

    #[test]
    fn whatever_is_wrong_with_a_file_it_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        let check = |at: u64, bytes: &[u8], expected: &str| {
            fs::write(folder.path(Seq(at)), bytes).unwrap();
            let error = folder.read(Seq(at), LOG).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        };
        let good = snapshot(7).encode();
        check(7, b"", "cut short");
        check(7, &good[..good.len() - 1], "checksum");
        check(8, &good, "another log or position");
        check(7, &[b"x", &good[1..]].concat(), "something else");
        for place in [8, 20, 40, good.len() - 2] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            check(7, &bad, "checksum");
        }
        assert!(folder.read(Seq(99), LOG).unwrap_err().to_string().contains("cannot read"));
        decode_for_fuzzing(&good[8..good.len() - 4]);
    }
}
