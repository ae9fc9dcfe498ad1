//! A namespace in memory: sessions with messages, locks that can be lost, and a log of what was settled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::commands::amqp::{Cause, LinkError, Wish};
use crate::commands::link::cloud::{Cloud, Session};
use crate::commands::message::{Body, Disposition, LockToken, Outgoing, Received};
use crate::commands::replies::{Post, PostLink};

/// A namespace with one entity. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryCloud(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<String, Held>,
    sequence: i64,
    links: u64,
    settled: Vec<(String, Disposition)>,
    renewals: u64,
    /// Renewals are never answered.
    silent: bool,
    /// Settlements come to nothing: the lock is lost instead.
    lose_settlements: bool,
    /// Nothing but renewals is answered.
    mute: bool,
    /// How often somebody was not answered for that.
    unanswered: u64,
    lock_ms: Option<u64>,
    enqueued: BTreeMap<String, u64>,
    refusals: VecDeque<LinkError>,
    /// Entities that replies can be sent to, and what they got.
    inboxes: BTreeMap<String, Vec<Outgoing>>,
    /// They take nothing now.
    hold_replies: bool,
}

/// A link that sends to one of them.
#[derive(Debug)]
pub(super) struct MemoryPost {
    cloud: MemoryCloud,
    entity: String,
}

#[derive(Debug, Default)]
struct Held {
    messages: VecDeque<Received>,
    locked_by: Option<u64>,
    /// Whether the first message is with who holds the lock.
    out: bool,
    state: Option<Vec<u8>>,
}

/// A session of it.
#[derive(Debug)]
pub(super) struct MemorySession {
    cloud: MemoryCloud,
    session: String,
    link: u64,
    lock_ms: u64,
}

