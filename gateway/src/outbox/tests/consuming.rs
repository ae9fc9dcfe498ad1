//! Reading, confirming, trimming.

use super::super::{Error, SegmentError, housekeeping};
use super::*;

#[test]
fn a_consumer_that_keeps_up_never_reads_the_store() {
    let running = Running::new();
    running.memory.set_reads_fail(true);
    let mut consumer = running.consumer(Lane::Telemetry);
    for round in 0..5 {
        running.append(Lane::Telemetry, &["x"]).unwrap();
        assert_eq!(read(&mut consumer), expected(round + 1, &["x"]));
        consumer.commit(Seq(round + 2), Vec::new());
    }
    assert!(consumer.try_next(1).unwrap().is_none());
}

#[test]
fn a_consumer_that_lags_reads_the_store_in_steps() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    for payload in ["a", "b", "c"] {
        running.append(Lane::Telemetry, &[payload]).unwrap();
    }
    let mut consumer = running.consumer(Lane::Telemetry);
    let first = consumer.try_next(1).unwrap().expect("one at least");
    assert_eq!((first.first(), first.last(), first.epoch()), (Seq(1), Seq(1), running.outbox.epoch()));
    assert_eq!(read(&mut consumer), expected(2, &["b", "c"]));
    running.memory.set_reads_fail(true);
    running.append(Lane::Telemetry, &["d"]).unwrap();
    assert!(matches!(consumer.try_next(1), Err(Error::Store { lane: Lane::Telemetry, .. })));
    running.memory.set_reads_fail(false);
    assert_eq!(read(&mut consumer), expected(4, &["d"]), "trying again goes on");
}

#[test]
fn rewind_goes_back_to_what_is_not_confirmed() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a", "b"]).unwrap();
    running.append(Lane::Telemetry, &["c", "d"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(read(&mut consumer).len(), 4);
    consumer.commit(Seq(4), b"state".to_vec());
    consumer.rewind();
    assert_eq!(consumer.progress(), (Seq(4), b"state".as_slice()));
    assert_eq!(read(&mut consumer), expected(3, &["c", "d"]), "the segment that holds the position");
    consumer.commit(Seq(5), Vec::new());
    consumer.rewind();
    assert_eq!(read(&mut consumer), []);
}

#[test]
fn progress_never_moves_back_nor_beyond_what_was_handed_out() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    consumer.try_next(1).unwrap().expect("the first");
    consumer.commit(Seq(9), vec![1]);
    assert_eq!(consumer.progress(), (Seq(2), [1].as_slice()));
    consumer.commit(Seq(1), vec![2]);
    assert_eq!(consumer.progress(), (Seq(2), [2].as_slice()));
    assert_eq!(read(&mut consumer), expected(2, &["b"]));
}

#[test]
fn progress_and_state_survive_a_restart() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a", "b", "c"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    consumer.commit(Seq(3), b"what I knew".to_vec());
    drop(consumer);
    let running = running.restarted();
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(consumer.progress(), (Seq(3), b"what I knew".as_slice()));
    assert_eq!(read(&mut consumer), expected(1, &["a", "b", "c"]), "from the segment that holds it");
    let lane = running.outbox.status().lanes[Lane::Telemetry.index()];
    assert_eq!((lane.low, lane.next, lane.backlog_messages), (Seq(3), Seq(4), 1));
}

#[test]
fn progress_alone_is_written_without_a_group() {
    let running = Running::new();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    consumer.commit(Seq(2), Vec::new());
    running.memory.wait_firsts(Lane::Telemetry, &[]);
    wait_until(&running.outbox, "the backlog", || running.outbox.status().backlog_bytes == 0);
    running.close();
}

#[test]
fn only_configured_consumers_exist_and_each_once() {
    let running = Running::new();
    let unknown = running.outbox.consumer("uplink", Lane::Dead).unwrap_err();
    assert_eq!(unknown, Error::UnknownConsumer { consumer: "uplink".to_owned(), lane: Lane::Dead });
    let held = running.consumer(Lane::Bulk);
    let twice = running.outbox.consumer("uplink", Lane::Bulk).unwrap_err();
    assert_eq!(twice, Error::ConsumerInUse { consumer: "uplink".to_owned(), lane: Lane::Bulk });
    drop(held);
    drop(running.consumer(Lane::Bulk));
}

