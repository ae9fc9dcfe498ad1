//! The one clock of the process.
//!
//! State machines take the time as an argument; only loops that do I/O read it, and only here.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock, for intervals and deadlines.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock in Unix milliseconds; 0 if it stands before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    #[cfg(test)]
    let unix_ms = unix_ms.saturating_add_signed(STEPPED_MS.get());
    unix_ms
}

/// The monotonic clock in milliseconds since it was first asked for, for machines that count in numbers.
#[must_use]
pub fn steady_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since_start = now().saturating_duration_since(*START.get_or_init(now));
    u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
thread_local! {
    static STEPPED_MS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// The wall clock of this thread is set to another time, until this is dropped.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Stepped(());

#[cfg(test)]
impl Stepped {
    /// Sets it forward by so many milliseconds, or back.
    pub(crate) fn by_ms(by_ms: i64) -> Self {
        STEPPED_MS.set(by_ms);
        Self(())
    }
}

#[cfg(test)]
impl Drop for Stepped {
    fn drop(&mut self) {
        STEPPED_MS.set(0);
    }
}

/// First moment that a clock which was ever set can show: 2020-01-01, in Unix milliseconds.
const SET_AFTER_MS: u64 = 1_577_836_800_000;

/// Whether a wall-clock reading can be true: boxes without a battery start in 1970.
#[must_use]
pub const fn plausible(unix_ms: u64) -> bool {
    unix_ms >= SET_AFTER_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_does_not_follow_the_wall_clock() {
        let before = (steady_ms(), unix_ms());
        let stepped = Stepped::by_ms(3_600_000);
        let after = (steady_ms(), unix_ms());
        assert!(after.1 - before.1 >= 3_600_000 && after.0 - before.0 < 3_600_000, "{before:?} {after:?}");
        drop(stepped);
        assert!(unix_ms() < after.1);
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_plausible() {
        assert!(plausible(unix_ms()));
        assert!(!plausible(86_400_000));
    }
}
