//! A poster at work on a real outbox, against a queue in memory.

mod harness;

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::harness::{Bus, Running, Site, command, to, until};
use crate::alerts::Trouble;
use crate::alerts::reaction::{Reaction, Target};
use crate::commands::{Outgoing, Value, Why};
use crate::outbox::{CloudEvent, Encoded};
use crate::supervise::clock;

/// Commands of one device, with bodies from 1 on.
fn commands(device: &str, count: u32) -> Vec<Reaction<'static>> {
    (1..=count).map(|number| command(device, number, &number.to_string())).collect()
}

fn id(message: &Outgoing) -> String {
    message.message_id.clone().unwrap()
}

/// Waits until so many were accepted.
fn wait_accepted(bus: &Bus, count: usize) {
    until("they are accepted", || bus.accepted().len() >= count);
}

#[test]
fn a_command_says_whom_it_is_for_and_what_asked_for_it() {
    let (site, bus) = (Site::new(), Bus::new());
    let running = site.start(&bus);
    let asked = command("pump-7", 1, r#"{"speed":0}"#);
    running.react(std::slice::from_ref(&asked));
    running.wait_done();
    let [sent] = &bus.accepted()[..] else { panic!("one") };
    let life = sent.time_to_live.unwrap();
    assert!(life <= Duration::from_secs(60) && life > Duration::from_secs(20), "{life:?}");
    let traceparent = Value::Text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned());
    let expected = Outgoing {
        message_id: Some("a1-00000000000000000000000000000001:1:stop".to_owned()),
        session_id: Some("pump-7".to_owned()),
        subject: Some("set-speed".to_owned()),
        content_type: Some("application/json".to_owned()),
        correlation_id: Some("a1-00000000000000000000000000000001".to_owned()),
        time_to_live: Some(life),
        properties: vec![
            ("penstock-origin".to_owned(), Value::Text("site-7/00c0ffee12345678/3/2/1041".to_owned())),
            ("traceparent".to_owned(), traceparent),
        ],
        body: br#"{"speed":0}"#.to_vec(),
        ..Outgoing::default()
    };
    assert_eq!(*sent, expected);
    let status = running.post.status();
    assert_eq!((status.sent, status.connected, status.pending), (1, true, 0));
    running.stop();
}

#[test]
fn what_is_for_others_is_passed_over() {
    let (site, bus) = (Site::new(), Bus::new());
    let running = site.start(&bus);
    let mut events = Encoded::default();
    let name = ("a1-1:1".to_owned(), "io.penstock.alert.raised.v1".to_owned());
    let event = CloudEvent::new("site-7", name, "info", clock::unix_ms(), 1);
    event.push(penstock_proto::Lane::Alerts, "pump-7", &mut events);
    running.submit(&events);
    let mqtt = Target::Mqtt {
        topic: "devices/pump-7/stop".into(),
        payload: "{}".into(),
        qos: 1,
        retain: false,
        content_type: "application/json".into(),
    };
    running.react(&[
        Reaction { target: mqtt, ..command("pump-7", 1, "") },
        Reaction { target: to("gone-from-the-configuration", "0"), ..command("pump-7", 2, "") },
        Reaction { target: to("SITE-Commands", "1"), ..command("pump-7", 3, "") },
    ]);
    running.wait_done();
    assert_eq!(bus.bodies(), ["1"], "names of entities have no case");
    running.stop();
}

