//! Queues without sessions: peek-lock, wake-ups, deferring, peeking, scheduling.

use super::{ABANDON, DEFER, Notice, Outcome, Refusal, Rig, START_MS, condition, id, plain};
use crate::servicebus::broker::{Message, MessageState};

#[test]
fn messages_are_locked_one_by_one() {
    let rig = Rig::plain();
    let mut client = rig.connect();
    rig.send_plain(&["1", "2"]);
    let link = client.plain("q");
    let (first, second) = (client.receive(link, "1"), client.receive(link, "2"));
    rig.seconds(30);
    assert_eq!(rig.broker.renew_lock("q", &[second]), Ok(vec![START_MS + 90_000]));
    rig.seconds(30);
    assert_eq!(client.notices(), [], "a link without sessions stays attached");
    assert_eq!(condition(rig.broker.settle(link, first, &Outcome::Accepted)), Refusal::MESSAGE_LOCK_LOST);
    assert_eq!(condition(rig.broker.renew_lock("q", &[second, first])), Refusal::MESSAGE_LOCK_LOST);
    rig.broker.settle(link, second, &Outcome::Accepted).unwrap();
    let again = rig.broker.next(link).unwrap();
    assert_eq!((id(&again), again.delivery_count), ("1", 1));
    assert_eq!(again.locked_until_ms, START_MS + 120_000);
}

#[test]
fn a_lock_belongs_to_its_link() {
    let rig = Rig::plain();
    let client = rig.connect();
    rig.send_plain(&["1"]);
    let (one, other) = (client.plain("q"), client.plain("q"));
    let lock = client.receive(one, "1");
    assert_eq!(condition(rig.broker.settle(other, lock, &Outcome::Accepted)), Refusal::MESSAGE_LOCK_LOST);
    rig.broker.settle(one, lock, &Outcome::Accepted).unwrap();
    assert_eq!(condition(rig.broker.settle(one, lock, &Outcome::Accepted)), Refusal::MESSAGE_LOCK_LOST);
}

#[test]
fn a_message_wakes_one_receiver_and_passes_on_to_another() {
    let rig = Rig::plain();
    let mut client = rig.connect();
    let (one, other) = (client.plain("q"), client.plain("q"));
    assert_eq!((rig.broker.next(one), rig.broker.next(other)), (None, None));
    rig.send_plain(&["1"]);
    assert_eq!(client.notices(), [Notice::Ready { link: one }]);
    rig.broker.pass(one);
    assert_eq!(client.notices(), [Notice::Ready { link: other }], "the first had no credit any more");
    client.settle(other, "1", &Outcome::Accepted);
    assert_eq!(rig.broker.next(other), None);
    rig.send_plain(&["2", "3"]);
    assert_eq!(client.notices(), [Notice::Ready { link: other }], "the first does not ask");
    assert_eq!(rig.broker.next(one).as_ref().map(id), Some("2"));
    rig.broker.detach(other);
    assert_eq!(rig.broker.next(one).as_ref().map(id), Some("3"));
}

#[test]
fn a_receiver_that_goes_leaves_its_wake_up_to_the_next() {
    let rig = Rig::plain();
    let mut client = rig.connect();
    let (one, other) = (client.plain("q"), client.plain("q"));
    assert_eq!((rig.broker.next(one), rig.broker.next(other)), (None, None));
    rig.send_plain(&["1"]);
    rig.broker.detach(one);
    assert_eq!(client.notices(), [Notice::Ready { link: one }, Notice::Ready { link: other }]);
    client.receive(other, "1");
}

#[test]
fn what_is_settled_by_its_delivery_is_gone() {
    let rig = Rig::plain();
    let client = rig.connect();
    rig.send_plain(&["1"]);
    let link = client.plain("q");
    let delivery = rig.broker.next_settled(link).unwrap();
    assert_eq!((id(&delivery), delivery.lock), ("1", [0; 16]));
    let view = rig.broker.view("q").unwrap();
    assert_eq!((view.active, view.locked, view.settled.completed), (0, 0, 1));
}

