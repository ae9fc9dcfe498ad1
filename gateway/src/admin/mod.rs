//! For operators: health, metrics and status, and what they decide about dead letters. Reads the
//! stages' handles and changes nothing else.
//!
//! Two listeners: `health` (`/healthz`, `/readyz`, `/metrics`; may stand on any address) and `admin`
//! (`/api/v1/status`, `/api/v1/dead-letter/retry` and `…/discard`; loopback). Readiness is about devices: it is red while the outbox cannot take
//! their messages, and a cloud outage never fails it. Requests are bounded by hyper's limits; a
//! response is built from a snapshot and holds no lock of a stage.

mod alerts;
mod config;
mod dead_letters;
mod health;
mod server;
mod status;

pub use config::Config;
pub use server::{Error, Service, Sources};
pub use status::Status;
