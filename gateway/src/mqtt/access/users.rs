//! The users file.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Params};
use parking_lot::Mutex;

use super::{AccessError, Digest};
use crate::mqtt::template::is_device;

/// Most memory a hash in the file may ask for, in KiB.
const MEMORY_KIB_MAX: u32 = 256 << 10;
/// Largest users file, in bytes.
const FILE_BYTES_MAX: usize = 64 << 20;

/// The users of a file, by name.
#[derive(Default)]
pub(super) struct Users(HashMap<Box<str>, User>);

pub(super) struct User {
    pub(super) hash: PasswordHash,
    /// The device that the user is, whatever its client id says.
    pub(super) device: Option<Box<str>>,
    /// Keyed digest of the password once it was right.
    pub(super) known: Mutex<Option<Digest>>,
}

// === impl Users ===

impl Users {
    pub(super) fn read(file: &Path) -> Result<Self, AccessError> {
        let unreadable = |source| AccessError::Unreadable { file: file.to_owned(), source };
        let text = fs::read_to_string(file).map_err(unreadable)?;
        if text.len() > FILE_BYTES_MAX {
            return Err(unreadable(io::Error::other("larger than 64 MiB")));
        }
        Self::parse(file, &text)
    }

    /// Reads the text of `file`.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, AccessError> {
        let mut users = HashMap::new();
        for (place, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let error = |reason| AccessError::Line { file: file.to_owned(), line: place + 1, reason };
            let (name, user) = User::parse(line).map_err(error)?;
            if users.insert(Box::from(name), user).is_some() {
                return Err(error("a name that stands above already"));
            }
        }
        Ok(Self(users))
    }

    pub(super) fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes over which passwords were right, as far as the hashes are still the same.
    pub(super) fn remember(&self, older: &Self) {
        for (name, user) in &self.0 {
            if let Some(known) = older.get(name).filter(|before| before.hash == user.hash) {
                *user.known.lock() = *known.known.lock();
            }
        }
    }
}

// === impl User ===

impl User {
    fn parse(line: &str) -> Result<(&str, Self), &'static str> {
        let mut fields = line.trim_end().split(':');
        let name = fields.next().filter(|name| !name.is_empty()).ok_or("no name")?;
        let hash = fields.next().ok_or("no hash after the name")?;
        let hash = PasswordHash::new(hash).map_err(|_| "not a password hash in PHC format")?;
        let argon2id = hash.algorithm == Algorithm::Argon2id.ident();
        let cost = Params::try_from(&hash).ok().filter(|cost| cost.m_cost() <= MEMORY_KIB_MAX);
        if !argon2id || cost.is_none() || hash.salt.is_none() || hash.hash.is_none() {
            return Err("not an argon2id hash of at most 256 MiB");
        }
        let device = match fields.next() {
            None => None,
            Some(field) => {
                let device = field.strip_prefix("device=").ok_or("expected device=ID after the hash")?;
                Some(Box::from(Some(device).filter(|id| is_device(id)).ok_or("not a device id")?))
            }
        };
        if fields.next().is_some() {
            return Err("more fields than name, hash and device");
        }
        Ok((name, Self { hash, device, known: Mutex::new(None) }))
    }
}
