//! How far a sink came, as it is kept with its consumer.
//!
//! The layout is in `docs/formats/event-grid-progress-v1.md`.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::fmt;

use penstock_proto::Seq;

use crate::outbox::Input;

/// How far the two readings of a lane came.
///
/// What is critical is decided by [`super::envelope::Envelope::is_critical`]. If that ever changes its mind about
/// stored entries, the version of the layout has to change too: an entry between `low` and `ahead` counts as sent if it is
/// critical, and as not sent otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything below it is dealt with.
    pub(super) low: Seq,
    /// Everything critical below it is dealt with; never below `low`.
    pub(super) ahead: Seq,
    /// How many critical entries between the two are dealt with.
    pub(super) beyond: u64,
}

/// What is stored is no progress of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Junk;

const VERSION: u8 = 1;

// === impl Progress ===

impl Progress {
    /// Nothing critical is ahead of the rest.
    pub(super) const fn at(low: Seq) -> Self {
        Self { low, ahead: low, beyond: 0 }
    }

    /// What is kept beside `low`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17);
        out.push(VERSION);
        out.extend_from_slice(&self.ahead.0.to_le_bytes());
        out.extend_from_slice(&self.beyond.to_le_bytes());
        out
    }

    /// Reads what was kept; nothing at all stands for a consumer that never said anything.
    pub(super) fn decode(low: Seq, bytes: &[u8]) -> Result<Self, Junk> {
        if bytes.is_empty() {
            return Ok(Self::at(low));
        }
        let mut input = Input::new(bytes);
        let (version, ahead, beyond) = (input.u8(), input.u64(), input.u64());
        let (Some(VERSION), Some(ahead), Some(beyond), true) = (version, ahead, beyond, input.is_empty())
        else {
            return Err(Junk);
        };
        let mut read = Self { low, ahead: Seq(ahead), beyond };
        read.raise(low);
        Ok(read)
    }

    /// Entries below `low` are gone, or were passed: it goes on there.
    pub(super) fn raise(&mut self, low: Seq) {
        self.low = self.low.max(low);
        self.ahead = self.ahead.max(self.low);
        self.beyond = self.beyond.min(self.ahead.0 - self.low.0);
    }

    /// How many entries below `end` are not dealt with; never too few.
    pub(super) const fn open_below(&self, end: Seq) -> u64 {
        let all = end.0.saturating_sub(self.low.0);
        // Where the critical ones stand between the two is not remembered.
        if end.0 >= self.ahead.0 { all.saturating_sub(self.beyond) } else { all }
    }
}

impl fmt::Display for Junk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no progress of version 1")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_read_as_the_same(low in 0_u64..1 << 40, ahead in 0_u64..1 << 20, beyond in 0_u64..1 << 20) {
            let kept = Progress { low: Seq(low), ahead: Seq(low + ahead), beyond: beyond.min(ahead) };
            prop_assert_eq!(Progress::decode(kept.low, &kept.encode()), Ok(kept));
        }

        #[test]
        fn junk_is_refused_and_what_is_read_holds_together(low: u64, bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(read) = Progress::decode(Seq(low), &bytes) {
                prop_assert!(read.low <= read.ahead && read.beyond <= read.ahead.0 - read.low.0);
            }
        }
    }

    #[test]
    fn nothing_is_kept_at_first_and_another_version_is_junk() {
        assert_eq!(Progress::decode(Seq(7), b""), Ok(Progress::at(Seq(7))));
        let mut bytes = Progress::at(Seq(7)).encode();
        assert_eq!(bytes, b"\x01\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes[0] = 2;
        assert_eq!(Progress::decode(Seq(7), &bytes), Err(Junk));
        assert_eq!(Progress::decode(Seq(7), &Progress::at(Seq(7)).encode()[..16]), Err(Junk));
    }

    #[test]
    fn what_went_on_without_it_is_taken_over() {
        let check = |low, expected: (u64, u64, u64)| {
            let mut progress = Progress { low: Seq(10), ahead: Seq(20), beyond: 4 };
            progress.raise(Seq(low));
            assert_eq!((progress.low.0, progress.ahead.0, progress.beyond), expected, "{low}");
        };
        check(5, (10, 20, 4));
        check(15, (15, 20, 4));
        check(18, (18, 20, 2));
        check(30, (30, 30, 0));
    }

    #[test]
    fn never_too_few_count_as_open() {
        let progress = Progress { low: Seq(10), ahead: Seq(20), beyond: 4 };
        let open = [5, 10, 15, 20, 25].map(|end| progress.open_below(Seq(end)));
        assert_eq!(open, [0, 0, 5, 6, 11]);
    }
}
