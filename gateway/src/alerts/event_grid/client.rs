//! The HTTP client: one request at a time on a connection that is kept.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client as Http, Response, redirect};

use super::config::Endpoint;
use super::disposition::Reply;
use crate::supervise::chain;

/// What requests are sent with.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    http: Http,
}

/// The client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The certificates to trust cannot be used.
    #[error("{file}: {reason}")]
    Authorities {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client library does not take a setting.
    #[error("the HTTP client cannot be set up")]
    SetUp(#[source] reqwest::Error),
}

const CONTENT: HeaderValue = HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8");
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept; firewalls forget it not much later.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// As much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

// === impl Client ===

impl Client {
    /// # Errors
    ///
    /// When a setting cannot be used.
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let http = build(&endpoint)?;
        Ok(Self { endpoint, http })
    }

    /// For logs and letters.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a list of events.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave the events accepted.
    pub(super) async fn send(&self, credential: (HeaderName, HeaderValue), body: Vec<u8>) -> Reply {
        let (name, value) = credential;
        let request = self.http.post(self.endpoint.url.clone()).header(CONTENT_TYPE, CONTENT);
        let sent = request.header(name, value).body(body).send().await;
        match sent {
            Ok(response) => answer(response).await,
            Err(error) => failed(error),
        }
    }
}

/// No redirects: the credential is for nobody else.
fn build(endpoint: &Endpoint) -> Result<Http, ClientError> {
    let mut builder = Http::builder()
        .user_agent(concat!("penstock/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .timeout(endpoint.timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(endpoint.timeout))
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(KEEP_ALIVE)
        .tcp_nodelay(true);
    if let Some(file) = &endpoint.ca_file {
        let authorities = Endpoint::authorities(file)
            .map_err(|reason| ClientError::Authorities { file: file.display().to_string(), reason })?;
        builder = builder.tls_certs_only(authorities);
    } else if endpoint.url.scheme() == "http" {
        // Nothing of the system's is needed.
        builder = builder.tls_certs_only([]);
    }
    if let Some(proxy) = &endpoint.proxy {
        let leading = reqwest::Proxy::all(&proxy.address).map_err(ClientError::SetUp)?;
        builder = builder.proxy(match &proxy.credentials {
            None => leading,
            Some((name, password)) => leading.basic_auth(name, password),
        });
    } else if endpoint.is_loopback() {
        builder = builder.no_proxy();
    }
    builder.build().map_err(ClientError::SetUp)
}

async fn answer(mut response: Response) -> Reply {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.map(str::to_owned);
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            // The status is what counts; the body only says why.
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(ANSWER_BYTES_MAX);
    Reply::Answer { status, retry_after, body }
}

fn failed(error: reqwest::Error) -> Reply {
    let (connecting, late) = (error.is_connect(), error.is_timeout());
    let said = chain(&error.without_url());
    match (connecting, late) {
        (true, _) => Reply::Unreachable(said),
        (false, true) => Reply::TimedOut,
        (false, false) => Reply::Lost(said),
    }
}
