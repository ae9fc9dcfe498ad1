//! What is remembered of a dead letter that was told of. The layout is in `docs/formats/dead-letter-mark-v1.md`.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::collections::HashMap;
use std::ops::ControlFlow;

use ring::digest::{SHA256, digest};

use crate::commands::contract::Identity;
use crate::outbox::{Error, Input, StateOps, StateReader, put_sized};

/// Which letter of an entity it is: all of its identity, the message id as a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    sequence: i64,
    enqueued_ms: u64,
    /// The first bytes of the SHA-256 of the message id; of nothing if there is none.
    message_id: u64,
}

/// Begins the keys of marks in the outbox's state; other numbers belong to others.
pub(super) const KEY_PREFIX: u8 = 17;
const VERSION: u8 = 1;

// === impl Mark ===

impl Mark {
    pub(super) fn of(identity: &Identity) -> Self {
        let id = identity.message_id.as_deref().unwrap_or_default();
        let id = digest(&SHA256, id.as_bytes());
        let first = id.as_ref().first_chunk().copied().unwrap_or_default();
        Self {
            sequence: identity.sequence,
            enqueued_ms: identity.enqueued_ms,
            message_id: u64::from_be_bytes(first),
        }
    }

    /// Puts down that this letter of `entity` was told of.
    pub(super) fn put(&self, entity: &str, ops: &mut StateOps) {
        ops.put(&self.key(entity), &[VERSION]);
    }

    /// Puts down that it is forgotten.
    pub(super) fn delete(&self, entity: &str, ops: &mut StateOps) {
        ops.delete(&self.key(entity));
    }

    pub(super) fn key(&self, entity: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(32 + entity.len());
        key.push(KEY_PREFIX);
        // Names of entities have no case.
        put_sized(&mut key, entity.to_ascii_lowercase().as_bytes());
        key.extend_from_slice(&self.sequence.to_le_bytes());
        key.extend_from_slice(&self.enqueued_ms.to_le_bytes());
        key.extend_from_slice(&self.message_id.to_le_bytes());
        key
    }

    /// The entity and the mark of a key; `None` if it is none of ours.
    pub(super) fn read(key: &[u8]) -> Option<(&str, Self)> {
        let mut input = Input::new(key);
        if input.u8()? != KEY_PREFIX {
            return None;
        }
        let entity = input.text()?;
        let (sequence, enqueued_ms) = (input.u64()?.cast_signed(), input.u64()?);
        let mark = Self { sequence, enqueued_ms, message_id: input.u64()? };
        input.is_empty().then_some((entity, mark))
    }

    #[cfg(test)]
    pub(super) const fn new(sequence: i64, enqueued_ms: u64) -> Self {
        Self { sequence, enqueued_ms, message_id: 0 }
    }
}

/// The marks of each entity, by its name in lower case. Those of entities that are not among `entities`, and junk, are put down in `ops` to be
/// deleted. Blocks on the disk.
///
/// # Errors
///
/// When the store cannot be read, also while a failed one is being opened again.
pub(super) fn load<'a>(
    reader: &StateReader,
    entities: impl Iterator<Item = &'a str>,
    ops: &mut StateOps,
) -> Result<HashMap<String, Vec<Mark>>, Error> {
    let mut marks: HashMap<_, _> = entities.map(|entity| (entity.to_ascii_lowercase(), Vec::new())).collect();
    reader.scan(&[KEY_PREFIX], &mut |key, value| {
        let read = Mark::read(key).filter(|_| value == [VERSION]);
        match read.and_then(|(entity, mark)| Some((marks.get_mut(entity)?, mark))) {
            Some((known, mark)) => known.push(mark),
            None => ops.delete(key),
        }
        ControlFlow::Continue(())
    })?;
    Ok(marks)
}

/// A key: what was read is written as it was.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_for_fuzzing(bytes: &[u8]) {
    if let Some((entity, mark)) = Mark::read(bytes) {
        assert_eq!(Mark::read(&mark.key(entity)), Some((&*entity.to_ascii_lowercase(), mark)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(sequence: i64, enqueued_ms: u64, message_id: Option<&str>) -> Identity {
        let message_id = message_id.map(Into::into);
        Identity { entity: "commands".into(), sequence, enqueued_ms, message_id }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn keys_are_those_of_the_format() {
        let format = include_str!("../../../../docs/formats/dead-letter-mark-v1.md");
        for identity in [identity(258, 1_790_000_000_000, Some("c-1")), identity(-1, 0, None)] {
            let key = Mark::of(&identity).key("commands");
            assert!(format.contains(&format!("`{}`", hex(&key))), "{identity:?}: {}", hex(&key));
            assert_eq!(Mark::read(&key), Some(("commands", Mark::of(&identity))));
            assert_eq!(Mark::of(&identity).key("Commands"), key, "spelled anew it is the same entity");
        }
    }

    #[test]
    fn every_part_of_the_identity_tells_letters_apart() {
        let all = [
            identity(1, 1, Some("a")),
            identity(2, 1, Some("a")),
            identity(1, 2, Some("a")),
            identity(1, 1, Some("b")),
            identity(1, 1, None),
        ];
        for (place, one) in all.iter().enumerate() {
            for other in all.iter().skip(place + 1) {
                assert_ne!(Mark::of(one), Mark::of(other));
            }
        }
    }

    #[test]
    fn what_is_no_key_is_not_read() {
        let key = Mark::new(1, 2).key("q");
        for cut in 0..key.len() {
            assert_eq!(Mark::read(&key[..cut]), None, "{cut}");
        }
        assert_eq!(Mark::read(&[&key[..], &[0]].concat()), None);
        let other = [&[16], &key[1..]].concat();
        assert_eq!(Mark::read(&other), None);
    }
}
