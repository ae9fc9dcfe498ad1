//! The shim proper: which calls concern a watched inode, and the order of the real call and the bookkeeping.
//!
//! Locks, in this order: `names` (held across each call that creates, removes or renames in a watched
//! directory, and across the sync of one), a file's own two (see [`crate::file`]), `live` (short).
//! A descriptor that is no regular file or directory of the watched file system takes no lock at all, so
//! that pipes and sockets may be written from signal handlers and after `fork`.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_uint};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::dirty::Dirty;
use crate::edge::raw::{self, Errno, Outcome, Stat};
use crate::file::{File, by_number};
use crate::names::{self, Entry, Id, Names};
use crate::settings::{Mode, Settings};
use crate::space::Space;

/// Exit code of a process in which the simulation cannot be kept up.
const CANNOT_SIMULATE: c_int = 97;
const SECTOR: u64 = 512;

static SHIM: OnceLock<Shim> = OnceLock::new();

/// The shim, once it is loaded.
pub(crate) fn get() -> Option<&'static Shim> {
    SHIM.get()
}

pub(crate) fn install(shim: Shim) {
    if SHIM.set(shim).is_err() {
        refuse("loaded twice");
    }
}

/// Ends the process: a twin that is wrong is worse than a test that fails.
pub(crate) fn give_up(what: &str, Errno(number): Errno) -> ! {
    let error = std::io::Error::from_raw_os_error(number);
    raw::exit_with(&format!("powercut: cannot {what}: {error}\n"), CANNOT_SIMULATE)
}

/// As [`give_up`], for what is not a system error.
pub(crate) fn refuse(why: &str) -> ! {
    raw::exit_with(&format!("powercut: {why}\n"), CANNOT_SIMULATE)
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Arc<File>),
    Dir(Id),
}

/// The state of a process that is watched.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) settings: Settings,
    /// The pretended disk, if there is one.
    pub(crate) space: Option<Space>,
    /// Absolute path of the watched directory, without a slash at the end.
    pub(crate) root: Vec<u8>,
    pub(crate) store: Vec<u8>,
    pub(crate) dev: u64,
    live: RwLock<HashMap<u64, Node>>,
    names: Mutex<Names>,
    log_syncs: AtomicU64,
    leaks: AtomicU64,
    /// Keeps the lock of the store for the life of the process.
    _lock: OwnedFd,
}

/// A name in a watched directory.
pub(crate) struct Spot {
    pub(crate) dir: OwnedFd,
    pub(crate) name: CString,
}

impl Spot {
    pub(crate) fn stat(&self) -> Option<Stat> {
        raw::stat_at(self.dir.as_raw_fd(), &self.name).ok()
    }
}

impl Shim {
    /// `root` is a directory and the only one known at first.
    pub(crate) fn new(
        settings: Settings,
        space: Option<Space>,
        root: (Vec<u8>, Stat),
        (store, lock): (Vec<u8>, OwnedFd),
    ) -> Shim {
        let (root, stat) = root;
        let twin = settings.twin.as_os_str().as_encoded_bytes().to_vec();
        let mut names = Names::new(twin, store.clone());
        let id = names.add_root();
        Shim {
            settings,
            space,
            root,
            store,
            dev: stat.dev,
            live: RwLock::new(HashMap::from([(stat.ino, Node::Dir(id))])),
            names: Mutex::new(names),
            log_syncs: AtomicU64::new(0),
            leaks: AtomicU64::new(0),
            _lock: lock,
        }
    }

    // === Data ===

    /// A call that writes to `fd`, at `at` or at the file position. `flags` are those of `pwritev2`.
    pub(crate) fn write(
        &self,
        fd: RawFd,
        at: Option<u64>,
        flags: c_int,
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let Some(file) = self.file(fd) else { return real() };
        let status = raw::status_flags(fd);
        let mut dirty = file.dirty();
        let count = real()?;
        let bytes = count as u64;
        let end = match at {
            // Linux appends even where the call names a place.
            _ if status & libc::O_APPEND != 0 => raw::stat(fd)?.size,
            Some(at) => at + bytes,
            None => raw::position(fd)?,
        };
        let range = end.saturating_sub(bytes)..end;
        dirty.wrote(range.clone());
        if let Some(seed) = self.settings.torn {
            self.leak(seed, &file, fd, range);
        }
        drop(dirty);
        if status & libc::O_DSYNC != 0 || flags & (libc::RWF_DSYNC | libc::RWF_SYNC) != 0 {
            self.sync_file(&file, fd, || Ok(0))?;
        }
        Ok(count)
    }

    pub(crate) fn truncate(&self, fd: RawFd, length: u64, real: impl FnOnce() -> Outcome) -> Outcome {
        let Some(file) = self.file(fd) else { return real() };
        let mut dirty = file.dirty();
        let answer = real()?;
        dirty.cut_or_extended(length);
        Ok(answer)
    }

