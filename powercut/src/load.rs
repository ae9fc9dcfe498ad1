//! What happens when the library is loaded: read the environment, lock the store, take over what exists.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::edge::raw::{self, Errno};
use crate::edge::trap;
use crate::names;
use crate::settings::Settings;
use crate::shim::{self, Shim, give_up, refuse};
use crate::space::Space;

/// Runs once, before the program. The shim is not installed yet, so `std::fs` is safe to use.
pub(crate) fn load() {
    let mut settings = match Settings::read(|name| std::env::var_os(name)) {
        Ok(None) => return,
        Ok(Some(settings)) => settings,
        Err(why) => refuse(&why),
    };
    settings.dir = real_directory(&settings.dir);
    settings.twin = real_directory(&settings.twin);
    if settings.twin.starts_with(&settings.dir) || settings.dir.starts_with(&settings.twin) {
        refuse("POWERCUT_TWIN and POWERCUT_DIR must not contain each other");
    }
    let store = beside(&settings.twin);
    let lock = lock(&store);
    let fresh = entries(&settings.twin).is_empty();
    if fresh {
        clear(&store);
    } else if !store.join(COMPLETE).exists() {
        refuse("POWERCUT_TWIN is not empty and was not made by this library");
    }
    let root = path_text(&settings.dir);
    let dir = match raw::open(libc::AT_FDCWD, &root, libc::O_RDONLY | libc::O_DIRECTORY, 0) {
        Ok(dir) => dir,
        Err(errno) => give_up("open POWERCUT_DIR", errno),
    };
    let stat = match raw::stat(dir.as_raw_fd()) {
        Ok(stat) => stat,
        Err(errno) => give_up("look at POWERCUT_DIR", errno),
    };
    let (twin, store) = (path_text(&settings.twin), path_text(&store));
    let space = settings.space.as_deref().map(|file| pretend(file, &settings.dir));
    let store_and_lock = (store.clone().into_bytes(), lock);
    let shim = Shim::new(settings, space, (root.into_bytes(), stat), store_and_lock);
    let started = match fresh {
        true => shim.keep_all(dir.as_raw_fd()).and_then(|()| complete(&store)),
        false => shim.resume(dir.as_raw_fd(), &twin, &store),
    };
    if let Err(errno) = started {
        give_up("take over what POWERCUT_DIR and POWERCUT_TWIN hold", errno);
    }
    let pretends = shim.space.is_some();
    shim::install(shim);
    if pretends && let Err(errno) = trap::install() {
        give_up("watch the calls that ask for space", errno);
    }
}

/// A disk of the size that the file says, with what is below `dir` on it.
fn pretend(file: &Path, dir: &Path) -> Space {
    let unusable = |why: &dyn std::fmt::Display| -> ! {
        refuse(&format!("POWERCUT_SPACE={} (a file of 8 bytes): {why}", file.display()))
    };
    let opened = fs::File::open(file).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (length, opened) = opened.unwrap_or_else(|error| unusable(&error));
    if length < 8 {
        unusable(&"it is shorter");
    }
    match raw::shared_number(&opened.into()) {
        Ok(size) => Space::new(size, dir).unwrap_or_else(|error| unusable(&error)),
        Err(errno) => give_up("map POWERCUT_SPACE", errno),
    }
}

/// In the store of a twin that was made to the end.
const COMPLETE: &str = "complete";

fn complete(store: &CStr) -> Result<(), Errno> {
    let path = names::join(store.to_bytes(), COMPLETE.as_bytes());
    raw::open(libc::AT_FDCWD, &path, libc::O_WRONLY | libc::O_CREAT, 0o600).map(drop)
}

/// The store lies beside the twin, on its file system: names in the twin are hard links to it.
fn beside(twin: &Path) -> PathBuf {
    let mut store = OsString::from(twin);
    store.push(".inodes");
    real_directory(Path::new(&store))
}

/// The directory, made if it is missing, as an absolute path without symbolic links.
fn real_directory(path: &Path) -> PathBuf {
    let made = fs::create_dir_all(path).and_then(|()| fs::canonicalize(path));
    made.unwrap_or_else(|error| refuse(&format!("cannot use {}: {error}", path.display())))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.unwrap_or_else(|error| refuse(&format!("cannot list {}: {error}", dir.display())))
}

/// Removes what an earlier process left in the store of an empty twin, except the lock.
fn clear(store: &Path) {
    for old in entries(store).into_iter().filter(|path| !path.ends_with("lock")) {
        let removed = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        if let Err(error) = removed {
            refuse(&format!("cannot empty {}: {error}", store.display()));
        }
    }
}

/// One process at a time: two would write the same twin without knowing of each other.
fn lock(store: &Path) -> std::os::fd::OwnedFd {
    let path = path_text(&store.join("lock"));
    match raw::open(libc::AT_FDCWD, &path, libc::O_RDWR | libc::O_CREAT, 0o600) {
        Ok(fd) if raw::lock(&fd).is_ok() => fd,
        Ok(_) => refuse("another process holds POWERCUT_TWIN; do not preload into a wrapper or a child"),
        Err(errno) => give_up("open the lock of the store", errno),
    }
}

fn path_text(path: &Path) -> CString {
    let bytes = path.as_os_str().to_owned().into_vec();
    CString::new(bytes).unwrap_or_else(|_| refuse("a path holds a NUL"))
}
