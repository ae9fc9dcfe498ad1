//! What the gateway itself publishes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use super::super::publisher::{PENDING_BYTES_MAX, PENDING_MAX, TOPIC_BYTES_MAX};
use super::super::{Action, Config, Effect, Outgoing, PublishError, Qos, Rule, Service};
use super::gateway::{Client, DEADLINE, Gateway, open_config, soon};
use super::wire::{self, Connect, plain};
use crate::outbox;
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const TOPIC: &str = "alerts/plant-7";
const BOTH: [u8; 2] = [4, 5];

/// Everybody may publish and subscribe to what belongs to no device.
fn config() -> Config {
    let mut config = open_config();
    let filter = "#".parse().expect("a filter");
    let all = Rule { effect: Effect::Allow, action: Action::All, filter, user: None };
    config.access.rules.push(all);
    config
}

fn at_least_once(payload: &[u8]) -> Outgoing<'_> {
    Outgoing { qos: Qos::AtLeastOnce, ..Outgoing::new(TOPIC, payload) }
}

/// A CONNECT of a session that lasts.
fn lasting(version: u8) -> Connect<'static> {
    let properties: &[u8] = if version == 5 { &[0x11, 0, 0, 1, 0] } else { &[] };
    Connect { flags: 0, properties, ..plain(version, "d") }
}

async fn open(gateway: &Gateway, connect: &Connect<'_>) -> Client<TcpStream> {
    let mut client = gateway.raw().await;
    client.send(&connect.bytes()).await;
    let connack = client.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    client
}

async fn subscribe(client: &mut Client<TcpStream>, version: u8, filter: &str, qos: u8) {
    client.send(&wire::subscribe(version, 7, &[(filter, qos)])).await;
    let suback = client.packet().await;
    assert_eq!((suback[0], suback.last()), (0x90, Some(&qos)), "{suback:02x?}");
}

/// A gateway with a subscriber whose session lasts.
async fn with_subscriber(version: u8, config: &Config) -> (Gateway, Client<TcpStream>) {
    let gateway = Gateway::with(config);
    let mut client = open(&gateway, &lasting(version)).await;
    subscribe(&mut client, version, "alerts/#", 2).await;
    (gateway, client)
}

#[tokio::test]
async fn who_subscribes_gets_it_and_the_log_does_not() {
    for version in BOTH {
        let gateway = Gateway::with(&config());
        let mut one = gateway.client(version, "one").await;
        let mut other = gateway.client(version, "other").await;
        subscribe(&mut one, version, "alerts/+", 1).await;
        subscribe(&mut other, version, "#", 0).await;
        let outgoing = Outgoing {
            expires_at_ms: Some(clock::unix_ms() + 3_600_000),
            content_type: Some("application/cloudevents+json"),
            correlation: Some(b"\x00\xff"),
            properties: &[("severity", "critical"), ("odd\0", "x")],
            ..at_least_once(b"{}")
        };
        let mut published = gateway.handle.publisher().publish(&outgoing).expect("published");
        assert_eq!((published.takers, published.dropped, published.kept), (2, 0, true));
        assert_eq!(soon(published.durable()).await, Ok(()), "nothing has to be");
        let user = |name: &str, value: &str| [vec![0x26], wire::string(name), wire::string(value)].concat();
        let properties = [
            vec![0x02, 0, 0, 0x0e, 0x10, 0x03],
            wire::string("application/cloudevents+json"),
            vec![0x09],
            wire::binary(b"\x00\xff"),
            user("severity", "critical"),
            user("odd\u{fffd}", "x"),
        ]
        .concat();
        let properties = if version == 5 { properties } else { Vec::new() };
        one.expect(&[&wire::publish_with(version, 2, 1, TOPIC, &properties, b"{}")]).await;
        other.expect(&[&wire::publish_with(version, 0, 0, TOPIC, &properties, b"{}")]).await;
        one.send(&wire::puback(1)).await;
        one.expect_silence().await;
        assert_eq!(gateway.outbox.payloads(), [""; 0]);
    }
}