    pub(crate) fn allocate(
        &self,
        fd: RawFd,
        mode: c_int,
        at: u64,
        length: u64,
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let Some(file) = self.file(fd) else { return real() };
        let mut dirty = file.dirty();
        let answer = real()?;
        if mode == libc::FALLOC_FL_KEEP_SIZE {
            return Ok(answer);
        }
        let size = raw::stat(fd)?.size;
        if mode == 0 {
            if size > dirty.size() {
                dirty.cut_or_extended(size);
            }
        } else if mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0 {
            dirty.all_changed(size);
        } else {
            // A hole or zeroes: they reach the twin as zeroes.
            dirty.wrote(at.min(size)..at.saturating_add(length).min(size));
            dirty.cut_or_extended(size);
        }
        Ok(answer)
    }

    /// `fsync` and `fdatasync`.
    pub(crate) fn sync(&self, fd: RawFd, real: impl FnOnce() -> Outcome) -> Outcome {
        let Ok(stat) = raw::stat(fd) else { return real() };
        if stat.dev != self.dev || !(stat.is_file() || stat.is_dir()) {
            return real();
        }
        let node = self.node(&stat).or_else(|| self.adopt(fd, &stat));
        match node {
            None => real(),
            Some(Node::File(file)) => self.sync_file(&file, fd, real),
            Some(Node::Dir(id)) => {
                if self.settings.mode == Mode::Lie {
                    return Ok(0);
                }
                let answer = real()?;
                let mut names = self.names();
                self.sync_dir(&mut names, id, fd);
                Ok(answer)
            }
        }
    }

    fn sync_file(&self, file: &File, fd: RawFd, real: impl FnOnce() -> Outcome) -> Outcome {
        if let Some(number) = self.settings.fail_sync
            && self.path_of(fd).ends_with(b".log")
            && self.log_syncs.fetch_add(1, Ordering::Relaxed) + 1 == number
        {
            file.drop_changes();
            return Err(Errno(libc::EIO));
        }
        match self.settings.mode {
            Mode::Lie => Ok(0),
            Mode::LieLogs if self.path_of(fd).ends_with(b".log") => Ok(0),
            Mode::Strict | Mode::LieLogs => file.sync(fd, real),
        }
    }

