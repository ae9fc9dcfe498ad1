//! Clients that send anything: nobody else notices, and whatever they are answered can be read.
//!
//! Each connects properly and then sends valid and broken packets as they come, on topics and filters that
//! meet: sessions that last, take-overs, wills, aliases, shared filters, retained messages. The connections of
//! a seed are the same each time. `PENSTOCK_FUZZ_SEED` sets it, `PENSTOCK_FUZZ_CONNECTIONS` how many there are.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use rumqttc::mqttbytes as three;
use rumqttc::v5::mqttbytes as five;
use testkit::fuzz::{Random, mutate, setting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::access::{Action, Effect, Rule};
use super::super::{Access, codec};
use super::gateway::{Client, Gateway, open_config, soon};
use super::wire;

const TOPICS: [&str; 6] = ["devices/h1/telemetry", "devices/h2/telemetry", "a/b", "a", "a/b/c", "$SYS/x"];
const FILTERS: [&str; 8] =
    ["#", "a/#", "+/+", "a/b", "$share/g/a/#", "$share/h/+/b", "devices/h1/#", "$SYS/#"];
const CLIENTS: [&str; 3] = ["h1", "h2", "h3"];
/// Packets after CONNECT, at most.
const PACKETS_MAX: usize = 24;

/// Panics in the stage, by whoever caused them.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |place| place.file());
            // Another test of this process asks for one.
            let asked_for = info.payload_as_str().is_some_and(|text| text.contains("asked for by a test"));
            let counts = file.contains("mqtt") && !file.contains("tests") && !asked_for;
            PANICS.fetch_add(usize::from(counts), Ordering::SeqCst);
            before(info);
        }));
    });
}

/// What one client sends.
struct Script {
    version: u8,
    bytes: Vec<u8>,
    /// CONNECT is as it should be, so that answers come in its version.
    greets: bool,
}

fn script(random: &mut Random) -> Script {
    let version = if random.below(2) == 0 { 4 } else { 5 };
    let valid: Vec<Vec<u8>> = (0..random.below(PACKETS_MAX)).map(|_| packet(random, version)).collect();
    let mut bytes = connect(random, version);
    let greets = random.below(16) != 0;
    if !greets {
        mutate(random, &mut bytes, b"\x10\x0c\0\x04MQTT");
    }
    let corpus = codec::seeds(if version == 4 { "mqtt_3" } else { "mqtt_5" });
    for mut packet in valid {
        if random.below(12) == 0 {
            let other = random.pick(&corpus).expect("a corpus");
            mutate(random, &mut packet, other);
        }
        bytes.extend(packet);
    }
    Script { version, bytes, greets }
}

/// A session of one connection or of several, with a will or without, with room for much or little.
fn connect(random: &mut Random, version: u8) -> Vec<u8> {
    let id = random.pick(&CLIENTS).expect("clients");
    let mut hello = wire::plain(version, id);
    let lasts = random.below(2) == 0;
    if lasts {
        hello.flags = 0;
    }
    let mut properties = Vec::new();
    if version == 5 {
        if lasts {
            properties.extend(b"\x11\0\0\0\x3c");
        }
        let optional: [&[u8]; 4] = [b"\x21\0\x02", b"\x22\0\x04", b"\x27\0\0\0\x40", b"\x17\0"];
        for property in optional {
            if random.below(3) == 0 {
                properties.extend(property);
            }
        }
    }
    hello.properties = &properties;
    if random.below(3) == 0 {
        hello.flags |= [0x04, 0x0c, 0x14, 0x24, 0x2c][random.below(5)];
        let none: &[u8] = if version == 5 { &[0] } else { &[] };
        let topic = random.pick(&TOPICS[..5]).expect("topics");
        hello.rest = [none, &wire::string(topic), &wire::string("gone")].concat();
    }
    hello.bytes()
}

/// One packet that is right, as far as one can know.
fn packet(random: &mut Random, version: u8) -> Vec<u8> {
    let id = u16::try_from(1 + random.below(4)).expect("a small number");
    let filter = random.pick(&FILTERS).expect("filters");
    match random.below(12) {
        0..=4 => publish(random, version, id),
        5 | 6 => {
            let level = u8::try_from(random.below(3)).expect("a level");
            wire::subscribe(version, id, &[(filter, level), ("a/+", 2)])
        }
        7 => wire::unsubscribe(version, id, &[filter]),
        8 => wire::puback(id),
        9 => wire::pubrec(id),
        10 => [wire::pubrel(id), wire::pubcomp(id)][random.below(2)].clone(),
        _ => wire::PINGREQ.to_vec(),
    }
}

