//! When a tail read asks, reads, waits and ends.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::watch::{Answer, LATE_RECORDS, Step, Watch};
use super::super::{Bounds, Ended, Outcome, entries};
use crate::supervise::clock;
use crate::uplink::reader::Stamp;
use penstock_proto::Identity;

const QUIET: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);
const UNTIL: u64 = 1_800_000_000_000;

const BOUNDS: Bounds =
    Bounds { until_ms: UNTIL, bytes_max: 1000, quiet: QUIET, longest: Duration::from_secs(60) };

/// A watch, and a clock that stands at its beginning.
fn watch(from: &[i64]) -> (Watch, Instant) {
    let now = clock::now();
    (Watch::new(from.iter().copied(), &BOUNDS, now), now)
}

/// All partitions end at these offsets and keep everything.
fn answer(watch: &mut Watch, now: Instant, ends: &[i64]) {
    let open = watch.open();
    let ends: Vec<_> = open.iter().map(|want| (*want, Answer::Offset(ends[*want]))).collect();
    assert!(watch.ends(&ends));
    let firsts: Vec<_> = watch.unchecked().into_iter().map(|want| (want, Answer::Offset(0))).collect();
    assert!(firsts.is_empty() || watch.firsts(&firsts));
    watch.answered(now, now);
}

fn outcomes(watch: &Watch, now: Instant) -> Vec<Outcome> {
    watch.parts(now).iter().map(|part| part.outcome).collect()
}

#[test]
fn partitions_without_anything_new_are_asked_twice_and_never_read() {
    let (mut watch, now) = watch(&[7, 0]);
    assert_eq!(watch.step(now), Step::Ask);
    answer(&mut watch, now, &[7, 0]);
    assert!(watch.unchecked().is_empty(), "where they begin does not matter");
    assert_eq!(watch.step(now), Step::Wait(QUIET));
    assert_eq!(watch.step(now + QUIET), Step::Ask);
    answer(&mut watch, now + QUIET, &[7, 0]);
    assert_eq!(watch.step(now + QUIET), Step::Done(Ended::Settled));
    assert_eq!(outcomes(&watch, now), [Outcome::End, Outcome::End]);
}

#[test]
fn only_records_of_our_own_keep_it_going() {
    let (mut watch, now) = watch(&[0]);
    answer(&mut watch, now, &[2]);
    assert_eq!(watch.step(now), Step::Read);
    assert!(!watch.record(now + SECOND, 0, 0, None, 10, true), "one more to read");
    assert!(watch.record(now + SECOND, 0, 1, None, 10, false));
    assert_eq!(watch.step(now + SECOND), Step::Wait(QUIET), "counted from our own record");
    // Others write without end: the watermark moves, and that changes nothing.
    let later = now + SECOND + QUIET;
    assert_eq!(watch.step(later), Step::Ask);
    answer(&mut watch, later, &[500]);
    assert_eq!(watch.step(later), Step::Read);
    for offset in 2..500 {
        watch.record(later + SECOND, 0, offset, None, 1, false);
    }
    assert_eq!(watch.step(later + SECOND), Step::Done(Ended::Settled));
}

#[test]
fn a_record_that_lands_late_begins_the_quiet_anew() {
    let (mut watch, now) = watch(&[5]);
    answer(&mut watch, now, &[5]);
    let later = now + QUIET;
    answer(&mut watch, later, &[6]);
    assert_eq!(watch.step(later), Step::Read);
    watch.record(later, 0, 5, None, 10, true);
    assert_eq!(watch.step(later), Step::Wait(QUIET));
    answer(&mut watch, later + QUIET, &[6]);
    assert_eq!(watch.step(later + QUIET), Step::Done(Ended::Settled));
}

#[test]
fn bytes_end_it_only_while_something_is_left_to_read() {
    let (mut watch, now) = watch(&[0]);
    answer(&mut watch, now, &[2]);
    watch.record(now, 0, 0, None, 1000, false);
    assert_eq!(watch.step(now), Step::Done(Ended::Bytes));
    assert_eq!(outcomes(&watch, now), [Outcome::Cut]);
    watch.record(now, 0, 1, None, 1000, false);
    assert_eq!(watch.step(now), Step::Wait(QUIET));
    assert_eq!(outcomes(&watch, now), [Outcome::End]);
}

