//! The order to close while Service Bus owes an answer: it is heard, and the record decides when the message comes again.

use std::time::Duration;

use super::{Bench, complete};
use crate::commands::config::Config;
use crate::mqtt::Fate;
use crate::supervise::clock;

/// Service Bus may take 15 s for an answer.
const SOON: Duration = Duration::from_secs(9);

/// A gateway that delivered a command and asked Service Bus for something that is not answered.
async fn unanswered(change: impl FnOnce(&mut Config), fate: Fate) -> Bench {
    let bench = Bench::with(change);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    bench.cloud.mute(true);
    sent.end(fate);
    bench.until(|bench| bench.cloud.unanswered() == 1).await;
    bench
}

/// It stops in time, and after that what was not answered is settled as it had ended.
async fn check(bench: Bench, change: impl FnOnce(&mut Config), again: bool) {
    let since = clock::now();
    bench.stop().await;
    assert!(clock::now() - since < SOON, "the stop took {:?}", clock::now() - since);
    assert_eq!((bench.cloud.settled(), bench.handle.status().pending), (vec![], 0));
    bench.cloud.mute(false);
    let bench = bench.restart_with(change).await;
    bench.fleet.come("d1");
    if again {
        bench.sent().await.end(Fate::Acknowledged);
    }
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.fleet.try_sent().is_none());
    assert_eq!(bench.events(), 1, "one final status");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_settlement_that_nobody_answers() {
    check(unanswered(|_| (), Fate::Acknowledged).await, |_| (), false).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_state_of_a_session_that_nobody_answers() {
    let on = |config: &mut Config| config.replicas = true;
    check(unanswered(on, Fate::Acknowledged).await, on, false).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_message_to_be_given_back() {
    check(unanswered(|_| (), Fate::Refused { reason: 0x97 }).await, |_| (), true).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_what_another_gateway_left() {
    let on = |config: &mut Config| config.replicas = true;
    let bench = Bench::with(on);
    bench.cloud.mute(true);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    bench.until(|bench| bench.cloud.unanswered() == 1).await;
    check(bench, on, true).await;
}

#[tokio::test]
async fn a_device_that_goes_gives_its_session_back_though_a_settlement_is_not_answered() {
    let bench = unanswered(|_| (), Fate::Acknowledged).await;
    let since = clock::now();
    bench.fleet.go("d1");
    bench.until(|bench| !bench.cloud.is_locked("d1")).await;
    assert!(clock::now() - since < SOON);
    bench.cloud.mute(false);
    bench.fleet.come("d1");
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.fleet.try_sent().is_none(), "it was delivered");
    assert_eq!(bench.events(), 1);
}

#[tokio::test]
async fn a_settlement_that_is_answered_soon_after_the_order_to_close_counts() {
    let bench = unanswered(|_| (), Fate::Acknowledged).await;
    let stopping = bench.stop();
    let answering = async {
        // Until the link has heard of the stop.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        bench.cloud.mute(false);
    };
    tokio::join!(stopping, answering);
    assert_eq!(bench.cloud.settled(), [complete("c-1")]);
}
