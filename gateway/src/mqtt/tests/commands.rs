//! Commands to devices and their answers, from the side of whoever has the commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use penstock_proto::Lane;
use tokio::net::TcpStream;

use super::super::{
    Answer, Answers, CommandMessage, Config, Delivery, Devices, Durable, Error, Fate, NotDelivered, Service,
    Taken,
};
use super::gateway::{Client, Gateway, open_config, soon};
use super::outbox::{Outbox, Setup};
use super::wire::{self, Connect, plain};
use crate::outbox::{Encoded, Entry, Properties, StateOps};
use crate::supervise::Supervisor;

const COMMANDS: &str = "devices/d/commands/+";
const BOTH: [u8; 2] = [4, 5];
const MESSAGE: CommandMessage<'_> = CommandMessage {
    id: "c-1",
    name: Some("open"),
    payload: b"{}",
    content_type: None,
    correlation: b"",
    expiry_seconds: None,
    user: &[],
};

fn config(topic: &str) -> Config {
    let mut config = open_config();
    config.commands = Some(topic.parse().expect("a topic"));
    config
}

fn start() -> Gateway {
    Gateway::with(&config("devices/{device}/commands/{command_id}"))
}

fn numbered(id: &str) -> CommandMessage<'_> {
    CommandMessage { id, name: None, payload: id.as_bytes(), ..MESSAGE }
}

/// A CONNECT of a session that lasts.
fn lasting(version: u8, id: &str) -> Connect<'_> {
    let properties: &[u8] = if version == 5 { &[0x11, 0, 0, 1, 0] } else { &[] };
    Connect { flags: 0, properties, ..plain(version, id) }
}

/// Connects and returns whether the session was there.
async fn open(gateway: &Gateway, connect: &Connect<'_>) -> (Client<TcpStream>, bool) {
    let mut client = gateway.raw().await;
    client.send(&connect.bytes()).await;
    let connack = client.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    (client, connack[2] == 1)
}

/// Subscribes and returns the code.
async fn subscribe(client: &mut Client<TcpStream>, version: u8, filter: &str, qos: u8) -> u8 {
    client.send(&wire::subscribe(version, 7, &[(filter, qos)])).await;
    let suback = client.packet().await;
    assert_eq!(suback[0], 0x90, "{suback:02x?}");
    *suback.last().expect("a code")
}

/// A device that takes commands.
async fn device(gateway: &Gateway, version: u8) -> Client<TcpStream> {
    let mut client = gateway.client(version, "d").await;
    assert_eq!(subscribe(&mut client, version, COMMANDS, 1).await, 1);
    client
}

/// Waits for news that the device is there, or is not.
async fn presence(devices: &Devices, device: &str, expected: bool) {
    while devices.is_present(device) != expected {
        let news = soon(devices.changed()).await;
        assert_eq!(news, [device.into()]);
    }
}

fn deliver(devices: &Devices, message: &CommandMessage<'_>) -> Delivery {
    devices.deliver("d", message).expect("the device is there")
}

/// A PUBLISH of 5 to the device of the tests, without the correlation data that only some have.
fn command(version: u8, id: u16, name: &str) -> Vec<u8> {
    let topic = format!("devices/d/commands/{name}");
    if version == 4 {
        return wire::publish(4, 1, id, &topic, name.as_bytes());
    }
    let answer = wire::string(&format!("{topic}/status"));
    let properties =
        [vec![0x08], answer, vec![0x26], wire::string("command-id"), wire::string(name)].concat();
    wire::publish_with(5, 2, id, &topic, &properties, name.as_bytes())
}

