//! What the stage keeps with its progress: how far it has told, and from where it can be built again.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use penstock_proto::{Epoch, Seq};

use super::clock::Moment;
use crate::outbox::Input;

/// The layout this version writes.
const FORMAT: u8 = 1;

/// Stored with the progress of the consumer; its own position is that of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The first entry whose edges were not taken into the table of alerts.
    pub(super) emitted: Seq,
    /// The stage's clock there.
    pub(super) moment: Moment,
    /// The position of the snapshot that the numbers are built from; none if they are built from nothing.
    pub(super) snapshot: Option<Seq>,
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.emitted.0.to_le_bytes());
        bytes.extend_from_slice(&self.moment.now_ms.to_le_bytes());
        bytes.extend_from_slice(&self.moment.epoch.0.to_le_bytes());
        // Positions start at 1.
        bytes.extend_from_slice(&self.snapshot.map_or(0, |seq| seq.0).to_le_bytes());
        bytes
    }

    /// `None` for bytes that are none, as of a consumer that is new.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        if input.u8()? != FORMAT {
            return None;
        }
        let (emitted, now_ms) = (Seq(input.u64()?), input.u64()?);
        let epoch = Epoch(input.u32()?);
        let snapshot = Some(Seq(input.u64()?)).filter(|seq| *seq > Seq::ZERO);
        input.is_empty().then_some(Self { emitted, moment: Moment { now_ms, epoch }, snapshot })
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) fn decode_for_fuzzing(bytes: &[u8]) {
    if let Some(mark) = Mark::decode(bytes) {
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_as_it_was_written_and_nothing_else_is_one() {
        for snapshot in [None, Some(Seq(7))] {
            let moment = Moment { now_ms: 1_700_000_000_123, epoch: Epoch(3) };
            let mark = Mark { emitted: Seq(1 << 40), moment, snapshot };
            let bytes = mark.encode();
            assert_eq!(Mark::decode(&bytes), Some(mark));
            for end in 0..bytes.len() {
                assert_eq!(Mark::decode(&bytes[..end]), None);
            }
            assert_eq!(Mark::decode(&[&bytes[..], &[0]].concat()), None, "something behind it");
            assert_eq!(Mark::decode(&[&[2], &bytes[1..]].concat()), None, "another version");
        }
        decode_for_fuzzing(&[1; 29]);
    }
}
