//! Tokens: shared access signatures, and those of the token endpoints; and which entities a connection may use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use tokio::time::Instant;

use super::link::entity_path;
use crate::amqp::{Sections, Value};
use crate::tokens::{Tokens, unix_ms};

const SAS_TYPE: &str = "servicebus.windows.net:sastoken";
/// What a shared access signature starts with.
const SIGNATURE: &str = "SharedAccessSignature ";
const JWT_TYPE: &str = "jwt";
/// Longest token that is read.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Audiences of one connection.
const CLAIMS_MAX: usize = 16_384;
/// An expiry further away is taken for this one.
const LIFE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The rule whose key signs tokens and opens the door by PLAIN. It may do everything.
#[derive(Clone)]
pub(crate) struct SharedKey {
    /// `SharedAccessKeyName`.
    pub(crate) name: String,
    /// `SharedAccessKey`, as written in the connection string.
    pub(crate) key: String,
}

/// Everything but the key.
impl std::fmt::Debug for SharedKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SharedKey {
    /// Judges the initial response of PLAIN: nothing, name and key with zero bytes between.
    pub(super) fn takes_plain(&self, response: &[u8]) -> bool {
        let mut parts = response.split(|byte| *byte == 0).skip(1);
        let (name, key) = (parts.next(), parts.next());
        name == Some(self.name.as_bytes()) && key == Some(self.key.as_bytes()) && parts.next().is_none()
    }

    /// Checks a shared access signature for `audience`. Returns how long it still lives.
    fn judge(&self, token: &str, audience: &str) -> Result<Duration, &'static str> {
        let fields = token.strip_prefix(SIGNATURE).ok_or("the token is not a signature")?;
        let field = |name: &str| {
            let mut fields = fields.split('&').filter_map(|field| field.split_once('='));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let resource = field("sr").ok_or("the signature lacks sr")?;
        let expiry = field("se").ok_or("the signature lacks se")?;
        let name = unescape(field("skn").ok_or("the signature lacks skn")?);
        let signature = field("sig").and_then(unescape).ok_or("the signature lacks sig")?;
        if name.as_deref() != Some(&*self.name) {
            return Err("there is no key of that name");
        }
        let signature = STANDARD.decode(signature).map_err(|_bad| "sig is not base64")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes());
        hmac::verify(&key, format!("{resource}\n{expiry}").as_bytes(), &signature)
            .map_err(|_wrong| "the signature is not right")?;
        let resource = unescape(resource).ok_or("sr cannot be read")?;
        if !covers(entity_path(&resource), entity_path(audience)) {
            return Err("the signature is for something else");
        }
        let expiry_ms = expiry.parse::<u64>().map_err(|_bad| "se is not a number")?.saturating_mul(1_000);
        match expiry_ms.saturating_sub(unix_ms()) {
            0 => Err("the token has expired"),
            left_ms => Ok(Duration::from_millis(left_ms)),
        }
    }
}

/// What a connection has shown so far.
#[derive(Debug)]
pub(super) struct Claims {
    key: Arc<SharedKey>,
    tokens: Option<Arc<Tokens>>,
    /// PLAIN was right: everything is allowed.
    all: bool,
    /// Paths, in lower case, and when what was shown for them ends.
    until: HashMap<String, Instant>,
}

impl Claims {
    pub(super) fn new(key: Arc<SharedKey>, tokens: Option<Arc<Tokens>>) -> Self {
        Self { key, tokens, all: false, until: HashMap::new() }
    }

    /// PLAIN.
    pub(super) fn plain(&mut self, response: &[u8]) -> bool {
        self.all = self.key.takes_plain(response);
        self.all
    }

    /// Whether a token for this entity, or for all of them, is there and alive.
    pub(super) fn allow(&self, entity: &str, now: Instant) -> bool {
        let alive = |path: &str| self.until.get(path).is_some_and(|until| *until > now);
        if self.all || alive("") {
            return true;
        }
        let entity = entity.to_ascii_lowercase();
        let mut path = entity.as_str();
        loop {
            if alive(path) {
                return true;
            }
            let Some((parent, _)) = path.rsplit_once('/') else { return false };
            path = parent;
        }
    }

    /// When the next token ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }

    /// Forgets what has ended.
    pub(super) fn expire(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
    }

    /// Answers a request to `$cbs`: status code and description.
    pub(super) fn put(&mut self, request: &Sections<'_>, life_max: Option<Duration>) -> (i32, String) {
        let text = |name| request.application_property(name).and_then(Value::text);
        if text("operation") != Some("put-token") {
            return (400, "operation: only put-token is known".to_owned());
        }
        let (Some(kind), Some(audience)) = (text("type"), text("name")) else {
            return (400, "type and name are needed".to_owned());
        };
        let body = request.body_value();
        let token = match &body {
            Ok(Value::String(token)) if token.len() <= TOKEN_BYTES_MAX => token,
            _ => return (400, "the body is not a token".to_owned()),
        };
        // Microsoft's Python client puts signatures as `jwt`, and the service takes them.
        let signature = kind == SAS_TYPE || token.starts_with(SIGNATURE);
        let life = match (kind, &self.tokens) {
            (SAS_TYPE | JWT_TYPE, _) if signature => self.key.judge(token, audience),
            (JWT_TYPE, Some(tokens)) => tokens.judge_service_bus(token).map(|taken| taken.life),
            (JWT_TYPE, None) => Err("this namespace knows no identities"),
            _ => Err("a token of this type is not known"),
        };
        match life {
            Err(reason) => {
                tracing::debug!(kind, audience, reason, "token refused");
                (401, format!("Unauthorized access: {reason}"))
            }
            Ok(life) => {
                let path = entity_path(audience).to_ascii_lowercase();
                if self.until.len() >= CLAIMS_MAX && !self.until.contains_key(&path) {
                    return (403, "too many tokens on one connection".to_owned());
                }
                let life = life.min(life_max.unwrap_or(LIFE_MAX)).min(LIFE_MAX);
                self.until.insert(path, Instant::now() + life);
                (202, "Accepted".to_owned())
            }
        }
    }
}

/// Whether a signature for `resource` holds for `path`: it is the same or above it.
fn covers(resource: &str, path: &str) -> bool {
    let (resource, path) = (resource.to_ascii_lowercase(), path.to_ascii_lowercase());
    match path.strip_prefix(&*resource) {
        Some(rest) => resource.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// Undoes percent-encoding.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit =
            |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).ok()
}
