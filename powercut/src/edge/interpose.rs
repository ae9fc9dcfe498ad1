//! The symbols that stand before glibc's. Each makes the same system call as glibc's function would, and lets
//! the shim look on. Before the library is initialised, and in a process without `POWERCUT_DIR`, they only
//! make the call.
//!
//! `open`, `openat` and their kin are variadic in C. On x86-64 and AArch64 Linux a variadic integer argument
//! travels in the same register as a named one, so a fixed signature is compatible; the mode is rubbish when
//! the caller passed none, and the kernel ignores it then.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};

use libc::{off_t, size_t, ssize_t};

use super::raw::{Errno, Outcome, PASS, outcome, set_errno};
use crate::faults::Fit;
use crate::shim::{self, Shim};

/// Runs before `main`, and before the initialisers of the program.
extern "C" fn at_load() {
    crate::load::load();
}

// SAFETY: the section holds pointers to functions that take no arguments; `at_load` is one.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

const HERE: c_int = libc::AT_FDCWD;

/// Makes a system call and returns its [`Outcome`].
macro_rules! call {
    ($number:ident $(, $argument:expr)*) => {
        // SAFETY: number and arguments are those the caller gave to the libc function of the same contract.
        outcome(unsafe { libc::syscall(libc::$number $(, $argument)*) })
    };
}

fn int(value: c_int) -> c_long {
    c_long::from(value)
}

/// Sets `errno` on failure, as every libc function here does.
fn answer(outcome: Outcome) -> ssize_t {
    match outcome {
        Ok(count) => ssize_t::try_from(count).unwrap_or(ssize_t::MAX),
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

fn answer_int(outcome: Outcome) -> c_int {
    c_int::try_from(answer(outcome)).unwrap_or(-1)
}

/// Borrows a path argument, or `None` for a null pointer, which the kernel refuses by itself.
///
/// # Safety
/// `path` is null or points to bytes that end with a NUL and live as long as the caller's call.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the contract of this function.
    if path.is_null() { None } else { Some(unsafe { CStr::from_ptr(path) }) }
}

/// The shim, if it watches and the path can be read.
///
/// # Safety
/// As [`text`].
unsafe fn watch<'a>(path: *const c_char) -> Option<(&'static Shim, &'a CStr)> {
    // SAFETY: the contract of this function.
    Some((shim::get()?, unsafe { text(path) }?))
}

