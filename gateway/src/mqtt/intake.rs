//! What a pass over a connection may take in.
//!
//! While the outbox has room, one reservation covers a whole read and no publish is asked about. When
//! the quota or the disk is used up, publishes are looked at one by one: those of lanes alerts and status go into
//! the reserve that the outbox keeps for them; any other is refused or stays where it is, as the
//! listener says.

use penstock_proto::Lane;

use super::shared::Shared;
use crate::outbox::{Permit as Room, Refused};

/// Bytes of the outbox's reserve taken at once, unless a larger publish is on its way. More would find
/// the reserve used up before it is.
const RESERVE_BYTES: usize = 16 << 10;

/// What a pass may take in.
#[derive(Debug)]
pub(super) enum Intake {
    /// As much as there is room for.
    Open(Room),
    /// Only what the outbox keeps a reserve for.
    Short {
        /// What there is too little of.
        shortage: Shortage,
        /// Whether the client is told, or its publishes stay unread.
        refuses: bool,
        /// Room in the reserve, once a publish needed some.
        room: Option<Room>,
    },
}

/// What may last until the cloud is back. Whatever else stops the outbox is short, or fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Shortage {
    /// The quota of unconfirmed entries is used up.
    Quota = 0,
    /// The disk is nearly full.
    Space = 1,
}

/// What becomes of one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is stored.
    Take,
    /// It is stored by the next pass.
    Later,
    /// The client is told that it is not stored.
    Refuse(Shortage),
    /// It stays where it is until there is room for its lane.
    Hold,
    /// The outbox is closed.
    Closed,
}

// === impl Intake ===

impl Intake {
    /// Most bytes of entries that one batch may hold.
    pub(super) const fn bytes_max(&self) -> usize {
        match self {
            Self::Open(room) => room.bytes(),
            // Each publish is judged by itself.
            Self::Short { .. } => usize::MAX,
        }
    }

    /// Whether publishes that find no room stay unread.
    pub(super) const fn withholds(&self) -> bool {
        matches!(self, Self::Short { refuses: false, .. })
    }

    /// Decides on a publish whose entry takes at most `bytes`, beside a batch of `batch_bytes`.
    #[inline]
    pub(super) fn admit(
        &mut self,
        shared: &Shared,
        lane: Lane,
        batch_bytes: usize,
        bytes: usize,
    ) -> Admission {
        match self {
            Self::Open(_) => Admission::Take,
            Self::Short { shortage, refuses, room } => {
                let lacking = if *refuses { Admission::Refuse(*shortage) } else { Admission::Hold };
                if has_reserve(lane) {
                    from_reserve(shared, lane, room, batch_bytes, bytes, lacking)
                } else {
                    lacking
                }
            }
        }
    }

    /// The room for what was taken.
    pub(super) fn into_room(self) -> Option<Room> {
        match self {
            Self::Open(room) => Some(room),
            Self::Short { room, .. } => room,
        }
    }
}

/// Takes a publish into the reserve; `lacking` is what becomes of it if that is used up too.
fn from_reserve(
    shared: &Shared,
    lane: Lane,
    room: &mut Option<Room>,
    batch_bytes: usize,
    bytes: usize,
    lacking: Admission,
) -> Admission {
    if let Some(room) = room {
        return if batch_bytes + bytes <= room.bytes() { Admission::Take } else { Admission::Later };
    }
    match shared.appender.reserve(lane, bytes.max(RESERVE_BYTES)) {
        Ok(reserved) => {
            *room = Some(reserved);
            Admission::Take
        }
        Err(Refused::Closed) => Admission::Closed,
        Err(refused) if Shortage::of(refused).is_some() => lacking,
        Err(_) => Admission::Hold,
    }
}

/// Whether the outbox keeps a part of its quota for `lane`. Both lanes share it.
pub(super) const fn has_reserve(lane: Lane) -> bool {
    matches!(lane, Lane::Alerts | Lane::Status)
}

// === impl Shortage ===

impl Shortage {
    /// Every value of the label `reason`, in order.
    pub(super) const NAMES: [&str; 2] = ["quota", "space"];

    /// The shortage behind a refusal, if it is one that may last.
    pub(super) const fn of(refused: Refused) -> Option<Self> {
        match refused {
            Refused::Quota => Some(Self::Quota),
            Refused::Space => Some(Self::Space),
            Refused::Full | Refused::Poisoned | Refused::Closed => None,
        }
    }

    /// Its place in [`Self::NAMES`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}
