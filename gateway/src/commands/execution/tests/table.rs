//! The table: seats, answers through the front end's trait, and what is remembered.

use std::sync::Arc;

use tokio::time::{Duration, timeout};

use super::messages::{DEVICE, command, received, timing, voice};
use crate::commands::contract::{
    Command, Completion, Defaults, Letter, Limits, Phase, Record, Records, record_key,
};
use crate::commands::execution::table::Said;
use crate::commands::execution::{Arrival, Event, Seat, Standing, Step, Table};
use crate::commands::message::{Body, Disposition, LockToken};
use crate::mqtt::{Durable, Taken};
use crate::outbox::{Encoded, StateOps};

const NOW_MS: u64 = 1_790_000_000_000;
const LIMITS: Limits = Limits { kept_ms: 1 << 31, count_max: 1000 };

fn table() -> Table {
    Table::new(voice(), timing(), Records::new(LIMITS))
}

fn arrival() -> Arrival {
    Arrival { lock: LockToken([1; 16]), message: Ok(command(&received(1, Completion::Answered))) }
}

/// What the device says to a command; what is put down is counted.
fn say(table: &Table, id: &str, payload: &str) -> (Taken, u32, usize) {
    let (mut entries, mut state) = (Encoded::default(), StateOps::default());
    let said = Said { id, payload: payload.as_bytes(), now_ms: NOW_MS };
    let taken = table.heed(DEVICE, said, &mut entries, &mut state);
    (taken, entries.count(), state.len())
}

fn written(taken: Taken) -> Arc<dyn Durable> {
    match taken {
        Taken::Here(Some(durable)) => durable,
        other => panic!("{other:?}"),
    }
}

/// A device up to where its answer is waited for.
fn waiting(table: &Table) -> Seat {
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(arrival(), None, NOW_MS);
    assert_eq!(seat.commit(NOW_MS, |entries, state| (entries.count(), state.len())), Some((0, 1)));
    seat.on(Event::Committed(true), NOW_MS);
    assert!(matches!(seat.step(NOW_MS), Step::Publish { .. }));
    seat.on(Event::Acknowledged, NOW_MS);
    assert_eq!(seat.commit(NOW_MS, |entries, state| (entries.count(), state.len())), Some((1, 1)));
    seat.on(Event::Committed(true), NOW_MS);
    seat
}

fn phase(table: &Table) -> Option<Phase> {
    table.record(DEVICE).map(|record| record.phase)
}

/// A message of which nothing can be told, as the AMQP layer hands it over.
fn undecodable(lock: u8) -> Arrival {
    let mut received = received(0, Completion::Delivered);
    received.lock = LockToken([lock; 16]);
    (received.enqueued_ms, received.message_id, received.session_id) = (0, None, None);
    received.properties.clear();
    received.body = Body::Other("a message that is not AMQP");
    let defaults = Defaults { completion: Completion::Delivered, tenant: None };
    let poison = Command::read(&received, "commands", &defaults).expect_err("no command");
    Arrival { lock: received.lock, message: Err(Arc::from(poison)) }
}

/// How many events and which key of a record a commit puts down.
fn committed(seat: &Seat) -> Option<(u32, Vec<u8>)> {
    seat.commit(NOW_MS, |entries, state| {
        let key = state.changes().into_iter().next().map(|(key, _)| key).unwrap_or_default();
        (entries.count(), key)
    })
}

#[test]
fn what_cannot_be_decoded_belongs_to_the_device_of_its_session() {
    let table = table();
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(undecodable(1), None, NOW_MS);
    assert_eq!(committed(&seat), Some((1, record_key(DEVICE))));
    // The write may be there all the same, and whoever looks finds it.
    seat.on(Event::Committed(false), NOW_MS);
    assert_eq!(seat.step(NOW_MS), Step::Wait { until_ms: None });
    table.look_at(DEVICE, || Ok(None)).expect("a store");
    assert_eq!(committed(&seat), Some((1, record_key(DEVICE))), "it was not there");
    seat.on(Event::Committed(true), NOW_MS);
    assert!(matches!(seat.step(NOW_MS), Step::Settle { .. }));
}

