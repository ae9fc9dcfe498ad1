//! Signing in: PLAIN as Event Hubs uses it, where the user is always `$ConnectionString` and the password is the
//! string, and OAUTHBEARER with a token. Whoever came with a token shows a new one on the same connection before the
//! old one ends (KIP-368), or loses the connection.

use std::sync::Arc;

use bytes::BufMut;
use tokio::time::Instant;

use super::connection::End;
use crate::broker::Counters;
use crate::protocol::{ApiKey, ErrorCode, RequestHeader, sasl};
use crate::tokens::Tokens;

const USER: &[u8] = b"$ConnectionString";

/// Whether a client may go on.
#[derive(Debug)]
pub(crate) struct Gate {
    key: Option<Arc<str>>,
    tokens: Option<Arc<Tokens>>,
    stage: Stage,
    /// The mechanism that the last handshake chose.
    mechanism: Mechanism,
    /// When the token of an open gate ends.
    until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A handshake has to come first.
    Closed,
    /// A token has to come in `SaslAuthenticate`.
    Token,
    /// A token has to come in a frame of its own, as after a handshake of version 0.
    BareToken,
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Bearer,
}

impl Gate {
    /// Open at once if nothing is asked for.
    pub(super) fn new(key: Option<Arc<str>>, tokens: Option<Arc<Tokens>>) -> Self {
        let stage = if key.is_some() || tokens.is_some() { Stage::Closed } else { Stage::Open };
        Self { key, tokens, stage, mechanism: Mechanism::Plain, until: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(super) fn expects_bare_token(&self) -> bool {
        self.stage == Stage::BareToken
    }

    /// When the client's token ends, and its connection with it.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether this request is allowed now. Before authentication only what leads to it is.
    pub(super) fn admit(&self, api: ApiKey) -> Result<(), End> {
        match api {
            ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => Ok(()),
            _ if self.until.is_some_and(|until| until <= Instant::now()) => Err(End::Expired),
            _ if self.is_open() => Ok(()),
            _ => Err(End::Unauthorised),
        }
    }

    /// Answers a handshake or a token.
    pub(super) fn answer(
        &mut self,
        output: &mut Vec<u8>,
        counters: &Counters,
        header: RequestHeader,
        frame: &[u8],
    ) -> Result<(), End> {
        if header.api == ApiKey::SaslHandshake {
            let error = self.handshake(sasl::decode_handshake(frame, header.body)?, header.version);
            sasl::encode_handshake(output, error, &self.mechanisms());
            return Ok(());
        }
        let token = sasl::decode_authenticate(frame, header.body)?;
        if self.stage != Stage::Token {
            let refused = Err((ErrorCode::ILLEGAL_SASL_STATE, "no handshake came before this token"));
            sasl::encode_authenticate(output, header.version, refused);
            return Ok(());
        }
        match self.open(token, counters) {
            Ok(life_ms) => {
                sasl::encode_authenticate(output, header.version, Ok(life_ms));
                Ok(())
            }
            Err(reason) => {
                let refused = Err((ErrorCode::SASL_AUTHENTICATION_FAILED, reason));
                sasl::encode_authenticate(output, header.version, refused);
                Err(End::Unauthorised)
            }
        }
    }

    /// Answers a token in a frame of its own: an empty frame if it fits, the end if not.
    pub(super) fn bare_token(
        &mut self,
        token: &[u8],
        counters: &Counters,
        output: &mut Vec<u8>,
    ) -> Result<(), End> {
        self.open(token, counters).map_err(|_reason| End::Unauthorised)?;
        output.put_i32(0);
        Ok(())
    }

    fn mechanisms(&self) -> Vec<&'static str> {
        let plain = self.key.as_ref().map(|_key| sasl::PLAIN);
        let bearer = self.tokens.as_ref().map(|_tokens| sasl::OAUTHBEARER);
        plain.into_iter().chain(bearer).collect()
    }

    fn handshake(&mut self, mechanism: &str, version: i16) -> ErrorCode {
        let mechanisms = self.mechanisms();
        // Who is in with a token may show a new one; nobody else has a reason to come again.
        let again = self.is_open() && self.until.is_some() && mechanism == sasl::OAUTHBEARER;
        if mechanisms.is_empty() || (self.is_open() && !again) {
            return ErrorCode::ILLEGAL_SASL_STATE;
        }
        if !mechanisms.contains(&mechanism) {
            return ErrorCode::UNSUPPORTED_SASL_MECHANISM;
        }
        self.mechanism = if mechanism == sasl::PLAIN { Mechanism::Plain } else { Mechanism::Bearer };
        self.stage = if version == 0 { Stage::BareToken } else { Stage::Token };
        ErrorCode::NONE
    }

    /// Opens if the token fits. Returns for how long in milliseconds, 0 for as long as the client likes.
    fn open(&mut self, token: &[u8], counters: &Counters) -> Result<u64, &'static str> {
        let life_ms = match self.mechanism {
            Mechanism::Plain => {
                let key = self.key.as_deref().map(str::as_bytes);
                let (user, password) = sasl::plain_token(token).ok_or("the message is not one of PLAIN")?;
                if user != USER || Some(password) != key {
                    return Err("the connection string is not the right one");
                }
                counters.authentications_plain.add(1);
                0
            }
            Mechanism::Bearer => {
                let tokens = self.tokens.as_ref().ok_or("no token is taken here")?;
                let taken = tokens.judge(token)?;
                let again = self.until.replace(Instant::now() + taken.life).is_some();
                counters.authentications_oauthbearer.add(1);
                counters.reauthentications.add(u64::from(again));
                u64::try_from(taken.life.as_millis()).unwrap_or(u64::MAX)
            }
        };
        self.stage = Stage::Open;
        Ok(life_ms)
    }
}
