//! What the housekeeper does by ticks: idle lanes, the database's condition.

use super::super::housekeeping::{Housekeeper, IDLE_TICKS};
use super::super::store::{Change, Open, Store};
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
    store.clean(Lane::Telemetry, Seq(101)).unwrap();
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
