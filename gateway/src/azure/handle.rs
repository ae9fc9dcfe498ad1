//! The newest token of a service, for everything that signs in there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::cloud::Audience;
use super::source::Token;
use crate::supervise::clock;

/// The tokens of one service. Empty until [`super::start`] was called for it and the first token came. Clones
/// share the same token. `Debug` shows the service only.
#[derive(Clone)]
pub struct TokenHandle(Arc<Inner>);

struct Inner {
    audience: Audience,
    state: Mutex<State>,
    arrived: Condvar,
    /// Somebody wants another token before its time.
    wanted: Notify,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    fetched_at: Option<Instant>,
    /// How the service's refusals were answered so far.
    refusals: Refusals,
    fetched: u64,
    failures: u32,
    failure: Option<String>,
}

/// Refusals of tokens that live, each of which had another token fetched.
#[derive(Debug, Clone, Copy, Default)]
struct Refusals {
    newest: Option<Instant>,
    /// Refusals that came without a quiet time between them.
    count: u32,
    /// A token is being fetched because of the newest.
    pending: bool,
}

/// A token to sign in with.
pub(crate) struct Bearer {
    /// The secret itself.
    pub(crate) token: String,
    /// How long it lives from now; above zero.
    pub(crate) life: Duration,
}

/// There is no token that lives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoToken {
    /// None came yet.
    #[error("no token for {audience} yet: {reason}")]
    Yet {
        /// The service's host.
        audience: String,
        /// The last failure.
        reason: String,
    },
    /// The last one is over.
    #[error("the token for {audience} has expired: {reason}")]
    Expired {
        /// The service's host.
        audience: String,
        /// Why it was not renewed.
        reason: String,
    },
}

/// What operators see of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus {
    /// The host of the service.
    pub audience: String,
    /// How long the token lives; `None` without one that does.
    pub life: Option<Duration>,
    /// Tokens fetched since the start.
    pub fetched: u64,
    /// Failures since the last token came.
    pub failures: u32,
    /// The last failure, if none came since.
    pub last_error: Option<String>,
}

/// A token younger than this is not renewed because the service refused it: then another reason is likelier, for
/// instance that a client still shows the one before.
const REFUSED_AGE_MIN: Duration = Duration::from_secs(10);
/// The age doubles with each refusal up to this: a service that refuses every token does not cost one each time.
const REFUSED_AGE_MAX: Duration = Duration::from_secs(640);
/// A time without any refusal after which they are forgotten.
const REFUSED_QUIET: Duration = Duration::from_secs(1800);

// === impl TokenHandle ===

impl fmt::Debug for TokenHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenHandle").field("audience", &self.0.audience).finish_non_exhaustive()
    }
}

impl TokenHandle {
    /// An empty one.
    #[must_use]
    pub fn new(audience: Audience) -> Self {
        Self(Arc::new(Inner {
            audience,
            state: Mutex::default(),
            arrived: Condvar::new(),
            wanted: Notify::new(),
        }))
    }

    /// The service it is for.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        &self.0.audience
    }

    /// The newest token. Never waits.
    ///
    /// # Errors
    ///
    /// [`NoToken`] with the reason.
    pub(crate) fn bearer(&self) -> Result<Bearer, NoToken> {
        let state = self.0.state.lock();
        let token = state.token.as_ref().ok_or_else(|| self.none_yet(&state))?;
        let life = token.life(clock::now());
        if life.is_zero() {
            return Err(NoToken::Expired {
                audience: self.0.audience.host().to_owned(),
                reason: reason(&state),
            });
        }
        Ok(Bearer { token: token.secret().to_owned(), life })
    }

    /// Whether a token came yet, be it over or not.
    ///
    /// # Errors
    ///
    /// [`NoToken::Yet`] with the reason.
    pub(crate) fn came(&self) -> Result<(), NoToken> {
        let state = self.0.state.lock();
        if state.token.is_some() { Ok(()) } else { Err(self.none_yet(&state)) }
    }

    /// Waits for the first token, at most for `timeout`. Blocks; for threads that have nothing else to do.
    ///
    /// # Errors
    ///
    /// [`NoToken::Yet`] with the reason.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<(), NoToken> {
        let mut state = self.0.state.lock();
        let waiting = |state: &mut State| state.token.is_none();
        self.0.arrived.wait_while_for(&mut state, waiting, timeout);
        if state.token.is_some() { Ok(()) } else { Err(self.none_yet(&state)) }
    }

    /// The service refused the token although it lives: it may have been revoked, so another one is fetched before
    /// the time, unless the token is new or fetching fails already.
    pub(crate) fn refused(&self) {
        self.refused_at(clock::now());
    }

    fn refused_at(&self, now: Instant) {
        let mut state = self.0.state.lock();
        let Some(fetched_at) = state.fetched_at else { return };
        if state.failures == 0 && state.refusals.count_in(now, now.saturating_duration_since(fetched_at)) {
            self.0.wanted.notify_one();
        }
    }

    /// The token at this moment.
    #[must_use]
    pub fn status(&self) -> TokenStatus {
        let state = self.0.state.lock();
        let life = state.token.as_ref().map(|token| token.life(clock::now()));
        TokenStatus {
            audience: self.0.audience.host().to_owned(),
            life: life.filter(|life| !life.is_zero()),
            fetched: state.fetched,
            failures: state.failures,
            last_error: state.failure.clone(),
        }
    }

    /// Waits until another token is wanted before its time.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a wish that nobody heard stays.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    pub(super) fn store(&self, token: Token, now: Instant) {
        let mut state = self.0.state.lock();
        *state = State {
            token: Some(token),
            fetched_at: Some(now),
            refusals: Refusals { pending: false, ..state.refusals },
            fetched: state.fetched + 1,
            failures: 0,
            failure: None,
        };
        self.0.arrived.notify_all();
    }

    /// Puts a token there as if it had been fetched now.
    #[cfg(test)]
    pub(crate) fn put(&self, secret: &str, life: Duration) {
        let now = clock::now();
        self.store(Token::new(secret.to_owned(), now + life).unwrap(), now);
    }

    pub(super) fn fail(&self, reason: String) {
        let mut state = self.0.state.lock();
        state.failures = state.failures.saturating_add(1);
        state.failure = Some(reason);
    }

    fn none_yet(&self, state: &State) -> NoToken {
        NoToken::Yet { audience: self.0.audience.host().to_owned(), reason: reason(state) }
    }
}