#[test]
fn a_deferred_message_is_received_by_its_number_only() {
    let rig = Rig::plain();
    let client = rig.connect();
    let numbers = rig.send_plain(&["1", "2"]);
    let link = client.plain("q");
    client.settle(link, "1", &DEFER);
    client.settle(link, "2", &Outcome::Accepted);
    assert_eq!(rig.broker.next(link), None);
    let missing = rig.broker.receive_by_sequence("q", &numbers, None, false);
    assert_eq!(condition(missing), Refusal::MESSAGE_NOT_FOUND);
    let by_number = || rig.broker.receive_by_sequence("q", &numbers[..1], None, false).unwrap().remove(0);
    let delivery = by_number();
    assert_eq!((id(&delivery), delivery.state), ("1", MessageState::Deferred));
    let locked = rig.broker.receive_by_sequence("q", &numbers[..1], None, false);
    assert_eq!(condition(locked), Refusal::MESSAGE_NOT_FOUND);
    rig.broker.update_disposition("q", &[delivery.lock], &ABANDON).unwrap();
    assert_eq!(rig.broker.next(link), None, "it stays deferred");
    let delivery = by_number();
    assert_eq!(delivery.delivery_count, 1);
    rig.broker.update_disposition("q", &[delivery.lock], &Outcome::Accepted).unwrap();
    assert_eq!(rig.broker.view("q").unwrap().deferred, 0);
    let gone = rig.broker.update_disposition("q", &[delivery.lock], &Outcome::Accepted);
    assert_eq!(condition(gone), Refusal::MESSAGE_LOCK_LOST);
}

#[test]
fn deferred_messages_of_a_session_need_its_lock() {
    let rig = Rig::sessions();
    let client = rig.connect();
    let numbers = rig.send("a", &["1"]);
    let link = client.session("a");
    client.settle(link, "1", &DEFER);
    let receive = |session| rig.broker.receive_by_sequence("q", &numbers, session, false);
    assert_eq!(condition(receive(None)), Refusal::SESSION_LOCK_LOST);
    let other = client.session("b");
    assert_eq!(condition(receive(Some("b"))), Refusal::MESSAGE_NOT_FOUND);
    rig.broker.detach(other);
    let delivery = receive(Some("a")).unwrap().remove(0);
    rig.broker.detach(link);
    let lost = rig.broker.update_disposition("q", &[delivery.lock], &Outcome::Accepted);
    assert_eq!(condition(lost), Refusal::MESSAGE_LOCK_LOST, "it went back with the session");
    client.session("a");
    let delivery = rig.broker.receive_by_sequence("q", &numbers, Some("a"), true).unwrap().remove(0);
    assert_eq!(delivery.delivery_count, 0);
    assert_eq!(rig.broker.view("q").unwrap().messages.len(), 0);
}

#[test]
fn peeking_shows_everything_and_locks_nothing() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1", "2", "3"]);
    rig.send("b", &["4"]);
    let later = Message { scheduled_ms: Some(START_MS + 1_000), ..super::message("a", "5") };
    rig.broker.schedule("q", vec![later]).unwrap();
    let link = client.session("a");
    client.settle(link, "1", &DEFER);
    client.receive(link, "2");
    let peek = |from, count, session| -> Vec<(String, MessageState)> {
        let peeked = rig.broker.peek("q", from, count, session).unwrap();
        peeked.iter().map(|delivery| (id(delivery).to_owned(), delivery.state)).collect()
    };
    let active = |id: &str| (id.to_owned(), MessageState::Active);
    let all = peek(1, 10, None);
    let states = [
        ("1".to_owned(), MessageState::Deferred),
        active("2"),
        active("3"),
        active("4"),
        ("5".to_owned(), MessageState::Scheduled),
    ];
    assert_eq!(all, states);
    assert_eq!(peek(2, 2, None), [active("2"), active("3")]);
    assert_eq!(peek(1, 10, Some("b")), [active("4")]);
    assert_eq!(peek(1, 10, Some("x")), []);
    assert_eq!(rig.broker.view("q").unwrap().locked, 1);
}

#[test]
fn a_scheduled_message_comes_when_it_is_due_under_a_new_number() {
    let rig = Rig::plain();
    let mut client = rig.connect();
    let link = client.plain("q");
    assert_eq!(rig.broker.next(link), None);
    let later = |id: &str| Message { scheduled_ms: Some(START_MS + 10_000), ..plain(id) };
    let numbers = rig.broker.schedule("q", vec![later("a"), later("b")]).unwrap();
    rig.send_plain(&["now"]);
    client.settle(link, "now", &Outcome::Accepted);
    rig.broker.cancel("q", &numbers[1..]).unwrap();
    assert_eq!(condition(rig.broker.cancel("q", &numbers)), Refusal::MESSAGE_NOT_FOUND);
    assert_eq!(rig.broker.next(link), None);
    client.notices();
    rig.seconds(10);
    assert_eq!(client.notices(), [Notice::Ready { link }]);
    let delivery = rig.broker.next(link).unwrap();
    assert_eq!((id(&delivery), delivery.enqueued_ms), ("a", START_MS + 10_000));
    assert!(delivery.sequence > numbers[1] + 1, "{}", delivery.sequence);
    assert_eq!(condition(rig.broker.cancel("q", &numbers[..1])), Refusal::MESSAGE_NOT_FOUND);
    assert_eq!(condition(rig.broker.schedule("q", vec![plain("x")])), Refusal::ARGUMENT);
}
