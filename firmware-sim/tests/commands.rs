//! The fleet takes commands from a small gateway with a queue of its own, which does one thing wrong at a time: each
//! fault is found, and by its own name.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use cloud_sim::{Running, TopicSpec};
use firmware_sim::cli::{Arguments, Command};
use firmware_sim::{Cancel, run};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use testkit::commands::judge::Counts;
use testkit::report::{Outcome, Report};
use tokio::runtime::Runtime;

/// What the gateway does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// It delivers again what was acknowledged.
    Repeats,
    /// It does not say that it delivers again.
    Unmarked,
    /// It delivers the second of two before the first.
    Overtakes,
    /// It settles before it delivers.
    Early,
    /// It neither settles nor tells.
    Forgets,
    /// It fails deliveries that nobody saw.
    Burns,
    /// It tells two final statuses.
    TellsTwice,
    /// It tells that the device failed.
    Lies,
    /// It delivers what nobody sent.
    Invents,
}

/// A command in the queue.
#[derive(Debug, Clone)]
struct Message {
    id: String,
    sequence: i64,
    body: String,
    answered: bool,
    deliveries: u32,
}

/// What is known of a device.
#[derive(Debug, Default)]
struct Device {
    writer: Option<TcpStream>,
    version: u8,
    queue: VecDeque<Message>,
    /// Whether the first of the queue is on its way, or waits for its answer.
    busy: bool,
    acked: bool,
}

struct Hub {
    fault: Fault,
    sequence: i64,
    devices: HashMap<String, Device>,
    log: Vec<Value>,
    producer: BaseProducer,
}

/// Cloud, gateway and queue; the addresses of Kafka, MQTT and the control API.
struct Scene {
    kafka: SocketAddr,
    mqtt: SocketAddr,
    control: SocketAddr,
    _running: Running,
    _runtime: Runtime,
    _data: tempfile::TempDir,
}

fn scene(fault: Fault) -> Scene {
    let data = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let config = cloud_sim::Config::new(data.path()).with_topic(TopicSpec::new("events", 1).unwrap());
    let running = runtime.block_on(cloud_sim::start(config)).unwrap();
    let producer = ClientConfig::new().set("bootstrap.servers", running.kafka.to_string()).create().unwrap();
    let hub = Hub { fault, sequence: 0, devices: HashMap::new(), log: Vec::new(), producer };
    let hub = Arc::new(Mutex::new(hub));
    let (mqtt, control) = (listen(&hub, mqtt), listen(&hub, control));
    Scene { kafka: running.kafka, mqtt, control, _running: running, _runtime: runtime, _data: data }
}

fn listen(hub: &Arc<Mutex<Hub>>, serve: fn(TcpStream, &Mutex<Hub>) -> io::Result<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, hub) = (listener.local_addr().unwrap(), Arc::clone(hub));
    let accept = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let hub = Arc::clone(&hub);
            // A connection that ends with an error is one that was cut.
            drop(thread::Builder::new().spawn(move || drop(serve(stream, &hub))).unwrap());
        }
    };
    drop(thread::Builder::new().spawn(accept).unwrap());
    address
}

// === The queue's control API ===

fn control(stream: TcpStream, hub: &Mutex<Hub>) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (head, body) = request(&mut reader)?;
        let answer = if head.starts_with("POST") {
            let messages: Vec<Value> = serde_json::from_slice(&body)?;
            let mut hub = hub.lock().unwrap();
            messages.iter().for_each(|message| hub.enqueue(message));
            json!({})
        } else {
            let after = head.split_once("after=").and_then(|(_, rest)| rest.split(' ').next());
            let after: usize = after.and_then(|after| after.parse().ok()).unwrap_or(0);
            let hub = hub.lock().unwrap();
            json!({ "first": 1, "next": hub.log.len() + 1, "entries": hub.log.get(after..).unwrap_or_default() })
        };
        let answer = answer.to_string();
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")?;
        write!(writer, "content-length: {}\r\n\r\n{answer}", answer.len())?;
    }
}

fn request(reader: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        reader.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok((head, body))
}

// === The gateway ===

