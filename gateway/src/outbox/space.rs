//! Free space: the floor below which nothing is taken in, and the ballast.
//!
//! A full disk is the one state in which the database cannot even delete, so it must not be
//! reached. Below the floor the ordinary lanes are refused, below a quarter of it all of them; both
//! open again a tenth above their limit. What is left below the floor is for flushes of what was
//! taken in already. The file system is asked once per second, and by the committer as soon as what
//! it wrote since could have used up half of the way to the limit.
//!
//! Others may fill the disk all the same. For that there is the ballast: a file that only takes up
//! space and is removed when the disk is full, so that the database can open, flush and delete.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::config::Config;
use super::gate::{DiskFull, Gate};
use super::metrics::Metrics;

pub(super) const BALLAST: &str = "ballast";
/// Alerts and status are refused below this part of the floor.
const URGENT_DIVISOR: u64 = 4;
/// What goes into the log goes into a table file, too, unless it is trimmed before.
const WRITTEN_TWICE: u64 = 2;
/// No answer of the file system.
const UNKNOWN: u64 = u64::MAX;

/// Says how much may still be written.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Bytes that are free for this process.
    fn free(&self) -> io::Result<u64>;
}

/// The file system of a path.
#[derive(Debug)]
pub(super) struct FileSystem(PathBuf);

/// What is known of the space, and the ballast.
#[derive(Debug)]
pub(super) struct Space {
    disk: Box<dyn Disk>,
    ballast: PathBuf,
    ballast_bytes: u64,
    /// 0: not watched.
    floor: u64,
    /// The file system's last answer, or [`UNKNOWN`].
    free: AtomicU64,
    /// How much may be submitted until the committer asks again.
    allowance: AtomicU64,
    looked: Mutex<Looked>,
}

/// What the last look at the disk led to.
#[derive(Debug, Default)]
struct Looked {
    full: DiskFull,
    /// Whether the last try failed, so that it is logged once.
    failed: bool,
    ballast_failed: bool,
}

/// When the ballast may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// At the start: whenever it leaves the floor alone.
    Opening,
    /// Later: with some distance, as whoever filled the disk may be at it still.
    Running,
}

// === impl FileSystem ===

