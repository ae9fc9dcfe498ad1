//! The HTTP endpoints that hand out tokens: a machine's metadata service and a tenant's token endpoint.
//!
//! Each parameter is checked, and what is wrong is said in the words of the real endpoints as far as their
//! documentation gives them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Issued, Tokens};
use crate::error::Error;

/// Largest request for a token.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// The only version of the metadata service's interface that is served.
const METADATA_VERSION: &str = "2018-02-01";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// What a failing endpoint asks for, in seconds.
const RETRY_AFTER: &str = "1";

/// The bound listener of the token endpoints.
pub(crate) struct Endpoints {
    socket: TcpListener,
    address: SocketAddr,
    tokens: Arc<Tokens>,
}

impl Endpoints {
    pub(crate) async fn bind(tokens: Arc<Tokens>) -> Result<Self, Error> {
        let address = tokens.settings.listener;
        let failed = |source| Error::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, tokens })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` changes or its sender is gone.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let app = Router::new()
            .route("/metadata/identity/oauth2/token", get(metadata))
            .route("/{tenant}/oauth2/v2.0/token", post(tenant))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self.tokens);
        tokio::select! {
            served = axum::serve(self.socket, app) => {
                if let Err(error) = served {
                    tracing::error!(%error, "token endpoints ended");
                }
            }
            _changed = stop.changed() => {}
        }
    }
}

/// A token that is not given.
#[derive(Debug)]
struct Denied {
    status: StatusCode,
    error: &'static str,
    description: String,
}

type Answer = Result<Response, Denied>;

fn denied(status: StatusCode, error: &'static str, description: impl Into<String>) -> Denied {
    Denied { status, error, description: description.into() }
}

fn invalid(description: impl Into<String>) -> Denied {
    denied(StatusCode::BAD_REQUEST, "invalid_request", description)
}

fn stranger(description: &str) -> Denied {
    denied(StatusCode::UNAUTHORIZED, "invalid_client", description)
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let busy = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let body = Json(json!({ "error": self.error, "error_description": self.description }));
        let mut response = (self.status, body).into_response();
        if busy {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataQuery {
    #[serde(rename = "api-version")]
    version: Option<String>,
    resource: Option<String>,
    client_id: Option<String>,
}

async fn metadata(
    State(tokens): State<Arc<Tokens>>,
    headers: HeaderMap,
    query: Result<Query<MetadataQuery>, QueryRejection>,
) -> Answer {
    let checked = available(&tokens).and_then(|()| {
        let query = query.map_err(|error| invalid(error.body_text()))?;
        check_metadata(&tokens, &headers, &query)
    });
    let resource = checked.as_ref().map(String::clone).unwrap_or_default();
    let Issued { token, expires_ms } = counted(&tokens, checked)?;
    let life = tokens.settings.life.as_secs().to_string();
    // The metadata service writes numbers as text.
    let answer = json!({
        "access_token": token,
        "client_id": tokens.settings.client_id,
        "expires_in": life,
        "expires_on": (expires_ms / 1000).to_string(),
        "ext_expires_in": life,
        "resource": resource,
        "token_type": "Bearer",
    });
    Ok(Json(answer).into_response())
}

/// Returns the resource that the token is for.
fn check_metadata(tokens: &Tokens, headers: &HeaderMap, query: &MetadataQuery) -> Result<String, Denied> {
    if headers.get("metadata").is_none_or(|value| value != "true") {
        return Err(invalid("Required metadata header not specified"));
    }
    // Real ones refuse what came through a proxy.
    if headers.contains_key("x-forwarded-for") || headers.contains_key("via") {
        return Err(invalid("The request came through a proxy"));
    }
    match query.version.as_deref() {
        Some(METADATA_VERSION) => {}
        _ => return Err(invalid(format!("api-version: expected {METADATA_VERSION}"))),
    }
    let resource = known_resource(tokens, query.resource.as_deref()).ok_or_else(|| {
        denied(
            StatusCode::BAD_REQUEST,
            "invalid_resource",
            "AADSTS500011: The resource principal was not found in the tenant",
        )
    })?;
    if query.client_id.as_ref().is_some_and(|id| *id != tokens.settings.client_id) {
        return Err(invalid("Identity not found"));
    }
    Ok(resource)
}

/// The resource without the slash that some clients put behind it.
fn known_resource(tokens: &Tokens, asked: Option<&str>) -> Option<String> {
    let asked = asked?;
    let asked = asked.strip_suffix('/').unwrap_or(asked);
    tokens.resources().into_iter().find(|known| known == asked)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantForm {
    grant_type: Option<String>,
    client_id: Option<String>,
    scope: Option<String>,
    client_secret: Option<String>,
    client_assertion_type: Option<String>,
    client_assertion: Option<String>,
}

async fn tenant(
    State(tokens): State<Arc<Tokens>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let checked = available(&tokens).and_then(|()| {
        let form = read_form(&headers, &body)?;
        let resource = check_tenant(&tokens, &tenant, &form)?;
        check_proof(&tokens, &form).map(|()| resource)
    });
    let Issued { token, .. } = counted(&tokens, checked)?;
    let life = tokens.settings.life.as_secs();
    let answer =
        json!({ "token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token });
    Ok(Json(answer).into_response())
}

fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<TenantForm, Denied> {
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/x-www-form-urlencoded") {
        return Err(invalid("AADSTS900144: The request body must be a form"));
    }
    // A form has the syntax of a query.
    let text = std::str::from_utf8(body).unwrap_or_default();
    let uri = format!("/?{text}").parse::<Uri>().map_err(|error| invalid(error.to_string()))?;
    let form = Query::try_from_uri(&uri).map_err(|error| invalid(error.to_string()))?;
    Ok(form.0)
}

/// Returns the resource that the token is for.
fn check_tenant(tokens: &Tokens, tenant: &str, form: &TenantForm) -> Result<String, Denied> {
    if tenant != tokens.settings.tenant {
        return Err(invalid(format!("AADSTS90002: Tenant '{tenant}' not found")));
    }
    if form.grant_type.as_deref() != Some("client_credentials") {
        let reason = "AADSTS70003: The app requested an unsupported grant type";
        return Err(denied(StatusCode::BAD_REQUEST, "unsupported_grant_type", reason));
    }
    if form.client_id.as_deref() != Some(&tokens.settings.client_id) {
        let reason = "AADSTS700016: The application was not found in the directory";
        return Err(denied(StatusCode::BAD_REQUEST, "unauthorized_client", reason));
    }
    let resource = form.scope.as_deref().and_then(|scope| scope.strip_suffix("/.default"));
    known_resource(tokens, resource).ok_or_else(|| {
        let reason = "AADSTS70011: The provided value for the input parameter 'scope' is not valid";
        denied(StatusCode::BAD_REQUEST, "invalid_scope", reason)
    })
}

fn check_proof(tokens: &Tokens, form: &TenantForm) -> Result<(), Denied> {
    match (&form.client_secret, &form.client_assertion) {
        (Some(secret), None) if Some(secret) == tokens.settings.secret.as_ref() => Ok(()),
        (Some(_), None) => Err(stranger("AADSTS7000215: Invalid client secret provided")),
        (None, Some(assertion)) => {
            if form.client_assertion_type.as_deref() != Some(ASSERTION_TYPE) {
                return Err(invalid("AADSTS900144: client_assertion_type is missing or wrong"));
            }
            let file = tokens.settings.assertion_file.as_ref();
            let known = file.and_then(|path| std::fs::read_to_string(path).ok());
            if known.is_some_and(|known| known.trim() == assertion) {
                Ok(())
            } else {
                Err(stranger("AADSTS700213: No matching federated identity record found"))
            }
        }
        _ => Err(stranger("AADSTS7000218: Exactly one of client_secret and client_assertion is expected")),
    }
}

/// An error while the control API wants requests to fail.
fn available(tokens: &Tokens) -> Result<(), Denied> {
    if tokens.takes_failure() {
        return Err(denied(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "failing on order"));
    }
    Ok(())
}

fn counted(tokens: &Tokens, checked: Result<String, Denied>) -> Result<Issued, Denied> {
    match checked {
        Ok(resource) => Ok(tokens.issue(resource)),
        Err(denied) => {
            tokens.broker.counters.tokens_refused.add(1);
            tracing::debug!(status = %denied.status, reason = denied.description, "no token given");
            Err(denied)
        }
    }
}
