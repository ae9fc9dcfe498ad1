//! Completions: how a submitter learns that what it submitted is durable.
//!
//! A connection has one [`Completion`] for its life. Each submission gets the next [`Ticket`]; a
//! commit completes tickets in order and wakes the connection once, however many it completed.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use crate::supervise::wait_for;

/// The number of a submission within its completion: 1, 2, 3 and so on. The default, 0, stands for
/// no submission at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A submission could not be made durable; later ones on this completion are not reported any more.
/// Close the connection: the device sends again what was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outbox could not make the entries durable")]
pub struct CommitFailed;

/// Tells one submitter how far its submissions are durable.
#[derive(Debug, Default)]
pub struct Completion {
    /// The last ticket handed out. Changed only by submissions, under the arena's lock.
    issued: AtomicU64,
    /// Where the arena holds the submission of the current group; see [`super::arena`].
    place: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    durable: Ticket,
    failed: bool,
    /// Whether somebody was told of the failure.
    heard: bool,
    waker: Option<Waker>,
}

impl Completion {
    /// A completion without submissions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ready when a ticket above `seen` is durable, with the highest such ticket: all up to and with
    /// it are durable. Remembers the last waker only.
    ///
    /// While something submitted is neither durable nor failed, the waker is remembered even if the
    /// answer is ready: whoever takes what is there is woken for the rest.
    ///
    /// # Errors
    ///
    /// [`CommitFailed`] when nothing above `seen` is durable and a later submission has failed. It
    /// stays so for good.
    pub fn poll_durable(&self, seen: Ticket, cx: &mut Context<'_>) -> Poll<Result<Ticket, CommitFailed>> {
        let mut state = self.state.lock();
        let durable = (state.durable > seen).then_some(state.durable);
        let rest = state.durable < Ticket(self.issued.load(Ordering::Relaxed));
        match (durable, state.failed) {
            (None, true) => {
                state.heard = true;
                return Poll::Ready(Err(CommitFailed));
            }
            // The failure is told by the next call, and nothing else will wake for it.
            (Some(_), true) if rest => cx.waker().wake_by_ref(),
            _ if rest || durable.is_none() => state.remember(cx.waker()),
            _ => {}
        }
        durable.map_or(Poll::Pending, |ticket| Poll::Ready(Ok(ticket)))
    }

    /// The highest durable ticket.
    #[must_use]
    pub fn durable(&self) -> Ticket {
        self.state.lock().durable
    }

    /// Whether a submission failed. It stays so for good: later ones need a new completion.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// Whether somebody was told that a submission failed.
    pub(super) fn failure_was_heard(&self) -> bool {
        self.state.lock().heard
    }

    /// Blocks until `ticket` is durable or has failed, at most until `deadline`; `None` if neither
    /// is known by then. For one thread: takes the place of the waker.
    ///
    /// # Errors
    ///
    /// [`CommitFailed`] when it is not durable and never will be.
    pub fn wait(&self, ticket: Ticket, deadline: Instant) -> Option<Result<(), CommitFailed>> {
        if ticket == Ticket::default() && !self.has_failed() {
            return Some(Ok(()));
        }
        let before = Ticket(ticket.0.saturating_sub(1));
        wait_for(poll_fn(|cx| self.poll_durable(before, cx)), deadline).map(|result| result.map(drop))
    }

    /// The next ticket. The caller holds the arena's lock, which orders tickets as submissions.
    pub(super) fn issue(&self) -> Ticket {
        Ticket(self.issued.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Where the arena holds this completion. Both are called under the arena's lock only.
    pub(super) fn place(&self) -> u64 {
        self.place.load(Ordering::Relaxed)
    }

    pub(super) fn set_place(&self, place: u64) {
        self.place.store(place, Ordering::Relaxed);
    }

    /// Everything up to and with `ticket` is durable.
    pub(super) fn complete(&self, ticket: Ticket) {
        let waker = {
            let mut state = self.state.lock();
            if state.failed {
                // A ticket above a failed one must not speak for it.
                return;
            }
            state.durable = state.durable.max(ticket);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A submission failed.
    pub(super) fn fail(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.failed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn remember(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn durable_tickets_are_seen_once_and_wake_once() {
        let completion = Completion::new();
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert_eq!((completion.issue(), completion.issue()), (Ticket(1), Ticket(2)));
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Pending);
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Pending);
        completion.complete(Ticket(2));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Ready(Ok(Ticket(2))));
        assert_eq!(completion.poll_durable(Ticket(1), &mut cx), Poll::Ready(Ok(Ticket(2))));
        assert_eq!(completion.poll_durable(Ticket(2), &mut cx), Poll::Pending);
    }

    /// Two submissions in two groups, and nothing else ever happens on the connection.
    #[test]
    fn who_takes_a_part_is_woken_for_the_rest() {
        let completion = Completion::new();
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert_eq!((completion.issue(), completion.issue()), (Ticket(1), Ticket(2)));
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Pending);
        completion.complete(Ticket(1));
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Ready(Ok(Ticket(1))));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        completion.complete(Ticket(2));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert_eq!(completion.poll_durable(Ticket(1), &mut cx), Poll::Ready(Ok(Ticket(2))));
    }

    #[test]
    fn who_takes_a_part_is_woken_for_the_failure_of_the_rest() {
        let completion = Completion::new();
        let wakes = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert_eq!((completion.issue(), completion.issue()), (Ticket(1), Ticket(2)));
        completion.complete(Ticket(1));
        completion.fail();
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Ready(Ok(Ticket(1))));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(completion.poll_durable(Ticket(1), &mut cx), Poll::Ready(Err(CommitFailed)));
    }

    #[test]
    fn what_was_durable_is_reported_before_a_failure() {
        let completion = Completion::new();
        let mut cx = Context::from_waker(Waker::noop());
        completion.complete(Ticket(1));
        completion.fail();
        assert_eq!(completion.poll_durable(Ticket(0), &mut cx), Poll::Ready(Ok(Ticket(1))));
        assert_eq!(completion.poll_durable(Ticket(1), &mut cx), Poll::Ready(Err(CommitFailed)));
        completion.complete(Ticket(3));
        assert_eq!(completion.poll_durable(Ticket(1), &mut cx), Poll::Ready(Err(CommitFailed)), "2 failed");
        assert_eq!(completion.durable(), Ticket(1));
    }
}
