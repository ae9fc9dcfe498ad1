//! Sessions: one holder, locks, order, waiting, state.

use std::time::Duration;

use bytes::Bytes;

use super::{ABANDON, Accept, Notice, Outcome, Refusal, Rig, START_MS, Wish, condition, id, message};
use crate::servicebus::config::{Entities, QueueSpec};

#[test]
fn a_session_has_one_holder() {
    let rig = Rig::sessions();
    let client = rig.connect();
    let (first, accept) = client.attach("Q", Wish::Session("d-1".to_owned()));
    let expected =
        Accept::Granted { session: Some("d-1".to_owned()), locked_until_ms: Some(START_MS + 60_000) };
    assert_eq!(accept, Ok(expected), "a session may be held before it has messages");
    let (_second, refused) = client.attach("q", Wish::Session("d-1".to_owned()));
    assert_eq!(condition(refused), Refusal::SESSION_CANNOT_BE_LOCKED);
    client.session("d-2");
    rig.broker.detach(first);
    client.session("d-1");
}

#[test]
fn a_session_comes_in_order_to_its_holder_only() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["a1", "a2"]);
    rig.send("b", &["b1"]);
    let (a, b) = (client.session("a"), client.session("b"));
    client.settle(a, "a1", &Outcome::Accepted);
    client.settle(b, "b1", &Outcome::Accepted);
    client.settle(a, "a2", &Outcome::Accepted);
    assert_eq!((rig.broker.next(a), rig.broker.next(b)), (None, None));
    let view = rig.broker.view("q").unwrap();
    assert_eq!((view.active, view.settled.completed), (0, 3));
}

#[test]
fn an_abandoned_message_comes_next_again() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1", "2"]);
    let link = client.session("a");
    client.settle(link, "1", &ABANDON);
    let again = rig.broker.next(link).unwrap();
    assert_eq!((id(&again), again.delivery_count), ("1", 1));
    rig.broker.settle(link, again.lock, &Outcome::Accepted).unwrap();
    client.settle(link, "2", &Outcome::Accepted);
}

#[test]
fn a_lock_that_expires_counts_and_tells_its_holder() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    rig.send("a", &["1", "2"]);
    let link = client.session("a");
    let lock = client.receive(link, "1");
    rig.seconds(59);
    assert_eq!(client.notices(), []);
    rig.seconds(1);
    let notices = client.notices();
    assert!(
        matches!(&notices[..], [Notice::Detach { link: lost, error }]
            if *lost == link && error.condition == Refusal::SESSION_LOCK_LOST),
        "{notices:?}"
    );
    let late = rig.broker.settle(link, lock, &Outcome::Accepted);
    assert_eq!(condition(late), Refusal::SESSION_LOCK_LOST);
    assert_eq!(rig.broker.next(link), None);
    rig.broker.detach(link);
    assert_eq!(condition(rig.broker.settle(link, lock, &Outcome::Accepted)), Refusal::MESSAGE_LOCK_LOST);
    let link = client.session("a");
    let again = rig.broker.next(link).unwrap();
    assert_eq!((id(&again), again.delivery_count), ("1", 1));
    assert_eq!(rig.broker.next(link).map(|next| next.delivery_count), Some(0), "2 was never delivered");
}

#[test]
fn a_lock_is_lost_when_it_expires_even_if_the_timer_is_late() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1"]);
    let link = client.session("a");
    let lock = client.receive(link, "1");
    if let super::Clock::Driven(now) = &rig.broker.shared.clock {
        now.fetch_add(60_000, std::sync::atomic::Ordering::SeqCst);
    }
    assert_eq!(condition(rig.broker.settle(link, lock, &Outcome::Accepted)), Refusal::SESSION_LOCK_LOST);
}

#[test]
fn a_renewed_lock_holds() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    rig.send("a", &["1"]);
    let link = client.session("a");
    let lock = client.receive(link, "1");
    rig.seconds(50);
    assert_eq!(rig.broker.renew_session("q", "a", Some(link)), Ok(START_MS + 110_000));
    rig.seconds(59);
    rig.broker.settle(link, lock, &Outcome::Accepted).unwrap();
    assert_eq!(client.notices(), []);
    rig.seconds(1);
    assert_eq!(client.notices().len(), 1);
    assert_eq!(condition(rig.broker.renew_session("q", "a", None)), Refusal::SESSION_LOCK_LOST);
    let other = client.session("a");
    assert_eq!(condition(rig.broker.renew_session("q", "a", Some(link))), Refusal::SESSION_LOCK_LOST);
    assert!(rig.broker.renew_session("q", "a", Some(other)).is_ok());
}

