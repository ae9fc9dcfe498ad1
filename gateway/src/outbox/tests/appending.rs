//! From submission to durable ticket.

use super::super::{BodyCodec, Refused};
use super::*;

#[test]
fn entries_are_read_in_the_order_of_submission() {
    let running = Running::new();
    let first = encoded(Lane::Telemetry, &["a", "b"]);
    let second = encoded(Lane::Telemetry, &["c"]);
    let other = Arc::default();
    submit(&running.outbox, &running.done, &first, Lane::Telemetry);
    submit(&running.outbox, &other, &second, Lane::Telemetry);
    assert_eq!(wait_durable(&other, Ticket(1)), Ok(()));
    assert_eq!(running.done.durable(), Ticket(1), "what came before is durable too");
    running.append(Lane::Telemetry, &["d"]).unwrap();
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["a", "b", "c", "d"]));
    running.close();
}

#[test]
fn one_submission_fills_several_lanes() {
    let running = Running::new();
    let mut entries = encoded(Lane::Telemetry, &["t"]);
    entries.push(&entry(Lane::Alerts, "a"));
    entries.push(&entry(Lane::Dead, "d"));
    let ticket = submit(&running.outbox, &running.done, &entries, Lane::Telemetry);
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["t"]));
    assert_eq!(read(&mut running.consumer(Lane::Alerts)), expected(1, &["a"]));
    let status = running.outbox.status();
    let backlog: Vec<u64> = status.lanes.iter().map(|lane| lane.backlog_messages).collect();
    assert_eq!(backlog, [1, 0, 1, 0, 1]);
    assert_eq!(status.backlog_bytes, entries.bytes() as u64);
}

#[test]
fn a_large_group_is_cut_into_segments_without_a_gap() {
    for body_codec in [BodyCodec::None, BodyCodec::Lz4] {
        let running = Running::with(|config| {
            config.segment_messages_max = 10;
            config.body_codec = body_codec;
            config.tail_cache_bytes = 0;
        });
        let payloads: Vec<String> = (0..35).map(|n| format!("{n} {}", "x".repeat(300))).collect();
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        running.append(Lane::Bulk, &payloads).unwrap();
        assert_eq!(running.memory.firsts(Lane::Bulk), [1, 11, 21, 31]);
        assert_eq!(read(&mut running.consumer(Lane::Bulk)), expected(1, &payloads));
    }
}

#[test]
fn each_submitter_keeps_its_order_among_many() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let running = Running::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let outbox = &running.outbox;
            scope.spawn(move || {
                let done = Arc::default();
                let mut last = Ticket::default();
                for n in 0..EACH {
                    let payload = format!("{thread} {n}");
                    last = submit(outbox, &done, &encoded(Lane::Telemetry, &[&payload]), Lane::Telemetry);
                }
                wait_durable(&done, last).unwrap();
            });
        }
    });
    let all = read(&mut running.consumer(Lane::Telemetry));
    assert!(all.iter().map(|(seq, _)| *seq).eq(1..=THREADS * EACH), "dense positions");
    for thread in 0..THREADS {
        let own = all.iter().filter_map(|(_, payload)| payload.strip_prefix(&format!("{thread} ")));
        assert!(own.eq((0..EACH).map(|n| n.to_string()).collect::<Vec<_>>()), "in order");
    }
}

#[test]
fn room_returns_when_entries_are_durable_or_a_permit_is_dropped() {
    let running = Running::with(|config| config.queue_bytes_max = 10_000);
    let appender = running.outbox.appender();
    let permit = appender.reserve(Lane::Telemetry, 9_000).unwrap();
    assert_eq!(appender.reserve(Lane::Telemetry, 2_000).unwrap_err(), Refused::Full);
    let entries = encoded(Lane::Telemetry, &["x"]);
    let ticket = appender.submit(permit, &entries, &StateOps::default(), &running.done);
    drop(appender.reserve(Lane::Telemetry, 9_000).expect("what was not used is free at once"));
    wait_durable(&running.done, ticket).unwrap();
    wait_until(&running.outbox, "room", || running.outbox.status().queue_bytes == 0);
    let empty = Encoded::default();
    let permit = appender.reserve(Lane::Telemetry, 100).unwrap();
    assert_eq!(appender.submit(permit, &empty, &StateOps::default(), &running.done), Ticket(0));
    assert_eq!(running.outbox.status().queue_bytes, 0);
}

#[test]
fn closing_commits_what_was_submitted_and_refuses_the_rest() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["first"]).unwrap();
    let appender = running.outbox.appender();
    let late = appender.reserve(Lane::Telemetry, 1000).unwrap();
    let entries = encoded(Lane::Telemetry, &["waits for the floor"]);
    let ticket = submit(&running.outbox, &running.done, &entries, Lane::Telemetry);
    running.close();
    assert_eq!(wait_durable(&running.done, ticket), Ok(()));
    assert_eq!(appender.reserve(Lane::Telemetry, 1).unwrap_err(), Refused::Closed);
    let ticket = appender.submit(late, &entries, &StateOps::default(), &running.done);
    assert_eq!(wait_durable(&running.done, ticket), Err(CommitFailed));
    assert_eq!(running.outbox.status().queue_bytes, 0);
    running.close();
}

#[test]
fn an_alert_does_not_wait_for_the_floor() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["the first group never waits"]).unwrap();
    let telemetry =
        submit(&running.outbox, &running.done, &encoded(Lane::Telemetry, &["t"]), Lane::Telemetry);
    assert!(running.done.durable() < telemetry);
    let alerts = Arc::default();
    append(&running.outbox, &alerts, Lane::Alerts, &["a"]).unwrap();
    wait_durable(&running.done, telemetry).expect("it rides along");
}

#[test]
fn at_the_quota_nothing_is_taken_in_until_consumers_confirm() {
    let running = Running::with(|config| config.bytes_max = 100_000);
    let payload = "x".repeat(1000);
    let appender = running.outbox.appender();
    let mut appended = 0;
    while appender.reserve(Lane::Telemetry, 1200).is_ok() {
        running.append(Lane::Telemetry, &[&payload]).unwrap();
        appended += 1;
        assert!(appended < 100, "the quota never comes");
    }
    assert_eq!(appender.reserve(Lane::Telemetry, 1).unwrap_err(), Refused::Quota);
    drop(appender.reserve(Lane::Alerts, 1000).expect("alerts have a reserve"));
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(read(&mut consumer).len(), appended);
    consumer.commit(Seq(appended as u64 + 1), Vec::new());
    wait_until(&running.outbox, "the quota to reopen", || appender.reserve(Lane::Telemetry, 1200).is_ok());
    running.append(Lane::Telemetry, &[&payload]).unwrap();
}
