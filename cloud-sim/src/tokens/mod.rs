//! Microsoft Entra as far as a client of Event Hubs meets it: endpoints that hand out tokens, and the check of a token
//! that a Kafka client shows.
//!
//! A token names its audience and its end, and carries a checksum over both and a number that is kept in
//! the data directory; so it outlives a restart, as real ones do. The checksum keeps mistakes out and nobody else.

mod claims;
mod control;
mod endpoints;
mod message;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub(crate) use self::control::router as control;
pub(crate) use self::endpoints::Endpoints;
use crate::broker::Broker;
use crate::error::Error;
use claims::Claims;

/// How long real tokens live.
pub const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(3600);

/// The resource of Service Bus in every namespace.
const SERVICE_BUS: &str = "https://servicebus.azure.net";
/// The resource of Event Grid, for topics, domains and namespaces.
const EVENT_GRID: &str = "https://eventgrid.azure.net";

/// Who gets tokens, and what for.
#[derive(Clone)]
pub struct OAuth {
    /// Where the token endpoints listen: the metadata service of a machine, and a tenant.
    pub listener: SocketAddr,
    /// The host of the namespace that this broker is, for instance `contoso.servicebus.windows.net`.
    pub audience: String,
    /// The tenant's id.
    pub tenant: String,
    /// The only identity there is.
    pub client_id: String,
    /// The secret it may show; without it no secret is right.
    pub secret: Option<String>,
    /// The file with the assertion it may show, read at each request; without it no assertion is right.
    pub assertion_file: Option<PathBuf>,
    /// How long tokens live.
    pub life: Duration,
}

/// Everything but the secret.
impl std::fmt::Debug for OAuth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OAuth")
            .field("listener", &self.listener)
            .field("audience", &self.audience)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl OAuth {
    /// Tenant that tests and the command line use if they need no other.
    pub const TENANT: &str = "11111111-1111-4111-8111-111111111111";
    /// Identity that tests and the command line use if they need no other.
    pub const CLIENT_ID: &str = "22222222-2222-4222-8222-222222222222";
    /// Namespace that tests and the command line use if they need no other.
    pub const AUDIENCE: &str = "cloud-sim.servicebus.windows.net";

    /// A free port of 127.0.0.1, tokens that live for an hour, and neither secret nor assertion.
    #[must_use]
    pub fn new() -> Self {
        Self {
            listener: SocketAddr::from(([127, 0, 0, 1], 0)),
            audience: Self::AUDIENCE.to_owned(),
            tenant: Self::TENANT.to_owned(),
            client_id: Self::CLIENT_ID.to_owned(),
            secret: None,
            assertion_file: None,
            life: TOKEN_LIFE_DEFAULT,
        }
    }
}

impl Default for OAuth {
    fn default() -> Self {
        Self::new()
    }
}

/// What the endpoints and the connections share.
#[derive(Debug)]
pub(crate) struct Tokens {
    settings: OAuth,
    broker: Arc<Broker>,
    /// Goes into the checksum.
    key: u64,
    /// Requests for tokens that are still to fail.
    failing: AtomicU64,
    /// Tokens issued up to this time are worth nothing.
    revoked_ms: AtomicU64,
    /// Changes when that does.
    revocations: watch::Sender<()>,
}

/// A token that was issued.
struct Issued {
    token: String,
    expires_ms: u64,
}

/// A token that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How long it still lives; above zero.
    pub(crate) life: Duration,
}

impl Tokens {
    /// Reads the number for checksums in `data`, or makes one.
    pub(crate) fn open(settings: OAuth, data: &Path, broker: Arc<Broker>) -> Result<Self, Error> {
        let path = data.join("token-key");
        let failed = |source| Error::Data { path: path.clone(), source };
        let known = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let key = match known {
            Some(key) => key,
            None => {
                let key: u64 = rand::random();
                fs::write(&path, key.to_string()).map_err(failed)?;
                key
            }
        };
        let (failing, revoked_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        let revocations = watch::Sender::new(());
        Ok(Self { settings, broker, key, failing, revoked_ms, revocations })
    }

    /// A token for `resource`, which is one of [`Self::resources`].
    fn issue(&self, resource: String) -> Issued {
        let now_ms = unix_ms();
        let life_ms = u64::try_from(self.settings.life.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now_ms.saturating_add(life_ms);
        let claims = Claims {
            audience: resource,
            client_id: self.settings.client_id.clone(),
            issued_ms: now_ms,
            expires_ms,
        };
        self.broker.counters.tokens_issued.add(1);
        Issued { token: claims.sign(self.key), expires_ms }
    }

    /// As the control API orders it.
    #[cfg(test)]
    pub(crate) fn revoke_all(&self) {
        self.revoke();
    }

    /// A token as the endpoints give it.
    #[cfg(test)]
    pub(crate) fn token(&self, resource: &str) -> String {
        self.issue(resource.to_owned()).token
    }

    /// Judges the first message of an OAUTHBEARER exchange.
    pub(crate) fn judge(&self, message: &[u8]) -> Result<Taken, &'static str> {
        let token = message::token(message).ok_or("the message is not one of RFC 7628")?;
        let [namespace, _, _] = self.resources();
        self.judge_token(token, &[namespace])
    }

    /// Judges a token that a client of the Service Bus side puts. It may be for the namespace or for the service.
    pub(crate) fn judge_service_bus(&self, token: &str) -> Result<Taken, &'static str> {
        let [namespace, service, _] = self.resources();
        self.judge_token(token, &[namespace, service])
    }

    /// Judges a token that a publisher of the Event Grid side shows.
    pub(crate) fn judge_event_grid(&self, token: &str) -> Result<Taken, &'static str> {
        self.judge_token(token, &[EVENT_GRID.to_owned()])
    }

    /// What tokens may be for: the namespace, Service Bus as a whole, and Event Grid.
    fn resources(&self) -> [String; 3] {
        [format!("https://{}", self.settings.audience), SERVICE_BUS.to_owned(), EVENT_GRID.to_owned()]
    }

    fn judge_token(&self, token: &str, audiences: &[String]) -> Result<Taken, &'static str> {
        let claims = Claims::verify(token, self.key).ok_or("the token is not one of this issuer")?;
        if !audiences.contains(&claims.audience) {
            return Err("the token is for another audience");
        }
        if claims.issued_ms <= self.revoked_ms.load(Ordering::Relaxed) {
            return Err("the token was revoked");
        }
        let life_ms = claims.expires_ms.saturating_sub(unix_ms());
        if life_ms == 0 {
            return Err("the token has expired");
        }
        Ok(Taken { life: Duration::from_millis(life_ms) })
    }

    /// Lets the next requests for tokens fail.
    fn fail(&self, times: u64) {
        self.failing.store(times, Ordering::Relaxed);
    }

    /// Whether this request fails; counts it.
    fn takes_failure(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Changes when connections of the Service Bus side are to be cut.
    pub(crate) fn revocations(&self) -> watch::Receiver<()> {
        self.revocations.subscribe()
    }

    /// Makes every token issued so far worthless and cuts every connection. Returns how many of Event Hubs were cut.
    fn revoke(&self) -> usize {
        self.revoked_ms.store(unix_ms(), Ordering::Relaxed);
        self.revocations.send_replace(());
        self.broker.faults.cut()
    }
}

#[expect(clippy::disallowed_methods, reason = "tokens end at a time of the wall clock")]
pub(crate) fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
