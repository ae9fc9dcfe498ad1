//! The watcher against queues in memory with the real outbox, and against a Service Bus of ours.

mod ledger;
mod sim;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::Lane;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::source::Source;
use super::{Desk, Settings, Watcher};
use crate::commands::amqp::{Cause, LinkError};
use crate::commands::contract::{Completion, Identity, Limits, Phase, Record, Records, Voice, record_key};
use crate::commands::dispatch::{Entities, EntityTemplate, Traits};
use crate::commands::execution::{Table, Timing};
use crate::commands::message::{Body, Disposition, LockToken, Received, Value};
use crate::commands::{DeadLetterStatus, Handle};
use crate::outbox::{self, StateOps, Urgency};
use crate::supervise::{Phase as StopPhase, Supervisor, TaskKind, clock};

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);
const ENQUEUED_MS: u64 = 1_790_000_000_000;
const SETTINGS: Settings = Settings { interval: Duration::from_millis(5), remembered_max: 1000 };

/// Dead-letter queues in memory. Clones are the same.
#[derive(Debug, Clone, Default)]
struct Queues(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    letters: Mutex<BTreeMap<(String, i64), Received>>,
    failure: Mutex<Option<LinkError>>,
    /// Empty pages: each ends a look.
    looks: Mutex<u64>,
    looked: Notify,
}

impl Source for Queues {
    async fn peek(&self, entity: &str, from: i64, count: u32) -> Result<Vec<Received>, LinkError> {
        if let Some(error) = self.0.failure.lock().clone() {
            self.0.looked.notify_waiters();
            return Err(error);
        }
        let letters = self.0.letters.lock();
        let behind = letters.range((entity.to_owned(), from)..).filter(|((name, _), _)| name == entity);
        // Fewer than asked for, as a service may do.
        let most = usize::try_from(count).unwrap().min(3);
        let page: Vec<_> = behind.map(|(_, letter)| letter.clone()).take(most).collect();
        if page.is_empty() {
            *self.0.looks.lock() += 1;
            self.0.looked.notify_waiters();
        }
        Ok(page)
    }
}

impl Queues {
    fn bury(&self, entity: &str, letter: Received) {
        self.0.letters.lock().insert((entity.to_owned(), letter.sequence), letter);
    }

    fn take(&self, entity: &str, sequence: i64) {
        self.0.letters.lock().remove(&(entity.to_owned(), sequence));
    }

    fn fail(&self, error: Option<LinkError>) {
        *self.0.failure.lock() = error;
    }

    /// Waits until so many whole looks have begun and ended from now on.
    async fn looks(&self, count: u64) {
        // The one under way counts for nothing.
        let enough = *self.0.looks.lock() + count + 1;
        let waiting = async {
            loop {
                let looked = self.0.looked.notified();
                tokio::pin!(looked);
                looked.as_mut().enable();
                if *self.0.looks.lock() >= enough {
                    return;
                }
                looked.await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("it looks");
    }
}

/// The watcher at work.
struct Bench {
    queues: Queues,
    outbox: outbox::Handle,
    table: Table,
    handle: Handle,
    supervisor: Supervisor,
    folder: TempDir,
    entities: Arc<Entities>,
}

impl Bench {
    fn start(shards: u32, settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::open(folder, Queues::default(), shards, settings, &StateOps::default())
    }

    /// With something in the outbox's state.
    fn with_state(state: &StateOps) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::open(folder, Queues::default(), 1, SETTINGS, state)
    }

    /// Without a watcher.
    fn idle() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::prepare(folder, Queues::default(), 1, &StateOps::default())
    }

    fn open(folder: TempDir, queues: Queues, shards: u32, settings: Settings, state: &StateOps) -> Self {
        let bench = Self::prepare(folder, queues, shards, state);
        bench.watch(bench.queues.clone(), settings);
        bench
    }

    fn prepare(folder: TempDir, queues: Queues, shards: u32, state: &StateOps) -> Self {
        let supervisor = Supervisor::new();
        let outbox = open_outbox(&folder, &supervisor);
        let done = Arc::default();
        outbox.appender().submit_state(state, Urgency::Prompt, &done);
        if !state.is_empty() {
            done.wait(outbox::Ticket(1), clock::now() + DEADLINE).expect("in time").expect("durable");
        }
        let text = if shards == 1 { "commands" } else { "c-{shard}" };
        let template = EntityTemplate::parse(text).expect("a template");
        let entities = Arc::new(Entities::new(&template, &Traits::default(), &[], shards).expect("entities"));
        let (table, handle) = (table(&outbox), Handle::default());
        Self { queues, outbox, table, handle, supervisor, folder, entities }
    }

