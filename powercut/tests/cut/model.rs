//! An in-memory file system with strict durability, which also picks the random operations.

use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

use super::Tree;
use super::script::Op;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir(usize),
}

type Names = BTreeMap<String, Node>;

/// The first of each pair is what the process sees, the second what a power cut leaves.
pub(crate) struct Model {
    files: Vec<(Vec<u8>, Vec<u8>)>,
    dirs: Vec<(Names, Names)>,
}

const ROOT: usize = 0;

impl Model {
    pub(crate) fn new() -> Model {
        Model { files: Vec::new(), dirs: vec![(Names::new(), Names::new())] }
    }

    pub(crate) fn live(&self) -> Tree {
        self.tree(ROOT, "", &|dir| &dir.0, &|file| &file.0)
    }

    pub(crate) fn durable(&self) -> Tree {
        self.tree(ROOT, "", &|dir| &dir.1, &|file| &file.1)
    }

    fn tree<'a>(
        &'a self,
        dir: usize,
        prefix: &str,
        names: &impl Fn(&'a (Names, Names)) -> &'a Names,
        bytes: &impl Fn(&'a (Vec<u8>, Vec<u8>)) -> &'a Vec<u8>,
    ) -> Tree {
        let mut found = Tree::new();
        for (name, node) in names(&self.dirs[dir]) {
            match *node {
                Node::File(file) => {
                    found.insert(format!("{prefix}{name}"), bytes(&self.files[file]).clone());
                }
                Node::Dir(inner) => {
                    let path = format!("{prefix}{name}/");
                    found.append(&mut self.tree(inner, &path, names, bytes));
                    found.insert(path, Vec::new());
                }
            }
        }
        found
    }

    /// Picks an operation that can succeed and does it.
    pub(crate) fn step(&mut self, random: &mut StdRng) -> Op {
        loop {
            if let Some(text) = self.attempt(random) {
                return Op(text);
            }
        }
    }

    fn attempt(&mut self, random: &mut StdRng) -> Option<String> {
        let (dir, path) = self.place(random);
        match random.random_range(0..100) {
            0..25 => self.write(random, dir, &path),
            25..32 => self.truncate(random, dir, &path),
            32..52 => self.sync_file(random, dir, &path),
            52..70 => {
                self.dirs[dir].1 = self.dirs[dir].0.clone();
                let path = path.rsplit_once('/').map_or(".", |(dir, _)| dir);
                Some(format!("syncdir {path}"))
            }
            70..80 => self.rename(random, dir, &path),
            80..84 => self.link(random, dir, &path),
            84..92 => {
                self.file(dir, &path)?;
                self.dirs[dir].0.remove(last(&path));
                Some(format!("unlink {path}"))
            }
            _ => self.directories(random),
        }
    }

    /// A directory that exists and a path in it, whether or not there is something.
    fn place(&self, random: &mut StdRng) -> (usize, String) {
        let name = ["a", "b", "c", "d", "e"][random.random_range(0..5)];
        let wanted = DIRS.get(random.random_range(0..5)).copied().unwrap_or_default();
        match self.dirs[ROOT].0.get(wanted) {
            Some(&Node::Dir(dir)) => (dir, format!("{wanted}/{name}")),
            _ => (ROOT, name.to_owned()),
        }
    }

    fn file(&self, dir: usize, path: &str) -> Option<usize> {
        match self.dirs[dir].0.get(last(path)) {
            Some(&Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn file_or_new(&mut self, dir: usize, path: &str) -> usize {
        self.file(dir, path).unwrap_or_else(|| {
            self.files.push((Vec::new(), Vec::new()));
            self.dirs[dir].0.insert(last(path).to_owned(), Node::File(self.files.len() - 1));
            self.files.len() - 1
        })
    }

    fn write(&mut self, random: &mut StdRng, dir: usize, path: &str) -> Option<String> {
        let file = self.file_or_new(dir, path);
        let bytes = &mut self.files[file].0;
        let letter = char::from(b'a' + random.random_range(0..26_u8));
        let text = letter.to_string().repeat(random.random_range(1..20));
        let append = random.random();
        let at = if append { bytes.len() } else { random.random_range(0..=bytes.len() + 5) };
        bytes.resize(bytes.len().max(at + text.len()), 0);
        bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
        let way = ["write", "patch", "vector"][random.random_range(0..3)];
        Some(if append { format!("append {path} {text}") } else { format!("{way} {path} {at} {text}") })
    }

    fn truncate(&mut self, random: &mut StdRng, dir: usize, path: &str) -> Option<String> {
        let file = self.file_or_new(dir, path);
        let bytes = &mut self.files[file].0;
        if random.random_range(0..4) == 0 {
            bytes.clear();
            return Some(format!("create {path}"));
        }
        let length = random.random_range(0..=bytes.len() + 5);
        bytes.resize(length, 0);
        Some(format!("truncate {path} {length}"))
    }

    fn sync_file(&mut self, random: &mut StdRng, dir: usize, path: &str) -> Option<String> {
        let file = self.file(dir, path)?;
        self.files[file].1 = self.files[file].0.clone();
        Some(format!("{} {path}", if random.random() { "sync" } else { "datasync" }))
    }

    fn rename(&mut self, random: &mut StdRng, dir: usize, path: &str) -> Option<String> {
        let file = self.file(dir, path)?;
        let (to_dir, to) = self.place(random);
        let onto_itself = self.file(to_dir, &to) == Some(file);
        if !onto_itself {
            self.dirs[dir].0.remove(last(path));
            self.dirs[to_dir].0.insert(last(&to).to_owned(), Node::File(file));
        }
        Some(format!("rename {path} {to}"))
    }

    fn link(&mut self, random: &mut StdRng, dir: usize, path: &str) -> Option<String> {
        let file = self.file(dir, path)?;
        let (to_dir, to) = self.place(random);
        if self.dirs[to_dir].0.contains_key(last(&to)) {
            return None;
        }
        self.dirs[to_dir].0.insert(last(&to).to_owned(), Node::File(file));
        Some(format!("link {path} {to}"))
    }

    fn directories(&mut self, random: &mut StdRng) -> Option<String> {
        let name = DIRS[random.random_range(0..DIRS.len())];
        let other = DIRS[random.random_range(0..DIRS.len())];
        let Some(&Node::Dir(dir)) = self.dirs[ROOT].0.get(name) else {
            self.dirs.push((Names::new(), Names::new()));
            let newest = self.dirs.len() - 1;
            self.dirs[ROOT].0.insert(name.to_owned(), Node::Dir(newest));
            return Some(format!("mkdir {name}"));
        };
        if self.dirs[dir].0.is_empty() && random.random() {
            self.dirs[ROOT].0.remove(name);
            return Some(format!("rmdir {name}"));
        }
        match self.dirs[ROOT].0.get(other) {
            // A directory may replace an empty one.
            Some(&Node::Dir(held)) if held == dir || !self.dirs[held].0.is_empty() => None,
            _ => {
                self.dirs[ROOT].0.remove(name);
                self.dirs[ROOT].0.insert(other.to_owned(), Node::Dir(dir));
                Some(format!("rename {name} {other}"))
            }
        }
    }
}

const DIRS: [&str; 3] = ["x", "y", "z"];

fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
