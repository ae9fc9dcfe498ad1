//! Who gets a link: which devices' sessions are accepted, when, and what becomes of sessions that nobody asked for.
//!
//! ```text
//! present ──► ready ──token──► accepting ──► linked ──► closing ──► (gone)
//!                │                 │ refused   │ lost       │ evicted
//!        no place│             pausing ◄───────┘            ▼
//!                └──────────────────────────────────────► passive ◄── discovery finds its session, or a place is free
//! ```
//!
//! A state machine without I/O: events come in with the time, [`Dispatcher::next`] says what is to be done, and
//! [`Dispatcher::wake_at`] when to ask again. What holds:
//!
//! - A device has at most one link, and only while it is present. Devices that are not there are not touched: neither
//!   are their sessions locked nor do their delivery counts grow.
//! - Per entity at most `links_max` links; accepts come out of one token bucket, in the order in which devices asked.
//! - Who was refused tries again after a pause that doubles, with jitter. A refusal that speaks for the whole entity
//!   (service busy, connection lost, entity missing) stops all accepts there; then a single device tries first.
//! - With more devices than places, a few receivers ask for *any* session with messages (credit 0, so nothing is
//!   transferred). Its device is passive here: it gets a place, and the link that was idle the longest loses its own.
//!   Its device is not here: the session is held for a while, so that it is not offered again at once; beyond the bound
//!   it is closed, and whoever found it waits.

mod bucket;
mod dispatcher;
mod entities;
mod entity;
mod pause;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use dispatcher::Dispatcher;
pub(crate) use entities::{ENTITIES_MAX, Entities, EntityError, EntityTemplate, Group, Traits};
pub(crate) use pause::Dice;

/// The number of an entity in [`Entities`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntityNo(pub(crate) usize);

/// The number of a link, or of a receiver that waits for any session. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkNo(pub(crate) u64);

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most links per entity, those being opened and closed included.
    pub(crate) links_max: usize,
    /// Accepts per second, of all entities together.
    pub(crate) accepts_per_second: u32,
    /// Receivers per entity that wait for any session while devices are passive.
    pub(crate) receivers: usize,
    /// Most sessions held per entity whose devices are not here.
    pub(crate) parked_max: usize,
    /// How long such a session is held.
    pub(crate) park_time: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Accept the session of `device`; then [`Dispatcher::accepted`] or [`Dispatcher::refused`] is due.
    Accept {
        /// Whose session.
        device: Arc<str>,
        /// Where.
        entity: EntityNo,
        /// The link's number.
        link: LinkNo,
    },
    /// Wait for any session with messages, without credit; then [`Dispatcher::found`] or [`Dispatcher::found_none`].
    Discover {
        /// Where.
        entity: EntityNo,
        /// The number of the link that may come of it.
        link: LinkNo,
    },
    /// A link that was held gets commands from now on.
    Serve {
        /// Which.
        link: LinkNo,
    },
    /// Close the link once the command in hand is settled; then [`Dispatcher::ended`] is due.
    Finish {
        /// Which.
        link: LinkNo,
    },
    /// Close the link at once without settling; then [`Dispatcher::ended`] is due.
    Close {
        /// Which.
        link: LinkNo,
    },
}

/// What becomes of a session that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its device is here: it gets commands.
    Serve,
    /// It is held without credit.
    Park,
    /// It is closed.
    Close,
}

/// Why a session was not accepted, or a receiver has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody else holds the session's lock.
    Locked,
    /// The service asks for less, and for how long.
    Busy(Duration),
    /// Too many receivers, or another limit of the namespace.
    Quota,
    /// No connection, or it broke.
    Lost,
    /// It took too long.
    TimedOut,
    /// The entity is missing, disabled, or not for us.
    Forbidden,
    /// Anything else.
    Other,
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to.
    Closed,
    /// The lock was lost.
    LockLost,
    /// The service detached it, as it does with idle ones.
    Detached,
    /// The connection broke.
    Lost,
    /// Its own doing.
    Failed,
}

/// How many devices and links there are in an entity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Links that get commands.
    pub(crate) linked: usize,
    /// Accepts under way.
    pub(crate) accepting: usize,
    /// Links being closed.
    pub(crate) closing: usize,
    /// Present devices that wait for their turn.
    pub(crate) ready: usize,
    /// Present devices that wait because they were refused.
    pub(crate) pausing: usize,
    /// Present devices without a place.
    pub(crate) passive: usize,
    /// Receivers that wait for any session.
    pub(crate) asking: usize,
    /// Sessions held whose devices are not here.
    pub(crate) parked: usize,
}
