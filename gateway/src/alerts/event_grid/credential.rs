//! By what right events are published: an access key, a signature made from it, or a token of Microsoft Entra.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use ring::hmac;
use time::OffsetDateTime;

use super::config::{Endpoint, Kind};
use crate::azure::{TokenHandle, check_secret_file};

/// How a destination is signed in to.
#[derive(Debug, Clone)]
pub(super) enum SignIn {
    /// With one of the keys in these files, one or two.
    Key(Vec<PathBuf>),
    /// With signatures made from such a key.
    Sas {
        files: Vec<PathBuf>,
        /// How long a signature lives.
        lifetime: Duration,
    },
    /// With tokens.
    Entra(TokenHandle),
}

/// What a request is signed in with. `Debug` shows no secret.
pub(super) struct Credential {
    source: Source,
    /// Whether it is shown to a namespace, which has headers of its own.
    namespace: bool,
    /// What signatures are made for.
    resource: String,
}

enum Source {
    Keys { keys: Keys, signing: Option<Signing> },
    Entra(TokenHandle),
}

/// The keys in their files.
struct Keys {
    files: Vec<PathBuf>,
    /// The one in use.
    current: usize,
    /// What the file of it held when it was read.
    read: Option<String>,
}

/// Signatures, and the one in use.
struct Signing {
    lifetime: Duration,
    made: Option<Signature>,
}

struct Signature {
    token: String,
    made_ms: u64,
}

/// What follows when the service refuses a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Another is there; it may be tried after a pause.
    After(Duration),
    /// There is no other.
    Nothing,
}

/// Everything but the unreserved characters of RFC 3986 is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const KEY_HEADER: HeaderName = HeaderName::from_static("aeg-sas-key");
const SAS_HEADER: HeaderName = HeaderName::from_static("aeg-sas-token");
/// How long another token may take to come.
const TOKEN_PAUSE: Duration = Duration::from_secs(2);

// === impl Credential ===

impl Credential {
    /// `tokens` take the place of those of the configuration, if given.
    pub(super) fn new(sign_in: &SignIn, endpoint: &Endpoint, tokens: Option<TokenHandle>) -> Self {
        let keys = |files: &[PathBuf]| Keys { files: files.to_vec(), current: 0, read: None };
        let source = match sign_in {
            SignIn::Key(files) => Source::Keys { keys: keys(files), signing: None },
            SignIn::Sas { files, lifetime } => {
                let signing = Some(Signing { lifetime: *lifetime, made: None });
                Source::Keys { keys: keys(files), signing }
            }
            SignIn::Entra(own) => Source::Entra(tokens.unwrap_or_else(|| own.clone())),
        };
        Self { source, namespace: endpoint.kind == Kind::Namespace, resource: endpoint.resource() }
    }

    /// The header of a request at `now_ms` on the wall clock. It is a secret.
    ///
    /// # Errors
    ///
    /// Why there is none now, in words without a secret.
    pub(super) fn header(&mut self, now_ms: u64) -> Result<(HeaderName, HeaderValue), String> {
        let (name, text) = match &mut self.source {
            Source::Entra(tokens) => {
                let bearer = tokens.bearer().map_err(|error| error.to_string())?;
                (AUTHORIZATION, format!("Bearer {}", bearer.token))
            }
            Source::Keys { keys, signing: None } if self.namespace => {
                (AUTHORIZATION, format!("SharedAccessKey {}", keys.key()?))
            }
            Source::Keys { keys, signing: None } => (KEY_HEADER, keys.key()?.to_owned()),
            Source::Keys { keys, signing: Some(signing) } => {
                let token = signing.token(&self.resource, keys, now_ms)?;
                if self.namespace {
                    (AUTHORIZATION, format!("SharedAccessSignature {token}"))
                } else {
                    (SAS_HEADER, token.to_owned())
                }
            }
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| "it is no text for a header".to_owned())?;
        value.set_sensitive(true);
        Ok((name, value))
    }

    /// The service refused what was shown last: takes the next, if there is one.
    pub(super) fn refused(&mut self) -> Renewal {
        match &mut self.source {
            Source::Entra(tokens) => {
                tokens.refused();
                Renewal::After(TOKEN_PAUSE)
            }
            Source::Keys { keys, signing } => {
                let other = keys.refused();
                let signed = signing.as_mut().is_some_and(|signing| signing.made.take().is_some());
                // A signature can be refused for its time alone.
                if other || signed { Renewal::After(Duration::ZERO) } else { Renewal::Nothing }
            }
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.source {
            Source::Keys { signing: None, .. } => "Key",
            Source::Keys { signing: Some(_), .. } => "Sas",
            Source::Entra(_) => "Entra",
        })
    }
}

// === impl Keys ===

impl Keys {
    /// The key in use.
    fn key(&mut self) -> Result<&str, String> {
        if self.read.is_none() {
            let file = self.files.get(self.current).ok_or("there is no key file")?;
            let key = check_key_file(file).map_err(|reason| format!("{}: {reason}", file.display()))?;
            self.read = Some(key);
        }
        self.read.as_deref().ok_or_else(|| "there is no key".to_owned())
    }

