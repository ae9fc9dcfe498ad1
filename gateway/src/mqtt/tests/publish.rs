//! Publishes: acknowledged when they are durable, in order, and stored once.

use super::gateway::{Client, Gateway, soon};
use super::wire;

const TOPIC: &str = "devices/d/telemetry";

fn publish(version: u8, qos: u8, id: u16) -> Vec<u8> {
    wire::publish(version, qos, id, TOPIC, id.to_string().as_bytes())
}

#[tokio::test]
async fn puback_waits_for_commit() {
    for version in [4, 5] {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        gateway.outbox.hold().await;
        client.send(&[publish(version, 1, 1), publish(version, 2, 2)].concat()).await;
        client.expect_silence().await;
        gateway.outbox.let_go();
        client.expect(&[&wire::puback(1), &wire::pubrec(2)]).await;
        assert_eq!(gateway.outbox.payloads(), ["1", "2"]);
    }
}

#[tokio::test]
async fn acknowledgements_follow_the_order_of_publishes() {
    for version in [4, 5] {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        let ids: Vec<u16> = (1..=60).collect();
        let sent: Vec<_> =
            ids.iter().map(|id| publish(version, u8::try_from(id % 3).unwrap(), *id)).collect();
        client.send(&sent.concat()).await;
        for id in &ids {
            match id % 3 {
                0 => {}
                1 => client.expect(&[&wire::puback(*id)]).await,
                _ => client.expect(&[&wire::pubrec(*id)]).await,
            }
        }
        let expected: Vec<_> = ids.iter().map(ToString::to_string).collect();
        client.expect_silence().await;
        assert_eq!(gateway.outbox.payloads(), expected);
    }
}

#[tokio::test]
async fn packets_may_arrive_in_any_pieces() {
    let gateway = Gateway::start();
    let mut client = gateway.client(5, "d").await;
    let large = wire::publish(5, 1, 2, TOPIC, &[b'x'; 200_000]);
    let bytes =
        [publish(5, 1, 1), large, publish(5, 1, 3), wire::PINGREQ.to_vec(), publish(5, 2, 4)].concat();
    for size in [1, 7, 1000, 65_536, bytes.len()] {
        let small = bytes.len() / size > 10_000;
        let sent = if small { &bytes[..publish(5, 1, 1).len()] } else { &bytes };
        for piece in sent.chunks(size) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        if small {
            client.expect(&[&wire::puback(1)]).await;
            continue;
        }
        // PINGRESP does not wait for commits.
        let mut got = Vec::new();
        for _ in 0..5 {
            got.push(client.packet().await);
        }
        got.retain(|packet| *packet != wire::PINGRESP);
        assert_eq!(got, [wire::puback(1), wire::puback(2), wire::puback(3), wire::pubrec(4)]);
        client.send(&wire::pubrel(4)).await;
        client.expect(&[&wire::pubcomp(4)]).await;
    }
}

#[tokio::test]
async fn a_qos_2_publish_is_stored_once_however_often_it_is_repeated() {
    for version in [4, 5] {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        let again = wire::publish_with(version, 0x0c, 7, TOPIC, &[], b"7");
        gateway.outbox.hold().await;
        client.send(&[publish(version, 2, 7), again.clone()].concat()).await;
        client.expect_silence().await;
        gateway.outbox.let_go();
        client.expect(&[&wire::pubrec(7), &wire::pubrec(7)]).await;
        client.send(&again).await;
        client.expect(&[&wire::pubrec(7)]).await;
        client.send(&wire::pubrel(7)).await;
        client.expect(&[&wire::pubcomp(7)]).await;
        assert_eq!(gateway.outbox.payloads(), ["7"]);

        let unknown = if version == 5 { 0x92 } else { 0 };
        client.send(&wire::pubrel(7)).await;
        client.expect(&[&wire::ack(0x70, 7, unknown)]).await;
        client.send(&publish(version, 2, 7)).await;
        client.expect(&[&wire::pubrec(7)]).await;
        assert_eq!(gateway.outbox.payloads(), ["7", "7"], "the id is free again after PUBREL");
    }
}

#[tokio::test]
async fn pubcomp_waits_for_what_came_before_it() {
    let gateway = Gateway::start();
    let mut client = gateway.client(5, "d").await;
    client.send(&publish(5, 2, 1)).await;
    client.expect(&[&wire::pubrec(1)]).await;
    gateway.outbox.hold().await;
    client.send(&[publish(5, 1, 2), wire::pubrel(1)].concat()).await;
    client.expect_silence().await;
    gateway.outbox.let_go();
    client.expect(&[&wire::puback(2), &wire::pubcomp(1)]).await;
}