#[test]
fn the_end_of_a_link_or_connection_does_not_count() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1", "2"]);
    for cut in [false, true, false] {
        let other = rig.connect();
        let link = other.session("a");
        other.receive(link, "1");
        other.receive(link, "2");
        if cut { rig.broker.disconnect(other.id) } else { rig.broker.detach(link) }
    }
    let link = client.session("a");
    let counts: Vec<u32> =
        std::iter::from_fn(|| rig.broker.next(link)).map(|next| next.delivery_count).collect();
    assert_eq!(counts, [0, 0]);
    assert_eq!(rig.broker.view("q").unwrap().settled.returned, 6);
}

#[test]
fn abandoning_counts_and_releasing_does_not() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1"]);
    let link = client.session("a");
    client.settle(link, "1", &Outcome::Released);
    let abandoned = [false, true].map(|failed| Outcome::Modified { failed, undeliverable: false });
    client.settle(link, "1", &abandoned[0]);
    client.settle(link, "1", &abandoned[1]);
    assert_eq!(rig.broker.next(link).unwrap().delivery_count, 2);
}

#[test]
fn the_next_session_is_the_one_that_waits_longest() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("b", &["b1"]);
    rig.send("a", &["a1", "a2"]);
    let next = || match client.attach("q", Wish::Next { wait: Duration::ZERO }) {
        (link, Ok(Accept::Granted { session: Some(session), .. })) => (link, session),
        (_link, other) => panic!("{other:?}"),
    };
    let (b, first) = next();
    let (_a, second) = next();
    assert_eq!((first.as_str(), second.as_str()), ("b", "a"));
    rig.send("c", &["c1"]);
    rig.broker.detach(b);
    assert_eq!(next().1, "c", "b is at the end of the line now");
    assert_eq!(next().1, "b");
}

#[test]
fn those_who_wait_get_sessions_in_their_order() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    let (first, second) = (client.wait(60), client.wait(60));
    rig.send("a", &["1"]);
    rig.send("a", &["2"]);
    let granted = |link, session: &str| Notice::Granted {
        link,
        session: session.to_owned(),
        locked_until_ms: START_MS + 60_000,
    };
    assert_eq!(client.notices(), [granted(first, "a")]);
    rig.send("b", &["3"]);
    assert_eq!(client.notices(), [granted(second, "b")]);
    client.receive(first, "1");
    client.receive(second, "3");
}

#[test]
fn a_wait_ends_exactly_when_it_should() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    let link = client.wait(8);
    rig.broker.advance(Duration::from_millis(7_999));
    assert_eq!(client.notices(), []);
    rig.broker.advance(Duration::from_millis(1));
    let notices = client.notices();
    assert!(
        matches!(&notices[..], [Notice::Refused { link: refused, error }]
            if *refused == link && error.condition == Refusal::TIMEOUT),
        "{notices:?}"
    );
    rig.send("a", &["1"]);
    assert_eq!(client.notices(), [], "nobody waits any more");
    assert_eq!(rig.broker.view("q").unwrap().receivers, 0);
}

#[test]
fn a_session_that_somebody_lets_go_of_goes_to_who_waits() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    rig.send("a", &["1"]);
    let holder = client.session("a");
    client.receive(holder, "1");
    let waiting = client.wait(600);
    rig.seconds(60);
    let notices = client.notices();
    let [Notice::Detach { .. }, Notice::Granted { link, locked_until_ms, .. }] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!((*link, *locked_until_ms), (waiting, START_MS + 120_000));
    rig.broker.detach(waiting);
    assert_eq!(client.notices(), []);
}

#[test]
fn who_stops_waiting_gets_nothing() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    let gone = client.wait(60);
    rig.broker.detach(gone);
    rig.send("a", &["1"]);
    assert_eq!(client.notices(), []);
    client.session("a");
}

