//! A stand-in for Azure Event Grid: a custom topic or a domain, and the topics of a namespace, as publishers see them.
//!
//! ```text
//! publisher --> listener (HTTP, TLS) --> server --> request (who, how much, what) --> event (CloudEvents 1.0)
//!                                          |            refusal (the service's words)
//!                                          +--> faults, log (a file: what was accepted)
//!                               control (HTTP) -----^
//! ```
//!
//! Nothing is delivered to subscribers: what was accepted is read from the log. The judgement of a request has neither
//! I/O nor a clock of its own.

mod auth;
mod config;
pub(crate) mod control;
mod event;
mod faults;
mod listener;
mod log;
mod refusal;
mod request;
mod server;
mod timestamp;

pub use self::config::{EventGrid, KEYS_DEFAULT, Kind};
#[cfg(any(test, fuzzing))]
pub(crate) use self::event::judge as judge_event;
pub use self::server::Addresses;
pub(crate) use self::server::{Service, Shared};
