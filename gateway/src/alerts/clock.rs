//! The clock of the stage: the times of commits, and never back.
//!
//! A replay of the same log sees the same times, so that it comes to the same results. Only at the end of the log, where
//! nothing is committed, the wall clock takes over.

use penstock_proto::Epoch;

use crate::supervise::clock;

/// A time of the stage's clock, and the start of the gateway that it belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// In Unix milliseconds.
    pub(super) now_ms: u64,
    pub(super) epoch: Epoch,
}

impl Moment {
    /// Moves to `at_ms`, but not back. Returns whether time passed that nobody was there to see: the gateway was away, or
    /// its clock was only set now. What waits for signs of life has to wait anew.
    pub(super) fn advance(&mut self, at_ms: u64, epoch: Epoch) -> bool {
        let before = *self;
        self.now_ms = before.now_ms.max(at_ms);
        self.epoch = before.epoch.max(epoch);
        self.epoch != before.epoch || clock::plausible(self.now_ms) != clock::plausible(before.now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_absence_is_noticed() {
        const T: u64 = 1_700_000_000_000;
        let mut moment = Moment::default();
        for (at_ms, epoch, expected_ms, away) in [
            (5_000, 1, 5_000, true),
            (6_000, 1, 6_000, false),
            (T, 1, T, true),
            (T - 1, 1, T, false),
            (T + 10, 1, T + 10, false),
            (T + 20, 2, T + 20, true),
            (T + 15, 2, T + 20, false),
        ] {
            let found = moment.advance(at_ms, Epoch(epoch));
            assert_eq!((moment.now_ms, found), (expected_ms, away), "{at_ms} {epoch}");
        }
    }
}
