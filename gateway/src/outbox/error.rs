//! What can go wrong, by what the caller can do about it.

use std::path::PathBuf;

use penstock_proto::{Lane, LogId, Seq};

use super::segment::SegmentError;

/// Why the outbox did not open. Nothing was thrown away in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory holds something else.
    #[error("{directory}: holds files but is not an outbox: found {found:?}")]
    NotAnOutbox {
        /// The directory given.
        directory: PathBuf,
        /// What stands there.
        found: String,
    },
    /// Another process, or another outbox of this one, has it open.
    #[error("{directory}: is locked by another process")]
    Locked {
        /// The directory given.
        directory: PathBuf,
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
    /// The database is there and its high-water mark is not, so that nobody can say what is missing.
    #[error("{directory}: the log is not empty and its high-water mark {file} is missing")]
    NoHighWaterMark {
        /// The directory given.
        directory: PathBuf,
        /// The file expected.
        file: PathBuf,
    },
    /// The high-water mark cannot be read.
    #[error("{directory}: the high-water mark {file} is damaged: {reason}")]
    BadHighWaterMark {
        /// The directory given.
        directory: PathBuf,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The high-water mark is there and the database is not.
    #[error("{directory}: the high-water mark of log {log} is there and its database {database} is not")]
    NoDatabase {
        /// The directory given.
        directory: PathBuf,
        /// The log whose mark was found.
        log: LogId,
        /// Where the database should be.
        database: PathBuf,
    },
    /// The high-water mark belongs to another log.
    #[error("{directory}: the high-water mark is of log {mark}, the database of log {database}")]
    OtherLog {
        /// The directory given.
        directory: PathBuf,
        /// The log of the mark.
        mark: LogId,
        /// The log of the database.
        database: LogId,
    },
    /// Entries that were acknowledged are not there.
    #[error(
        "{directory}: the log ends before the sidecar's mark: acknowledged entries of lane {lane} are missing, \
         the next position should be at least {expected}, found {found}; the write-ahead log from before this \
         start is kept in {aside}"
    )]
    Missing {
        /// The directory given.
        directory: PathBuf,
        /// The lane.
        lane: Lane,
        /// The least next position that the high-water mark allows.
        expected: Seq,
        /// The next position found.
        found: Seq,
        /// Where the write-ahead log was set aside.
        aside: PathBuf,
    },
    /// Positions in the middle of a lane are missing.
    #[error(
        "{directory}: positions {from} up to {to} of lane {lane} are missing; the write-ahead log from before this start is kept in {aside}"
    )]
    Gap {
        /// The directory given.
        directory: PathBuf,
        /// The lane.
        lane: Lane,
        /// The first position missing.
        from: Seq,
        /// The next position that is there.
        to: Seq,
        /// Where the write-ahead log was set aside.
        aside: PathBuf,
    },
    /// A segment near the end of a lane is damaged.
    #[error("{directory}: segment {first} of lane {lane} is damaged: {reason}")]
    Damaged {
        /// The directory given.
        directory: PathBuf,
        /// The lane.
        lane: Lane,
        /// The segment's key.
        first: Seq,
        /// What is wrong with it.
        reason: SegmentError,
    },
    /// The database's own record is damaged.
    #[error("{directory}: the database's record of its {what} is missing or damaged")]
    BadMeta {
        /// The directory given.
        directory: PathBuf,
        /// Which record.
        what: &'static str,
    },
    /// The database refuses.
    #[error("{directory}: the database does not open")]
    Store {
        /// The directory given.
        directory: PathBuf,
        /// Its own words.
        source: StoreError,
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

impl OpenError {
    /// Whether more space on the disk would help.
    pub(super) fn is_no_space(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.kind == StoreErrorKind::NoSpace,
            Self::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// An operation of the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What kind of failure.
    pub kind: StoreErrorKind,
    /// The store's own words.
    pub message: String,
}

/// What kind of failure a store reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The disk is full.
    NoSpace,
    /// Data on disk is damaged.
    Corruption,
    /// Anything else.
    Other,
}

/// Why a reservation was refused. Nothing was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much is on its way to the disk.
    #[error("the commit queue is full")]
    Full,
    /// The quota of unconfirmed entries is used up.
    #[error("the outbox has reached its quota")]
    Quota,
    /// Too little space is free on the disk.
    #[error("the disk is nearly full")]
    Space,
    /// The disk failed and the outbox is not open again yet.
    #[error("the outbox had a write error and is recovering")]
    Poisoned,
    /// The outbox is closed.
    #[error("the outbox is closed")]
    Closed,
}

/// Why a consumer cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No consumer of that name was configured for the lane.
    #[error("no consumer {consumer:?} is configured for lane {lane}")]
    UnknownConsumer {
        /// The name asked for.
        consumer: String,
        /// The lane asked for.
        lane: Lane,
    },
    /// The consumer is in use.
    #[error("consumer {consumer:?} of lane {lane} is in use")]
    ConsumerInUse {
        /// The name asked for.
        consumer: String,
        /// The lane asked for.
        lane: Lane,
    },
    /// A stored segment is damaged.
    #[error("segment {first} of lane {lane} is damaged")]
    Damaged {
        /// The lane.
        lane: Lane,
        /// The segment's key.
        first: Seq,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// Positions that were committed and not trimmed are not there.
    #[error("positions {expected} to {found} of lane {lane} are missing")]
    Gap {
        /// The lane.
        lane: Lane,
        /// The position due.
        expected: Seq,
        /// The next position that is there, or the lane's end.
        found: Seq,
    },
    /// The store failed to read.
    #[error("cannot read lane {lane}")]
    Store {
        /// The lane.
        lane: Lane,
        /// Its own words.
        source: StoreError,
    },
    /// The store failed to read the state of the front end.
    #[error("cannot read the state of sessions")]
    State {
        /// Its own words.
        source: StoreError,
    },
    /// The outbox is closed.
    #[error("the outbox is closed")]
    Closed,
}
