//! Commands for the gateway itself, through links, executions and the real outbox.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use penstock_proto::{Lane, Seq};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fleet::MemoryFleet;
use super::namespace::MemoryCloud;
use super::{DEADLINE, soon};
use crate::commands::config::Config;
use crate::commands::contract::Voice;
use crate::commands::control::{Everybody, Executor, Own};
use crate::commands::link::Shared;
use crate::commands::message::{Body, Disposition, Received};
use crate::commands::{Handle, Site, Subject, service};
use crate::mqtt::Fate;
use crate::outbox::{self, ConsumerId};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const OWN: &str = "gateway/site-7";

/// A gateway that notes what it is told. Stream `vibration` has an event hub of its own.
#[derive(Debug, Default)]
struct Notes {
    limits: Mutex<(Option<u64>, Vec<String>)>,
    without_uplink: AtomicBool,
    without_stream: AtomicBool,
}

impl Site for Notes {
    fn health(&self) -> Value {
        json!({ "version": "1.2.3" })
    }

    fn has_uplink(&self) -> bool {
        !self.without_uplink.load(Ordering::Relaxed)
    }

    fn select(&self, subject: &Subject) -> Result<Vec<String>, String> {
        match subject {
            Subject::Stream(name) if name == "vibration" && !self.without_stream.load(Ordering::Relaxed) => {
                Ok(vec!["vib".to_owned()])
            }
            Subject::EventHub(name) if name == "plant" => Ok(vec![name.clone()]),
            _ => Err("it shares an event hub".to_owned()),
        }
    }

    fn limit(&self, cap: Option<u64>, paused: Vec<String>) {
        *self.limits.lock() = (cap, paused);
    }
}