#[test]
fn trim_stops_at_the_slowest_consumer_and_at_segments() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let ids = ["fast", "slow"].map(|name| ConsumerId { name: name.to_owned(), lane: Lane::Telemetry });
    let (_, outbox) =
        Service::open_with(Box::new(memory.clone()), config(directory.path()), &ids, &Supervisor::new())
            .unwrap();
    let done = Arc::default();
    for _ in 0..4 {
        append(&outbox, &done, Lane::Telemetry, &["x", "y"]).unwrap();
        append(&outbox, &done, Lane::Dead, &["z"]).unwrap();
    }
    let [mut fast, mut slow] = ["fast", "slow"].map(|name| outbox.consumer(name, Lane::Telemetry).unwrap());
    read(&mut fast);
    read(&mut slow);
    fast.commit(Seq(9), Vec::new());
    slow.commit(Seq(6), Vec::new());
    memory.wait_firsts(Lane::Telemetry, &[5, 7]);
    // The trim is written before its effect is shown.
    wait_until(&outbox, "the position", || outbox.status().lanes[Lane::Telemetry.index()].low == Seq(6));
    close(&outbox);
    assert_eq!(memory.firsts(Lane::Telemetry), [5, 7], "nothing that `slow` needs went");
    assert_eq!(memory.firsts(Lane::Dead), [1, 2, 3, 4], "a lane without consumers is not trimmed");
    assert_eq!(memory.broken_rules(), Vec::<String>::new());
}

#[test]
fn files_go_only_below_a_durable_trim() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    let mut consumer = running.consumer(Lane::Telemetry);
    for round in 1..=20 {
        running.append(Lane::Telemetry, &["x"]).unwrap();
        housekeeping::everything(running.outbox.shared());
        assert!(running.outbox.status().lanes[Lane::Telemetry.index()].oldest_ms.is_some());
        read(&mut consumer);
        consumer.commit(Seq(round + 1), Vec::new());
        housekeeping::everything(running.outbox.shared());
    }
    running.memory.wait_firsts(Lane::Telemetry, &[]);
    wait_until(&running.outbox, "the files to go", || {
        housekeeping::everything(running.outbox.shared());
        running.memory.reclaimed(Lane::Telemetry) == Seq(21)
    });
    assert_eq!(running.outbox.status().lanes[Lane::Telemetry.index()].oldest_ms, None);
    running.close();
}

#[test]
fn damage_is_an_error_and_what_is_before_it_is_read() {
    let running = Running::with(|config| config.tail_cache_bytes = 0);
    for payload in ["a", "b", "c"] {
        running.append(Lane::Telemetry, &[payload]).unwrap();
    }
    running.memory.damage(Lane::Telemetry, Seq(2), |mut stored| {
        let last = stored.len() - 1;
        stored[last] ^= 1;
        Some(stored)
    });
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(consumer.try_next(1 << 20).unwrap().expect("it is good").first(), Seq(1));
    for _ in 0..2 {
        let error = consumer.try_next(1 << 20).unwrap_err();
        let Error::Damaged { lane: Lane::Telemetry, first: Seq(2), source } = error else {
            panic!("{error}");
        };
        assert!(matches!(source, SegmentError::Checksum { .. }), "{source}");
    }
    running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
    let gap = Error::Gap { lane: Lane::Telemetry, expected: Seq(2), found: Seq(3) };
    assert_eq!(consumer.try_next(1 << 20).unwrap_err(), gap);
    running.memory.damage(Lane::Telemetry, Seq(3), |_| None);
    let gap = Error::Gap { lane: Lane::Telemetry, expected: Seq(2), found: Seq(4) };
    assert_eq!(consumer.try_next(1 << 20).unwrap_err(), gap);
}

#[test]
fn a_consumer_of_one_lane_sleeps_through_commits_of_others() {
    let running = Running::new();
    let alerts = |seen, timeout| running.outbox.wait_commit_in(Lane::Alerts, seen, timeout);
    let (any, seen) =
        (running.outbox.wait_commit(u64::MAX, Duration::ZERO), alerts(u64::MAX, Duration::ZERO));
    running.append(Lane::Telemetry, &["x"]).unwrap();
    assert_ne!(running.outbox.wait_commit(any, PATIENCE), any, "the commit is there");
    assert_eq!(alerts(seen, Duration::ZERO), seen);
    running.append(Lane::Alerts, &["x"]).unwrap();
    let after = alerts(seen, PATIENCE);
    assert_ne!(after, seen);
    running.outbox.wake();
    assert_ne!(alerts(after, PATIENCE), after);
}

#[test]
fn waiting_for_a_commit_ends_with_it_or_by_a_wake() {
    let running = Running::new();
    let seen = running.outbox.wait_commit(u64::MAX, Duration::ZERO);
    assert_eq!(running.outbox.wait_commit(seen, Duration::from_millis(1)), seen, "nothing happened");
    running.append(Lane::Telemetry, &["x"]).unwrap();
    let after = running.outbox.wait_commit(seen, PATIENCE);
    assert_ne!(after, seen);
    running.outbox.wake();
    assert_ne!(running.outbox.wait_commit(after, PATIENCE), after);
}
