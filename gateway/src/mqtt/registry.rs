//! Which clients there are: their connection and their session, by client id.
//!
//! A CONNECT claims its client id first, which tells an older connection to go; when that is gone,
//! what it submitted settled, the session is the new connection's. Two devices that share a client
//! id would throw each other out for ever: each take-over soon after the last waits longer.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::link::{Link, Signal};
use super::session::Session;

const SHARDS: usize = 16;
/// Take-overs in a row that cost nothing.
const FREE_TAKE_OVERS: u8 = 3;
/// Ticks after which a take-over is not in a row with the last.
const IN_A_ROW_TICKS: u32 = 30;
/// Longest wait for a take-over, in ticks.
const PAUSE_TICKS_MAX: u32 = 8;

/// Every client id with a connection or a session.
#[derive(Debug)]
pub(super) struct Registry {
    hasher: RandomState,
    shards: [Mutex<Clients>; SHARDS],
    connected: AtomicUsize,
    next_session: AtomicU64,
    next_message: AtomicU64,
}

type Clients = HashMap<Arc<str>, Entry>;

/// What there is of a client id; something, or the entry goes.
#[derive(Debug, Default)]
struct Entry {
    link: Option<Arc<Link>>,
    session: Option<Arc<Session>>,
    /// As whom the connection logged in.
    user: Option<Arc<str>>,
    take_overs: u8,
    taken_over_at: u32,
}

/// A claimed client id.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) link: Arc<Link>,
    /// The connection that had it, which was told to go.
    pub(super) older: Option<Arc<Link>>,
}

/// The client id belongs to somebody who logged in under another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign;

