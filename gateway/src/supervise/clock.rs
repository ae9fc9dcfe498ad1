//! The one clock of the process.
//!
//! State machines take the time as an argument; only loops that do I/O read it, and only here.

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
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
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
    fn a_clock_that_was_never_set_is_not_plausible() {
        assert!(plausible(unix_ms()));
        assert!(!plausible(86_400_000));
    }
}