    /// Takes what the file holds now if that is another key, else the other file's. Says whether it is another.
    fn refused(&mut self) -> bool {
        let before = self.read.take();
        if self.key().is_ok_and(|key| Some(key) != before.as_deref()) {
            return true;
        }
        self.read = None;
        self.current = (self.current + 1) % self.files.len().max(1);
        let other = self.key().is_ok_and(|key| Some(key) != before.as_deref());
        if !other && self.read.is_none() {
            // The other file cannot be used: back to the first one.
            self.current = 0;
        }
        other
    }
}

/// The key in a file, or what is wrong with the file.
pub(super) fn check_key_file(file: &Path) -> Result<String, String> {
    let key = check_secret_file(file)?;
    match BASE64.decode(&key) {
        Ok(bytes) if !bytes.is_empty() => Ok(key),
        _ => Err("holds no Base64".to_owned()),
    }
}

// === impl Signing ===

impl Signing {
    /// The signature in use, a new one once half of its life is over or the clock was set back.
    fn token(&mut self, resource: &str, keys: &mut Keys, now_ms: u64) -> Result<&str, String> {
        let half_ms = u64::try_from(self.lifetime.as_millis() / 2).unwrap_or(u64::MAX);
        let lives =
            |made: &Signature| made.made_ms <= now_ms && now_ms < made.made_ms.saturating_add(half_ms);
        if !self.made.as_ref().is_some_and(lives) {
            let expiry_s = (now_ms / 1000).saturating_add(self.lifetime.as_secs());
            let token = sign(resource, keys.key()?, expiry_s)?;
            self.made = Some(Signature { token, made_ms: now_ms });
        }
        self.made.as_ref().map(|made| made.token.as_str()).ok_or_else(|| "there is no signature".to_owned())
    }
}

