//! What the housekeeper does by ticks: idle lanes, the scrub, the database's condition.

use penstock_proto::Epoch;

use super::super::housekeeping::{Housekeeper, IDLE_TICKS};
use super::super::keys::{Head, Hole, HoleReason, MetaKey};
use super::super::recovery::LaneHole;
use super::super::scrub::{PASS_TICKS, Scrub};
use super::super::store::{Change, Open, Store};
use super::super::{BodyCodec, OnMissingRange};
use super::*;

fn confirm_all(running: &Running, consumer: &mut Consumer) {
    read(consumer);
    let next = running.outbox.status().lanes[consumer.lane().index()].next;
    consumer.commit(next, Vec::new());
    let view = running.outbox.shared().lane(consumer.lane());
    wait_until(&running.outbox, "the trim", || view.reclaimable() == next);
}

#[test]
fn an_idle_lane_is_cleaned_once_until_it_moves_again() {
    let running = Running::new();
    let shared = running.outbox.shared();
    let mut housekeeper = Housekeeper::new(shared);
    let mut tick = |count| {
        (0..count).for_each(|_| housekeeper.tick(shared));
        running.memory.cleaned()
    };
    assert_eq!(tick(2 * IDLE_TICKS), [], "lanes that were never used have nothing");
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.append(Lane::Bulk, &["stays"]).unwrap();
    assert_eq!(tick(2 * IDLE_TICKS), [], "not while something is unconfirmed");
    let mut consumer = running.consumer(Lane::Telemetry);
    confirm_all(&running, &mut consumer);
    assert_eq!(tick(IDLE_TICKS - 1), []);
    let store = shared.store.write().take();
    assert_eq!(tick(1), [], "the store is being opened again");
    *shared.store.write() = store;
    assert_eq!(tick(1), [(Lane::Telemetry, Seq(2))]);
    assert_eq!(tick(5 * IDLE_TICKS), [(Lane::Telemetry, Seq(2))], "once");
    running.append(Lane::Telemetry, &["b"]).unwrap();
    confirm_all(&running, &mut consumer);
    assert_eq!(tick(IDLE_TICKS + 1), [(Lane::Telemetry, Seq(2)), (Lane::Telemetry, Seq(3))]);
    running.close();
}

/// Eight segments of 1100 bytes and some, in lane telemetry.
fn with_segments(scrub_rate: u64) -> Running {
    with_segments_and(scrub_rate, OnMissingRange::Refuse)
}

fn with_segments_and(scrub_rate: u64, on_missing_range: OnMissingRange) -> Running {
    let running = Running::with(|config| {
        config.scrub_rate = scrub_rate;
        config.body_codec = BodyCodec::None;
        config.on_missing_range = on_missing_range;
    });
    let payload = "x".repeat(1000);
    (0..8).for_each(|_| running.append(Lane::Telemetry, &[&payload]).unwrap());
    running
}

fn stored_bytes(running: &Running, lane: Lane) -> Vec<u64> {
    let mut bytes = Vec::new();
    let visit = &mut |_, stored: &[u8]| {
        bytes.push(stored.len() as u64);
        ControlFlow::Continue(())
    };
    running.memory.scan(lane, Seq(1), Seq(u64::MAX), visit).unwrap();
    bytes
}

#[test]
fn the_scrub_keeps_to_its_rate_and_begins_again_after_a_day() {
    const RATE: u64 = 700;
    let running = with_segments(RATE);
    let shared = running.outbox.shared();
    let sizes = stored_bytes(&running, Lane::Telemetry);
    let (all, largest) = (sizes.iter().sum::<u64>(), *sizes.iter().max().unwrap());
    assert!(largest > RATE, "more than a tick's worth");
    let mut scrub = Scrub::new(shared);
    let mut ticks = 0;
    while scrub.checked_bytes() < all {
        scrub.tick(shared);
        ticks += 1;
        let most = ticks * RATE + largest;
        assert!(scrub.checked_bytes() <= most, "{} after {ticks} ticks", scrub.checked_bytes());
        assert!(ticks <= all / RATE + 2, "{} after {ticks} ticks is too slow", scrub.checked_bytes());
    }
    running.append(Lane::Telemetry, &["later"]).unwrap();
    (ticks..PASS_TICKS - 1).for_each(|_| scrub.tick(shared));
    assert_eq!(scrub.checked_bytes(), all, "not what this process wrote just now");
    let with_later = all + stored_bytes(&running, Lane::Telemetry).iter().sum::<u64>();
    (0..20).for_each(|_| scrub.tick(shared));
    assert_eq!(scrub.checked_bytes(), with_later, "a day later everything");
    assert_eq!(scrub.reported(), []);
}

