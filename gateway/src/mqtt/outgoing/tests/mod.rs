mod commands;

use super::*;
use crate::mqtt::message::Parts;

const BOUNDS: Bounds =
    Bounds { buffer_bytes_max: 1_000, queue_messages_max: 5, queue_bytes_max: 100_000, is_full: false };

/// What a client sees of a packet: PUBLISH with its id, DUP, topic and payload, or PUBREL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Publish { id: u16, dup: bool, topic: String, payload: String },
    Pubrel(u16),
}

fn message(topic: &str, payload: &str, expires_ms: Option<u64>) -> Arc<Message> {
    let parts = Parts {
        topic,
        publisher: "",
        qos: Qos::ExactlyOnce,
        retain: false,
        received_ms: 0,
        expires_ms,
        properties: &[],
        payload: payload.as_bytes(),
    };
    Arc::new(Message::new(0, parts, &Arc::default()))
}

const fn grant(qos: Qos) -> Grant {
    Grant { qos, retain: false, ids: Ids::None }
}

fn attached(window: usize) -> Outgoing {
    let mut outgoing = Outgoing::default();
    outgoing.attach(Terms { window, ..Terms::default() });
    outgoing
}

/// Offers a message to a lasting session, whose place in the store is durable at once.
fn offer(outgoing: &mut Outgoing, payload: &str, qos: Qos) -> Offered {
    let offered = outgoing.offer(&message("t", payload, None), grant(qos), true, BOUNDS, 0);
    if let Offered::Queued { order, .. } = offered {
        outgoing.confirm(order);
    }
    offered
}

/// Reads everything that is to be written; all packets are small 3.1.1 packets.
fn taken(outgoing: &mut Outgoing) -> Vec<Seen> {
    taken_at(outgoing, 0)
}

fn taken_at(outgoing: &mut Outgoing, now_ms: u64) -> Vec<Seen> {
    let mut seen = Vec::new();
    loop {
        let mut out = Vec::new();
        let more = outgoing.take(&mut out, true, BOUNDS, now_ms);
        let mut rest = out.as_slice();
        while let [first, length, ..] = rest {
            let (packet, after) = rest.split_at(usize::from(*length) + 2);
            rest = after;
            if first >> 4 == 6 {
                seen.push(Seen::Pubrel(u16::from_be_bytes([packet[2], packet[3]])));
                continue;
            }
            let topic_end = 4 + usize::from(packet[3]);
            let (id, payload) = match first & 6 {
                0 => (0, topic_end),
                _ => (u16::from_be_bytes([packet[topic_end], packet[topic_end + 1]]), topic_end + 2),
            };
            seen.push(Seen::Publish {
                id,
                dup: first & 8 != 0,
                topic: String::from_utf8_lossy(&packet[4..topic_end]).into(),
                payload: String::from_utf8_lossy(&packet[payload..]).into(),
            });
        }
        if !more {
            return seen;
        }
    }
}

fn publish(id: u16, dup: bool, payload: &str) -> Seen {
    Seen::Publish { id, dup, topic: "t".to_owned(), payload: payload.to_owned() }
}

#[test]
fn the_window_opens_with_acknowledgements_in_any_order() {
    let mut outgoing = attached(2);
    for payload in ["a", "b", "c", "d"] {
        offer(&mut outgoing, payload, Qos::AtLeastOnce);
    }
    assert_eq!(taken(&mut outgoing), [publish(1, false, "a"), publish(2, false, "b")]);
    assert!(outgoing.acknowledged(3, 0).is_none(), "it was not sent yet");
    assert!(outgoing.acknowledged(2, 0).is_some() && outgoing.acknowledged(2, 0).is_none());
    assert_eq!(taken(&mut outgoing), [publish(3, false, "c")]);
    assert!(outgoing.acknowledged(1, 0).is_some());
    assert_eq!(taken(&mut outgoing), [publish(4, false, "d")]);
    assert!(outgoing.acknowledged(4, 0).is_some() && outgoing.acknowledged(3, 0).is_some());
    assert!(outgoing.is_idle() && outgoing.bytes == 0 && outgoing.sent == 0);
}

#[test]
fn a_reconnect_sends_the_same_again_with_dup_and_in_order() {
    let mut outgoing = attached(3);
    for (payload, qos) in [("a", Qos::AtLeastOnce), ("b", Qos::ExactlyOnce), ("c", Qos::ExactlyOnce)] {
        offer(&mut outgoing, payload, qos);
    }
    offer(&mut outgoing, "d", Qos::AtLeastOnce);
    assert_eq!(taken(&mut outgoing).len(), 3);
    assert!(matches!(outgoing.received(2, true), Received::Release(Some(Gone { message: Some(_), .. }))));
    outgoing.detach();
    outgoing.attach(Terms { window: 3, ..Terms::default() });
    assert_eq!(taken(&mut outgoing), [publish(1, true, "a"), Seen::Pubrel(2), publish(3, true, "c")]);
    assert!(matches!(outgoing.received(2, true), Received::Release(Some(Gone { message: None, .. }))));
    assert!(outgoing.completed(2).is_some());
    assert_eq!(taken(&mut outgoing), [publish(4, false, "d")]);
}

