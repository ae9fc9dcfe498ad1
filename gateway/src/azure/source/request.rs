//! What each source asks, as a request that is ready to be sent. No I/O but the file of the proof.

use super::{FetchError, ManagedIdentity, ServicePrincipal, TokenSource, secret_file};
use crate::azure::cloud::Audience;

/// A request for a token. It is a secret: it holds the proof.
pub(super) struct Request {
    pub(super) url: String,
    /// The body, for a request that has one; without it, it is one of the metadata service.
    pub(super) form: Option<String>,
}

/// The version of the metadata service's interface that every machine has.
const METADATA_VERSION: &str = "2018-02-01";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl TokenSource {
    pub(super) fn request(&self, audience: &Audience) -> Result<Request, FetchError> {
        match self {
            Self::ManagedIdentity(identity) => Ok(metadata(identity, audience)),
            Self::WorkloadIdentity(principal) => {
                let proof = secret_file::read(&principal.proof_file)?;
                let proof = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &*proof)];
                Ok(tenant(principal, audience, &proof))
            }
            Self::ClientSecret(principal) => {
                let proof = secret_file::read(&principal.proof_file)?;
                Ok(tenant(principal, audience, &[("client_secret", &*proof)]))
            }
        }
    }
}

fn metadata(identity: &ManagedIdentity, audience: &Audience) -> Request {
    let resource = audience.resource();
    let mut fields = vec![("api-version", METADATA_VERSION), ("resource", &*resource)];
    fields.extend(identity.client_id.as_deref().map(|id| ("client_id", id)));
    let url = format!("{}/metadata/identity/oauth2/token?{}", identity.endpoint, encode(&fields));
    Request { url, form: None }
}

fn tenant(principal: &ServicePrincipal, audience: &Audience, proof: &[(&str, &str)]) -> Request {
    let scope = audience.scope();
    let mut fields =
        vec![("grant_type", "client_credentials"), ("client_id", &*principal.client_id), ("scope", &*scope)];
    fields.extend(proof);
    let url = format!("{}/{}/oauth2/v2.0/token", principal.authority.host, principal.tenant_id);
    Request { url, form: Some(encode(&fields)) }
}

/// Fields as `application/x-www-form-urlencoded`.
fn encode(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (place, (name, value)) in fields.iter().enumerate() {
        if place > 0 {
            text.push('&');
        }
        escape(&mut text, name);
        text.push('=');
        escape(&mut text, value);
    }
    text
}

fn escape(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::source::Authority;

    const HOST: &str = "contoso.servicebus.windows.net";

    fn principal(proof: &str) -> (tempfile::NamedTempFile, ServicePrincipal) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), proof).unwrap();
        let principal = ServicePrincipal {
            authority: Authority { host: "https://login.example".into(), ca_file: None },
            tenant_id: "contoso.example".into(),
            client_id: "app".into(),
            proof_file: file.path().to_owned(),
        };
        (file, principal)
    }

    fn check(source: &TokenSource, url: &str, form: Option<&str>) {
        let request = source.request(&Audience::namespace(HOST)).unwrap();
        assert_eq!((request.url.as_str(), request.form.as_deref()), (url, form));
    }

    #[test]
    fn the_metadata_service_is_asked_for_the_resource() {
        let identity = |client_id| ManagedIdentity { endpoint: "http://169.254.169.254".into(), client_id };
        let url = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
                   &resource=https%3A%2F%2Fcontoso.servicebus.windows.net";
        check(&TokenSource::ManagedIdentity(identity(None)), url, None);
        let url = format!("{url}&client_id=one%2Btwo");
        check(&TokenSource::ManagedIdentity(identity(Some("one+two".into()))), &url, None);
    }

    #[test]
    fn the_tenant_is_shown_the_secret_or_the_assertion() {
        let url = "https://login.example/contoso.example/oauth2/v2.0/token";
        let (_file, secret) = principal("a&b=c~\n");
        check(
            &TokenSource::ClientSecret(secret),
            url,
            Some(
                "grant_type=client_credentials&client_id=app\
                 &scope=https%3A%2F%2Fcontoso.servicebus.windows.net%2F.default&client_secret=a%26b%3Dc~",
            ),
        );
        let (file, pod) = principal("first.jwt");
        let source = TokenSource::WorkloadIdentity(pod);
        let form = |assertion: &str| {
            format!(
                "grant_type=client_credentials&client_id=app\
                 &scope=https%3A%2F%2Fcontoso.servicebus.windows.net%2F.default\
                 &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                 &client_assertion={assertion}"
            )
        };
        check(&source, url, Some(&form("first.jwt")));
        std::fs::write(file.path(), "second.jwt").unwrap();
        check(&source, url, Some(&form("second.jwt")));
    }

    #[test]
    fn a_proof_that_is_gone_is_named() {
        let (file, principal) = principal("x");
        let path = file.path().display().to_string();
        drop(file);
        let asked = TokenSource::ClientSecret(principal).request(&Audience::namespace(HOST));
        let error = asked.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(&format!("{path}: cannot be read: ")), "{error}");
    }
}
