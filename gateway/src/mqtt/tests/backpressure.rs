//! A quota that is used up: who is refused, who waits, and what passes all the same.

use std::time::Duration;

use penstock_proto::Lane;
use tokio::net::TcpStream;

use super::super::{Config, OnFull, Topic};
use super::gateway::{Client, Gateway, open_config, soon};
use super::outbox::Setup;
use super::wire;

const TELEMETRY: &str = "devices/d/telemetry";
const STATUS: &str = "devices/d/status";
const ALERTS: &str = "devices/d/alerts";
/// The bytes for which no answer is expected stay unanswered this long.
const SILENCE: Duration = Duration::from_millis(100);
/// A quota of which the reserve takes 51 KiB.
const BYTES_MAX: u64 = 1 << 20;
const QUOTA: u8 = 0x97;

fn config(on_full: OnFull) -> Config {
    let mut config = open_config();
    config.listeners[0].on_full = on_full;
    for (template, lane) in
        [("devices/{device}/status", Lane::Status), ("devices/{device}/alerts", Lane::Alerts)]
    {
        config.topics.push(Topic { template: template.to_owned(), lane });
    }
    config
}

/// A gateway whose quota is so small that a test can use it up.
fn start(on_full: OnFull) -> Gateway {
    start_with(on_full, BYTES_MAX)
}

fn start_with(on_full: OnFull, bytes_max: u64) -> Gateway {
    Gateway::with_outbox(&config(on_full), Duration::from_secs(1), Setup { bytes_max, ..Setup::default() })
}

fn publish(version: u8, qos: u8, id: u16, topic: &str) -> Vec<u8> {
    wire::publish(version, qos, id, topic, format!("{topic}-{id}").as_bytes())
}

/// The next so many packets, answers to PINGREQ aside, which come as soon as they can.
async fn answers(client: &mut Client<TcpStream>, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while got.len() < count {
        let packet = client.packet().await;
        if packet != wire::PINGRESP {
            got.push(packet);
        }
    }
    got
}

async fn assert_silent(client: &mut Client<TcpStream>) {
    let early = tokio::time::timeout(SILENCE, client.packet()).await;
    assert!(early.is_err(), "{early:02x?}");
}

#[tokio::test]
async fn who_refuses_answers_mqtt_5_with_quota_exceeded_and_reads_on() {
    let gateway = start(OnFull::Refuse);
    let mut client = gateway.client(5, "d").await;
    gateway.outbox.fill().await;
    for round in 0..3 {
        let subscribe = wire::subscribe(5, 9, &[("devices/d/#", 0)]);
        let sent = [
            publish(5, 1, 1, TELEMETRY),
            publish(5, 0, 0, TELEMETRY),
            publish(5, 2, 2, TELEMETRY),
            subscribe,
        ];
        client.send(&sent.concat()).await;
        let mut got = answers(&mut client, 3).await;
        got.retain(|packet| packet[0] != 0x90);
        assert_eq!(got, [wire::ack(0x40, 1, QUOTA), wire::ack(0x50, 2, QUOTA)], "round {round}");
        client.expect_silence().await;
    }
    assert!(gateway.outbox.payloads().is_empty());

    gateway.outbox.confirm().await;
    client.send(&publish(5, 2, 2, TELEMETRY)).await;
    // The client hears itself, since it subscribed.
    let mut got = answers(&mut client, 2).await;
    got.retain(|packet| packet[0] != 0x30);
    assert_eq!(got, [wire::pubrec(2)], "the same connection is served again");
    assert_eq!(gateway.outbox.payloads().len(), 1);
}

/// It is over in a moment: a refusal would be out of date when it arrives.
#[tokio::test]
async fn a_full_queue_is_waited_for_also_by_who_refuses() {
    let gateway = start_with(OnFull::Refuse, 1 << 30);
    let mut client = gateway.client(5, "d").await;
    gateway.outbox.set_full(true).await;
    client.send(&[publish(5, 1, 1, TELEMETRY), publish(5, 1, 2, ALERTS)].concat()).await;
    assert_silent(&mut client).await;
    gateway.outbox.set_full(false).await;
    client.expect(&[&wire::puback(1), &wire::puback(2)]).await;
}

#[tokio::test]
async fn a_refusal_waits_for_what_came_before_it() {
    let gateway = start(OnFull::Refuse);
    let mut client = gateway.client(5, "d").await;
    gateway.outbox.fill().await;
    gateway.outbox.hold().await;
    let sent = [
        publish(5, 1, 1, STATUS),
        publish(5, 1, 2, TELEMETRY),
        publish(5, 2, 3, STATUS),
        publish(5, 2, 4, TELEMETRY),
    ];
    client.send(&sent.concat()).await;
    client.expect_silence().await;
    gateway.outbox.let_go();
    let refused = (wire::ack(0x40, 2, QUOTA), wire::ack(0x50, 4, QUOTA));
    client.expect(&[&wire::puback(1), &refused.0, &wire::pubrec(3), &refused.1]).await;
    let stored = gateway.outbox.payloads_of(Lane::Status);
    assert_eq!(stored, ["devices/d/status-1", "devices/d/status-3"]);
}

