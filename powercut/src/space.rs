//! A disk of a chosen size: `POWERCUT_SPACE`.
//!
//! What a file occupies is counted in blocks, from what was written and what was reserved; a hole costs
//! nothing, a new file or directory costs one block. The size of the disk lies in a mapped file, so that a
//! test can fill the disk with foreign data (a smaller number) and clear it again while the process runs.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::edge::raw::Errno;

/// What space is given out in, in bytes.
pub(crate) const BLOCK: u64 = 4096;

/// No room for it.
const FULL: Errno = Errno(libc::ENOSPC);

#[derive(Debug)]
pub(crate) struct Space {
    /// The size of the disk in bytes.
    size: &'static AtomicU64,
    charges: Mutex<Charges>,
}

#[derive(Debug, Default)]
struct Charges {
    /// Inode -> bytes it occupies.
    files: HashMap<u64, u64>,
    used: u64,
}

impl Space {
    /// A disk that holds what is below `dir` now.
    pub(crate) fn new(size: &'static AtomicU64, dir: &Path) -> io::Result<Space> {
        let mut charges = Charges::default();
        charges.add_all(dir)?;
        Ok(Space { size, charges: Mutex::new(charges) })
    }

    /// The size of the disk and what is free of it, in blocks.
    pub(crate) fn blocks(&self) -> (u64, u64) {
        let used = self.charges().used;
        let size = self.size.load(Ordering::Relaxed);
        (size / BLOCK, size.saturating_sub(used) / BLOCK)
    }

    /// Takes the space for bytes `start..start + count` of `ino`; the answer is how many of them fit.
    pub(crate) fn take(&self, ino: u64, start: u64, count: usize) -> Result<usize, Errno> {
        let mut charges = self.charges();
        let free = self.size.load(Ordering::Relaxed).saturating_sub(charges.used) / BLOCK * BLOCK;
        let held = charges.files.get(&ino).copied().unwrap_or(0);
        let room = held.saturating_add(free).saturating_sub(start);
        let fits = usize::try_from(room).map_or(count, |room| room.min(count));
        if fits == 0 && count > 0 {
            return Err(FULL);
        }
        charges.set(ino, held.max(blocks(start.saturating_add(fits as u64))));
        Ok(fits)
    }

    /// Takes the space for all of `start..end` of `ino`, or nothing.
    pub(crate) fn take_all(&self, ino: u64, end: u64) -> Result<(), Errno> {
        let mut charges = self.charges();
        let free = self.size.load(Ordering::Relaxed).saturating_sub(charges.used);
        let held = charges.files.get(&ino).copied().unwrap_or(0);
        let wanted = held.max(blocks(end));
        if wanted - held > free {
            return Err(FULL);
        }
        charges.set(ino, wanted);
        Ok(())
    }

    /// Whether a new file or directory finds room.
    pub(crate) fn has_block(&self) -> Result<(), Errno> {
        if self.blocks().1 == 0 { Err(FULL) } else { Ok(()) }
    }

    /// A new inode takes its first block. The number may have belonged to another one.
    pub(crate) fn created(&self, ino: u64) {
        self.charges().set(ino, BLOCK);
    }

    /// The file was cut, and what was reserved behind its end went too.
    pub(crate) fn cut(&self, ino: u64, length: u64) {
        let mut charges = self.charges();
        let held = charges.files.get(&ino).copied().unwrap_or(0);
        charges.set(ino, held.min(blocks(length)));
    }

    /// The last name of the inode is gone.
    pub(crate) fn removed(&self, ino: u64) {
        let mut charges = self.charges();
        charges.set(ino, 0);
        charges.files.remove(&ino);
    }

    fn charges(&self) -> MutexGuard<'_, Charges> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charges {
    fn set(&mut self, ino: u64, bytes: u64) {
        let before = self.files.insert(ino, bytes).unwrap_or(0);
        self.used = self.used.saturating_sub(before).saturating_add(bytes);
    }

    fn add_all(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                self.set(about.ino(), BLOCK);
                self.add_all(&entry.path())?;
            } else if about.is_file() {
                self.set(about.ino(), blocks(about.size()));
            }
        }
        Ok(())
    }
}

/// What `bytes` occupy; an empty file has a block too.
fn blocks(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// Whether `fallocate` with this mode gives a file space.
pub(crate) fn reserves(mode: c_int) -> bool {
    mode == 0 || mode == libc::FALLOC_FL_KEEP_SIZE
}
