//! Who may connect, and what they may publish and subscribe to: the users file, password
//! verification and the rules.
//!
//! A line of the file is `name:hash` or `name:hash:device=ID`, the hash being argon2id in PHC format
//! (docs/formats/users-file.md). Verification takes tens of milliseconds and megabytes by design, so
//! at most two run at once, off the async workers. A password that was right once is recognised
//! afterwards by a keyed digest in memory, so that a fleet that reconnects after an outage does not
//! wait for argon2 again. An unknown name costs as much time as a wrong password.

mod pattern;
mod rules;
mod users;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::config;
pub(super) use pattern::BYTES_MAX as FILTER_BYTES_MAX;
pub use pattern::{Pattern, PatternError};
pub use rules::{Action, Effect, Rule};
pub(super) use rules::{Rules, Who};
use users::Users;

/// Password verifications that run at once.
const VERIFICATIONS_MAX: usize = 2;
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

/// Decides who may connect and what they may do. Clones share the same state.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    anonymous: bool,
    users_file: Option<PathBuf>,
    /// There are some if there is a file.
    users: ArcSwapOption<Users>,
    rules: ArcSwap<Rules>,
    /// Other rules came into force since the start.
    rules_changed: AtomicBool,
    /// Verified in place of an unknown user's hash, so that both take the same time.
    decoy: PasswordHash,
    slots: Arc<Semaphore>,
    /// Makes the digests in memory worthless outside this process.
    key: Digest,
}

/// A client that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    /// The device that the users file binds the user to.
    pub(super) device: Option<Box<str>>,
    /// Its user name, if its password proved it.
    pub(super) user: Option<Box<str>>,
}

/// A client that may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It gave no user name, and one is needed.
    Anonymous,
    /// Its user name or password is wrong.
    Credentials,
}

/// How many users the text of a users file has.
#[cfg(any(test, fuzzing))]
pub(super) fn users_in(text: &str) -> Option<usize> {
    Users::parse(std::path::Path::new("users"), text).ok().map(|users| users.len())
}

