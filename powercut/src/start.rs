//! What is durable when a process starts.
//!
//! With an empty twin: everything that exists. With a twin that an earlier process under the library left:
//! what the twin holds, so that a crash, a restart and only then a power cut can be tried. The store tells
//! which live inode each of the twin's stands for. What changed since is not known then, so each file counts
//! as changed as a whole.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::dirty::Dirty;
use crate::edge::raw::{self, Errno};
use crate::file::File;
use crate::names::{self, Id, Names};
use crate::shim::{Node, Shim, list};

impl Shim {
    /// Makes everything below `dir` durable.
    pub(crate) fn keep_all(&self, dir: RawFd) -> Result<(), Errno> {
        for name in list(dir)? {
            let Ok(name) = CString::new(name) else { continue };
            let stat = raw::stat_at(dir, &name)?;
            if stat.dev != self.dev || !(stat.is_file() || stat.is_dir()) {
                continue;
            }
            let fd = raw::open(dir, &name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
            let node = self.node(&stat).unwrap_or_else(|| self.register(&mut self.names(), &stat));
            match node {
                Node::File(file) => drop(file.sync(fd.as_raw_fd(), || Ok(0))?),
                Node::Dir(_) => self.keep_all(fd.as_raw_fd())?,
            }
        }
        let stat = raw::stat(dir)?;
        if let Some(Node::Dir(id)) = self.node(&stat) {
            self.sync_dir(&mut self.names(), id, dir);
        }
        Ok(())
    }

    /// Goes on with the twin of an earlier process over the same directory.
    pub(crate) fn resume(&self, dir: RawFd, twin: &CStr, store: &CStr) -> Result<(), Errno> {
        let (twin, store) = (open_dir(libc::AT_FDCWD, twin)?, open_dir(libc::AT_FDCWD, store)?);
        let mut live_of = HashMap::new();
        let mut shelved = Vec::new();
        for name in list(store.as_raw_fd())? {
            let Ok(path) = CString::new(name) else { continue };
            let Some((kind, number)) = path.to_str().ok().and_then(|text| text.split_at_checked(1)) else {
                continue;
            };
            match (kind, number.parse::<u64>()) {
                ("f", Ok(ino)) => drop(live_of.insert(raw::stat_at(store.as_raw_fd(), &path)?.ino, ino)),
                ("t", Ok(twin)) => drop(tag_content(&self.store, twin).map(|ino| live_of.insert(twin, ino))),
                ("d", Ok(ino)) => shelved.push((ino, open_dir(store.as_raw_fd(), &path)?)),
                // Left by a kill in the middle of giving a name.
                _ if path.as_c_str() == c"step" => {
                    names::gone("remove a spare link", raw::remove(&names::join(&self.store, b"step"), 0))
                }
                _ => {}
            }
        }
        let mut names = self.names();
        if let Some(Node::Dir(id)) = self.node(&raw::stat(dir)?) {
            self.resume_dir(&mut names, id, &twin, &live_of)?;
        }
        for (ino, shelf) in shelved {
            let id = names.resume_dir(None, Some(ino));
            self.live_mut().insert(ino, Node::Dir(id));
            self.resume_dir(&mut names, id, &shelf, &live_of)?;
        }
        Ok(())
    }

    fn resume_dir(
        &self,
        names: &mut Names,
        id: Id,
        twin: &OwnedFd,
        live_of: &HashMap<u64, u64>,
    ) -> Result<(), Errno> {
        for name in list(twin.as_raw_fd())? {
            let Ok(path) = CString::new(name.as_slice()) else { continue };
            let stat = raw::stat_at(twin.as_raw_fd(), &path)?;
            let ino = live_of.get(&stat.ino).copied();
            if !stat.is_dir() {
                let file = ino.map(|ino| self.resume_file(names, ino));
                let file = file.unwrap_or_else(|| names.next_id());
                names.resume_file(id, name, file);
                continue;
            }
            let inner = names.resume_dir(Some((id, name)), ino);
            if let Some(ino) = ino {
                self.live_mut().insert(ino, Node::Dir(inner));
            }
            self.resume_dir(names, inner, &open_dir(twin.as_raw_fd(), &path)?, live_of)?;
        }
        Ok(())
    }

    /// The file `ino`, whose twin inode exists. One that is gone by now is replaced when its number is used
    /// again.
    fn resume_file(&self, names: &mut Names, ino: u64) -> Id {
        let mut live = self.live_mut();
        if let Some(Node::File(file)) = live.get(&ino) {
            return file.id;
        }
        let id = names.next_id();
        let file = File::new(id, names::file_in(&self.store, ino), Dirty::whole(0));
        live.insert(ino, Node::File(Arc::new(file)));
        id
    }
}

fn tag_content(store: &[u8], twin: u64) -> Option<u64> {
    let mut buffer = [0_u8; 20];
    let length = raw::read_link(&names::tag(store, twin), &mut buffer).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()?.parse().ok()
}

fn open_dir(dir: RawFd, path: &CStr) -> Result<OwnedFd, Errno> {
    raw::open(dir, path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
}
