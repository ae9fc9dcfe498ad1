//! What is counted: commands on their way to devices, of which there may be so many, and messages that came again.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{Bench, complete};
use crate::mqtt::Fate;
use crate::supervise::clock;

fn value(metrics: &PrometheusHandle, name: &str) -> Option<u64> {
    let text = metrics.render();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A gateway with one command on its way at most.
fn narrow() -> Bench {
    Bench::with(|config| config.in_flight_max = 1)
}

#[tokio::test]
async fn a_command_that_found_a_full_session_is_counted_when_it_is_sent_after_all() {
    let bench = narrow();
    bench.fleet.fill("d1", true);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    bench.until(|bench| bench.fleet.refused() == 1).await;
    bench.cloud.send("d2", "c-2", |_| ());
    bench.fleet.come("d2");
    let second = bench.sent().await;
    assert_eq!(&*second.id, "c-2", "who waits for room is in nobody's way");
    bench.fleet.fill("d1", false);
    // Longer than until it is tried again.
    let since = clock::now();
    bench.until(|_| clock::now() - since > Duration::from_millis(1500)).await;
    assert!(bench.fleet.try_sent().is_none(), "there is another command on its way");
    second.end(Fate::Acknowledged);
    let first = bench.sent().await;
    assert_eq!((&*first.id, first.redelivered), ("c-1", false));
    first.end(Fate::Acknowledged);
    assert_eq!(bench.settled(2).await, [complete("c-2"), complete("c-1")]);
}

#[tokio::test]
async fn a_command_whose_link_is_lost_is_on_its_way_until_its_device_has_said_something() {
    let bench = narrow();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let first = bench.sent().await;
    bench.cloud.lose_lock("d1");
    bench.cloud.lock_elsewhere("d1", true);
    bench.until(|bench| bench.handle.status().pending == 0).await;
    bench.cloud.send("d2", "c-2", |_| ());
    bench.fleet.come("d2");
    bench.until(|bench| bench.handle.status().pending == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(bench.fleet.try_sent().is_none(), "there is another command on its way");
    first.end(Fate::Acknowledged);
    bench.cloud.lock_elsewhere("d1", false);
    bench.sent().await.end(Fate::Acknowledged);
    let mut settled = bench.settled(2).await;
    settled.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(settled, [complete("c-1"), complete("c-2")]);
    assert!(bench.fleet.try_sent().is_none());
}

#[tokio::test]
async fn only_what_comes_again_counts_as_a_repeat() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let repeats = || value(&recorder.handle(), "penstock_commands_repeats_total").unwrap_or(0);
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let first = bench.sent().await;
    // It comes again over the next link.
    bench.cloud.lose_lock("d1");
    bench.until(|_| repeats() == 1).await;
    // Somebody takes it out of the queue, and another one comes.
    bench.cloud.take_away("d1");
    bench.cloud.send("d1", "c-2", |_| ());
    bench.cloud.lose_lock("d1");
    let second = bench.sent().await;
    assert_eq!(&*second.id, "c-2");
    drop(first);
    second.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-2")]);
    assert_eq!(repeats(), 1);
}

#[tokio::test]
async fn a_device_whose_key_is_longer_than_a_sessions_id_is_counted_and_left_alone() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let bench = Bench::start();
    // One character outside the first plane is two for Service Bus.
    for long in ["k".repeat(129), "\u{1f4a7}".repeat(64) + "k"] {
        bench.cloud.send(&long, "never", |_| ());
        bench.fleet.come(&long);
    }
    let longest = "\u{1f4a7}".repeat(64);
    bench.cloud.send(&longest, "c-1", |_| ());
    bench.fleet.come(&longest);
    let sent = bench.sent().await;
    assert_eq!(*sent.device, longest);
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    bench.until(|bench| bench.handle.status().entities.iter().any(|entity| entity.links == 1)).await;
    assert_eq!(bench.cloud.accepts(), 1);
    assert!(bench.handle.status().entities.iter().all(|entity| entity.waiting + entity.passive == 0));
    assert_eq!(value(&recorder.handle(), "penstock_commands_keys_too_long_total"), Some(2));
}
