//! System calls behind safe functions. Errors are the error number, since callers set `errno` from it.

use std::ffi::{CStr, c_int, c_long};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

/// The sixth argument of a call that [`super::trap`] must let through. No call that it catches has six.
pub(super) const PASS: u32 = 0x7077_6363;

/// What a system call that returns a count says.
pub(crate) type Outcome = Result<usize, Errno>;

/// What the shim needs to know about a file or directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    /// No other name refers to it: removing this one frees the inode.
    pub(crate) last_link: bool,
}

impl Stat {
    pub(crate) fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    fn from_kernel(stat: &libc::stat) -> Stat {
        Stat {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            last_link: stat.st_nlink <= 1,
        }
    }
}

/// Turns the return value of `libc::syscall` into a result.
pub(super) fn outcome(returned: c_long) -> Outcome {
    usize::try_from(returned).map_err(|_| last_error())
}

pub(super) fn last_error() -> Errno {
    // SAFETY: the location of errno is valid for the calling thread.
    Errno(unsafe { *libc::__errno_location() })
}

pub(super) fn set_errno(errno: Errno) {
    // SAFETY: the location of errno is valid for the calling thread.
    unsafe { *libc::__errno_location() = errno.0 };
}

pub(crate) fn open(dir: RawFd, path: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = c_long::from(flags | libc::O_CLOEXEC);
    // SAFETY: `path` ends with a NUL and outlives the call.
    let returned = unsafe {
        libc::syscall(libc::SYS_openat, c_long::from(dir), path.as_ptr(), flags, c_long::from(mode))
    };
    let fd = outcome(returned)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno(libc::EBADF))?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn stat(fd: RawFd) -> Result<Stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the buffer has the size the kernel writes; all zero bytes are a valid `stat`.
    outcome(unsafe { libc::syscall(libc::SYS_fstat, c_long::from(fd), stat.as_mut_ptr()) })?;
    // SAFETY: initialised above.
    Ok(Stat::from_kernel(unsafe { stat.assume_init_ref() }))
}

/// Looks at `path` itself, not at what a symbolic link points to.
pub(crate) fn stat_at(dir: RawFd, path: &CStr) -> Result<Stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    let flags = c_long::from(libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: `path` ends with a NUL; the buffer has the size the kernel writes.
    let returned = unsafe {
        libc::syscall(libc::SYS_newfstatat, c_long::from(dir), path.as_ptr(), stat.as_mut_ptr(), flags)
    };
    outcome(returned)?;
    // SAFETY: zeroed above, which is a valid `stat`, and filled by the kernel.
    Ok(Stat::from_kernel(unsafe { stat.assume_init_ref() }))
}

pub(crate) fn read_at(fd: &OwnedFd, buffer: &mut [u8], at: u64) -> Outcome {
    let fd = c_long::from(fd.as_raw_fd());
    // SAFETY: pointer and length come from one mutable slice.
    outcome(unsafe { libc::syscall(libc::SYS_pread64, fd, buffer.as_mut_ptr(), buffer.len(), at) })
}

pub(crate) fn write_at(fd: &OwnedFd, bytes: &[u8], at: u64) -> Outcome {
    let fd = c_long::from(fd.as_raw_fd());
    // SAFETY: pointer and length come from one slice.
    outcome(unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes.as_ptr(), bytes.len(), at) })
}

pub(crate) fn set_length(fd: &OwnedFd, length: u64) -> Outcome {
    // SAFETY: no pointers.
    outcome(unsafe { libc::syscall(libc::SYS_ftruncate, c_long::from(fd.as_raw_fd()), length) })
}

/// The file position of the descriptor.
pub(crate) fn position(fd: RawFd) -> Result<u64, Errno> {
    let zero: c_long = 0;
    // SAFETY: no pointers.
    let returned =
        unsafe { libc::syscall(libc::SYS_lseek, c_long::from(fd), zero, c_long::from(libc::SEEK_CUR)) };
    Ok(outcome(returned)? as u64)
}

/// The status flags of the descriptor (`O_APPEND`, `O_DSYNC` ..), 0 if unknown.
pub(crate) fn status_flags(fd: RawFd) -> c_int {
    let zero: c_long = 0;
    // SAFETY: no pointers.
    let returned =
        unsafe { libc::syscall(libc::SYS_fcntl, c_long::from(fd), c_long::from(libc::F_GETFL), zero) };
    c_int::try_from(returned).unwrap_or(0).max(0)
}

pub(crate) fn link(from: &CStr, to: &CStr) -> Outcome {
    let here = c_long::from(libc::AT_FDCWD);
    let zero: c_long = 0;
    // SAFETY: both paths end with a NUL and outlive the call.
    outcome(unsafe { libc::syscall(libc::SYS_linkat, here, from.as_ptr(), here, to.as_ptr(), zero) })
}