/// The stage with a gateway that takes commands.
struct Bench {
    cloud: MemoryCloud,
    fleet: MemoryFleet,
    notes: Arc<Notes>,
    outbox: outbox::Handle,
    status: outbox::Consumer,
    supervisor: Supervisor,
    handle: Handle,
    folder: TempDir,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::open(folder, MemoryCloud::default(), Arc::default())
    }

    fn open(folder: TempDir, cloud: MemoryCloud, notes: Arc<Notes>) -> Self {
        let config = Config { control: true, ..Config::for_tests() };
        let supervisor = Supervisor::new();
        let settings =
            outbox::Config { realtime: false, ..outbox::Config::new(folder.path().join("outbox")) };
        let reader = ConsumerId { name: "test".to_owned(), lane: Lane::Status };
        let (_, outbox) = outbox::Service::open(settings, &[reader], &supervisor).expect("the outbox opens");
        let status = outbox.consumer("test", Lane::Status).expect("it is known");
        let (fleet, handle) = (MemoryFleet::default(), Handle::default());
        let gateway = "site-7".parse().expect("a gateway id");
        let session = config.control_session(&gateway).expect("it takes commands");
        assert_eq!(session, OWN);
        let (own, orders) = Own::new(&session);
        let everybody = Everybody::new(fleet.clone(), Some(own.clone()));
        let sky = cloud.clone();
        let shared = Shared::open(&config, &gateway, &outbox, sky, everybody, handle.clone(), &supervisor);
        let shared = Arc::new(shared.expect("readable"));
        let speaker = (shared.table.clone(), Voice::of(&gateway, &config.type_prefix));
        let (site, shutdown) = (Arc::<Notes>::clone(&notes), supervisor.shutdown());
        let executor = Executor::open((&own, orders), site, speaker, &outbox, handle.clone(), shutdown);
        supervisor.spawn(TaskKind::Commands, executor.expect("readable").run());
        service::launch(&config, shared, handle.clone(), &supervisor);
        Self { cloud, fleet, notes, outbox, status, supervisor, handle, folder }
    }

    async fn stop(self) -> (TempDir, MemoryCloud, Arc<Notes>) {
        let Self { cloud, notes, outbox, status, supervisor, folder, .. } = self;
        drop(status);
        supervisor.enter(Phase::FinishPublishes);
        soon(supervisor.idle(TaskKind::Commands)).await;
        soon(supervisor.idle(TaskKind::CommandLink)).await;
        supervisor.enter(Phase::Close);
        assert!(outbox.close(clock::now() + DEADLINE), "closed");
        soon(supervisor.idle(TaskKind::Committer)).await;
        soon(supervisor.idle(TaskKind::Sidecar)).await;
        (folder, cloud, notes)
    }

    async fn restart(self) -> Self {
        let (folder, cloud, _) = self.stop().await;
        Self::open(folder, cloud, Arc::default())
    }

    fn send(&self, id: &str, operation: &str, body: &str) {
        self.cloud.send(OWN, id, |received| say(received, operation, body));
    }

    async fn settled(&self, count: usize) -> Vec<(String, Disposition)> {
        soon(self.cloud.until(|settled| settled.len() >= count)).await;
        self.cloud.settled()
    }

    fn limits(&self) -> (Option<u64>, Vec<String>) {
        self.notes.limits.lock().clone()
    }

    async fn until(&self, met: impl Fn(&Self) -> bool) {
        soon(async {
            while !met(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Everything in lane `status`.
    fn events(&self) -> Vec<Value> {
        let end = self.outbox.status().lanes[Lane::Status.index()].next;
        let (mut cursor, mut at, mut events) = (self.status.cursor(Seq(1)), Seq(1), Vec::new());
        while at < end {
            let Some(segment) = cursor.try_next(1 << 20).expect("readable") else { continue };
            for (seq, record) in segment.records_from(at) {
                events.push(serde_json::from_slice(record.payload).expect("JSON"));
                at = seq.next();
            }
        }
        events
    }

    /// The final events about commands.
    fn finals(&self) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["data"]["final"] == true).collect()
    }

    /// What became of limits.
    fn changes(&self) -> Vec<String> {
        let events =
            self.events().into_iter().filter(|event| event["type"] == "io.penstock.gateway.limit.v1");
        events.filter_map(|event| event["data"]["change"].as_str().map(str::to_owned)).collect()
    }
}

fn say(received: &mut Received, operation: &str, body: &str) {
    received.subject = Some(operation.to_owned());
    received.body = Body::Text(body.to_owned());
}

fn complete(id: &str) -> (String, Disposition) {
    (id.to_owned(), Disposition::Complete)
}

#[tokio::test]
async fn the_gateway_says_how_it_is_without_any_device() {
    let bench = Bench::start();
    bench.send("c-1", "health", "");
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    let events = bench.events();
    assert_eq!(events.len(), 1, "the end and nothing else: {events:#?}");
    let event = &events[0];
    assert_eq!(event["type"], "io.penstock.command.succeeded.v1");
    assert_eq!(event["data"]["detail"], json!({ "version": "1.2.3", "limits": [] }));
    assert_eq!((&event["subject"], &event["gatewayid"]), (&json!(OWN), &json!("site-7")));
    assert_eq!((&event["deviceid"], &event["data"]["device"]), (&Value::Null, &Value::Null), "{event:#}");
    assert!(event["id"].as_str().is_some_and(|id| id.starts_with("c-1/1-") && id.ends_with("/final")));
}

#[tokio::test]
async fn a_limit_is_set_told_and_shown_and_devices_get_their_commands_all_the_same() {
    let bench = Bench::start();
    bench.cloud.send("d1", "d-1", |_| ());
    bench.fleet.come("d1");
    bench.send("c-1", "uplink.cap", r#"{"bytes_per_second":200000,"for_seconds":7200}"#);
    bench.send("c-2", "stream.pause", r#"{"stream":"vibration","for_seconds":60}"#);
    soon(bench.fleet.sent()).await.end(Fate::Acknowledged);
    bench.settled(3).await;
    assert_eq!(bench.limits(), (Some(200_000), vec!["vib".to_owned()]));
    assert_eq!(bench.changes(), ["set", "set"]);
    let control = bench.handle.status().control.expect("it takes commands");
    let limits: Vec<_> = control.limits.iter().map(|limit| (limit.limit, &*limit.command)).collect();
    assert_eq!((&*control.session, limits), (OWN, vec![("cap", "c-1"), ("pause", "c-2")]));
    bench.send("c-3", "uplink.cap", r#"{"bytes_per_second":5000,"for_seconds":60}"#);
    bench.send("c-4", "stream.resume", "{}");
    bench.send("c-5", "uplink.uncap", "");
    bench.send("c-6", "uplink.uncap", "");
    bench.settled(7).await;
    assert_eq!(bench.limits(), (None, vec![]));
    assert_eq!(bench.changes(), ["set", "set", "replaced", "cleared", "cleared"]);
    let finals = bench.finals();
    let of = |id: &str| finals.iter().find(|event| event["data"]["commandId"] == id).expect(id);
    assert_eq!(of("c-2")["data"]["detail"]["event_hubs"], json!(["vib"]));
    assert_eq!(of("c-4")["data"]["detail"]["cleared"][0]["stream"], "vibration");
    assert_eq!(of("c-6")["data"]["detail"], json!({ "changed": false, "cleared": [] }));
}

#[tokio::test]
async fn what_is_no_operation_is_dead_lettered_with_the_field_that_is_wrong() {
    let bench = Bench::start();
    bench.send("c-1", "uplink.cap", r#"{"bytes_per_second":5,"for_seconds":60}"#);
    bench.send("c-2", "reboot", "{}");
    bench.cloud.send(OWN, "c-3", |received| {
        say(received, "health", "{}");
        received.body = Body::Other("a map");
    });
    bench.send("c-4", "health", "{}");
    let settled = bench.settled(4).await;
    for ((_, disposition), expected) in
        settled.iter().zip(["bytes_per_second is 5", "\"reboot\" names no operation", "a map"])
    {
        let Disposition::DeadLetter { reason, description } = disposition else { panic!("{disposition:?}") };
        assert!(reason == "penstock-malformed" && description.contains(expected), "{description}");
    }
    assert_eq!(settled[3], complete("c-4"));
    let finals = bench.finals();
    let statuses: Vec<_> = finals.iter().filter_map(|event| event["data"]["status"].as_str()).collect();
    assert_eq!(statuses, ["rejected", "rejected", "rejected", "succeeded"]);
    assert_eq!(bench.limits(), (None, vec![]));
}

#[tokio::test]
async fn what_this_gateway_cannot_do_is_rejected_with_the_reason() {
    let bench = Bench::start();
    bench.send("c-1", "stream.pause", r#"{"stream":"sound","for_seconds":60}"#);
    bench.send("c-2", "uplink.cap", r#"{"bytes_per_second":5000,"until":"2020-01-01T00:00:00Z"}"#);
    assert_eq!(bench.settled(2).await, [complete("c-1"), complete("c-2")]);
    bench.notes.without_uplink.store(true, Ordering::Relaxed);
    bench.send("c-3", "uplink.cap", r#"{"bytes_per_second":5000,"for_seconds":60}"#);
    bench.settled(3).await;
    let finals = bench.finals();
    for (event, expected) in finals.iter().zip(["shares an event hub", "until is over", "has no uplink"]) {
        assert_eq!(event["data"]["status"], "rejected");
        let error = event["data"]["detail"]["error"].as_str().unwrap_or_default();
        assert!(error.contains(expected), "{event:#}");
    }
    assert_eq!((bench.limits(), bench.changes().len()), ((None, vec![]), 0));
}

#[tokio::test]
async fn limits_outlive_a_restart_and_their_command_is_only_settled() {
    let bench = Bench::start();
    bench.cloud.lose_settlements(true);
    bench.send("c-1", "uplink.cap", r#"{"bytes_per_second":200000,"for_seconds":7200}"#);
    bench.until(|bench| bench.limits().0 == Some(200_000)).await;
    let bench = bench.restart().await;
    assert_eq!(bench.limits(), (Some(200_000), vec![]), "before anything is received");
    bench.cloud.lose_settlements(false);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert_eq!(
        (bench.finals().len(), bench.changes()),
        (1, vec!["set".to_owned()]),
        "once, however often it came"
    );
    bench.send("c-2", "uplink.uncap", "");
    bench.settled(2).await;
    let bench = bench.restart().await;
    assert_eq!(bench.limits(), (None, vec![]));
}

#[tokio::test]
async fn a_limit_ends_by_itself_and_says_so() {
    let bench = Bench::start();
    bench.send("c-1", "stream.pause", r#"{"event_hub":"plant","for_seconds":1}"#);
    bench.settled(1).await;
    assert_eq!(bench.limits(), (None, vec!["plant".to_owned()]));
    bench.until(|bench| bench.limits().1.is_empty()).await;
    bench.until(|bench| bench.changes() == ["set", "expired"]).await;
    let bench = bench.restart().await;
    assert_eq!((bench.limits(), bench.changes().len()), ((None, vec![]), 2));
}

#[tokio::test]
async fn a_pause_whose_stream_has_no_event_hub_any_more_is_cancelled_at_the_start() {
    let bench = Bench::start();
    bench.send("c-1", "stream.pause", r#"{"stream":"vibration","for_seconds":600}"#);
    bench.settled(1).await;
    let (folder, cloud, notes) = bench.stop().await;
    notes.without_stream.store(true, Ordering::Relaxed);
    let bench = Bench::open(folder, cloud, notes);
    bench.until(|bench| bench.changes() == ["set", "cancelled"]).await;
    assert_eq!(bench.limits(), (None, vec![]));
}

/// Takes a picture of the directory after each command's batch: from every one of them the gateway goes on with the
/// limits of exactly the commands that have their final event.
#[tokio::test]
async fn a_limit_and_the_end_of_its_command_are_there_together_or_not_at_all() {
    let bench = Bench::start();
    bench.cloud.lose_settlements(true);
    for n in 1..=5_u64 {
        let body = format!(r#"{{"bytes_per_second":{},"for_seconds":600}}"#, n * 1000);
        bench.send(&format!("c-{n}"), "uplink.cap", &body);
        bench.until(|bench| bench.limits().0 == Some(n * 1000)).await;
        let picture = tempfile::tempdir().expect("a temporary folder");
        copy(&bench.folder.path().join("outbox"), &picture.path().join("outbox"));
        let after = Bench::open(picture, MemoryCloud::default(), Arc::default());
        let ends: BTreeSet<_> = after
            .finals()
            .iter()
            .filter_map(|event| event["data"]["commandId"].as_str().map(str::to_owned))
            .collect();
        let cap = after.limits().0.unwrap_or(0);
        assert_eq!(ends.len() as u64 * 1000, cap, "{ends:?}");
        assert_eq!(cap, n * 1000, "what was carried out is durable");
        drop(after.stop().await);
        bench.cloud.lose_settlements(false);
        bench.settled(usize::try_from(n).expect("small")).await;
        bench.cloud.lose_settlements(true);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

#[tokio::test]
async fn the_gateway_is_no_device() {
    let bench = Bench::start();
    bench.until(|bench| bench.cloud.is_locked(OWN)).await;
    bench.until(|bench| bench.handle.status().entities.iter().any(|entity| entity.links == 1)).await;
    bench.fleet.come(OWN);
    bench.send("c-1", "health", "");
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.fleet.try_sent().is_none(), "a device of that name would get nothing");
}
