//! The sources against endpoints that check every parameter, and the task that keeps a token fresh.

mod config;

use std::path::PathBuf;
use std::time::Duration;

use cloud_sim::OAuth;
use tempfile::TempDir;
use testkit::cloud::Control;

use super::source::{Endpoint, FetchError, Token};
use super::{Audience, Authority, ManagedIdentity, ServicePrincipal, TokenHandle, TokenSource, start};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const SECRET: &str = "s3cr~t+&=";
const ASSERTION: &str = "first.of.pod";
const PATIENCE: Duration = Duration::from_secs(30);

/// Token endpoints on this machine, and files with what they accept.
struct Cloud {
    folder: TempDir,
    running: cloud_sim::Running,
}

impl Cloud {
    async fn start(life: Duration) -> Self {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
        std::fs::write(folder.path().join("assertion"), ASSERTION).unwrap();
        let oauth = OAuth {
            secret: Some(SECRET.into()),
            assertion_file: Some(folder.path().join("assertion")),
            life,
            ..OAuth::new()
        };
        let config = cloud_sim::Config::new(folder.path().join("cloud")).with_oauth(oauth);
        Self { running: cloud_sim::start(config).await.unwrap(), folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.running.tokens.unwrap())
    }

    fn principal(&self, proof: &str) -> ServicePrincipal {
        ServicePrincipal {
            authority: Authority { host: self.endpoint(), ca_file: None },
            tenant_id: OAuth::TENANT.into(),
            client_id: OAuth::CLIENT_ID.into(),
            proof_file: self.file(proof),
        }
    }

    fn machine(&self, client_id: Option<&str>) -> TokenSource {
        let client_id = client_id.map(str::to_owned);
        TokenSource::ManagedIdentity(ManagedIdentity { endpoint: self.endpoint(), client_id })
    }

    /// An order to the control API, off the runtime's thread.
    async fn order(&self, body: serde_json::Value) {
        let control = Control::new(&self.running.control.to_string());
        let ordered = tokio::task::spawn_blocking(move || control.post("/v1/faults/tokens", &body)).await;
        ordered.unwrap().unwrap();
    }
}

/// What `main` does for the whole process.
fn install_provider() {
    drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
}

fn audience() -> Audience {
    Audience::namespace(OAuth::AUDIENCE)
}

async fn fetch(source: TokenSource) -> Result<Token, FetchError> {
    Endpoint::new(source).fetch(&audience()).await
}

