//! What is remembered of a device's last command: how far it came, so that a crash makes nothing happen twice that
//! was once known to have happened.
//!
//! The layout is in `docs/formats/command-record-v1.md`.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use serde::{Deserialize, Serialize};

use super::about::Identity;
use super::answer::{Answer, AnswerStatus};
use super::command::Completion;
use super::ending::Ending;
use crate::commands::message::Disposition;
use crate::outbox::{Input, put_sized};

/// How far a device's last command came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) identity: Identity,
    pub(crate) completion: Completion,
    pub(crate) phase: Phase,
    /// When this was written, in Unix milliseconds.
    pub(crate) at_ms: u64,
    /// How it ended; only of a command that is done and whose sender asked for a reply.
    pub(crate) ending: Option<Box<Ending>>,
}

/// How far a command came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It is about to be published, or was; whether the device has it is not known.
    Started,
    /// The device acknowledged it, and its answer is waited for until then, in Unix milliseconds.
    Delivered {
        /// Until when.
        deadline_ms: u64,
    },
    /// The device answered while its message was not at hand.
    Answered(Answer),
    /// It is done, the cloud was told, and its message is to be settled so.
    Done(Disposition),
}

/// Begins the keys of records in the outbox's state; other numbers belong to others.
pub(super) const KEY_PREFIX: u8 = 16;
const VERSION: u8 = 1;

const STARTED: u8 = 1;
const DELIVERED: u8 = 2;
const ANSWERED: u8 = 3;
const DONE: u8 = 4;

const FLAG_ANSWERED: u8 = 1;
const FLAG_MESSAGE_ID: u8 = 2;
const FLAG_ENDING: u8 = 4;
const FLAGS: u8 = FLAG_ANSWERED | FLAG_MESSAGE_ID | FLAG_ENDING;

const FLAG_CODE: u8 = 1;
const FLAG_DETAIL: u8 = 2;
const FLAG_DETAIL_BYTES: u8 = 4;

const COMPLETE: u8 = 1;
const DEAD_LETTER: u8 = 2;

/// The key of a device's record.
pub(crate) fn record_key(device: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + device.len());
    key.push(KEY_PREFIX);
    key.extend_from_slice(device.as_bytes());
    key
}

/// The device of a record's key.
pub(super) fn device_of(key: &[u8]) -> Option<&str> {
    let (prefix, device) = key.split_first()?;
    std::str::from_utf8(device).ok().filter(|_| *prefix == KEY_PREFIX)
}

// === impl Record ===

