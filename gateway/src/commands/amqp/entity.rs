//! An entity on one connection: the token that opens it, kept fresh, and its `$management`.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp_types::primitives::{SimpleValue, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::carrier::{Begins, Shared};
use super::credential::Token;
use super::error::{Cause, LinkError};
use super::exchange::{Exchange, Request};
use super::schedule::Renewal;
use crate::commands::metrics::Metrics;
use crate::supervise::Phase;

/// An entity on one connection. Its token is renewed until this is dropped.
pub(super) struct Entity {
    access: watch::Receiver<Access>,
    /// Somebody was refused although the token lives.
    refused: Arc<Notify>,
    pub(super) management: Exchange,
}

/// Whether the entity may be used on this connection.
#[derive(Debug, Clone)]
enum Access {
    /// The first token is on its way.
    Asking,
    /// So many tokens were taken.
    Granted(u64),
    /// The newest was not taken, and none before lives. So many tries were made.
    Denied(u64, LinkError),
}

/// Which token somebody relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reliance(u64);

/// The task that keeps a token fresh.
struct Keeper {
    shared: Arc<Shared>,
    tokens: Arc<Exchange>,
    audience: String,
    refused: Arc<Notify>,
    renewal: Renewal,
    tries: u64,
}

/// How long `$cbs` may take.
const PUT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long somebody waits for a token to be taken.
const ACCESS_TIMEOUT: Duration = Duration::from_secs(20);

// === impl Entity ===

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entity").field("management", &self.management).finish_non_exhaustive()
    }
}

impl Entity {
    /// An entity whose token is put at once.
    pub(super) fn start(
        address: &str,
        shared: &Arc<Shared>,
        begins: &Begins,
        tokens: &Arc<Exchange>,
    ) -> Self {
        let (granted, access) = watch::channel(Access::Asking);
        let refused = Arc::new(Notify::new());
        let keeper = Keeper {
            shared: Arc::clone(shared),
            tokens: Arc::clone(tokens),
            audience: format!("sb://{}/{address}", shared.dialer.host()),
            refused: Arc::clone(&refused),
            renewal: Renewal::default(),
            tries: 0,
        };
        let (names, tasks) = (shared.names.clone(), shared.tasks.clone());
        tasks.spawn(keeper.run(granted));
        let management = Exchange::new(format!("{address}/$management"), begins.clone(), names, tasks);
        Self { access, refused, management }
    }

    /// Waits until the service took a token for the entity.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it holds no state.
    pub(super) async fn authorized(&self) -> Result<Reliance, LinkError> {
        self.wait(|access| !matches!(access, Access::Asking)).await
    }

    /// Has another token put because the service refused somebody who relied on this one, and waits until it is taken.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the token is put all the same.
    pub(super) async fn authorized_anew(&self, reliance: Reliance) -> Result<(), LinkError> {
        self.refused(reliance);
        let newer = |access: &Access| access.tries().is_some_and(|tries| tries != reliance.0);
        self.wait(newer).await.map(drop)
    }

    /// Has another token put, unless that happened since.
    pub(super) fn refused(&self, reliance: Reliance) {
        if self.access.borrow().tries() == Some(reliance.0) {
            self.refused.notify_one();
        }
    }

    /// Has another token put: a link was ended for want of one.
    pub(super) fn unauthorized(&self) {
        self.refused.notify_one();
    }

    async fn wait(&self, known: impl Fn(&Access) -> bool) -> Result<Reliance, LinkError> {
        let mut access = self.access.clone();
        let waiting = access.wait_for(|access| known(access));
        match timeout(ACCESS_TIMEOUT, waiting).await {
            Ok(Ok(access)) => match &*access {
                Access::Denied(_, error) => Err(error.clone()),
                Access::Granted(tries) => Ok(Reliance(*tries)),
                Access::Asking => Err(LinkError::lost("no token was put")),
            },
            Ok(Err(_)) => Err(LinkError::lost("the connection ended")),
            Err(_) => Err(LinkError::TimedOut(Cause::local("the service did not take a token in time"))),
        }
    }
}

impl Access {
    const fn tries(&self) -> Option<u64> {
        match self {
            Self::Asking => None,
            Self::Granted(tries) | Self::Denied(tries, _) => Some(*tries),
        }
    }
}

// === impl Keeper ===

impl Keeper {
    async fn run(mut self, access: watch::Sender<Access>) -> Result<(), Infallible> {
        let stopped = self.shared.tasks.shutdown();
        let stopped = stopped.reached(Phase::Close);
        tokio::pin!(stopped);
        // Until when the last token lives that was taken.
        let mut alive_until = None;
        loop {
            let put = tokio::select! {
                put = self.put() => put,
                () = access.closed() => return Ok(()),
                () = stopped.as_mut() => return Ok(()),
            };
            self.tries += 1;
            let now = tokio::time::Instant::now();
            let pause = match put {
                Ok(life) => {
                    alive_until = now.checked_add(life);
                    access.send_replace(Access::Granted(self.tries));
                    self.renewal.granted(life, rand::random())
                }
                Err(error) => {
                    Metrics::token_failed(error.word());
                    let pause = self.renewal.refused(error.retry_after(), rand::random());
                    let (audience, again_s) = (self.audience.as_str(), pause.as_secs());
                    tracing::warn!(audience, %error, again_s, "the service did not take the token; trying again");
                    if alive_until.is_none_or(|until| until <= now) {
                        access.send_replace(Access::Denied(self.tries, error));
                    }
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.refused.notified() => {}
                () = access.closed() => return Ok(()),
                () = stopped.as_mut() => return Ok(()),
            }
        }
    }

    /// Puts a token and returns how long it lives.
    async fn put(&self) -> Result<Duration, LinkError> {
        let Token { kind, secret, life } = self.shared.credential.token(&self.audience)?;
        let request = Request {
            operation: "put-token",
            properties: vec![
                ("type", SimpleValue::String(kind.to_owned())),
                ("name", SimpleValue::String(self.audience.clone())),
            ],
            body: Value::String(secret),
        };
        let put = self.tokens.call(request, PUT_TIMEOUT).await;
        if let Err(LinkError::Refused(_)) = &put {
            self.shared.credential.refused();
        }
        put.map(|_| life)
    }
}
