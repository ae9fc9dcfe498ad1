//! State of the front end: keys and values that are durable together with entries.
//!
//! A device's session, its queue and its unfinished exchanges have to survive a restart exactly as
//! far as the entries do that they belong to. So their changes lie in the arena beside the entries
//! and go into the same synced batch: both are there after a crash, or neither is.
//!
//! What keys and values mean is the front end's own business. The outbox keeps them in key order,
//! never looks into them, and never trims them: whoever writes bounds them.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::error::Error;
use super::shared::Shared;
use super::wire::{Input, put_sized};

/// Changes of the front end's own state, written in order and in the same synced batch as the
/// entries they are submitted with.
///
/// One buffer holds them all, so that filling and submitting them allocates nothing once it has
/// grown.
#[derive(Default)]
pub struct StateOps {
    bytes: Vec<u8>,
    count: usize,
}

/// How soon changes of state have to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// They ride the next group, or are written after 100 ms without a sync of their own: then the
    /// death of the process does not undo them, and a power cut may.
    Relaxed,
    /// As an entry: they start a group, and their ticket is durable when that is synced.
    Prompt,
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateOp<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
}

/// Looks at a key and its value, and says whether to go on.
pub type VisitState<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Reads state that is committed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateReader(Arc<Shared>);

/// How much state there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
/// A buffer that has grown beyond this gives its memory back when it is emptied.
const KEPT_BYTES: usize = 256 << 10;

// === impl StateOps ===

impl StateOps {
    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.push(PUT);
        put_sized(&mut self.bytes, key);
        put_sized(&mut self.bytes, value);
        self.count += 1;
    }

    /// Removes `key`, which need not be there.
    pub fn delete(&mut self, key: &[u8]) {
        self.bytes.push(DELETE);
        put_sized(&mut self.bytes, key);
        self.count += 1;
    }

    /// Whether there is no change.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many changes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Bytes of keys and values with a few for each change: what the queue counts.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the changes and keeps the room, unless that is large.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.count = 0;
    }

    /// Adds the changes of `other` behind these.
    pub fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }

    /// Keys and values in order; no value for a key that is removed.
    #[cfg(test)]
    pub(crate) fn changes(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let change = |op| match op {
            StateOp::Put { key, value } => (<[u8]>::to_vec(key), Some(<[u8]>::to_vec(value))),
            StateOp::Delete { key } => (<[u8]>::to_vec(key), None),
        };
        self.iter().map(change).collect()
    }

    /// The changes in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = StateOp<'_>> {
        let mut input = Input::new(&self.bytes);
        std::iter::from_fn(move || {
            let kind = input.u8()?;
            let key = input.sized()?;
            if kind == DELETE {
                return Some(StateOp::Delete { key });
            }
            Some(StateOp::Put { key, value: input.sized()? })
        })
    }
}

impl fmt::Debug for StateOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are payloads of devices, which nobody prints.
        f.debug_struct("StateOps").field("count", &self.count).field("bytes", &self.bytes.len()).finish()
    }
}

// === impl StateReader ===

impl StateReader {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Visits what is committed below `prefix`, in key order, as of the moment of the call. Blocks
    /// on the disk: callers keep it off async workers. Nothing is written meanwhile if a failed
    /// store has to be closed, so `visit` only takes notes.
    ///
    /// # Errors
    ///
    /// When the state cannot be read, and while a failed store is being opened again.
    pub fn scan(&self, prefix: &[u8], visit: &mut VisitState<'_>) -> Result<(), Error> {
        let store = self.0.store.read();
        let store = store.as_deref().ok_or(Error::Closed)?;
        store.scan_state(prefix, visit).map_err(|source| Error::State { source })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_op() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        (bytes(), prop::option::of(bytes()))
    }

    proptest! {
        #[test]
        fn changes_come_out_in_the_order_they_went_in(
            ops in prop::collection::vec(any_op(), 0..20),
            split in 0_usize..20,
        ) {
            let (mut all, mut rest) = (StateOps::default(), StateOps::default());
            for (n, (key, value)) in ops.iter().enumerate() {
                let target = if n < split { &mut all } else { &mut rest };
                match value {
                    Some(value) => target.put(key, value),
                    None => target.delete(key),
                }
            }
            all.append(&rest);
            prop_assert_eq!(all.len(), ops.len());
            prop_assert_eq!(all.is_empty(), ops.is_empty());
            let found: Vec<_> = all.iter().map(|op| match op {
                StateOp::Put { key, value } => (key.to_vec(), Some(value.to_vec())),
                StateOp::Delete { key } => (key.to_vec(), None),
            }).collect();
            prop_assert_eq!(found, ops);
            all.clear();
            prop_assert!(all.is_empty() && all.bytes() == 0 && all.iter().next().is_none());
        }
    }

    #[test]
    fn a_buffer_that_was_large_once_gives_its_memory_back() {
        let mut ops = StateOps::default();
        ops.put(b"k", &vec![0; 2 * KEPT_BYTES]);
        ops.clear();
        assert_eq!(ops.bytes.capacity(), 0);
        ops.put(b"k", b"v");
        let capacity = ops.bytes.capacity();
        ops.clear();
        assert_eq!(ops.bytes.capacity(), capacity, "and a small one keeps it");
    }
}
