//! `SaslHandshake` and `SaslAuthenticate`, and the message of PLAIN inside.

use bytes::BufMut;

use super::{DecodeError, ErrorCode, Reader, length_i32, put_string};

/// User and password.
pub(crate) const PLAIN: &str = "PLAIN";
/// A token.
pub(crate) const OAUTHBEARER: &str = "OAUTHBEARER";

/// The mechanism a handshake asks for.
pub(crate) fn decode_handshake(frame: &[u8], body: usize) -> Result<&str, DecodeError> {
    let mut reader = Reader::at(frame, body);
    let mechanism = reader.string()?;
    reader.finish()?;
    Ok(mechanism)
}

/// Writes the outcome and the mechanisms that are served.
pub(crate) fn encode_handshake(output: &mut Vec<u8>, error: ErrorCode, mechanisms: &[&str]) {
    output.put_i16(error.0);
    output.put_i32(length_i32(mechanisms.len()));
    for mechanism in mechanisms {
        put_string(output, mechanism);
    }
}

/// The token of an authentication request.
pub(crate) fn decode_authenticate(frame: &[u8], body: usize) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::at(frame, body);
    let token = reader.bytes()?;
    reader.finish()?;
    Ok(token)
}

/// Writes the outcome: for how many milliseconds the session holds, 0 for ever, or why there is none.
pub(crate) fn encode_authenticate(
    output: &mut Vec<u8>,
    version: i16,
    outcome: Result<u64, (ErrorCode, &str)>,
) {
    match outcome {
        Ok(_life_ms) => {
            output.put_i16(ErrorCode::NONE.0);
            output.put_i16(-1);
        }
        Err((error, message)) => {
            output.put_i16(error.0);
            put_string(output, message);
        }
    }
    output.put_i32(length_i32(0));
    if version >= 1 {
        output.put_i64(i64::try_from(outcome.unwrap_or(0)).unwrap_or(i64::MAX));
    }
}

/// Splits a PLAIN token into user and password.
pub(crate) fn plain_token(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = token.split(|byte| *byte == 0);
    let (_authorize_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some((user, password))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{decode_authenticate, decode_handshake, plain_token};

    #[test]
    fn a_plain_token_has_three_parts() {
        assert_eq!(plain_token(b"\0user\0secret"), Some((&b"user"[..], &b"secret"[..])));
        assert_eq!(plain_token(b"user\0secret"), None);
        assert_eq!(plain_token(b"\0user\0secret\0more"), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(decode_handshake(&bytes, 0));
            drop(decode_authenticate(&bytes, 0));
            plain_token(&bytes);
        }
    }
}
