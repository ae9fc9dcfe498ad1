//! Dead-letter queues: how messages come there, and what can be done with them.

use super::{ABANDON, Outcome, Refusal, Rig, START_MS, Wish, condition, id, message, plain};
use crate::servicebus::broker::{Delivery, Message};
use crate::servicebus::config::QueueSpec;

const DEAD: &str = "Q/$deadletterqueue";

fn dead_of(rig: &Rig) -> Vec<Delivery> {
    rig.broker.peek(DEAD, 0, 100, None).unwrap()
}

/// Reason and description of the only dead message.
fn why(rig: &Rig) -> (String, String) {
    let dead = dead_of(rig);
    let [delivery] = &dead[..] else { panic!("{dead:?}") };
    let dead_letter = delivery.dead_letter.clone().unwrap();
    assert_eq!(dead_letter.source, "q");
    (dead_letter.reason.unwrap_or_default(), dead_letter.description.unwrap_or_default())
}

#[test]
fn a_rejected_message_is_dead_lettered_with_reason_and_source() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1", "2"]);
    let link = client.session("a");
    let outcome = Outcome::Rejected {
        reason: Some("penstock-refused".to_owned()),
        description: Some("no such valve".to_owned()),
    };
    client.settle(link, "1", &outcome);
    assert_eq!(why(&rig), ("penstock-refused".to_owned(), "no such valve".to_owned()));
    client.settle(link, "2", &Outcome::Accepted);
    let view = rig.broker.view("q").unwrap();
    assert_eq!((view.active, view.dead, view.settled.dead_lettered), (0, 1, 1));
    let dead = client.plain(DEAD);
    let delivery = rig.broker.next(dead).unwrap();
    assert_eq!((delivery.sequence, delivery.enqueued_ms), (1, START_MS), "it keeps its number");
    assert_eq!(delivery.message.session_id.as_deref(), Some("a"));
    rig.broker.settle(dead, delivery.lock, &Outcome::Accepted).unwrap();
    assert_eq!(rig.broker.view("q").unwrap().dead, 0);
}

#[test]
fn too_many_failed_deliveries_dead_letter_a_message() {
    let rig = Rig::with(QueueSpec { max_delivery_count: 3, ..QueueSpec::with_sessions("q") });
    let client = rig.connect();
    rig.send("a", &["1", "2"]);
    let link = client.session("a");
    client.receive(link, "1");
    rig.seconds(60);
    rig.broker.detach(link);
    let link = client.session("a");
    client.settle(link, "1", &ABANDON);
    assert_eq!(rig.broker.view("q").unwrap().dead, 0);
    client.settle(link, "1", &ABANDON);
    client.receive(link, "2");
    let (reason, description) = why(&rig);
    assert_eq!(reason, "MaxDeliveryCountExceeded");
    assert!(description.contains("after 3 delivery attempts"), "{description}");
    assert_eq!(dead_of(&rig)[0].delivery_count, 3);
}

#[test]
fn an_old_message_is_dead_lettered_or_gone() {
    for dead_letter_on_expiry in [true, false] {
        let rig = Rig::with(QueueSpec {
            ttl_seconds: Some(10.0),
            dead_letter_on_expiry,
            ..QueueSpec::with_sessions("q")
        });
        rig.send("a", &["1"]);
        rig.broker.advance(std::time::Duration::from_millis(9_999));
        assert_eq!(rig.broker.view("q").unwrap().active, 1);
        rig.broker.advance(std::time::Duration::from_millis(1));
        let view = rig.broker.view("q").unwrap();
        assert_eq!((view.active, view.sessions), (0, 0));
        if dead_letter_on_expiry {
            assert_eq!(why(&rig).0, "TTLExpiredException");
        } else {
            assert_eq!((view.dead, view.settled.expired), (0, 1));
        }
    }
}

#[test]
fn the_shorter_time_to_live_counts() {
    let rig = Rig::with(QueueSpec { ttl_seconds: Some(10.0), ..QueueSpec::new("q") });
    let with_ttl = |id: &str, ms| Message { header_ttl_ms: Some(ms), ..plain(id) };
    rig.broker.send("q", vec![with_ttl("short", 5_000), with_ttl("long", 50_000)]).unwrap();
    rig.seconds(5);
    assert_eq!(rig.broker.peek("q", 0, 9, None).unwrap().iter().map(id).collect::<Vec<_>>(), ["long"]);
    rig.seconds(5);
    assert_eq!(rig.broker.view("q").unwrap().active, 0);
}

#[test]
fn a_locked_message_expires_when_its_lock_comes_off_and_a_deferred_one_never() {
    let rig = Rig::with(QueueSpec {
        ttl_seconds: Some(10.0),
        dead_letter_on_expiry: true,
        ..QueueSpec::with_sessions("q")
    });
    let client = rig.connect();
    rig.send("a", &["done", "abandoned", "deferred"]);
    let link = client.session("a");
    let done = client.receive(link, "done");
    let abandoned = client.receive(link, "abandoned");
    client.settle(link, "deferred", &super::DEFER);
    rig.seconds(20);
    assert_eq!(rig.broker.view("q").unwrap().dead, 0);
    rig.broker.settle(link, done, &Outcome::Accepted).unwrap();
    rig.broker.settle(link, abandoned, &ABANDON).unwrap();
    assert_eq!(why(&rig).0, "TTLExpiredException");
    assert_eq!(rig.broker.next(link), None);
    let view = rig.broker.view("q").unwrap();
    assert_eq!((view.deferred, view.settled.completed), (1, 1));
}

#[test]
fn a_dead_letter_queue_is_a_plain_queue_that_nothing_leaves_on_its_own() {
    let rig =
        Rig::with(QueueSpec { max_delivery_count: 1, ttl_seconds: Some(3_600.0), ..QueueSpec::new("q") });
    let client = rig.connect();
    rig.send_plain(&["1"]);
    let link = client.plain("q");
    client.settle(link, "1", &ABANDON);
    assert_eq!(condition(client.attach(DEAD, Wish::Session("a".to_owned())).1), Refusal::NOT_ALLOWED);
    assert_eq!(condition(rig.broker.send(DEAD, vec![message("a", "2")])), Refusal::NOT_ALLOWED);
    assert_eq!(condition(rig.broker.attach_sender(DEAD)), Refusal::NOT_ALLOWED);
    let dead = client.plain(DEAD);
    for _ in 0..5 {
        client.settle(dead, "1", &ABANDON);
    }
    rig.seconds(7_200);
    rig.broker.detach(dead);
    let dead = client.plain(DEAD);
    let lock = client.receive(dead, "1");
    let rejected = Outcome::Rejected { reason: None, description: None };
    assert_eq!(condition(rig.broker.settle(dead, lock, &rejected)), Refusal::NOT_ALLOWED);
    rig.broker.settle(dead, lock, &Outcome::Accepted).unwrap();
    assert_eq!(dead_of(&rig), []);
}