    fn watch(&self, source: impl Source, settings: Settings) {
        let desk = Desk {
            entities: Arc::clone(&self.entities),
            table: self.table.clone(),
            voice: voice(),
            outbox: self.outbox.clone(),
            handle: self.handle.clone(),
            settings,
        };
        let watcher = Watcher::new(source, desk, 7);
        self.supervisor.spawn(TaskKind::Commands, watcher.run(self.supervisor.clone()));
    }

    /// Stops and starts on the same directory and the same queues.
    async fn restart(self) -> Self {
        let bench = self.reopen().await;
        bench.watch(bench.queues.clone(), SETTINGS);
        bench
    }

    /// The same without a watcher.
    async fn reopen(self) -> Self {
        let Self { queues, outbox, folder, supervisor, table, entities, .. } = self;
        stop(&supervisor).await;
        let shards = u32::try_from(entities.len()).unwrap();
        drop(table);
        supervisor.enter(StopPhase::Close);
        assert!(outbox.close(clock::now() + DEADLINE), "closed");
        for kind in [TaskKind::Committer, TaskKind::Sidecar] {
            tokio::time::timeout(DEADLINE, supervisor.idle(kind)).await.expect("it ends");
        }
        drop(outbox);
        Self::prepare(folder, queues, shards, &StateOps::default())
    }

    /// The data of the events in the log, oldest first.
    fn events(&self) -> Vec<Json> {
        events(&self.outbox).into_iter().map(|event| event["data"].clone()).collect()
    }

    /// Message id, status and reason of each.
    fn told(&self) -> Vec<(String, String, Json)> {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let line = |data: Json| {
            assert_eq!(data["final"], true, "{data}");
            (text(&data["messageId"]), text(&data["status"]), data["deadLetterReason"].clone())
        };
        self.events().into_iter().map(line).collect()
    }

    fn status(&self) -> DeadLetterStatus {
        self.handle.status().dead_letters.first().cloned().expect("it has looked")
    }

    /// Waits until `met`, looking now and then.
    async fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !met(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.told()));
    }
}

fn open_outbox(folder: &TempDir, supervisor: &Supervisor) -> outbox::Handle {
    let directory = folder.path().join("outbox");
    let settings = outbox::Config { realtime: false, ..outbox::Config::new(directory) };
    let reader = outbox::ConsumerId { name: "test".to_owned(), lane: Lane::Status };
    outbox::Service::open(settings, &[reader], supervisor).expect("the outbox opens").1
}

fn table(outbox: &outbox::Handle) -> Table {
    let limits = Limits { kept_ms: u64::MAX, count_max: 1000 };
    let records = Records::load(&outbox.appender().state(), limits, &mut StateOps::default());
    let timing = Timing { ack_timeout_ms: 1000, answer_timeout_ms: 1000 };
    Table::new(voice(), timing, records.expect("readable"))
}

fn voice() -> Voice {
    Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() }
}

async fn stop(supervisor: &Supervisor) {
    supervisor.enter(StopPhase::FinishPublishes);
    tokio::time::timeout(DEADLINE, supervisor.idle(TaskKind::Commands)).await.expect("it ends");
}

/// Every event in lane `status`.
fn events(outbox: &outbox::Handle) -> Vec<Json> {
    let mut consumer = outbox.consumer("test", Lane::Status).expect("it is configured");
    let mut events = Vec::new();
    while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
        let read = segment.records().map(|record| record.1.payload.to_vec());
        events.extend(read.map(|payload| serde_json::from_slice::<Json>(&payload).expect("JSON")));
    }
    events
}

/// A letter for device `press-7` with this number, message id and reason.
fn letter(sequence: i64, id: &str, reason: &str) -> Received {
    let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
    Received {
        lock: LockToken([0; 16]),
        sequence,
        enqueued_ms: ENQUEUED_MS,
        delivery_count: 10,
        message_id: Some(id.to_owned()),
        session_id: Some("press-7".to_owned()),
        subject: None,
        content_type: None,
        correlation_id: None,
        reply_to: None,
        reply_to_session_id: None,
        expires_ms: None,
        properties: vec![text("DeadLetterReason", reason), text("DeadLetterErrorDescription", "so it is")],
        body: Body::Data(b"{}".to_vec()),
    }
}

fn line(id: &str, status: &str, reason: &str) -> (String, String, Json) {
    (id.to_owned(), status.to_owned(), json!(reason))
}

