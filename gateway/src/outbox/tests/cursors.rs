//! Cursors: several positions in one lane, confirmed in any order.

use super::super::{Cursor, Error, OnFull, Segment};
use super::*;

/// One segment per payload.
fn with_segments(running: &Running, payloads: &[&str]) {
    payloads.iter().for_each(|payload| running.append(Lane::Telemetry, &[payload]).unwrap());
}

fn uncached() -> Running {
    Running::with(|config| config.tail_cache_bytes = 0)
}

fn next(cursor: &mut Cursor) -> Option<(u64, u64)> {
    let bounds = |segment: Arc<Segment>| (segment.first().0, segment.last().0);
    cursor.try_next(1 << 20).expect("readable").map(bounds)
}

fn rest(cursor: &mut Cursor) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| next(cursor)).collect()
}

fn floor(running: &Running) -> u64 {
    running.outbox.shared().lane(Lane::Telemetry).floor().0
}

#[test]
fn cursors_of_one_consumer_do_not_disturb_each_other() {
    for running in [Running::new(), uncached()] {
        with_segments(&running, &["a", "b", "c", "d"]);
        let mut consumer = running.consumer(Lane::Telemetry);
        let (mut backlog, mut live) = (consumer.cursor(Seq(1)), consumer.cursor(Seq(3)));
        assert_eq!(next(&mut live), Some((3, 3)));
        assert_eq!(next(&mut backlog), Some((1, 1)));
        assert_eq!(consumer.try_next(1).unwrap().expect("its own position").first(), Seq(1));
        assert_eq!(rest(&mut live), [(4, 4)]);
        assert_eq!(live.position(), Seq(5));
        assert_eq!((next(&mut backlog), backlog.position()), (Some((2, 2)), Seq(3)));
        with_segments(&running, &["e"]);
        assert_eq!(rest(&mut live), [(5, 5)]);
        assert_eq!(rest(&mut backlog), [(3, 3), (4, 4), (5, 5)]);
    }
}

#[test]
fn a_position_may_lie_within_a_segment() {
    for running in [Running::new(), uncached()] {
        running.append(Lane::Telemetry, &["a", "b", "c"]).unwrap();
        running.append(Lane::Telemetry, &["d", "e"]).unwrap();
        let consumer = running.consumer(Lane::Telemetry);
        for (at, expected) in [
            (0, vec![(1, 3), (4, 5)]),
            (1, vec![(1, 3), (4, 5)]),
            (2, vec![(1, 3), (4, 5)]),
            (4, vec![(4, 5)]),
            (5, vec![(4, 5)]),
            (6, vec![]),
            (60, vec![]),
        ] {
            assert_eq!(rest(&mut consumer.cursor(Seq(at))), expected, "{at}");
        }
        let mut cursor = consumer.cursor(Seq(1));
        assert_eq!(rest(&mut cursor).len(), 2);
        cursor.seek(Seq(5));
        assert_eq!((cursor.position(), rest(&mut cursor)), (Seq(5), vec![(4, 5)]));
        cursor.seek(Seq(2));
        assert_eq!(next(&mut cursor), Some((1, 3)));
        cursor.seek(Seq(3));
        assert_eq!(next(&mut cursor), Some((1, 3)), "also what was just handed out");
        cursor.seek(Seq(5));
        assert_eq!(rest(&mut cursor), [(4, 5)], "what was read ahead and is still right");
    }
}

#[test]
fn a_read_from_the_disk_is_shared_by_the_segments_it_fetched() {
    let running = uncached();
    with_segments(&running, &["a", "b", "c"]);
    let consumer = running.consumer(Lane::Telemetry);
    let mut cursor = consumer.cursor(Seq(1));
    assert_eq!(next(&mut cursor), Some((1, 1)));
    running.memory.set_reads_fail(true);
    assert_eq!((next(&mut cursor), next(&mut cursor)), (Some((2, 2)), Some((3, 3))));
    assert_eq!(next(&mut cursor), None, "the end needs no read");
    cursor.seek(Seq(1));
    assert!(matches!(cursor.try_next(1), Err(Error::Store { .. })));
    running.memory.set_reads_fail(false);
    assert_eq!(next(&mut cursor), Some((1, 1)));
}

/// The order in which segments were read does not matter, and the store is not asked.
#[test]
fn a_confirmed_position_trims_up_to_its_segment_whoever_read_it() {
    let running = uncached();
    for payloads in [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]] {
        running.append(Lane::Telemetry, &payloads).unwrap();
    }
    let mut consumer = running.consumer(Lane::Telemetry);
    let (mut live, mut backlog) = (consumer.cursor(Seq(5)), consumer.cursor(Seq(1)));
    assert_eq!(rest(&mut live), [(5, 6), (7, 8)]);
    assert_eq!((next(&mut backlog), next(&mut backlog)), (Some((1, 2)), Some((3, 4))));
    running.memory.set_reads_fail(true);
    let mut check = |low, expected: &[u64]| {
        consumer.commit(Seq(low), Vec::new());
        running.memory.wait_firsts(Lane::Telemetry, expected);
        // The store may hold more than what is asked for: the floor is what counts.
        wait_until(&running.outbox, "the floor", || floor(&running) == expected.first().map_or(9, |f| *f));
    };
    check(4, &[3, 5, 7]);
    check(6, &[5, 7]);
    check(9, &[]);
    running.memory.set_reads_fail(false);
    assert_eq!(running.outbox.status().backlog_bytes, 0);
    drop((live, backlog));
    drop(consumer);
    running.close();
}

