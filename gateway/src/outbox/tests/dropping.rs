//! Letting the oldest entries go to make room: counted, recorded, and after asking.

use super::super::OnFull;
use super::*;

/// About a hundredth of the smallest quota.
const ENTRY_BYTES: usize = 160 << 10;
const QUOTA: u64 = 16 << 20;

fn dropping() -> Running {
    Running::with(|config| {
        config.bytes_max = QUOTA;
        config.on_full = OnFull::DropOldest;
        config.tail_cache_bytes = 0;
    })
}

fn fill(running: &Running, lane: Lane, count: usize) {
    for n in 0..count {
        let payload = format!("{n} {}", "x".repeat(ENTRY_BYTES));
        wait_until(&running.outbox, "room", || running.outbox.appender().reserve(lane, 1).is_ok());
        running.append(lane, &[&payload]).unwrap();
    }
}

/// The records in lane status about what was dropped.
fn records(running: &Running) -> Vec<serde_json::Value> {
    let mut consumer = running.consumer(Lane::Status);
    let all = read(&mut consumer).into_iter().map(|(_, text)| serde_json::from_str(&text).expect("JSON"));
    all.collect()
}

fn low(running: &Running, lane: Lane) -> u64 {
    running.outbox.status().lanes[lane.index()].low.0
}

#[test]
fn the_oldest_entries_go_and_the_record_says_which() {
    let running = dropping();
    fill(&running, Lane::Telemetry, 120);
    wait_until(&running.outbox, "room", || running.outbox.status().backlog_bytes < QUOTA / 100 * 90);
    let low = low(&running, Lane::Telemetry);
    assert!(low > 20, "{low}");
    let records = records(&running);
    let ranges: Vec<_> = records.iter().map(|record| &record["data"]["range"]).collect();
    assert_eq!(ranges[0]["first"], 1);
    assert!(
        ranges.windows(2).all(|pair| pair[1]["first"].as_u64() == pair[0]["last"].as_u64().map(|n| n + 1))
    );
    assert_eq!(ranges.last().unwrap()["last"], low - 1);
    let dropped: u64 = records.iter().filter_map(|record| record["data"]["dropped"].as_u64()).sum();
    assert_eq!(dropped, low - 1, "nothing was confirmed");
    assert!(records.iter().all(|record| record["type"] == "io.penstock.outbox.dropped.v1"));
    let rest = read(&mut running.consumer(Lane::Telemetry));
    assert!(rest.iter().map(|(seq, _)| *seq).eq(low..=120), "everything newer is there");
    let again = running.restarted();
    assert_eq!(read(&mut again.consumer(Lane::Telemetry)).len(), rest.len());
    assert!(again.memory.reclaimed(Lane::Telemetry) >= Seq(low), "the space is given back");
}

#[test]
fn bulk_goes_before_telemetry_and_alerts_never() {
    let running = dropping();
    fill(&running, Lane::Alerts, 40);
    fill(&running, Lane::Telemetry, 30);
    fill(&running, Lane::Bulk, 60);
    wait_until(&running.outbox, "room", || running.outbox.status().backlog_bytes < QUOTA / 100 * 90);
    assert!(low(&running, Lane::Bulk) > 1);
    assert_eq!((low(&running, Lane::Telemetry), low(&running, Lane::Alerts)), (1, 1));
    fill(&running, Lane::Telemetry, 60);
    wait_until(&running.outbox, "room", || running.outbox.status().backlog_bytes < QUOTA / 100 * 90);
    assert_eq!((low(&running, Lane::Bulk), low(&running, Lane::Alerts)), (61, 1));
    assert!(low(&running, Lane::Telemetry) > 1);
}

#[test]
fn what_a_consumer_has_confirmed_is_not_counted() {
    let running = dropping();
    let mut consumer = running.consumer(Lane::Telemetry);
    fill(&running, Lane::Telemetry, 80);
    for _ in 0..4 {
        consumer.try_next(1).unwrap().expect("there is one");
    }
    // It has confirmed the second to the fourth in its own books, and says so when it is asked.
    let (filled, asked) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fill(&running, Lane::Telemetry, 15);
            filled.send(()).unwrap();
        });
        wait_until(&running.outbox, "the request", || consumer.drop_request().is_some());
        let below = consumer.drop_request().expect("it was asked");
        assert!((5..80).contains(&below.0), "{below}");
        consumer.answer_drop(below, below.0 - 4);
        assert_eq!(consumer.drop_request(), None, "answered");
        wait_until(&running.outbox, "the drop", || low(&running, Lane::Telemetry) >= below.0);
        let next = consumer.try_next(1).unwrap().expect("there is one").first();
        assert_eq!(next, below, "it goes on where the lane begins now");
        asked.recv().unwrap();
    });
    let records = records(&running);
    let (record, last) = (&records[0]["data"], low(&running, Lane::Telemetry) - 1);
    assert_eq!(record["dropped"].as_u64().map(|dropped| dropped + 3), record["range"]["last"].as_u64());
    assert!(record["range"]["last"].as_u64() <= Some(last));
}

#[test]
fn a_consumer_that_does_not_answer_is_waited_for_and_then_passed() {
    let running = dropping();
    let mut consumer = running.consumer(Lane::Telemetry);
    consumer.rewind();
    let started = clock::now();
    fill(&running, Lane::Telemetry, 93);
    wait_until(&running.outbox, "the drop", || low(&running, Lane::Telemetry) > 1);
    assert!(clock::now() - started >= Duration::from_secs(2), "it was given its time");
    assert_eq!(
        consumer.try_next(1).unwrap().expect("there is one").first().0,
        low(&running, Lane::Telemetry)
    );
}

#[test]
fn without_the_policy_nothing_is_dropped() {
    let running = Running::with(|config| config.bytes_max = QUOTA);
    let full = || running.outbox.appender().reserve(Lane::Telemetry, ENTRY_BYTES).is_err();
    let payload = "x".repeat(ENTRY_BYTES);
    while !full() {
        running.append(Lane::Telemetry, &[&payload]).unwrap();
    }
    assert_eq!(low(&running, Lane::Telemetry), 1);
    assert!(records(&running).is_empty());
}
