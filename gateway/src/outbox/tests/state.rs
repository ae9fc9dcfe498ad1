//! State of the front end: durable with its entries, written in time without them, kept through damage.

use super::super::error::Error;
use super::super::record::Encoded;
use super::super::state::StateSize;
use super::memory::Fault;
use super::*;

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Submits an entry of telemetry with changes of state.
fn submit_both(running: &Running, done: &Arc<Completion>, payload: &str, state: &StateOps) -> Ticket {
    let entries = encoded(Lane::Telemetry, &[payload]);
    let appender = running.outbox.appender();
    let permit = appender.reserve(Lane::Telemetry, entries.bytes()).expect("there is room");
    appender.submit(permit, &entries, state, done)
}

fn submit_state(running: &Running, state: &StateOps, urgency: Urgency) -> Ticket {
    running.outbox.appender().submit_state(state, urgency, &running.done)
}

/// Kills the process; with `power_cut`, what was not synced is gone.
fn killed(running: Running, power_cut: bool) -> Running {
    running.memory.die();
    close(&running.outbox);
    running.memory.revive_after_power_cut_if(power_cut);
    let (directory, memory) = (Arc::clone(&running.directory), running.memory.clone());
    drop(running);
    Running::again(directory, memory, |_| {}).expect("nothing is missing")
}

#[test]
fn state_and_entries_of_a_submission_are_durable_with_its_ticket() {
    let running = Running::new();
    let ticket = submit_both(&running, &running.done, "a", &changes(&[("k1", Some("1")), ("k2", Some("2"))]));
    wait_durable(&running.done, ticket).unwrap();
    let ticket = submit_both(&running, &running.done, "b", &changes(&[("k1", None), ("k3", Some("3"))]));
    wait_durable(&running.done, ticket).unwrap();
    let running = killed(running, true);
    assert_eq!(state_of(&running.outbox, "k"), pairs(&[("k2", "2"), ("k3", "3")]));
    assert_eq!(read(&mut running.consumer(Lane::Telemetry)), expected(1, &["a", "b"]));
}

#[test]
fn the_last_change_of_a_key_in_a_group_holds() {
    let running = Running::new();
    let state =
        changes(&[("k", Some("1")), ("k", None), ("k", Some("2")), ("gone", Some("x")), ("gone", None)]);
    let ticket = submit_state(&running, &state, Urgency::Prompt);
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(state_of(&running.outbox, ""), pairs(&[("k", "2")]));
}

#[test]
fn neither_is_there_after_a_failed_write_and_both_if_it_was_kept() {
    for (fault, kept) in [(Fault::Lost, false), (Fault::Kept, true)] {
        let running = Running::new();
        running.memory.fail_writes(&[fault]);
        let ticket = submit_both(&running, &running.done, "a", &changes(&[("k", Some("v"))]));
        assert_eq!(wait_durable(&running.done, ticket), Err(CommitFailed));
        wait_until(&running.outbox, "the outbox to come back", || running.outbox.epoch().0 == 2);
        wait_until(&running.outbox, "the outbox to be open", || running.outbox.status().poisoned.is_none());
        assert_eq!(state_of(&running.outbox, "k").len(), usize::from(kept));
        assert_eq!(read(&mut running.consumer(Lane::Telemetry)).len(), usize::from(kept));
        assert_eq!(running.outbox.status().queue_bytes, 0);
    }
}

#[test]
fn prompt_state_alone_is_synced() {
    let running = Running::new();
    let ticket = submit_state(&running, &changes(&[("k", Some("v"))]), Urgency::Prompt);
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(state_of(&killed(running, true).outbox, ""), pairs(&[("k", "v")]));
}

#[test]
fn relaxed_state_alone_is_written_in_time_but_not_synced() {
    for (power_cut, expected) in [(false, pairs(&[("k", "v")])), (true, Vec::new())] {
        let running = Running::new();
        let ticket = submit_state(&running, &changes(&[("k", Some("v"))]), Urgency::Relaxed);
        wait_durable(&running.done, ticket).unwrap();
        assert_eq!(running.outbox.status().queue_bytes, 0, "and counted out");
        assert_eq!(state_of(&killed(running, power_cut).outbox, ""), expected, "power cut: {power_cut}");
    }
}

#[test]
fn relaxed_state_rides_the_group_of_an_entry() {
    let running = Running::new();
    submit_state(&running, &changes(&[("k", Some("v"))]), Urgency::Relaxed);
    let ticket = submit_both(&running, &running.done, "a", &StateOps::default());
    assert_eq!(ticket, Ticket(2), "tickets are consecutive over both ways to submit");
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(state_of(&killed(running, true).outbox, ""), pairs(&[("k", "v")]), "it is synced with it");
}

#[test]
fn a_close_leaves_no_state_behind() {
    let running = Running::new();
    submit_state(&running, &changes(&[("k", Some("v"))]), Urgency::Relaxed);
    close(&running.outbox);
    assert!(matches!(
        running.outbox.appender().state().scan(b"", &mut |_, _| ControlFlow::Continue(())),
        Err(Error::Closed)
    ));
    assert_eq!(state_of(&killed(running, true).outbox, ""), pairs(&[("k", "v")]));
}