#[tokio::test]
async fn what_service_bus_gave_up_is_told_of_once_and_what_gateways_did_is_not() {
    let bench = Bench::start(1, SETTINGS);
    bench.queues.bury("commands", letter(1, "old", "TTLExpiredException"));
    bench.queues.bury("commands", letter(2, "tried", "MaxDeliveryCountExceeded"));
    bench.queues.bury("commands", letter(3, "ours", "penstock-refused"));
    bench.queues.bury("commands", letter(4, "theirs", "operator"));
    bench.queues.looks(3).await;
    let expected = [
        line("old", "expired", "TTLExpiredException"),
        line("tried", "failed", "MaxDeliveryCountExceeded"),
        line("theirs", "failed", "operator"),
    ];
    assert_eq!(bench.told(), expected);
    let data = &bench.events()[1];
    assert_eq!((&data["reason"], &data["detail"]), (&json!("dead-lettered"), &json!("so it is")));
    let ids: Vec<_> = events(&bench.outbox).iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids[0], "old/1-1790000000000/final", "as the gateway that had it would have called it");
    bench.until("the picture", |bench| bench.status().told == 3 && bench.status().own == 1).await;
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn a_restart_repeats_nothing_and_misses_nothing() {
    let bench = Bench::start(2, SETTINGS);
    bench.queues.bury("c-0", letter(7, "a", "TTLExpiredException"));
    bench.queues.bury("c-1", letter(7, "b", "TTLExpiredException"));
    bench.until("two events", |bench| bench.told().len() == 2).await;
    let bench = bench.restart().await;
    // Below what was told of, and under the number of one that is gone.
    bench.queues.bury("c-0", letter(3, "c", "TTLExpiredException"));
    let remade = Received { enqueued_ms: ENQUEUED_MS + 1, ..letter(7, "b", "TTLExpiredException") };
    bench.queues.bury("c-1", remade);
    bench.until("two more", |bench| bench.told().len() == 4).await;
    bench.queues.looks(8).await;
    let bench = bench.restart().await;
    bench.queues.looks(4).await;
    let ids: Vec<_> = bench.told().into_iter().map(|(id, ..)| id).collect();
    let mut last = ids[2..].to_vec();
    last.sort_unstable();
    assert_eq!((ids.len(), last), (4, vec!["b".to_owned(), "c".to_owned()]));
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn nothing_is_told_beyond_what_can_be_remembered() {
    let settings = Settings { remembered_max: 2, ..SETTINGS };
    let bench = Bench::start(1, settings);
    (1..=4).for_each(|n| bench.queues.bury("commands", letter(n, &n.to_string(), "TTLExpiredException")));
    bench.queues.looks(2).await;
    bench.until("two held", |bench| bench.status().held == 2).await;
    assert_eq!(bench.told().len(), 2);
    // Whoever empties the queue gets the others told.
    bench.queues.take("commands", 1);
    bench.queues.take("commands", 2);
    bench.until("the others", |bench| bench.told().len() == 4).await;
    let ids: Vec<_> = bench.told().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn a_queue_that_cannot_be_looked_at_is_tried_again_and_harms_no_other() {
    let bench = Bench::start(1, SETTINGS);
    bench.queues.bury("commands", letter(1, "a", "TTLExpiredException"));
    let cause = Cause { condition: "amqp:not-found".to_owned(), text: String::new(), retry_after: None };
    bench.queues.fail(Some(LinkError::Lost(cause)));
    bench.queues.bury("commands", letter(2, "b", "TTLExpiredException"));
    bench
        .until("the error", |bench| {
            bench.handle.status().dead_letters.first().is_some_and(|status| status.failing)
        })
        .await;
    bench.queues.fail(None);
    bench.until("both", |bench| bench.told().len() == 2).await;
    let seen = bench.status();
    assert!(seen.last_error.is_some_and(|error| error.contains("amqp:not-found")));
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn a_letter_without_anything_still_ends() {
    let bench = Bench::start(1, SETTINGS);
    let bare = Received { session_id: None, message_id: None, properties: vec![], ..letter(9, "", "") };
    let bad = Received { body: Body::Other(Body::UNDECODABLE), ..letter(4, "", "") };
    bench.queues.bury("commands", bare);
    bench.queues.bury("commands", bad);
    bench.queues.looks(2).await;
    let [data] = &bench.events()[..] else { panic!("{:?}", bench.events()) };
    let seen = ["commandId", "status", "reason", "deadLetterReason"].map(|name| data[name].clone());
    assert_eq!(seen, [json!("9"), json!("failed"), json!("dead-lettered"), Json::Null]);
    bench.until("the picture", |bench| bench.status().unreadable == 1).await;
    stop(&bench.supervisor).await;
}

/// The record of `press-7` that is about this letter.
fn record(letter: &Received, phase: Phase) -> StateOps {
    let identity = Identity::of(letter, "commands");
    let record =
        Record { identity, completion: Completion::Answered, phase, at_ms: ENQUEUED_MS, ending: None };
    let mut state = StateOps::default();
    state.put(&record_key("press-7"), &record.encode());
    state
}

#[tokio::test]
async fn a_command_whose_end_was_told_is_not_told_again_even_when_its_record_is_gone() {
    let one = letter(1, "a", "MaxDeliveryCountExceeded");
    let bench = Bench::with_state(&record(&one, Phase::Done(Disposition::Complete)));
    bench.queues.bury("commands", one);
    bench.queues.looks(2).await;
    let mut gone = StateOps::default();
    gone.delete(&record_key("press-7"));
    bench.outbox.appender().submit_state(&gone, Urgency::Prompt, &Arc::default());
    let bench = bench.restart().await;
    bench.queues.looks(2).await;
    assert_eq!((bench.table.record("press-7"), bench.told()), (None, vec![]));
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn a_command_that_was_begun_here_and_left_ends_with_what_its_device_said() {
    let check = async |phase: Phase, expected: &[(String, String, Json)]| {
        let one = letter(1, "a", "MaxDeliveryCountExceeded");
        let bench = Bench::with_state(&record(&one, phase));
        bench.queues.bury("commands", one);
        bench.queues.looks(2).await;
        assert_eq!(bench.told(), expected);
        let record = bench.table.record("press-7").expect("it is remembered");
        assert_eq!(record.phase == Phase::Done(Disposition::Complete), !expected.is_empty());
        let bench = bench.restart().await;
        bench.queues.looks(2).await;
        assert_eq!(bench.told().len(), expected.len());
        let stored = bench.table.record("press-7").expect("it is remembered");
        assert_eq!(stored.phase, record.phase);
        stop(&bench.supervisor).await;
    };
    let answer = crate::commands::contract::Answer::read(br#"{"status":"succeeded"}"#).expect("an answer");
    let nothing = Json::Null;
    check(Phase::Answered(answer), &[("a".to_owned(), "succeeded".to_owned(), nothing.clone())]).await;
    check(Phase::Started, &[line("a", "failed", "MaxDeliveryCountExceeded")]).await;
    check(Phase::Delivered { deadline_ms: ENQUEUED_MS }, &[("a".to_owned(), "failed".to_owned(), nothing)])
        .await;
    // Its answer may come.
    check(Phase::Delivered { deadline_ms: u64::MAX }, &[]).await;
}

#[tokio::test]
async fn a_command_in_hand_is_not_told_of_by_its_letter() {
    use crate::commands::contract::{Command, Defaults};
    use crate::commands::execution::{Arrival, Event, Step};
    let bench = Bench::start(1, SETTINGS);
    let one = Received { properties: vec![], ..letter(1, "a", "") };
    let defaults = Defaults { completion: Completion::Delivered, tenant: None };
    let command = Command::read(&one, "commands", &defaults).expect("a command");
    let seat = bench.table.seat("press-7").expect("a free seat");
    let now_ms = clock::unix_ms();
    seat.received(Arrival { lock: one.lock, message: Ok(Arc::new(command)) }, None, now_ms);
    assert_eq!(seat.commit(now_ms, |_, _| ()), Some(()));
    seat.on(Event::Committed(true), now_ms);
    assert!(matches!(seat.step(now_ms), Step::Publish { .. }));
    seat.on(Event::LinkLost, now_ms);
    bench.queues.bury("commands", letter(1, "a", "MaxDeliveryCountExceeded"));
    bench.queues.looks(3).await;
    bench.until("the picture", |bench| bench.status().open == 1).await;
    assert_eq!(bench.told(), []);
    // The device goes with it: nobody will know any more.
    drop(seat);
    bench.until("its end", |bench| bench.told().len() == 1).await;
    bench.queues.looks(2).await;
    assert_eq!(bench.told(), [line("a", "failed", "MaxDeliveryCountExceeded")]);
    stop(&bench.supervisor).await;
}

#[tokio::test]
async fn marks_of_entities_that_are_not_watched_any_more_are_deleted() {
    use super::mark::Mark;
    let mut state = StateOps::default();
    Mark::new(1, 2).put("other", &mut state);
    Mark::new(1, 2).put("commands", &mut state);
    state.put(&[super::mark::KEY_PREFIX, 9], b"junk");
    let bench = Bench::with_state(&state);
    let keys = |bench: &Bench| {
        let mut keys = Vec::new();
        let reader = bench.outbox.appender().state();
        let scanned = reader.scan(&[super::mark::KEY_PREFIX], &mut |key, _| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        });
        scanned.expect("readable");
        keys
    };
    // The third whole look forgets the other one, whose letter is not there.
    bench.until("one mark", |bench| keys(bench).len() <= 1).await;
    bench.until("no mark", |bench| keys(bench).is_empty()).await;
    stop(&bench.supervisor).await;
}
