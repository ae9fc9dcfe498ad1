//! Devices that have said nothing for long are forgotten, so that those that are gone for good do not stand in the way of
//! new ones.
//!
//! It is looked at once an hour, and by the hour: whoever was last heard so long before the hour began goes. So it does
//! not matter when within the hour the clock moves, and reading the log again forgets the same devices between the same
//! entries. Who is raised for anything stays, and who is watched for silence: what is owed about them is still to come.

use super::Evaluator;

/// How often it is looked at.
const EVERY_MS: u64 = 3_600_000;

impl Evaluator {
    /// To be called when the clock has moved, after the timers.
    pub(super) fn forget(&mut self) {
        let hour_ms = self.now_ms - self.now_ms % EVERY_MS;
        if hour_ms <= self.swept_ms {
            return;
        }
        self.swept_ms = hour_ms;
        let Some(before_ms) = hour_ms.checked_sub(self.limits.forget_after_ms) else { return };
        let mut place = 0;
        while let Some(device) = self.devices.get(place) {
            if device.seen_ms > before_ms || device.is_awaited() {
                place += 1;
            } else {
                self.forget_device(place);
            }
        }
    }

    /// The last device takes the place.
    fn forget_device(&mut self, place: usize) {
        let device = self.devices.swap_remove(place);
        self.places.remove(&device.key);
        self.series -= device.series();
        self.learned -= device.learned();
        self.counts.forgotten += 1;
        let Some(moved) = self.devices.get(place) else { return };
        if let (Ok(new), Some(known)) = (u32::try_from(place), self.places.get_mut(&moved.key)) {
            *known = new;
        }
        // Timers for its old place find nobody, or somebody who has another due time, and come to nothing.
        self.set_timers(place);
    }
}
