//! A write that fails: nothing of it is acknowledged, and the outbox comes back by itself.

use super::super::Refused;
use super::memory::Fault;
use super::*;

fn wait_recovered(running: &Running, epoch: u32) {
    wait_until(&running.outbox, "the outbox to come back", || {
        running.outbox.epoch().0 == epoch && running.outbox.status().poisoned.is_none()
    });
}

/// Appends when the outbox takes entries again.
fn append_again(running: &Running, payloads: &[&str]) {
    wait_until(&running.outbox, "room", || running.outbox.appender().reserve(Lane::Telemetry, 1).is_ok());
    append(&running.outbox, &Arc::default(), Lane::Telemetry, payloads).expect("healthy again");
}

#[test]
fn a_lost_write_fails_its_tickets_and_its_positions_are_used_again() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_recovered(&running, 2);
    append_again(&running, &["c"]);
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(read(&mut consumer), expected(1, &["a", "c"]));
    assert_eq!(running.outbox.status().queue_bytes, 0);
    let other = encoded(Lane::Telemetry, &["d"]);
    let ticket = submit(&running.outbox, &running.done, &other, Lane::Telemetry);
    wait_until(&running.outbox, "the entry", || running.outbox.status().lanes[2].next == Seq(4));
    assert_eq!(
        wait_durable(&running.done, ticket),
        Err(CommitFailed),
        "it must not speak for the one before"
    );
    running.close();
}

#[test]
fn a_write_that_failed_and_is_there_is_published_without_an_acknowledgement() {
    let running = Running::new();
    let mut consumer = running.consumer(Lane::Telemetry);
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.fail_writes(&[Fault::Kept]);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_recovered(&running, 2);
    append_again(&running, &["c"]);
    let segments = [1, 2, 3].map(|_| consumer.try_next(1 << 20).unwrap().expect("three segments"));
    assert_eq!(segments.each_ref().map(|segment| segment.epoch().0), [1, 1, 2]);
    consumer.rewind();
    assert_eq!(read(&mut consumer), expected(1, &["a", "b", "c"]));
    running.close();
}

#[test]
fn entries_behind_a_failed_group_fail_too() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["the first group never waits"]).unwrap();
    running.memory.fail_opens(1);
    running.memory.fail_writes(&[Fault::Lost]);
    let alerts = Arc::default();
    assert_eq!(append(&running.outbox, &alerts, Lane::Alerts, &["a"]), Err(CommitFailed));
    wait_until(&running.outbox, "poison", || running.outbox.status().poisoned.is_some());
    let appender = running.outbox.appender();
    assert_eq!(appender.reserve(Lane::Telemetry, 1).unwrap_err(), Refused::Poisoned);
    assert_eq!(running.outbox.status().queue_bytes, 0);
}

#[test]
fn opening_again_is_tried_until_it_passes() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.memory.fail_opens(1);
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_until(&running.outbox, "the reason", || {
        running.outbox.status().poisoned.is_some_and(|reason| reason.contains("injected: does not open"))
    });
    assert!(running.consumer(Lane::Bulk).try_next(1).expect("nothing to read is no error").is_none());
    wait_recovered(&running, 2);
    append_again(&running, &["c"]);
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["a", "c"]));
}

#[test]
fn an_outbox_that_lost_something_stays_shut() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
    running.memory.fail_writes(&[Fault::Lost]);
    assert_eq!(running.append(Lane::Telemetry, &["c"]), Err(CommitFailed));
    wait_until(&running.outbox, "the reason", || {
        running.outbox.status().poisoned.is_some_and(|reason| reason.contains("at least 3, found 2"))
    });
    assert_eq!(running.outbox.appender().reserve(Lane::Alerts, 1).unwrap_err(), Refused::Poisoned);
    close(&running.outbox);
    assert_eq!(running.outbox.appender().reserve(Lane::Alerts, 1).unwrap_err(), Refused::Closed);
}

#[test]
fn progress_is_not_forgotten_by_a_failure() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    running.memory.fail_writes(&[Fault::Lost]);
    consumer.commit(Seq(2), b"kept".to_vec());
    wait_recovered(&running, 2);
    running.memory.wait_firsts(Lane::Telemetry, &[2]);
    drop(consumer);
    let running = running.restarted();
    assert_eq!(running.consumer(Lane::Telemetry).progress(), (Seq(2), b"kept".as_slice()));
}