#[tokio::test]
async fn an_exchange_that_was_accepted_ends_though_the_quota_is_used_up() {
    for (version, on_full) in [(5, OnFull::Refuse), (5, OnFull::Withhold), (4, OnFull::Refuse)] {
        let gateway = start(on_full);
        let mut client = gateway.client(version, "d").await;
        client.send(&publish(version, 2, 7, TELEMETRY)).await;
        client.expect(&[&wire::pubrec(7)]).await;
        gateway.outbox.fill().await;
        let again = wire::publish_with(version, 0x0c, 7, TELEMETRY, &[], b"x");
        client.send(&again).await;
        client.expect(&[&wire::pubrec(7)]).await;
        client.send(&wire::pubrel(7)).await;
        client.expect(&[&wire::pubcomp(7)]).await;
        assert_eq!(gateway.outbox.payloads().len(), 1);
    }
}

#[tokio::test]
async fn who_withholds_serves_what_stands_before_the_first_publish_without_room() {
    // 3.1.1 knows no reasons, whatever the listener says.
    for (version, on_full) in [(5, OnFull::Withhold), (4, OnFull::Withhold), (4, OnFull::Refuse)] {
        let gateway = start(on_full);
        let mut client = gateway.client(version, "d").await;
        gateway.outbox.fill().await;
        client.expect_silence().await;
        let before = [publish(version, 1, 1, ALERTS), publish(version, 2, 2, STATUS)].concat();
        let behind = [publish(version, 1, 3, TELEMETRY), publish(version, 1, 4, ALERTS)].concat();
        client.send(&[before, behind, wire::PINGREQ.to_vec()].concat()).await;
        client.expect(&[&wire::puback(1), &wire::pubrec(2)]).await;
        assert_silent(&mut client).await;
        assert_eq!(gateway.outbox.payloads_of(Lane::Alerts), ["devices/d/alerts-1"], "4 stands behind 3");

        gateway.outbox.confirm().await;
        assert_eq!(answers(&mut client, 2).await, [3, 4].map(wire::puback));
        assert_eq!(gateway.outbox.payloads(), ["devices/d/telemetry-3"]);
        client.send(&publish(version, 1, 5, TELEMETRY)).await;
        assert_eq!(answers(&mut client, 1).await, [wire::puback(5)]);
    }
}

#[tokio::test]
async fn who_refuses_takes_alerts_between_refused_telemetry() {
    let gateway = start(OnFull::Refuse);
    let mut client = gateway.client(5, "d").await;
    gateway.outbox.fill().await;
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for id in 1..=60 {
        let alert = id % 3 == 0;
        sent.extend(publish(5, 1, id, if alert { ALERTS } else { TELEMETRY }));
        expected.push(if alert { wire::puback(id) } else { wire::ack(0x40, id, QUOTA) });
    }
    client.send(&sent).await;
    assert_eq!(answers(&mut client, 60).await, expected);
    assert_eq!(gateway.outbox.payloads_of(Lane::Alerts).len(), 20);
}

#[tokio::test]
async fn the_reserve_has_an_end_too() {
    let gateway = start(OnFull::Refuse);
    let mut client = gateway.client(5, "d").await;
    gateway.outbox.fill().await;
    let alert = |id| wire::publish(5, 1, id, ALERTS, &[b'x'; 5000]);
    let mut accepted = 0;
    let refused = async {
        loop {
            client.send(&alert(accepted + 1)).await;
            let packet = client.packet().await;
            if packet == wire::ack(0x40, accepted + 1, QUOTA) {
                break;
            }
            assert_eq!(packet, wire::puback(accepted + 1));
            accepted += 1;
        }
    };
    soon(refused).await;
    assert!((1..30).contains(&accepted), "{accepted}");
    assert!(gateway.outbox.handle().status().backlog_bytes <= BYTES_MAX);
    gateway.outbox.confirm().await;
    client.send(&alert(100)).await;
    client.expect(&[&wire::puback(100)]).await;
}

#[tokio::test]
async fn large_packets_in_pieces_are_held_and_taken_like_small_ones() {
    const LARGE: usize = 200_000;
    for on_full in [OnFull::Withhold, OnFull::Refuse] {
        let gateway = start_with(on_full, 9 << 20);
        let mut client = gateway.client(5, "d").await;
        gateway.outbox.fill().await;
        // An alert that fits into the reserve, in pieces.
        for piece in wire::publish(5, 1, 1, ALERTS, &[b'a'; LARGE]).chunks(30_000) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        client.expect(&[&wire::puback(1)]).await;
        // The front of telemetry is enough to see what it is.
        let large = wire::publish(5, 1, 2, TELEMETRY, &[b't'; LARGE]);
        let small = publish(5, 1, 3, TELEMETRY);
        let (front, rest) = large.split_at(5000);
        client.send(front).await;
        assert_silent(&mut client).await;
        if on_full == OnFull::Refuse {
            client.send(&[rest, &small].concat()).await;
            client.expect(&[&wire::ack(0x40, 2, QUOTA), &wire::ack(0x40, 3, QUOTA)]).await;
            continue;
        }
        gateway.outbox.confirm().await;
        client.send(&[rest, &small].concat()).await;
        client.expect(&[&wire::puback(2), &wire::puback(3)]).await;
        assert_eq!(gateway.outbox.payloads().iter().map(String::len).collect::<Vec<_>>(), [LARGE, 21]);

        // And the whole of it, held until there is room.
        gateway.outbox.fill().await;
        client.send(&[large, small].concat()).await;
        assert_silent(&mut client).await;
        gateway.outbox.confirm().await;
        client.expect(&[&wire::puback(2), &wire::puback(3)]).await;
    }
}