pub(crate) fn symbolic_link(content: &CStr, at: &CStr) -> Outcome {
    let here = c_long::from(libc::AT_FDCWD);
    // SAFETY: both paths end with a NUL and outlive the call.
    outcome(unsafe { libc::syscall(libc::SYS_symlinkat, content.as_ptr(), here, at.as_ptr()) })
}

pub(crate) fn rename(from: &CStr, to: &CStr) -> Outcome {
    let here = c_long::from(libc::AT_FDCWD);
    let zero: c_long = 0;
    // SAFETY: both paths end with a NUL and outlive the call.
    outcome(unsafe { libc::syscall(libc::SYS_renameat2, here, from.as_ptr(), here, to.as_ptr(), zero) })
}

/// Removes a file, or with `AT_REMOVEDIR` in `flags` an empty directory.
pub(crate) fn remove(path: &CStr, flags: c_int) -> Outcome {
    let here = c_long::from(libc::AT_FDCWD);
    // SAFETY: the path ends with a NUL and outlives the call.
    outcome(unsafe { libc::syscall(libc::SYS_unlinkat, here, path.as_ptr(), c_long::from(flags)) })
}

pub(crate) fn make_dir(path: &CStr, mode: u32) -> Outcome {
    let here = c_long::from(libc::AT_FDCWD);
    // SAFETY: the path ends with a NUL and outlives the call.
    outcome(unsafe { libc::syscall(libc::SYS_mkdirat, here, path.as_ptr(), c_long::from(mode)) })
}

/// Fills `buffer` with directory entries in the kernel's `linux_dirent64` layout; 0 at the end.
pub(crate) fn directory_entries(fd: &OwnedFd, buffer: &mut [u8]) -> Outcome {
    let fd = c_long::from(fd.as_raw_fd());
    // SAFETY: pointer and length come from one mutable slice.
    outcome(unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) })
}

pub(crate) fn read_link(path: &CStr, buffer: &mut [u8]) -> Outcome {
    let here = c_long::from(libc::AT_FDCWD);
    let (to, room) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the path ends with a NUL; pointer and length come from one mutable slice.
    outcome(unsafe { libc::syscall(libc::SYS_readlinkat, here, path.as_ptr(), to, room) })
}

/// Takes the exclusive lock of an open file without waiting. It ends with the process.
pub(crate) fn lock(fd: &OwnedFd) -> Outcome {
    let how = c_long::from(libc::LOCK_EX | libc::LOCK_NB);
    // SAFETY: no pointers.
    outcome(unsafe { libc::syscall(libc::SYS_flock, c_long::from(fd.as_raw_fd()), how) })
}

/// The first eight bytes of an open file as a number in this process's memory, for its whole life. Whoever
/// changes the file changes the number.
pub(crate) fn shared_number(fd: &OwnedFd) -> Result<&'static AtomicU64, Errno> {
    let zero: c_long = 0;
    let (protection, flags) = (c_long::from(libc::PROT_READ), c_long::from(libc::MAP_SHARED));
    let (fd, length) = (c_long::from(fd.as_raw_fd()), size_of::<u64>());
    // SAFETY: the kernel chooses the place; nothing else lies there.
    let returned = unsafe { libc::syscall(libc::SYS_mmap, zero, length, protection, flags, fd, zero) };
    let place = outcome(returned)? as *const AtomicU64;
    // SAFETY: mapped just now, aligned to a page, and never unmapped. All uses are atomic loads.
    Ok(unsafe { &*place })
}

/// Waits.
pub(crate) fn wait(time: Duration) {
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    let mut left = libc::timespec { tv_sec: seconds, tv_nsec: c_long::from(time.subsec_nanos()) };
    let left = &raw mut left;
    // SAFETY: both pointers are to the same live value, which the kernel allows.
    while outcome(unsafe { libc::syscall(libc::SYS_nanosleep, left, left) }) == Err(Errno(libc::EINTR)) {}
}

/// Ends the process as `kill -9` does.
pub(crate) fn die() -> ! {
    // SAFETY: no pointers.
    unsafe {
        let process = libc::syscall(libc::SYS_getpid);
        libc::syscall(libc::SYS_kill, process, c_long::from(libc::SIGKILL));
    }
    loop {
        wait(Duration::from_secs(1));
    }
}

/// Writes `text` to standard error and ends the process at once, without destructors.
pub(crate) fn exit_with(text: &str, code: c_int) -> ! {
    let stderr = c_long::from(libc::STDERR_FILENO);
    // SAFETY: pointer and length come from one string.
    unsafe { libc::syscall(libc::SYS_write, stderr, text.as_ptr(), text.len()) };
    // SAFETY: ending the process has no precondition.
    unsafe { libc::_exit(code) }
}
