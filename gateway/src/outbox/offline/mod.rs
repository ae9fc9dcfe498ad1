//! Looking into an outbox directory from outside, whether or not a gateway has it open.
//!
//! [`Snapshot`] opens the database read-only: nothing below the directory is created, changed or
//! locked. It shows one moment. What the gateway does meanwhile can only get in the way of an
//! opening, by deleting a file that is about to be opened; so an opening is tried several times,
//! and whatever looks wrong while a lane is read ([`Walk`]) is believed only if a new snapshot
//! shows it too. A snapshot keeps the files it sees from being freed, so long work opens a new one
//! from time to time.
//!
//! Two things here change a directory: [`Replay`], which needs it for itself, and
//! [`incidents::acknowledge`], which adds one empty file.

mod disk;
pub mod incidents;
mod replay;
mod snapshot;
mod verify;
mod walk;

use std::path::PathBuf;

use super::error::{OpenError, StoreError};

pub use disk::DiskUse;
pub use replay::{Plan, Replay, Target, check_owner};
pub use snapshot::{ConsumerView, Hole, HoleReason, LaneView, Snapshot};
pub use verify::{Event, LaneTotals, Place, Problem, verify};
pub use walk::{Found, Reason, Stored, Walk};

/// Why a directory cannot be looked into, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing at the path.
    #[error("{directory}: there is no such directory")]
    NoDirectory {
        /// The directory given.
        directory: PathBuf,
    },
    /// The directory holds something else.
    #[error("{directory}: is not an outbox: {reason}")]
    NotAnOutbox {
        /// The directory given.
        directory: PathBuf,
        /// What is missing of an outbox.
        reason: &'static str,
    },
    /// Written by a version whose format this one cannot read.
    #[error(
        "{directory}: was written by a newer version: format {written} needs a reader of version {needed}, this is {ours}"
    )]
    Newer {
        /// The directory given.
        directory: PathBuf,
        /// The writer's version.
        written: u16,
        /// The least version that may read it.
        needed: u16,
        /// Our version.
        ours: u16,
    },
    /// What was asked for cannot be done; the text says why.
    #[error("{0}")]
    Refused(String),
    /// A gateway has the directory open, or it cannot be locked.
    #[error(transparent)]
    Claim(#[from] OpenError),
    /// The database does not open or cannot be read.
    #[error("{directory}: the database cannot be read")]
    Store {
        /// The directory given.
        directory: PathBuf,
        /// Its own words.
        source: StoreError,
    },
    /// The database's own record is damaged.
    #[error("{directory}: the database's record of its {what} is missing or damaged")]
    BadMeta {
        /// The directory given.
        directory: PathBuf,
        /// Which record.
        what: &'static str,
    },
    /// The operating system refuses.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's word.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the arguments, and not the directory's state, have to change.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::NoDirectory { .. }
            | Self::NotAnOutbox { .. }
            | Self::Newer { .. }
            | Self::Refused(_)
            | Self::Claim(_) => true,
            Self::Store { .. } | Self::BadMeta { .. } | Self::Io { .. } => false,
        }
    }
}