#[tokio::test]
async fn a_topic_that_is_long_in_coming_is_waited_for_and_then_judged() {
    let gateway = start(OnFull::Withhold);
    let mut client = gateway.client(4, "d").await;
    gateway.outbox.fill().await;
    for byte in publish(4, 1, 1, ALERTS) {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    client.expect(&[&wire::puback(1)]).await;
    // More than anybody needs to name a topic: it waits like telemetry, and is refused when read.
    let long = wire::publish(4, 1, 2, &"x".repeat(5000), b"");
    client.send(&long[..2000]).await;
    assert_silent(&mut client).await;
    gateway.outbox.confirm().await;
    client.send(&long[2000..]).await;
    client.expect_end(&[]).await;
}

#[tokio::test]
async fn a_will_finds_room_in_the_reserve() {
    let gateway = start(OnFull::Withhold);
    let mut client = gateway.raw().await;
    let rest = [wire::string(STATUS), wire::binary(b"gone")].concat();
    client.send(&wire::Connect { flags: 0x06, rest, ..wire::plain(4, "d") }.bytes()).await;
    assert_eq!(client.packet().await[3], 0);
    gateway.outbox.fill().await;
    drop(client);
    let stored = async {
        while gateway.outbox.payloads_of(Lane::Status) != ["gone"] {
            tokio::task::yield_now().await;
        }
    };
    soon(stored).await;
}

#[tokio::test]
async fn a_keep_alive_runs_while_a_withheld_client_could_be_heard_and_rests_while_it_could_not() {
    let setup = Setup { bytes_max: BYTES_MAX, ..Setup::default() };
    let gateway = Gateway::with_outbox(&config(OnFull::Withhold), Duration::from_millis(5), setup);
    gateway.outbox.fill().await;
    let connect = |id| wire::Connect { keep_alive: 60, ..wire::plain(5, id) }.bytes();
    let (mut waiting, mut silent) = (gateway.raw().await, gateway.raw().await);
    for (client, id) in [(&mut waiting, "d"), (&mut silent, "silent")] {
        client.send(&connect(id)).await;
        assert_eq!(client.packet().await[3], 0);
    }
    silent.expect_silence().await;
    waiting.send(&publish(5, 1, 1, TELEMETRY)).await;
    silent.expect_end(&[&wire::disconnect(0x8d)]).await;
    gateway.ticks(90).await;
    gateway.outbox.confirm().await;
    waiting.expect(&[&wire::puback(1)]).await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_like_a_quota_used_up() {
    let free = Gateway::start().outbox.handle().status().disk_free_bytes.expect("the file system says so");
    // Too little for telemetry, and enough for alerts, whatever others write meanwhile.
    let setup = Setup { disk_free_min: 2 * free, ..Setup::default() };
    for on_full in [OnFull::Withhold, OnFull::Refuse] {
        let gateway = Gateway::with_outbox(&config(on_full), Duration::from_secs(1), setup);
        let mut client = gateway.client(5, "d").await;
        client.send(&[publish(5, 1, 1, ALERTS), publish(5, 1, 2, TELEMETRY)].concat()).await;
        client.expect(&[&wire::puback(1)]).await;
        match on_full {
            OnFull::Withhold => assert_silent(&mut client).await,
            OnFull::Refuse => client.expect(&[&wire::ack(0x40, 2, QUOTA)]).await,
        }
    }
}

/// Several groups are on their way for one connection, and then nothing happens on it any more: each
/// group has to wake it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_of_several_groups_are_all_acknowledged() {
    const ROUNDS: u16 = 150;
    const PUBLISHES: u16 = 12;
    let setup = Setup { commit_floor: Duration::ZERO, ..Setup::default() };
    let gateway = Gateway::with_outbox(&open_config(), Duration::from_secs(1), setup);
    // Commits come by themselves, and none but those of the connection.
    gateway.outbox.hold().await;
    let mut client = gateway.client(5, "d").await;
    client.socket.set_nodelay(true).expect("a live socket");
    for round in 0..ROUNDS {
        for id in 1..=PUBLISHES {
            client.send(&publish(5, 1, id, TELEMETRY)).await;
            for _ in 0..round % 40 {
                tokio::task::yield_now().await;
            }
        }
        for id in 1..=PUBLISHES {
            client.expect(&[&wire::puback(id)]).await;
        }
    }
    assert_eq!(gateway.outbox.payloads().len(), usize::from(ROUNDS * PUBLISHES));
}
