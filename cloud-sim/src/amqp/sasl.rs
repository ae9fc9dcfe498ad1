//! Frames of the exchange before AMQP itself (part 5).

use bytes::Bytes;

use super::decode::{DecodeError, Reader};
use super::fields::{list, optional, required, text};
use super::frame::{FrameKind, begin_frame, finish_frame};
use super::value::Value;

mod codes {
    pub(super) const MECHANISMS: u64 = 0x40;
    pub(super) const INIT: u64 = 0x41;
    pub(super) const RESPONSE: u64 = 0x43;
    pub(super) const OUTCOME: u64 = 0x44;
}

/// Outcome codes of a SASL exchange.
pub(crate) mod outcome {
    pub(crate) const OK: u8 = 0;
    pub(crate) const AUTH: u8 = 1;
}

/// Frames of the exchange before AMQP itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sasl {
    Mechanisms(Vec<String>),
    Init {
        mechanism: String,
        response: Option<Bytes>,
    },
    Outcome(u8),
    /// A response to a challenge: none is ever sent here.
    Response,
}

impl Sasl {
    pub(crate) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (code, mut fields) = list(&mut Reader::new(body))?;
        Ok(match code {
            codes::INIT => Self::Init {
                mechanism: text(&mut fields, "mechanism")?.ok_or(DecodeError::Missing("mechanism"))?,
                response: match fields.next() {
                    None | Some(Value::Null) => None,
                    Some(Value::Binary(response)) => Some(response),
                    Some(_) => return Err(DecodeError::Wrong("initial-response")),
                },
            },
            codes::RESPONSE => Self::Response,
            codes::MECHANISMS => {
                let names = fields.next().unwrap_or(Value::Null);
                Self::Mechanisms(
                    names.items().iter().filter_map(|name| name.text().map(str::to_owned)).collect(),
                )
            }
            codes::OUTCOME => Self::Outcome(required(&mut fields, "code")?),
            other => return Err(DecodeError::UnknownDescriptor(other)),
        })
    }

    pub(crate) fn encode(&self, output: &mut Vec<u8>) {
        let value = match self {
            Self::Mechanisms(names) => {
                let names = names.iter().map(Value::symbol).collect();
                Value::composite(codes::MECHANISMS, vec![Value::Array(names)])
            }
            Self::Init { mechanism, response } => Value::composite(
                codes::INIT,
                vec![Value::symbol(mechanism), optional(response.clone().map(Value::Binary)), Value::Null],
            ),
            Self::Outcome(code) => Value::composite(codes::OUTCOME, vec![Value::Ubyte(*code), Value::Null]),
            Self::Response => Value::composite(codes::RESPONSE, vec![Value::Binary(Bytes::new())]),
        };
        let start = begin_frame(output, FrameKind::Sasl, 0);
        value.encode(output);
        finish_frame(output, start);
    }
}
