//! What went wrong with an entity: the newest of it for operators, and when it is worth a line in the log.

use std::time::{Duration, Instant};

/// The newest error of an entity. Errors of Azure carry a tracking id and a time, so that a thousand links with one
/// trouble have a thousand texts; the log gets one line of them in a while.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    newest: Option<(String, u64)>,
    /// When the log got a line, and how many it did not get since.
    logged: Option<(Instant, u64)>,
}

/// How long the log gets no further line about one entity.
const QUIET: Duration = Duration::from_secs(30);

impl Trouble {
    /// Notes an error that was seen `at_ms` by the wall clock. If the log is to get a line: how many went without one
    /// since the last.
    pub(super) fn note(&mut self, error: String, at_ms: u64, now: Instant) -> Option<u64> {
        self.newest = Some((error, at_ms));
        match &mut self.logged {
            Some((since, unlogged)) if now.saturating_duration_since(*since) < QUIET => {
                *unlogged += 1;
                None
            }
            logged => {
                let unlogged = logged.map_or(0, |(_, unlogged)| unlogged);
                *logged = Some((now, 0));
                Some(unlogged)
            }
        }
    }

    /// The newest error, and when it was in Unix milliseconds.
    pub(super) const fn newest(&self) -> Option<&(String, u64)> {
        self.newest.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    #[test]
    fn a_thousand_links_that_are_lost_together_are_one_line_and_a_number() {
        let start = clock::now();
        let mut trouble = Trouble::default();
        assert_eq!(trouble.note("TrackingId:0".to_owned(), 1, start), Some(0));
        for n in 1..1000 {
            let at = start + Duration::from_millis(n);
            assert_eq!(trouble.note(format!("TrackingId:{n}"), n, at), None);
        }
        assert_eq!(trouble.newest(), Some(&("TrackingId:999".to_owned(), 999)));
        assert_eq!(trouble.note("TrackingId:1000".to_owned(), 7, start + QUIET), Some(999));
        assert_eq!(trouble.note("TrackingId:1001".to_owned(), 8, start + QUIET * 2), Some(0));
    }
}
