//! Waiting for a future without a runtime: for threads of their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use super::clock;

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread until `future` is ready, at most until `deadline`; `None` if it is not by then. Polls it once
/// at least. What needs a runtime to become ready must have one elsewhere.
pub(crate) fn wait_for<F: Future + Unpin>(mut future: F, deadline: Instant) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(ready) = Pin::new(&mut future).poll(&mut cx) {
            return Some(ready);
        }
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_returns_what_another_thread_makes_ready_and_gives_up_at_the_deadline() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let soon = clock::now() + Duration::from_millis(5);
        let mut told = told;
        assert_eq!(wait_for(&mut told, soon), None);
        assert!(clock::now() >= soon);
        std::thread::scope(|scope| {
            scope.spawn(|| tell.send(7));
            assert_eq!(wait_for(&mut told, clock::now() + Duration::from_secs(20)), Some(Ok(7)));
        });
        assert_eq!(wait_for(std::future::ready(8), soon), Some(8), "what is ready needs no time");
    }
}
