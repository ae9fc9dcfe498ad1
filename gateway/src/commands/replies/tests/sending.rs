//! Replies against a namespace in memory: how many links there are, and what an entity that fails costs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::commands::amqp::{Cause, LinkError};
use crate::commands::config::Config;
use crate::commands::contract::{
    Command, Completion, Defaults, Ending, Outcome, Phase, Record, Reply, Voice,
};
use crate::commands::message::{Body, LockToken, Outgoing, Received};
use crate::commands::replies::outlets::ENTITIES_MAX;
use crate::commands::replies::{Post, PostLink, Replies, Settings};
use crate::supervise::{Supervisor, TaskKind, clock};

const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace where links are lost, entities fail or answer slowly, as a test wants it.
#[derive(Debug, Clone)]
struct Office(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// A permit for each message that may be taken.
    takes: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// Links opened so far, by entity, and how many there are now.
    opened: BTreeMap<String, usize>,
    open: usize,
    taken: Vec<(String, String)>,
    /// What the next tries come to.
    errors: Vec<LinkError>,
    /// Links with a lower number are lost.
    lost_below: usize,
    links: usize,
}

struct Link {
    office: Office,
    entity: String,
    number: usize,
}

impl Office {
    fn new() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), takes: Semaphore::new(10_000) }))
    }

    fn taken(&self) -> Vec<(String, String)> {
        self.0.state.lock().taken.clone()
    }

    fn opened(&self, entity: &str) -> usize {
        self.0.state.lock().opened.get(entity).copied().unwrap_or_default()
    }
}

fn cause(condition: &str) -> Cause {
    Cause { condition: condition.to_owned(), text: String::new(), retry_after: None }
}

fn lost() -> LinkError {
    LinkError::Lost(cause("amqp:link:detach-forced"))
}

impl Post for Office {
    type Link = Link;

    async fn open(&self, entity: &str) -> Result<Link, LinkError> {
        let mut state = self.0.state.lock();
        *state.opened.entry(entity.to_owned()).or_default() += 1;
        if entity == "nowhere" {
            return Err(LinkError::NotFound(cause("amqp:not-found")));
        }
        state.open += 1;
        state.links += 1;
        Ok(Link { office: self.clone(), entity: entity.to_owned(), number: state.links })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.office.0.state.lock().open -= 1;
    }
}

impl PostLink for Link {
    type Taking = std::pin::Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>;

    async fn send(&mut self, message: Outgoing) -> Result<Self::Taking, LinkError> {
        let (office, entity) = (self.office.clone(), self.entity.clone());
        if self.number < office.0.state.lock().lost_below {
            return Err(lost());
        }
        Ok(Box::pin(async move {
            office.0.takes.acquire().await.expect("it is never closed").forget();
            let mut state = office.0.state.lock();
            if let Some(error) = state.errors.pop() {
                return Err(error);
            }
            state.taken.push((entity, message.correlation_id.unwrap_or_default()));
            Ok(())
        }))
    }

    async fn close(self) {
        drop(self);
    }
}

struct Bench {
    office: Office,
    supervisor: Supervisor,
    replies: Arc<Replies<Office>>,
}

impl Bench {
    fn new() -> Self {
        let to = vec!["*".parse().expect("a pattern")];
        let settings = Settings { to, timeout: Duration::from_millis(300), time_to_live: PATIENCE };
        let config = Config { replies: Some(settings), ..Config::for_tests() };
        let voice = Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() };
        let (office, supervisor) = (Office::new(), Supervisor::new());
        let replies = Arc::new(Replies::new(&config, voice, office.clone(), &supervisor));
        Self { office, supervisor, replies }
    }

    async fn send(&self, entity: &str, id: &str) {
        timeout(PATIENCE, self.replies.send(&reply(entity, id))).await.expect("in time");
    }
}

/// The reply to a command with this id.
pub(crate) fn reply(to: &str, id: &str) -> Reply {
    let received = Received {
        lock: LockToken([0; 16]),
        sequence: 1,
        enqueued_ms: 1_790_000_000_000,
        delivery_count: 0,
        message_id: Some(id.to_owned()),
        session_id: Some("d1".to_owned()),
        subject: None,
        content_type: None,
        correlation_id: None,
        reply_to: Some(to.to_owned()),
        reply_to_session_id: None,
        expires_ms: None,
        properties: Vec::new(),
        body: Body::Data(b"{}".to_vec()),
    };
    let defaults = Defaults { completion: Completion::Delivered, tenant: None };
    let about = Command::read(&received, "commands", &defaults).expect("a command").about;
    let outcome = Outcome::delivered();
    let record = Record {
        identity: about.identity.clone(),
        completion: Completion::Delivered,
        phase: Phase::Done(outcome.disposition()),
        at_ms: 0,
        ending: Some(Box::new(Ending { outcome, redelivered: false })),
    };
    Reply::new(&about, &record).expect("asked for")
}

