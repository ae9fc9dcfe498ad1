//! The key schema: every key of the database, its value and its lifetime.
//!
//! Each lane is a column family of its own; its keys are first positions, its values segments. The
//! column family `meta` holds the rest. Values in `meta` begin with their own version. A byte once
//! used for a key is never used for another.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::wire::Input;

/// The version of the value layouts below.
const VALUE_VERSION: u8 = 1;

/// A key in `meta`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MetaKey {
    /// `1` → [`Format`]. Written when the directory is created and by an upgrade.
    Format,
    /// `2` → [`LogId`]. Written when the directory is created, never changed.
    Log,
    /// `3` → [`Epoch`]. Written at every opening, before anything is appended.
    Epoch,
    /// `4, lane` → [`Head`]. Written with every trim, so that an empty lane keeps its numbering.
    Head(Lane),
    /// `5, lane, consumer` → [`Progress`]. Written whenever the consumer moves on, deleted when the
    /// consumer is no longer in the configuration.
    Progress(Lane, String),
    /// `6, lane, first position (big-endian)` → [`Hole`]. Written when entries are found to be gone,
    /// deleted when the lane is trimmed past it.
    Hole(Lane, Seq),
    /// `7` → how often the state of the front end was replaced. Written with each replacement; missing
    /// if there was none.
    State,
}

/// Who wrote the directory last, and who may read it: the guard against a downgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) writer_version: u16,
    pub(super) min_reader_version: u16,
}

/// Where a lane begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Everything below was trimmed; the beginning of a segment, or the lane's end.
    pub(super) first: Seq,
    /// Bytes of all bodies before it.
    pub(super) bytes_before: u64,
}

/// How far a consumer has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The first position not yet confirmed.
    pub(super) low: Seq,
    /// The beginning of the segment that holds `low`, or `low` at a segment's end: the trim limit.
    pub(super) floor: Seq,
    /// Bytes of all bodies before `floor`.
    pub(super) bytes_before: u64,
    /// The consumer's own.
    pub(super) state: Vec<u8>,
}

/// Positions that were given out and whose entries are gone: announced, and passed over by readers.
/// Begins at the position in its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    /// The first position behind it.
    pub(super) end: Seq,
    /// When it was found, in Unix milliseconds.
    pub(super) at_ms: u64,
    /// The opening that announced it.
    pub(super) epoch: Epoch,
    pub(super) reason: HoleReason,
}

/// What became of the entries of a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HoleReason {
    /// Nothing is stored at these positions.
    Missing,
    /// What is stored there cannot be read.
    Damaged,
}

/// The format this version writes; it reads every earlier one. Format 2 has the family `state`, which
/// a reader of format 1 would not open.
pub(super) const FORMAT: Format = Format { writer_version: 2, min_reader_version: 2 };

/// The key of the segment that begins at `first`: big-endian, so that keys sort as positions do.
pub(super) const fn segment_key(first: Seq) -> [u8; 8] {
    first.0.to_be_bytes()
}

/// The position in a segment's key.
pub(super) fn segment_first(key: &[u8]) -> Option<Seq> {
    key.try_into().ok().map(u64::from_be_bytes).map(Seq)
}

// === impl MetaKey ===

impl MetaKey {
    /// The key's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Format => vec![1],
            Self::Log => vec![2],
            Self::Epoch => vec![3],
            Self::Head(lane) => vec![4, lane.number()],
            Self::Progress(lane, consumer) => {
                let mut key = vec![5, lane.number()];
                key.extend_from_slice(consumer.as_bytes());
                key
            }
            Self::Hole(lane, first) => {
                let mut key = vec![6, lane.number()];
                key.extend_from_slice(&first.0.to_be_bytes());
                key
            }
            Self::State => vec![7],
        }
    }

    /// The key that these bytes are; `None` for one of a later version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        let key = match input.u8()? {
            1 => Self::Format,
            2 => Self::Log,
            3 => Self::Epoch,
            4 => Self::Head(Lane::try_from(input.u8()?).ok()?),
            5 => {
                let lane = Lane::try_from(input.u8()?).ok()?;
                let consumer = std::str::from_utf8(input.rest()).ok()?;
                return Some(Self::Progress(lane, consumer.to_owned()));
            }
            6 => {
                let lane = Lane::try_from(input.u8()?).ok()?;
                return Some(Self::Hole(lane, segment_first(input.rest())?));
            }
            7 => Self::State,
            _ => return None,
        };
        input.is_empty().then_some(key)
    }
}

// === values ===

impl Format {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut value = vec![VALUE_VERSION];
        value.extend_from_slice(&self.writer_version.to_le_bytes());
        value.extend_from_slice(&self.min_reader_version.to_le_bytes());
        value
    }

    /// Reads the guard; its layout is the one thing that may never change.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut input = versioned(value)?;
        Some(Self { writer_version: input.u16()?, min_reader_version: input.u16()? })
    }
}

pub(super) fn encode_log(log: LogId) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    value.extend_from_slice(&log.0.to_le_bytes());
    value
}

pub(super) fn decode_log(value: &[u8]) -> Option<LogId> {
    versioned(value)?.u64().map(LogId)
}

pub(super) fn encode_epoch(epoch: Epoch) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    value.extend_from_slice(&epoch.0.to_le_bytes());
    value
}

pub(super) fn decode_epoch(value: &[u8]) -> Option<Epoch> {
    versioned(value)?.u32().map(Epoch)
}

