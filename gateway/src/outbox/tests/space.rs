//! A disk that gets full: what is refused and when, and how the outbox comes back.

use std::fs;

use super::super::housekeeping::{self, Housekeeper, TICKS_PER_BALLAST};
use super::super::space::BALLAST;
use super::super::{BodyCodec, OnFull, Refused};
use super::*;

const FLOOR: u64 = 1 << 20;

/// An outbox on a pretended disk with so much free space.
fn on_disk(free: u64, change: impl FnOnce(&mut Config)) -> Running {
    let (directory, memory) = (Arc::new(tempfile::tempdir().unwrap()), Memory::default());
    memory.set_free(directory.path(), free);
    let change = |config: &mut Config| {
        config.disk_free_min = 0;
        config.body_codec = BodyCodec::None;
        change(config);
    };
    Running::again(directory, memory, change).expect("a new directory opens")
}

impl Running {
    fn set_free(&self, free: u64) {
        self.memory.set_free(self.directory.path(), free);
    }

    fn ballast(&self) -> Option<u64> {
        fs::metadata(self.directory.path().join(BALLAST)).ok().map(|found| found.len())
    }

    /// Appends entries of `bytes` until that is refused, and says why.
    fn fill(&self, lane: Lane, bytes: usize) -> Refused {
        let payload = "x".repeat(bytes);
        loop {
            if let Err(reason) = self.outbox.appender().reserve(lane, bytes) {
                return reason;
            }
            self.append(lane, &[&payload]).expect("there is room");
        }
    }

    fn tick(&self, count: u64) {
        let shared = self.outbox.shared();
        let mut housekeeper = Housekeeper::new(shared);
        (0..count).for_each(|_| housekeeper.tick(shared));
    }

    fn wait_epoch(&self, epoch: u32) {
        wait_until(&self.outbox, "the outbox to come back", || {
            self.outbox.epoch().0 == epoch && self.outbox.status().poisoned.is_none()
        });
    }
}

#[test]
fn a_fast_fill_stops_at_the_floor_and_then_at_a_quarter_of_it() {
    const COMMIT: u64 = (64 << 10) + 4096;
    let running = on_disk(FLOOR + (3 << 20), |config| config.disk_free_min = FLOOR);
    assert_eq!(running.fill(Lane::Telemetry, 64 << 10), Refused::Space);
    let free = running.memory.free();
    assert!(free < FLOOR && free + COMMIT > FLOOR, "{free} free, floor {FLOOR}");
    assert_eq!(running.fill(Lane::Bulk, 1), Refused::Space);
    assert_eq!(running.fill(Lane::Dead, 1), Refused::Space);
    assert_eq!(running.fill(Lane::Alerts, 64 << 10), Refused::Space);
    let free = running.memory.free();
    assert!(free < FLOOR / 4 && free + COMMIT > FLOOR / 4, "{free} free, floor {FLOOR}");
    assert_eq!(running.fill(Lane::Status, 1), Refused::Space);
    running.close();
}

#[test]
fn lanes_open_again_a_tenth_above_their_limit() {
    let running = on_disk(FLOOR / 8, |config| config.disk_free_min = FLOOR);
    let check = |free, urgent: Option<Refused>, ordinary: Option<Refused>| {
        running.set_free(free);
        housekeeping::everything(running.outbox.shared());
        let status = running.outbox.status();
        assert_eq!(status.disk_free_bytes, Some(running.memory.free()));
        let refusing = status.lanes.map(|lane| lane.refusing);
        assert_eq!(refusing, [urgent, urgent, ordinary, ordinary, ordinary], "{free} free");
        assert_eq!(running.outbox.appender().reserve(Lane::Bulk, 1).err(), ordinary);
    };
    let space = Some(Refused::Space);
    check(FLOOR / 4 + FLOOR / 40 - 10, space, space);
    check(FLOOR / 4 + FLOOR / 40, None, space);
    check(FLOOR + FLOOR / 10 - 10, None, space);
    check(FLOOR + FLOOR / 10, None, None);
    check(FLOOR, None, None);
    check(FLOOR - 1, None, space);
    check(FLOOR / 4 - 1, space, space);
}

#[test]
fn without_a_floor_the_disk_is_not_watched() {
    let running = on_disk(1 << 20, |_| {});
    running.set_free(2000);
    running.tick(1);
    running.append(Lane::Telemetry, &["a"]).unwrap();
    assert!(running.outbox.status().disk_free_bytes.is_some_and(|free| free <= 2000));
}

