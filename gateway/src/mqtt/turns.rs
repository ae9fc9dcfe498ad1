//! Turns at the processor for what comes in storms: connections that open and connections that end.
//!
//! Ten thousand devices that reconnect at once make ten thousand tasks runnable. The runtime serves tasks in the order
//! in which they became so; an established device would wait behind all of them, and behind a tenth of a millisecond
//! of arithmetic for each TLS handshake. Work that takes turns is done by few workers at a time, and the others stay
//! free for devices that are established: what waits for its turn costs them nothing.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::Semaphore;

/// Hands out turns.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Turns {
    /// So many turns at once; at least one.
    pub(super) fn new(turns: usize) -> Self {
        Self(Semaphore::new(turns.max(1)))
    }

    /// Runs the future to its end. Each of its polls takes a turn and gives it back: while the future waits for a
    /// peer or a deadline, it holds none.
    ///
    /// # Cancel safety
    ///
    /// As safe as the future.
    pub(super) async fn take<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut turn = pin!(self.0.acquire());
        poll_fn(|cx| {
            let Poll::Ready(held) = turn.as_mut().poll(cx) else { return Poll::Pending };
            let polled = future.as_mut().poll(cx);
            drop(held);
            turn.set(self.0.acquire());
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use super::*;

    /// Becomes ready at its `polls`th poll, wakes itself until then, and looks at how many run beside it.
    async fn work(polls: usize, running: &AtomicUsize, most: &AtomicUsize) -> usize {
        let mut left = polls;
        poll_fn(|cx| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..100 {
                std::hint::spin_loop();
            }
            running.fetch_sub(1, Ordering::SeqCst);
            left -= 1;
            if left == 0 {
                return Poll::Ready(polls);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everybody_gets_turns_and_never_more_than_there_are() {
        let shared = std::sync::Arc::new((Turns::new(2), AtomicUsize::new(0), AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for polls in 1..=50 {
            let shared = std::sync::Arc::clone(&shared);
            tasks.spawn(async move { shared.0.take(work(polls, &shared.1, &shared.2)).await });
        }
        let mut done = tasks.join_all().await;
        done.sort_unstable();
        assert_eq!(done, (1..=50).collect::<Vec<_>>());
        assert!((1..=2).contains(&shared.2.load(Ordering::SeqCst)), "{}", shared.2.load(Ordering::SeqCst));
        assert_eq!(shared.0.0.available_permits(), 2);
    }

    #[tokio::test]
    async fn who_waits_holds_no_turn() {
        let turns = Turns::new(1);
        let mut silent = Box::pin(turns.take(std::future::pending::<()>()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(silent.as_mut().poll(&mut cx).is_pending());
        assert_eq!(turns.take(async { 7 }).await, 7);
        drop(silent);
        assert_eq!(turns.0.available_permits(), 1);
    }
}