#[tokio::test]
async fn replies_of_many_links_share_one_link_and_do_not_wait_for_each_other() {
    let bench = Bench::new();
    // Nothing is taken before all of them are on their way.
    bench.office.0.takes.forget_permits(10_000);
    let sending: Vec<_> = (0..100).map(|n| reply("replies", &format!("c-{n}"))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for reply in sending {
        let replies = Arc::clone(&bench.replies);
        tasks.spawn(async move { replies.send(&reply).await });
    }
    tokio::task::yield_now().await;
    bench.office.0.takes.add_permits(100);
    timeout(PATIENCE, tasks.join_all()).await.expect("in time");
    assert_eq!((bench.office.taken().len(), bench.office.opened("replies")), (100, 1));
}

#[tokio::test]
async fn a_link_that_was_ended_is_opened_again_at_once() {
    let bench = Bench::new();
    bench.send("replies", "c-1").await;
    // Service Bus ends links that are idle.
    bench.office.0.state.lock().lost_below = usize::MAX - 1;
    bench.office.0.state.lock().links = usize::MAX - 1;
    bench.send("replies", "c-2").await;
    // It is lost after the message went: nobody knows whether it was taken, so it is sent again.
    bench.office.0.state.lock().errors = vec![lost()];
    bench.send("replies", "c-3").await;
    let ids: Vec<_> = bench.office.taken().into_iter().map(|(_, id)| id).collect();
    assert_eq!((ids, bench.office.opened("replies")), (["c-1", "c-2", "c-3"].map(Into::into).to_vec(), 2));
}

#[tokio::test]
async fn an_entity_that_does_not_exist_is_asked_for_once() {
    let bench = Bench::new();
    let before = clock::now();
    for n in 0..50 {
        bench.send("nowhere", &format!("c-{n}")).await;
    }
    assert_eq!(bench.office.opened("nowhere"), 1, "no try for half a minute");
    assert!(clock::now() - before < Duration::from_secs(10));
    bench.send("replies", "c-1").await;
    assert_eq!(bench.office.taken().len(), 1, "others are not concerned");
}

#[tokio::test]
async fn an_entity_that_does_not_answer_is_waited_for_once() {
    let bench = Bench::new();
    bench.office.0.takes.forget_permits(10_000);
    let before = clock::now();
    for n in 0..20 {
        bench.send("replies", &format!("c-{n}")).await;
    }
    let took = clock::now() - before;
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    assert!(bench.office.taken().is_empty());
}

#[tokio::test]
async fn a_busy_service_is_not_waited_for_longer_than_a_reply_may_take() {
    let bench = Bench::new();
    bench.office.0.state.lock().errors = vec![LinkError::Busy(cause("com.microsoft:server-busy"))];
    let before = clock::now();
    bench.send("replies", "c-1").await;
    bench.send("replies", "c-2").await;
    assert!(clock::now() - before < Duration::from_secs(5));
    assert!(bench.office.taken().is_empty(), "it asked for ten seconds");
}

#[tokio::test]
async fn the_entity_not_used_for_the_longest_time_makes_room() {
    let bench = Bench::new();
    for n in 0..ENTITIES_MAX {
        bench.send(&format!("desk-{n}"), "c-1").await;
    }
    bench.send("desk-0", "c-2").await;
    bench.send("one-more", "c-3").await;
    assert_eq!(bench.replies.outlets.lock().len(), ENTITIES_MAX);
    bench.send("desk-0", "c-4").await;
    bench.send("desk-1", "c-5").await;
    assert_eq!((bench.office.opened("desk-0"), bench.office.opened("desk-1")), (1, 2));
    assert_eq!(bench.office.taken().len(), ENTITIES_MAX + 4);
    timeout(PATIENCE, async {
        while bench.office.0.state.lock().open > ENTITIES_MAX {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("links of those that made room are closed");
}

#[tokio::test]
async fn after_the_end_no_link_is_left() {
    let bench = Bench::new();
    bench.send("replies", "c-1").await;
    bench.replies.close();
    timeout(PATIENCE, bench.supervisor.idle(TaskKind::CommandLink)).await.expect("its task ends");
    assert_eq!(bench.office.0.state.lock().open, 0);
    bench.send("replies", "c-2").await;
    assert_eq!(bench.office.taken().len(), 1);
}
