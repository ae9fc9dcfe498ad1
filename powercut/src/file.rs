//! One watched file and its durable twin inode.
//!
//! The twin is a file in the store, named after the inode number of the live one; the twin tree holds hard
//! links to it, so a sync of the file needs no names and a sync of a directory needs no data.
//!
//! `dirty` is held across each write, so that the range is recorded together with the write: a sync that
//! starts after a write returned finds its range. `syncing` is held across a whole sync, so that a second
//! sync does not return before the first has copied what both cover. Lock order: `syncing`, then `dirty`.

use std::ffi::{CStr, CString, c_int};
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dirty::Dirty;
use crate::edge::raw::{self, Errno, Outcome};
use crate::shim::give_up;

/// Bytes copied at once.
const CHUNK: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) id: u64,
    twin: CString,
    syncing: Mutex<()>,
    dirty: Mutex<Dirty>,
}

impl File {
    pub(crate) fn new(id: u64, twin: CString, dirty: Dirty) -> File {
        File { id, twin, syncing: Mutex::new(()), dirty: Mutex::new(dirty) }
    }

    /// The changes of the file; whoever makes one holds this while making it.
    pub(crate) fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of the twin inode, which exists afterwards.
    pub(crate) fn twin(&self, mode: u32) -> &CStr {
        drop(self.open_twin(mode));
        &self.twin
    }

    /// Syncs the live file with `real`, then makes what changed before the call durable.
    pub(crate) fn sync(&self, fd: RawFd, real: impl FnOnce() -> Outcome) -> Outcome {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = {
            let mut dirty = self.dirty();
            let stat = raw::stat(fd)?;
            if stat.size != dirty.size() {
                // Something wrote past the shim (a mapping, io_uring). The kernel would sync that too.
                dirty.all_changed(stat.size);
            }
            dirty.take()
        };
        let answer = real();
        if answer.is_err() {
            self.dirty().restore(changed);
            return answer;
        }
        self.copy(fd, &changed);
        answer
    }

    /// Forgets what changed without making it durable, as the kernel does when write-back fails.
    pub(crate) fn drop_changes(&self) {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.dirty().take();
    }

    fn copy(&self, fd: RawFd, changed: &Dirty) {
        let ranges = changed.ranges();
        let mode = raw::stat(fd).map_or(0o600, |stat| stat.mode);
        let twin = self.open_twin(mode);
        if let Some(shortest) = changed.shortest() {
            let held = durable_size(&twin);
            if shortest < held {
                check("cut the twin", raw::set_length(&twin, shortest));
            }
        }
        if !ranges.is_empty() {
            let live = open_live(fd);
            for range in ranges {
                copy_range(&live, &twin, range);
            }
        }
        if durable_size(&twin) != changed.size() {
            check("size the twin", raw::set_length(&twin, changed.size()));
        }
    }

    /// Makes one range durable now. The caller holds `dirty`, so the bytes are those of a finished write.
    pub(crate) fn leak(&self, fd: RawFd, range: Range<u64>) {
        let mode = raw::stat(fd).map_or(0o600, |stat| stat.mode);
        copy_range(&open_live(fd), &self.open_twin(mode), range);
    }

    fn open_twin(&self, mode: u32) -> OwnedFd {
        let flags = libc::O_RDWR | libc::O_CREAT;
        match raw::open(libc::AT_FDCWD, &self.twin, flags, mode & 0o777 | 0o600) {
            Ok(fd) => fd,
            Err(errno) => give_up("open a twin file", errno),
        }
    }
}

fn durable_size(twin: &OwnedFd) -> u64 {
    match raw::stat(std::os::fd::AsRawFd::as_raw_fd(twin)) {
        Ok(stat) => stat.size,
        Err(errno) => give_up("look at a twin file", errno),
    }
}

/// A second descriptor, since the caller's may be write-only. Works for unlinked files too.
fn open_live(fd: RawFd) -> OwnedFd {
    match raw::open(libc::AT_FDCWD, &by_number(fd), libc::O_RDONLY, 0) {
        Ok(fd) => fd,
        Err(errno) => give_up("open a watched file for reading", errno),
    }
}

/// The path by which `fd` can be opened once more.
pub(crate) fn by_number(fd: c_int) -> CString {
    CString::new(format!("/proc/self/fd/{fd}")).expect("the text holds no NUL")
}

fn copy_range(live: &OwnedFd, twin: &OwnedFd, range: Range<u64>) {
    let span = range.end.saturating_sub(range.start);
    let mut buffer = vec![0_u8; usize::try_from(span).map_or(CHUNK, |span| span.min(CHUNK))];
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from(range.end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = check("read a watched file", raw::read_at(live, &mut buffer[..want], at));
        if got == 0 {
            // Cut by another thread since the sync began: its bytes may go either way.
            return;
        }
        let mut done = 0;
        while done < got {
            let place = at + done as u64;
            match check("write a twin file", raw::write_at(twin, &buffer[done..got], place)) {
                0 => give_up("write a twin file", Errno(libc::EIO)),
                count => done += count,
            }
        }
        at += got as u64;
    }
}

fn check(what: &str, outcome: Outcome) -> usize {
    match outcome {
        Ok(count) => count,
        Err(errno) => give_up(what, errno),
    }
}
