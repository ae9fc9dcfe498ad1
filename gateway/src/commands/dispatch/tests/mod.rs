//! The dispatcher against a namespace of the test's own, with a clock of the test's own.

mod cases;
mod discovery;
mod storms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Counts, Dispatcher, Ended, EntityNo, Limits, LinkNo, Refusal, Verdict};
use crate::supervise::clock;

const QUEUE: EntityNo = EntityNo(0);

fn limits() -> Limits {
    Limits {
        links_max: 4,
        accepts_per_second: 1000,
        receivers: 2,
        parked_max: 3,
        park_time: Duration::from_secs(20),
    }
}

/// A dispatcher with a clock that moves when it is told to.
struct Bench {
    dispatcher: Dispatcher,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let start = clock::now();
        Self { dispatcher: Dispatcher::new(limits, 1, 7, start), start, now: start }
    }

    fn present(&mut self, device: &str) {
        self.dispatcher.present(&Arc::from(device), QUEUE, self.now);
    }

    fn absent(&mut self, device: &str) {
        self.dispatcher.absent(device, self.now);
    }

    /// Everything that is to be done now.
    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.dispatcher.next(self.now)).collect()
    }

    /// The one accept that is to be done now.
    fn accept(&mut self, device: &str) -> LinkNo {
        let actions = self.actions();
        match actions.as_slice() {
            [Action::Accept { device: asked, link, .. }] if &**asked == device => *link,
            other => panic!("{device} is not accepted: {other:?}"),
        }
    }

    /// A device that is present and has its link.
    fn linked(&mut self, device: &str) -> LinkNo {
        self.present(device);
        let link = self.accept(device);
        self.dispatcher.accepted(device, link, self.now);
        link
    }

    /// The receiver that is to wait for any session now.
    fn discover(&mut self) -> LinkNo {
        let found = self.actions().into_iter().find_map(|action| match action {
            Action::Discover { link, .. } => Some(link),
            _ => None,
        });
        found.expect("a receiver is wanted")
    }

    fn found(&mut self, link: LinkNo, session: &str) -> Verdict {
        self.dispatcher.found(QUEUE, link, &Arc::from(session), self.now)
    }

    fn refused(&mut self, device: &str, link: LinkNo, refusal: Refusal) {
        self.dispatcher.refused(device, link, refusal, self.now);
    }

    fn ended(&mut self, device: &str, link: LinkNo, why: Ended) {
        self.dispatcher.ended(device, link, why, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Moves the clock to where the dispatcher wants to be asked again, and says how far that was.
    fn wait(&mut self) -> Duration {
        let wake = self.dispatcher.wake_at(self.now).expect("there is something to wait for");
        let waited = wake.saturating_duration_since(self.now);
        self.now = self.now.max(wake);
        waited
    }

    /// Waits until an accept goes out, and says after how long and which link it is.
    fn wait_for_accept(&mut self, device: &str) -> (Duration, LinkNo) {
        let since = self.now;
        for _ in 0..100 {
            self.wait();
            for action in self.actions() {
                if let Action::Accept { device: asked, link, .. } = action
                    && &*asked == device
                {
                    return (self.now - since, link);
                }
            }
        }
        panic!("{device} is not accepted");
    }

    fn counts(&self) -> Counts {
        self.dispatcher.counts(QUEUE)
    }
}
