//! `InitProducerId`: gives an idempotent producer its number.

use bytes::BufMut;

use super::{DecodeError, ErrorCode, Reader};

/// Asked for with a transactional id or without.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) transactional: bool,
}

impl Request {
    pub(crate) fn decode(frame: &[u8], body: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::at(frame, body);
        let transactional = reader.nullable_string()?.is_some();
        let _timeout_ms = reader.i32()?;
        reader.finish()?;
        Ok(Self { transactional })
    }
}

/// Writes the answer: a producer id, or why there is none.
pub(crate) fn encode(output: &mut Vec<u8>, outcome: Result<i64, ErrorCode>) {
    output.put_i32(0);
    output.put_i16(outcome.err().unwrap_or(ErrorCode::NONE).0);
    output.put_i64(outcome.unwrap_or(-1));
    output.put_i16(if outcome.is_ok() { 0 } else { -1 });
}