// === impl Refusals ===

impl Refusals {
    /// Whether a refusal at `now` of a token of this age is worth another token; notes it if so.
    fn count_in(&mut self, now: Instant, age: Duration) -> bool {
        let quiet = self.newest.is_none_or(|newest| now.saturating_duration_since(newest) >= REFUSED_QUIET);
        let count = if quiet { 0 } else { self.count };
        let age_min = REFUSED_AGE_MIN.saturating_mul(1 << count.min(16)).min(REFUSED_AGE_MAX);
        let worth = !self.pending && age >= age_min;
        if worth {
            *self = Self { newest: Some(now), count: count + 1, pending: true };
        }
        worth
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("life", &self.life).finish_non_exhaustive()
    }
}

fn reason(state: &State) -> String {
    state.failure.clone().unwrap_or_else(|| "it is being fetched".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "contoso.servicebus.windows.net";

    fn token(secret: &str, life: Duration) -> Token {
        Token::new(secret.to_owned(), clock::now() + life).unwrap()
    }

    #[test]
    fn a_failure_keeps_the_token_while_it_lives_and_says_why() {
        let handle = TokenHandle::new(Audience::namespace(HOST));
        let error = handle.bearer().unwrap_err().to_string();
        assert_eq!(error, format!("no token for {HOST} yet: it is being fetched"));
        handle.fail("the door is closed".to_owned());
        let error = handle.came().unwrap_err().to_string();
        assert_eq!(error, format!("no token for {HOST} yet: the door is closed"));

        handle.store(token("first", Duration::from_secs(60)), clock::now());
        handle.fail("the door is closed again".to_owned());
        assert_eq!(handle.bearer().unwrap().token, "first");
        let status = handle.status();
        assert_eq!((status.fetched, status.failures), (1, 1));
        assert_eq!(status.last_error.as_deref(), Some("the door is closed again"));
        assert!(status.life.is_some_and(|life| life > Duration::from_secs(50)));

        handle.store(token("second", Duration::ZERO), clock::now());
        let error = handle.bearer().unwrap_err().to_string();
        assert_eq!(error, format!("the token for {HOST} has expired: it is being fetched"));
        assert_eq!((handle.came(), handle.status().life), (Ok(()), None));
    }

    #[test]
    fn whoever_waits_gets_the_first_token() {
        let handle = TokenHandle::new(Audience::namespace(HOST));
        assert!(handle.wait(Duration::from_millis(1)).is_err());
        let waiting = handle.clone();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(move || waiting.wait(Duration::from_secs(30)));
            handle.store(token("first", Duration::from_secs(60)), clock::now());
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    }

    #[tokio::test]
    async fn a_refused_token_is_renewed_unless_it_is_new_or_renewing_fails() {
        let is_wanted = async |handle: &TokenHandle| {
            tokio::time::timeout(Duration::from_millis(1), handle.wanted()).await.is_ok()
        };
        let now = clock::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let handle = TokenHandle::new(Audience::namespace(HOST));
        handle.refused_at(now);
        assert!(!is_wanted(&handle).await, "nothing was fetched yet");
        handle.store(token("first", Duration::from_secs(3600)), now);
        handle.refused_at(later(9));
        assert!(!is_wanted(&handle).await, "it is new");
        handle.refused_at(later(10));
        handle.refused_at(later(11));
        assert!(is_wanted(&handle).await);
        assert!(!is_wanted(&handle).await, "one refusal after the other wants one token");
        handle.store(token("second", Duration::from_secs(3600)), later(11));
        handle.refused_at(later(30));
        assert!(!is_wanted(&handle).await, "another one did not help, so it takes longer");
        handle.refused_at(later(31));
        assert!(is_wanted(&handle).await);
        handle.store(token("third", Duration::from_secs(3600)), later(2000));
        handle.refused_at(later(2010));
        assert!(is_wanted(&handle).await, "a quiet time came between");
        handle.store(token("fourth", Duration::from_secs(3600)), later(2010));
        handle.fail("the door is closed".to_owned());
        handle.refused_at(later(4000));
        assert!(!is_wanted(&handle).await, "the next try comes in its time");
    }

    #[test]
    fn nothing_shows_the_secret() {
        let handle = TokenHandle::new(Audience::namespace(HOST));
        handle.store(token("c2VjcmV0", Duration::from_secs(60)), clock::now());
        let shown = format!("{handle:?} {:?} {:?}", handle.bearer().unwrap(), handle.status());
        assert!(shown.contains(HOST) && !shown.contains("c2VjcmV0"), "{shown}");
    }
}