#[test]
fn exchanges_of_qos_2_end_once_and_only_in_order() {
    let mut outgoing = attached(2);
    offer(&mut outgoing, "a", Qos::ExactlyOnce);
    offer(&mut outgoing, "b", Qos::ExactlyOnce);
    taken(&mut outgoing);
    assert!(outgoing.completed(1).is_none(), "PUBREC comes first");
    assert!(outgoing.acknowledged(1, 0).is_none(), "PUBACK is for QoS 1");
    assert!(matches!(outgoing.received(9, true), Received::Unknown));
    assert!(matches!(outgoing.received(1, true), Received::Release(Some(_))));
    assert!(matches!(outgoing.received(1, true), Received::Release(Some(_))), "PUBREC again");
    assert!(matches!(outgoing.received(2, false), Received::Ended(Some(_))), "the client refuses");
    assert!(outgoing.completed(1).is_some() && outgoing.completed(1).is_none());
    assert!(outgoing.is_idle());
}

#[test]
fn nothing_is_sent_before_its_place_in_the_store_is_durable() {
    let mut outgoing = attached(5);
    let orders: Vec<_> = (0..3)
        .map(|_| match outgoing.offer(&message("t", "x", None), grant(Qos::AtLeastOnce), true, BOUNDS, 0) {
            Offered::Queued { order, .. } => order,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(taken(&mut outgoing), []);
    outgoing.confirm(orders[1]);
    assert_eq!(taken(&mut outgoing), [], "the order is kept");
    outgoing.confirm(orders[0]);
    assert_eq!(taken(&mut outgoing), [publish(1, false, "x"), publish(2, false, "x")]);
    outgoing.confirm(orders[2]);
    assert_eq!(taken(&mut outgoing), [publish(3, false, "x")]);
}

#[test]
fn every_bound_is_reached_and_named() {
    let mut outgoing = attached(1);
    for payload in ["1", "2", "3", "4", "5"] {
        assert!(matches!(offer(&mut outgoing, payload, Qos::AtLeastOnce), Offered::Queued { .. }));
    }
    assert_eq!(offer(&mut outgoing, "6", Qos::AtLeastOnce), Offered::Dropped(Loss::Full), "by count");
    let large = "x".repeat(950);
    let unasked = |outgoing: &mut Outgoing| {
        outgoing.offer(&message("t", &large, None), grant(Qos::AtMostOnce), true, BOUNDS, 0)
    };
    let mut outgoing = attached(1);
    assert_eq!(unasked(&mut outgoing), Offered::Done);
    assert_eq!(unasked(&mut outgoing), Offered::Dropped(Loss::Full), "the buffer");
    outgoing.take(&mut Vec::new(), true, BOUNDS, 0);
    assert_eq!(unasked(&mut outgoing), Offered::Done);

    let mut outgoing = attached(1);
    let few = Bounds { queue_bytes_max: 1_500, ..BOUNDS };
    let mut offer = |bounds: Bounds| {
        outgoing.offer(&message("t", &large, None), grant(Qos::AtLeastOnce), false, bounds, 0)
    };
    let full = Bounds { is_full: true, ..BOUNDS };
    assert!(matches!(offer(full), Offered::Queued { .. }), "an empty queue takes one");
    assert!(matches!(offer(few), Offered::Queued { .. }));
    assert_eq!(offer(few), Offered::Dropped(Loss::Full), "by bytes");
    assert_eq!(offer(full), Offered::Dropped(Loss::Full), "by the bytes of all");
}

#[test]
fn what_is_too_large_or_too_old_is_let_go_and_its_place_with_it() {
    let mut outgoing = Outgoing::default();
    outgoing.attach(Terms { window: 2, packet_bytes_max: 50, ..Terms::default() });
    let mut queue = |payload: &str, expires_ms| {
        let message = message("t", payload, expires_ms);
        match outgoing.offer(&message, grant(Qos::AtLeastOnce), true, BOUNDS, 0) {
            Offered::Queued { order, .. } => order,
            other => panic!("{other:?}"),
        }
    };
    let orders = [queue(&"x".repeat(60), None), queue("old", Some(5)), queue("good", None)];
    orders.iter().for_each(|order| outgoing.confirm(*order));
    outgoing.take(&mut Vec::new(), true, BOUNDS, 5);
    let (gone, losses) = outgoing.take_gone();
    assert_eq!(losses, Losses { full: 0, too_large: 1, expired: 1 });
    assert_eq!(gone.iter().map(|gone| gone.order).collect::<Vec<_>>(), orders[..2]);
    assert_eq!((outgoing.sent, outgoing.len()), (1, 1));
    let small = outgoing.offer(&message("t", "late", Some(5)), grant(Qos::AtMostOnce), true, BOUNDS, 5);
    assert_eq!(small, Offered::Dropped(Loss::Expired));

    let mut offline = Outgoing::default();
    for _ in 0..5 {
        let offered = offline.offer(&message("t", "old", Some(5)), grant(Qos::AtLeastOnce), true, BOUNDS, 0);
        assert!(matches!(offered, Offered::Queued { .. }));
    }
    let offered = offline.offer(&message("t", "new", None), grant(Qos::AtLeastOnce), true, BOUNDS, 5);
    assert!(matches!(offered, Offered::Queued { .. }), "what is over makes room");
    let (gone, losses) = offline.take_gone();
    assert_eq!((gone.len(), losses.expired), (5, 5));
}

#[test]
fn nothing_counts_as_sent_while_there_is_no_connection() {
    let mut outgoing = attached(3);
    outgoing.detach();
    let mut queue = |payload: &str, expires_ms| {
        let message = message("t", payload, expires_ms);
        let offered = outgoing.offer(&message, grant(Qos::AtLeastOnce), true, BOUNDS, 0);
        let Offered::Queued { order, .. } = offered else { panic!("{offered:?}") };
        outgoing.confirm(order);
    };
    queue("old", Some(5));
    queue("kept", None);
    queue("new", None);
    outgoing.attach(Terms { window: 3, ..Terms::default() });
    assert_eq!(taken_at(&mut outgoing, 5), [publish(2, false, "kept"), publish(3, false, "new")]);
}

#[test]
fn ids_go_round_and_never_meet_one_that_is_on_its_way() {
    let mut outgoing = attached(2);
    offer(&mut outgoing, "stuck", Qos::AtLeastOnce);
    taken(&mut outgoing);
    for _ in 1..65_535_u32 {
        let Offered::Queued { id, .. } = offer(&mut outgoing, "x", Qos::AtLeastOnce) else {
            panic!("there is room");
        };
        taken(&mut outgoing);
        assert!(outgoing.acknowledged(id, 0).is_some());
    }
    assert_eq!(offer(&mut outgoing, "x", Qos::AtLeastOnce), Offered::Dropped(Loss::Full));
    assert!(outgoing.acknowledged(1, 0).is_some());
    assert!(matches!(offer(&mut outgoing, "x", Qos::AtLeastOnce), Offered::Queued { id: 1, .. }));
}

#[test]
fn retained_messages_wait_for_room_instead_of_being_dropped() {
    let mut outgoing = attached(2);
    let large = "x".repeat(100);
    let replayed = (0..30).map(|_| (message("t", &large, None), grant(Qos::AtMostOnce)));
    outgoing.replay(replayed.collect::<Vec<_>>().into_iter());
    assert_eq!(taken(&mut outgoing).len(), 30);
    let replayed = (0..5).map(|_| (message("t", "r", None), grant(Qos::AtLeastOnce)));
    outgoing.replay(replayed.collect::<Vec<_>>().into_iter());
    assert_eq!(taken(&mut outgoing), [publish(1, false, "r"), publish(2, false, "r")]);
    assert!(outgoing.acknowledged(1, 0).is_some() && outgoing.acknowledged(2, 0).is_some());
    assert_eq!(taken(&mut outgoing).len(), 2);
}

#[test]
fn the_first_topics_get_aliases_and_the_others_go_without() {
    let mut outgoing = Outgoing::default();
    outgoing.attach(Terms { version: Version::V5, window: 2, packet_bytes_max: usize::MAX, aliases_max: 1 });
    let mut sent = |topic: &str| {
        outgoing.offer(&message(topic, "", None), grant(Qos::AtMostOnce), false, BOUNDS, 0);
        let mut out = Vec::new();
        outgoing.take(&mut out, false, BOUNDS, 0);
        out
    };
    let alias = [0x23, 0, 1];
    assert_eq!(sent("ab"), [&[0x30, 8, 0, 2, b'a', b'b', 3], &alias[..]].concat());
    assert_eq!(sent("ab"), [&[0x30, 6, 0, 0, 3], &alias[..]].concat());
    assert_eq!(sent("cd"), [0x30, 5, 0, 2, b'c', b'd', 0]);
}

#[test]
fn a_session_that_does_not_last_keeps_no_message_that_was_sent() {
    let mut outgoing = attached(1);
    let kept = message("t", "x", None);
    assert!(matches!(
        outgoing.offer(&kept, grant(Qos::AtLeastOnce), false, BOUNDS, 0),
        Offered::Queued { .. }
    ));
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(outgoing.acknowledged(1, 0).is_some_and(|gone| gone.is_none()), "nothing in the store");
    assert_eq!(outgoing.bytes, 0);
}
