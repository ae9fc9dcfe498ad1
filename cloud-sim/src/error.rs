//! Why cloud-sim cannot start, and why a topic is refused.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio_rustls::rustls;

use crate::servicebus::SpecError;

/// Why cloud-sim cannot start or cannot create a topic.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener's address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file or directory under the data directory cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    Data {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error("{path} is in use by another cloud-sim", path = .0.display())]
    Locked(PathBuf),
    /// A log is damaged in a way that a killed process does not leave behind.
    #[error("{path} is damaged at byte {position}: {reason}", path = path.display())]
    Corrupt {
        /// The log.
        path: PathBuf,
        /// Where the damage starts.
        position: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A topic is refused.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// An entity of Service Bus is refused.
    #[error("entities: {0}")]
    Entities(#[from] SpecError),
    /// The key must not be empty.
    #[error("the connection string is empty")]
    EmptyKey,
    /// A listener is to ask for a key, but there is none.
    #[error("the plaintext listener is to require SASL, but there is no key")]
    NoKey,
    /// The certificates could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS settings were refused.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a topic is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not of the form NAME:PARTITIONS.
    #[error("{0:?} is not NAME:PARTITIONS")]
    Spec(String),
    /// Not a name Kafka allows.
    #[error("{0:?} is not a topic name: 1 to 249 letters, digits, '.', '_' or '-'")]
    Name(String),
    /// Not a number of partitions this broker can have.
    #[error("{partitions} partitions are not possible: 1 to {max}")]
    Partitions {
        /// The number asked for.
        partitions: usize,
        /// The largest number.
        max: usize,
    },
    /// A topic cannot lose partitions.
    #[error("topic {name} has {has} partitions and cannot shrink to {asked}")]
    Shrink {
        /// The topic.
        name: String,
        /// Partitions it has.
        has: usize,
        /// Partitions asked for.
        asked: usize,
    },
    /// All topics together would have too many partitions.
    #[error("all topics together may have {max} partitions")]
    TooMany {
        /// The largest number.
        max: usize,
    },
}
