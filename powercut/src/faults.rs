//! What the environment orders to go wrong: a death at a chosen call, a disk that is full, a sync that is
//! slow. A layer between the symbols and the shim; without orders it only passes on.

use std::ffi::{CStr, c_int, c_uint};
use std::os::fd::{AsRawFd, RawFd};

use crate::edge::raw::{self, Outcome, Stat};
use crate::kill::Operation;
use crate::shim::{Shim, Spot};
use crate::space::{self, Space};

/// How much of a write must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// The call may write less than asked.
    Part,
    /// The call is not taken apart: what does not fit as a whole fails as a whole.
    All,
}

impl Shim {
    /// As [`Shim::write`]; `real` is told how many of the `count` bytes to write.
    pub(crate) fn try_write(
        &self,
        fd: RawFd,
        (at, flags): (Option<u64>, c_int),
        (count, fit): (usize, Fit),
        real: impl FnOnce(usize) -> Outcome,
    ) -> Outcome {
        self.around(
            Operation::Write,
            || self.below(fd, None),
            || {
                let fits = self.room(fd, at, count, fit)?;
                self.write(fd, at, flags, || real(fits))
            },
        )
    }

    pub(crate) fn try_truncate(&self, fd: RawFd, length: u64, real: impl FnOnce() -> Outcome) -> Outcome {
        self.around(
            Operation::Truncate,
            || self.below(fd, None),
            || {
                let answer = self.truncate(fd, length, real)?;
                if let Some((space, stat)) = self.charged(fd) {
                    space.cut(stat.ino, length);
                }
                Ok(answer)
            },
        )
    }

    pub(crate) fn try_allocate(
        &self,
        fd: RawFd,
        mode: c_int,
        (at, length): (u64, u64),
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        if let Some((space, stat)) = self.charged(fd).filter(|_| space::reserves(mode)) {
            space.take_all(stat.ino, at.saturating_add(length))?;
        }
        self.allocate(fd, mode, at, length, real)
    }

    pub(crate) fn try_sync(&self, fd: RawFd, real: impl FnOnce() -> Outcome) -> Outcome {
        self.around(
            Operation::Sync,
            || self.below(fd, None),
            || {
                if let Some(delay) = self.settings.sync_delay
                    && self.below(fd, None).is_some()
                {
                    raw::wait(delay);
                }
                self.sync(fd, real)
            },
        )
    }