#[test]
fn a_scrub_of_rate_0_reads_nothing() {
    let running = with_segments(0);
    let mut scrub = Scrub::new(running.outbox.shared());
    (0..10).for_each(|_| scrub.tick(running.outbox.shared()));
    assert_eq!(scrub.checked_bytes(), 0);
}

#[test]
fn the_scrub_reports_what_is_damaged_or_missing_once() {
    let running = with_segments(1 << 20);
    let shared = running.outbox.shared();
    let flip = |mut stored: Vec<u8>| {
        stored[200] ^= 1;
        Some(stored)
    };
    running.memory.damage(Lane::Telemetry, Seq(3), flip);
    running.memory.damage(Lane::Telemetry, Seq(5), |_| None);
    running.memory.damage(Lane::Telemetry, Seq(8), |_| None);
    let mut scrub = Scrub::new(shared);
    scrub.tick(shared);
    let lost = [(Lane::Telemetry, 3), (Lane::Telemetry, 5), (Lane::Telemetry, 8)];
    assert_eq!(scrub.reported(), lost);
    let checked = scrub.checked_bytes();
    (0..PASS_TICKS).for_each(|_| scrub.tick(shared));
    assert_eq!(scrub.checked_bytes(), 2 * checked, "a second pass");
    assert_eq!(scrub.reported(), lost);
}

#[test]
fn what_the_scrub_finds_is_announced_before_a_reader_comes_there() {
    let running = with_segments_and(1 << 20, OnMissingRange::Quarantine);
    let shared = running.outbox.shared();
    running.memory.damage(Lane::Telemetry, Seq(3), |_| None);
    Scrub::new(shared).tick(shared);
    wait_until(&running.outbox, "the hole", || shared.pass_holes(Lane::Telemetry, Seq(3)) == Seq(4));
    wait_until(&running.outbox, "the alert", || running.outbox.status().lanes[0].next == Seq(2));
    let mut scrub = Scrub::new(shared);
    scrub.tick(shared);
    assert_eq!(scrub.reported(), [], "known by now");
}

#[test]
fn the_scrub_goes_on_with_the_next_lane_when_one_cannot_be_read() {
    let running = with_segments(1 << 20);
    let shared = running.outbox.shared();
    running.append(Lane::Bulk, &["a"]).unwrap();
    running.memory.set_reads_fail(true);
    let mut scrub = Scrub::new(shared);
    scrub.tick(shared);
    assert_eq!(scrub.reported(), [(Lane::Telemetry, 1), (Lane::Bulk, 1)]);
    assert_eq!(scrub.checked_bytes(), 0);
}

#[test]
fn the_scrub_takes_what_was_trimmed_meanwhile_for_trimmed() {
    let running = with_segments(1 << 20);
    let shared = running.outbox.shared();
    let mut scrub = Scrub::new(shared);
    // The store knows already, and the lane's view not yet.
    running.memory.damage(Lane::Telemetry, Seq(1), |_| None);
    running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
    let head = Head { first: Seq(3), bytes_before: 0 };
    running.memory.put_meta(&MetaKey::Head(Lane::Telemetry), head.encode());
    scrub.tick(shared);
    assert_eq!(scrub.reported(), []);
    let left = stored_bytes(&running, Lane::Telemetry);
    assert_eq!(scrub.checked_bytes(), left.iter().sum::<u64>());
}

