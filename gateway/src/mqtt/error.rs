//! Why the stage cannot start.

use std::io;
use std::net::SocketAddr;

use super::access::AccessError;
use crate::tls;

/// Why the stage cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's word.
        source: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("tls settings")]
    Tls(#[from] tls::Error),
    /// A users file that cannot be used.
    #[error("users file")]
    Access(#[from] AccessError),
    /// Sessions and retained messages that cannot be read.
    #[error("sessions")]
    State(#[from] crate::outbox::Error),
    /// A topic template that cannot be used.
    #[error("topic template {template:?}: expected {expected}")]
    Template {
        /// The template.
        template: String,
        /// What a template looks like.
        expected: String,
    },
}