impl MemoryCloud {
    /// Puts a command for `session` behind those that are there.
    pub(super) fn send(&self, session: &str, id: &str, change: impl FnOnce(&mut Received)) {
        let mut state = self.0.state.lock();
        state.sequence += 1;
        let mut received = Received {
            lock: LockToken([0; 16]),
            sequence: state.sequence,
            enqueued_ms: service_ms(),
            delivery_count: 0,
            message_id: Some(id.to_owned()),
            session_id: Some(session.to_owned()),
            subject: Some("open".to_owned()),
            content_type: None,
            correlation_id: None,
            reply_to: None,
            reply_to_session_id: None,
            expires_ms: None,
            properties: Vec::new(),
            body: Body::Data(b"{}".to_vec()),
        };
        change(&mut received);
        state.enqueued.insert(id.to_owned(), received.enqueued_ms);
        state.sessions.entry(session.to_owned()).or_default().messages.push_back(received);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// There is an entity that replies can be sent to.
    pub(super) fn make_inbox(&self, entity: &str) {
        self.0.state.lock().inboxes.insert(entity.to_owned(), Vec::new());
    }

    /// What was sent to it.
    pub(super) fn inbox(&self, entity: &str) -> Vec<Outgoing> {
        self.0.state.lock().inboxes.get(entity).cloned().unwrap_or_default()
    }

    /// From now on such entities take nothing, or they do again.
    pub(super) fn hold_replies(&self, hold: bool) {
        self.0.state.lock().hold_replies = hold;
        self.0.changed.notify_waiters();
    }

    /// Somebody takes the first message of `session` out of the queue.
    pub(super) fn take_away(&self, session: &str) {
        let mut state = self.0.state.lock();
        state.sessions.get_mut(session).and_then(|held| held.messages.pop_front());
    }

    /// Takes the lock of `session` away from whoever has it.
    pub(super) fn lose_lock(&self, session: &str) {
        let mut state = self.0.state.lock();
        if let Some(held) = state.sessions.get_mut(session) {
            free(held);
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Locks `session` for somebody else, or frees it from them.
    pub(super) fn lock_elsewhere(&self, session: &str, locked: bool) {
        let mut state = self.0.state.lock();
        let held = state.sessions.entry(session.to_owned()).or_default();
        held.locked_by = locked.then_some(u64::MAX);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// The next accept is refused like this.
    pub(super) fn refuse(&self, error: LinkError) {
        self.0.state.lock().refusals.push_back(error);
    }

    /// What was settled, in order: message ids and what became of them.
    pub(super) fn settled(&self) -> Vec<(String, Disposition)> {
        self.0.state.lock().settled.clone()
    }

    /// How often the first message of `session` was delivered in vain.
    pub(super) fn delivery_count(&self, session: &str) -> Option<u32> {
        let state = self.0.state.lock();
        Some(state.sessions.get(session)?.messages.front()?.delivery_count)
    }

    pub(super) fn is_locked(&self, session: &str) -> bool {
        self.0.state.lock().sessions.get(session).is_some_and(|held| held.locked_by.is_some())
    }

    /// How many renewals were asked for.
    pub(super) fn renewals(&self) -> u64 {
        self.0.state.lock().renewals
    }

    /// From now on renewals are not answered.
    pub(super) fn answer_no_renewals(&self) {
        self.0.state.lock().silent = true;
    }

    /// From now on settlements and questions about the state of sessions are not answered, or they are again; also those
    /// that came meanwhile.
    pub(super) fn mute(&self, mute: bool) {
        self.0.state.lock().mute = mute;
        self.0.changed.notify_waiters();
    }

    /// How many were not answered at once.
    pub(super) fn unanswered(&self) -> u64 {
        self.0.state.lock().unanswered
    }

    /// Waits while nothing is answered.
    async fn answering(&self) {
        let mut counted = false;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.0.state.lock();
                if !state.mute {
                    return;
                }
                state.unanswered += u64::from(!std::mem::replace(&mut counted, true));
            }
            changed.await;
        }
    }

    /// How often a session was given to somebody.
    pub(super) fn accepts(&self) -> u64 {
        self.0.state.lock().links
    }

    /// From now on settlements do not arrive: whoever sends one loses the lock. Or they do again.
    pub(super) fn lose_settlements(&self, lose: bool) {
        self.0.state.lock().lose_settlements = lose;
    }

    /// How long locks last that are given from now on.
    pub(super) fn set_lock_ms(&self, lock_ms: u64) {
        self.0.state.lock().lock_ms = Some(lock_ms);
    }

    pub(super) fn enqueued_ms(&self, id: &str) -> u64 {
        self.0.state.lock().enqueued[id]
    }

    pub(super) fn keep_state(&self, session: &str, kept: Vec<u8>) {
        self.0.state.lock().sessions.entry(session.to_owned()).or_default().state = Some(kept);
    }

    pub(super) fn state_of(&self, session: &str) -> Option<Vec<u8>> {
        self.0.state.lock().sessions.get(session)?.state.clone()
    }

    /// Waits until `met` holds of the log of what was settled.
    pub(super) async fn until(&self, met: impl Fn(&[(String, Disposition)]) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if met(&self.0.state.lock().settled) {
                return;
            }
            changed.await;
        }
    }

    fn try_lock(&self, wish: &Wish<'_>) -> Option<Result<MemorySession, LinkError>> {
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        if let Some(error) = state.refusals.pop_front() {
            return Some(Err(error));
        }
        let session = match wish {
            Wish::Session(session) => (*session).to_owned(),
            Wish::Next { .. } => {
                let free = |held: &&Held| held.locked_by.is_none() && !held.messages.is_empty();
                state.sessions.iter().find(|(_, held)| free(held))?.0.clone()
            }
        };
        let held = state.sessions.entry(session.clone()).or_default();
        if held.locked_by.is_some() {
            return Some(Err(locked()));
        }
        state.links += 1;
        held.locked_by = Some(state.links);
        let lock_ms = state.lock_ms.unwrap_or(60_000);
        Some(Ok(MemorySession { cloud: self.clone(), session, link: state.links, lock_ms }))
    }
}

/// The lock is over: what was out comes again, and counts as failed.
fn free(held: &mut Held) {
    held.locked_by = None;
    if std::mem::take(&mut held.out)
        && let Some(first) = held.messages.front_mut()
    {
        first.delivery_count += 1;
    }
}

/// The clock of the service, which nobody sets.
#[expect(clippy::disallowed_methods, reason = "the clock of the process is set by tests")]
fn service_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since_epoch.as_millis()).expect("it is before the end of time")
}

fn cause(condition: &str) -> Cause {
    Cause { condition: condition.to_owned(), text: String::new(), retry_after: None }
}

fn lock_lost() -> LinkError {
    LinkError::LockLost(cause("com.microsoft:session-lock-lost"))
}