// === impl Registry ===

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
            connected: AtomicUsize::new(0),
            next_session: AtomicU64::new(1),
            next_message: AtomicU64::new(1),
        }
    }

    /// How many ticks a CONNECT for this client id has to wait before it may take over.
    pub(super) fn pause_ticks(&self, client: &str, now: u32) -> u32 {
        let clients = self.shard(client).lock();
        let Some(entry) = clients.get(client).filter(|entry| entry.link.is_some()) else { return 0 };
        let in_a_row = now.saturating_sub(entry.taken_over_at) < IN_A_ROW_TICKS;
        match entry.take_overs.checked_sub(FREE_TAKE_OVERS) {
            Some(above) if in_a_row => (1 << above.min(5)).min(PAUSE_TICKS_MAX),
            _ => 0,
        }
    }

    /// Claims a client id for a new connection.
    pub(super) fn claim(&self, client: &str, user: Option<&Arc<str>>, now: u32) -> Result<Claim, Foreign> {
        let mut clients = self.shard(client).lock();
        let client =
            clients.get_key_value(client).map_or_else(|| client.into(), |(known, _)| Arc::clone(known));
        let entry = clients.entry(Arc::clone(&client)).or_default();
        let owner = entry.session.as_ref().map_or(entry.user.as_ref(), |session| session.user());
        if (entry.link.is_some() || entry.session.is_some()) && owner != user {
            return Err(Foreign);
        }
        let link = Arc::new(Link::new(client));
        let older = entry.link.replace(Arc::clone(&link));
        entry.user = user.cloned();
        match &older {
            None => drop(self.connected.fetch_add(1, Ordering::Relaxed)),
            Some(older) => {
                older.raise(Signal::TakenOver);
                let in_a_row = now.saturating_sub(entry.taken_over_at) < IN_A_ROW_TICKS;
                entry.take_overs = if in_a_row { entry.take_overs.saturating_add(1) } else { 1 };
                entry.taken_over_at = now;
            }
        }
        Ok(Claim { link, older })
    }

    /// A connection is over; once per connection.
    pub(super) fn leave(&self, link: &Link) {
        {
            let mut clients = self.shard(link.client()).lock();
            if let Some(entry) = clients.get_mut(&**link.client())
                && entry.link.as_ref().is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), link))
            {
                entry.link = None;
                self.connected.fetch_sub(1, Ordering::Relaxed);
                if entry.session.is_none() {
                    clients.remove(&**link.client());
                }
            }
        }
        link.leave();
    }

    /// The session of a client id.
    pub(super) fn session(&self, client: &str) -> Option<Arc<Session>> {
        self.shard(client).lock().get(client)?.session.clone()
    }

    /// Makes `session` that of its client id.
    pub(super) fn set_session(&self, session: &Arc<Session>) {
        let client = session.client();
        let mut clients = self.shard(client).lock();
        clients.entry(Arc::clone(client)).or_default().session = Some(Arc::clone(session));
    }

    /// Takes a session out, unless another one has its place. With `idle` only if no connection claims
    /// it. Says whether it was taken out.
    pub(super) fn forget_session(&self, session: &Session, idle: bool) -> bool {
        let client = session.client();
        let mut clients = self.shard(client).lock();
        let Some(entry) = clients.get_mut(&**client) else { return false };
        let same = entry.session.as_ref().is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), session));
        if !same || (idle && entry.link.is_some()) {
            return false;
        }
        entry.session = None;
        if entry.link.is_none() {
            clients.remove(&**client);
        }
        true
    }

    /// Whether a client is connected.
    pub(super) fn contains(&self, client: &str) -> bool {
        self.shard(client).lock().get(client).is_some_and(|entry| entry.link.is_some())
    }

    /// How many clients are connected.
    pub(super) fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Raises a signal on every connection.
    pub(super) fn raise_all(&self, signal: Signal) {
        for shard in &self.shards {
            let links: Vec<_> = shard.lock().values().filter_map(|entry| entry.link.clone()).collect();
            for link in links {
                link.raise(signal);
            }
        }
    }

    /// A number for a new session; never one that the store knows.
    pub(super) fn next_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a new message; never one that the store knows.
    pub(super) fn next_message(&self) -> u64 {
        self.next_message.fetch_add(1, Ordering::Relaxed)
    }

    /// Numbers begin above those that the store knows.
    pub(super) fn number_above(&self, session: u64, message: u64) {
        self.next_session.fetch_max(session.saturating_add(1), Ordering::Relaxed);
        self.next_message.fetch_max(message.saturating_add(1), Ordering::Relaxed);
    }

    fn shard(&self, client: &str) -> &Mutex<Clients> {
        let hash = self.hasher.hash_one(client);
        let place = usize::try_from(hash % 16).unwrap_or(0);
        self.shards.get(place).unwrap_or(&self.shards[0])
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Client;
    use super::*;

    fn claim(registry: &Registry, client: &str) -> Claim {
        registry.claim(client, None, 0).expect("free for everybody")
    }

    #[test]
    fn nothing_is_left_when_everybody_left() {
        let registry = Registry::new();
        let one = claim(&registry, "a");
        assert!(one.older.is_none());
        let two = claim(&registry, "a");
        assert!(two.older.is_some_and(|older| Arc::ptr_eq(&older, &one.link)));
        assert!(one.link.is_raised(Signal::TakenOver) && !two.link.is_raised(Signal::TakenOver));
        let three = claim(&registry, "b");
        assert_eq!(registry.connected(), 2);
        registry.leave(&one.link);
        assert!(registry.contains("a"), "the older connection does not take the newer one out");
        registry.leave(&three.link);
        registry.leave(&two.link);
        assert_eq!(registry.connected(), 0);
        assert!(registry.is_empty());
    }

    #[test]
    fn a_session_stays_and_is_its_users() {
        let registry = Registry::new();
        let (anna, bob) = (Some(Arc::<str>::from("anna")), Some(Arc::<str>::from("bob")));
        let first = registry.claim("a", anna.as_ref(), 0).expect("nobody has it");
        assert_eq!(registry.claim("a", bob.as_ref(), 0).err(), Some(Foreign), "anna's connection");
        let client = Client { id: "a".into(), device: "a".into(), user: anna.clone() };
        let session = Arc::new(Session::new(registry.next_session(), client));
        registry.set_session(&session);
        registry.leave(&first.link);
        assert!(!registry.contains("a") && registry.session("a").is_some());
        assert_eq!(registry.claim("a", bob.as_ref(), 0).err(), Some(Foreign), "anna's session");
        let second = registry.claim("a", anna.as_ref(), 0).expect("her own");
        assert!(second.older.is_none());
        assert!(!registry.forget_session(&session, true), "a connection claims it");
        registry.leave(&second.link);
        assert!(registry.forget_session(&session, true));
        assert!(registry.is_empty());
    }

    #[test]
    fn take_overs_in_a_row_wait_longer_and_longer() {
        let registry = Registry::new();
        let _first = claim(&registry, "a");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(registry.pause_ticks("a", 5));
            drop(registry.claim("a", None, 5));
        }
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 8]);
        assert_eq!(registry.pause_ticks("a", 5 + IN_A_ROW_TICKS), 0);
        assert_eq!(registry.pause_ticks("b", 5), 0);
    }
}
