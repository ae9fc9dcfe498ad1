//! Take-over, keep alive, shutdown, and the end of one connection that is not the end of others.

use std::time::Duration;

use super::gateway::{Client, Gateway, open_config, soon};
use super::wire::{self, Connect, plain};
use crate::supervise::Phase;

const TOPIC: &str = "devices/d/telemetry";

#[tokio::test]
async fn a_take_over_waits_for_what_the_old_connection_submitted() {
    for (version, farewell) in [(4, None), (5, Some(wire::disconnect(0x8e)))] {
        let gateway = Gateway::start();
        let mut old = gateway.client(version, "d").await;
        gateway.outbox.hold().await;
        old.send(&wire::publish(version, 1, 1, TOPIC, b"old")).await;
        old.expect_silence().await;
        let mut new = gateway.raw().await;
        new.send(&wire::connect(version, "d")).await;
        let early = tokio::time::timeout(Duration::from_millis(100), new.packet()).await;
        assert!(early.is_err(), "no CONNACK before the old connection's last publish is durable");
        // The old connection is not read any more.
        old.send(&wire::publish(version, 1, 2, TOPIC, b"late")).await;
        gateway.outbox.let_go();
        let puback = wire::puback(1);
        let mut last: Vec<&[u8]> = vec![&puback];
        last.extend(farewell.as_deref());
        old.expect_end(&last).await;
        assert_eq!(new.packet().await[3], 0);
        new.send(&wire::publish(version, 1, 1, TOPIC, b"new")).await;
        new.expect(&[&wire::puback(1)]).await;
        assert_eq!(gateway.outbox.payloads(), ["old", "new"]);
        gateway.connections(1).await;
    }
}

#[tokio::test]
async fn a_storm_of_take_overs_leaves_one_connection() {
    let gateway = Gateway::start();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.raw().await;
        client.send(&wire::connect(5, "d")).await;
        clients.push(client);
    }
    let mut accepted = 0;
    let mut last = None;
    for mut client in clients {
        let first = client.packet_or_end().await;
        if first.is_some_and(|connack| connack[3] == 0) {
            accepted += 1;
        }
        last = Some(client);
    }
    assert!(accepted >= 1);
    gateway.connections(1).await;
    assert_eq!(gateway.handle.status().clients, 1);
    drop(last);
}

#[tokio::test]
async fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    for (version, farewell) in [(4, None), (5, Some(wire::disconnect(0x8d)))] {
        // A tick of 20 ms stands for a second.
        let gateway = Gateway::with_tick(&open_config(), Duration::from_millis(20));
        let mut client = gateway.raw().await;
        client.send(&Connect { keep_alive: 10, ..plain(version, "d") }.bytes()).await;
        assert_eq!(client.packet().await[3], 0);
        for _ in 0..40 {
            client.expect_silence().await;
            gateway.ticks(1).await;
        }
        // 40 ticks went by, and PINGREQ kept the connection open. Now it is silent.
        let farewell: Vec<&[u8]> = farewell.as_deref().into_iter().collect();
        client.expect_end(&farewell).await;
        gateway.connections(0).await;
    }
}

#[tokio::test]
async fn keep_alive_rests_while_the_socket_is_not_read() {
    let gateway = Gateway::with_tick(&open_config(), Duration::from_millis(5));
    let mut client = gateway.raw().await;
    client.send(&Connect { keep_alive: 60, ..plain(5, "d") }.bytes()).await;
    assert_eq!(client.packet().await[3], 0);
    gateway.outbox.set_full(true).await;
    client.send(&wire::publish(5, 1, 1, TOPIC, b"x")).await;
    // Silence that is not the client's fault.
    gateway.ticks(120).await;
    gateway.outbox.set_full(false).await;
    client.expect(&[&wire::puback(1)]).await;
}