fn mqtt(stream: TcpStream, hub: &Mutex<Hub>) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let (mut version, mut device) = (4, String::new());
    loop {
        let (kind, body) = packet(&mut reader)?;
        match kind >> 4 {
            1 => {
                version = body[6];
                let at = if version == 5 { 11 + usize::from(body[10]) } else { 10 };
                let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
                device = String::from_utf8_lossy(&body[at + 2..at + 2 + length]).into_owned();
                let connack: &[u8] = if version == 5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                writer.write_all(connack)?;
            }
            8 => {
                let suback: &[u8] = if version == 5 { &[0x90, 4, 0, 0, 0, 1] } else { &[0x90, 3, 0, 0, 1] };
                let mut suback = suback.to_vec();
                (suback[2], suback[3]) = (body[0], body[1]);
                writer.write_all(&suback)?;
                let mut hub = hub.lock().unwrap();
                let known = hub.devices.entry(device.clone()).or_default();
                (known.writer, known.version) = (Some(writer.try_clone()?), version);
                // What was on its way is not any more; an answer that is waited for still comes.
                known.busy = known.acked;
                hub.pump(&device);
            }
            3 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8_lossy(&body[2..2 + length]).into_owned();
                if kind & 6 == 2 {
                    writer.write_all(&[0x40, 2, body[2 + length], body[3 + length]])?;
                }
                if topic.ends_with("/status") {
                    hub.lock().unwrap().finish(&device, "succeeded");
                }
            }
            4 => hub.lock().unwrap().acknowledged(&device, body.get(2).copied().unwrap_or(0)),
            12 => writer.write_all(&[0xd0, 0])?,
            _ => return Ok(()),
        }
    }
}

fn packet(reader: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    let kind = byte[0];
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        reader.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((kind, body))
}

impl Hub {
    fn enqueue(&mut self, message: &Value) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.sequence += 1;
        let session = text(&message["session_id"]);
        let message = Message {
            id: text(&message["message_id"]),
            sequence: self.sequence,
            body: text(&message["body"]),
            answered: message["properties"]["penstock-completion"] == "answered",
            deliveries: 0,
        };
        let device = self.devices.entry(session.clone()).or_default();
        device.queue.push_back(message);
        if self.fault == Fault::Overtakes && !device.busy && device.queue.len() == 1 {
            // It waits for one to overtake it.
            return;
        }
        if self.fault == Fault::Overtakes && !device.busy {
            device.queue.swap(0, 1);
        }
        self.pump(&session);
    }

    /// Delivers the first command of the queue if none is on its way.
    fn pump(&mut self, device: &str) {
        let fault = self.fault;
        let Some(known) = self.devices.get_mut(device) else { return };
        let Some(writer) = known.writer.as_mut().filter(|_| !known.busy) else { return };
        let Some(message) = known.queue.front_mut() else { return };
        let mark = message.deliveries > 0 && fault != Fault::Unmarked;
        let packet = publish(device, message, known.version, mark);
        // Whoever is gone comes back and gets it then.
        drop(writer.write_all(&packet));
        if fault == Fault::Invents && message.deliveries == 0 {
            let body = message.body.replace("\"number\":", "\"number\":9");
            let other = Message { id: format!("{}-invented", message.id), body, ..message.clone() };
            drop(writer.write_all(&publish(device, &other, known.version, false)));
        }
        message.deliveries += 1;
        (known.busy, known.acked) = (true, false);
        if fault == Fault::Early {
            thread::park_timeout(Duration::from_millis(1));
            self.settle(device);
        }
    }

    fn acknowledged(&mut self, device: &str, reason: u8) {
        let fault = self.fault;
        let Some(known) = self.devices.get_mut(device) else { return };
        if known.acked || !known.busy {
            return;
        }
        known.acked = true;
        let Some(message) = known.queue.front().cloned() else { return };
        if fault == Fault::Repeats {
            let packet = publish(device, &message, known.version, true);
            drop(known.writer.as_mut().map(|writer| writer.write_all(&packet)));
        }
        if reason >= 0x80 {
            self.finish(device, "rejected");
        } else if !message.answered {
            self.finish(device, "delivered");
        }
    }

    /// Tells the cloud and settles.
    fn finish(&mut self, device: &str, status: &str) {
        let Some(known) = self.devices.get_mut(device).filter(|known| known.busy) else { return };
        let Some(message) = known.queue.front().cloned() else { return };
        let reason = (status == "rejected").then_some("refused");
        if self.fault != Fault::Forgets {
            let said = if self.fault == Fault::Lies { "failed" } else { status };
            self.tell(device, &message, "final", said, reason);
        }
        if self.fault == Fault::TellsTwice {
            self.tell(device, &message, "final-2", status, reason);
        }
        if self.fault != Fault::Early && self.fault != Fault::Forgets {
            self.settle_as(device, &message, reason);
        }
        if let Some(known) = self.devices.get_mut(device) {
            known.queue.pop_front();
            (known.busy, known.acked) = (false, false);
        }
        self.pump(device);
    }

    fn settle(&mut self, device: &str) {
        let message = self.devices.get(device).and_then(|known| known.queue.front()).cloned();
        if let Some(message) = message {
            self.settle_as(device, &message, None);
        }
    }

    fn settle_as(&mut self, device: &str, message: &Message, reason: Option<&str>) {
        let event = if reason.is_some() { "dead-lettered" } else { "completed" };
        self.log.push(json!({
            "id": self.log.len() + 1,
            "at_ms": unix_ms(),
            "event": event,
            "session": device,
            "sequence": message.sequence,
            "message_id": message.id,
            "delivery_count": if self.fault == Fault::Burns { 2 } else { 0 },
            "reason": reason.map(|reason| format!("penstock-{reason}")),
        }));
    }

    fn tell(&self, device: &str, message: &Message, phase: &str, status: &str, reason: Option<&str>) {
        let event = json!({
            "type": format!("io.penstock.command.{status}.v1"),
            "id": format!("{}/{}-1/{phase}", message.id, message.sequence),
            "data": {
                "commandId": message.id.replace('/', "%2F"),
                "device": device,
                "status": status,
                "final": true,
                "reason": reason,
            },
        });
        let event = event.to_string();
        self.producer.send(BaseRecord::to("events").key(device).payload(&event)).unwrap();
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rule is about the gateway; the log carries the wall clock"
)]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// PUBLISH at QoS 1 of a command to its device.
fn publish(device: &str, message: &Message, version: u8, mark: bool) -> Vec<u8> {
    let topic = format!("devices/{device}/commands/{}", message.id.replace('/', "%2F"));
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&[0, 9]);
    if version == 5 {
        let property = b"\x26\x00\x0bredelivered\x00\x04true";
        body.push(if mark { u8::try_from(property.len()).unwrap() } else { 0 });
        body.extend_from_slice(if mark { property } else { b"" });
    }
    body.extend_from_slice(message.body.as_bytes());
    let (low, high) =
        (u8::try_from(body.len() & 0x7f).unwrap() | 0x80, u8::try_from(body.len() >> 7).unwrap());
    [&[0x32, low, high], body.as_slice()].concat()
}

