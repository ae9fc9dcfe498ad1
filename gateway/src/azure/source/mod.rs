//! Where tokens come from.

mod answer;
mod endpoint;
mod request;
mod secret_file;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) use endpoint::Endpoint;
pub(crate) use secret_file::check as check_secret_file;

/// A way to get a token of Microsoft Entra.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// The identity of the virtual machine.
    ManagedIdentity(ManagedIdentity),
    /// The identity of a Kubernetes pod, proven by a token that the cluster writes into a file. The file is read
    /// at each request, since the cluster replaces it.
    WorkloadIdentity(ServicePrincipal),
    /// An application's secret, from a file that is read at each request.
    ClientSecret(ServicePrincipal),
}

/// The identity of a virtual machine, from the metadata service that each one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Where that service answers, `http://HOST[:PORT]`.
    pub endpoint: String,
    /// Which of several identities; `None` is the machine's own, or the only one.
    pub client_id: Option<String>,
}

/// An application in a tenant of Microsoft Entra.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePrincipal {
    /// Who issues its tokens.
    pub authority: Authority,
    /// The tenant, by id or by a domain of it.
    pub tenant_id: String,
    /// The application.
    pub client_id: String,
    /// The file that proves it: the pod's token or the secret.
    pub proof_file: PathBuf,
}

/// Who issues tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// `https://HOST[:PORT]`.
    pub host: String,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A token and when it ends. `Debug` shows the latter only.
pub(super) struct Token {
    secret: String,
    expires: Instant,
}

/// Why no token came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// A file of ours that cannot be used.
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    SetUp(#[source] reqwest::Error),
    /// There was no answer, or not in time.
    #[error("{host} cannot be reached")]
    Unreachable { host: String, source: reqwest::Error },
    /// It asked to come later, or failed itself.
    #[error("{host} answered {status}: {reason}")]
    Busy { host: String, status: u16, reason: String, retry_after: Option<Duration> },
    /// It does not give a token to this caller.
    #[error("{host} answered {status}: {reason}")]
    Refused { host: String, status: u16, reason: String },
    /// It said yes, but gave no token.
    #[error("the answer of {host} holds no token: {reason}")]
    Answer { host: String, reason: &'static str },
}

// === impl Token ===

impl Token {
    /// `None` if the text cannot be a token: it has characters that no header may hold.
    pub(super) fn new(secret: String, expires: Instant) -> Option<Self> {
        let sound = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then_some(Self { secret, expires })
    }

    /// How long it lives from `now`; zero when it is over.
    pub(super) fn life(&self, now: Instant) -> Duration {
        self.expires.saturating_duration_since(now)
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

// === impl FetchError ===

impl FetchError {
    /// The name in metrics.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::SetUp(_) => "local",
            Self::Unreachable { .. } => "unreachable",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } | Self::Answer { .. } => "refused",
        }
    }

    /// The pause that the endpoint asked for.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