#[test]
fn the_ballast_is_let_go_when_the_disk_is_full_and_made_again_with_room() {
    const BYTES: u64 = 100_000;
    let running = on_disk(2 * BYTES + (64 << 10), |config| config.ballast = BYTES);
    assert_eq!(running.ballast(), Some(BYTES));
    running.append(Lane::Telemetry, &["a"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    consumer.commit(Seq(2), Vec::new());
    running.memory.wait_firsts(Lane::Telemetry, &[]);
    running.set_free(10);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    running.wait_epoch(2);
    assert_eq!(running.ballast(), None);
    assert_eq!(running.memory.reclaimed(Lane::Telemetry), Seq(2), "what was trimmed made room, too");
    let done = Arc::default();
    append(&running.outbox, &done, Lane::Telemetry, &["c"]).expect("in the ballast's place");
    running.set_free(2 * BYTES - 1);
    running.tick(TICKS_PER_BALLAST);
    assert_eq!(running.ballast(), None, "not while the disk could be full again at once");
    running.set_free(2 * BYTES);
    running.tick(TICKS_PER_BALLAST);
    assert_eq!(running.ballast(), Some(BYTES));
    running.close();
}

#[test]
fn the_ballast_leaves_the_floor_alone() {
    let with_ballast = |config: &mut Config| (config.disk_free_min, config.ballast) = (FLOOR, 1000);
    // The lock and the high-water mark take a little, too.
    let short = on_disk(FLOOR + FLOOR / 10 + 999, with_ballast);
    assert_eq!(short.ballast(), None);
    short.set_free(FLOOR + FLOOR / 2 + 999);
    short.tick(TICKS_PER_BALLAST);
    assert_eq!(short.ballast(), None);
    short.set_free(FLOOR + FLOOR / 2 + 1000);
    short.tick(TICKS_PER_BALLAST);
    assert_eq!(short.ballast(), Some(1000));
    let enough = on_disk(FLOOR + FLOOR / 10 + (64 << 10), with_ballast);
    assert_eq!(enough.ballast(), Some(1000));
}

#[test]
fn a_ballast_that_is_no_longer_wanted_goes_and_another_size_replaces_it() {
    let running = on_disk(1 << 20, |config| config.ballast = 5000);
    running.close();
    let again = |ballast| {
        let change = |config: &mut Config| (config.disk_free_min, config.ballast) = (0, ballast);
        let running = Running::again(Arc::clone(&running.directory), running.memory.clone(), change).unwrap();
        running.ballast()
    };
    assert_eq!(again(3000), Some(3000));
    assert_eq!(again(0), None);
}

#[test]
fn a_start_on_a_full_disk_uses_the_ballast() {
    let running = on_disk(1 << 20, |config| config.ballast = 5000);
    running.close();
    running.set_free(10);
    let change = |config: &mut Config| (config.disk_free_min, config.ballast) = (0, 5000);
    let running = Running::again(Arc::clone(&running.directory), running.memory.clone(), change).unwrap();
    assert_eq!(running.ballast(), None);
    running.append(Lane::Telemetry, &["a"]).unwrap();
}

#[test]
fn the_outbox_comes_back_when_there_is_space() {
    let running = on_disk(1 << 20, |_| {});
    running.append(Lane::Telemetry, &["a"]).unwrap();
    running.set_free(0);
    assert_eq!(running.append(Lane::Telemetry, &["b"]), Err(CommitFailed));
    wait_until(&running.outbox, "the reason", || {
        running.outbox.status().poisoned.is_some_and(|reason| reason.contains("does not open"))
    });
    running.set_free(64 << 20);
    running.wait_epoch(2);
    append(&running.outbox, &Arc::default(), Lane::Telemetry, &["c"]).unwrap();
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["a", "c"]));
}

#[test]
fn a_nearly_full_disk_lets_the_oldest_go_where_that_is_allowed() {
    let running = on_disk(FLOOR + (3 << 20), |config| {
        config.disk_free_min = FLOOR;
        config.on_full = OnFull::DropOldest;
    });
    assert_eq!(running.fill(Lane::Telemetry, 64 << 10), Refused::Space);
    running.tick(1);
    let low = || running.outbox.status().lanes[Lane::Telemetry.index()].low;
    wait_until(&running.outbox, "the drop", || low() > Seq(1));
    let records = read(&mut running.consumer(Lane::Status));
    assert!(records[0].1.contains(r#""reason":"space""#), "{records:?}");
    assert!(running.memory.reclaimed(Lane::Telemetry) >= low(), "files are deleted at once");
    assert_eq!(running.memory.broken_rules(), Vec::<String>::new());
}