// === impl Access ===

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("anonymous", &self.0.anonymous)
            .field("users", &self.0.users.load().as_deref().map(Users::len))
            .finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the users file, if there is one.
    pub(super) fn new(config: &config::Access) -> Result<Self, AccessError> {
        let users = config.users_file.as_deref().map(Users::read).transpose()?;
        let decoy = Argon2::default().hash_password(b"nobody").map_err(|_| AccessError::Hash)?;
        Ok(Self(Arc::new(Inner {
            anonymous: config.anonymous,
            users_file: config.users_file.clone(),
            users: ArcSwapOption::from_pointee(users),
            rules: ArcSwap::from_pointee(Rules::new(&config.rules)),
            rules_changed: AtomicBool::new(false),
            decoy,
            slots: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            key: rand::random(),
        })))
    }

    /// The rules in force. Costs no more than a look; hold it no longer than a decision takes.
    #[inline]
    pub(super) fn rules(&self) -> Guard<Arc<Rules>> {
        self.0.rules.load()
    }

    /// Whether there is a users file.
    pub(super) fn has_users_file(&self) -> bool {
        self.0.users_file.is_some()
    }

    /// Reads the users file again. Passwords that were right are remembered where their hashes stay.
    /// A file that cannot be used changes nothing. Blocks on the disk.
    pub(super) fn reload_users(&self) -> Result<(), AccessError> {
        let Some(file) = &self.0.users_file else { return Ok(()) };
        let users = Users::read(file)?;
        if let Some(older) = &*self.0.users.load() {
            users.remember(older);
        }
        self.0.users.store(Some(Arc::new(users)));
        Ok(())
    }

    /// Puts other rules in force.
    pub(super) fn set_rules(&self, rules: &[Rule]) {
        let rules = Rules::new(rules);
        if rules != **self.0.rules.load() {
            self.0.rules.store(Arc::new(rules));
            self.0.rules_changed.store(true, Ordering::Release);
        }
    }

    /// Whether the rules are others than at the start, so that what was granted under them has to be
    /// asked about again.
    #[inline]
    pub(super) fn have_rules_changed(&self) -> bool {
        self.0.rules_changed.load(Ordering::Acquire)
    }

    /// Decides on one client. Without a users file every name is an unknown one, unless anonymous
    /// clients are let in: then names and passwords mean nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a verification that already started ends in the background.
    pub(super) async fn check(&self, name: Option<&str>, password: Option<&[u8]>) -> Result<Granted, Denied> {
        let users = self.0.users.load_full();
        let open = self.0.anonymous && users.is_none();
        let Some(name) = name.filter(|_| !open) else {
            return if self.0.anonymous {
                Ok(Granted { device: None, user: None })
            } else {
                Err(Denied::Anonymous)
            };
        };
        let password = password.unwrap_or_default();
        let digest = self.0.digest(name, password);
        if let Some(user) = users.as_ref().and_then(|users| users.get(name))
            && user.known.lock().is_some_and(|known| same(&known, &digest))
        {
            return Ok(Granted { device: user.device.clone(), user: Some(name.into()) });
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
    fn verify(&self, name: &str, password: &[u8], digest: &Digest) -> Result<Granted, Denied> {
        let users = self.users.load_full();
        let user = users.as_ref().and_then(|users| users.get(name));
        let hash = user.map_or(&self.decoy, |user| &user.hash);
        let right = Argon2::default().verify_password(password, hash).is_ok();
        match user.filter(|_| right) {
            Some(user) => {
                *user.known.lock() = Some(*digest);
                Ok(Granted { device: user.device.clone(), user: Some(name.into()) })
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
    use std::fs;
    use std::path::Path;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("users");
        fs::write(&file, text).expect("written");
        (folder, file)
    }

    fn access(anonymous: bool, users_file: Option<&Path>) -> Result<Access, AccessError> {
        let users_file = users_file.map(Path::to_owned);
        Access::new(&config::Access { anonymous, users_file, rules: Vec::new() })
    }

    fn granted(user: Option<&str>, device: Option<&str>) -> Result<Granted, Denied> {
        Ok(Granted { device: device.map(Into::into), user: user.map(Into::into) })
    }

    fn remembers(access: &Access, name: &str) -> bool {
        let users = access.0.users.load();
        users.as_ref().and_then(|users| users.get(name)).is_some_and(|user| user.known.lock().is_some())
    }

    #[tokio::test]
    async fn only_the_right_password_lets_a_user_in_and_it_is_remembered() {
        let hash = hash_password(b"secret").expect("hashed");
        let (_folder, file) = file(&format!("# users\n\nanna:{hash}\nbox:{hash}:device=pump-7\n"));
        let access = access(false, Some(&file)).expect("a valid file");
        let check = async |name, password: &[u8]| access.check(Some(name), Some(password)).await;
        assert_eq!(check("anna", b"wrong").await, Err(Denied::Credentials));
        assert_eq!(check("nobody", b"secret").await, Err(Denied::Credentials));
        for _ in 0..2 {
            assert_eq!(check("anna", b"secret").await, granted(Some("anna"), None));
            assert_eq!(check("box", b"secret").await, granted(Some("box"), Some("pump-7")));
        }
        assert!(remembers(&access, "anna"));
        assert_eq!(check("anna", b"wrong").await, Err(Denied::Credentials), "after it was remembered");
        assert_eq!(access.check(Some("anna"), None).await, Err(Denied::Credentials));
        assert_eq!(access.check(None, None).await, Err(Denied::Anonymous));
        // The digest of one user does not open another.
        assert_ne!(access.0.digest("anna", b"secret"), access.0.digest("box", b"secret"));
    }

    #[tokio::test]
    async fn anonymous_clients_need_permission() {
        let open = access(true, None).expect("no file");
        assert_eq!(open.check(None, None).await, granted(None, None));
        assert_eq!(open.check(Some("any"), Some(b"thing")).await, granted(None, None));
        let closed = access(false, None).expect("no file");
        assert_eq!(closed.check(None, None).await, Err(Denied::Anonymous));
        assert_eq!(closed.check(Some("any"), Some(b"thing")).await, Err(Denied::Credentials));
        let (_folder, file) = file("");
        let both = access(true, Some(&file)).expect("an empty file");
        assert_eq!(both.check(None, None).await, granted(None, None));
        assert_eq!(both.check(Some("any"), Some(b"thing")).await, Err(Denied::Credentials));
    }

    #[tokio::test]
    async fn another_users_file_takes_effect_and_a_bad_one_changes_nothing() {
        let [old, new] = [b"old", b"new"].map(|password| hash_password(password).expect("hashed"));
        let (_folder, file) = file(&format!("anna:{old}\nbox:{old}\ngone:{old}\n"));
        let access = access(false, Some(&file)).expect("a valid file");
        let check = async |name, password: &[u8]| access.check(Some(name), Some(password)).await;
        assert_eq!(check("anna", b"old").await, granted(Some("anna"), None));
        assert_eq!(check("box", b"old").await, granted(Some("box"), None));

        fs::write(&file, "anna:junk\n").expect("written");
        assert!(matches!(access.reload_users(), Err(AccessError::Line { line: 1, .. })));
        fs::remove_file(&file).expect("removed");
        assert!(matches!(access.reload_users(), Err(AccessError::Unreadable { .. })));
        assert_eq!(check("gone", b"old").await, granted(Some("gone"), None));

        fs::write(&file, format!("anna:{new}\nbox:{old}:device=pump-7\n")).expect("written");
        access.reload_users().expect("a valid file");
        assert!(remembers(&access, "box") && !remembers(&access, "anna"));
        assert_eq!(check("anna", b"old").await, Err(Denied::Credentials));
        assert_eq!(check("gone", b"old").await, Err(Denied::Credentials));
        assert_eq!(check("anna", b"new").await, granted(Some("anna"), None));
        assert_eq!(check("box", b"old").await, granted(Some("box"), Some("pump-7")));
    }

    #[test]
    fn other_rules_are_in_force_at_once() {
        let access = access(true, None).expect("no file");
        let who = Who { user: None, client: "c", device: "d" };
        access.set_rules(&[]);
        assert!(access.rules().may_publish(who, "a").is_err() && !access.have_rules_changed());
        let filter = "a".parse().expect("a filter");
        access.set_rules(&[Rule { effect: Effect::Allow, action: Action::All, filter, user: None }]);
        assert!(access.rules().may_publish(who, "a").is_ok() && access.have_rules_changed());
    }

    #[test]
    fn bad_lines_are_named() {
        let hash = hash_password(b"x").expect("hashed");
        let check = |line: &str, reason: &str| {
            let (_folder, file) = file(&format!("good:{hash}\n{line}\n"));
            let error = access(false, Some(&file)).expect_err(line).to_string();
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
