//! The Kafka side: listeners, connections, and an answer for each request.
//!
//! A connection is one task that reads a frame, answers it, and reads the next, so its requests are
//! answered in order and one is in flight at a time; what a client sends ahead waits in the socket. Bounds:
//! connections, bytes of a frame, bytes of a fetch, seconds of silence. A request that cannot be read ends
//! its connection and nothing else.

mod answer;
mod connection;
mod fetch;
mod listener;
mod produce;
mod sasl;
mod tls;

pub(crate) use self::listener::{Listener, Security};
pub(crate) use self::tls::Identity;
