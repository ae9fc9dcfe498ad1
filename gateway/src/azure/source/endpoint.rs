//! The HTTP client that asks for tokens.

use std::fs;
use std::time::Duration;

use reqwest::{Certificate, Client, Response, Url, header, redirect};

use super::answer::Answer;
use super::request::Request;
use super::{FetchError, Token, TokenSource};
use crate::azure::cloud::Audience;
use crate::supervise::clock;

/// A source and the client that asks it.
pub(in crate::azure) struct Endpoint {
    source: TokenSource,
    /// Built when first used and again after an endpoint could not be reached, so that certificates which were
    /// replaced on the disk count.
    client: Option<Client>,
}

/// Longest time for a whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

impl Endpoint {
    pub(in crate::azure) const fn new(source: TokenSource) -> Self {
        Self { source, client: None }
    }

    /// Asks for a token.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave a token at the endpoint that nobody uses.
    pub(in crate::azure) async fn fetch(&mut self, audience: &Audience) -> Result<Token, FetchError> {
        let request = self.source.request(audience)?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(self.build()?).clone(),
        };
        let fetched = exchange(&client, request).await;
        if matches!(fetched, Err(FetchError::Unreachable { .. })) {
            self.client = None;
        }
        fetched
    }

    /// No redirects: the proof is for nobody else. The metadata service is on this machine, so no proxy leads
    /// there and no certificate is needed.
    fn build(&self) -> Result<Client, FetchError> {
        let builder = Client::builder()
            .user_agent(concat!("penstock/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0);
        let builder = match &self.source {
            TokenSource::ManagedIdentity(identity) if identity.endpoint.starts_with("http://") => {
                builder.no_proxy().tls_certs_only([])
            }
            TokenSource::ManagedIdentity(_) => builder.no_proxy(),
            TokenSource::WorkloadIdentity(principal) | TokenSource::ClientSecret(principal) => {
                match &principal.authority.ca_file {
                    None => builder,
                    Some(path) => {
                        let failed = |reason| FetchError::File { path: path.display().to_string(), reason };
                        let pem =
                            fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
                        let certificates = Certificate::from_pem_bundle(&pem);
                        let certificates =
                            certificates.map_err(|_| failed("holds no certificates".to_owned()))?;
                        builder.tls_certs_only(certificates)
                    }
                }
            }
        };
        builder.build().map_err(FetchError::SetUp)
    }
}

async fn exchange(client: &Client, request: Request) -> Result<Token, FetchError> {
    let host = Url::parse(&request.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let host = host.unwrap_or_default();
    let unreachable =
        |source: reqwest::Error| FetchError::Unreachable { host: host.clone(), source: source.without_url() };
    let asking = match request.form {
        None => client.get(request.url).header("Metadata", "true"),
        Some(form) => client
            .post(request.url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form),
    };
    let asked = clock::now();
    let mut response = asking.header(header::ACCEPT, "application/json").send().await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = read(&mut response).await.map_err(unreachable)?;
    let answer = Answer {
        host: &host,
        status,
        retry_after: retry_after.as_deref(),
        body: &body,
        asked,
        unix_seconds: clock::unix_ms() / 1000,
    };
    answer.token()
}

/// The body up to its bound; what is longer is no JSON then and is refused as such.
async fn read(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() <= ANSWER_BYTES_MAX
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(ANSWER_BYTES_MAX);
    Ok(body)
}