/// A signature for `resource` that lives until `expiry_s`, in Unix seconds. It is a secret for that long.
///
/// It is HMAC-SHA256 with the decoded key over the resource and the expiry, both encoded, as Microsoft's libraries make it.
fn sign(resource: &str, key: &str, expiry_s: u64) -> Result<String, String> {
    let key = BASE64.decode(key).map_err(|_| "the key is no Base64".to_owned())?;
    let expiry = i64::try_from(expiry_s).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let at = expiry.ok_or("the clock shows no time that can be signed")?;
    let (date, time) = (at.date(), at.time());
    let expiry = format!("{date} {:02}:{:02}:{:02}+00:00", time.hour(), time.minute(), time.second());
    let signed = format!("r={}&e={}", encode(resource), encode(&expiry));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signature = hmac::sign(&key, signed.as_bytes());
    Ok(format!("{signed}&s={}", encode(&BASE64.encode(signature))))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use reqwest::Url;

    use super::*;
    use crate::azure::{Audience, Cloud};

    const KEY: &str = "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U=";
    const OTHER: &str = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVyMTI=";
    const NOW_MS: u64 = 1_795_215_600_000;

    fn endpoint(kind: Kind) -> Endpoint {
        let path = if kind == Kind::Namespace { "topics/alerts:publish" } else { "api/events" };
        let url = Url::parse(&format!("https://t.westeurope-1.eventgrid.azure.net/{path}")).unwrap();
        Endpoint { url, kind, timeout: Duration::from_secs(1), ca_file: None, proxy: None }
    }

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn put(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    fn shown(credential: &mut Credential, now_ms: u64) -> (String, String) {
        let (name, value) = credential.header(now_ms).unwrap();
        assert!(value.is_sensitive());
        (name.to_string(), value.to_str().unwrap().to_owned())
    }

    #[test]
    fn signatures_are_those_that_microsofts_library_makes() {
        // Made with azure.eventgrid.generate_sas 4.22.1 for 2026-11-21T00:00Z.
        let expected = "r=https%3A%2F%2Ft.westeurope-1.eventgrid.azure.net%2Fapi%2Fevents%3FapiVersion%3D2018-01-01\
                        &e=2026-11-21%2000%3A00%3A00%2B00%3A00&s=CahGLjxW7rbx9%2BFV5IlJgrEGvBjNHj7USCJdBpxWV0Y%3D";
        let resource = endpoint(Kind::Topic).resource();
        assert_eq!(sign(&resource, KEY, 1_795_219_200).as_deref(), Ok(expected));
    }

    #[test]
    fn every_part_of_a_signature_counts() {
        let signed =
            |resource, key, at| sign(resource, key, at).unwrap().split("&s=").nth(1).map(str::to_owned);
        let all = [
            signed("https://a/", KEY, 1),
            signed("https://b/", KEY, 1),
            signed("https://a/", OTHER, 1),
            signed("https://a/", KEY, 2),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(one.is_some() && !all[place + 1..].contains(one));
        }
        assert!(sign("https://a/", "not Base64!", 1).is_err() && sign("https://a/", KEY, u64::MAX).is_err());
    }

    #[test]
    fn a_key_goes_into_the_header_of_its_kind() {
        let files = Files::new();
        let sign_in = SignIn::Key(vec![files.put("key", &format!("{KEY}\n"))]);
        let check = |kind, name: &str, value: &str| {
            let mut credential = Credential::new(&sign_in, &endpoint(kind), None);
            assert_eq!(shown(&mut credential, NOW_MS), (name.to_owned(), value.to_owned()));
            assert_eq!(format!("{credential:?}"), "Key");
        };
        check(Kind::Topic, "aeg-sas-key", KEY);
        check(Kind::Domain, "aeg-sas-key", KEY);
        check(Kind::Namespace, "authorization", &format!("SharedAccessKey {KEY}"));
    }

    #[test]
    fn a_refused_key_is_read_again_and_then_the_other_is_tried() {
        let files = Files::new();
        let (first, second) = (files.put("first", KEY), files.put("second", OTHER));
        let mut credential = Credential::new(&SignIn::Key(vec![first, second]), &endpoint(Kind::Topic), None);
        assert_eq!(shown(&mut credential, NOW_MS).1, KEY);
        assert_eq!(credential.refused(), Renewal::After(Duration::ZERO));
        assert_eq!(shown(&mut credential, NOW_MS).1, OTHER);
        let replaced = BASE64.encode("replaced");
        files.put("second", &replaced);
        assert_eq!(credential.refused(), Renewal::After(Duration::ZERO));
        assert_eq!(shown(&mut credential, NOW_MS).1, replaced);
        assert_eq!(credential.refused(), Renewal::After(Duration::ZERO));
        assert_eq!(shown(&mut credential, NOW_MS).1, KEY, "and back");
    }

    #[test]
    fn one_key_that_is_refused_leaves_nothing_until_its_file_changes() {
        let files = Files::new();
        let sign_in = SignIn::Key(vec![files.put("key", KEY)]);
        let mut credential = Credential::new(&sign_in, &endpoint(Kind::Topic), None);
        assert_eq!(shown(&mut credential, NOW_MS).1, KEY);
        assert_eq!(credential.refused(), Renewal::Nothing);
        assert_eq!(shown(&mut credential, NOW_MS).1, KEY);
        files.put("key", OTHER);
        assert_eq!(credential.refused(), Renewal::After(Duration::ZERO));
        assert_eq!(shown(&mut credential, NOW_MS).1, OTHER);
        files.put("key", "?");
        assert_eq!(credential.refused(), Renewal::Nothing);
        let error = credential.header(NOW_MS).unwrap_err();
        assert!(error.ends_with("key: holds no Base64"), "{error}");
    }

    #[test]
    fn a_signature_is_made_anew_at_half_of_its_life() {
        let files = Files::new();
        let lifetime = Duration::from_secs(3600);
        let sign_in = SignIn::Sas { files: vec![files.put("key", KEY)], lifetime };
        let mut credential = Credential::new(&sign_in, &endpoint(Kind::Topic), None);
        let expiry = |credential: &mut Credential, now_ms| {
            let (name, value) = shown(credential, now_ms);
            assert_eq!(name, "aeg-sas-token");
            value.split("&e=").nth(1).unwrap().split('&').next().unwrap().to_owned()
        };
        let first = expiry(&mut credential, NOW_MS);
        assert_eq!(first, "2026-11-21%2000%3A00%3A00%2B00%3A00");
        assert_eq!(expiry(&mut credential, NOW_MS + 1_799_999), first);
        let second = expiry(&mut credential, NOW_MS + 1_800_000);
        assert_eq!(second, "2026-11-21%2000%3A30%3A00%2B00%3A00");
        assert_eq!(expiry(&mut credential, NOW_MS), first, "the clock was set back");
        assert_eq!(credential.refused(), Renewal::After(Duration::ZERO), "its time may be wrong");
        assert_eq!(expiry(&mut credential, NOW_MS + 1_000), "2026-11-21%2000%3A00%3A01%2B00%3A00");
        let mut namespace = Credential::new(&sign_in, &endpoint(Kind::Namespace), None);
        assert!(shown(&mut namespace, NOW_MS).1.starts_with("SharedAccessSignature r=https%3A%2F%2Ft."));
    }

    #[test]
    fn a_token_is_taken_as_it_is_now() {
        let tokens = TokenHandle::new(Audience::event_grid(Cloud::Public));
        let mut credential =
            Credential::new(&SignIn::Entra(tokens.clone()), &endpoint(Kind::Namespace), None);
        let error = credential.header(NOW_MS).unwrap_err();
        assert_eq!(error, "no token for eventgrid.azure.net yet: it is being fetched");
        tokens.put("first.jwt", Duration::from_secs(600));
        let expected = ("authorization".to_owned(), "Bearer first.jwt".to_owned());
        assert_eq!(shown(&mut credential, NOW_MS), expected);
        assert_eq!(credential.refused(), Renewal::After(TOKEN_PAUSE));
    }
}