#[tokio::test]
async fn a_topic_of_a_device_and_what_is_no_topic_are_refused() {
    let mut config = config();
    config.commands = Some("devices/{device}/commands/{command_id}".parse().expect("a topic"));
    let gateway = Gateway::with(&config);
    let mut client = gateway.client(5, "d").await;
    subscribe(&mut client, 5, "devices/d/#", 0).await;
    let longest = "x".repeat(TOPIC_BYTES_MAX);
    let check = |topic: &str, expected: Option<PublishError>| {
        let published = gateway.handle.publisher().publish(&Outgoing::new(topic, b"x"));
        assert_eq!(published.err(), expected, "{topic}");
    };
    check(&longest, None);
    for topic in ["", "a/+", "a/#", "a\0", &format!("{longest}x")] {
        check(topic, Some(PublishError::Topic));
    }
    for topic in ["$SYS/broker/version", "$share/g/a", "$x"] {
        check(topic, Some(PublishError::Reserved));
    }
    for topic in [
        "devices/d/telemetry",
        "devices/d/telemetry/a",
        "devices//telemetry",
        "devices/d/commands/c-1/status",
    ] {
        check(topic, Some(PublishError::Template));
    }
    client.expect_silence().await;
    check("devices/d/commands/c-1", None);
    client.expect(&[&wire::publish(5, 0, 0, "devices/d/commands/c-1", b"x")]).await;
    assert_eq!(gateway.outbox.payloads(), [""; 0]);
}

#[tokio::test]
async fn what_is_too_large_or_too_old_is_refused() {
    let mut config = config();
    config.limits.packet_bytes_max = 70_000;
    let gateway = Gateway::with(&config);
    let publisher = gateway.handle.publisher();
    let check = |outgoing: &Outgoing<'_>, expected: Option<PublishError>| {
        assert_eq!(publisher.publish(outgoing).err(), expected);
    };
    // One byte each for type and properties, three for the length, two for that of the topic.
    let payload = vec![b'x'; 70_001 - 7 - TOPIC.len()];
    check(&Outgoing::new(TOPIC, &payload[1..]), None);
    check(&Outgoing::new(TOPIC, &payload), Some(PublishError::TooLarge { bytes: 70_001, most: 70_000 }));
    let long = "x".repeat(65_536);
    let properties = [("name", long.as_str())];
    let outgoing = Outgoing { properties: &properties, ..Outgoing::new(TOPIC, b"") };
    check(&outgoing, Some(PublishError::TooLarge { bytes: 65_536, most: 65_535 }));
    let outgoing = Outgoing { expires_at_ms: Some(clock::unix_ms()), ..Outgoing::new(TOPIC, b"") };
    check(&outgoing, Some(PublishError::Expired));
}

#[tokio::test]
async fn a_lasting_session_gets_it_when_it_is_durable_and_then_it_is_told() {
    for version in BOTH {
        let (gateway, mut client) = with_subscriber(version, &config()).await;
        gateway.outbox.hold().await;
        let mut published = gateway.handle.publisher().publish(&at_least_once(b"1")).expect("published");
        assert_eq!(published.takers, 1);
        client.expect_silence().await;
        assert_eq!(published.wait(clock::now()), None);
        gateway.outbox.let_go();
        client.expect(&[&wire::publish(version, 1, 1, TOPIC, b"1")]).await;
        // A thread of its own may block on it.
        let waited = move || (published.wait(clock::now() + DEADLINE), published.wait(clock::now()));
        let waited = tokio::task::spawn_blocking(waited).await.expect("it waits");
        assert_eq!(waited, (Some(Ok(())), Some(Ok(()))), "and says it again");
        // Nobody waits for this one.
        drop(gateway.handle.publisher().publish(&at_least_once(b"2")).expect("published"));
        client.expect(&[&wire::publish(version, 1, 2, TOPIC, b"2")]).await;
    }
}

