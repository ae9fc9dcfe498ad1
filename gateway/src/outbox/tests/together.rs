//! Commits with outputs: progress and entries are there together or not at all.

use super::super::keys::{MetaKey, Progress};
use super::super::store::Store as _;
use super::super::{Refused, housekeeping};
use super::memory::Fault;
use super::*;

/// Progress as the store has it.
fn stored(running: &Running, lane: Lane) -> Option<(u64, Vec<u8>)> {
    let key = MetaKey::Progress(lane, "uplink".to_owned());
    let progress = Progress::decode(&running.memory.meta(&key).unwrap()?).expect("well formed");
    Some((progress.low.0, progress.state))
}

fn wait_open(running: &Running, epoch: u32) {
    wait_until(&running.outbox, "the outbox to come back", || {
        running.outbox.epoch().0 == epoch && running.outbox.status().poisoned.is_none()
    });
}

fn with_telemetry(payloads: &[&str]) -> (Running, Consumer) {
    let running = Running::new();
    for payload in payloads {
        running.append(Lane::Telemetry, &[payload]).unwrap();
    }
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    (running, consumer)
}

#[test]
fn progress_and_outputs_of_several_lanes_are_durable_with_the_ticket() {
    let (running, mut consumer) = with_telemetry(&["a", "b"]);
    let mut outputs = encoded(Lane::Dead, &["refused"]);
    outputs.push(&entry(Lane::Status, "said"));
    let ticket = consumer.commit_with(Seq(2), b"one".to_vec(), &outputs, &running.done).unwrap();
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(consumer.progress(), (Seq(2), b"one".as_slice()));
    assert_eq!(running.outbox.status().lanes[Lane::Telemetry.index()].low, Seq(2));
    assert_eq!(running.outbox.status().queue_bytes, 0);
    drop(consumer);
    let memory = running.memory.clone();
    // What a power cut leaves now.
    memory.die();
    close(&running.outbox);
    memory.revive_after_power_cut_if(true);
    let running = Running::again(Arc::clone(&running.directory), memory, |_| {}).unwrap();
    assert_eq!(running.consumer(Lane::Telemetry).progress(), (Seq(2), b"one".as_slice()));
    assert_eq!(running.memory.firsts(Lane::Dead), [1]);
    assert_eq!(read(&mut running.consumer(Lane::Status)), expected(1, &["said"]));
}

#[test]
fn without_outputs_it_is_a_durable_commit() {
    let (running, mut consumer) = with_telemetry(&["a"]);
    let ticket = consumer.commit_with(Seq(2), vec![7], &Encoded::default(), &running.done).unwrap();
    assert_eq!(running.done.wait(ticket, clock::now() + PATIENCE), Some(Ok(())));
    assert_eq!(stored(&running, Lane::Telemetry), Some((2, vec![7])));
    drop(consumer);
    running.memory.die();
    close(&running.outbox);
    running.memory.revive_after_power_cut_if(true);
    assert_eq!(stored(&running, Lane::Telemetry), Some((2, vec![7])), "it was synced");
}

#[test]
fn neither_is_there_after_a_failed_write_and_trying_again_brings_both_once() {
    let (running, mut consumer) = with_telemetry(&["a", "b", "c"]);
    consumer.commit(Seq(2), vec![1]);
    wait_until(&running.outbox, "progress", || stored(&running, Lane::Telemetry) == Some((2, vec![1])));
    running.memory.fail_writes(&[Fault::Lost]);
    let outputs = encoded(Lane::Status, &["x"]);
    let ticket = consumer.commit_with(Seq(3), vec![2], &outputs, &running.done).unwrap();
    wait_open(&running, 2);
    // It builds on what failed, without having heard of it.
    let done = Arc::default();
    for done in [&done, &running.done] {
        let unheard = consumer.commit_with(Seq(4), vec![3], &outputs, done);
        assert_eq!(unheard, Err(Refused::Poisoned));
    }
    consumer.commit(Seq(4), vec![3]);
    running.append_alerts();
    assert_eq!(stored(&running, Lane::Telemetry), Some((2, vec![1])));
    assert_eq!(consumer.progress(), (Seq(2), [1].as_slice()));
    assert_eq!(running.memory.firsts(Lane::Status), [] as [u64; 0]);

    assert_eq!(wait_durable(&running.done, ticket), Err(CommitFailed));
    let again = consumer.commit_with(Seq(3), vec![2], &outputs, &running.done);
    assert_eq!(again, Err(Refused::Poisoned), "a completion that failed can tell nothing any more");
    let ticket = consumer.commit_with(Seq(3), vec![2], &outputs, &done).unwrap();
    consumer.commit(Seq(4), vec![3]);
    wait_durable(&done, ticket).unwrap();
    assert_eq!(read(&mut running.consumer(Lane::Status)), expected(1, &["x"]));
    wait_until(&running.outbox, "what came later", || {
        stored(&running, Lane::Telemetry) == Some((4, vec![3]))
    });
    running.close();
}