/// How a session is refused that somebody else holds.
pub(super) fn locked() -> LinkError {
    LinkError::Locked(cause("com.microsoft:session-cannot-be-locked"))
}

impl Cloud for MemoryCloud {
    type Session = MemorySession;

    async fn accept(&self, _entity: &str, wish: Wish<'_>) -> Result<MemorySession, LinkError> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(result) = self.try_lock(&wish) {
                return result;
            }
            changed.await;
        }
    }
}

impl MemorySession {
    /// Does something with the session if its lock is ours.
    fn with<T>(&self, act: impl FnOnce(&mut Held) -> T) -> Result<T, LinkError> {
        let mut state = self.cloud.0.state.lock();
        let held = state.sessions.get_mut(&self.session).ok_or_else(lock_lost)?;
        if held.locked_by == Some(self.link) { Ok(act(held)) } else { Err(lock_lost()) }
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        // Closed without settling: the delivery does not count.
        drop(self.with(|held| (held.locked_by, held.out) = (None, false)));
        self.cloud.0.changed.notify_waiters();
    }
}

impl Session for MemorySession {
    fn session(&self) -> &str {
        &self.session
    }

    fn locked_until_ms(&self) -> u64 {
        service_ms() + self.lock_ms
    }

    async fn receive(&mut self) -> Result<Received, LinkError> {
        loop {
            let cloud = self.cloud.clone();
            let changed = cloud.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = self.with(|held| {
                assert!(!held.out, "a command was asked for while one is in hand");
                let first = held.messages.front().cloned()?;
                held.out = true;
                Some(first)
            })?;
            if let Some(received) = next {
                return Ok(received);
            }
            changed.await;
        }
    }

    async fn lost(&mut self) -> LinkError {
        loop {
            let cloud = self.cloud.clone();
            let changed = cloud.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Err(error) = self.with(|_| ()) {
                return error;
            }
            changed.await;
        }
    }

    async fn settle(&mut self, _lock: LockToken, disposition: &Disposition) -> Result<(), LinkError> {
        self.cloud.answering().await;
        if self.cloud.0.state.lock().lose_settlements {
            self.cloud.lose_lock(&self.session);
            return Err(lock_lost());
        }
        let id = self.with(|held| {
            assert!(held.out, "nothing is in hand");
            held.out = false;
            let first = held.messages.front_mut().expect("it is in hand");
            first.delivery_count += 1;
            let id = first.message_id.clone().unwrap_or_default();
            if *disposition != Disposition::Abandon {
                held.messages.pop_front();
            }
            id
        })?;
        self.cloud.0.state.lock().settled.push((id, disposition.clone()));
        self.cloud.0.changed.notify_waiters();
        Ok(())
    }

    async fn renew(&mut self) -> Result<u64, LinkError> {
        self.with(|_| ())?;
        let silent = {
            let mut state = self.cloud.0.state.lock();
            state.renewals += 1;
            state.silent
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(service_ms() + self.lock_ms)
    }

    async fn state(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        self.cloud.answering().await;
        self.with(|held| held.state.clone())
    }

    async fn set_state(&mut self, state: Option<&[u8]>) -> Result<(), LinkError> {
        self.cloud.answering().await;
        self.with(|held| held.state = state.map(<[u8]>::to_vec))
    }

    async fn close(self) {
        drop(self);
    }
}

impl Post for MemoryCloud {
    type Link = MemoryPost;

    async fn open(&self, entity: &str) -> Result<MemoryPost, LinkError> {
        let known = self.0.state.lock().inboxes.contains_key(entity);
        if known {
            Ok(MemoryPost { cloud: self.clone(), entity: entity.to_owned() })
        } else {
            Err(LinkError::NotFound(cause("amqp:not-found")))
        }
    }
}

impl PostLink for MemoryPost {
    type Taking = std::future::Ready<Result<(), LinkError>>;

    async fn send(&mut self, message: Outgoing) -> Result<Self::Taking, LinkError> {
        loop {
            let changed = self.cloud.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.cloud.0.state.lock();
                if !state.hold_replies
                    && let Some(inbox) = state.inboxes.get_mut(&self.entity)
                {
                    inbox.push(message);
                    drop(state);
                    self.cloud.0.changed.notify_waiters();
                    return Ok(std::future::ready(Ok(())));
                }
            }
            changed.await;
        }
    }

    async fn close(self) {
        drop(self);
    }
}