#[tokio::test]
async fn a_device_is_there_while_it_is_connected_and_subscribes_to_all_of_its_commands() {
    for version in BOTH {
        let gateway = start();
        let devices = gateway.handle.devices();
        let mut client = gateway.client(version, "d").await;
        for (filter, qos) in [(COMMANDS, 0), ("devices/d/commands/c-1", 1), ("devices/d/telemetry", 2)] {
            assert_eq!(subscribe(&mut client, version, filter, qos).await, qos);
            assert!(!devices.is_present("d"), "by {filter} at {qos}");
        }
        assert_eq!(devices.deliver("d", &MESSAGE).err(), Some(NotDelivered::Absent));
        for filter in [COMMANDS, "devices/d/#"] {
            subscribe(&mut client, version, filter, 1).await;
            presence(&devices, "d", true).await;
            assert_eq!(devices.present(), 1);
            client.send(&wire::unsubscribe(version, 9, &[filter])).await;
            assert_eq!(client.packet().await[0], 0xb0);
            presence(&devices, "d", false).await;
        }
        subscribe(&mut client, version, COMMANDS, 2).await;
        presence(&devices, "d", true).await;
        // At QoS 0 it would not say whether they arrive.
        subscribe(&mut client, version, COMMANDS, 0).await;
        presence(&devices, "d", false).await;
        subscribe(&mut client, version, COMMANDS, 1).await;
        presence(&devices, "d", true).await;
        drop(client);
        presence(&devices, "d", false).await;
        assert_eq!(devices.present(), 0);
        assert_eq!(devices.deliver("d", &MESSAGE).err(), Some(NotDelivered::Absent));
    }
}

#[tokio::test]
async fn a_session_that_is_resumed_needs_no_new_subscription_and_one_that_ended_does() {
    for version in BOTH {
        let gateway = start();
        let devices = gateway.handle.devices();
        let (mut client, present) = open(&gateway, &lasting(version, "d")).await;
        assert!(!present);
        assert_eq!(subscribe(&mut client, version, COMMANDS, 1).await, 1);
        presence(&devices, "d", true).await;
        drop(client);
        presence(&devices, "d", false).await;
        let (older, present) = open(&gateway, &lasting(version, "d")).await;
        assert!(present);
        presence(&devices, "d", true).await;
        // A take-over is news: the device went and came back.
        let (newer, present) = open(&gateway, &lasting(version, "d")).await;
        assert!(present && devices.is_present("d"));
        assert_eq!(soon(devices.changed()).await, ["d".into()]);
        drop((older, newer));
        presence(&devices, "d", false).await;
        gateway.connections(0).await;
        let (_client, present) = open(&gateway, &plain(version, "d")).await;
        assert!(!present && !devices.is_present("d"));
    }
}

#[tokio::test]
async fn without_a_topic_nobody_is_there() {
    let gateway = Gateway::start();
    let _client = device(&gateway, 5).await;
    let devices = gateway.handle.devices();
    assert!(!devices.is_present("d") && devices.present() == 0);
    assert_eq!(devices.deliver("d", &MESSAGE).err(), Some(NotDelivered::Absent));
}

#[tokio::test]
async fn mqtt_5_gets_everything_that_a_command_says() {
    let gateway = start();
    let devices = gateway.handle.devices();
    let mut client = gateway.client(5, "d").await;
    // With a subscription identifier, which comes back.
    let body = [&[0, 7, 2, 0x0b, 9][..], &wire::string(COMMANDS), &[1]].concat();
    client.send(&wire::packet(0x82, &body)).await;
    assert_eq!(client.packet().await[0], 0x90);
    let message = CommandMessage {
        content_type: Some("application/json"),
        correlation: b"\x00\xff",
        expiry_seconds: Some(60),
        user: &[("redelivered", "true"), ("odd\0", "x")],
        ..MESSAGE
    };
    let delivery = deliver(&devices, &message);
    let topic = "devices/d/commands/c-1";
    let user = |name: &str, value: &str| [vec![0x26], wire::string(name), wire::string(value)].concat();
    let properties = [
        vec![0x02, 0, 0, 0, 60, 0x03],
        wire::string("application/json"),
        vec![0x08],
        wire::string("devices/d/commands/c-1/status"),
        vec![0x09],
        wire::binary(b"\x00\xff"),
        user("command-id", "c-1"),
        user("name", "open"),
        user("redelivered", "true"),
        user("odd\u{fffd}", "x"),
        vec![0x0b, 9],
    ]
    .concat();
    client.expect(&[&wire::publish_with(5, 2, 1, topic, &properties, b"{}")]).await;
    client.send(&wire::puback(1)).await;
    assert_eq!(soon(delivery).await, Fate::Acknowledged);
}

