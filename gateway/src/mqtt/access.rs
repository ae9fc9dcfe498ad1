//! Who may connect: the users file and password verification.
//!
//! A line of the file is `name:hash` or `name:hash:device=ID`, the hash being argon2id in PHC format
//! (docs/formats/users-file.md). Verification takes tens of milliseconds and megabytes by design, so
//! at most two run at once, off the async workers. A password that was right once is recognised
//! afterwards by a keyed digest in memory, so that a fleet that reconnects after an outage does not
//! wait for argon2 again. An unknown name costs as much time as a wrong password.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::template::is_device;

/// Password verifications that run at once.
const VERIFICATIONS_MAX: usize = 2;
/// Most memory a hash in the file may ask for, in KiB.
const MEMORY_KIB_MAX: u32 = 256 << 10;
/// Largest users file, in bytes.
const FILE_BYTES_MAX: usize = 64 << 20;
const DIGEST_BYTES: usize = 32;

type Digest = [u8; DIGEST_BYTES];

/// Why the users file is refused, or a password cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Unreadable {
        /// The users file.
        file: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// A line that says nothing valid.
    #[error("{}:{line}: {reason}", file.display())]
    Line {
        /// The users file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The password cannot be hashed: it is empty or too long, or there is no randomness.
    #[error("the password cannot be hashed")]
    Hash,
}

/// Decides who may connect. Clones share the same state.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    anonymous: bool,
    users: Option<HashMap<Box<str>, User>>,
    /// Verified in place of an unknown user's hash, so that both take the same time.
    decoy: PasswordHash,
    slots: Arc<Semaphore>,
    /// Makes the digests in memory worthless outside this process.
    key: Digest,
}

struct User {
    hash: PasswordHash,
    device: Option<Box<str>>,
    /// Keyed digest of the password once it was right.
    known: Mutex<Option<Digest>>,
}

/// A client that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    /// The device that the users file binds the user to.
    pub(super) device: Option<Box<str>>,
}

/// A client that may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It gave no user name, and one is needed.
    Anonymous,
    /// Its user name or password is wrong.
    Credentials,
}

// === impl Access ===

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("anonymous", &self.0.anonymous)
            .field("users", &self.0.users.as_ref().map(HashMap::len))
            .finish()
    }
}

impl Access {
    /// Reads the users file, if there is one.
    pub(super) fn new(anonymous: bool, users_file: Option<&Path>) -> Result<Self, AccessError> {
        let users = users_file.map(read_users).transpose()?;
        let decoy = Argon2::default().hash_password(b"nobody").map_err(|_| AccessError::Hash)?;
        let slots = Arc::new(Semaphore::new(VERIFICATIONS_MAX));
        Ok(Self(Arc::new(Inner { anonymous, users, decoy, slots, key: rand::random() })))
    }

    /// Decides on one client. Without a users file every name is an unknown one, unless anonymous
    /// clients are let in: then names and passwords mean nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a verification that already started ends in the background.
    pub(super) async fn check(&self, name: Option<&str>, password: Option<&[u8]>) -> Result<Granted, Denied> {
        let open = self.0.anonymous && self.0.users.is_none();
        let Some(name) = name.filter(|_| !open) else {
            return if self.0.anonymous { Ok(Granted { device: None }) } else { Err(Denied::Anonymous) };
        };
        let password = password.unwrap_or_default();
        let digest = self.0.digest(name, password);
        if let Some(user) = self.0.user(name)
            && user.known.lock().is_some_and(|known| same(&known, &digest))
        {
            return Ok(Granted { device: user.device.clone() });
        }
        let slots = Arc::clone(&self.0.slots);
        let Ok(slot) = slots.acquire_owned().await else { return Err(Denied::Credentials) };
        let (access, name, password) = (self.clone(), Box::<str>::from(name), Box::<[u8]>::from(password));
        let verify = move || {
            let verdict = access.0.verify(&name, &password, &digest);
            // The slot is free when the work is done, also if nobody waits for it any more.
            drop(slot);
            verdict
        };
        tokio::task::spawn_blocking(verify).await.unwrap_or(Err(Denied::Credentials))
    }
}

impl Inner {
    fn user(&self, name: &str) -> Option<&User> {
        self.users.as_ref()?.get(name)
    }

    fn verify(&self, name: &str, password: &[u8], digest: &Digest) -> Result<Granted, Denied> {
        let user = self.user(name);
        let hash = user.map_or(&self.decoy, |user| &user.hash);
        let right = Argon2::default().verify_password(password, hash).is_ok();
        match user.filter(|_| right) {
            Some(user) => {
                *user.known.lock() = Some(*digest);
                Ok(Granted { device: user.device.clone() })
            }
            None => Err(Denied::Credentials),
        }
    }

