//! Replies over real links.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::sim::{Sim, soon};
use crate::commands::amqp::Namespace;
use crate::commands::config::Config;
use crate::commands::contract::Voice;
use crate::commands::replies::{Replies, Settings, reply_for_tests};
use crate::supervise::clock;

/// A queue without sessions.
const INBOX: &str = "plain";

fn replies(sim: &Sim) -> Replies<Namespace> {
    let to = vec!["*".parse().unwrap()];
    let settings = Settings { to, timeout: Duration::from_secs(10), time_to_live: Duration::from_secs(3600) };
    let config = Config { connection: sim.connection(), replies: Some(settings), ..Config::for_tests() };
    let voice = Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() };
    Replies::new(&config, voice, sim.namespace(), &sim.supervisor)
}

async fn inbox(sim: &Sim) -> Vec<String> {
    let view = sim.view_of(INBOX).await;
    let messages = view["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().map(|message| message["subject"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn replies_go_on_after_a_connection_was_cut() {
    let sim = Sim::start().await;
    let replies = replies(&sim);
    let host = sim.connection().host().to_owned();
    soon(replies.send(&reply_for_tests(INBOX, "c-1"))).await;
    assert_eq!(inbox(&sim).await, ["delivered"]);
    soon(replies.send(&reply_for_tests(&format!("sb://{host}/{INBOX}"), "c-2"))).await;
    assert_eq!(inbox(&sim).await.len(), 2, "by the namespace's own address");
    sim.fault(json!({ "fault": "cut-connections" })).await;
    // The namespace waits a moment before it connects again: so the first replies may be given up.
    soon(async {
        let mut n = 3;
        while inbox(&sim).await.len() < 3 {
            replies.send(&reply_for_tests(INBOX, &format!("c-{n}"))).await;
            n += 1;
        }
    })
    .await;
    soon(replies.send(&reply_for_tests("nowhere", "c-1"))).await;
    let before = clock::now();
    soon(replies.send(&reply_for_tests("nowhere", "c-2"))).await;
    assert!(clock::now() - before < Duration::from_secs(1), "it was asked for once");
}

#[tokio::test]
async fn a_queue_that_looks_for_duplicates_takes_a_reply_once() {
    let sim = Sim::start_with(60.0, |bus| {
        for queue in &mut bus.entities.queues {
            queue.duplicate_window_seconds = Some(600.0);
        }
    })
    .await;
    // As after a restart: nobody remembers what was sent.
    for _ in 0..3 {
        let replies = replies(&sim);
        soon(replies.send(&reply_for_tests(INBOX, "c-1"))).await;
        replies.close();
    }
    soon(replies(&sim).send(&reply_for_tests(INBOX, "c-2"))).await;
    assert_eq!(inbox(&sim).await.len(), 2);
    let view: Json = sim.view_of(INBOX).await;
    assert_eq!(view["settled"]["duplicates"], 2, "{view}");
}