#[tokio::test]
async fn a_session_without_a_connection_gets_it_when_it_comes_back() {
    for version in BOTH {
        let (gateway, client) = with_subscriber(version, &config()).await;
        drop(client);
        gateway.connections(0).await;
        let unasked = gateway.handle.publisher().publish(&Outgoing::new(TOPIC, b"0")).expect("published");
        assert_eq!(unasked.takers, 0, "QoS 0 does not wait for anybody");
        let mut published = gateway.handle.publisher().publish(&at_least_once(b"1")).expect("published");
        assert_eq!(published.takers, 1);
        assert_eq!(soon(published.durable()).await, Ok(()));
        let mut client = open(&gateway, &lasting(version)).await;
        client.expect(&[&wire::publish(version, 1, 1, TOPIC, b"1")]).await;
    }
}

#[tokio::test]
async fn a_full_queue_drops_it_and_says_so() {
    let mut config = config();
    config.limits.queue_messages_max = 1;
    let (gateway, client) = with_subscriber(5, &config).await;
    drop(client);
    gateway.connections(0).await;
    let publish = |payload| {
        let published = gateway.handle.publisher().publish(&at_least_once(payload)).expect("published");
        (published.takers, published.dropped)
    };
    assert_eq!(publish(b"1"), (1, 0));
    assert_eq!(publish(b"2"), (0, 1));
}

#[tokio::test]
async fn a_retained_one_is_there_for_later_subscribers_until_an_empty_one_takes_it_away() {
    let mut config = config();
    config.limits.retained_max = 1;
    let gateway = Gateway::with(&config);
    let publish = |topic, payload| {
        let outgoing = Outgoing { retain: true, ..Outgoing::new(topic, payload) };
        gateway.handle.publisher().publish(&outgoing).expect("published")
    };
    let mut published = publish(TOPIC, b"open");
    assert!(published.kept);
    assert_eq!(soon(published.durable()).await, Ok(()));
    assert!(!publish("alerts/other", b"open").kept, "there is room for one");
    let mut client = gateway.client(5, "d").await;
    subscribe(&mut client, 5, "alerts/#", 1).await;
    client.expect(&[&wire::publish_with(5, 1, 0, TOPIC, &[], b"open")]).await;
    assert!(publish(TOPIC, b"").kept);
    client.expect(&[&wire::publish(5, 0, 0, TOPIC, b"")]).await;
    let mut later = gateway.client(5, "later").await;
    subscribe(&mut later, 5, "alerts/#", 1).await;
    later.expect_silence().await;
}

#[tokio::test]
async fn what_is_not_durable_is_bounded_in_count_and_in_bytes() {
    let mut config = config();
    config.limits.queue_messages_max = 2 * PENDING_MAX;
    config.limits.queue_bytes_max = 16 << 20;
    for payload in [&b"x"[..], &vec![b'x'; PENDING_BYTES_MAX / 20]] {
        let (gateway, client) = with_subscriber(5, &config).await;
        drop(client);
        gateway.connections(0).await;
        gateway.outbox.hold().await;
        let publisher = gateway.handle.publisher();
        let most = if payload.len() == 1 { PENDING_MAX } else { 20 };
        let mut last = None;
        for _ in 0..most {
            last = Some(publisher.publish(&at_least_once(payload)).expect("there is room"));
        }
        assert_eq!(publisher.publish(&at_least_once(payload)).err(), Some(PublishError::Full));
        let retained = Outgoing { retain: true, ..Outgoing::new(TOPIC, b"x") };
        assert_eq!(publisher.publish(&retained).err(), Some(PublishError::Full));
        assert!(publisher.publish(&Outgoing::new(TOPIC, payload)).is_ok(), "nothing of it has to be durable");
        gateway.outbox.let_go();
        assert_eq!(soon(last.expect("some").durable()).await, Ok(()));
        assert!(publisher.publish(&at_least_once(payload)).is_ok(), "there is room again");
    }
}

#[tokio::test]
async fn at_a_stop_nothing_is_taken_and_nobody_waits_for_ever() {
    let (gateway, client) = with_subscriber(5, &config()).await;
    drop(client);
    gateway.connections(0).await;
    gateway.supervisor.enter(Phase::DrainUplink);
    soon(gateway.supervisor.idle(TaskKind::Sessions)).await;
    let published = gateway.handle.publisher().publish(&at_least_once(b"1"));
    assert_eq!(published.err(), Some(PublishError::Stopping));
}