#[test]
fn time_ends_it_whatever_it_does() {
    let (mut watch, now) = watch(&[0, 0]);
    let end = now + BOUNDS.longest;
    assert_eq!(watch.step(end - SECOND), Step::Ask);
    assert_eq!(watch.step(end), Step::Done(Ended::Time));
    assert!(watch.is_unanswered());
    assert_eq!(outcomes(&watch, end), [Outcome::Cut, Outcome::Cut], "nothing is known");
    answer(&mut watch, end - SECOND, &[0, 1]);
    assert_eq!(watch.step(end - SECOND), Step::Read);
    assert_eq!(watch.step(end), Step::Done(Ended::Time));
    assert_eq!(outcomes(&watch, end), [Outcome::End, Outcome::Cut]);
    watch.record(end - SECOND, 1, 0, None, 1, true);
    assert_eq!(watch.step(end - SECOND), Step::Wait(SECOND), "no longer than it may take");
}

#[test]
fn a_partition_ends_where_later_records_begin() {
    let (mut watch, now) = watch(&[0, 0]);
    answer(&mut watch, now, &[100, 100]);
    assert!(!watch.record(now, 0, 0, Some(Stamp::Service(UNTIL)), 1, false));
    assert!(
        watch.record(now, 0, 1, Some(Stamp::Service(UNTIL + 1)), 1, false),
        "the service is believed at once"
    );
    let wrong_clock = Some(Stamp::Sender(UNTIL + 1));
    for offset in 0..20 {
        assert!(!watch.record(now, 1, offset, wrong_clock, 1, false));
    }
    assert!(!watch.record(now, 1, 20, Some(Stamp::Sender(UNTIL)), 1, false));
    for offset in 21..20 + i64::from(LATE_RECORDS) {
        assert!(!watch.record(now, 1, offset, wrong_clock, 1, false));
    }
    assert!(watch.record(now, 1, 20 + i64::from(LATE_RECORDS), wrong_clock, 1, false), "many senders agree");
    assert_eq!(watch.step(now), Step::Done(Ended::Settled), "nothing is left to wait for");
    assert_eq!(outcomes(&watch, now), [Outcome::Passed, Outcome::Passed]);
}

#[test]
fn retention_that_passed_is_counted_and_a_topic_made_anew_is_not_read() {
    let (mut watch, now) = watch(&[10, 10]);
    assert!(watch.ends(&[(0, Answer::Offset(30)), (1, Answer::Offset(3))]));
    assert_eq!(watch.unchecked(), [0]);
    assert!(watch.firsts(&[(0, Answer::Offset(25))]));
    watch.answered(now, now);
    assert_eq!((watch.behind(now), watch.next_offset(0)), (vec![0], 25));
    let parts = watch.parts(now);
    assert_eq!((parts[0].skipped, parts[0].outcome), (15, Outcome::Cut));
    assert_eq!((parts[1].end, parts[1].outcome), (Some(3), Outcome::OutOfRange));
}

#[test]
fn what_is_refused_or_missing_does_not_hold_up_the_rest() {
    let (mut watch, now) = watch(&[0, 0, 0]);
    let answers = [(0, Answer::Refused), (1, Answer::Missing), (2, Answer::None)];
    assert!(!watch.ends(&answers), "one has no answer");
    assert_eq!((watch.open(), watch.step(now)), (vec![2], Step::Ask));
    answer(&mut watch, now, &[0, 0, 0]);
    assert_eq!(watch.step(now + QUIET), Step::Ask);
    answer(&mut watch, now + QUIET, &[0, 0, 0]);
    assert_eq!(watch.step(now + QUIET), Step::Done(Ended::Settled));
    assert_eq!(outcomes(&watch, now), [Outcome::Refused, Outcome::Missing, Outcome::End]);
}

#[test]
fn offsets_without_a_record_at_the_end_are_believed_after_a_second() {
    let (mut watch, now) = watch(&[0]);
    answer(&mut watch, now, &[3]);
    watch.record(now, 0, 0, None, 1, false);
    watch.at_end(now, 0);
    assert_eq!(watch.step(now), Step::Read);
    watch.record(now, 0, 1, None, 1, false);
    assert_eq!(watch.step(now + SECOND), Step::Read, "a record came after all");
    watch.at_end(now, 0);
    assert_eq!(watch.step(now + SECOND), Step::Wait(SECOND));
    answer(&mut watch, now + QUIET, &[4]);
    assert_eq!(watch.step(now + QUIET), Step::Read, "there is more");
}

