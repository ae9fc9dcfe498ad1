//! AMQP 1.0 as bytes: frames, performatives, values and message sections. No sockets and no clock.
//!
//! It is written from the OASIS standard (part and section numbers below are its own) and shares nothing with
//! the client library the gateway uses, so that the two check each other. Decoders never panic, never follow
//! more than a fixed depth, and never make room for more items than there are bytes to hold them. Encoders
//! write every field of a list, nulls included, as Azure does: older clients index into frames.

mod decode;
mod encode;
mod fields;
mod frame;
mod message;
mod performative;
mod sasl;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod traces;
mod value;

pub(crate) use self::decode::{DecodeError, Reader};
pub(crate) use self::frame::{
    EMPTY_FRAME, Frame, FrameKind, PROTOCOL_AMQP, PROTOCOL_SASL, begin_frame, finish_frame, next_frame,
};
pub(crate) use self::message::{Header, Sections, code};
#[cfg(test)]
pub(crate) use self::performative::Terminus;
pub(crate) use self::performative::{
    Attach, Begin, Close, Detach, Disposition, End, ErrorInfo, Flow, Open, Performative, SettleMode, State,
    Transfer,
};
pub(crate) use self::sasl::{Sasl, outcome};
pub(crate) use self::value::{Value, entry};