/// # Safety
/// As `openat(2)`.
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let real = || call!(SYS_openat, int(dir), path, int(flags), c_long::from(mode));
    // SAFETY: a path argument of a libc function.
    answer_int(match unsafe { watch(path) } {
        Some((shim, path)) => shim.try_open(dir, path, flags, real),
        None => real(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(HERE, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(HERE, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(HERE, path, flags, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(HERE, path, flags, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(dir, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(dir, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(dir, path, flags, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(dir, path, flags, 0) }
}

const CREAT: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

#[unsafe(no_mangle)]
unsafe extern "C" fn creat(path: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(HERE, path, CREAT, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn creat64(path: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { open_at(HERE, path, CREAT, mode) }
}

/// `at` is `None` for a call that moves the file position; `flags` are those of `pwritev2`. `real` is told how
/// many of the `count` bytes to write.
fn written(
    fd: c_int,
    (at, flags): (Option<off_t>, c_int),
    (count, fit): (size_t, Fit),
    real: impl FnOnce(size_t) -> Outcome,
) -> ssize_t {
    let place = (at.and_then(|at| u64::try_from(at).ok()), flags);
    answer(match shim::get() {
        Some(shim) => shim.try_write(fd, place, (count, fit), real),
        None => real(count),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, from: *const c_void, count: size_t) -> ssize_t {
    written(fd, (None, 0), (count, Fit::Part), |count| call!(SYS_write, int(fd), from, count))
}

/// # Safety
/// As `pwrite(2)`.
unsafe fn write_at(fd: c_int, from: *const c_void, count: size_t, at: off_t) -> ssize_t {
    written(fd, (Some(at), 0), (count, Fit::Part), |count| call!(SYS_pwrite64, int(fd), from, count, at))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, from: *const c_void, count: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { write_at(fd, from, count, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, count: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { write_at(fd, from, count, at) }
}

/// How many bytes the vectors hold; 0 for what the kernel refuses by itself.
///
/// # Safety
/// `from` is null or points to `count` vectors.
unsafe fn length(from: *const c_void, count: c_int) -> size_t {
    let Ok(count) = usize::try_from(count) else { return 0 };
    if from.is_null() || count > 1024 {
        return 0;
    }
    // SAFETY: the contract of this function.
    let vectors = unsafe { std::slice::from_raw_parts(from.cast::<libc::iovec>(), count) };
    vectors.iter().fold(0, |sum, vector| sum.saturating_add(vector.iov_len))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, from: *const c_void, count: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    let bytes = unsafe { length(from, count) };
    written(fd, (None, 0), (bytes, Fit::All), |_| call!(SYS_writev, int(fd), from, int(count)))
}

/// # Safety
/// As `pwritev(2)`.
unsafe fn write_vectors_at(fd: c_int, from: *const c_void, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: the caller's contract.
    let bytes = unsafe { length(from, count) };
    let real = |_| call!(SYS_pwritev, int(fd), from, int(count), at, int(0));
    written(fd, (Some(at), 0), (bytes, Fit::All), real)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, from: *const c_void, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { write_vectors_at(fd, from, count, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(fd: c_int, from: *const c_void, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { write_vectors_at(fd, from, count, at) }
}

/// # Safety
/// As `pwritev2(2)`.
unsafe fn write_vectors_2(fd: c_int, from: *const c_void, count: c_int, at: off_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    let bytes = unsafe { length(from, count) };
    let place = (at != -1).then_some(at);
    let real = |_| call!(SYS_pwritev2, int(fd), from, int(count), at, int(0), int(flags));
    written(fd, (place, flags), (bytes, Fit::All), real)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev2(fd: c_int, from: *const c_void, n: c_int, at: off_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { write_vectors_2(fd, from, n, at, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64v2(
    fd: c_int,
    from: *const c_void,
    n: c_int,
    at: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { write_vectors_2(fd, from, n, at, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: null or a valid pointer, by the contract of copy_file_range.
    let at = unsafe { to_at.as_ref() }.copied();
    // More is asked for than there is (`fs::copy` does); the source's size is the measure then.
    let most = super::raw::stat(from).map_or(count, |stat| usize::try_from(stat.size).unwrap_or(count));
    let real = |count: size_t| {
        call!(SYS_copy_file_range, int(from), from_at, int(to), to_at, count, c_long::from(flags))
    };
    written(to, (at, 0), (count.min(most), Fit::Part), real)
}

/// # Safety
/// As `sendfile(2)`.
unsafe fn send_file(to: c_int, from: c_int, from_at: *mut off_t, count: size_t) -> ssize_t {
    let most = super::raw::stat(from).map_or(count, |stat| usize::try_from(stat.size).unwrap_or(count));
    let real = |count: size_t| call!(SYS_sendfile, int(to), int(from), from_at, count);
    written(to, (None, 0), (count.min(most), Fit::Part), real)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile(to: c_int, from: c_int, from_at: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { send_file(to, from, from_at, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile64(to: c_int, from: c_int, from_at: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { send_file(to, from, from_at, count) }
}

fn truncated(fd: c_int, length: off_t) -> c_int {
    let real = || call!(SYS_ftruncate, int(fd), length);
    answer_int(match (shim::get(), u64::try_from(length)) {
        (Some(shim), Ok(length)) => shim.try_truncate(fd, length, real),
        _ => real(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    truncated(fd, length)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    truncated(fd, length)
}

/// # Safety
/// As `truncate(2)`: opens the file, so that one path through the shim serves both.
unsafe fn truncate_path(path: *const c_char, length: off_t) -> c_int {
    // SAFETY: the caller's contract.
    let Some((_, path)) = (unsafe { watch(path) }) else {
        return answer_int(call!(SYS_truncate, path, length));
    };
    match super::raw::open(HERE, path, libc::O_WRONLY, 0) {
        Ok(fd) => truncated(std::os::fd::AsRawFd::as_raw_fd(&fd), length),
        Err(errno) => answer_int(Err(errno)),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn truncate(path: *const c_char, length: off_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { truncate_path(path, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn truncate64(path: *const c_char, length: off_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { truncate_path(path, length) }
}

/// The call carries [`PASS`]: it may come from the handler that answers it.
pub(super) fn allocated(fd: c_int, mode: c_int, at: off_t, length: off_t) -> Outcome {
    let real = || call!(SYS_fallocate, int(fd), int(mode), at, length, int(0), c_long::from(PASS));
    match (shim::get(), u64::try_from(at), u64::try_from(length)) {
        (Some(shim), Ok(at), Ok(length)) => shim.try_allocate(fd, mode, (at, length), real),
        _ => real(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, at: off_t, length: off_t) -> c_int {
    answer_int(allocated(fd, mode, at, length))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, at: off_t, length: off_t) -> c_int {
    answer_int(allocated(fd, mode, at, length))
}

/// Returns the error number instead of setting it, as POSIX says. Without glibc's emulation by writes.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_fallocate(fd: c_int, at: off_t, length: off_t) -> c_int {
    allocated(fd, 0, at, length).err().map_or(0, |Errno(number)| number)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_fallocate64(fd: c_int, at: off_t, length: off_t) -> c_int {
    allocated(fd, 0, at, length).err().map_or(0, |Errno(number)| number)
}

fn synced(fd: c_int, real: impl FnOnce() -> Outcome) -> c_int {
    answer_int(match shim::get() {
        Some(shim) => shim.try_sync(fd, real),
        None => real(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, || call!(SYS_fsync, int(fd)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, || call!(SYS_fdatasync, int(fd)))
}

/// # Safety
/// As `renameat2(2)`.
unsafe fn rename_at(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    let real = || call!(SYS_renameat2, int(from_dir), from, int(to_dir), to, c_long::from(flags));
    // SAFETY: path arguments of a libc function.
    answer_int(match unsafe { (watch(from), text(to)) } {
        (Some((shim, from)), Some(to)) => shim.try_rename((from_dir, from), (to_dir, to), flags, real),
        _ => real(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { rename_at(HERE, from, HERE, to, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { rename_at(from_dir, from, to_dir, to, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { rename_at(from_dir, from, to_dir, to, flags) }
}

/// # Safety
/// As `linkat(2)`.
unsafe fn link_at(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    let real = || call!(SYS_linkat, int(from_dir), from, int(to_dir), to, int(flags));
    // SAFETY: a path argument of a libc function.
    answer_int(match unsafe { watch(to) } {
        Some((shim, to)) => shim.try_link(to_dir, to, real),
        None => real(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { link_at(HERE, from, HERE, to, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn linkat(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { link_at(from_dir, from, to_dir, to, flags) }
}

/// # Safety
/// As `unlinkat(2)`.
unsafe fn unlink_at(dir: c_int, path: *const c_char, flags: c_int) -> Outcome {
    let real = || call!(SYS_unlinkat, int(dir), path, int(flags));
    // SAFETY: a path argument of a libc function.
    match unsafe { watch(path) } {
        Some((shim, path)) => shim.try_unlink(dir, path, real),
        None => real(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    answer_int(unsafe { unlink_at(HERE, path, 0) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    answer_int(unsafe { unlink_at(dir, path, flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    answer_int(unsafe { unlink_at(HERE, path, libc::AT_REMOVEDIR) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn remove(path: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    let file = unsafe { unlink_at(HERE, path, 0) };
    // SAFETY: the caller's contract.
    answer_int(match file {
        Err(Errno(libc::EISDIR)) => unsafe { unlink_at(HERE, path, libc::AT_REMOVEDIR) },
        other => other,
    })
}

/// # Safety
/// As `mkdirat(2)`.
unsafe fn make_dir_at(dir: c_int, path: *const c_char, mode: c_uint) -> c_int {
    let real = || call!(SYS_mkdirat, int(dir), path, c_long::from(mode));
    // SAFETY: a path argument of a libc function.
    answer_int(match unsafe { watch(path) } {
        Some((shim, path)) => shim.try_make_dir(dir, path, real),
        None => real(),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { make_dir_at(HERE, path, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { make_dir_at(dir, path, mode) }
}
