//! Where the broker's time comes from.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock in Unix milliseconds that never goes back.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The time of the wall when it was made, and from there the monotonic clock. It is cut to milliseconds once, as
    /// others cut theirs: what they stamp before something happens here is never later than it.
    System { started: Instant, since_epoch: Duration },
    /// Stands still until a test moves it.
    #[cfg(test)]
    Driven(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock of the broker")]
    pub(crate) fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::System { started: Instant::now(), since_epoch }
    }

    pub(super) fn now_ms(&self) -> u64 {
        match self {
            Self::System { started, since_epoch } => {
                milliseconds(since_epoch.saturating_add(started.elapsed()))
            }
            #[cfg(test)]
            Self::Driven(now) => now.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
