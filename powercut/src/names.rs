//! The durable names: for each watched directory, which entries its twin holds.
//!
//! A directory that no synced parent names yet stays in the store under its inode number, with whatever was
//! synced into it, and moves to its place in the twin when the parent is synced. A sync adds and replaces
//! before it removes, so that a cut in its middle never loses a renamed file.

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use crate::edge::raw::{self, Errno};
use crate::shim::give_up;

/// Identifies a file or directory for the life of the process; never reused, unlike inode numbers.
pub(crate) type Id = u64;

/// The twin tree of one process.
#[derive(Debug)]
pub(crate) struct Names {
    twin: Vec<u8>,
    store: Vec<u8>,
    dirs: HashMap<Id, Dir>,
    last: Id,
}

/// An entry of a live directory, as a sync finds it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) id: Id,
    /// The twin inode of a file; `None` for a directory.
    pub(crate) file: Option<CString>,
}

#[derive(Debug)]
struct Dir {
    /// Of the live directory.
    ino: u64,
    place: Place,
    /// Removed from the live tree, but its name is still durable.
    removed: bool,
    entries: HashMap<Vec<u8>, Durable>,
}

#[derive(Clone, Copy, Debug)]
struct Durable {
    id: Id,
    is_dir: bool,
}

#[derive(Clone, Debug)]
enum Place {
    Root,
    Store,
    Inside { parent: Id, name: Vec<u8> },
}

impl Names {
    pub(crate) fn new(twin: Vec<u8>, store: Vec<u8>) -> Names {
        Names { twin, store, dirs: HashMap::new(), last: 0 }
    }

    pub(crate) fn next_id(&mut self) -> Id {
        self.last += 1;
        self.last
    }

    /// The directory whose twin always exists.
    pub(crate) fn add_root(&mut self) -> Id {
        let id = self.next_id();
        self.dirs.insert(id, Dir { ino: 0, place: Place::Root, removed: false, entries: HashMap::new() });
        id
    }

    /// A directory of which nothing is durable yet.
    pub(crate) fn add_dir(&mut self, ino: u64) -> Id {
        let id = self.next_id();
        self.dirs.insert(id, Dir { ino, place: Place::Store, removed: false, entries: HashMap::new() });
        let path = self.path(id);
        let owner = CString::new(ino.to_string()).expect("digits");
        let made = raw::make_dir(&path, 0o755).and_then(|_| raw::stat_at(libc::AT_FDCWD, &path));
        if let Err(errno) = made.and_then(|twin| raw::symbolic_link(&owner, &tag(&self.store, twin.ino))) {
            give_up("make a directory in the store", errno);
        }
        id
    }

    /// A directory that an earlier process left, in the store or at a durable place. `ino` is the live one's,
    /// `None` if it was removed.
    pub(crate) fn resume_dir(&mut self, at: Option<(Id, Vec<u8>)>, ino: Option<u64>) -> Id {
        let id = self.next_id();
        let place = match &at {
            None => Place::Store,
            Some((parent, name)) => Place::Inside { parent: *parent, name: name.clone() },
        };
        let (removed, ino) = (ino.is_none(), ino.unwrap_or(0));
        self.dirs.insert(id, Dir { ino, place, removed, entries: HashMap::new() });
        if let Some((parent, name)) = at {
            self.resume_entry(parent, name, Durable { id, is_dir: true });
        }
        id
    }

    /// A durable name of a file that an earlier process left.
    pub(crate) fn resume_file(&mut self, parent: Id, name: Vec<u8>, id: Id) {
        self.resume_entry(parent, name, Durable { id, is_dir: false });
    }

    fn resume_entry(&mut self, parent: Id, name: Vec<u8>, entry: Durable) {
        if let Some(parent) = self.dirs.get_mut(&parent) {
            parent.entries.insert(name, entry);
        }
    }

    /// The live directory is gone; the durable one goes with the next sync of its parent.
    pub(crate) fn removed(&mut self, id: Id) {
        let Some(dir) = self.dirs.get_mut(&id) else { return };
        dir.removed = true;
        let stored = matches!(dir.place, Place::Store);
        let path = self.path(id);
        if let Ok(twin) = raw::stat_at(libc::AT_FDCWD, &path) {
            gone("remove a tag", raw::remove(&tag(&self.store, twin.ino), 0));
        }
        if stored {
            self.erase(id, &path);
        }
    }

    /// Makes the durable entries of `id` those of `live`.
    pub(crate) fn sync(&mut self, id: Id, live: &[Entry]) {
        for entry in live {
            self.put(id, entry);
        }
        let Some(dir) = self.dirs.get(&id) else { return };
        let wanted: HashMap<&[u8], Id> = live.iter().map(|entry| (entry.name.as_slice(), entry.id)).collect();
        let gone: Vec<Vec<u8>> =
            dir.entries.keys().filter(|name| !wanted.contains_key(name.as_slice())).cloned().collect();
        for name in gone {
            self.take(id, &name);
        }
    }

