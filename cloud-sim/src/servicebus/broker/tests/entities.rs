//! Entities: names, topics and filters, duplicates, deletion, bounds.

use super::{Notice, Outcome, Refusal, Rig, Wish, condition, id, message, plain};
use crate::servicebus::broker::{Message, Simple};
use crate::servicebus::config::{Entities, QueueSpec};

fn topics() -> Entities {
    let text = r#"{"topics": [{"name": "Orders", "duplicate_window_seconds": 60, "subscriptions": [
        {"name": "all"},
        {"name": "north", "filter": {"properties": {"site": "north"}}},
        {"name": "devices", "sessions": true, "filter": {"subject": "cmd"}}
    ]}]}"#;
    serde_json::from_str(text).unwrap()
}

fn ids(rig: &Rig, entity: &str) -> Vec<String> {
    rig.broker.peek(entity, 0, 100, None).unwrap().iter().map(|delivery| id(delivery).to_owned()).collect()
}

#[test]
fn every_subscription_gets_what_its_filter_wants() {
    let rig = Rig::new(&topics());
    let site = |id: &str, site: &str| Message {
        application: vec![("site".to_owned(), Simple::Text(site.to_owned()))],
        ..plain(id)
    };
    let cmd = Message { subject: Some("cmd".to_owned()), ..message("d-1", "3") };
    rig.broker.send("orders", vec![site("1", "north"), site("2", "south"), cmd]).unwrap();
    assert_eq!(ids(&rig, "orders/subscriptions/all"), ["1", "2", "3"]);
    assert_eq!(ids(&rig, "Orders/Subscriptions/North"), ["1"]);
    assert_eq!(ids(&rig, "orders/subscriptions/devices"), ["3"]);
    let client = rig.connect();
    let (link, _accept) = client.attach("orders/subscriptions/devices", Wish::Session("d-1".to_owned()));
    client.settle(link, "3", &Outcome::Rejected { reason: None, description: None });
    assert_eq!(ids(&rig, "orders/subscriptions/devices/$DeadLetterQueue"), ["3"]);
    assert_eq!(ids(&rig, "orders/subscriptions/all"), ["1", "2", "3"], "copies are independent");
}

#[test]
fn a_message_without_session_is_dead_lettered_where_sessions_are_required() {
    let rig = Rig::new(&topics());
    rig.broker.send("orders", vec![Message { subject: Some("cmd".to_owned()), ..plain("1") }]).unwrap();
    assert_eq!(ids(&rig, "orders/subscriptions/devices"), Vec::<String>::new());
    assert_eq!(ids(&rig, "orders/subscriptions/devices/$deadletterqueue"), ["1"]);
}

#[test]
fn nothing_is_received_from_a_topic_and_nothing_sent_to_a_subscription() {
    let rig = Rig::new(&topics());
    let client = rig.connect();
    assert_eq!(condition(client.attach("orders", Wish::Plain).1), Refusal::NOT_ALLOWED);
    let sent = rig.broker.send("orders/subscriptions/all", vec![plain("1")]);
    assert_eq!(condition(sent), Refusal::NOT_ALLOWED);
    assert!(rig.broker.attach_sender("ORDERS").is_ok());
    assert_eq!(rig.broker.entities().len(), 4);
}

#[test]
fn a_scheduled_message_of_a_topic_reaches_its_subscriptions_when_due() {
    let rig = Rig::new(&topics());
    let later = Message { scheduled_ms: Some(super::START_MS + 1_000), ..plain("1") };
    rig.broker.schedule("orders", vec![later]).unwrap();
    assert_eq!(ids(&rig, "orders/subscriptions/all"), Vec::<String>::new());
    assert_eq!(rig.broker.view("orders").unwrap().scheduled, 1);
    rig.seconds(1);
    assert_eq!(ids(&rig, "orders/subscriptions/all"), ["1"]);
}