impl FileSystem {
    pub(super) fn of(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Disk for FileSystem {
    fn free(&self) -> io::Result<u64> {
        let answer = statvfs(&self.0)?;
        // Not `f_bfree`: what is reserved for root is not ours.
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }
}

// === impl Space ===

impl Space {
    pub(super) fn new(disk: Box<dyn Disk>, config: &Config) -> Self {
        Self {
            disk,
            ballast: config.directory.join(BALLAST),
            ballast_bytes: config.ballast,
            floor: config.disk_free_min,
            free: AtomicU64::new(UNKNOWN),
            allowance: AtomicU64::new(u64::MAX),
            looked: Mutex::default(),
        }
    }

    /// The file system's last answer.
    pub(super) fn free(&self) -> Option<u64> {
        Some(self.free.load(Ordering::Acquire)).filter(|free| *free != UNKNOWN)
    }

    /// Asks the file system, and tells the gate whether there is room.
    pub(super) fn look(&self, gate: &Gate, metrics: &Metrics) -> Option<u64> {
        let mut looked = self.looked.lock();
        let free = match self.disk.free() {
            Ok(free) => free,
            Err(error) => {
                // What was decided stands until there is an answer again.
                if !std::mem::replace(&mut looked.failed, true) {
                    tracing::warn!(%error, "the file system does not say how much space is free");
                }
                self.free.store(UNKNOWN, Ordering::Release);
                self.allowance.store(u64::MAX, Ordering::Release);
                return None;
            }
        };
        looked.failed = false;
        self.free.store(free, Ordering::Release);
        let full = judge(self.floor, looked.full, free);
        self.allowance.store(room(self.floor, full, free) / 2 / WRITTEN_TWICE, Ordering::Release);
        metrics.disk_free(free, full);
        if full != looked.full {
            gate.set_disk_full(full);
            self.tell(looked.full, full, free);
            looked.full = full;
        }
        Some(free)
    }

    /// Notes that the committer wrote so much, and looks if that could matter.
    pub(super) fn wrote(&self, bytes: usize, gate: &Gate, metrics: &Metrics) {
        let allowance = self.allowance.load(Ordering::Acquire);
        let left = allowance.saturating_sub(bytes as u64);
        if allowance == u64::MAX {
            return;
        }
        if left == 0 {
            self.look(gate, metrics);
        } else {
            // An error means that the housekeeper has just looked: its allowance is newer.
            self.allowance.compare_exchange(allowance, left, Ordering::AcqRel, Ordering::Relaxed).ok();
        }
    }

    fn tell(&self, before: DiskFull, now: DiskFull, free: u64) {
        let floor = self.floor;
        if now.urgent && !before.urgent {
            tracing::warn!(free, floor, "the disk is full but for the last reserve: nothing is taken in");
        } else if now.ordinary && !before.ordinary {
            tracing::warn!(free, floor, "the disk is nearly full: only alerts and status are taken in");
        } else if now.ordinary {
            tracing::info!(free, floor, "there is a little room on the disk: alerts and status are taken in");
        } else {
            tracing::info!(free, floor, "there is room on the disk again");
        }
    }

    /// Makes the ballast if it is missing and there is room for it, and removes it if none is
    /// configured. Call after [`Self::look`].
    pub(super) fn keep_ballast(&self, occasion: Occasion) {
        let found = fs::metadata(&self.ballast).map_or(0, |found| found.len());
        if found == self.ballast_bytes {
            return;
        }
        if self.ballast_bytes == 0 {
            self.release_ballast();
            return;
        }
        let free = self.free().map_or(0, |free| free.saturating_add(found));
        if free < needed_for_ballast(self.floor, self.ballast_bytes, occasion) {
            return;
        }
        let made = make_ballast(&self.ballast, self.ballast_bytes);
        let failed = made.is_err();
        let failed_before = std::mem::replace(&mut self.looked.lock().ballast_failed, failed);
        match made {
            Ok(()) => tracing::info!(bytes = self.ballast_bytes, "the ballast is there"),
            Err(error) if !failed_before => tracing::warn!(%error, "the ballast cannot be made"),
            Err(_) => {}
        }
    }

    /// Gives the ballast's space back: the disk is full. Returns whether there was one.
    pub(super) fn release_ballast(&self) -> bool {
        match fs::remove_file(&self.ballast).and_then(|()| sync_parent(&self.ballast)) {
            Ok(()) => tracing::info!("the ballast was removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => tracing::warn!(%error, "the ballast cannot be removed"),
        }
        true
    }

    /// Whether the database may be able to open on a disk that was full.
    pub(super) fn may_open(&self, free: Option<u64>) -> bool {
        /// A buffer's flush and what belongs to it.
        const OPENING_BYTES: u64 = 32 << 20;
        free.is_none_or(|free| free >= OPENING_BYTES.max(self.floor / URGENT_DIVISOR))
    }
}

/// For which lanes there is too little space now: below a limit, or not yet a tenth above it again.
fn judge(floor: u64, before: DiskFull, free: u64) -> DiskFull {
    let full = |limit: u64, was_full| free < if was_full { limit.saturating_add(limit / 10) } else { limit };
    DiskFull { ordinary: full(floor, before.ordinary), urgent: full(floor / URGENT_DIVISOR, before.urgent) }
}

/// The way to the next limit; without a further one it is endless.
fn room(floor: u64, full: DiskFull, free: u64) -> u64 {
    match full {
        _ if floor == 0 => u64::MAX,
        DiskFull { ordinary: false, .. } => free.saturating_sub(floor),
        DiskFull { urgent: false, .. } => free.saturating_sub(floor / URGENT_DIVISOR),
        DiskFull { .. } => u64::MAX,
    }
}

fn needed_for_ballast(floor: u64, ballast: u64, occasion: Occasion) -> u64 {
    let stays_free = match occasion {
        // Where a shut gate would open: making it must not shut the gate.
        Occasion::Opening => floor.saturating_add(floor / 10),
        Occasion::Running => floor.saturating_add(floor / 2),
    };
    // As much again: the space of a ballast that was just let go must not look like room for one.
    ballast.saturating_add(stays_free.max(ballast))
}

fn make_ballast(path: &Path, bytes: u64) -> io::Result<()> {
    let made = File::create(path).and_then(|file| {
        allocate(&file, bytes)?;
        file.sync_all()?;
        sync_parent(path)
    });
    // Half a ballast would be taken for none and tried again: better that the space stays free.
    made.inspect_err(|_| drop(fs::remove_file(path)))
}

/// Takes up the space for real: a file that is only long has no blocks.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        allocated => Ok(allocated?),
    }
}

fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    const PIECE: usize = 1 << 20;
    let piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        file.write_all(piece.get(..length).unwrap_or(&piece))?;
        left -= length as u64;
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const OPEN: DiskFull = DiskFull { ordinary: false, urgent: false };
    const ORDINARY: DiskFull = DiskFull { ordinary: true, urgent: false };
    const ALL: DiskFull = DiskFull { ordinary: true, urgent: true };

