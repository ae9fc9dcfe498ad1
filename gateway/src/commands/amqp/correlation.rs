//! Which answer belongs to whom. No I/O, no clock.

use std::collections::HashMap;

/// Requests that were sent and wait for their answers. An answer that comes after its caller went away finds nobody
/// and is dropped: it can never be taken for the answer to another request.
#[derive(Debug)]
pub(super) struct Correlation<W> {
    next: u64,
    waiting: HashMap<u64, W>,
    /// When so many wait, those whose caller went away are forgotten.
    sweep_at: usize,
}

/// Most requests that wait at once.
const MOST: usize = 4096;
const SWEEP_FIRST: usize = 64;

impl<W> Default for Correlation<W> {
    fn default() -> Self {
        Self { next: 1, waiting: HashMap::new(), sweep_at: SWEEP_FIRST }
    }
}

impl<W> Correlation<W> {
    /// The number for a request whose answer `waiter` gets; the waiter back if too many wait. `alive` tells whether
    /// somebody still waits.
    pub(super) fn issue(&mut self, waiter: W, alive: impl Fn(&W) -> bool) -> Result<u64, W> {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|_, waiter| alive(waiter));
            self.sweep_at = (self.waiting.len() * 2).clamp(SWEEP_FIRST, MOST);
        }
        if self.waiting.len() >= MOST {
            return Err(waiter);
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, waiter);
        Ok(number)
    }

    /// Who gets the answer to this request; `None` if nobody does, or somebody got one before.
    pub(super) fn answer(&mut self, number: u64) -> Option<W> {
        self.waiting.remove(&number)
    }

    /// Everybody who waits; nobody does afterwards.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = W> {
        std::mem::take(&mut self.waiting).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_any_order_reach_their_callers_once() {
        let mut correlation = Correlation::default();
        let numbers: Vec<u64> = (0..100).map(|name| correlation.issue(name, |_| true).unwrap()).collect();
        for (name, number) in numbers.iter().enumerate().rev() {
            assert_eq!(correlation.answer(*number), Some(name));
            assert_eq!(correlation.answer(*number), None);
        }
        assert_eq!(correlation.answer(7_000), None);
    }

    #[test]
    fn callers_who_went_away_take_no_room_and_a_number_is_never_used_twice() {
        let mut correlation = Correlation::default();
        let stays = correlation.issue(true, |alive| *alive).unwrap();
        for _ in 0..3 * MOST {
            correlation.issue(false, |alive| *alive).unwrap();
            assert!(correlation.waiting.len() <= SWEEP_FIRST);
        }
        assert_eq!(correlation.issue(true, |alive| *alive).unwrap(), u64::try_from(3 * MOST).unwrap() + 2);
        assert_eq!(correlation.answer(stays), Some(true));
    }

    #[test]
    fn there_is_a_most_and_everybody_can_be_told() {
        let mut correlation = Correlation::default();
        for name in 0..MOST {
            correlation.issue(name, |_| true).unwrap();
        }
        assert_eq!(correlation.issue(MOST, |_| true), Err(MOST));
        assert_eq!(correlation.drain().count(), MOST);
        assert!(correlation.issue(0, |_| true).is_ok());
    }
}