#[test]
fn what_was_accepted_is_not_sent_again_after_a_restart() {
    let (site, bus) = (Site::new(), Bus::new());
    let running = site.start(&bus);
    running.react(&commands("pump-7", 10));
    running.wait_done();
    running.stop();
    let running = site.start(&bus);
    running.react(&[command("pump-7", 11, "11")]);
    running.wait_done();
    running.stop();
    assert_eq!(bus.bodies(), (1..=11).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Nothing is lost, devices keep their order, and what comes twice has the same id and says the same.
fn check_faults(seed: u64) {
    let (site, bus) = (Site::new(), Bus::faulty(seed, 8));
    let mut random = StdRng::seed_from_u64(seed);
    let mut raised: HashMap<String, Vec<String>> = HashMap::new();
    let mut number = 0;
    let mut running: Option<Running> = None;
    for _ in 0..random.random_range(3..8) {
        let at_work = running.take().unwrap_or_else(|| site.start(&bus));
        let mut asked = Vec::new();
        for _ in 0..random.random_range(1..60) {
            number += 1;
            let device = format!("pump-{}", random.random_range(0..6));
            let reaction = command(&device, number, &number.to_string());
            raised.entry(device).or_default().push(reaction.id.to_string());
            asked.push(reaction);
        }
        at_work.react(&asked);
        // It stops in the middle of it all now and then.
        if random.random_range(0..3) == 0 {
            at_work.stop();
        } else {
            running = Some(at_work);
        }
    }
    let running = running.unwrap_or_else(|| site.start(&bus));
    running.wait_done();
    running.stop();
    let (mut seen, mut arrived) = (HashMap::new(), HashMap::<String, Vec<String>>::new());
    for message in bus.accepted() {
        let said = Outgoing { time_to_live: None, ..message };
        match seen.get(&id(&said)) {
            Some(before) => assert_eq!(*before, said, "seed {seed}: one id, one content"),
            None => {
                arrived.entry(said.session_id.clone().unwrap()).or_default().push(id(&said));
                seen.insert(id(&said), said);
            }
        }
    }
    assert_eq!(arrived, raised, "seed {seed}");
}

#[test]
fn nothing_is_lost_and_devices_keep_their_order_whatever_fails() {
    for _ in 0..10 {
        check_faults(rand::random());
    }
}

#[test]
fn an_outage_keeps_a_command_for_as_long_as_somebody_wants_it() {
    let (site, bus) = (Site::new(), Bus::new());
    bus.links(Some(Why::Lost));
    let running = site.start(&bus);
    let now_ms = clock::unix_ms();
    let brief = |number| Reaction { expires_ms: now_ms + 50, ..command("pump-7", number, "too late") };
    // More than are in hand at a time: the lane moves on all the same.
    running.react(&(1..=200).map(brief).collect::<Vec<_>>());
    running.react(&[command("pump-7", 201, "in time")]);
    until("they are passed over", || running.post.status().expired == 200);
    let status = running.post.status();
    assert_eq!((status.backlog, status.pending, status.connected), (1, 1, false));
    assert!(status.held_since_ms.is_some() && status.last_error.is_some());
    bus.links(None);
    running.wait_done();
    assert_eq!(bus.bodies(), ["in time"]);
    assert_eq!(running.post.status().held_since_ms, None);
    running.stop();
}

#[test]
fn what_somebody_has_to_mend_is_waited_for() {
    for (why, trouble) in [(Why::NoEntity, Trouble::Configuration), (Why::NotAllowed, Trouble::Credential)] {
        let (site, bus) = (Site::new(), Bus::new());
        bus.links(Some(why));
        let running = site.start(&bus);
        running.react(&commands("pump-7", 3));
        until("it waits", || running.post.status().held == Some(trouble));
        assert_eq!(running.post.status().backlog, 3);
        bus.links(None);
        running.wait_done();
        assert_eq!(
            (bus.bodies(), running.post.status().held),
            (["1", "2", "3"].map(str::to_owned).into(), None)
        );
        assert_eq!(running.dead().0, 0);
        running.stop();
    }
}

#[test]
fn a_command_that_is_refused_for_what_it_is_goes_to_the_dead_letters() {
    for why in [Why::Refused, Why::TooLarge] {
        let (site, bus) = (Site::new(), Bus::new());
        bus.curse("2", why);
        let running = site.start(&bus);
        running.react(&commands("pump-7", 4));
        running.wait_done();
        assert_eq!(bus.bodies(), ["1", "3", "4"], "{why:?}");
        assert_eq!(running.post.status().quarantined, 1);
        let (letters, events) = running.dead();
        assert_eq!((letters, events.len()), (1, 1));
        assert_eq!(events[0]["type"], "io.penstock.alerts.dead-letter.v1");
        assert_eq!(
            (&events[0]["data"]["reason"], &events[0]["data"]["sink"]),
            (&why.name().into(), &"alerts-service-bus".into())
        );
        running.stop();
        let running = site.start(&bus);
        running.wait_done();
        assert_eq!((bus.bodies().len(), running.post.status().quarantined), (3, 0), "it stays passed");
        running.stop();
    }
}

#[test]
fn a_device_key_that_is_no_session_id_goes_to_the_dead_letters() {
    let (site, bus) = (Site::new(), Bus::new());
    let running = site.start(&bus);
    running.react(&[
        command(&"é".repeat(128), 1, "1"),
        command(&"é".repeat(129), 2, "2"),
        command("pump-7", 3, "3"),
    ]);
    running.wait_done();
    assert_eq!(bus.bodies(), ["1", "3"]);
    let (letters, events) = running.dead();
    assert_eq!((letters, &events[0]["data"]["reason"]), (1, &"unsendable".into()));
    running.stop();
}

#[test]
fn where_everything_is_refused_nothing_is_thrown_away_in_a_hurry() {
    let (mut site, bus) = (Site::new(), Bus::new());
    site.config.retry.probe_interval = Duration::from_secs(3600);
    bus.curse("no", Why::Refused);
    let running = site.start(&bus);
    running.react(&(1..=30).map(|number| command("pump-7", number, "no")).collect::<Vec<_>>());
    until("it waits", || running.post.status().held == Some(Trouble::EverythingRefused));
    let status = running.post.status();
    assert_eq!((status.quarantined, status.backlog), (10, 20));
    running.stop();
}

#[test]
fn without_room_for_letters_a_refused_command_waits() {
    let (mut site, bus) = (Site::new(), Bus::new());
    site.config.dead_letter_bytes_max = 0;
    bus.curse("2", Why::Refused);
    let running = site.start(&bus);
    running.react(&commands("pump-7", 3));
    until("it waits", || running.post.status().held == Some(Trouble::DeadLettersFull));
    assert_eq!((bus.bodies(), running.post.status().backlog), (vec!["1".to_owned()], 2));
    assert_eq!(running.dead().0, 0);
    running.stop();
}

#[test]
fn of_each_device_one_command_is_on_its_way_and_a_stop_does_not_wait_for_answers() {
    let (site, bus) = (Site::new(), Bus::new());
    let running = site.start(&bus);
    running.react(&commands("pump-7", 1));
    wait_accepted(&bus, 1);
    running.wait_done();
    bus.silence();
    running.react(&commands("pump-7", 3));
    until("they are in hand", || running.post.status().pending == 3);
    assert!(running.stop() < Duration::from_secs(3));
    let bus = Bus::new();
    let running = site.start(&bus);
    running.wait_done();
    assert_eq!(bus.bodies(), ["1", "2", "3"]);
    running.stop();
}