#[test]
fn each_message_that_cannot_be_decoded_has_a_final_event_of_its_own() {
    let table = table();
    let seat = table.seat(DEVICE).expect("a free seat");
    for lock in 1..=3 {
        seat.received(undecodable(lock), None, NOW_MS);
        assert_eq!(seat.step(NOW_MS), Step::Commit, "{lock}");
        assert!(committed(&seat).is_some_and(|(events, _)| events == 1));
        seat.on(Event::Committed(true), NOW_MS);
        assert!(matches!(
            seat.step(NOW_MS),
            Step::Settle { disposition: Disposition::DeadLetter { .. }, .. }
        ));
        seat.on(Event::Settled, NOW_MS);
    }
}

#[test]
fn a_device_has_one_driver_at_a_time() {
    let table = table();
    let seat = table.seat(DEVICE).expect("a free seat");
    assert!(table.seat(DEVICE).is_none() && table.seat("other").is_some());
    drop(seat);
    assert!(table.seat(DEVICE).is_some());
    assert_eq!(table.active(), 0, "nothing is kept that nobody needs");
}

#[tokio::test]
async fn an_answer_moves_the_execution_and_wakes_its_driver() {
    let table = table();
    let seat = waiting(&table);
    assert_eq!(seat.standing(), Some(("c-1".to_owned(), "delivered")));
    let (taken, events, changes) = say(&table, "c-1", r#"{"status":"succeeded"}"#);
    assert_eq!((events, changes), (1, 1));
    timeout(Duration::from_secs(5), seat.moved()).await.expect("it is told");
    assert_eq!(seat.step(NOW_MS), Step::Wait { until_ms: None }, "not before it is durable");
    written(taken).settled(true);
    timeout(Duration::from_secs(5), seat.moved()).await.expect("it is told");
    assert!(matches!(seat.step(NOW_MS), Step::Settle { disposition: Disposition::Complete, .. }));
    assert_eq!(phase(&table), Some(Phase::Done(Disposition::Complete)));
    assert_eq!(table.remembered(), 1);
}

#[test]
fn answers_that_belong_to_nothing_are_left_to_others() {
    let table = table();
    let check = |id: &str, payload: &str| say(&table, id, payload);
    assert!(matches!(check("c-1", r#"{"status":"succeeded"}"#), (Taken::Unknown, 0, 0)));
    let _seat = waiting(&table);
    assert!(matches!(check("c-2", r#"{"status":"succeeded"}"#), (Taken::Unknown, 0, 0)));
    assert!(matches!(check("c-1", "junk"), (Taken::Malformed, 0, 0)));
}

#[test]
fn an_answer_to_a_device_that_nobody_drives_is_kept_with_its_record() {
    let table = table();
    drop(waiting(&table));
    assert_eq!(table.active(), 0);
    let (taken, events, changes) = say(&table, "c-1", r#"{"status":"failed","code":4}"#);
    assert_eq!((events, changes, table.active()), (0, 1, 1));
    written(taken).settled(true);
    assert!(matches!(phase(&table), Some(Phase::Answered(_))));
    assert_eq!(table.active(), 0);
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(arrival(), None, NOW_MS);
    assert_eq!(seat.step(NOW_MS), Step::Commit, "its final event");
}

#[test]
fn an_answer_whose_write_nobody_heard_of_is_in_doubt() {
    let table = table();
    let seat = waiting(&table);
    let (taken, ..) = say(&table, "c-1", r#"{"status":"succeeded"}"#);
    drop(taken);
    assert_eq!(seat.step(NOW_MS), Step::Wait { until_ms: None });
    // The store says that it is not there: then it is written again.
    let stored = table.record(DEVICE);
    table.look_at(DEVICE, || Ok(stored)).expect("a store");
    assert_eq!(seat.step(NOW_MS), Step::Commit);
    assert_eq!(seat.commit(NOW_MS, |entries, _| entries.count()), Some(1));
}

#[test]
fn a_driver_that_ends_in_the_middle_of_a_write_leaves_a_doubt() {
    let table = table();
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(arrival(), None, NOW_MS);
    assert!(seat.commit(NOW_MS, |_, _| ()).is_some());
    drop(seat);
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(arrival(), None, NOW_MS);
    assert_eq!(seat.step(NOW_MS), Step::Wait { until_ms: None });
    let identity = command(&received(1, Completion::Answered)).about.identity.clone();
    let stored = Record {
        identity,
        completion: Completion::Answered,
        phase: Phase::Started,
        at_ms: NOW_MS,
        ending: None,
    };
    table.look_at(DEVICE, || Ok(Some(stored))).expect("a store");
    assert!(matches!(seat.step(NOW_MS), Step::Publish { redelivered: true, .. }), "it was there");
}

#[test]
fn what_another_replica_did_is_done() {
    let table = table();
    let identity = command(&received(1, Completion::Answered)).about.identity.clone();
    let phase = Phase::Done(Disposition::Complete);
    let remote = Record { identity, completion: Completion::Answered, phase, at_ms: NOW_MS, ending: None };
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(
        arrival(),
        Record::from_session_state(&remote.session_state().expect("it is done")),
        NOW_MS,
    );
    assert!(matches!(seat.step(NOW_MS), Step::Settle { disposition: Disposition::Complete, .. }));
}

#[test]
fn pruning_leaves_out_whoever_is_active() {
    let table = table();
    let seat = waiting(&table);
    let much_later = NOW_MS + (1 << 40);
    table.prune(much_later, |_| panic!("nothing is to be deleted"));
    drop(seat);
    let mut deleted = 0;
    table.prune(much_later, |ops| deleted = ops.len());
    assert_eq!((deleted, table.remembered()), (1, 0));
}

/// The command of [`arrival`] in the dead-letter queue.
fn letter() -> Letter {
    Letter::read(&received(1, Completion::Answered), "commands", None)
}

/// Has the end of the letter put down; how many events and changes that are.
fn bury(table: &Table, now_ms: u64) -> Option<(Seat, (u32, usize))> {
    let buried = table.bury(&letter(), now_ms, |entries, state| (entries.count(), state.len()));
    buried.map(|(seat, _, put_down)| (seat, put_down))
}

#[test]
fn a_dead_letter_stands_as_its_command_does() {
    let table = table();
    let standing = |now_ms| table.standing(&letter(), now_ms);
    assert_eq!(standing(NOW_MS), Standing::Unknown);
    let seat = table.seat(DEVICE).expect("a free seat");
    seat.received(arrival(), None, NOW_MS);
    assert_eq!(standing(NOW_MS), Standing::Open, "nothing of it is written yet");
    drop(seat);
    let seat = waiting(&table);
    assert_eq!(standing(u64::MAX), Standing::Open, "in flight, whatever the time");
    drop(seat);
    let deadline_ms = match phase(&table) {
        Some(Phase::Delivered { deadline_ms }) => deadline_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!((standing(deadline_ms - 1), standing(deadline_ms)), (Standing::Open, Standing::Left));
    assert!(bury(&table, deadline_ms - 1).is_none(), "its answer may come");
    assert_eq!(table.active(), 0);
}

#[test]
fn a_command_that_is_buried_is_done_and_late_answers_change_nothing() {
    let table = table();
    drop(waiting(&table));
    let (seat, put_down) = bury(&table, u64::MAX).expect("nobody goes on with it");
    assert_eq!(put_down, (1, 1));
    assert!(bury(&table, u64::MAX).is_none(), "once");
    let (taken, events, _) = say(&table, "c-1", r#"{"status":"succeeded"}"#);
    assert!(matches!(taken, Taken::Here(None)) && events == 0, "its end is written already");
    seat.on(Event::Committed(true), NOW_MS);
    drop(seat);
    assert_eq!(phase(&table), Some(Phase::Done(Disposition::Complete)));
    assert_eq!(table.standing(&letter(), u64::MAX), Standing::Ended);
    assert!(matches!(say(&table, "c-1", r#"{"status":"succeeded"}"#), (Taken::Here(None), 0, 0)));
}

#[test]
fn an_end_whose_write_failed_is_looked_up_before_anything_else() {
    let table = table();
    drop(waiting(&table));
    let (seat, _) = bury(&table, u64::MAX).expect("nobody goes on with it");
    seat.on(Event::Committed(false), NOW_MS);
    drop(seat);
    assert_eq!(table.standing(&letter(), u64::MAX), Standing::Open);
    // It is not there: it is written again.
    let stored = table.record(DEVICE);
    table.look_at(DEVICE, || Ok(stored)).expect("a store");
    assert_eq!(table.standing(&letter(), u64::MAX), Standing::Left);
}