#[tokio::test]
async fn a_failed_commit_closes_the_connection_and_acknowledges_nothing() {
    for (version, farewell) in [(4, None), (5, Some(wire::disconnect(0x83)))] {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        let mut bystander = gateway.client(version, "other").await;
        gateway.outbox.hold().await;
        client.send(&publish(version, 1, 1)).await;
        client.expect_silence().await;
        gateway.outbox.handle().fail_waiting();
        let farewell: Vec<&[u8]> = farewell.as_deref().into_iter().collect();
        client.expect_end(&farewell).await;
        bystander.expect_silence().await;
    }
}

#[tokio::test]
async fn topics_outside_the_templates_are_refused_in_their_turn() {
    let check = async |topic: &str, reason: u8| {
        let gateway = Gateway::start();
        let mut client = gateway.client(5, "d").await;
        gateway.outbox.hold().await;
        let refused = [wire::publish(5, 1, 2, topic, b"x"), wire::publish(5, 2, 3, topic, b"x")].concat();
        let quiet = wire::publish(5, 0, 0, topic, b"x");
        client.send(&[publish(5, 1, 1), quiet, refused, publish(5, 1, 4)].concat()).await;
        client.expect_silence().await;
        gateway.outbox.let_go();
        let (puback, pubrec) = (wire::ack(0x40, 2, reason), wire::ack(0x50, 3, reason));
        client.expect(&[&wire::puback(1), &puback, &pubrec, &wire::puback(4)]).await;
        assert_eq!(gateway.outbox.payloads(), ["1", "4"]);

        // 3.1.1 has no word for a refusal; QoS 0 is dropped without one.
        let gateway = Gateway::start();
        let mut client = gateway.client(4, "d").await;
        client.send(&wire::publish(4, 0, 0, topic, b"x")).await;
        client.expect_silence().await;
        client.send(&[publish(4, 1, 1), wire::publish(4, 1, 2, topic, b"x")].concat()).await;
        client.expect_end(&[&wire::puback(1)]).await;
        assert_eq!(gateway.outbox.payloads(), ["1"]);
    };
    check("devices/other/telemetry", 0x87).await;
    check("devices/d/elsewhere", 0x87).await;
    check("devices/d/telemetry/100%25", 0x87).await;
}

#[tokio::test]
async fn a_retained_publish_is_stored_and_kept_for_who_comes_later() {
    for version in [4, 5] {
        let gateway = Gateway::start();
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::publish_with(version, 0x03, 1, TOPIC, &[], b"kept")).await;
        client.expect(&[&wire::puback(1)]).await;
        assert_eq!(gateway.outbox.payloads(), ["kept"]);
        client.send(&wire::subscribe(version, 2, &[("devices/d/#", 0)])).await;
        assert_eq!(client.packet().await[0], 0x90);
        client.expect(&[&wire::publish_with(version, 0x01, 0, TOPIC, &[], b"kept")]).await;
    }
}

#[tokio::test]
async fn a_full_outbox_stops_reading_and_goes_on_when_there_is_room() {
    let gateway = Gateway::start();
    let mut client = gateway.client(4, "d").await;
    gateway.outbox.set_full(true).await;
    client.send(&[publish(4, 1, 1), wire::PINGREQ.to_vec()].concat()).await;
    let silent = tokio::time::timeout(std::time::Duration::from_millis(100), client.packet()).await;
    assert!(silent.is_err(), "nothing is read, so that nothing is answered");
    gateway.outbox.set_full(false).await;
    let mut got = [client.packet().await, client.packet().await];
    got.sort();
    assert_eq!(got, [wire::puback(1), wire::PINGRESP.to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_are_all_acknowledged() {
    let gateway = Gateway::start();
    let work = (0..50_u16).map(|number| {
        let gateway = &gateway;
        async move {
            let id = format!("d{number}");
            let version = if number % 2 == 0 { 4 } else { 5 };
            let topic = format!("devices/{id}/telemetry/s");
            let mut client: Client<_> = gateway.client(version, &id).await;
            for round in 1..=20_u16 {
                let sent: Vec<_> =
                    (0..16).map(|k| wire::publish(version, 1, round * 16 + k, &topic, b"payload")).collect();
                client.send(&sent.concat()).await;
                for k in 0..16 {
                    client.expect(&[&wire::puback(round * 16 + k)]).await;
                }
            }
        }
    });
    soon(join_all(work)).await;
    assert_eq!(gateway.outbox.payloads().len(), 50 * 20 * 16);
}

async fn join_all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
