//! Links and connections: quotas, idleness, faults, connections that take no notices.

use std::time::Duration;

use super::{ABANDON, Notice, Outcome, Refusal, Rig, Wish, condition};
use crate::servicebus::broker::Fault;

#[test]
fn an_entity_takes_so_many_receivers() {
    let rig = Rig::sessions();
    let client = rig.connect_with(100_000);
    rig.broker.order(Fault::ReceivesMax { receives: 3 }).unwrap();
    let first = client.session("a");
    client.wait(60);
    client.wait(60);
    let refused = client.attach("q", Wish::Session("b".to_owned())).1;
    assert_eq!(condition(refused), Refusal::QUOTA);
    client.plain("q/$DeadLetterQueue");
    rig.broker.detach(first);
    client.session("b");
}

#[test]
fn the_quota_is_that_of_the_service() {
    let rig = Rig::sessions();
    let client = rig.connect();
    for number in 0..5_000 {
        client.session(&format!("d-{number}"));
    }
    let refused = client.attach("q", Wish::Next { wait: Duration::ZERO }).1;
    assert_eq!(condition(refused), Refusal::QUOTA);
}

#[test]
fn an_idle_link_is_detached_though_its_lock_is_renewed() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    rig.send("a", &["1", "2"]);
    let link = client.session("a");
    for minute in 1..=10 {
        if minute == 5 {
            client.settle(link, "1", &Outcome::Accepted);
        }
        rig.seconds(55);
        rig.broker.renew_session("q", "a", Some(link)).unwrap();
    }
    assert_eq!(client.notices(), []);
    client.receive(link, "2");
    for _ in 0..12 {
        rig.seconds(50);
        if rig.broker.renew_session("q", "a", Some(link)).is_err() {
            break;
        }
    }
    let notices = client.notices();
    assert!(
        matches!(&notices[..], [Notice::Detach { error, .. }] if error.condition == Refusal::DETACH_FORCED),
        "{notices:?}"
    );
    let again = client.session("a");
    assert_eq!(rig.broker.next(again).unwrap().delivery_count, 0, "idleness does not count");
}

#[test]
fn the_idle_time_can_be_set_for_links_that_are_there() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    let link = client.session("a");
    rig.seconds(10);
    rig.broker.order(Fault::IdleDetach { ms: 15_000 }).unwrap();
    rig.seconds(4);
    assert_eq!(client.notices(), []);
    rig.seconds(1);
    assert!(matches!(&client.notices()[..], [Notice::Detach { link: idle, .. }] if *idle == link));
    assert_eq!(rig.broker.counters().idle_detached, 1);
    let waiting = client.wait(60);
    rig.seconds(30);
    assert_eq!(client.notices(), [], "who waits for a session is not idle");
    rig.broker.detach(waiting);
}

#[test]
fn a_lock_expires_on_order() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    rig.send("a", &["1"]);
    let expire = || rig.broker.order(Fault::ExpireLock { entity: "q".to_owned(), session: "a".to_owned() });
    assert_eq!(condition(expire()), Refusal::SESSION_LOCK_LOST);
    let link = client.session("a");
    client.receive(link, "1");
    assert_eq!(expire(), Ok(1));
    assert!(matches!(&client.notices()[..], [Notice::Detach { .. }]));
    let link = client.session("a");
    assert_eq!(rig.broker.next(link).unwrap().delivery_count, 1);
}

#[test]
fn operations_are_refused_on_order() {
    let rig = Rig::sessions();
    let client = rig.connect();
    rig.broker.order(Fault::Busy { operations: 3 }).unwrap();
    assert_eq!(condition(rig.broker.send("q", Vec::new())), Refusal::SERVER_BUSY);
    assert_eq!(condition(client.attach("q", Wish::Session("a".to_owned())).1), Refusal::SERVER_BUSY);
    assert_eq!(condition(rig.broker.renew_session("q", "a", None)), Refusal::SERVER_BUSY);
    client.session("a");
}

#[test]
fn delays_are_bounded() {
    let rig = Rig::plain();
    rig.broker.order(Fault::DelayAttach { ms: 20 }).unwrap();
    rig.broker.order(Fault::DelayDisposition { ms: 30 }).unwrap();
    rig.broker.order(Fault::TokenLifeMax { ms: Some(40) }).unwrap();
    assert_eq!(condition(rig.broker.order(Fault::DelayAttach { ms: 120_001 })), Refusal::ARGUMENT);
    let delays = (rig.broker.attach_delay(), rig.broker.disposition_delay(), rig.broker.token_life_max());
    let ms = Duration::from_millis;
    assert_eq!(delays, (ms(20), ms(30), Some(ms(40))));
}

