//! What is Azure's own: clouds, connection strings, and tokens of Microsoft Entra.
//!
//! A [`TokenSource`] is a way to get a token. A task of its own asks it ([`start`]), and everything that signs in
//! with a token copies the newest one out of a [`TokenHandle`], without waiting:
//!
//! ```text
//! token endpoint ◄──HTTP── refresh (task) ──► TokenHandle ◄──copies── the uplink's Kafka clients
//! ```
//!
//! What holds:
//!
//! - A token is renewed when between 50 and 80 % of its life are over. What cannot be renewed is used for as long as it
//!   lives, and tried again with pauses from 1 to 60 s.
//! - No failure here ends or blocks anything: without a token the uplink does not connect, and what devices
//!   send waits in the outbox. Status and metrics say why.
//! - One token is kept per service, and an answer of a token endpoint has at most 64 KiB.
//! - Tokens and secrets are never printed; secrets and assertions are read from their files at each renewal, so a
//!   rotated one needs no restart.
//!
//! Azure Arc's identity is not among the sources yet; it is a variant of [`TokenSource`] to come.

mod cloud;
mod config;
mod connection_string;
mod handle;
mod metrics;
mod refresh;
mod schedule;
mod source;

#[cfg(test)]
mod tests;

pub use cloud::{Audience, Cloud};
pub use config::Config;
pub(crate) use config::WORKLOAD_IDENTITY_VARIABLES;
pub use connection_string::{ConnectionString, ConnectionStringError};
pub(crate) use handle::{Bearer, NoToken};
pub use handle::{TokenHandle, TokenStatus};
pub(crate) use metrics::METRICS;
pub use refresh::start;
pub(crate) use source::check_secret_file;
pub use source::{Authority, ManagedIdentity, ServicePrincipal, TokenSource};