#[test]
fn who_has_heard_of_a_failure_goes_on_without_it() {
    let (running, mut consumer) = with_telemetry(&["a", "b", "c"]);
    running.memory.fail_writes(&[Fault::Lost]);
    let ticket = consumer.commit_with(Seq(3), vec![2], &Encoded::default(), &running.done).unwrap();
    assert_eq!(wait_durable(&running.done, ticket), Err(CommitFailed));
    consumer.commit(Seq(2), vec![1]);
    assert_eq!(consumer.progress(), (Seq(2), [1].as_slice()));
    wait_until(&running.outbox, "progress", || stored(&running, Lane::Telemetry) == Some((2, vec![1])));
}

#[test]
fn a_write_that_failed_and_is_there_counts_once_the_store_says_so() {
    let (running, mut consumer) = with_telemetry(&["a", "b", "c"]);
    // With outputs and without, and with another one behind it that was never written.
    for (epoch, outputs) in [(2, encoded(Lane::Status, &["x"])), (3, Encoded::default())] {
        let low = Seq(u64::from(epoch));
        running.memory.fail_opens(1);
        running.memory.fail_writes(&[Fault::Kept]);
        let done = Arc::default();
        let ticket = consumer.commit_with(low, vec![1], &outputs, &done).unwrap();
        consumer.commit(low, vec![2]);
        assert_eq!(wait_durable(&done, ticket), Ok(()));
        wait_open(&running, epoch);
        let later = || stored(&running, Lane::Telemetry) == Some((low.0, vec![2]));
        wait_until(&running.outbox, "what came later", later);
    }
    assert_eq!(read(&mut running.consumer(Lane::Status)), expected(1, &["x"]), "once");
    let done = Arc::default();
    let ticket = consumer.commit_with(Seq(4), vec![3], &encoded(Lane::Status, &["y"]), &done).unwrap();
    wait_durable(&done, ticket).unwrap();
    assert_eq!(running.memory.firsts(Lane::Status), [1, 2]);
    running.close();
}

#[test]
fn an_outbox_that_does_not_come_back_fails_what_was_undecided() {
    let (running, mut consumer) = with_telemetry(&["a"]);
    running.memory.fail_opens(u32::MAX);
    running.memory.fail_writes(&[Fault::Lost]);
    let ticket = consumer.commit_with(Seq(2), vec![2], &Encoded::default(), &running.done).unwrap();
    wait_until(&running.outbox, "poison", || running.outbox.status().poisoned.is_some());
    assert_eq!(running.done.wait(ticket, clock::now()), None, "nobody knows yet");
    close(&running.outbox);
    assert_eq!(wait_durable(&running.done, ticket), Err(CommitFailed));
}

#[test]
fn one_that_failed_can_be_given_up() {
    let (running, mut consumer) = with_telemetry(&["a", "b"]);
    running.memory.fail_writes(&[Fault::Lost]);
    consumer.commit_with(Seq(3), vec![2], &Encoded::default(), &running.done).unwrap();
    wait_open(&running, 2);
    consumer.rewind();
    assert_eq!(consumer.progress().0, Seq(1));
    assert_eq!(read(&mut consumer), expected(1, &["a", "b"]));
    consumer.commit(Seq(2), vec![9]);
    wait_until(&running.outbox, "progress", || stored(&running, Lane::Telemetry) == Some((2, vec![9])));
}

/// The committer is held up by the floor, so that everything lies in the arena at once.
#[test]
fn progress_waits_for_the_outputs_that_were_committed_before_it() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["a", "b", "c", "d"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    consumer.commit(Seq(2), vec![1]);
    let first = consumer.commit_with(Seq(3), vec![2], &encoded(Lane::Status, &["x"]), &running.done).unwrap();
    consumer.commit(Seq(4), vec![3]);
    // The timer writes what may be written, as the end of a tick of the housekeeper would show.
    running.outbox.shared().queue.set_timer(clock::now());
    housekeeping::everything(running.outbox.shared());
    assert_eq!(stored(&running, Lane::Telemetry).map(|(low, _)| low), None);
    let second =
        consumer.commit_with(Seq(5), vec![4], &encoded(Lane::Alerts, &["y"]), &running.done).unwrap();
    assert!(second > first);
    wait_durable(&running.done, second).unwrap();
    assert_eq!(stored(&running, Lane::Telemetry), Some((5, vec![4])), "one group, the last word");
    assert_eq!(running.memory.firsts(Lane::Status), [1]);
    drop(consumer);
    close(&running.outbox);
}