#[test]
fn the_scrub_passes_over_what_is_known_to_be_gone() {
    let running = with_segments(1 << 20);
    let shared = running.outbox.shared();
    running.memory.damage(Lane::Telemetry, Seq(2), |_| None);
    running.memory.damage(Lane::Telemetry, Seq(3), |stored| Some(stored[1..].to_vec()));
    running.memory.damage(Lane::Telemetry, Seq(6), |_| None);
    let hole = |lane, first, end| {
        let hole = Hole { end: Seq(end), at_ms: 0, epoch: Epoch(1), reason: HoleReason::Missing };
        LaneHole { lane, first: Seq(first), hole }
    };
    shared.holes.write().extend([hole(Lane::Telemetry, 2, 4), hole(Lane::Bulk, 6, 7)]);
    let mut scrub = Scrub::new(shared);
    scrub.tick(shared);
    assert_eq!(scrub.reported(), [(Lane::Telemetry, 6)]);
}

fn put(store: &dyn Store, range: std::ops::Range<u64>) {
    let stored = [7; 10_000];
    for first in range {
        let change = Change::Segment { lane: Lane::Telemetry, first: Seq(first), stored: &stored };
        store.write(&[change], true).unwrap();
    }
}

#[test]
fn rocksdb_tells_its_condition_and_gives_an_idle_lanes_files_and_memory_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksEngine.open(folder.path(), Open::Create).unwrap();
    let condition = || store.condition().unwrap();
    let telemetry = || condition().lanes[Lane::Telemetry.index()];
    assert_eq!((telemetry().table_files, telemetry().table_bytes), (0, 0));
    put(store.as_ref(), 1..101);
    let written = condition();
    assert!(written.log_bytes >= 1_000_000, "{written:?}");
    assert!(telemetry().buffer_bytes >= 1_000_000, "{written:?}");
    // Nothing is trimmed yet: all goes to a file and stays.
    store.clean(Lane::Telemetry, Seq(1)).unwrap();
    let flushed = condition();
    assert!(flushed.flushed_bytes >= 1_000_000 && flushed.log_bytes < 100_000, "{flushed:?}");
    assert!(telemetry().buffer_bytes < 100_000 && telemetry().table_bytes >= 1_000_000, "{flushed:?}");
    let trim = Change::Trim { lane: Lane::Telemetry, below: Seq(101) };
    store.write(&[trim], true).unwrap();
    assert_eq!(store.reclaim(Lane::Telemetry, Seq(101)).unwrap(), 1, "it was moved below level 0");
    put(store.as_ref(), 101..201);
    store.write(&[Change::Trim { lane: Lane::Telemetry, below: Seq(201) }], true).unwrap();
    store.clean(Lane::Telemetry, Seq(201)).unwrap();
    assert_eq!((telemetry().table_files, telemetry().table_bytes), (0, 0), "{:?}", condition());
    assert_eq!((condition().background_errors, condition().writes_stopped), (0, false));
}

/// A range deletion in the newest file would have the next compaction rewrite the whole backlog.
#[test]
fn a_large_lane_is_trimmed_by_deleting_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = RocksEngine.open(folder.path(), Open::Create).unwrap();
    let large = vec![7; 1 << 20];
    let put_large = |first| {
        let segment = Change::Segment { lane: Lane::Telemetry, first: Seq(first), stored: &large };
        store.write(&[segment], false).unwrap();
    };
    let first = || {
        let mut found = None;
        let visit = &mut |first: Seq, _: &[u8]| {
            found = Some(first);
            ControlFlow::Break(())
        };
        store.scan(Lane::Telemetry, Seq(0), Seq(1000), visit).unwrap();
        found
    };
    let trim = |below| {
        store.write(&[Change::Trim { lane: Lane::Telemetry, below: Seq(below) }], true).unwrap();
    };
    (1..=100).for_each(put_large);
    store.clean(Lane::Telemetry, Seq(1)).unwrap();
    trim(91);
    assert_eq!(first(), Some(Seq(1)), "no range deletion was written");
    assert!(store.reclaim(Lane::Telemetry, Seq(91)).unwrap() >= 1);
    assert!(first() > Some(Seq(1)), "files went");
    // What is left is small.
    trim(92);
    assert_eq!(first(), Some(Seq(92)));
}
