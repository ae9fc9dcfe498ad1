//! Who may publish: access keys, shared access signatures, tokens.

use std::sync::Arc;

use axum::http::{HeaderMap, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::refusal::Refusal;
use super::request::Door;
use super::timestamp;
use crate::servicebus::unescape;
use crate::tokens::Tokens;

const KEY_HEADER: &str = "aeg-sas-key";
const TOKEN_HEADER: &str = "aeg-sas-token";

/// The keys, and who judges tokens.
#[derive(Clone)]
pub(super) struct Guard {
    /// Base64.
    pub(super) keys: [String; 2],
    pub(super) local_auth: bool,
    pub(super) tokens: Option<Arc<Tokens>>,
}

/// Everything but the keys.
impl std::fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Guard").field("local_auth", &self.local_auth).finish_non_exhaustive()
    }
}

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof<'a> {
    Key(&'a str),
    Signature(&'a str),
    Bearer(&'a str),
}

impl Guard {
    /// Judges what a request shows; `now` in seconds since 1970.
    pub(super) fn judge(&self, door: &Door, uri: &Uri, headers: &HeaderMap, now: i64) -> Result<(), Refusal> {
        let proof = proof(door, uri, headers)?;
        if !self.local_auth && !matches!(proof, Proof::Bearer(_)) {
            return Err(Refusal::unauthorized("Local authentication is disabled for this resource."));
        }
        match proof {
            Proof::Key(key) if self.keys.iter().any(|known| known == key) => Ok(()),
            Proof::Key(_) => Err(Refusal::unauthorized("The request authorization key is not authorized.")),
            Proof::Signature(text) => {
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
                self.signature(text, host, uri, now).map_err(Refusal::unauthorized)
            }
            Proof::Bearer(token) => match &self.tokens {
                None => Err(Refusal::unauthorized("Tokens are not known here.")),
                Some(tokens) => {
                    let judged = tokens.judge_event_grid(token);
                    judged
                        .map(drop)
                        .map_err(|reason| Refusal::unauthorized(format!("The token is not valid: {reason}.")))
                }
            },
        }
    }

    /// `r=RESOURCE&e=END&s=SIGNATURE`: the signature is over what stands before it.
    fn signature(&self, text: &str, host: &str, uri: &Uri, now: i64) -> Result<(), String> {
        const FORM: &str = "Invalid token. Valid format: r=UrlEncodedResource&e=UrlEncodedUtcExpiration&s=UrlEncodedSignature";
        let (signed, signature) = text.rsplit_once("&s=").ok_or(FORM)?;
        let (resource, end) =
            signed.strip_prefix("r=").and_then(|rest| rest.split_once("&e=")).ok_or(FORM)?;
        let decoded = |text: &str| unescape(text).ok_or(FORM);
        let signature = STANDARD.decode(decoded(signature)?).map_err(|_bad| FORM)?;
        let right = self.keys.iter().any(|key| {
            STANDARD.decode(key).is_ok_and(|key| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
                hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
            })
        });
        if !right {
            return Err("The signature of the token is not right.".to_owned());
        }
        // A plus sign is a blank as in a form; Microsoft's libraries encode blanks either way.
        let end = timestamp::expiry(&decoded(&end.replace('+', " "))?).ok_or(FORM)?;
        if end <= now {
            return Err("The token has expired.".to_owned());
        }
        let resource = decoded(resource)?;
        if covers(&resource, host, uri) {
            Ok(())
        } else {
            Err("The token is for another resource.".to_owned())
        }
    }
}

/// Whether a signed resource is this one: host and path, and the version of the interface in its query.
fn covers(resource: &str, host: &str, uri: &Uri) -> bool {
    let (resource, query) = resource.split_once('?').unwrap_or((resource, ""));
    let Some((_, rest)) = resource.split_once("://") else { return false };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let version = query.split('&').filter_map(|field| field.split_once('='));
    let mut version = version.filter(|(name, _)| matches!(*name, "apiVersion" | "api-version"));
    authority.eq_ignore_ascii_case(host) && path.eq_ignore_ascii_case(uri.path()) && version.next().is_some()
}

/// The only proof in a request.
fn proof<'a>(door: &Door, uri: &Uri, headers: &'a HeaderMap) -> Result<Proof<'a>, Refusal> {
    if uri.query().is_some_and(|query| query.contains(KEY_HEADER) || query.contains(TOKEN_HEADER)) {
        // The service takes it. A publisher that does so writes its key into every log on the way.
        return Err(Refusal::unauthorized("A key in the address is not taken here."));
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (key, signature) = (text(KEY_HEADER), text(TOKEN_HEADER));
    let authorization = text(header::AUTHORIZATION.as_str());
    let shown = [key, signature, authorization].iter().flatten().count();
    if shown > 1 || headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(Refusal::unauthorized("The request has more than one authorization."));
    }
    let namespace = matches!(door, Door::Namespace(_));
    let (scheme, rest) = authorization.and_then(|text| text.split_once(' ')).unwrap_or_default();
    match (key, signature, scheme) {
        (Some(key), _, _) if !namespace => Ok(Proof::Key(key)),
        (_, Some(text), _) if !namespace => Ok(Proof::Signature(text)),
        (_, _, "SharedAccessKey") if namespace => Ok(Proof::Key(rest)),
        (_, _, "SharedAccessSignature") => Ok(Proof::Signature(rest)),
        (_, _, "Bearer") => Ok(Proof::Bearer(rest)),
        _ if namespace => Err(Refusal::unauthorized(
            "Request must contain an Authorization header of SharedAccessKey, SharedAccessSignature or Bearer.",
        )),
        _ => Err(Refusal::unauthorized(
            "Request must contain one of the following authorization signature: aeg-sas-token, aeg-sas-key.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// Made with `azure.eventgrid.generate_sas` 4.22.1.
    const GOLDEN: &str = "r=https%3A%2F%2Ft.westeurope-1.eventgrid.azure.net%2Fapi%2Fevents%3FapiVersion%3D2018-01-01&e=2026-11-21%2000%3A00%3A00%2B00%3A00&s=CahGLjxW7rbx9%2BFV5IlJgrEGvBjNHj7USCJdBpxWV0Y%3D";
    const GOLDEN_KEY: &str = "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U=";
    const GOLDEN_END: i64 = 1_795_219_200;
    const HOST: &str = "t.westeurope-1.eventgrid.azure.net";

    fn guard() -> Guard {
        Guard { keys: ["b3RoZXI=".to_owned(), GOLDEN_KEY.to_owned()], local_auth: true, tokens: None }
    }

    fn check(door: &Door, headers: &[(&'static str, &str)], now: i64, expected: Result<(), &str>) {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_static(HOST));
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let path = if *door == Door::Events { "/api/events" } else { "/topics/t:publish" };
        let uri: Uri = format!("{path}?api-version=2018-01-01").parse().unwrap();
        let said = guard().judge(door, &uri, &map, now).map_err(|refusal| refusal.message);
        match (&said, expected) {
            (Ok(()), Ok(())) => {}
            (Err(said), Err(expected)) if said.contains(expected) => {}
            _ => panic!("{headers:?}: {said:?}, not {expected:?}"),
        }
    }

    #[test]
    fn either_key_opens_and_no_other() {
        for key in ["b3RoZXI=", GOLDEN_KEY] {
            check(&Door::Events, &[("aeg-sas-key", key)], 0, Ok(()));
            check(
                &Door::Namespace("t".into()),
                &[("authorization", &format!("SharedAccessKey {key}"))],
                0,
                Ok(()),
            );
        }
        check(&Door::Events, &[("aeg-sas-key", "b3RoZXI")], 0, Err("not authorized"));
        check(&Door::Events, &[("aeg-sas-key", "")], 0, Err("not authorized"));
        check(&Door::Events, &[], 0, Err("aeg-sas-token"));
        check(&Door::Events, &[("authorization", "SharedAccessKey b3RoZXI=")], 0, Err("aeg-sas-token"));
        check(&Door::Namespace("t".into()), &[("aeg-sas-key", "b3RoZXI=")], 0, Err("Authorization header"));
    }

    #[test]
    fn one_proof_is_shown() {
        let two = [("aeg-sas-key", "b3RoZXI="), ("aeg-sas-token", GOLDEN)];
        check(&Door::Events, &two, 0, Err("more than one"));
        let two = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        check(&Door::Events, &two, 0, Err("more than one"));
        check(&Door::Events, &[("authorization", "Bearer a")], 0, Err("not known"));
    }

    #[test]
    fn a_signature_of_the_python_library_opens_until_its_end() {
        check(&Door::Events, &[("aeg-sas-token", GOLDEN)], GOLDEN_END - 1, Ok(()));
        let authorization = format!("SharedAccessSignature {GOLDEN}");
        check(&Door::Events, &[("authorization", &authorization)], GOLDEN_END - 1, Ok(()));
        check(&Door::Events, &[("aeg-sas-token", GOLDEN)], GOLDEN_END, Err("expired"));
        let forged = GOLDEN.replace("2026", "2027");
        check(&Door::Events, &[("aeg-sas-token", &forged)], 0, Err("signature"));
        check(&Door::Events, &[("aeg-sas-token", "r=a&s=b")], 0, Err("Valid format"));
        // Another path: the signature is right, but for something else.
        check(&Door::Namespace("t".into()), &[("authorization", &authorization)], 0, Err("another resource"));
    }

    #[test]
    fn a_key_in_the_address_is_refused() {
        let uri: Uri = "/api/events?aeg-sas-key=b3RoZXI%3D".parse().unwrap();
        let refused = guard().judge(&Door::Events, &uri, &HeaderMap::new(), 0).unwrap_err();
        assert!(refused.message.contains("address"), "{refused:?}");
    }
}
