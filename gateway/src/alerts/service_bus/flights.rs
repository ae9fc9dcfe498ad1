//! What is on its way, and waiting for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use penstock_proto::Seq;

use super::feed::Feed;
use crate::supervise::{Phase, Shutdown};

/// A command on its way.
pub(super) struct Flight<A> {
    pub(super) seq: Seq,
    pub(super) answer: A,
    pub(super) since: Instant,
}

/// How often a wait looks up.
pub(super) const LOOK_UP: Duration = Duration::from_millis(200);

/// Waits that end when the gateway stops, and answer the outbox meanwhile.
pub(super) struct Patience<'a> {
    feed: &'a Feed,
    shutdown: &'a Shutdown,
    low: Seq,
}

impl<'a> Patience<'a> {
    pub(super) const fn new(feed: &'a Feed, shutdown: &'a Shutdown, low: Seq) -> Self {
        Self { feed, shutdown, low }
    }

    /// Waits for `work`, at most for `limit` and until the stop.
    pub(super) async fn wait<T>(&self, work: impl Future<Output = T>, limit: Duration) -> Option<T> {
        let over = tokio::time::sleep(limit);
        let stopped = self.shutdown.reached(Phase::DrainUplink);
        tokio::pin!(work, over, stopped);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = &mut over => return None,
                () = &mut stopped => return None,
                () = tokio::time::sleep(LOOK_UP) => self.feed.answer_drop_request(self.low),
            }
        }
    }
}

/// The next answer; none ever comes when nothing is on its way.
pub(super) async fn landed<A: Future + Unpin>(flights: &mut Vec<Flight<A>>) -> (Seq, A::Output) {
    poll_fn(|cx| {
        for place in 0..flights.len() {
            let polled =
                flights.get_mut(place).map(|flight| (flight.seq, Pin::new(&mut flight.answer).poll(cx)));
            if let Some((seq, Poll::Ready(answer))) = polled {
                drop(flights.swap_remove(place));
                return Poll::Ready((seq, answer));
            }
        }
        Poll::Pending
    })
    .await
}

/// The next answer, if it is there already.
pub(super) async fn landed_already<A: Future + Unpin>(
    flights: &mut Vec<Flight<A>>,
) -> Option<(Seq, A::Output)> {
    tokio::select! {
        biased;
        landed = landed(flights) => Some(landed),
        () = std::future::ready(()) => None,
    }
}
