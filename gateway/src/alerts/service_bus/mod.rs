//! Sends commands that rules ask for to queues and topics of Azure Service Bus: one thread per entity, durable and in order.
//!
//! ```text
//! lane alerts ──► feed ──► window ──► line ──AMQP──► queue ──► whoever acts on it, a device of this gateway maybe
//!   ▲  what rules ask    many on their way,             │
//!   │  of this entity    one of each device             ▼
//!   └── progress, durable ◄──────────────────────── accepted; or not: circuit: when next; burial: lane dead
//! ```
//!
//! What enters: the reactions in lane `alerts` that name this entity; everything else there is passed over. What leaves:
//! messages, each at least once and under an id that never changes, so that a queue with duplicate detection holds it once.
//!
//! What holds:
//!
//! - Progress passes a command when Service Bus has accepted it, nobody wants it any more, or it is in lane `dead`; and
//!   those before it. Until then a crash sends it again, under the same id.
//! - Commands for a device arrive in the order in which they were raised: of each device one is on its way at a time, so
//!   that what is sent again after a failure does not come behind what was raised later.
//! - A command is sent for as long as its reaction is wanted, however often that takes, and for what remains of that time it
//!   may wait in its queue. What is over is counted and passed: an outage cannot make the lane grow without end.
//! - Where only somebody's action can help (no such entity, no right to send), the circuit opens: everything is kept as long
//!   as it is wanted, and one try is made per interval.
//! - A command that the service refuses for what it is, is tried once more alone and then goes to lane `dead`, in one batch
//!   with the progress that passes it.
//! - Nothing here is waited for by anybody else.
//!
//! What is bounded: commands in hand ([`window::COMMANDS_MAX`], [`window::BYTES_MAX`]), the wait for a link, for its credit
//! and for an answer; letters in lane `dead` as the configuration says.

mod config;
mod feed;
mod flights;
mod line;
mod metrics;
mod poster;
mod posting;
mod status;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use config::{Config, consumer};
pub(crate) use metrics::METRICS;
pub(crate) use poster::Poster;
pub(crate) use status::{Handle, Status};