    #[test]
    fn lanes_shut_at_the_floor_and_at_a_quarter_and_open_a_tenth_above() {
        let check = |before, free, expected| assert_eq!(judge(4000, before, free), expected, "{free}");
        check(OPEN, 4000, OPEN);
        check(OPEN, 3999, ORDINARY);
        check(OPEN, 999, ALL);
        check(ORDINARY, 4399, ORDINARY);
        check(ORDINARY, 4400, OPEN);
        check(ORDINARY, 1000, ORDINARY);
        check(ORDINARY, 999, ALL);
        check(ALL, 1099, ALL);
        check(ALL, 1100, ORDINARY);
        check(ALL, 4400, OPEN);
        assert_eq!(judge(0, OPEN, 0), OPEN, "not watched");
    }

    #[test]
    fn the_way_to_the_next_limit_is_known() {
        let check = |full, free, expected| assert_eq!(room(4000, full, free), expected, "{full:?}");
        check(OPEN, 5000, 1000);
        check(ORDINARY, 3900, 2900);
        check(ALL, 900, u64::MAX);
        assert_eq!(room(0, OPEN, 100), u64::MAX, "not watched");
    }

    #[test]
    fn the_ballast_never_takes_the_floor() {
        assert_eq!(needed_for_ballast(1000, 64, Occasion::Opening), 64 + 1100);
        assert_eq!(needed_for_ballast(1000, 64, Occasion::Running), 64 + 1500);
        assert_eq!(needed_for_ballast(0, 64, Occasion::Opening), 64 + 64, "not watched");
        assert_eq!(needed_for_ballast(0, 64, Occasion::Running), 64 + 64, "not watched");
    }

    #[test]
    fn the_ballast_takes_up_its_space() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = (3 << 20) + 5;
        for (name, make) in
            [("allocated", allocate as fn(&File, u64) -> io::Result<()>), ("written", write_zeros)]
        {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            make(&file, bytes).unwrap();
            file.sync_all().unwrap();
            let found = fs::metadata(&path).unwrap();
            assert_eq!(found.len(), bytes, "{name}");
            assert!(found.blocks() * 512 >= bytes, "{name}: {} blocks", found.blocks());
        }
    }

    #[test]
    fn the_file_system_says_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let free = FileSystem::of(folder.path()).free().unwrap();
        assert!(free > 0 && free < 1 << 60, "{free}");
        let missing = FileSystem::of(&folder.path().join("missing"));
        assert_eq!(missing.free().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