fn publish(random: &mut Random, version: u8, id: u16) -> Vec<u8> {
    let mut topic = *random.pick(&TOPICS).expect("topics");
    let flags = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0a, 0x0c][random.below(8)];
    let blocks: [&[u8]; 5] = [
        b"",
        b"\x23\0\x01",
        b"\x02\0\0\0\x05\x26\0\x01n\0\x01v",
        b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01c",
        b"\x02\0\0\0\0",
    ];
    let place = if version == 5 { random.below(blocks.len()) } else { 0 };
    if place == 1 && random.below(2) == 0 {
        topic = "";
    }
    let payload = vec![b'x'; [0, 1, 10, 200][random.below(4)]];
    wire::publish_with(version, flags, id, topic, blocks[place], &payload)
}

/// Sends everything in pieces, says that nothing more comes, and takes what there is until the end.
async fn play(gateway: &Gateway, random: &mut Random, script: &Script) -> Vec<u8> {
    let mut socket = soon(TcpStream::connect(gateway.address())).await.expect("connected");
    let mut rest = script.bytes.as_slice();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + random.below(rest.len()));
        // The gateway may have closed, which is its right.
        if soon(socket.write_all(piece)).await.is_err() {
            break;
        }
        rest = after;
    }
    let _closed = socket.shutdown().await;
    let mut answers = Vec::new();
    // A reset loses what was not read; what came before is there.
    let _end = soon(socket.read_to_end(&mut answers)).await;
    answers
}

/// Whatever the gateway sends rumqttc can read; the end may cut the last packet.
fn check_answers(version: u8, answers: &[u8]) {
    let mut stream = BytesMut::from(answers);
    while !stream.is_empty() {
        let error = if version == 4 {
            let read = three::v4::Packet::read(&mut stream, 1 << 20);
            read.err()
                .filter(|error| !matches!(error, three::Error::InsufficientBytes(_)))
                .map(|e| e.to_string())
        } else {
            let read = five::v5::Packet::read(&mut stream, None);
            read.err()
                .filter(|error| !matches!(error, five::Error::InsufficientBytes(_)))
                .map(|e| e.to_string())
        };
        assert_eq!(error, None, "{}", answers.escape_ascii());
        let whole = wire::packet_len(&stream).is_some_and(|bytes| bytes <= stream.len());
        if !whole {
            return;
        }
    }
}

/// Takes what was delivered up to the answer to a ping.
async fn drain(listener: &mut Client<TcpStream>, version: u8) {
    listener.send(&wire::PINGREQ).await;
    loop {
        let packet = listener.packet().await;
        check_answers(version, &packet);
        match packet.first() {
            Some(0xd0) => return,
            // QoS 1, and both halves of QoS 2.
            Some(first @ (0x32 | 0x33)) | Some(first @ (0x34 | 0x35)) => {
                let body = &packet[if packet[1] & 0x80 == 0 { 2 } else { 3 }..];
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                let answer = if first & 4 == 0 { wire::puback(id) } else { wire::pubrec(id) };
                listener.send(&answer).await;
            }
            Some(0x62) => {
                let id = u16::from_be_bytes([packet[2], packet[3]]);
                listener.send(&wire::pubcomp(id)).await;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn whatever_clients_send_others_are_served() {
    count_panics();
    let (seed, count) = (setting("SEED", rand::random()), setting("CONNECTIONS", 200));
    println!("PENSTOCK_FUZZ_SEED={seed}");
    let everything = Rule {
        effect: Effect::Allow,
        action: Action::All,
        filter: "#".parse().expect("a filter"),
        user: None,
    };
    let mut config = open_config();
    config.access = Access { rules: vec![everything], ..config.access };
    let gateway = Gateway::with(&config);
    let mut listeners = [(4, gateway.client(4, "three").await), (5, gateway.client(5, "five").await)];
    for (version, listener) in &mut listeners {
        listener.send(&wire::subscribe(*version, 1, &[("#", 1), ("a/+", 2)])).await;
        drain(listener, *version).await;
    }
    let mut random = Random::new(seed);
    let mut welcomed = 0;
    for _ in 0..count {
        let script = script(&mut random);
        let answers = play(&gateway, &mut random, &script).await;
        welcomed += u64::from(answers.starts_with(&[0x20]) && answers.get(3) == Some(&0));
        if script.greets {
            check_answers(script.version, &answers);
        }
        for (version, listener) in &mut listeners {
            drain(listener, *version).await;
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "{}", script.bytes.escape_ascii());
    }
    // Most of them got as far as their packets.
    assert!(welcomed > count / 2, "{welcomed} of {count}");
    gateway.connections(listeners.len()).await;
    gateway.stop().await;
}
