//! Every limit: what happens when it is reached.

use std::time::Duration;

use super::gateway::Gateway;
use super::wire;
use crate::supervise::clock;

const TOPIC: &str = "devices/d/telemetry";

#[tokio::test]
async fn connections_above_the_limit_are_refused_except_a_client_that_returns() {
    let gateway = Gateway::with_limits(|limits| limits.connections_max = 2);
    let _a = gateway.client(4, "a").await;
    let mut b = gateway.client(5, "b").await;
    for (version, answer) in [(4, &[0x20, 2, 0, 3][..]), (5, &[0x20, 3, 0, 0x9f, 0])] {
        let mut client = gateway.raw().await;
        client.send(&wire::connect(version, "c")).await;
        client.expect_end(&[answer]).await;
    }
    let _returned = gateway.client(5, "b").await;
    b.expect_end(&[&wire::disconnect(0x8e)]).await;
}

#[tokio::test]
async fn far_above_the_limit_connections_are_closed_unheard() {
    let gateway = Gateway::with_limits(|limits| limits.connections_max = 1);
    let mut waiting = Vec::new();
    for _ in 0..65 {
        waiting.push(gateway.raw().await);
    }
    gateway.connections(65).await;
    gateway.raw().await.expect_end(&[]).await;
    // Those that went make room.
    waiting.clear();
    gateway.connections(0).await;
    gateway.client(4, "d").await.expect_silence().await;
}

#[tokio::test]
async fn a_client_that_does_not_connect_in_time_is_closed() {
    let gateway = Gateway::with_limits(|limits| limits.connect_timeout = Duration::from_millis(100));
    let mut silent = gateway.raw().await;
    let mut slow = gateway.raw().await;
    slow.send(&wire::connect(4, "d")[..5]).await;
    silent.expect_end(&[]).await;
    slow.expect_end(&[]).await;
}

#[tokio::test]
async fn mqtt_5_is_cut_off_above_receive_maximum_and_3_1_1_is_read_no_further() {
    let gateway = Gateway::with_limits(|limits| limits.inflight_max = 3);
    gateway.outbox.hold().await;
    let publishes = |version, count: u16| -> Vec<u8> {
        (1..=count).flat_map(|id| wire::publish(version, 1, id, TOPIC, b"x")).collect()
    };
    let mut v5 = gateway.client(5, "d").await;
    v5.send(&publishes(5, 3)).await;
    v5.expect_silence().await;
    v5.send(&wire::publish(5, 1, 4, TOPIC, b"x")).await;
    gateway.outbox.let_go();
    let acks = [1, 2, 3].map(wire::puback);
    v5.expect_end(&[&acks[0], &acks[1], &acks[2], &wire::disconnect(0x93)]).await;
    assert_eq!(gateway.outbox.payloads().len(), 3);

    gateway.outbox.hold().await;
    let mut v3 = gateway.client(4, "d").await;
    v3.send(&[publishes(4, 10), wire::PINGREQ.to_vec()].concat()).await;
    let silent = tokio::time::timeout(Duration::from_millis(100), v3.packet()).await;
    assert!(silent.is_err(), "the PINGREQ behind ten publishes is not reached");
    gateway.outbox.let_go();
    let mut got = Vec::new();
    for _ in 0..11 {
        got.push(v3.packet().await);
    }
    got.retain(|packet| *packet != wire::PINGRESP);
    assert_eq!(got, (1..=10).map(wire::puback).collect::<Vec<_>>());
}

#[tokio::test]
async fn open_qos_2_exchanges_count_against_the_window_until_pubcomp() {
    let gateway = Gateway::with_limits(|limits| limits.inflight_max = 2);
    let mut client = gateway.client(5, "d").await;
    for id in [1, 2] {
        client.send(&wire::publish(5, 2, id, TOPIC, b"x")).await;
        client.expect(&[&wire::pubrec(id)]).await;
    }
    client.send(&wire::pubrel(1)).await;
    client.expect(&[&wire::pubcomp(1)]).await;
    client.send(&wire::publish(5, 1, 3, TOPIC, b"x")).await;
    client.expect(&[&wire::puback(3)]).await;
    client.send(&[wire::publish(5, 2, 4, TOPIC, b"x"), wire::publish(5, 2, 5, TOPIC, b"x")].concat()).await;
    client.expect_end(&[&wire::pubrec(4), &wire::disconnect(0x93)]).await;

    // 3.1.1 was told no window; eight times as many may stay open.
    let mut client = gateway.client(4, "d").await;
    for id in 1..=16 {
        client.send(&wire::publish(4, 2, id, TOPIC, b"x")).await;
        client.expect(&[&wire::pubrec(id)]).await;
    }
    client.send(&wire::publish(4, 2, 17, TOPIC, b"x")).await;
    client.expect_end(&[]).await;
}

#[tokio::test]
async fn bytes_in_flight_stop_reading() {
    let gateway = Gateway::with_limits(|limits| limits.inflight_bytes_max = 16 << 10);
    gateway.outbox.hold().await;
    let mut client = gateway.client(5, "d").await;
    let large = |id| wire::publish(5, 1, id, TOPIC, &[b'x'; 10_000]);
    client.send(&[large(1), wire::PINGREQ.to_vec()].concat()).await;
    client.expect(&[&wire::PINGRESP]).await;
    client.send(&[large(2), large(3), wire::PINGREQ.to_vec()].concat()).await;
    let silent = tokio::time::timeout(Duration::from_millis(100), client.packet()).await;
    assert!(silent.is_err(), "20 kB are not durable");
    gateway.outbox.let_go();
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(client.packet().await);
    }
    got.retain(|packet| *packet != wire::PINGRESP);
    assert_eq!(got, [1, 2, 3].map(wire::puback));
}

#[tokio::test]
async fn a_client_above_its_rate_is_read_later_and_loses_nothing() {
    let gateway = Gateway::with_limits(|limits| limits.bytes_per_second_max = 256 << 10);
    let mut greedy = gateway.client(5, "d").await;
    let start = clock::now();
    for id in 1..=32 {
        greedy.send(&wire::publish(5, 1, id, TOPIC, &[b'x'; 10 << 10])).await;
    }
    // Others do not notice.
    let mut other = gateway.client(5, "e").await;
    other.send(&wire::PINGREQ).await;
    other.expect(&[&wire::PINGRESP]).await;
    for id in 1..=32 {
        greedy.expect(&[&wire::puback(id)]).await;
    }
    // 320 KiB, less the burst and one read of 64 KiB each.
    let least = Duration::from_millis(750);
    assert!(start.elapsed() >= least, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_packet_above_the_limit_is_refused_from_its_header() {
    let gateway = Gateway::with_limits(|limits| limits.packet_bytes_max = 2000);
    let header = |remaining: usize| wire::packet(0x32, &vec![0; remaining])[..3].to_vec();
    let mut client = gateway.client(5, "d").await;
    client.send(&header(1998)).await;
    client.expect_end(&[&wire::disconnect(0x95)]).await;
    let mut client = gateway.client(5, "d").await;
    let fits = 2000 - 3 - 2 - TOPIC.len() - 2 - 1;
    client.send(&wire::publish(5, 1, 1, TOPIC, &vec![b'x'; fits])).await;
    client.expect(&[&wire::puback(1)]).await;
}
