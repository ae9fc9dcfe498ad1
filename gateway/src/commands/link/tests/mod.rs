//! Links against a namespace and devices in memory, with the real outbox: what a device sees, what Service Bus sees.

mod clocks;
mod closing;
mod control;
mod counts;
mod fleet;
mod namespace;
mod replies;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::Lane;
use tempfile::TempDir;

use self::fleet::{MemoryFleet, Sent};
use self::namespace::MemoryCloud;
use crate::commands::amqp::{Namespace, SessionLink};
use crate::commands::config::Config;
use crate::commands::dispatch::Limits;
use crate::commands::link::{Control, Shared};
use crate::commands::message::{Body, Disposition, Received};
use crate::commands::{Handle, service};
use crate::mqtt::{Devices, Fate};
use crate::outbox;
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T: Future>(event: T) -> T::Output {
    tokio::time::timeout(DEADLINE, event).await.expect("it happens before the deadline")
}

/// The stage at work.
struct Bench {
    cloud: MemoryCloud,
    fleet: MemoryFleet,
    outbox: Open,
    supervisor: Supervisor,
    handle: Handle,
    shared: Arc<Shared<MemoryCloud, MemoryFleet>>,
    folder: TempDir,
}

/// An outbox that is closed with its test: at the end of the process nothing may be at work in it.
struct Open(outbox::Handle);

impl Drop for Open {
    fn drop(&mut self) {
        let _in_time = self.0.close(clock::now() + DEADLINE);
    }
}