    /// A keyed digest of name and password: argon2 with its smallest cost and a random secret.
    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        let mut digest = [0; DIGEST_BYTES];
        let mut salt = b"penstock".to_vec();
        salt.extend_from_slice(name.as_bytes());
        let made = Params::new(Params::MIN_M_COST, 1, 1, Some(DIGEST_BYTES))
            .and_then(|cost| Argon2::new_with_secret(&self.key, Algorithm::Argon2id, Version::V0x13, cost))
            .and_then(|keyed| keyed.hash_password_into(password, &salt, &mut digest));
        // Costs and lengths are within bounds. Were they not, a random digest would match nothing.
        if made.is_err() {
            digest = rand::random();
        }
        digest
    }
}

/// Compares without telling where two digests differ.
fn same(left: &Digest, right: &Digest) -> bool {
    left.iter().zip(right).fold(0, |differ, (left, right)| differ | (left ^ right)) == 0
}

fn read_users(file: &Path) -> Result<HashMap<Box<str>, User>, AccessError> {
    let unreadable = |source| AccessError::Unreadable { file: file.to_owned(), source };
    let text = fs::read_to_string(file).map_err(unreadable)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(unreadable(io::Error::other("larger than 64 MiB")));
    }
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
    Ok(users)
}

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

/// Hashes a password for the users file, with a random salt.
///
/// # Errors
///
/// [`AccessError::Hash`] if the password is empty or the system has no randomness.
pub fn hash_password(password: &[u8]) -> Result<String, AccessError> {
    if password.is_empty() {
        return Err(AccessError::Hash);
    }
    let hash: PasswordHash = Argon2::default().hash_password(password).map_err(|_| AccessError::Hash)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("users");
        fs::write(&file, text).expect("written");
        (folder, file)
    }

    #[tokio::test]
    async fn only_the_right_password_lets_a_user_in_and_it_is_remembered() {
        let hash = hash_password(b"secret").expect("hashed");
        let (_folder, file) = file(&format!("# users\n\nanna:{hash}\nbox:{hash}:device=pump-7\n"));
        let access = Access::new(false, Some(&file)).expect("a valid file");
        let check = async |name, password: &[u8]| access.check(Some(name), Some(password)).await;
        assert_eq!(check("anna", b"wrong").await, Err(Denied::Credentials));
        assert_eq!(check("nobody", b"secret").await, Err(Denied::Credentials));
        for _ in 0..2 {
            assert_eq!(check("anna", b"secret").await, Ok(Granted { device: None }));
            assert_eq!(check("box", b"secret").await, Ok(Granted { device: Some("pump-7".into()) }));
        }
        assert!(access.0.user("anna").is_some_and(|user| user.known.lock().is_some()));
        assert_eq!(check("anna", b"wrong").await, Err(Denied::Credentials), "after it was remembered");
        assert_eq!(access.check(Some("anna"), None).await, Err(Denied::Credentials));
        assert_eq!(access.check(None, None).await, Err(Denied::Anonymous));
        // The digest of one user does not open another.
        assert_ne!(access.0.digest("anna", b"secret"), access.0.digest("box", b"secret"));
    }

    #[tokio::test]
    async fn anonymous_clients_need_permission() {
        let open = Access::new(true, None).expect("no file");
        assert_eq!(open.check(None, None).await, Ok(Granted { device: None }));
        assert_eq!(open.check(Some("any"), Some(b"thing")).await, Ok(Granted { device: None }));
        let closed = Access::new(false, None).expect("no file");
        assert_eq!(closed.check(None, None).await, Err(Denied::Anonymous));
        assert_eq!(closed.check(Some("any"), Some(b"thing")).await, Err(Denied::Credentials));
        let (_folder, file) = file("");
        let both = Access::new(true, Some(&file)).expect("an empty file");
        assert_eq!(both.check(None, None).await, Ok(Granted { device: None }));
        assert_eq!(both.check(Some("any"), Some(b"thing")).await, Err(Denied::Credentials));
    }

    #[test]
    fn bad_lines_are_named() {
        let hash = hash_password(b"x").expect("hashed");
        let check = |line: &str, reason: &str| {
            let (_folder, file) = file(&format!("good:{hash}\n{line}\n"));
            let error = Access::new(false, Some(&file)).expect_err(line).to_string();
            assert!(error.ends_with(&format!("users:2: {reason}")), "{error}");
        };
        check("anna", "no hash after the name");
        check(&format!(":{hash}"), "no name");
        check("anna:secret", "not a password hash in PHC format");
        check(
            &hash.replace("argon2id", "argon2i").replacen('$', "anna:$", 1),
            "not an argon2id hash of at most 256 MiB",
        );
        check(&format!("anna:{hash}:pump"), "expected device=ID after the hash");
        check(&format!("anna:{hash}:device=a/b"), "not a device id");
        check(&format!("anna:{hash}:device=a:b"), "more fields than name, hash and device");
        check(&format!("good:{hash}"), "a name that stands above already");
        assert!(hash_password(b"").is_err());
    }
}
