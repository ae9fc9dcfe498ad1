//! A wall clock that somebody sets, or that was never right: commands do not notice.

use std::time::Duration;

use super::{Bench, complete};
use crate::commands::message::Disposition;
use crate::mqtt::Fate;
use crate::supervise::clock::{self, Stepped};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn a_clock_that_is_set_forward_gives_nothing_back() {
    let bench = Bench::start();
    bench.cloud.set_lock_ms(5000);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    let _stepped = Stepped::by_ms(HOUR_MS);
    // It is looked at with each renewal, and after the pause before a message is given back.
    bench.until(|bench| bench.cloud.renewals() >= 2).await;
    assert!(bench.cloud.settled().is_empty());
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_prolong_the_wait_for_a_device() {
    let bench = Bench::with(|config| config.ack_timeout = Duration::from_secs(1));
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let silent = bench.sent().await;
    let _stepped = Stepped::by_ms(-HOUR_MS);
    assert_eq!(bench.settled(1).await, [("c-1".to_owned(), Disposition::Abandon)]);
    drop(silent);
}

/// A lock of five seconds is renewed in time, though our clock is off by so much when it is given.
async fn renewed_in_time(off_ms: i64) {
    let _stepped = Stepped::by_ms(off_ms);
    let bench = Bench::start();
    bench.cloud.set_lock_ms(5000);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    let since = clock::now();
    bench.until(|bench| bench.cloud.renewals() >= 2).await;
    let took = clock::now() - since;
    assert!(took < Duration::from_secs(8), "{off_ms} ms off: two renewals took {took:?}");
    sent.end(Fate::Acknowledged);
    bench.settled(1).await;
}

#[tokio::test]
async fn locks_are_renewed_in_time_by_a_clock_that_is_ahead() {
    renewed_in_time(5 * 60_000).await;
}

#[tokio::test]
async fn locks_are_renewed_in_time_by_a_clock_that_is_behind() {
    renewed_in_time(-5 * 60_000).await;
}

#[tokio::test]
async fn locks_are_renewed_in_time_by_a_clock_that_is_two_minutes_behind() {
    renewed_in_time(-2 * 60_000).await;
}