#[test]
fn a_position_that_nobody_remembers_is_looked_up() {
    let running = uncached();
    for payloads in [["a", "b"], ["c", "d"], ["e", "f"]] {
        running.append(Lane::Telemetry, &payloads).unwrap();
    }
    let mut consumer = running.consumer(Lane::Telemetry);
    let cursor = consumer.cursor(Seq(6));
    consumer.commit(Seq(4), Vec::new());
    running.memory.wait_firsts(Lane::Telemetry, &[3, 5]);
    running.memory.set_reads_fail(true);
    consumer.commit(Seq(6), Vec::new());
    assert_eq!(consumer.progress().0, Seq(6), "the position counts, also where no trim follows yet");
    running.memory.set_reads_fail(false);
    assert_eq!(cursor.position(), Seq(6));
    let mut own = consumer.cursor(Seq(1));
    assert_eq!(rest(&mut own), [(3, 4), (5, 6)], "not below what the consumer still needs");
    consumer.commit(Seq(7), Vec::new());
    running.memory.wait_firsts(Lane::Telemetry, &[]);
}

#[test]
fn nobody_confirms_what_no_cursor_reached() {
    let running = Running::new();
    with_segments(&running, &["a", "b", "c", "d"]);
    let mut consumer = running.consumer(Lane::Telemetry);
    assert_eq!(next(&mut consumer.cursor(Seq(2))), Some((2, 2)));
    consumer.commit(Seq(5), Vec::new());
    assert_eq!(consumer.progress().0, Seq(3));
    let end = consumer.cursor(Seq(9));
    consumer.commit(Seq(9), Vec::new());
    assert_eq!(consumer.progress().0, Seq(5), "not above what is committed");
    drop(end);
}

#[test]
fn damage_is_reported_by_the_segment_that_holds_the_position_and_passed_once_it_is_known() {
    let running = uncached();
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Telemetry, &["b", "c", "d"]).unwrap();
    running.append(Lane::Telemetry, &["e"]).unwrap();
    running.memory.damage(Lane::Telemetry, Seq(2), |mut stored| {
        stored[70] ^= 1;
        Some(stored)
    });
    let mut consumer = running.consumer(Lane::Telemetry);
    let mut cursor = consumer.cursor(Seq(3));
    let mut other = consumer.cursor(Seq(1));
    assert_eq!(next(&mut other), Some((1, 1)));
    consumer.commit(Seq(2), Vec::new());
    let error = cursor.try_next(1).unwrap_err();
    assert!(matches!(error, Error::Damaged { first: Seq(2), .. }), "{error}");
    wait_until(&running.outbox, "the hole", || {
        running.outbox.shared().pass_holes(Lane::Telemetry, Seq(2)) == Seq(5)
    });
    assert_eq!(rest(&mut cursor), [(5, 5)]);
    assert_eq!(rest(&mut other), [(5, 5)]);
    wait_until(&running.outbox, "the hole to count as confirmed", || {
        running.outbox.status().lanes[Lane::Telemetry.index()].low == Seq(5)
    });
    consumer.commit(Seq(3), vec![1]);
    assert_eq!(consumer.progress(), (Seq(5), [1].as_slice()), "never back into it");
    consumer.commit(Seq(6), Vec::new());
    running.memory.wait_firsts(Lane::Telemetry, &[]);
}

#[test]
fn cursors_follow_entries_that_were_let_go() {
    let running = Running::with(|config| {
        config.on_full = OnFull::DropOldest;
        config.bytes_max = 3000;
        config.tail_cache_bytes = 0;
    });
    let consumer = running.consumer(Lane::Telemetry);
    let mut cursor = consumer.cursor(Seq(1));
    let low = || running.outbox.status().lanes[Lane::Telemetry.index()].low;
    let mut appended = 0;
    while low() == Seq(1) {
        if let Some(below) = consumer.drop_request() {
            consumer.answer_drop(below, below.0 - 1);
        }
        if let Ok(permit) = running.outbox.appender().reserve(Lane::Telemetry, 200) {
            let entries = encoded(Lane::Telemetry, &["x"]);
            let ticket =
                running.outbox.appender().submit(permit, &entries, &StateOps::default(), &running.done);
            wait_durable(&running.done, ticket).unwrap();
            appended += 1;
        }
        if appended == 2 {
            // It has read ahead what will be let go.
            assert_eq!(next(&mut cursor), Some((1, 1)));
            appended += 1;
        }
    }
    let begin = low().0;
    let read = rest(&mut cursor);
    assert_eq!(read.first().map(|(first, _)| *first), Some(begin), "it goes on where the lane begins");
    assert!(read.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{read:?}");
}