pub(super) fn encode_state(replacements: u32) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    value.extend_from_slice(&replacements.to_le_bytes());
    value
}

pub(super) fn decode_state(value: &[u8]) -> Option<u32> {
    versioned(value)?.u32()
}

impl Head {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut value = vec![VALUE_VERSION];
        value.extend_from_slice(&self.first.0.to_le_bytes());
        value.extend_from_slice(&self.bytes_before.to_le_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut input = versioned(value)?;
        Some(Self { first: Seq(input.u64()?), bytes_before: input.u64()? })
    }
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(1 + 3 * size_of::<u64>() + self.state.len());
        value.push(VALUE_VERSION);
        value.extend_from_slice(&self.low.0.to_le_bytes());
        value.extend_from_slice(&self.floor.0.to_le_bytes());
        value.extend_from_slice(&self.bytes_before.to_le_bytes());
        value.extend_from_slice(&self.state);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut input = versioned(value)?;
        let (low, floor, bytes_before) = (Seq(input.u64()?), Seq(input.u64()?), input.u64()?);
        Some(Self { low, floor, bytes_before, state: input.rest().to_vec() })
    }
}

impl Hole {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut value = vec![VALUE_VERSION];
        value.extend_from_slice(&self.end.0.to_le_bytes());
        value.extend_from_slice(&self.at_ms.to_le_bytes());
        value.extend_from_slice(&self.epoch.0.to_le_bytes());
        value.push(self.reason.number());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut input = versioned(value)?;
        let (end, at_ms, epoch) = (Seq(input.u64()?), input.u64()?, Epoch(input.u32()?));
        Some(Self { end, at_ms, epoch, reason: HoleReason::from_number(input.u8()?)? })
    }
}

impl HoleReason {
    const fn number(self) -> u8 {
        match self {
            Self::Missing => 1,
            Self::Damaged => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Missing),
            2 => Some(Self::Damaged),
            _ => None,
        }
    }
}

fn versioned(value: &[u8]) -> Option<Input<'_>> {
    let mut input = Input::new(value);
    (input.u8()? == VALUE_VERSION).then_some(input)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = MetaKey> {
        let lane = (0_u8..5).prop_map(|n| Lane::try_from(n).unwrap());
        prop_oneof![
            Just(MetaKey::Format),
            Just(MetaKey::Log),
            Just(MetaKey::Epoch),
            Just(MetaKey::State),
            lane.clone().prop_map(MetaKey::Head),
            (lane.clone(), "[a-z][a-z0-9-]{0,20}").prop_map(|(lane, name)| MetaKey::Progress(lane, name)),
            (lane, any::<u64>()).prop_map(|(lane, first)| MetaKey::Hole(lane, Seq(first))),
        ]
    }

    proptest! {
        #[test]
        fn meta_keys_round_trip_and_differ(a in any_key(), b in any_key()) {
            prop_assert_eq!(MetaKey::decode(&a.encode()), Some(a.clone()));
            prop_assert_eq!(a.encode() == b.encode(), a == b);
        }

        #[test]
        fn segment_keys_sort_as_positions(a: u64, b: u64) {
            prop_assert_eq!(segment_first(&segment_key(Seq(a))), Some(Seq(a)));
            prop_assert_eq!(segment_key(Seq(a)).cmp(&segment_key(Seq(b))), a.cmp(&b));
        }

        #[test]
        fn values_round_trip(low: u64, floor: u64, bytes: u64, epoch: u32, state in prop::collection::vec(any::<u8>(), 0..50)) {
            let progress = Progress { low: Seq(low), floor: Seq(floor), bytes_before: bytes, state };
            prop_assert_eq!(Progress::decode(&progress.encode()), Some(progress));
            let head = Head { first: Seq(low), bytes_before: bytes };
            prop_assert_eq!(Head::decode(&head.encode()), Some(head));
            for reason in [HoleReason::Missing, HoleReason::Damaged] {
                let hole = Hole { end: Seq(low), at_ms: bytes, epoch: Epoch(epoch), reason };
                prop_assert_eq!(Hole::decode(&hole.encode()), Some(hole));
            }
            prop_assert_eq!(decode_epoch(&encode_epoch(Epoch(epoch))), Some(Epoch(epoch)));
            prop_assert_eq!(decode_log(&encode_log(LogId(low))), Some(LogId(low)));
            prop_assert_eq!(decode_state(&encode_state(epoch)), Some(epoch));
        }

        #[test]
        fn junk_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            drop(MetaKey::decode(&bytes));
            let heads = (Format::decode(&bytes), Head::decode(&bytes), decode_log(&bytes), decode_epoch(&bytes));
            let known = bytes.first() == Some(&VALUE_VERSION);
            prop_assert!(known || heads == (None, None, None, None));
            prop_assert!(known || (Progress::decode(&bytes).is_none() && Hole::decode(&bytes).is_none()));
            prop_assert_eq!(segment_first(&bytes).is_some(), bytes.len() == 8);
        }
    }

    #[test]
    fn the_format_guard_is_the_documented_one() {
        assert_eq!(FORMAT.encode(), [1, 2, 0, 2, 0]);
        assert_eq!(Format::decode(&FORMAT.encode()), Some(FORMAT));
        assert_eq!(
            Format::decode(&[1, 9, 0, 8, 0, 1, 2]),
            Some(Format { writer_version: 9, min_reader_version: 8 })
        );
    }
}
