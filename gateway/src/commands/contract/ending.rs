//! How a command ended, as its record holds it: what a reply is made of when its message comes again.

use super::outcome::{Outcome, Reason, Status};
use crate::outbox::{Input, put_sized};

/// How a command ended whose sender asked for a reply. Some 10 bytes in a record; with a detail and a sentence of
/// full length 4.6 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    /// Whether the device was told that it may have got it before.
    pub(crate) redelivered: bool,
}

const FLAG_CODE: u8 = 1;
const FLAG_DETAIL: u8 = 2;
const FLAG_DETAIL_BYTES: u8 = 4;
const FLAG_NOTE: u8 = 8;
const FLAG_REDELIVERED: u8 = 16;
const FLAGS: u8 = FLAG_CODE | FLAG_DETAIL | FLAG_DETAIL_BYTES | FLAG_NOTE | FLAG_REDELIVERED;

const STATUSES: [Status; 5] =
    [Status::Delivered, Status::Succeeded, Status::Failed, Status::Rejected, Status::Expired];
const REASONS: [Reason; 6] = [
    Reason::NoAnswer,
    Reason::Refused,
    Reason::Malformed,
    Reason::TooLarge,
    Reason::Expired,
    Reason::DeadLettered,
];

impl Ending {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        // What others dead-lettered has no record of how it ended.
        let Outcome { status, reason, code, detail, detail_bytes, note, dead_letter: _ } = &self.outcome;
        let flag = |there: bool, flag: u8| if there { flag } else { 0 };
        let flags = flag(code.is_some(), FLAG_CODE)
            | flag(detail.is_some(), FLAG_DETAIL)
            | flag(detail_bytes.is_some(), FLAG_DETAIL_BYTES)
            | flag(note.is_some(), FLAG_NOTE)
            | flag(self.redelivered, FLAG_REDELIVERED);
        out.extend_from_slice(&[status_number(*status), reason.map_or(0, reason_number), flags]);
        if let Some(code) = code {
            out.extend_from_slice(&code.to_le_bytes());
        }
        if let Some(detail) = detail {
            put_sized(out, detail.as_bytes());
        }
        if let Some(bytes) = detail_bytes {
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        if let Some(note) = note {
            put_sized(out, note.as_bytes());
        }
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Option<Self> {
        let number = input.u8()?;
        let status = STATUSES.into_iter().find(|status| status_number(*status) == number)?;
        let reason = match input.u8()? {
            0 => None,
            number => Some(REASONS.into_iter().find(|reason| reason_number(*reason) == number)?),
        };
        let flags = input.u8()?;
        if flags & !FLAGS != 0 {
            return None;
        }
        let code = if flags & FLAG_CODE == 0 { None } else { Some(input.u64()?.cast_signed()) };
        let detail = if flags & FLAG_DETAIL == 0 { None } else { Some(input.text()?.into()) };
        let detail_bytes = if flags & FLAG_DETAIL_BYTES == 0 { None } else { Some(input.u32()?) };
        let note = if flags & FLAG_NOTE == 0 { None } else { Some(input.text()?.into()) };
        let outcome = Outcome { status, reason, code, detail, detail_bytes, note, dead_letter: None };
        Some(Self { outcome, redelivered: flags & FLAG_REDELIVERED != 0 })
    }
}

const fn status_number(status: Status) -> u8 {
    match status {
        Status::Delivered => 1,
        Status::Succeeded => 2,
        Status::Failed => 3,
        Status::Rejected => 4,
        Status::Expired => 5,
    }
}

const fn reason_number(reason: Reason) -> u8 {
    match reason {
        Reason::NoAnswer => 1,
        Reason::Refused => 2,
        Reason::Malformed => 3,
        Reason::TooLarge => 4,
        Reason::Expired => 5,
        Reason::DeadLettered => 6,
    }
}