    fn put(&mut self, dir: Id, entry: &Entry) {
        let held = self.dirs.get(&dir).and_then(|dir| dir.entries.get(&entry.name)).copied();
        if held.is_some_and(|held| held.id == entry.id) {
            return;
        }
        // A file replaces a file in one step; where a directory is involved the old entry goes first.
        if held.is_some_and(|held| held.is_dir || entry.file.is_none()) {
            self.take(dir, &entry.name);
        }
        let target = join(self.path(dir).to_bytes(), &entry.name);
        match &entry.file {
            Some(inode) => self.put_file(inode, &target),
            None => self.put_dir(dir, entry, &target),
        }
        if let Some(dir) = self.dirs.get_mut(&dir) {
            dir.entries.insert(entry.name.clone(), Durable { id: entry.id, is_dir: entry.file.is_none() });
        }
    }

    fn put_file(&self, inode: &CStr, target: &CStr) {
        let step = join(&self.store, b"step");
        if let Err(errno) = raw::link(inode, &step).and_then(|_| raw::rename(&step, target)) {
            give_up("give a twin file its name", errno);
        }
        // Where both were links to one inode, rename did nothing.
        gone("remove a spare link", raw::remove(&step, 0));
    }

    fn put_dir(&mut self, parent: Id, entry: &Entry, target: &CStr) {
        if let Err(errno) = raw::rename(&self.path(entry.id), target) {
            give_up("move a twin directory to its place", errno);
        }
        let place = Place::Inside { parent, name: entry.name.clone() };
        let before = self.dirs.get_mut(&entry.id).map(|dir| std::mem::replace(&mut dir.place, place));
        if let Some(Place::Inside { parent, name }) = before
            && let Some(old) = self.dirs.get_mut(&parent)
        {
            old.entries.remove(&name);
        }
    }

    /// Removes one durable entry. A directory that lives on elsewhere waits in the store for its new parent.
    fn take(&mut self, dir: Id, name: &[u8]) {
        let path = join(self.path(dir).to_bytes(), name);
        let Some(held) = self.dirs.get_mut(&dir).and_then(|dir| dir.entries.remove(name)) else { return };
        if !held.is_dir {
            gone("remove a twin name", raw::remove(&path, 0));
            return;
        }
        let lives = self.dirs.get_mut(&held.id).filter(|dir| !dir.removed);
        let Some(lives) = lives else { return self.erase(held.id, &path) };
        if let Err(errno) = raw::rename(&path, &shelf(&self.store, lives.ino)) {
            give_up("set a twin directory aside", errno);
        }
        lives.place = Place::Store;
    }

    /// Erases a removed directory, now at `path`, with what is durable in it. Directories that were moved out
    /// of it go to the store.
    fn erase(&mut self, id: Id, path: &CStr) {
        let inner: Vec<Vec<u8>> =
            self.dirs.get(&id).map(|dir| dir.entries.keys().cloned().collect()).unwrap_or_default();
        for name in inner {
            self.take(id, &name);
        }
        gone("remove a twin directory", raw::remove(path, libc::AT_REMOVEDIR));
        self.dirs.remove(&id);
    }

    fn path(&self, id: Id) -> CString {
        let dir = self.dirs.get(&id);
        match dir.map(|dir| (&dir.place, dir.ino)) {
            None | Some((Place::Root, _)) => CString::new(self.twin.clone()).expect("checked at load"),
            Some((Place::Store, ino)) => shelf(&self.store, ino),
            Some((Place::Inside { parent, name }, _)) => join(self.path(*parent).to_bytes(), name),
        }
    }
}

/// The twin inode of the live file `ino`.
pub(crate) fn file_in(store: &[u8], ino: u64) -> CString {
    join(store, format!("f{ino}").as_bytes())
}

/// Where the directory `ino` waits until a synced parent names it.
fn shelf(store: &[u8], ino: u64) -> CString {
    join(store, format!("d{ino}").as_bytes())
}

/// A symbolic link whose content is the inode number of the live directory that `twin` stands for.
pub(crate) fn tag(store: &[u8], twin: u64) -> CString {
    join(store, format!("t{twin}").as_bytes())
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> CString {
    CString::new([dir, b"/", name].concat()).expect("paths from the kernel hold no NUL")
}

/// For a removal: what is not there is removed.
pub(crate) fn gone(what: &str, outcome: raw::Outcome) {
    match outcome {
        Ok(_) | Err(Errno(libc::ENOENT)) => {}
        Err(errno) => give_up(what, errno),
    }
}