#[test]
fn a_message_id_is_taken_once_within_the_window() {
    let rig = Rig::with(QueueSpec { duplicate_window_seconds: Some(30.0), ..QueueSpec::new("q") });
    let first = rig.send_plain(&["a", "b", "a"]);
    assert_eq!(first, [1, 2, 1]);
    rig.seconds(29);
    assert_eq!(rig.send_plain(&["a"]), [1]);
    rig.seconds(1);
    assert_eq!(rig.send_plain(&["a", "a"]), [3, 3]);
    assert_eq!(ids(&rig, "q"), ["a", "b", "a"]);
    assert_eq!(rig.broker.view("q").unwrap().settled.duplicates, 3);
    let topic = Rig::new(&topics());
    for _ in 0..2 {
        topic.broker.send("orders", vec![plain("x")]).unwrap();
    }
    assert_eq!(ids(&topic, "orders/subscriptions/all"), ["x"]);
}

#[test]
fn an_entity_that_is_made_again_starts_again() {
    let rig = Rig::with(QueueSpec { ttl_seconds: Some(5.0), ..QueueSpec::with_sessions("q") });
    let mut client = rig.connect();
    assert_eq!(rig.send("a", &["1", "2"]), [1, 2]);
    let link = client.session("a");
    let lock = client.receive(link, "1");
    assert!(rig.broker.delete("Q"));
    assert!(!rig.broker.delete("q"));
    let notices = client.notices();
    assert!(
        matches!(&notices[..], [Notice::Detach { link: lost, error }]
            if *lost == link && error.condition == Refusal::NOT_FOUND),
        "{notices:?}"
    );
    assert_eq!(condition(rig.broker.send("q", vec![message("a", "1")])), Refusal::NOT_FOUND);
    assert_eq!(condition(rig.broker.settle(link, lock, &Outcome::Accepted)), Refusal::MESSAGE_LOCK_LOST);
    rig.broker.create(&Entities::queues([QueueSpec::with_sessions("q")])).unwrap();
    assert_eq!(rig.send("a", &["3"]), [1]);
    rig.seconds(100);
    assert_eq!(ids(&rig, "q"), ["3"], "nothing of the old one strikes the new one");
    rig.broker.detach(link);
    client.session("a");
    rig.broker.create(&Entities::queues([QueueSpec::new("q")])).unwrap();
    assert_eq!(ids(&rig, "q"), Vec::<String>::new(), "created over the old one");
    let total = rig.broker.with(|state, _now| (state.messages, state.bytes, state.queues.len()));
    assert_eq!(total, (0, 0, 2));
}

#[test]
fn deleting_a_topic_deletes_its_subscriptions() {
    let rig = Rig::new(&topics());
    rig.broker.send("orders", vec![plain("1")]).unwrap();
    assert!(!rig.broker.delete("orders/subscriptions/all"), "only with its topic");
    assert!(rig.broker.delete("orders"));
    assert_eq!(rig.broker.entities(), Vec::<String>::new());
    let left = rig.broker.with(|state, _now| (state.messages, state.bytes, state.queues.len()));
    assert_eq!(left, (0, 0, 0));
}

#[test]
fn what_finds_no_room_is_refused() {
    let rig = Rig::plain();
    let large = Message { bare: vec![0; 1 << 20].into(), ..plain("1") };
    let mut sent = 0;
    let refused = loop {
        match rig.broker.send("q", vec![large.clone()]) {
            Ok(_) => sent += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.condition, Refusal::QUOTA);
    assert!((1_000..1_024).contains(&sent), "{sent}");
}

#[test]
fn too_many_entities_are_refused() {
    let rig = Rig::plain();
    let many = Entities::queues((0..1_000).map(|number| QueueSpec::new(format!("n{number}"))));
    assert!(rig.broker.create(&many).is_err(), "q is there already");
    assert!(rig.broker.delete("q"));
    rig.broker.create(&many).unwrap();
}
