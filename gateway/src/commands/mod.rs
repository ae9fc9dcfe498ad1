//! Commands: out of sessions of Azure Service Bus, in order, to the devices that are connected here.
//!
//! **The promise:** a command is settled at Service Bus only after its device has it and what became of it is durable;
//! a device that is not connected here is not touched; each command that reaches the gateway ends in one final status.
//!
//! ```text
//! Service Bus ──amqp── link (one task per device) ──► execution ──► device (mqtt)
//!      ▲                 ▲                              │  ▲ PUBACK, answer
//!      └─ reply, settled ┤                              ▼  │
//!                        └──── durable ◄── status event and record (outbox)
//!                  dispatch: who gets a link
//! Service Bus ──amqp── watcher: what it gave up itself ──► status event
//! Service Bus ◄─amqp── sending: what other stages send there
//! ```
//!
//! What enters: messages of the sessions of connected devices, and what devices answer. What leaves: publishes to
//! devices, status events in lane `status`, settlements. What holds:
//!
//! - A device has one link and one command at a time, strictly in the order of its session.
//! - The result, its status event and the record of it are one batch, and durable before the message is settled. What
//!   a crash leaves is decided by the record: a command that is done is settled and not published again.
//! - The lock is renewed at its half. What is in hand when a link ends is not settled; Service Bus delivers it again
//!   without counting that as a failure.
//! - Nothing here can stop telemetry, and an outage of Service Bus never fails readiness.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | links per entity | `links_max` | devices are reached by discovery, the idlest link makes room |
//! | accepts | `accepts_per_second` | devices wait for their turn |
//! | commands on their way to devices | `in_flight_max` | messages wait with their lock held |
//! | messages in memory | one per link, `memory_bytes_max` in all | what finds no room is left, and comes again |
//! | time for a reply | `replies.timeout` | it is given up, and counted |
//! | dead letters remembered by the [`watcher`] | `dead_letters.remembered_max` | new ones are not told of until some are gone |
//! | records of commands | one per device, `completed_kept` | the oldest are forgotten |

mod amqp;
mod config;
mod contract;
mod control;
mod dispatch;
mod driver;
mod execution;
mod link;
mod message;
mod metrics;
mod replies;
mod sending;
mod service;
mod status;
mod trouble;
mod watcher;

pub use config::Config;
#[cfg(any(test, fuzzing))]
pub(crate) use contract::DECODERS;
#[cfg(test)]
pub(crate) use contract::fuzzing_seeds;
pub use control::{LimitStatus, Site, Subject};
pub(crate) use message::{Outgoing, Value};
pub(crate) use metrics::METRICS;
pub(crate) use replies::is_name as is_entity_name;
pub use sending::Sending;
pub(crate) use sending::{Answer, Line, NotTaken, Why};
pub use service::{Service, StartError};
pub use status::{ConnectionStatus, ControlStatus, DeadLetterStatus, EntityStatus, Handle, Status};
