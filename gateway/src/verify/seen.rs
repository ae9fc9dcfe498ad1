//! Which entries of a lane were found in any chain: a set of seqs as bits, in bounded memory.

use std::collections::BTreeMap;

/// Seqs that one block holds.
const BLOCK_BITS: u64 = 1 << 16;
const BLOCK_WORDS: usize = 1024;
/// Most blocks of all sets together: 128 MiB, for a billion entries that lie close together.
const BLOCKS_MAX: usize = 16_384;

/// How many blocks there may still be.
#[derive(Debug)]
pub(crate) struct Room(usize);

/// A set of seqs. When there is no room for more, its count is not known.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    blocks: BTreeMap<u64, Box<[u64; BLOCK_WORDS]>>,
    count: u64,
    is_short: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self(BLOCKS_MAX)
    }
}

impl Seen {
    pub(crate) fn insert(&mut self, seq: u64, room: &mut Room) {
        let (block, bit) = (seq / BLOCK_BITS, seq % BLOCK_BITS);
        if self.is_short {
            return;
        }
        if !self.blocks.contains_key(&block) {
            let Some(left) = room.0.checked_sub(1) else {
                // What is known so far is worth nothing any more.
                self.is_short = true;
                room.0 += self.blocks.len();
                self.blocks.clear();
                return;
            };
            room.0 = left;
        }
        let words = self.blocks.entry(block).or_insert_with(|| Box::new([0; BLOCK_WORDS]));
        let word = usize::try_from(bit / 64).ok().and_then(|word| words.get_mut(word));
        if let Some(word) = word {
            let mask = 1 << (bit % 64);
            self.count += u64::from(*word & mask == 0);
            *word |= mask;
        }
    }

    /// How many different seqs were inserted; `None` if there were too many far from each other.
    pub(crate) fn count(&self) -> Option<u64> {
        (!self.is_short).then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_bounded_and_a_short_set_gives_its_room_back() {
        let (mut near, mut far, mut room) = (Seen::default(), Seen::default(), Room::default());
        near.insert(1, &mut room);
        for block in 0..BLOCKS_MAX as u64 {
            far.insert(block * BLOCK_BITS, &mut room);
        }
        assert_eq!((near.count(), far.count()), (Some(1), None));
        near.insert(BLOCK_BITS, &mut room);
        far.insert(1, &mut room);
        assert_eq!((near.count(), far.count(), room.0), (Some(2), None, BLOCKS_MAX - 2));
    }

    proptest! {
        #[test]
        fn seqs_are_counted_once(seqs in prop::collection::vec(prop_oneof![0_u64..300, any::<u64>()], 0..200)) {
            let (mut seen, mut room) = (Seen::default(), Room::default());
            seqs.iter().for_each(|seq| seen.insert(*seq, &mut room));
            let model: std::collections::BTreeSet<u64> = seqs.into_iter().collect();
            prop_assert_eq!(seen.count(), Some(model.len() as u64));
        }
    }
}