#[test]
fn without_changes_nothing_is_submitted() {
    let running = Running::new();
    let appender = running.outbox.appender();
    assert_eq!(submit_state(&running, &StateOps::default(), Urgency::Prompt), Ticket(0));
    let permit = appender.reserve(Lane::Telemetry, 10).unwrap();
    assert_eq!(appender.submit(permit, &Encoded::default(), &StateOps::default(), &running.done), Ticket(0));
    let permit = appender.reserve(Lane::Telemetry, 10).unwrap();
    let ticket = appender.submit(permit, &Encoded::default(), &changes(&[("k", Some("v"))]), &running.done);
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(running.outbox.status().queue_bytes, 0);
}

#[test]
fn state_is_counted_to_the_queue_and_fails_when_nothing_is_taken_in() {
    let running = Running::new();
    running.memory.fail_writes(&[Fault::Lost]);
    running.memory.fail_opens(u32::MAX);
    let before = Arc::default();
    let ticket = submit_both(&running, &before, "a", &StateOps::default());
    assert_eq!(wait_durable(&before, ticket), Err(CommitFailed));
    for urgency in [Urgency::Relaxed, Urgency::Prompt] {
        let done = Arc::default();
        let ticket = running.outbox.appender().submit_state(&changes(&[("k", Some("v"))]), urgency, &done);
        assert_eq!(wait_durable(&done, ticket), Err(CommitFailed));
    }
    assert_eq!(running.outbox.status().queue_bytes, 0);
    running.memory.fail_opens(0);
}

#[test]
fn what_the_database_gave_up_comes_back_from_the_set_aside_log() {
    let running = Running::new();
    for (payload, state) in
        [("a", changes(&[("old", Some("1"))])), ("b", changes(&[("new", Some("2")), ("old", None)]))]
    {
        let ticket = submit_both(&running, &running.done, payload, &state);
        wait_durable(&running.done, ticket).unwrap();
    }
    running.close();
    let (directory, memory) = (Arc::clone(&running.directory), running.memory.clone());
    drop(running);
    memory.keep_for_salvage();
    memory.lose_tail(Lane::Telemetry, 1);
    memory.lose_state(b"old", b"1");
    let running = Running::again(directory, memory, |_| {}).expect("it goes on");
    assert_eq!(state_of(&running.outbox, ""), pairs(&[("new", "2")]));
    assert_eq!(running.outbox.status().incidents, 0, "everything could be read after all");
}

#[test]
fn state_that_is_lost_with_the_log_is_named_in_the_report() {
    let running = Running::new();
    let ticket = submit_both(&running, &running.done, "a", &changes(&[("k", Some("1"))]));
    wait_durable(&running.done, ticket).unwrap();
    running.close();
    let (directory, memory) = (Arc::clone(&running.directory), running.memory.clone());
    drop(running);
    memory.lose_salvage();
    memory.lose_tail(Lane::Telemetry, 1);
    let running = Running::again(Arc::clone(&directory), memory, |_| {}).expect("it goes on");
    assert_eq!(state_of(&running.outbox, ""), pairs(&[("k", "1")]), "what can be read is kept");
    let reports = std::fs::read_dir(directory.path().join("quarantine")).unwrap().flatten();
    let reports: Vec<String> =
        reports.map(|folder| std::fs::read_to_string(folder.path().join("incident.json")).unwrap()).collect();
    assert!(
        reports.len() == 1 && reports[0].contains("sessions, queued and retained messages"),
        "{reports:?}"
    );
}

#[test]
fn rocks_keeps_state_by_prefix_in_order_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = open_rocks(directory.path()).unwrap();
    let done = Arc::default();
    let write = |state: &StateOps| {
        let ticket = outbox.appender().submit_state(state, Urgency::Prompt, &done);
        wait_durable(&done, ticket).unwrap();
    };
    write(&changes(&[("b2", Some("2")), ("a", Some("x")), ("b1", Some("1")), ("c", Some("y"))]));
    write(&changes(&[("b2", None), ("b3", Some("3")), ("b1", Some("one"))]));
    assert_eq!(state_of(&outbox, "b"), pairs(&[("b1", "one"), ("b3", "3")]));
    let mut first = Vec::new();
    let scanned = outbox.appender().state().scan(b"", &mut |key, _| {
        first.push(key.to_vec());
        ControlFlow::Break(())
    });
    assert_eq!((scanned, first), (Ok(()), vec![b"a".to_vec()]));
    close(&outbox);
    let outbox = open_rocks(directory.path()).unwrap();
    assert_eq!(state_of(&outbox, ""), pairs(&[("a", "x"), ("b1", "one"), ("b3", "3"), ("c", "y")]));
    let snapshot = super::super::offline::Snapshot::open(directory.path()).unwrap();
    assert_eq!(snapshot.state().unwrap(), StateSize { keys: 4, bytes: 12 });
    close(&outbox);
}