#[test]
fn a_name_is_not_free_while_something_of_its_consumer_is_on_its_way() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["a"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    let ticket = consumer.commit_with(Seq(2), vec![1], &Encoded::default(), &running.done).unwrap();
    drop(consumer);
    assert!(running.outbox.consumer("uplink", Lane::Telemetry).is_err());
    running.append(Lane::Alerts, &["alerts never wait"]).unwrap();
    wait_durable(&running.done, ticket).unwrap();
    assert_eq!(running.consumer(Lane::Telemetry).progress(), (Seq(2), [1].as_slice()));
}

#[test]
fn what_is_on_its_way_at_the_end_is_written() {
    let running = Running::with(|config| config.commit_floor = Duration::from_secs(3600));
    running.append(Lane::Telemetry, &["a", "b"]).unwrap();
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    let ticket = consumer.commit_with(Seq(2), vec![1], &Encoded::default(), &running.done).unwrap();
    consumer.commit(Seq(3), vec![2]);
    close(&running.outbox);
    assert_eq!(running.done.durable(), ticket);
    assert_eq!(stored(&running, Lane::Telemetry), Some((3, vec![2])));
    let late = consumer.commit_with(Seq(3), vec![3], &Encoded::default(), &running.done);
    assert_eq!(late, Err(Refused::Closed));
}

#[test]
fn dead_letters_pass_a_full_quota() {
    let running = Running::with(|config| config.bytes_max = 2000);
    while let Ok(permit) = running.outbox.appender().reserve(Lane::Telemetry, 200) {
        let entries = encoded(Lane::Telemetry, &["x"]);
        let ticket = running.outbox.appender().submit(permit, &entries, &StateOps::default(), &running.done);
        wait_durable(&running.done, ticket).unwrap();
    }
    let mut consumer = running.consumer(Lane::Telemetry);
    read(&mut consumer);
    let big = "d".repeat(5000);
    let outputs = encoded(Lane::Dead, &[&big]);
    let ticket = consumer.commit_with(Seq(2), Vec::new(), &outputs, &running.done).unwrap();
    wait_durable(&running.done, ticket).unwrap();
    assert!(running.outbox.status().lanes[Lane::Dead.index()].backlog_bytes > 5000, "it counts all the same");
    let back = encoded(Lane::Telemetry, &["x"]);
    let refused = consumer.commit_with(Seq(3), Vec::new(), &back, &running.done);
    assert_eq!(refused, Err(Refused::Quota), "what is no dead letter does not pass");
    assert_eq!(consumer.progress().0, Seq(2), "and then nothing has changed");
    assert_eq!(running.outbox.status().queue_bytes, 0);
}

impl Running {
    /// A group of its own, so that whatever may ride one has been written.
    fn append_alerts(&self) {
        append(&self.outbox, &Arc::default(), Lane::Alerts, &["a group"]).unwrap();
    }
}

#[test]
fn changes_of_state_are_there_exactly_where_the_progress_is() {
    for (fault, kept) in [(Fault::Lost, false), (Fault::Kept, true)] {
        let (running, mut consumer) = with_telemetry(&["a", "b"]);
        let (outputs, change) = (encoded(Lane::Alerts, &["x"]), changes(&[("k", Some("1"))]));
        running.memory.fail_writes(&[fault]);
        let ticket = consumer.commit_all(Seq(3), vec![1], (&outputs, &change), &running.done).unwrap();
        let told = wait_durable(&running.done, ticket);
        assert_eq!(told.is_ok(), kept);
        wait_open(&running, 2);
        let (there, progress) = (state_of(&running.outbox, "k"), stored(&running, Lane::Telemetry));
        let expected = kept.then(|| ("k".to_owned(), "1".to_owned()));
        assert_eq!((there, progress == Some((3, vec![1]))), (expected.into_iter().collect(), kept));
        assert_eq!(running.outbox.status().queue_bytes, 0, "and the queue is counted out");
        running.close();
    }
}

#[test]
fn changes_of_state_alone_go_with_the_progress_and_pass_a_full_quota() {
    let (running, mut consumer) = with_telemetry(&["a", "b"]);
    let change = changes(&[("k", Some("1"))]);
    let ticket = consumer.commit_all(Seq(2), vec![1], (&Encoded::default(), &change), &running.done).unwrap();
    wait_durable(&running.done, ticket).unwrap();
    drop(consumer);
    running.memory.die();
    close(&running.outbox);
    running.memory.revive_after_power_cut_if(true);
    let running = Running::again(Arc::clone(&running.directory), running.memory.clone(), |_| {}).unwrap();
    assert_eq!(state_of(&running.outbox, "k"), [("k".to_owned(), "1".to_owned())]);
    assert_eq!(running.consumer(Lane::Telemetry).progress(), (Seq(2), [1].as_slice()));
}