#[test]
fn every_receiver_is_detached_on_order() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    rig.send("a", &["1"]);
    let link = client.session("a");
    client.receive(link, "1");
    let waiting = client.wait(60);
    let order = |condition: &str| rig.broker.order(Fault::DetachAll { condition: condition.to_owned() });
    assert_eq!(condition(order("amqp:nonsense")), Refusal::ARGUMENT);
    assert_eq!(order("amqp:link:detach-forced"), Ok(2));
    let mut told: Vec<_> = client
        .notices()
        .into_iter()
        .map(|notice| match notice {
            Notice::Detach { link, error } | Notice::Refused { link, error } => (link, error.condition),
            Notice::Granted { link, .. } => (link, "granted"),
            other => panic!("{other:?}"),
        })
        .collect();
    told.retain(|(_link, what)| *what != "granted");
    told.sort_unstable();
    assert_eq!(told, [(link, Refusal::DETACH_FORCED), (waiting, Refusal::DETACH_FORCED)]);
}

#[test]
fn a_frozen_connection_keeps_its_locks_until_they_expire() {
    let rig = Rig::sessions();
    let mut frozen = rig.connect();
    rig.send("a", &["1"]);
    let link = frozen.session("a");
    frozen.receive(link, "1");
    assert_eq!(rig.broker.order(Fault::FreezeConnections {}), Ok(1));
    assert_eq!(frozen.notices(), [Notice::Freeze]);
    let other = rig.connect();
    assert_eq!(
        condition(other.attach("q", Wish::Session("a".to_owned())).1),
        Refusal::SESSION_CANNOT_BE_LOCKED
    );
    rig.seconds(60);
    assert_eq!(frozen.notices(), [], "it is told nothing");
    let link = other.session("a");
    assert_eq!(rig.broker.next(link).unwrap().delivery_count, 1);
    assert_eq!(rig.broker.order(Fault::CutConnections {}), Ok(2));
    assert_eq!(frozen.notices(), [Notice::Disconnect { error: None }]);
}

#[test]
fn a_frozen_receiver_leaves_its_wake_up_to_others() {
    let rig = Rig::plain();
    let frozen = rig.connect();
    let slow = frozen.plain("q");
    assert_eq!(rig.broker.next(slow), None);
    rig.broker.order(Fault::FreezeConnections {}).unwrap();
    let mut client = rig.connect();
    let link = client.plain("q");
    assert_eq!(rig.broker.next(link), None);
    rig.send_plain(&["1"]);
    assert_eq!(client.notices(), [Notice::Ready { link }]);
}

#[test]
fn a_connection_that_takes_no_notices_is_cut() {
    let rig = Rig::sessions();
    let mut full = rig.connect_with(1);
    rig.send("a", &["1"]);
    rig.send("b", &["2"]);
    let (a, _b) = (full.session("a"), full.session("b"));
    full.receive(a, "1");
    rig.seconds(60);
    assert_eq!(full.notices().len(), 1, "the second finds no room");
    assert!(full.notices.is_closed() || full.notices.try_recv().is_err());
    let counters = rig.broker.counters();
    assert_eq!((counters.connections_open, counters.connections_cut, counters.links_open), (0, 1, 0));
    let other = rig.connect();
    other.session("a");
    other.session("b");
    let gone = rig.connect();
    let link = gone.session("c");
    drop(gone);
    rig.broker.order(Fault::ExpireLock { entity: "q".to_owned(), session: "c".to_owned() }).unwrap();
    rig.broker.pass(link);
    assert_eq!(rig.broker.counters().connections_open, 1, "nobody reads there any more");
}

#[test]
fn a_holder_is_told_once_and_only_when_it_asked_in_vain() {
    let rig = Rig::sessions();
    let mut client = rig.connect();
    let link = client.session("a");
    rig.send("a", &["1"]);
    assert_eq!(client.notices(), [], "it did not ask yet");
    let lock = client.receive(link, "1");
    assert_eq!(rig.broker.next(link), None);
    rig.broker.settle(link, lock, &ABANDON).unwrap();
    rig.send("a", &["2", "3"]);
    assert_eq!(client.notices(), [Notice::Ready { link }]);
    assert_eq!(rig.broker.next(link).map(|next| next.delivery_count), Some(1));
}