// --- death ---

/// Where the process that is killed writes; set for it alone.
const DIRECTORY: &str = "PENSTOCK_TEST_PUBLISHER_DIRECTORY";
/// What is durable when it is killed.
const TOLD: usize = 20;

/// The stage on the outbox in a folder.
struct Site {
    outbox: outbox::Handle,
    supervisor: Supervisor,
    handle: super::super::Handle,
}

impl Site {
    fn open(directory: &Path) -> Self {
        crate::tls::install_provider();
        let supervisor = Supervisor::new();
        let durable = outbox::Config { realtime: false, ballast: 0, ..outbox::Config::new(directory) };
        let (_, outbox) = outbox::Service::open(durable, &[], &supervisor).expect("the outbox opens");
        let bound = Service::bind(&config(), outbox.appender(), &supervisor);
        let (service, handle) = bound.expect("the stage starts");
        supervisor.spawn(TaskKind::Mqtt, service.run());
        Self { outbox, supervisor, handle }
    }

    /// The subscriber, whose session lasts; says whether it was there.
    async fn subscriber(&self) -> (Client<TcpStream>, bool) {
        let address = self.handle.addresses()[0].address;
        let mut client = Client::new(soon(TcpStream::connect(address)).await.expect("connected"));
        client.send(&lasting(5).bytes()).await;
        let connack = client.packet().await;
        (client, connack[2] == 1)
    }
}

/// Publishes until it is killed. Not a test of its own: without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child_publishes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let site = Site::open(Path::new(&directory));
    let (mut client, _) = site.subscriber().await;
    subscribe(&mut client, 5, "alerts/#", 1).await;
    drop(client);
    while site.handle.status().connections > 0 {
        tokio::task::yield_now().await;
    }
    let publisher = site.handle.publisher();
    let publish = move || {
        for n in 1_usize.. {
            let payload = n.to_string();
            let outgoing = Outgoing { retain: true, ..at_least_once(payload.as_bytes()) };
            let mut published = publisher.publish(&outgoing).expect("published");
            assert_eq!(published.wait(clock::now() + DEADLINE), Some(Ok(())));
            println!("durable {n}");
            std::io::stdout().flush().expect("somebody reads");
        }
    };
    tokio::task::spawn_blocking(publish).await.expect("it goes on until it is killed");
}

fn start(directory: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--exact", "mqtt::tests::publisher::child_publishes_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_to_be_durable_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("outbox");
    let mut child = start(&directory);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut told = 0;
    while told < TOLD {
        let line = lines.next().expect("it goes on until it is killed").expect("text");
        if let Some((_, n)) = line.split_once("durable ") {
            told = n.parse().expect("a number");
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");

    let site = Site::open(&directory);
    let (mut client, present) = site.subscriber().await;
    assert!(present, "the session is there");
    for n in 1..=TOLD {
        let id = u16::try_from(n).expect("few");
        let packet = client.packet().await;
        let first = packet[0] & !0x08;
        let body = wire::publish(5, 1, id, TOPIC, n.to_string().as_bytes());
        assert_eq!((first, &packet[1..]), (body[0], &body[1..]), "message {n}, perhaps with DUP");
        client.send(&wire::puback(id)).await;
    }
    let mut later =
        Client::new(soon(TcpStream::connect(site.handle.addresses()[0].address)).await.expect("connected"));
    later.send(&wire::connect(5, "later")).await;
    assert_eq!(later.packet().await[0], 0x20);
    subscribe(&mut later, 5, TOPIC, 0).await;
    let retained = later.packet().await;
    // Behind the fixed header, the topic and the length of the properties.
    let payload = String::from_utf8_lossy(&retained[2 + 2 + TOPIC.len() + 1..]).into_owned();
    assert!(payload.parse::<usize>().is_ok_and(|n| n >= TOLD), "{retained:02x?}");
    site.supervisor.enter(Phase::FinishPublishes);
    soon(site.supervisor.idle(TaskKind::Connection)).await;
    site.supervisor.enter(Phase::DrainUplink);
    assert!(site.outbox.close(clock::now() + Duration::from_secs(10)), "it closes");
}
