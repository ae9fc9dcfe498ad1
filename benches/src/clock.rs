//! The one clock of the benchmarks.

use std::time::Instant;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "the gateway's clock is not for the programs that measure it")]
pub fn now() -> Instant {
    Instant::now()
}