impl Record {
    /// The record as it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { identity, completion, phase, at_ms, ending } = self;
        let number = match phase {
            Phase::Started => STARTED,
            Phase::Delivered { .. } => DELIVERED,
            Phase::Answered(_) => ANSWERED,
            Phase::Done(_) => DONE,
        };
        let answered = if *completion == Completion::Answered { FLAG_ANSWERED } else { 0 };
        let with_id = if identity.message_id.is_some() { FLAG_MESSAGE_ID } else { 0 };
        let with_ending = if ending.is_some() { FLAG_ENDING } else { 0 };
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(&[VERSION, number, answered | with_id | with_ending]);
        out.extend_from_slice(&at_ms.to_le_bytes());
        out.extend_from_slice(&identity.sequence.to_le_bytes());
        out.extend_from_slice(&identity.enqueued_ms.to_le_bytes());
        put_sized(&mut out, identity.entity.as_bytes());
        if let Some(id) = &identity.message_id {
            put_sized(&mut out, id.as_bytes());
        }
        match phase {
            Phase::Started => {}
            Phase::Delivered { deadline_ms } => out.extend_from_slice(&deadline_ms.to_le_bytes()),
            Phase::Answered(answer) => encode_answer(&mut out, answer),
            Phase::Done(Disposition::DeadLetter { reason, description }) => {
                out.push(DEAD_LETTER);
                put_sized(&mut out, reason.as_bytes());
                put_sized(&mut out, description.as_bytes());
            }
            // What is abandoned is not done, and no record says so.
            Phase::Done(Disposition::Complete | Disposition::Abandon) => out.push(COMPLETE),
        }
        if let Some(ending) = ending {
            ending.encode(&mut out);
        }
        out
    }

    /// Reads a stored record; `None` if it is none of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        let (version, number, flags) = (input.u8()?, input.u8()?, input.u8()?);
        if version != VERSION || flags & !FLAGS != 0 || (flags & FLAG_ENDING != 0 && number != DONE) {
            return None;
        }
        let at_ms = input.u64()?;
        let sequence = input.u64()?.cast_signed();
        let enqueued_ms = input.u64()?;
        let entity = input.text()?.into();
        let message_id = if flags & FLAG_MESSAGE_ID == 0 { None } else { Some(input.text()?) };
        if message_id == Some("") {
            return None;
        }
        let message_id = message_id.map(Into::into);
        let phase = match number {
            STARTED => Phase::Started,
            DELIVERED => Phase::Delivered { deadline_ms: input.u64()? },
            ANSWERED => Phase::Answered(decode_answer(&mut input)?),
            DONE => Phase::Done(decode_disposition(&mut input)?),
            _ => return None,
        };
        let ending =
            if flags & FLAG_ENDING == 0 { None } else { Some(Box::new(Ending::decode(&mut input)?)) };
        let completion =
            if flags & FLAG_ANSWERED == 0 { Completion::Delivered } else { Completion::Answered };
        let identity = Identity { entity, sequence, enqueued_ms, message_id };
        input.is_empty().then_some(Self { identity, completion, phase, at_ms, ending })
    }

    /// The state of a session that tells other replicas what was done last; only of what is done. It is written after
    /// the reply was sent, and says nothing of that.
    pub(crate) fn session_state(&self) -> Option<Vec<u8>> {
        let Phase::Done(disposition) = &self.phase else { return None };
        let dead_letter = match disposition {
            Disposition::DeadLetter { reason, description } => {
                Some(DeadLetter { reason: reason.clone(), description: description.clone() })
            }
            Disposition::Complete | Disposition::Abandon => None,
        };
        let Identity { entity, sequence, enqueued_ms, message_id } = &self.identity;
        let state = SessionState {
            version: VERSION,
            entity: entity.to_string(),
            sequence: *sequence,
            enqueued_ms: *enqueued_ms,
            message_id: message_id.as_deref().map(ToOwned::to_owned),
            completion: self.completion.word().to_owned(),
            at_ms: self.at_ms,
            dead_letter,
        };
        serde_json::to_vec(&state).ok()
    }

    /// Reads the state of a session; `None` if it is not ours, or of another version.
    pub(crate) fn from_session_state(state: &[u8]) -> Option<Self> {
        let state: SessionState = serde_json::from_slice(state).ok()?;
        let completion = Completion::from_word(&state.completion).filter(|_| state.version == VERSION)?;
        let disposition = match state.dead_letter {
            None => Disposition::Complete,
            Some(DeadLetter { reason, description }) => Disposition::DeadLetter { reason, description },
        };
        let message_id = match state.message_id {
            Some(id) if id.is_empty() => return None,
            id => id.map(Into::into),
        };
        let identity = Identity {
            entity: state.entity.into(),
            sequence: state.sequence,
            enqueued_ms: state.enqueued_ms,
            message_id,
        };
        let phase = Phase::Done(disposition);
        Some(Self { identity, completion, phase, at_ms: state.at_ms, ending: None })
    }
}

/// What a session of Service Bus holds for other replicas, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionState {
    /// Named so that nobody takes it for another's.
    #[serde(rename = "penstock")]
    version: u8,
    entity: String,
    sequence: i64,
    enqueued_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    completion: String,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetter {
    reason: String,
    description: String,
}

fn encode_answer(out: &mut Vec<u8>, answer: &Answer) {
    let Answer { status, code, detail, detail_bytes } = answer;
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    let flags = flag(code.is_some(), FLAG_CODE)
        | flag(detail.is_some(), FLAG_DETAIL)
        | flag(detail_bytes.is_some(), FLAG_DETAIL_BYTES);
    out.extend_from_slice(&[status.number(), flags]);
    if let Some(code) = code {
        out.extend_from_slice(&code.to_le_bytes());
    }
    if let Some(detail) = detail {
        put_sized(out, detail.as_bytes());
    }
    if let Some(bytes) = detail_bytes {
        out.extend_from_slice(&bytes.to_le_bytes());
    }
}

fn decode_answer(input: &mut Input<'_>) -> Option<Answer> {
    let status = AnswerStatus::from_number(input.u8()?)?;
    let flags = input.u8()?;
    if flags & !(FLAG_CODE | FLAG_DETAIL | FLAG_DETAIL_BYTES) != 0 {
        return None;
    }
    let code = if flags & FLAG_CODE == 0 { None } else { Some(input.u64()?.cast_signed()) };
    let detail = if flags & FLAG_DETAIL == 0 { None } else { Some(input.text()?.into()) };
    let detail_bytes = if flags & FLAG_DETAIL_BYTES == 0 { None } else { Some(input.u32()?) };
    Some(Answer { status, code, detail, detail_bytes })
}

fn decode_disposition(input: &mut Input<'_>) -> Option<Disposition> {
    match input.u8()? {
        COMPLETE => Some(Disposition::Complete),
        DEAD_LETTER => {
            let reason = input.text()?.to_owned();
            Some(Disposition::DeadLetter { reason, description: input.text()?.to_owned() })
        }
        _ => None,
    }
}
