//! The outbox: where every message becomes durable before anybody says so.
//!
//! **The promise:** PUBACK or PUBREC leaves only after the entry is committed and synced; an entry
//! goes only after every configured consumer confirmed it or a named policy let it go.
//!
//! ```text
//! Encoded ──submit──► arena ──swap──► committer ──one synced batch──► RocksDB ──► Consumer
//!    ▲                                   │  sidecar, then tail cache ───────────────▲
//!    └── Permit (gate: queue, quota)     └─► Completion: tickets durable, or failed
//! ```
//!
//! What enters: encoded entries of any lane, under a permit taken before the socket was read. What
//! leaves: durable tickets, and segments for consumers in order of their positions, which are dense
//! per lane, start at 1 and continue across restarts.
//!
//! State of the front end (sessions, queues, retained messages) rides in the same batches: it is there
//! exactly where the entries are that it was submitted with. The front end bounds it.
//!
//! What is bounded: bytes on their way to the disk (`queue_bytes_max`), unconfirmed bytes
//! (`bytes_max`), segments (`segment_bytes_max`, `segment_messages_max`), memory for readers
//! (`tail_cache_bytes`). At a bound nothing is taken in; nothing is dropped.
//!
//! What a crash between any two steps leaves: a group is in the log whole or not at all; positions
//! below the sidecar's mark are there or the next start refuses; progress of consumers may be a
//! little old, so that entries are read again. The formats are in `docs/formats/outbox-v2.md`.

mod arena;
mod cloud_event;
mod commit;
mod completion;
mod config;
mod cursor;
mod directory;
mod error;
mod event;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod gate;
mod housekeeping;
mod incident;
mod keys;
mod metrics;
pub mod offline;
mod reader;
mod record;
mod recovery;
mod scrub;
mod segment;
mod service;
mod shared;
mod sidecar;
mod space;
mod state;
mod store;
mod tail;
mod trail;
mod trim;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use cloud_event::{Attributes, CloudEvent, rfc3339};
pub use completion::{CommitFailed, Completion, Ticket};
pub use config::{BodyCodec, Config, OnFull, OnMissingRange};
pub use cursor::Cursor;
pub use error::{Error, OpenError, Refused, StoreError, StoreErrorKind};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use metrics::METRICS;
pub use reader::Consumer;
pub use record::{Encoded, Entry, Properties, Record, RecordError, Records, UserProperties};
pub use recovery::ConsumerId;
pub use segment::{Segment, SegmentError};
pub use service::{Appender, Handle, LaneStatus, Permit, Service, Status};
pub use state::{StateOps, StateReader, StateSize, Urgency, VisitState};
#[cfg(test)]
pub(crate) use tests::memory::{Fault, Memory};
#[cfg(test)]
pub(crate) use tests::open_in_memory;
pub(crate) use wire::{Input, put_sized};