#[test]
fn state_belongs_to_the_session_and_needs_its_lock() {
    let rig = Rig::sessions();
    let client = rig.connect();
    assert_eq!(condition(rig.broker.session_state("q", "a")), Refusal::SESSION_LOCK_LOST);
    let link = client.session("a");
    assert_eq!(rig.broker.session_state("q", "a"), Ok(None));
    let state = Bytes::from_static(b"state");
    rig.broker.set_session_state("q", "a", Some(state.clone())).unwrap();
    let large = Bytes::from(vec![0; 256 * 1024 + 1]);
    let refused = rig.broker.set_session_state("q", "a", Some(large.clone()));
    assert_eq!(condition(refused), Refusal::TOO_LARGE);
    rig.broker.detach(link);
    assert_eq!(condition(rig.broker.set_session_state("q", "a", None)), Refusal::SESSION_LOCK_LOST);
    assert_eq!(rig.broker.view("q").unwrap().sessions, 1, "kept without messages");
    let link = client.session("a");
    assert_eq!(rig.broker.session_state("q", "a"), Ok(Some(state)));
    rig.broker.set_session_state("q", "a", Some(large.slice(1..))).unwrap();
    rig.broker.set_session_state("q", "a", None).unwrap();
    rig.broker.detach(link);
    let view = rig.broker.view("q").unwrap();
    assert_eq!((view.sessions, view.bytes), (0, 0));
}

#[test]
fn sessions_are_listed_with_messages_or_by_their_state() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("b", &["1"]);
    rig.send("a", &["2"]);
    client.session("c");
    rig.broker.set_session_state("q", "c", Some(Bytes::from_static(b"s"))).unwrap();
    let all = |since, skip, top| rig.broker.sessions("q", since, skip, top).unwrap();
    assert_eq!(all(None, 0, 10), ["a", "b"]);
    assert_eq!(all(None, 1, 10), ["b"]);
    assert_eq!(all(None, 0, 1), ["a"]);
    assert_eq!(all(Some(START_MS), 0, 10), ["c"]);
    assert_eq!(all(Some(START_MS + 1), 0, 10), Vec::<String>::new());
}

#[test]
fn receivers_must_fit_their_entity() {
    let rig = Rig::new(&Entities::queues([QueueSpec::with_sessions("q"), QueueSpec::new("p")]));
    let client = rig.connect();
    let refused = |entity: &str, wish| condition(client.attach(entity, wish).1);
    assert_eq!(refused("q", Wish::Plain), Refusal::NOT_ALLOWED);
    assert_eq!(refused("p", Wish::Session("a".to_owned())), Refusal::NOT_ALLOWED);
    assert_eq!(refused("p", Wish::Next { wait: Duration::ZERO }), Refusal::NOT_ALLOWED);
    assert_eq!(refused("x", Wish::Plain), Refusal::NOT_FOUND);
    assert_eq!(refused("q", Wish::Session("s".repeat(129))), Refusal::ARGUMENT);
    client.session(&"s".repeat(128));
    let unknown = rig.broker.attach_receiver(client.id + 1_000, 99_999, "p", Wish::Plain);
    assert_eq!(condition(unknown), Refusal::CONNECTION_FORCED);
    assert_eq!(rig.broker.counters().links_open, 1);
    assert_eq!(rig.broker.counters().refused[Refusal::NOT_ALLOWED], 3);
}

#[test]
fn messages_of_a_session_queue_need_a_session() {
    let rig = Rig::sessions();
    let refused = rig.broker.send("q", vec![message("a", "1"), super::plain("2")]);
    assert_eq!(condition(refused), Refusal::NOT_ALLOWED);
    assert_eq!(rig.broker.view("q").unwrap().active, 0, "all or nothing");
    let long = message(&"s".repeat(129), "1");
    assert_eq!(condition(rig.broker.send("q", vec![long])), Refusal::ARGUMENT);
}

#[test]
fn the_log_says_who_completed_what() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.send("a", &["1"]);
    let link = client.session("a");
    client.settle(link, "1", &ABANDON);
    rig.seconds(5);
    client.settle(link, "1", &Outcome::Accepted);
    let page = rig.broker.log_after(0);
    let events: Vec<_> = page.entries.iter().map(|entry| format!("{:?}", entry.event)).collect();
    assert_eq!(events, ["Delivered", "Abandoned", "Delivered", "Completed"]);
    let last = page.entries.last().unwrap();
    assert_eq!((last.link, last.session.as_deref(), last.sequence), (Some(link), Some("a"), 1));
    assert_eq!((last.message_id.as_deref(), last.delivery_count), (Some("1"), 1));
    assert_eq!((last.at_ms, &*last.entity, page.next), (START_MS + 5_000, "q", 5));
}
