//! When a device takes its readings: an absolute schedule, so that lateness does not add up.

use std::time::Duration;

use tokio::time::Instant;

use crate::profile::Duty;

/// The schedule of one device.
#[derive(Debug, Clone)]
pub struct Pace {
    start: Instant,
    end: Instant,
    phase: Duration,
    period: Duration,
    duty: Duty,
    behind_max: Duration,
    next: u32,
}

impl Pace {
    /// A schedule from `start` (at the phase) to `end`, one reading per period on average.
    ///
    /// With a duty cycle the readings crowd into its phases of publishing. A schedule that falls more
    /// than `behind_max` behind gives readings up.
    #[must_use]
    pub fn new(
        start: Instant,
        end: Instant,
        phase: Duration,
        period: Duration,
        duty: Duty,
        behind_max: Duration,
    ) -> Self {
        Self { start, end, phase, period, duty, behind_max, next: 0 }
    }

    /// When the next reading is due; `None` when the schedule has ended.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let Duty { on_seconds, off_seconds } = self.duty;
        let steady = self.phase + self.period.checked_mul(self.next)?;
        let after = if on_seconds > 0.0 {
            let cycle = on_seconds + off_seconds;
            let active = steady.as_secs_f64() * on_seconds / cycle;
            let cycles = (active / on_seconds).floor();
            Duration::try_from_secs_f64(cycles * cycle + active - cycles * on_seconds).ok()?
        } else {
            steady
        };
        self.start.checked_add(after).filter(|&due| due < self.end)
    }

    /// Moves on to the reading after the one that was due.
    pub fn advance(&mut self) {
        self.next = self.next.saturating_add(1);
    }

    /// Gives up the readings that are too far behind; returns how many.
    pub fn catch_up(&mut self, now: Instant) -> u64 {
        let mut skipped = 0;
        while self.due().is_some_and(|due| due + self.behind_max < now) {
            self.advance();
            skipped += 1;
        }
        skipped
    }
}

/// The first reading, from 1, that a schedule from its start on has at this time or later, in seconds since that start.
#[must_use]
pub fn reading_from(seconds: f64, phase: Duration, period: Duration, duty: Duty) -> u64 {
    let Duty { on_seconds, off_seconds } = duty;
    let steady = if on_seconds > 0.0 {
        let cycle = on_seconds + off_seconds;
        let cycles = (seconds / cycle).floor();
        (cycles * on_seconds + (seconds - cycles * cycle).min(on_seconds)) * cycle / on_seconds
    } else {
        seconds
    };
    let after = Duration::try_from_secs_f64(steady).unwrap_or_default().saturating_sub(phase);
    let before = after.as_nanos().div_ceil(period.as_nanos().max(1));
    u64::try_from(before).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(duty: Duty) -> (Instant, Pace) {
        let start = Instant::now();
        let pace = Pace::new(start, start + SECOND * 8, SECOND / 2, SECOND, duty, SECOND * 3);
        (start, pace)
    }

    fn dues(start: Instant, mut pace: Pace) -> Vec<f64> {
        let mut dues = Vec::new();
        while let Some(due) = pace.due() {
            dues.push((due - start).as_secs_f64());
            pace.advance();
        }
        dues
    }

    #[test]
    fn readings_are_due_on_an_absolute_schedule() {
        let (start, pace) = pace(Duty::default());
        assert_eq!(dues(start, pace), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]);
    }

    #[test]
    fn a_duty_cycle_crowds_them_and_keeps_their_number() {
        let (start, pace) = pace(Duty { on_seconds: 1.0, off_seconds: 3.0 });
        let dues = dues(start, pace);
        assert_eq!(dues.len(), 8, "{dues:?}");
        assert!(dues.iter().all(|due| due % 4.0 < 1.0), "{dues:?}");
    }

    #[test]
    fn a_time_is_turned_into_the_reading_that_is_due_then() {
        for duty in [Duty::default(), Duty { on_seconds: 1.0, off_seconds: 3.0 }] {
            let (start, pace) = pace(duty);
            let dues = dues(start, pace);
            for tenth in 0..75 {
                let seconds = f64::from(tenth) / 10.0;
                let expected =
                    dues.iter().position(|due| *due >= seconds - 1e-9).map_or(9, |place| place + 1);
                let found = reading_from(seconds, SECOND / 2, SECOND, duty);
                assert_eq!(found, u64::try_from(expected).unwrap(), "{seconds} of {dues:?}");
            }
        }
        assert_eq!(reading_from(-3.0, SECOND / 2, SECOND, Duty::default()), 1);
    }

    #[test]
    fn what_is_too_far_behind_is_skipped() {
        let (start, mut pace) = pace(Duty::default());
        assert_eq!(pace.catch_up(start + SECOND * 3), 0);
        assert_eq!(pace.catch_up(start + SECOND * 5), 2);
        assert_eq!(pace.due(), Some(start + SECOND * 5 / 2));
    }
}
