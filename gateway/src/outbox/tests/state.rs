//! State of the front end: durable with its entries, written in time without them, kept through damage.

use super::super::OnMissingRange;
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
    let reports = reports(directory.path());
    assert!(
        reports.len() == 1 && reports[0].contains("sessions, queued and retained messages"),
        "{reports:?}"
    );
}

/// The reports of all incidents.
fn reports(directory: &Path) -> Vec<String> {
    let Ok(folders) = std::fs::read_dir(directory.join("quarantine")) else { return Vec::new() };
    let report = |folder: std::fs::DirEntry| std::fs::read_to_string(folder.path().join("incident.json"));
    folders.flatten().map(|folder| report(folder).expect("a report")).collect()
}

fn with_damaged_state(from: &str, to: &str) -> (Arc<TempDir>, Memory) {
    let running = Running::new();
    let state: Vec<String> = (10..20).map(|n| n.to_string()).collect();
    let state: Vec<_> = state.iter().map(|key| (key.as_str(), Some("v"))).collect();
    let ticket = submit_both(&running, &running.done, "a", &changes(&state));
    wait_durable(&running.done, ticket).unwrap();
    running.close();
    running.memory.damage_state(from.as_bytes(), to.as_bytes());
    (Arc::clone(&running.directory), running.memory.clone())
}

#[test]
fn what_can_be_read_of_damaged_state_is_kept_and_the_rest_is_named() {
    for (from, to, kept) in [("13", "15", 7), ("10", "12", 7), ("17", "19", 7), ("10", "19", 0)] {
        let (directory, memory) = with_damaged_state(from, to);
        let running = Running::again(Arc::clone(&directory), memory, |_| {}).expect("it opens");
        let found = state_of(&running.outbox, "");
        assert_eq!(found.len(), kept, "{found:?}");
        assert!(found.iter().all(|(key, _)| key.as_str() < from || key.as_str() > to), "{found:?}");
        assert_eq!(
            read(&mut running.consumer(Lane::Telemetry)),
            expected(1, &["a"]),
            "entries are not touched"
        );
        let reports = reports(directory.path());
        assert_eq!(reports.len(), 1);
        let (cause, said) = ("\"cause\": \"damaged-state\"", format!("{kept} keys were kept"));
        assert!(reports[0].contains(cause) && reports[0].contains(&said), "{reports:?}");
        let ticket = submit_state(&running, &changes(&[("new", Some("1"))]), Urgency::Prompt);
        wait_durable(&running.done, ticket).unwrap();
        let running = running.restarted();
        assert_eq!(state_of(&running.outbox, "").len(), kept + 1);
        assert_eq!(
            super::super::incident::count(&directory.path().join("quarantine")).total,
            1,
            "it is said once"
        );
    }
}

#[test]
fn damaged_state_is_refused_if_that_is_wanted() {
    let (directory, memory) = with_damaged_state("13", "15");
    let refuse = |config: &mut Config| config.on_missing_range = OnMissingRange::Refuse;
    let error = Running::again(directory, memory, refuse).map(|_| ()).expect_err("refused");
    assert!(matches!(error, OpenError::Store { .. }), "{error}");
}

/// The database's table files of `state`, whatever it is called.
fn state_tables(directory: &Path) -> Vec<std::path::PathBuf> {
    let database = directory.join("database");
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &database).unwrap();
    let db = rocksdb::DB::open_cf_for_read_only(&options, &database, families, false).unwrap();
    let tables = db.live_files().unwrap().into_iter();
    let of_state = tables.filter(|table| table.column_family_name.starts_with("state"));
    of_state.map(|table| database.join(table.name.trim_start_matches('/'))).collect()
}

#[test]
fn rocks_goes_on_without_a_bad_block_of_state() {
    const KEYS: usize = 3000;
    let directory = tempfile::tempdir().unwrap();
    let outbox = open_rocks(directory.path()).unwrap();
    let (done, mut state) = (Arc::default(), StateOps::default());
    (0..KEYS).for_each(|n| state.put(format!("{n:06}").as_bytes(), &[b'v'; 100]));
    let ticket = outbox.appender().submit_state(&state, Urgency::Prompt, &done);
    wait_durable(&done, ticket).unwrap();
    close(&outbox);
    // Another start brings what is in the log to a file.
    close(&open_rocks(directory.path()).unwrap());
    let tables = state_tables(directory.path());
    assert_eq!(tables.len(), 1);
    let mut bytes = std::fs::read(&tables[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&tables[0], bytes).unwrap();
    for start in 1..=3 {
        let outbox = open_rocks(directory.path()).expect("it opens");
        let kept = state_of(&outbox, "").len();
        assert!((KEYS / 2..KEYS).contains(&kept), "start {start}: {kept}");
        let (done, state) = (Arc::default(), changes(&[("x", Some("y"))]));
        let ticket = outbox.appender().submit_state(&state, Urgency::Prompt, &done);
        wait_durable(&done, ticket).unwrap();
        close(&outbox);
        let reports = reports(directory.path());
        assert!(reports.len() == 1 && reports[0].contains("damaged-state"), "start {start}: {reports:?}");
    }
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
