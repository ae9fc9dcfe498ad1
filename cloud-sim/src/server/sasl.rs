//! SASL PLAIN as Event Hubs uses it: the user is always `$ConnectionString`, the password is the string.

use std::sync::Arc;

use bytes::BufMut;

use super::connection::End;
use crate::protocol::{ApiKey, ErrorCode, RequestHeader, sasl};

const USER: &[u8] = b"$ConnectionString";

/// Whether a client may go on.
#[derive(Debug)]
pub(crate) struct Gate {
    key: Option<Arc<str>>,
    stage: Stage,
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

impl Gate {
    /// Open at once if there is no key.
    pub(super) fn new(key: Option<Arc<str>>) -> Self {
        let stage = if key.is_some() { Stage::Closed } else { Stage::Open };
        Self { key, stage }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(super) fn expects_bare_token(&self) -> bool {
        self.stage == Stage::BareToken
    }

    /// Whether this request is allowed now. Before authentication only what leads to it is.
    pub(super) fn admit(&self, api: ApiKey) -> Result<(), End> {
        match api {
            ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => Ok(()),
            _ if self.is_open() => Ok(()),
            _ => Err(End::Unauthorised),
        }
    }

    /// Answers a handshake or a token.
    pub(super) fn answer(
        &mut self,
        output: &mut Vec<u8>,
        header: RequestHeader,
        frame: &[u8],
    ) -> Result<(), End> {
        if header.api == ApiKey::SaslHandshake {
            let error = self.handshake(sasl::decode_handshake(frame, header.body)?, header.version);
            sasl::encode_handshake(output, error);
            return Ok(());
        }
        let token = sasl::decode_authenticate(frame, header.body)?;
        if self.stage != Stage::Token {
            let refused = Err((ErrorCode::ILLEGAL_SASL_STATE, "no handshake came before this token"));
            sasl::encode_authenticate(output, header.version, refused);
            return Ok(());
        }
        if self.fits(token) {
            self.stage = Stage::Open;
            sasl::encode_authenticate(output, header.version, Ok(()));
            return Ok(());
        }
        let refused =
            Err((ErrorCode::SASL_AUTHENTICATION_FAILED, "the connection string is not the right one"));
        sasl::encode_authenticate(output, header.version, refused);
        Err(End::Unauthorised)
    }

    /// Answers a token in a frame of its own: an empty frame if it fits, the end if not.
    pub(super) fn bare_token(&mut self, token: &[u8], output: &mut Vec<u8>) -> Result<(), End> {
        if !self.fits(token) {
            return Err(End::Unauthorised);
        }
        self.stage = Stage::Open;
        output.put_i32(0);
        Ok(())
    }

    fn handshake(&mut self, mechanism: &str, version: i16) -> ErrorCode {
        if self.key.is_none() || self.is_open() {
            return ErrorCode::ILLEGAL_SASL_STATE;
        }
        if mechanism != sasl::PLAIN {
            return ErrorCode::UNSUPPORTED_SASL_MECHANISM;
        }
        self.stage = if version == 0 { Stage::BareToken } else { Stage::Token };
        ErrorCode::NONE
    }

    fn fits(&self, token: &[u8]) -> bool {
        let key = self.key.as_deref().map(str::as_bytes);
        sasl::plain_token(token).is_some_and(|(user, password)| user == USER && Some(password) == key)
    }
}