// === The runs ===

/// Runs a fleet against it; `profile` has the lines of the section `commands`.
fn played(fault: Fault, profile: &str) -> Report {
    let scene = scene(fault);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.toml");
    std::fs::write(&file, format!("[commands]\n{profile}")).unwrap();
    let line = format!(
        "firmware-sim run --target mqtt://{} --devices 4 --rate 20 --seconds 1 --seed 11 --qos0 0 --v5 50 \
         --profile {} --commands 40 --command-control {} --command-status kafka://{}/events --command-wait 1s \
         --readback-wait 20s --progress none",
        scene.mqtt,
        file.display(),
        scene.control,
        scene.kafka
    );
    let Command::Run(arguments) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command;
    run(&arguments, &Cancel::by_hand()).unwrap()
}

/// Checks that a fault is found under its name.
fn check(fault: Fault, profile: &str, counter: fn(&Counts) -> u64) {
    let report = played(fault, profile);
    let counts = report.commands.unwrap().counts;
    assert!(counter(&counts) > 0, "{fault:?}: {report:?}");
    assert_eq!((report.verdict, counts.sent), (Outcome::Fail, 40), "{fault:?}: {report:?}");
}

#[test]
fn a_good_gateway_passes_whatever_its_devices_do() {
    let profile = "latency_ms = 5\nanswer_ms = 10\nrefuse_percent = 20\ncrash_percent = 20\n";
    let report = played(Fault::Nothing, profile);
    assert_eq!(report.verdict, Outcome::Pass, "{report:?}");
    let commands = report.commands.unwrap();
    let counts = commands.counts;
    assert_eq!((counts.sent, counts.received, counts.completed), (40, 40, 40), "{report:?}");
    assert!(counts.dead_lettered > 0 && counts.again > 0 && commands.answered > 0, "{report:?}");
}

#[test]
fn repeats_are_found() {
    check(Fault::Repeats, "", |counts| counts.repeated);
    check(Fault::Unmarked, "crash_percent = 100\n", |counts| counts.unmarked);
}

#[test]
fn disorder_is_found() {
    check(Fault::Overtakes, "latency_ms = 1\n", |counts| counts.out_of_order);
}

#[test]
fn settlements_that_are_early_or_missing_are_found() {
    check(Fault::Early, "latency_ms = 50\n", |counts| counts.early);
    check(Fault::Forgets, "", |counts| counts.stuck);
}

#[test]
fn wasted_deliveries_are_found() {
    check(Fault::Burns, "", |counts| counts.burnt);
}

#[test]
fn wrong_statuses_are_found() {
    check(Fault::TellsTwice, "", |counts| counts.ambiguous);
    check(Fault::Lies, "", |counts| counts.contradicted);
}

#[test]
fn strangers_are_found() {
    check(Fault::Invents, "", |counts| counts.unexpected);
}
