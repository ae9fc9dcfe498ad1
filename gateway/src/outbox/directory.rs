//! The files of an outbox directory: who may use it, and what is set aside before it opens.
//!
//! `lock` keeps others out, `database/` is the store, `high-water` the sidecar. `wal-aside/` exists
//! while an opening runs, and stays if that opening found something missing: a successful opening
//! of the database deletes its log files, and with them what could be salvaged. `salvage/` is a copy
//! that is being read for that; `quarantine/` keeps a report of each incident.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::store::{Engine, FileKind};

const LOCK: &str = "lock";
pub(super) const DATABASE: &str = "database";
pub(super) const HIGH_WATER: &str = "high-water";
const ASIDE: &str = "wal-aside";
/// Sets that are no longer needed and are being removed.
const ASIDE_DONE: &str = "wal-aside.done";
const SALVAGE: &str = "salvage";
pub(super) const QUARANTINE: &str = "quarantine";
/// A file system of its own has this folder from the start.
const LOST_AND_FOUND: &str = "lost+found";
/// Refused openings keep at most as many sets of files; the first one matters most.
const ASIDE_SETS_MAX: u32 = 8;

/// An outbox directory that this process has to itself until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Directory {
    /// Takes `root` for this process; creates it if it is missing.
    pub(super) fn claim(root: &Path) -> Result<Self, OpenError> {
        create_durably(root)?;
        refuse_others(root)?;
        let path = root.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|source| failed(&path, "open the lock file", source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { directory: root.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(&path, "lock the lock file", source)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }

    pub(super) fn high_water(&self) -> PathBuf {
        self.root.join(HIGH_WATER)
    }

    /// Where log files are set aside.
    pub(super) fn aside(&self) -> PathBuf {
        self.root.join(ASIDE)
    }

    /// Makes the directory's entries durable.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        sync_directory(&self.root)
    }

    /// Creates the folder of the store.
    pub(super) fn create_database(&self) -> Result<(), OpenError> {
        create_durably(&self.database())
    }

    /// Where the reports of incidents are kept.
    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join(QUARANTINE)
    }

    /// Keeps the store's files from being deleted by the opening that follows: by a second name for
    /// each. Where the file system has no second names, log files are copied and tables are not:
    /// a backlog must not be copied at every start.
    ///
    /// A process that opens `again` what it closed just now keeps the set it has: it holds at least
    /// as much, and on a full disk each further one would hold space.
    pub(super) fn set_aside(&self, engine: &dyn Engine, again: bool) -> Result<(), OpenError> {
        remove(&self.root.join(ASIDE_DONE))?;
        if again && self.aside().join("1").exists() {
            return Ok(());
        }
        let database = self.database();
        if !database.exists() {
            return Ok(());
        }
        let files = engine
            .files(&database)
            .map_err(|source| failed(&database, "list the database's files", source))?;
        let sets = (1..=ASIDE_SETS_MAX).map(|set| self.aside().join(set.to_string()));
        let Some(set) = sets.into_iter().find(|set| !set.exists()).filter(|_| !files.is_empty()) else {
            return Ok(());
        };
        // Under another name until it is complete: half a set is worse than none.
        let unfinished = set.with_extension("unfinished");
        remove(&unfinished)?;
        create_durably(&unfinished)?;
        for (file, kind) in &files {
            second_name(file, *kind, &unfinished)?;
        }
        sync_directory(&unfinished)?;
        fs::rename(&unfinished, &set)
            .map_err(|source| failed(&unfinished, "rename the directory", source))?;
        sync_directory(&self.aside())
    }

    /// Lets go of what was set aside: the opening was checked, and what it did is durable. The names
    /// are gone for good before anything is appended, so that no later start takes an old set for
    /// its own.
    pub(super) fn drop_aside(&self) -> Result<(), OpenError> {
        let (aside, done) = (self.aside(), self.root.join(ASIDE_DONE));
        remove(&done)?;
        match fs::rename(&aside, &done) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&aside, "rename what was set aside", error)),
            Ok(()) => {}
        }
        self.sync()?;
        remove(&done)
    }

    /// A copy of the store as the first opening found it, to be read and removed again. Tables that
    /// could not be set aside are taken from the store itself.
    pub(super) fn prepare_salvage(&self, engine: &dyn Engine) -> Result<PathBuf, OpenError> {
        let salvage = self.root.join(SALVAGE);
        remove(&salvage)?;
        create_durably(&salvage)?;
        for (file, kind) in self.first_set(engine)? {
            second_name(&file, kind, &salvage)?;
        }
        let stored = engine.files(&self.database());
        let stored =
            stored.map_err(|source| failed(&self.database(), "list the database's files", source))?;
        for (file, kind) in stored.into_iter().filter(|(_, kind)| *kind == FileKind::Table) {
            if !salvage.join(name_of(&file)).exists() {
                second_name(&file, kind, &salvage)?;
            }
        }
        Ok(salvage)
    }

    pub(super) fn remove_salvage(&self) -> Result<(), OpenError> {
        remove(&self.root.join(SALVAGE))
    }

    /// The files of the oldest set.
    pub(super) fn first_set(&self, engine: &dyn Engine) -> Result<Vec<(PathBuf, FileKind)>, OpenError> {
        let sets = (1..=ASIDE_SETS_MAX).map(|set| self.aside().join(set.to_string()));
        let Some(set) = sets.into_iter().find(|set| set.exists()) else { return Ok(Vec::new()) };
        engine.files(&set).map_err(|source| failed(&set, "list what was set aside", source))
    }
}