    /// Lets about one in four sectors of a write reach the disk at once.
    fn leak(&self, seed: u64, file: &File, fd: RawFd, range: std::ops::Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let end = (at - at % SECTOR + SECTOR).min(range.end);
            let turn = self.leaks.fetch_add(1, Ordering::Relaxed);
            if mix(seed ^ mix(turn)).is_multiple_of(4) {
                file.leak(fd, at..end);
            }
            at = end;
        }
    }

    // === Names ===

    pub(crate) fn open(
        &self,
        dir: RawFd,
        path: &CStr,
        flags: c_int,
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let temporary = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        if temporary || flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
            return real();
        }
        let Some(spot) = self.spot(dir, path) else { return real() };
        let mut names = self.names();
        let before = spot.stat();
        let Some(before) = before else {
            let answer = real()?;
            if let Some(stat) = spot.stat().filter(Stat::is_file) {
                self.created(&mut names, &stat);
            }
            return Ok(answer);
        };
        match self.node(&before) {
            Some(Node::File(file)) if flags & libc::O_TRUNC != 0 => {
                let mut dirty = file.dirty();
                let answer = real()?;
                dirty.cut_or_extended(0);
                Ok(answer)
            }
            _ => real(),
        }
    }

    pub(crate) fn make_dir(&self, dir: RawFd, path: &CStr, real: impl FnOnce() -> Outcome) -> Outcome {
        let Some(spot) = self.spot(dir, path) else { return real() };
        let mut names = self.names();
        let answer = real()?;
        if let Some(stat) = spot.stat() {
            self.created(&mut names, &stat);
        }
        Ok(answer)
    }

    /// `unlink` and `rmdir`.
    pub(crate) fn unlink(&self, dir: RawFd, path: &CStr, real: impl FnOnce() -> Outcome) -> Outcome {
        let Some(spot) = self.spot(dir, path) else { return real() };
        let mut names = self.names();
        let before = spot.stat();
        let answer = real()?;
        if let Some(stat) = before {
            self.name_removed(&mut names, &stat);
        }
        Ok(answer)
    }

    pub(crate) fn rename(
        &self,
        from: (RawFd, &CStr),
        to: (RawFd, &CStr),
        flags: c_uint,
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let target = self.spot(to.0, to.1);
        if target.is_none() && self.spot(from.0, from.1).is_none() {
            return real();
        }
        let mut names = self.names();
        let source = raw::stat_at(from.0, from.1).ok();
        let replaced = raw::stat_at(to.0, to.1).ok();
        let answer = real()?;
        if let (Some(source), Some(replaced)) = (source, replaced)
            && flags & libc::RENAME_EXCHANGE == 0
            && source.ino != replaced.ino
        {
            self.name_removed(&mut names, &replaced);
        }
        Ok(answer)
    }

    /// Makes the present names of a directory durable.
    pub(crate) fn sync_dir(&self, names: &mut Names, id: Id, fd: RawFd) {
        let entries = match list(fd) {
            Ok(entries) => entries,
            Err(errno) => give_up("list a watched directory", errno),
        };
        let mut live = Vec::with_capacity(entries.len());
        for name in entries {
            let Ok(path) = CString::new(name.as_slice()) else { continue };
            let Ok(stat) = raw::stat_at(fd, &path) else { continue };
            if stat.dev != self.dev || !(stat.is_file() || stat.is_dir()) {
                continue;
            }
            let node = self.node(&stat).unwrap_or_else(|| self.register(names, &stat));
            live.push(match node {
                Node::File(file) => Entry { name, id: file.id, file: Some(file.twin(stat.mode).to_owned()) },
                Node::Dir(id) => Entry { name, id, file: None },
            });
        }
        names.sync(id, &live);
    }

    /// A new inode has a name: whatever was known under its number is about an older one.
    fn created(&self, names: &mut Names, stat: &Stat) {
        let older = self.live_mut().remove(&stat.ino);
        self.forget(names, older, stat.ino);
        self.register(names, stat);
        if stat.is_file()
            && let Some(Node::File(file)) = self.node(stat)
        {
            // New and empty: from here every write is seen.
            *file.dirty() = Dirty::default();
        }
    }

    fn name_removed(&self, names: &mut Names, stat: &Stat) {
        if stat.dev != self.dev || !(stat.last_link || stat.is_dir()) {
            return;
        }
        let node = self.live_mut().remove(&stat.ino);
        self.forget(names, node, stat.ino);
    }

    fn forget(&self, names: &mut Names, node: Option<Node>, ino: u64) {
        match node {
            Some(Node::Dir(id)) => names.removed(id),
            // Durable names keep the twin inode alive; no further name can be given to it.
            _ => names::gone("remove a twin inode", raw::remove(&names::file_in(&self.store, ino), 0)),
        }
    }

    /// Starts to watch an inode of which nothing is durable.
    pub(crate) fn register(&self, names: &mut Names, stat: &Stat) -> Node {
        let node = if stat.is_dir() {
            Node::Dir(names.add_dir(stat.ino))
        } else {
            let twin = names::file_in(&self.store, stat.ino);
            Node::File(Arc::new(File::new(names.next_id(), twin, Dirty::whole(stat.size))))
        };
        self.live_mut().insert(stat.ino, node.clone());
        node
    }

    /// Starts to watch an inode that came below the directory without the shim's notice.
    fn adopt(&self, fd: RawFd, stat: &Stat) -> Option<Node> {
        let path = self.path_of(fd);
        let inside = path.strip_prefix(self.root.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
        if !inside {
            return None;
        }
        let mut names = self.names();
        // Another thread may have been first.
        Some(self.node(stat).unwrap_or_else(|| self.register(&mut names, stat)))
    }

    // === Look-ups ===

    fn file(&self, fd: RawFd) -> Option<Arc<File>> {
        let stat = raw::stat(fd).ok().filter(Stat::is_file)?;
        match self.node(&stat)? {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    pub(crate) fn node(&self, stat: &Stat) -> Option<Node> {
        if stat.dev != self.dev {
            return None;
        }
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(&stat.ino).filter(|node| matches!(node, Node::Dir(_)) == stat.is_dir()).cloned()
    }

    pub(crate) fn live_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u64, Node>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last component of `path`, if its directory is watched.
    pub(crate) fn spot(&self, dir: RawFd, path: &CStr) -> Option<Spot> {
        let path = path.to_bytes();
        let end = path.iter().rposition(|&byte| byte != b'/')? + 1;
        let slash = path[..end].iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match slash {
            None => (&b"."[..], &path[..end]),
            Some(0) => (&b"/"[..], &path[1..end]),
            Some(slash) => (&path[..slash], &path[slash + 1..end]),
        };
        if name == b"." || name == b".." {
            return None;
        }
        let parent = CString::new(parent).ok()?;
        let dir = raw::open(dir, &parent, libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
        let stat = raw::stat(dir.as_raw_fd()).ok()?;
        self.node(&stat)?;
        Some(Spot { dir, name: CString::new(name).ok()? })
    }

    pub(crate) fn path_of(&self, fd: RawFd) -> Vec<u8> {
        let mut buffer = vec![0_u8; 4096];
        let length = raw::read_link(&by_number(fd), &mut buffer).unwrap_or(0);
        buffer.truncate(length);
        buffer
    }
}

/// Names in a directory, without `.` and `..`. Uses a descriptor of its own, so that the caller's position
/// stays.
pub(crate) fn list(fd: RawFd) -> Result<Vec<Vec<u8>>, Errno> {
    const HEADER: usize = 19;
    let dir = raw::open(libc::AT_FDCWD, &by_number(fd), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; 32 * 1024];
    loop {
        let filled = raw::directory_entries(&dir, &mut buffer)?;
        if filled == 0 {
            return Ok(found);
        }
        let mut rest = &buffer[..filled];
        // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name with NUL.
        while rest.len() > HEADER {
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]])).min(rest.len());
            let name =
                CStr::from_bytes_until_nul(&rest[HEADER..length]).map(CStr::to_bytes).unwrap_or_default();
            if !matches!(name, b"" | b"." | b"..") {
                found.push(name.to_vec());
            }
            rest = &rest[length..];
        }
    }
}

/// A well-mixed function of a number (SplitMix64).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