#[test]
fn the_header_of_a_pack_must_fit_its_identity() {
    let identity: Identity = "site-7/00c0ffee12345678/3/2/1041/1030/l".parse().unwrap();
    let check = |header: &str, expected: Option<u32>| {
        assert_eq!(entries(&identity, Some(header.as_bytes())), expected, "{header}");
    };
    assert_eq!(entries(&identity, None), Some(1));
    check("1/ndjson/none/1031/5", Some(5));
    check("1/protobuf/gzip/1031/11", Some(11));
    check("1/json-array/deflate/1041/1", Some(1));
    check("1/ndjson/none/1031/12", None);
    check("1/ndjson/none/1030/5", None);
    check("1/ndjson/none/1040/1", None);
    check("1/ndjson/none/1042/1", None);
    check("1/ndjson/none/1031/0", None);
    check("2/ndjson/none/1031/5", None);
    check("1/ndjson/1031/5", None);
    check("1/ndjson/none/x/5", None);
}

proptest! {
    /// Partitions that grow at any time, answers that fail, records of anyone: it always ends in time, and when
    /// it says that it settled, every record of our own that landed `QUIET` before was seen.
    #[test]
    fn it_ends_in_time_and_misses_nothing_that_landed_before_the_quiet(
        lands in prop::collection::vec((0usize..3, 0u64..8_000, any::<bool>()), 0..60),
        fails in prop::collection::vec(any::<bool>(), 1..10),
        read_ms in 1u64..50,
    ) {
        let start = clock::now();
        let bounds = Bounds { bytes_max: usize::MAX, longest: Duration::from_secs(30), ..BOUNDS };
        let mut watch = Watch::new([0_i64; 3].into_iter(), &bounds, start);
        let mut logs: [Vec<(u64, bool)>; 3] = Default::default();
        for (partition, at_ms, own) in &lands {
            logs[*partition].push((*at_ms, *own));
        }
        logs.iter_mut().for_each(|log| log.sort_unstable());
        let end = |partition: usize, now_ms: u64| logs[partition].iter().filter(|(at, _)| *at <= now_ms).count();
        let (mut now_ms, mut asks, mut seen) = (0_u64, 0, [0_usize; 3]);
        let ended = loop {
            let now = start + Duration::from_millis(now_ms);
            match watch.step(now) {
                Step::Ask => {
                    asks += 1;
                    let asked = now;
                    now_ms += 10;
                    if fails[asks % fails.len()] && asks < 20 {
                        continue;
                    }
                    let ends: Vec<_> = (0..3)
                        .map(|want| (want, Answer::Offset(i64::try_from(end(want, now_ms)).unwrap())))
                        .collect();
                    prop_assert!(watch.ends(&ends));
                    let firsts: Vec<_> = watch.unchecked().into_iter().map(|want| (want, Answer::Offset(0))).collect();
                    prop_assert!(firsts.is_empty() || watch.firsts(&firsts));
                    watch.answered(asked, start + Duration::from_millis(now_ms));
                }
                Step::Read => {
                    now_ms += read_ms;
                    let want = watch.behind(now)[0];
                    let offset = watch.next_offset(want);
                    let own = logs[want][usize::try_from(offset).unwrap()].1;
                    watch.record(start + Duration::from_millis(now_ms), want, offset, None, 1, own);
                    seen[want] += 1;
                }
                Step::Wait(wait) => now_ms += u64::try_from(wait.as_millis()).unwrap().clamp(1, 100),
                Step::Done(ended) => break ended,
            }
        };
        prop_assert!(now_ms <= 30_000 + read_ms + 10);
        prop_assert_eq!(ended, Ended::Settled);
        prop_assert!(now_ms >= 2_000);
        // Whatever landed before the quiet began is seen; so no gap of our own records is longer than the quiet.
        for (partition, log) in logs.iter().enumerate() {
            let newest = log[..seen[partition]].iter().map(|(at, _)| *at).max().unwrap_or(0);
            let missed = log[seen[partition]..].iter().find(|(_, own)| *own);
            if let Some((at, _)) = missed {
                prop_assert!(*at >= newest, "a record before one that was seen");
                prop_assert!(*at >= 2_000 - 10, "missed one that landed {at} ms after the start");
            }
        }
    }
}