#[tokio::test]
async fn shutdown_acknowledges_what_was_submitted_and_then_closes() {
    let gateway = Gateway::start();
    let mut v3 = gateway.client(4, "a").await;
    let mut v5 = gateway.client(5, "d").await;
    let mut unheard = gateway.raw().await;
    gateway.outbox.hold().await;
    v5.send(&wire::publish(5, 1, 1, TOPIC, b"x")).await;
    v5.expect_silence().await;
    gateway.supervisor.enter(Phase::StopAccepting);
    v3.expect_silence().await;
    gateway.supervisor.enter(Phase::FinishPublishes);
    v3.expect_end(&[]).await;
    unheard.expect_end(&[]).await;
    gateway.outbox.let_go();
    v5.expect_end(&[&wire::puback(1), &wire::disconnect(0x8b)]).await;
    gateway.stop().await;
    let address = gateway.address();
    let refused = soon(async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever_for_a_commit() {
    let gateway = Gateway::with_tick(&open_config(), Duration::from_millis(10));
    let mut client = gateway.client(5, "d").await;
    gateway.outbox.hold().await;
    client.send(&wire::publish(5, 1, 1, TOPIC, b"x")).await;
    client.expect_silence().await;
    gateway.supervisor.enter(Phase::FinishPublishes);
    client.expect_end(&[&wire::disconnect(0x8b)]).await;
}

/// Sends bytes that break the protocol after CONNECT and checks the last words of the gateway.
async fn check_malformed(version: u8, bytes: &[u8], reason: u8) {
    let gateway = Gateway::start();
    let mut bystander = gateway.client(version, "bystander").await;
    let mut client = gateway.client(version, "d").await;
    client.send(&[&wire::publish(version, 1, 1, TOPIC, b"good"), bytes].concat()).await;
    let (puback, farewell) = (wire::puback(1), wire::disconnect(reason));
    let expected: &[&[u8]] = if version == 5 { &[&puback, &farewell] } else { &[&puback] };
    client.expect_end(expected).await;
    bystander.expect_silence().await;
    assert_eq!(gateway.outbox.payloads(), ["good"]);
}

#[tokio::test]
async fn malformed_packets_close_only_their_connection_and_say_why() {
    let large = wire::packet(0x30, &vec![0; 300_000]);
    for version in [4, 5] {
        let table: &[(&[u8], u8)] = &[
            (&[0x00, 0x00], 0x81),
            (&[0xc1, 0x00], 0x81),
            (&[0xc0, 0x01, 0x00], 0x81),
            (&[0x32, 0xff, 0xff, 0xff, 0xff, 0x7f], 0x81),
            (&[0x20, 0x02, 0, 0], 0x82),
            (&wire::connect(version, "d"), 0x82),
            (&wire::publish(version, 3, 2, TOPIC, b""), 0x81),
            (&wire::publish(version, 1, 0, TOPIC, b""), 0x82),
            (&wire::publish(version, 1, 2, "devices/+/telemetry", b""), 0x81),
            (&wire::publish(version, 1, 2, "devices/d\0/telemetry", b""), 0x81),
            (&large[..10], 0x95),
            (&wire::subscribe(version, 1, &[]), 0x82),
            (&wire::subscribe(version, 1, &[("a/#/b", 0)]), 0x81),
            (&wire::subscribe(version, 1, &[("a", 3)]), 0x82),
        ];
        for (bytes, reason) in table {
            check_malformed(version, bytes, *reason).await;
        }
    }
    for (bytes, reason) in [
        (&[0xf0, 0x00][..], 0x82),
        (&wire::publish_with(5, 2, 2, "", &[0x23, 0, 1], b""), 0x94),
        (&wire::publish_with(5, 2, 2, TOPIC, &[0x01, 1, 0x01, 1], b""), 0x82),
        (&[0xe0, 2, 0x05, 0x00], 0x82),
    ] {
        check_malformed(5, bytes, reason).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed() {
    let mut config = open_config();
    config.listeners[0].send_buffer = Some(4096);
    let gateway = Gateway::with_tick(&config, Duration::from_millis(5));
    let mut client: Client<_> = gateway.client(4, "d").await;
    let pings = wire::PINGREQ.repeat(32_768);
    // It asks for answers and never reads them, until the gateway gives up.
    let gives_up =
        async { while tokio::io::AsyncWriteExt::write_all(&mut client.socket, &pings).await.is_ok() {} };
    soon(gives_up).await;
    gateway.connections(0).await;
}

/// Whatever the task of one connection had in its hands, others do not notice, and its client finds its
/// session again.
#[tokio::test]
async fn a_panic_closes_its_connection_and_nothing_else() {
    let gateway = Gateway::start();
    let mut bystander = gateway.client(5, "bystander").await;
    let mut subscriber = gateway.client(5, "d").await;
    subscriber.send(&wire::subscribe(5, 1, &[("devices/d/#", 0)])).await;
    assert_eq!(subscriber.packet().await[0], 0x90);
    let lasting = Connect { flags: 0, ..plain(4, "lasting") }.bytes();
    let mut client = gateway.raw().await;
    client.send(&lasting).await;
    client.expect(&[&[0x20, 2, 0, 0]]).await;
    client.send(&wire::subscribe(4, 1, &[("devices/lasting/#", 1)])).await;
    assert_eq!(client.packet().await[0], 0x90);
    gateway.handle.shared.panics.store(true, std::sync::atomic::Ordering::Relaxed);
    let topic = "devices/lasting/telemetry";
    client.send(&wire::publish(4, 1, 7, topic, b"first")).await;
    client.expect_end(&[]).await;
    bystander.expect_silence().await;
    subscriber.expect_silence().await;
    let mut client = gateway.raw().await;
    client.send(&lasting).await;
    client.expect(&[&[0x20, 2, 1, 0]]).await;
    client.send(&wire::publish(4, 1, 7, topic, b"first")).await;
    let mut got = [client.packet().await, client.packet().await];
    got.sort();
    assert_eq!(got, [wire::publish(4, 1, 1, topic, b"first"), wire::puback(7)]);
    assert_eq!(gateway.outbox.payloads(), ["first"]);
}