impl Bench {
    fn start() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::open(folder, MemoryCloud::default(), change)
    }

    fn open(folder: TempDir, cloud: MemoryCloud, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_tests();
        change(&mut config);
        let supervisor = Supervisor::new();
        let directory: PathBuf = folder.path().join("outbox");
        let settings = outbox::Config { realtime: false, ..outbox::Config::new(directory) };
        let (_, outbox) = outbox::Service::open(settings, &[], &supervisor).expect("the outbox opens");
        let (fleet, handle) = (MemoryFleet::default(), Handle::default());
        let gateway = "site-7".parse().expect("a gateway id");
        let (sky, ships) = (cloud.clone(), fleet.clone());
        let shared = Shared::open(&config, &gateway, &outbox, sky, ships, handle.clone(), &supervisor)
            .expect("readable");
        let shared = Arc::new(shared);
        service::launch(&config, Arc::clone(&shared), handle.clone(), &supervisor);
        Self { cloud, fleet, outbox: Open(outbox), supervisor, handle, shared, folder }
    }

    /// Stops in order and starts on the same directory, with the same namespace.
    async fn restart(self) -> Self {
        self.restart_with(|_| ()).await
    }

    async fn restart_with(self, change: impl FnOnce(&mut Config)) -> Self {
        self.stop().await;
        let Self { outbox, folder, cloud, supervisor, shared, .. } = self;
        drop(shared);
        supervisor.enter(Phase::Close);
        assert!(outbox.0.close(clock::now() + DEADLINE), "closed");
        soon(supervisor.idle(TaskKind::Committer)).await;
        soon(supervisor.idle(TaskKind::Sidecar)).await;
        drop(outbox);
        Self::open(folder, cloud, change)
    }

    async fn stop(&self) {
        self.supervisor.enter(Phase::FinishPublishes);
        soon(self.supervisor.idle(TaskKind::Commands)).await;
        soon(self.supervisor.idle(TaskKind::CommandLink)).await;
    }

    async fn sent(&self) -> Sent {
        soon(self.fleet.sent()).await
    }

    async fn settled(&self, count: usize) -> Vec<(String, Disposition)> {
        soon(self.cloud.until(|settled| settled.len() >= count)).await;
        self.cloud.settled()
    }

    /// Status events in the log.
    fn events(&self) -> u64 {
        self.outbox.0.status().lanes[Lane::Status.index()].next.0 - 1
    }

    /// Waits until `met`, looking now and then.
    async fn until(&self, met: impl Fn(&Self) -> bool) {
        soon(async {
            while !met(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn complete(id: &str) -> (String, Disposition) {
    (id.to_owned(), Disposition::Complete)
}

#[tokio::test]
async fn a_command_is_settled_after_its_device_has_it_and_its_status_is_durable() {
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    assert_eq!((&*sent.device, &*sent.id, sent.redelivered), ("d1", "c-1", false));
    assert_eq!((bench.cloud.settled(), bench.events(), bench.handle.status().pending), (vec![], 0, 1));
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert_eq!(bench.events(), 1);
    bench.until(|bench| bench.handle.status().pending == 0).await;
}

#[tokio::test]
async fn commands_of_a_device_go_one_by_one_in_order() {
    let bench = Bench::start();
    bench.fleet.come("d1");
    for n in 0..20 {
        bench.cloud.send("d1", &format!("c-{n}"), |_| ());
    }
    for n in 0..20 {
        let sent = bench.sent().await;
        assert_eq!(*sent.id, format!("c-{n}"));
        assert!(bench.fleet.try_sent().is_none(), "one at a time");
        sent.end(Fate::Acknowledged);
    }
    let expected: Vec<_> = (0..20).map(|n| complete(&format!("c-{n}"))).collect();
    assert_eq!(bench.settled(20).await, expected);
}

#[tokio::test]
async fn a_device_that_is_away_is_not_touched() {
    let bench = Bench::start();
    bench.cloud.send("away", "c-1", |_| ());
    bench.cloud.send("here", "c-2", |_| ());
    bench.fleet.come("here");
    bench.sent().await.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-2")]);
    assert!(!bench.cloud.is_locked("away"));
    assert_eq!(bench.cloud.delivery_count("away"), Some(0));
}

#[tokio::test]
async fn a_device_that_goes_gets_its_command_again_and_nothing_counts_as_failed() {
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let first = bench.sent().await;
    bench.fleet.go("d1");
    bench.until(|bench| !bench.cloud.is_locked("d1")).await;
    assert_eq!((bench.cloud.delivery_count("d1"), bench.cloud.settled()), (Some(0), vec![]));
    drop(first);
    bench.fleet.come("d1");
    let again = bench.sent().await;
    assert_eq!((&*again.id, again.redelivered), ("c-1", true));
    again.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert_eq!(bench.events(), 1, "one final status");
}

#[tokio::test]
async fn a_lost_lock_does_not_send_a_command_twice() {
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    bench.cloud.lose_lock("d1");
    assert_eq!(bench.cloud.delivery_count("d1"), Some(1));
    // The session is accepted anew, and the message attaches to the command that is with the device.
    bench.until(|bench| bench.cloud.is_locked("d1") && bench.handle.status().pending == 1).await;
    assert!(bench.fleet.try_sent().is_none());
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.fleet.try_sent().is_none());
    assert_eq!(bench.events(), 1);
}

#[tokio::test]
async fn an_acknowledgement_that_comes_between_two_links_counts() {
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    bench.cloud.refuse(namespace::locked());
    bench.cloud.lose_lock("d1");
    bench.until(|bench| !bench.cloud.is_locked("d1")).await;
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.fleet.try_sent().is_none());
}

#[tokio::test]
async fn what_is_no_command_goes_to_the_dead_letters_and_the_next_one_comes() {
    let bench = Bench::start();
    bench.fleet.come("d1");
    bench.cloud.send("d1", "bad", |received| received.body = Body::Other("a map"));
    bench.cloud.send("d1", "good", |_| ());
    let sent = bench.sent().await;
    assert_eq!(&*sent.id, "good");
    sent.end(Fate::Acknowledged);
    let settled = bench.settled(2).await;
    assert!(
        matches!(&settled[0], (id, Disposition::DeadLetter { reason, .. }) if id == "bad" && reason == "penstock-malformed")
    );
    assert_eq!((&settled[1], bench.events()), (&complete("good"), 2));
}

#[tokio::test]
async fn a_device_that_refuses_for_good_has_its_command_dead_lettered() {
    let bench = Bench::start();
    bench.fleet.come("d1");
    bench.cloud.send("d1", "c-1", |_| ());
    bench.sent().await.end(Fate::Refused { reason: 0x87 });
    let settled = bench.settled(1).await;
    assert!(matches!(&settled[0].1, Disposition::DeadLetter { reason, .. } if reason == "penstock-refused"));
}

#[tokio::test]
async fn a_session_that_another_gateway_holds_is_taken_when_it_is_free() {
    let bench = Bench::start();
    bench.cloud.lock_elsewhere("d1", true);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    assert!(bench.fleet.try_sent().is_none());
    bench.cloud.lock_elsewhere("d1", false);
    bench.sent().await.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
}

#[tokio::test]
async fn a_stop_leaves_what_is_in_hand_without_settling_it() {
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    bench.stop().await;
    assert!(!bench.cloud.is_locked("d1"));
    assert_eq!(
        (bench.cloud.delivery_count("d1"), bench.cloud.settled(), bench.events()),
        (Some(0), vec![], 0)
    );
    assert_eq!(bench.handle.status().pending, 0);
    drop(sent);
}

#[tokio::test]
async fn after_a_restart_what_was_sent_comes_marked_and_what_was_done_is_only_settled() {
    let bench = Bench::start();
    bench.cloud.send("d1", "c-1", |_| ());
    bench.cloud.send("d2", "c-2", |_| ());
    bench.fleet.come("d1");
    let first = bench.sent().await;
    bench.fleet.come("d2");
    let second = bench.sent().await;
    // The second one is done, and its settlement does not arrive.
    bench.cloud.lose_settlements(true);
    second.end(Fate::Acknowledged);
    bench.until(|bench| bench.events() == 1).await;
    let bench = bench.restart().await;
    drop(first);
    bench.cloud.lose_settlements(false);
    bench.fleet.come("d2");
    assert_eq!(bench.settled(1).await, [complete("c-2")]);
    assert!(bench.fleet.try_sent().is_none(), "it was done");
    bench.fleet.come("d1");
    let again = bench.sent().await;
    assert_eq!((&*again.id, again.redelivered), ("c-1", true));
    again.end(Fate::Acknowledged);
    assert_eq!(bench.settled(2).await[1], complete("c-1"));
    assert_eq!(bench.events(), 2, "one final status each");
}

#[tokio::test]
async fn devices_beyond_the_budget_get_their_commands_too() {
    let bench = Bench::with(|config| {
        config.limits = Limits { links_max: 2, receivers: 1, ..config.limits };
    });
    for n in 0..6 {
        bench.fleet.come(&format!("d{n}"));
    }
    for round in 0..3 {
        for n in 0..6 {
            bench.cloud.send(&format!("d{n}"), &format!("c-{n}-{round}"), |_| ());
        }
        for _ in 0..6 {
            bench.sent().await.end(Fate::Acknowledged);
        }
    }
    assert_eq!(bench.settled(18).await.len(), 18);
    for n in 0..6 {
        let own = format!("c-{n}-");
        let order: Vec<_> =
            bench.cloud.settled().into_iter().map(|(id, _)| id).filter(|id| id.starts_with(&own)).collect();
        assert!(order.is_sorted() && order.len() == 3, "{order:?}");
    }
}

#[tokio::test]
async fn locks_are_renewed_while_a_command_is_in_hand() {
    let bench = Bench::start();
    bench.cloud.set_lock_ms(5000);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    bench.until(|bench| bench.cloud.renewals() >= 2).await;
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
}

#[tokio::test]
async fn with_replicas_what_is_done_stands_in_the_state_of_the_session() {
    let bench = Bench::with(|config| config.replicas = true);
    bench.cloud.send("d1", "c-1", |_| ());
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    bench.settled(1).await;
    let state = bench.cloud.state_of("d1").expect("it is there");
    // Another gateway, which has no record of its own, gets the same message: it was done and not settled.
    let other =
        Bench::open(tempfile::tempdir().expect("a temporary folder"), MemoryCloud::default(), |config| {
            config.replicas = true;
        });
    other.cloud.send("d1", "c-1", |received| received.enqueued_ms = bench.cloud.enqueued_ms("c-1"));
    other.cloud.keep_state("d1", state);
    other.fleet.come("d1");
    assert_eq!(other.settled(1).await, [complete("c-1")]);
    assert!(other.fleet.try_sent().is_none());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_renewal_that_nobody_answers() {
    let bench = Bench::start();
    bench.cloud.set_lock_ms(5000);
    bench.cloud.answer_no_renewals();
    bench.cloud.send("busy", "c-1", |_| ());
    bench.fleet.come("busy");
    let sent = bench.sent().await;
    bench.fleet.come("idle");
    bench.until(|bench| bench.cloud.renewals() >= 2).await;
    let since = clock::now();
    bench.stop().await;
    // A renewal may take 15 s.
    assert!(clock::now() - since < Duration::from_secs(10));
    assert!(!bench.cloud.is_locked("busy") && !bench.cloud.is_locked("idle"));
    drop(sent);
}

#[tokio::test]
async fn messages_in_hand_take_no_more_memory_than_they_may() {
    let bench = Bench::with(|config| config.memory_kib = 100);
    let large = |received: &mut Received| received.body = Body::Data(vec![7; 60 << 10]);
    bench.cloud.send("d1", "c-1", large);
    bench.fleet.come("d1");
    let first = bench.sent().await;
    bench.cloud.send("d2", "c-2", large);
    bench.cloud.send("d3", "c-3", |_| ());
    bench.fleet.come("d2");
    bench.fleet.come("d3");
    let small = bench.sent().await;
    assert_eq!(&*small.id, "c-3", "what finds room goes on");
    // It is accepted, left and accepted again, and that costs nothing.
    bench.until(|bench| bench.cloud.accepts() >= 5).await;
    assert!(bench.fleet.try_sent().is_none());
    assert_eq!(bench.cloud.delivery_count("d2"), Some(0));
    assert!(bench.handle.status().pending <= 3);
    first.end(Fate::Acknowledged);
    let second = bench.sent().await;
    assert_eq!((&*second.id, second.redelivered), ("c-2", false));
    second.end(Fate::Acknowledged);
    small.end(Fate::Acknowledged);
    bench.settled(3).await;
}

#[tokio::test]
async fn a_message_larger_than_all_the_memory_is_delivered_alone() {
    let bench = Bench::with(|config| config.memory_kib = 100);
    bench.cloud.send("d1", "c-1", |received| received.body = Body::Data(vec![7; 200 << 10]));
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
}

#[tokio::test]
async fn a_command_that_is_kept_between_two_links_keeps_its_memory() {
    let bench = Bench::with(|config| config.memory_kib = 100);
    let large = |received: &mut Received| received.body = Body::Data(vec![7; 60 << 10]);
    bench.cloud.send("d1", "c-1", large);
    bench.fleet.come("d1");
    let first = bench.sent().await;
    bench.cloud.lock_elsewhere("d1", true);
    bench.until(|bench| bench.handle.status().pending == 0).await;
    bench.cloud.send("d2", "c-2", large);
    bench.fleet.come("d2");
    bench.until(|bench| bench.cloud.accepts() >= 3).await;
    assert!(bench.fleet.try_sent().is_none());
    // The device goes, and with it what was kept for it.
    bench.fleet.go("d1");
    bench.sent().await.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-2")]);
    drop(first);
}

#[tokio::test]
async fn a_command_that_is_kept_leaves_its_memory_to_itself_when_it_comes_again() {
    let bench = Bench::with(|config| config.memory_kib = 100);
    bench.cloud.send("d1", "c-1", |received| received.body = Body::Data(vec![7; 60 << 10]));
    bench.fleet.come("d1");
    let sent = bench.sent().await;
    for link in 2..5 {
        bench.cloud.lose_lock("d1");
        bench.until(|bench| bench.cloud.accepts() == link && bench.handle.status().pending == 1).await;
    }
    sent.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.fleet.try_sent().is_none());
}

#[tokio::test]
async fn a_device_that_goes_unheard_is_not_accepted_for_ever() {
    let bench = Bench::start();
    bench.fleet.come("d1");
    bench.until(|bench| bench.handle.status().entities.iter().any(|entity| entity.links == 1)).await;
    // Only so many who are gone are news; this one is not.
    bench.fleet.go_unheard("d1");
    bench.cloud.send("d1", "c-1", |_| ());
    let lost = |bench: &Bench| {
        bench
            .handle
            .status()
            .entities
            .iter()
            .all(|entity| entity.links + entity.accepting + entity.waiting == 0)
    };
    bench.until(|bench| bench.cloud.accepts() == 1 && !bench.cloud.is_locked("d1") && lost(bench)).await;
    assert_eq!(bench.cloud.delivery_count("d1"), Some(0));
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
}

/// The size of what a function of three arguments returns, without calling it.
fn size_of_result<A, B, C, R>(_function: fn(A, B, C) -> R) -> usize {
    size_of::<R>()
}

/// What waits for commands is the task, a session of the AMQP layer behind a pointer, and what the driver knows of both.
/// What the AMQP library itself takes is not ours.
#[test]
fn a_link_that_waits_takes_little_memory_of_its_own() {
    let task = size_of_result(crate::commands::link::accept::<Namespace, Devices>);
    let session = size_of::<SessionLink>();
    let control = size_of::<Control>() + 2 * size_of::<usize>();
    fn waiting<'a, A: 'a, R>(_function: fn(&'a mut A) -> R) -> usize {
        size_of::<R>()
    }
    let receiving = waiting(SessionLink::receive);
    println!(
        "task {task} bytes, {receiving} of them what waits for a message; session {session}, control {control}"
    );
    let own = task - receiving;
    assert!(own <= 1024, "{own} bytes of {task} in the task of a link");
}