/// Waits until the handle's state is as wanted.
async fn until(what: &str, tokens: &TokenHandle, wanted: impl Fn(&super::TokenStatus) -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !wanted(&tokens.status()) {
        assert!(clock::now() < deadline, "waited too long until {what}: {:?}", tokens.status());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_source_gets_a_token() {
    let cloud = Cloud::start(Duration::from_secs(3600)).await;
    for source in [
        cloud.machine(None),
        cloud.machine(Some(OAuth::CLIENT_ID)),
        TokenSource::ClientSecret(cloud.principal("secret")),
        TokenSource::WorkloadIdentity(cloud.principal("assertion")),
    ] {
        let token = fetch(source.clone()).await.unwrap_or_else(|error| panic!("{source:?}: {error}"));
        let life = token.life(clock::now());
        assert!(
            life > Duration::from_secs(3500) && life <= Duration::from_secs(3600),
            "{source:?}: {life:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_endpoint_refuses_is_told_in_its_words() {
    let cloud = Cloud::start(Duration::from_secs(3600)).await;
    std::fs::write(cloud.file("other"), "wrong").unwrap();
    let stranger = ServicePrincipal { client_id: "somebody".into(), ..cloud.principal("secret") };
    let elsewhere = ServicePrincipal { tenant_id: "nowhere".into(), ..cloud.principal("secret") };
    for (source, expected) in [
        (cloud.machine(Some("somebody")), "127.0.0.1 answered 400: invalid_request: Identity not found"),
        (TokenSource::ClientSecret(cloud.principal("other")), "AADSTS7000215"),
        (TokenSource::WorkloadIdentity(cloud.principal("other")), "AADSTS700213"),
        (TokenSource::ClientSecret(stranger), "AADSTS700016"),
        (TokenSource::ClientSecret(elsewhere), "AADSTS90002"),
        (TokenSource::ClientSecret(cloud.principal("absent")), "absent: cannot be read: "),
    ] {
        let error = fetch(source).await.expect_err(expected);
        let told = crate::supervise::chain(&error);
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("wrong"), "a proof is shown: {told}");
        let outcome = if expected.starts_with("absent") { "local" } else { "refused" };
        assert_eq!(error.outcome(), outcome, "{told}");
    }
    let wrong = Endpoint::new(cloud.machine(None)).fetch(&Audience::namespace("other.example")).await;
    assert!(wrong.expect_err("another audience").to_string().contains("AADSTS500011"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_assertion_needs_no_restart() {
    let cloud = Cloud::start(Duration::from_secs(3600)).await;
    let mut endpoint = Endpoint::new(TokenSource::WorkloadIdentity(cloud.principal("assertion")));
    endpoint.fetch(&audience()).await.unwrap();
    std::fs::write(cloud.file("assertion"), "second.of.pod").unwrap();
    endpoint.fetch(&audience()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_away_or_busy_is_no_refusal() {
    let cloud = Cloud::start(Duration::from_secs(3600)).await;
    cloud.order(serde_json::json!({ "fail": 1 })).await;
    let busy = fetch(cloud.machine(None)).await.expect_err("on order");
    assert_eq!((busy.outcome(), busy.retry_after()), ("busy", Some(Duration::from_secs(1))));
    let source = cloud.machine(None);
    cloud.running.stop().await;
    let away = fetch(source).await.expect_err("nobody listens");
    assert_eq!((away.outcome(), away.to_string().as_str()), ("unreachable", "127.0.0.1 cannot be reached"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed() {
    install_provider();
    let redirect = axum::Router::new().fallback(|| async {
        (axum::http::StatusCode::FOUND, [("location", "http://127.0.0.1:1/elsewhere")], "")
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let supervisor = Supervisor::new();
    supervisor.spawn(TaskKind::Admin, async { axum::serve(listener, redirect).await });
    let source = TokenSource::ManagedIdentity(ManagedIdentity { endpoint, client_id: None });
    let error = fetch(source).await.expect_err("a redirect is no token");
    assert_eq!(error.to_string(), "127.0.0.1 answered 302: without a reason");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_while_it_lives_and_kept_when_that_fails() {
    let life = Duration::from_secs(4);
    let cloud = Cloud::start(life).await;
    let tokens = TokenHandle::new(audience());
    let supervisor = Supervisor::new();
    let began = clock::now();
    start(&cloud.machine(None), &tokens, &supervisor);
    until("the first token came", &tokens, |status| status.fetched == 1).await;
    let first = tokens.bearer().unwrap().token;
    until("it was renewed", &tokens, |status| status.fetched == 2).await;
    let renewed = began.elapsed();
    assert!(renewed >= life / 2 && renewed < life, "{renewed:?}");
    let second = tokens.bearer().unwrap().token;
    assert_ne!(second, first);

    cloud.order(serde_json::json!({ "fail": 1000 })).await;
    until("renewing failed", &tokens, |status| status.failures > 0).await;
    assert_eq!(tokens.bearer().unwrap().token, second, "it lives");
    assert!(tokens.status().last_error.is_some_and(|error| error.contains("failing on order")));
    until("it was over", &tokens, |status| status.life.is_none()).await;
    let error = tokens.bearer().expect_err("it is over").to_string();
    assert!(error.contains("has expired: 127.0.0.1 answered 503"), "{error}");

    cloud.order(serde_json::json!({ "fail": 0 })).await;
    until("tokens came again", &tokens, |status| status.fetched == 3 && status.failures == 0).await;
    assert_ne!(tokens.bearer().unwrap().token, second);
    supervisor.enter(Phase::Close);
    supervisor.idle(TaskKind::Tokens).await;
}