#[tokio::test]
async fn a_fate_is_what_the_device_says() {
    for (version, reason, expected) in [
        (4, 0, Fate::Acknowledged),
        (5, 0, Fate::Acknowledged),
        (5, 0x10, Fate::Acknowledged),
        (5, 0x80, Fate::Refused { reason: 0x80 }),
        (5, 0x97, Fate::Refused { reason: 0x97 }),
        (5, 0x99, Fate::Refused { reason: 0x99 }),
    ] {
        let gateway = start();
        let mut client = device(&gateway, version).await;
        let mut delivery = deliver(&gateway.handle.devices(), &numbered("c-1"));
        client.expect(&[&command(version, 1, "c-1")]).await;
        client.send(&wire::ack(0x40, 1, reason)).await;
        assert_eq!(soon(&mut delivery).await, expected);
        assert_eq!(soon(delivery).await, expected, "it says so again");
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_lost_connection_takes_its_commands_along_and_the_next_one_does_not_get_them() {
    for version in BOTH {
        let gateway = start();
        let devices = gateway.handle.devices();
        let (mut client, _) = open(&gateway, &lasting(version, "d")).await;
        subscribe(&mut client, version, COMMANDS, 1).await;
        subscribe(&mut client, version, "devices/d/telemetry", 1).await;
        let delivery = deliver(&devices, &numbered("c-1"));
        client.expect(&[&command(version, 1, "c-1")]).await;
        // An ordinary message is sent again.
        client.send(&wire::publish(version, 1, 1, "devices/d/telemetry", b"kept")).await;
        let mut got = [client.packet().await, client.packet().await];
        got.sort();
        assert_eq!(got, [wire::publish(version, 1, 2, "devices/d/telemetry", b"kept"), wire::puback(1)]);
        drop(client);
        assert_eq!(soon(delivery).await, Fate::Gone);
        assert_eq!(devices.deliver("d", &numbered("c-2")).err(), Some(NotDelivered::Absent));
        let (mut client, present) = open(&gateway, &lasting(version, "d")).await;
        assert!(present);
        let again = wire::publish_with(version, 0x0a, 2, "devices/d/telemetry", &[], b"kept");
        client.expect(&[&again]).await;
        // The id of the command is free, and its late acknowledgement is nobody's.
        client.send(&[wire::puback(1), wire::puback(2)].concat()).await;
        client.expect_silence().await;
        let delivery = deliver(&devices, &numbered("c-2"));
        client.expect(&[&command(version, 3, "c-2")]).await;
        client.send(&wire::puback(3)).await;
        assert_eq!(soon(delivery).await, Fate::Acknowledged);
    }
}

#[tokio::test]
async fn who_takes_over_starts_without_the_older_connections_commands() {
    for version in BOTH {
        let gateway = start();
        let devices = gateway.handle.devices();
        let (mut older, _) = open(&gateway, &lasting(version, "d")).await;
        subscribe(&mut older, version, COMMANDS, 1).await;
        let delivery = deliver(&devices, &numbered("c-1"));
        older.expect(&[&command(version, 1, "c-1")]).await;
        let (mut newer, present) = open(&gateway, &lasting(version, "d")).await;
        assert!(present);
        assert_eq!(soon(delivery).await, Fate::Gone);
        let delivery = deliver(&devices, &numbered("c-2"));
        newer.expect(&[&command(version, 2, "c-2")]).await;
        newer.send(&[wire::puback(1), wire::puback(2)].concat()).await;
        assert_eq!(soon(delivery).await, Fate::Acknowledged);
    }
}

#[tokio::test]
async fn a_command_waits_for_the_clients_receive_maximum() {
    let gateway = start();
    let devices = gateway.handle.devices();
    let (mut client, _) = open(&gateway, &Connect { properties: &[0x21, 0, 1], ..plain(5, "d") }).await;
    subscribe(&mut client, 5, COMMANDS, 1).await;
    let [one, two, three, four] = ["1", "2", "3", "4"].map(|id| deliver(&devices, &numbered(id)));
    client.expect(&[&command(5, 1, "1")]).await;
    client.expect_silence().await;
    // One that is not sent yet can be taken back; of one that is, nobody hears any more.
    drop((one, two));
    client.expect_silence().await;
    client.send(&wire::puback(1)).await;
    client.expect(&[&command(5, 3, "3")]).await;
    client.send(&wire::ack(0x40, 3, 0x91)).await;
    assert_eq!(soon(three).await, Fate::Refused { reason: 0x91 });
    client.expect(&[&command(5, 4, "4")]).await;
    client.send(&wire::puback(4)).await;
    assert_eq!(soon(four).await, Fate::Acknowledged);
}

#[tokio::test]
async fn a_command_that_outlives_its_use_in_the_queue_is_not_sent() {
    let gateway = start();
    let devices = gateway.handle.devices();
    let (mut client, _) = open(&gateway, &Connect { properties: &[0x21, 0, 1], ..plain(5, "d") }).await;
    subscribe(&mut client, 5, COMMANDS, 1).await;
    let first = deliver(&devices, &numbered("1"));
    let late = deliver(&devices, &CommandMessage { expiry_seconds: Some(0), ..numbered("2") });
    client.expect(&[&command(5, 1, "1")]).await;
    client.send(&wire::puback(1)).await;
    assert_eq!(soon(first).await, Fate::Acknowledged);
    assert_eq!(soon(late).await, Fate::Expired);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_command_larger_than_the_client_or_the_gateway_takes_is_not_sent() {
    let mut config = config("devices/{device}/commands/{command_id}");
    config.limits.packet_bytes_max = 1000;
    let gateway = Gateway::with(&config);
    let devices = gateway.handle.devices();
    let too_large = |message: &CommandMessage<'_>| match devices.deliver("d", message) {
        Err(NotDelivered::TooLarge { bytes, most }) => (bytes, most),
        other => panic!("{other:?}"),
    };
    let expected = command(5, 1, "c-1");
    let most = u8::try_from(expected.len()).expect("a small packet");
    let (mut client, _) =
        open(&gateway, &Connect { properties: &[0x27, 0, 0, 0, most], ..plain(5, "d") }).await;
    subscribe(&mut client, 5, COMMANDS, 1).await;
    let larger = CommandMessage { payload: b"c-1x", ..numbered("c-1") };
    assert_eq!(too_large(&larger), (expected.len() + 1, expected.len()));
    let delivery = deliver(&devices, &numbered("c-1"));
    client.expect(&[&expected]).await;
    client.send(&wire::puback(1)).await;
    assert_eq!(soon(delivery).await, Fate::Acknowledged);
    drop(client);
    presence(&devices, "d", false).await;

    let _client = device(&gateway, 4).await;
    let payload = [b'x'; 1000];
    // Two bytes of topic length and of packet id, the topic, and three of header.
    let bytes = 1000 + "devices/d/commands/c-1".len() + 2 + 2 + 3;
    assert_eq!(too_large(&CommandMessage { payload: &payload, ..numbered("c-1") }), (bytes, 1000));
    let long = "x".repeat(70_000);
    assert_eq!(too_large(&numbered(&long)).1, 65_535);
}

#[tokio::test]
async fn a_session_holds_so_many_commands() {
    let gateway = start();
    let devices = gateway.handle.devices();
    let _client = device(&gateway, 4).await;
    let deliveries: Vec<_> = (0..16).map(|_| deliver(&devices, &MESSAGE)).collect();
    assert_eq!(devices.deliver("d", &MESSAGE).err(), Some(NotDelivered::Full));
    assert_eq!(deliveries.len(), 16);
}

// --- answers ---

/// Takes the answers `ok`, understands no `junk` and knows nothing of others.
#[derive(Debug, Default)]
struct Taker {
    seen: Mutex<Vec<String>>,
    settled: Arc<Settled>,
}

#[derive(Debug, Default)]
struct Settled {
    durable: AtomicUsize,
    failed: AtomicUsize,
}

impl Answers for Taker {
    fn take(&self, answer: Answer<'_>, entries: &mut Encoded, _: &mut StateOps) -> Taken {
        let payload = String::from_utf8_lossy(answer.payload).into_owned();
        let name = answer.name.unwrap_or("-");
        self.seen.lock().push(format!("{} {} {name} {payload}", answer.device, answer.id));
        match &*payload {
            "ok" => {
                entries.push(&Entry {
                    lane: Lane::Status,
                    device: answer.device,
                    topic: "event",
                    received_ms: answer.received_ms,
                    qos: 1,
                    retain: false,
                    clock_synced: true,
                    properties: Properties::default(),
                    payload: b"succeeded",
                });
                Taken::Here(Some(Arc::clone(&self.settled) as Arc<dyn Durable>))
            }
            "again" => Taken::Here(None),
            "junk" => Taken::Malformed,
            _ => Taken::Unknown,
        }
    }
}

impl Durable for Settled {
    fn settled(&self, durable: bool) {
        let count = if durable { &self.durable } else { &self.failed };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

fn with_taker(gateway: &Gateway) -> Arc<Taker> {
    let taker = Arc::new(Taker::default());
    gateway.handle.devices().answers(Arc::clone(&taker) as Arc<dyn Answers>);
    taker
}

const ANSWER: &str = "devices/d/commands/c-1/status";

#[tokio::test]
async fn an_answer_is_acknowledged_when_what_follows_from_it_is_durable() {
    for (version, qos, ack) in [(4, 1, wire::puback(1)), (5, 1, wire::puback(1)), (5, 2, wire::pubrec(1))] {
        let gateway = start();
        let taker = with_taker(&gateway);
        let mut client = gateway.client(version, "d").await;
        gateway.outbox.hold().await;
        client.send(&wire::publish(version, qos, 1, ANSWER, b"ok")).await;
        client.expect_silence().await;
        assert_eq!(*taker.seen.lock(), ["d c-1 - ok"]);
        assert_eq!(taker.settled.durable.load(Ordering::SeqCst), 0);
        gateway.outbox.let_go();
        client.expect(&[&ack]).await;
        assert_eq!(taker.settled.durable.load(Ordering::SeqCst), 1);
        assert_eq!(gateway.outbox.payloads_of(Lane::Status), ["succeeded"]);
        assert!(gateway.outbox.payloads().is_empty());
        // QoS 2 again, which was taken already.
        if qos == 2 {
            client.send(&wire::publish_with(version, 0x0c, 1, ANSWER, &[], b"ok")).await;
            client.expect(&[&ack]).await;
            assert_eq!(taker.seen.lock().len(), 1);
        }
        // One that changes nothing needs no commit.
        gateway.outbox.hold().await;
        client.send(&wire::publish(version, 1, 2, ANSWER, b"again")).await;
        client.expect(&[&wire::puback(2)]).await;
    }
}

#[tokio::test]
async fn whoever_waits_for_an_answer_hears_of_it_though_the_device_is_gone() {
    let gateway = start();
    let taker = with_taker(&gateway);
    let mut client = gateway.client(4, "d").await;
    gateway.outbox.hold().await;
    client.send(&wire::publish(4, 1, 1, ANSWER, b"ok")).await;
    client.expect_silence().await;
    drop(client);
    gateway.outbox.let_go();
    gateway.connections(0).await;
    assert_eq!(taker.settled.durable.load(Ordering::SeqCst), 1);
    assert_eq!(taker.settled.failed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_that_nobody_understands_is_refused_where_that_can_be_said() {
    for version in BOTH {
        let gateway = start();
        let taker = with_taker(&gateway);
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::publish(version, 1, 1, ANSWER, b"junk")).await;
        let reason = if version == 5 { 0x99 } else { 0 };
        client.expect(&[&wire::ack(0x40, 1, reason)]).await;
        client.send(&wire::publish(version, 0, 0, ANSWER, b"junk")).await;
        client.expect_silence().await;
        assert_eq!(taker.seen.lock().len(), 2);
        assert!(gateway.outbox.payloads_of(Lane::Status).is_empty());
    }
}

#[tokio::test]
async fn an_answer_to_no_command_is_stored_as_the_devices_own() {
    for (version, taken) in [(4, true), (5, true), (5, false)] {
        let gateway = start();
        let taker = taken.then(|| with_taker(&gateway));
        let mut client = gateway.client(version, "d").await;
        client.send(&wire::publish(version, 1, 1, ANSWER, b"late")).await;
        client.expect(&[&wire::puback(1)]).await;
        assert_eq!(gateway.outbox.payloads_of(Lane::Status), ["late"]);
        assert_eq!(taker.map_or(1, |taker| taker.seen.lock().len()), 1);
    }
}

#[tokio::test]
async fn answers_reach_subscribers_and_have_the_reserve_of_lane_status() {
    let setup = Setup { bytes_max: 1 << 20, ..Setup::default() };
    let config = config("devices/{device}/commands/{name}/{command_id}");
    let gateway = Gateway::with_outbox(&config, std::time::Duration::from_secs(1), setup);
    let taker = with_taker(&gateway);
    let mut client = gateway.client(4, "d").await;
    let answer = "devices/d/commands/open/c-1/status";
    assert_eq!(subscribe(&mut client, 4, answer, 0).await, 0);
    gateway.outbox.fill().await;
    client.send(&wire::publish(4, 1, 1, answer, b"ok")).await;
    let mut got = [client.packet().await, client.packet().await];
    got.sort();
    assert_eq!(got, [wire::publish(4, 0, 0, answer, b"ok"), wire::puback(1)]);
    assert_eq!(*taker.seen.lock(), ["d c-1 open ok"]);
}

#[tokio::test]
async fn only_the_gateway_gives_commands_and_only_the_device_answers() {
    let gateway = Gateway::with(&config("orders/{device}/{command_id}"));
    let taker = with_taker(&gateway);
    for (topic, id) in [("orders/d/1", "d"), ("orders/d/1", "e"), ("orders/d/1/status", "e")] {
        let mut client = gateway.client(5, id).await;
        client.send(&wire::publish(5, 1, 1, topic, b"ok")).await;
        client.expect(&[&wire::ack(0x40, 1, 0x87)]).await;
        let mut client = gateway.client(4, id).await;
        client.send(&wire::publish(4, 1, 1, topic, b"ok")).await;
        client.expect_end(&[]).await;
    }
    assert!(taker.seen.lock().is_empty());
    let mut client = gateway.client(5, "e").await;
    for filter in ["orders/d/+", "orders/#", "orders/+/+", "#", "orders/d/1/status"] {
        assert_eq!(subscribe(&mut client, 5, filter, 1).await, 0x87, "{filter}");
    }
    assert_eq!(subscribe(&mut client, 5, "orders/e/+", 1).await, 1);
    let devices = gateway.handle.devices();
    assert!(devices.is_present("e") && !devices.is_present("d"));
}

#[tokio::test]
async fn nobody_leaves_an_answer_as_a_will() {
    let gateway = start();
    let rest = [wire::string(ANSWER), wire::binary(b"ok")].concat();
    let mut client = gateway.raw().await;
    client.send(&Connect { flags: 0x06, rest, ..plain(4, "d") }.bytes()).await;
    client.expect_end(&[&[0x20, 2, 0, 5]]).await;
}

#[tokio::test]
async fn a_topic_that_devices_publish_to_is_no_topic_of_commands() {
    let supervisor = Supervisor::new();
    let outbox = Outbox::open(Setup::default(), &supervisor);
    let config = config("devices/{device}/telemetry/{command_id}");
    match Service::bind(&config, outbox.handle().appender(), &supervisor) {
        Err(Error::Template { template, .. }) => assert_eq!(template, "devices/{device}/telemetry/{stream}"),
        other => panic!("{other:?}"),
    }
}