    pub(crate) fn try_open(
        &self,
        dir: RawFd,
        path: &CStr,
        flags: c_int,
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let ordered = self.settings.kill.is_some() || self.space.is_some();
        if !ordered || flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
            return self.open(dir, path, flags, real);
        }
        let Some(spot) = self.spot(dir, path) else { return real() };
        match spot.stat() {
            None if flags & libc::O_CREAT != 0 => {
                self.make(Operation::Create, &spot, || self.open(dir, path, flags, real))
            }
            before => {
                let answer = self.open(dir, path, flags, real)?;
                if let (Some(space), Some(before)) = (&self.space, before)
                    && flags & libc::O_TRUNC != 0
                {
                    space.cut(before.ino, 0);
                }
                Ok(answer)
            }
        }
    }

    pub(crate) fn try_make_dir(&self, dir: RawFd, path: &CStr, real: impl FnOnce() -> Outcome) -> Outcome {
        match self.spot(dir, path) {
            None => real(),
            Some(spot) => self.make(Operation::Mkdir, &spot, || self.make_dir(dir, path, real)),
        }
    }

    pub(crate) fn try_unlink(&self, dir: RawFd, path: &CStr, real: impl FnOnce() -> Outcome) -> Outcome {
        let Some(spot) = self.spot(dir, path) else { return real() };
        self.around(
            Operation::Unlink,
            || self.below_spot(&spot),
            || {
                let before = spot.stat().filter(|stat| stat.last_link || stat.is_dir());
                let answer = self.unlink(dir, path, real)?;
                self.freed(before);
                Ok(answer)
            },
        )
    }

    pub(crate) fn try_rename(
        &self,
        from: (RawFd, &CStr),
        to: (RawFd, &CStr),
        flags: c_uint,
        real: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let spot = self.spot(to.0, to.1);
        self.around(
            Operation::Rename,
            || self.below_spot(spot.as_ref()?),
            || {
                let replaced = spot.as_ref().and_then(Spot::stat).filter(|stat| stat.last_link);
                let answer = self.rename(from, to, flags, real)?;
                if flags & libc::RENAME_EXCHANGE == 0 {
                    self.freed(replaced);
                }
                Ok(answer)
            },
        )
    }

    /// A second name needs no bookkeeping: the sync of its directory finds it.
    pub(crate) fn try_link(&self, dir: RawFd, path: &CStr, real: impl FnOnce() -> Outcome) -> Outcome {
        self.around(Operation::Link, || self.below_spot(&self.spot(dir, path)?), real)
    }

    /// Size and free space of the pretended disk in blocks, if there is one and `fd` lies on it.
    pub(crate) fn blocks(&self, fd: RawFd) -> Option<(u64, u64)> {
        let space = self.space.as_ref()?;
        let path = self.path_of(fd);
        let inside = path.strip_prefix(self.root.as_slice())?;
        (inside.is_empty() || inside.starts_with(b"/")).then(|| space.blocks())
    }

    /// A call that makes a file or directory.
    fn make(&self, operation: Operation, spot: &Spot, act: impl FnOnce() -> Outcome) -> Outcome {
        self.around(
            operation,
            || self.below_spot(spot),
            || {
                if let Some(space) = &self.space {
                    space.has_block()?;
                }
                let answer = act()?;
                if let (Some(space), Some(stat)) = (&self.space, spot.stat()) {
                    space.created(stat.ino);
                }
                Ok(answer)
            },
        )
    }

    /// Makes a call, and dies before or after it if those are the orders. `path` is the path below the watched
    /// directory that the call is about, if it lies there.
    fn around(
        &self,
        operation: Operation,
        path: impl FnOnce() -> Option<Vec<u8>>,
        act: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let Some(rule) = self.settings.kill.as_ref().filter(|rule| rule.operation == operation) else {
            return act();
        };
        let strikes = path().is_some_and(|path| rule.strikes(&path));
        if strikes && rule.before {
            raw::die();
        }
        let answer = act();
        if strikes {
            raw::die();
        }
        answer
    }

    /// How much of a write fits on the disk.
    fn room(&self, fd: RawFd, at: Option<u64>, count: usize, fit: Fit) -> Outcome {
        let Some((space, stat)) = self.charged(fd) else { return Ok(count) };
        let start = match at {
            _ if raw::status_flags(fd) & libc::O_APPEND != 0 => stat.size,
            Some(at) => at,
            None => raw::position(fd)?,
        };
        match fit {
            Fit::Part => space.take(stat.ino, start, count),
            Fit::All => space.take_all(stat.ino, start.saturating_add(count as u64)).map(|()| count),
        }
    }

    /// The disk and the file, if the descriptor is a file on it.
    fn charged(&self, fd: RawFd) -> Option<(&Space, Stat)> {
        let space = self.space.as_ref()?;
        let stat = raw::stat(fd).ok().filter(Stat::is_file)?;
        self.node(&stat)?;
        Some((space, stat))
    }

    fn freed(&self, stat: Option<Stat>) {
        if let (Some(space), Some(stat)) = (&self.space, stat) {
            space.removed(stat.ino);
        }
    }

    fn below_spot(&self, spot: &Spot) -> Option<Vec<u8>> {
        self.below(spot.dir.as_raw_fd(), Some(&spot.name))
    }

    /// The path of `fd`, or of `name` in it, below the watched directory.
    fn below(&self, fd: RawFd, name: Option<&CStr>) -> Option<Vec<u8>> {
        let mut path = self.path_of(fd);
        if let Some(name) = name {
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
        }
        let below = path.strip_prefix(self.root.as_slice())?.strip_prefix(b"/")?;
        Some(below.to_vec())
    }
}
