//! The contract of a command: what a message of Service Bus has to be, what the device gets, what it may answer, what
//! the cloud is told, and what is remembered of it. No I/O and no clock, but for [`Records`], which reads the store.
//!
//! ```text
//! Received ──read──► Command ──message──► OwnedMessage ──► device
//!     │                 │                                    │
//!     └──► Poison       └──────► StatusEvent ◄── Outcome ◄── Answer
//!                                  │  └── one batch with ── Record
//!                                  └──► Reply
//! ```
//!
//! `docs/commands.md` tells it to those who send commands and to those who write firmware; the layout of records is in
//! `docs/formats/command-record-v1.md`.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | a command's id, as it stands in the topic | 384 bytes | poison |
//! | name, content type, origin | 256 bytes | poison |
//! | properties for the device | 32, 8 KiB | poison |
//! | an answer | 64 KiB | malformed |
//! | the detail of an answer | 4 KiB | left out, and the event says how long it was |
//! | records in memory and in the store | one for each device; by age, and by number | the oldest go |

mod about;
mod answer;
mod command;
mod deadline;
mod ending;
mod event;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod id;
mod letter;
mod outcome;
mod properties;
mod record;
mod records;
mod reply;
mod shard;
#[cfg(test)]
mod tests;
mod trace;

pub(crate) use about::{About, Identity};
pub(crate) use answer::Answer;
pub(crate) use command::{Command, Completion, Defaults, Poison};
pub(crate) use deadline::parse as parse_time;
pub(crate) use ending::Ending;
pub(crate) use event::{StatusEvent, Voice};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use letter::Letter;
use outcome::Reason;
pub(crate) use outcome::{Outcome, Status};
pub(crate) use record::{Phase, Record, record_key};
pub(crate) use records::{Limits, Records};
pub(crate) use reply::Reply;
pub(crate) use shard::shard;
