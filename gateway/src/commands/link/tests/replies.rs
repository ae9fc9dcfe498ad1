//! Replies: before the settlement, again after whatever came in between, and never in the way of commands.

use std::time::Duration;

use super::namespace::MemoryCloud;
use super::{Bench, complete};
use crate::commands::config::Config;
use crate::commands::message::{Body, Disposition, Outgoing, Received};
use crate::commands::replies::Settings;
use crate::mqtt::Fate;

const INBOX: &str = "replies";

fn ask(received: &mut Received) {
    received.reply_to = Some(INBOX.to_owned());
    received.reply_to_session_id = Some("desk-3".to_owned());
}

fn on(config: &mut Config) {
    let to = vec![INBOX.parse().expect("a pattern"), "nowhere".parse().expect("a pattern")];
    config.replies =
        Some(Settings { to, timeout: Duration::from_secs(1), time_to_live: Duration::from_secs(3600) });
}

fn start() -> Bench {
    let bench = Bench::with(on);
    bench.cloud.make_inbox(INBOX);
    bench
}

/// What of replies is compared: correlation, session, status, id and body.
fn told(replies: &[Outgoing]) -> Vec<[String; 5]> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let told = |reply: &Outgoing| {
        [
            text(&reply.correlation_id),
            text(&reply.session_id),
            text(&reply.subject),
            text(&reply.message_id),
            String::from_utf8(reply.body.clone()).expect("JSON"),
        ]
    };
    replies.iter().map(told).collect()
}

#[tokio::test]
async fn the_reply_goes_out_before_the_message_is_settled() {
    let bench = start();
    bench.cloud.hold_replies(true);
    bench.cloud.send("d1", "c-1", ask);
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    bench.until(|bench| bench.events() == 1).await;
    assert!(bench.cloud.settled().is_empty(), "the reply is waited for");
    bench.cloud.hold_replies(false);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    let replies = told(&bench.cloud.inbox(INBOX));
    let [[correlation, session, status, _, _]] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!([&**correlation, &**session, &**status], ["c-1", "desk-3", "delivered"]);
}

#[tokio::test]
async fn what_is_no_command_is_replied_to_as_well() {
    let bench = start();
    bench.cloud.send("d1", "c-1", |received| {
        ask(received);
        received.body = Body::Other("a map");
    });
    bench.fleet.come("d1");
    assert!(matches!(&bench.settled(1).await[0].1, Disposition::DeadLetter { .. }));
    assert_eq!(told(&bench.cloud.inbox(INBOX))[0][2], "rejected");
}

#[tokio::test]
async fn a_reply_whose_message_was_not_settled_is_sent_again_as_it_was() {
    let bench = start();
    bench.cloud.lose_settlements(true);
    bench.cloud.send("d1", "c-1", ask);
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Refused { reason: 0x87 });
    bench.until(|bench| !bench.cloud.inbox(INBOX).is_empty()).await;
    // After a restart there is the record alone.
    let bench = bench.restart_with(on).await;
    let before = bench.cloud.inbox(INBOX).len();
    bench.cloud.lose_settlements(false);
    bench.fleet.come("d1");
    assert!(matches!(&bench.settled(1).await[0].1, Disposition::DeadLetter { .. }));
    assert!(bench.fleet.try_sent().is_none(), "it is not published again");
    let mut replies = told(&bench.cloud.inbox(INBOX));
    assert_eq!(replies.len(), before + 1);
    for reply in &mut replies {
        // How often Service Bus has tried is another number by then.
        let mut body: serde_json::Value = serde_json::from_str(&reply[4]).expect("JSON");
        assert!(body.as_object_mut().is_some_and(|body| body.remove("deliveryCount").is_some()));
        reply[4] = body.to_string();
    }
    replies.dedup();
    assert_eq!(replies.len(), 1, "with the same id and the same content: {replies:#?}");
    assert_eq!(replies[0][2], "rejected");
    assert!(replies[0][4].contains(r#""code":135"#), "{replies:?}");
}

#[tokio::test]
async fn a_lock_lost_while_the_reply_is_on_its_way_settles_by_the_next_link() {
    let bench = start();
    bench.cloud.hold_replies(true);
    bench.cloud.send("d1", "c-1", ask);
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    bench.until(|bench| bench.events() == 1).await;
    bench.cloud.lose_lock("d1");
    bench.cloud.hold_replies(false);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert_eq!(bench.events(), 1);
    let mut replies = told(&bench.cloud.inbox(INBOX));
    assert!(!replies.is_empty());
    replies.dedup_by(|one, other| one[3] == other[3]);
    assert_eq!(replies.len(), 1, "one id: {replies:#?}");
}

#[tokio::test]
async fn a_reply_that_cannot_be_sent_holds_no_command_up_for_long() {
    let bench = start();
    bench.cloud.hold_replies(true);
    bench.fleet.come("d1");
    let asks = |to: &'static str| move |received: &mut Received| received.reply_to = Some(to.to_owned());
    bench.cloud.send("d1", "taken by nobody", asks(INBOX));
    bench.cloud.send("d1", "not there", asks("nowhere"));
    bench.cloud.send("d1", "not allowed", asks("others"));
    bench.cloud.send("d1", "not here", asks("sb://other.servicebus.windows.net/replies"));
    bench.cloud.send("d1", "no name", asks("a b"));
    bench.cloud.send("d1", "plain", |_| ());
    for _ in 0..6 {
        bench.sent().await.end(Fate::Acknowledged);
    }
    let expected = ["taken by nobody", "not there", "not allowed", "not here", "no name", "plain"];
    assert_eq!(bench.settled(6).await, expected.map(complete));
    assert_eq!((bench.events(), bench.cloud.inbox(INBOX).len()), (6, 0));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_reply() {
    let bench = start();
    bench.cloud.hold_replies(true);
    bench.cloud.send("d1", "c-1", ask);
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    bench.until(|bench| bench.events() == 1).await;
    bench.stop().await;
    assert_eq!((bench.cloud.settled(), bench.handle.status().pending), (vec![], 0));
    bench.cloud.hold_replies(false);
    let bench = bench.restart_with(on).await;
    bench.fleet.come("d1");
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert_eq!((bench.cloud.inbox(INBOX).len(), bench.events()), (1, 1));
}

#[tokio::test]
async fn without_the_section_nothing_is_sent() {
    let bench = Bench::open(tempfile::tempdir().expect("a folder"), MemoryCloud::default(), |_| ());
    bench.cloud.make_inbox(INBOX);
    bench.cloud.send("d1", "c-1", ask);
    bench.fleet.come("d1");
    bench.sent().await.end(Fate::Acknowledged);
    assert_eq!(bench.settled(1).await, [complete("c-1")]);
    assert!(bench.cloud.inbox(INBOX).is_empty());
}
