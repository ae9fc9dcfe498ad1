//! Timers in a hierarchy of wheels: setting one and passing one cost the same however many there are.

/// Slots of a wheel, as a power of two.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Wheels that together span 64 bits of milliseconds.
const WHEELS: usize = 11;

/// A timer: which device and rule, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) due_ms: u64,
    pub(super) device: u32,
    pub(super) rule: u16,
}

/// Timers of the future.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Everything due until then has been given out.
    elapsed_ms: u64,
    wheels: Box<[Slots]>,
}

#[derive(Debug)]
struct Slots {
    /// A bit for each slot that holds something.
    occupied: u64,
    slots: Box<[Vec<Timer>]>,
}

impl Wheel {
    pub(super) fn new(now_ms: u64) -> Self {
        let slots = || Slots { occupied: 0, slots: vec![Vec::new(); SLOTS].into() };
        Self { elapsed_ms: now_ms, wheels: std::iter::repeat_with(slots).take(WHEELS).collect() }
    }

    /// Until when everything has been given out.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms
    }

    /// Sets a timer. One that is due already comes with the next millisecond.
    pub(super) fn set(&mut self, timer: Timer) {
        let when = timer.due_ms.max(self.elapsed_ms.saturating_add(1));
        // The highest digit that differs from now says which wheel.
        let differs = u64::BITS - 1 - ((when ^ self.elapsed_ms) | 1).leading_zeros();
        let wheel = (differs / SLOT_BITS) as usize;
        let slot = slot_of(when, wheel);
        if let Some(slots) = self.wheels.get_mut(wheel)
            && let Some(place) = slots.slots.get_mut(slot)
        {
            place.push(timer);
            slots.occupied |= 1 << slot;
        }
    }

    /// Gives out everything due until now, in no order.
    pub(super) fn advance(&mut self, now_ms: u64, due: &mut Vec<Timer>) {
        while let Some((begins_ms, wheel, slot)) = self.next() {
            if begins_ms > now_ms {
                break;
            }
            self.elapsed_ms = self.elapsed_ms.max(begins_ms);
            let Some(slots) = self.wheels.get_mut(wheel) else { break };
            slots.occupied &= !(1 << slot);
            let timers = slots.slots.get_mut(slot).map(std::mem::take).unwrap_or_default();
            for timer in timers {
                if timer.due_ms <= self.elapsed_ms { due.push(timer) } else { self.set(timer) }
            }
        }
        self.elapsed_ms = self.elapsed_ms.max(now_ms);
    }

    /// How many timers are set.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wheels.iter().flat_map(|slots| &slots.slots).map(Vec::len).sum()
    }

    /// When to look again: nothing is due before.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next().map(|(begins_ms, ..)| begins_ms)
    }

    /// The first slot that holds something, and when its time begins.
    fn next(&self) -> Option<(u64, usize, usize)> {
        // All of a smaller wheel comes before the rest of a larger one.
        self.wheels.iter().enumerate().find(|(_, slots)| slots.occupied != 0).map(|(wheel, slots)| {
            let slot = slots.occupied.trailing_zeros();
            let shift = SLOT_BITS * u32::try_from(wheel).unwrap_or_default();
            let below = u64::MAX.checked_shl(shift + SLOT_BITS).unwrap_or_default();
            let begins_ms = (self.elapsed_ms & below) | u64::from(slot) << shift;
            (begins_ms, wheel, slot as usize)
        })
    }
}

fn slot_of(when: u64, wheel: usize) -> usize {
    let shift = SLOT_BITS as usize * wheel;
    let slot = (when >> shift) % SLOTS as u64;
    usize::try_from(slot).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timers_come_when_they_are_due_and_once(
            start in 0..1_u64 << 42,
            steps in prop::collection::vec((0..3_u8, 0..40_u32, any::<u64>()), 1..200),
        ) {
            let mut wheel = Wheel::new(start);
            let mut now = start;
            let mut waiting: Vec<Timer> = Vec::new();
            for (number, (kind, bits, random)) in (0..).zip(steps) {
                let span = random % (1 << bits);
                if kind == 0 {
                    now += span;
                    let mut due = Vec::new();
                    wheel.advance(now, &mut due);
                    due.sort_by_key(|timer| timer.device);
                    let (expected, rest) = waiting.into_iter().partition(|timer: &Timer| timer.due_ms <= now);
                    waiting = rest;
                    prop_assert_eq!(due, expected);
                } else {
                    let timer = Timer { due_ms: now + 1 + span, device: number, rule: 0 };
                    wheel.set(timer);
                    waiting.push(timer);
                }
                let first = waiting.iter().map(|timer| timer.due_ms).min();
                prop_assert_eq!(wheel.next_ms().is_some(), first.is_some());
                prop_assert!(wheel.next_ms() <= first && wheel.next_ms().is_none_or(|next| next > now));
            }
        }
    }

    #[test]
    fn the_end_of_time_is_in_the_wheel() {
        let mut wheel = Wheel::new(0);
        for due_ms in [u64::MAX, u64::MAX - 1, 1, 0] {
            wheel.set(Timer { due_ms, device: 0, rule: 0 });
        }
        let mut due = Vec::new();
        wheel.advance(1, &mut due);
        assert_eq!(due.len(), 2);
        wheel.advance(u64::MAX, &mut due);
        assert_eq!(due.len(), 4);
    }
}