/// Gives a file of the store a second name in `directory`.
fn second_name(file: &Path, kind: FileKind, directory: &Path) -> Result<(), OpenError> {
    let copy = directory.join(name_of(file));
    let linked = fs::hard_link(file, &copy);
    match kind {
        FileKind::Table => match linked {
            // Compaction may have removed it since it was listed.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, file = %file.display(), "the table is not set aside");
                Ok(())
            }
            _ => Ok(()),
        },
        FileKind::Log | FileKind::Catalogue => linked
            .or_else(|_| copy_durably(file, &copy))
            .map_err(|source| failed(file, "set the file aside", source)),
    }
}

fn name_of(file: &Path) -> &OsStr {
    file.file_name().unwrap_or(OsStr::new("file"))
}

pub(super) fn remove(directory: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(directory, "remove the directory", error))
        }
        _ => Ok(()),
    }
}

/// Creates a directory and its missing parents; after a power cut they are still there.
pub(super) fn create_durably(path: &Path) -> Result<(), OpenError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(directory, "create the directory", error));
            }
            _ => {}
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

pub(super) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failed(path, "make the directory durable", source))
}

pub(super) fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Refuses a directory that has something in it and nothing of ours.
fn refuse_others(root: &Path) -> Result<(), OpenError> {
    let entries = fs::read_dir(root).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|source| failed(root, "list the directory", source))?;
    let names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
    let ours = |name: &&std::ffi::OsString| [LOCK, DATABASE, HIGH_WATER].iter().any(|our| name == our);
    if names.iter().any(|name| ours(&name)) {
        return Ok(());
    }
    match names.iter().find(|name| *name != LOST_AND_FOUND) {
        None => Ok(()),
        Some(found) => Err(OpenError::NotAnOutbox {
            directory: root.to_owned(),
            found: found.to_string_lossy().into_owned(),
        }),
    }
}

pub(super) fn failed(path: &Path, action: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_created_with_its_parents() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("a/b/c");
        drop(Directory::claim(&root).unwrap());
        drop(Directory::claim(&root).expect("empty but for the lock"));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_what_was_tried() {
        let check = |path: &str, tried: &str| {
            let error = Directory::claim(Path::new(path)).expect_err("nobody can write there");
            let OpenError::Io { path: named, action, .. } = &error else { panic!("{error}") };
            assert!(named.starts_with(path) && *action == tried, "{error}");
        };
        // Not even root can: these file systems are the kernel's own.
        check("/proc/penstock-outbox", "create the directory");
        check("/dev/null/outbox", "create the directory");
    }

    #[test]
    fn a_directory_of_something_else_is_refused_and_left_alone() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join(LOST_AND_FOUND)).unwrap();
        drop(Directory::claim(base.path()).expect("an empty file system"));
        fs::remove_file(base.path().join(LOCK)).unwrap();
        fs::write(base.path().join("CURRENT"), "MANIFEST-000001").unwrap();
        let error = Directory::claim(base.path()).expect_err("it is a database itself");
        assert!(matches!(&error, OpenError::NotAnOutbox { found, .. } if found == "CURRENT"), "{error}");
        assert!(!base.path().join(LOCK).exists());
        let error = Directory::claim(&base.path().join("CURRENT")).expect_err("it is a file");
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
    }

    #[test]
    fn a_directory_has_one_user() {
        let base = tempfile::tempdir().unwrap();
        let held = Directory::claim(base.path()).unwrap();
        let error = Directory::claim(base.path()).expect_err("held");
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
        drop(held);
        drop(Directory::claim(base.path()).expect("free again"));
    }
}
