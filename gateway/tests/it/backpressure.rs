//! An outbox or a disk that is full: nobody is told a lie, and everything acknowledged arrives in the end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use testkit::gateway::{Config, Gateway};
use testkit::powercut::{Disk, Mode, PowerCut};

use crate::client::{packet, sized};
use crate::hub::{self, NOTHING};

/// Longest wait for an answer of the gateway.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Who is withheld is not answered for so long.
const SILENCE: Duration = Duration::from_millis(300);
/// With every reading; the least quota takes some hundreds of them.
const PADDING: usize = 40_000;
const QUOTA_BYTES: usize = 16 << 20;

const ACCEPTED: u8 = 0;
const QUOTA_EXCEEDED: u8 = 0x97;

#[test]
fn a_full_outbox_refuses_or_withholds_and_serves_the_same_connections_when_the_cloud_is_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let full = || {
        let quota = format!("bytes_max = \"{QUOTA_BYTES}B\"");
        Config::default()
            .listener("on_full = \"refuse\"")
            .topic("devices/{device}/alerts", "alerts")
            .set("outbox", &quota)
    };
    let alone = full().set("uplink", "enabled = false");
    let mut gateway = Gateway::start(folder.path(), alone).expect("the gateway starts");
    let mut five = Device::connect(gateway.mqtt(), 5, "pump-5");
    let mut acked = 0;
    while five.ask(acked + 1) == ACCEPTED {
        acked += 1;
    }
    assert!(usize::from(acked) * PADDING > QUOTA_BYTES / 2, "only {acked} were taken");
    check_full(&gateway, &mut five, acked + 1);
    let gone = gateway.kill().expect("it can be killed");
    assert!(!gone.success());

    // It is as full after a restart, and until the cloud is there.
    let cloud = hub::start(folder.path());
    cloud.control().accepting(false).expect("the cloud can be away");
    let config = full().uplink(&cloud.ready().kafka, hub::TOPIC);
    let gateway = Gateway::start(folder.path(), config).expect("the gateway starts with the cloud away");
    let mut five = Device::connect(gateway.mqtt(), 5, "pump-5");
    assert_eq!(five.ask(acked + 1), QUOTA_EXCEEDED);
    let mut three = Device::connect(gateway.mqtt(), 4, "pump-3");
    three.publish("telemetry", 1, 1);
    three.expect_silence();

    cloud.control().accepting(true).expect("the cloud can come back");
    assert_eq!(three.answer(), (1, ACCEPTED), "what was withheld is taken");
    hub::wait_for("telemetry to be accepted again", || (five.ask(acked + 1) == ACCEPTED).then_some(()));
    assert_eq!(hub::missing(&cloud, "pump-5", acked + 1), NOTHING);
    assert_eq!(hub::missing(&cloud, "pump-3", 1), NOTHING);
    assert_eq!(hub::missing(&cloud, "siren", 1), NOTHING);
    assert_eq!(hub::readings(&cloud, "pump-5").len(), usize::from(acked) + 1, "what was refused is nowhere");
    let (passed, said) = hub::verify(&cloud);
    assert!(passed, "{said}");
}

#[test]
fn a_disk_that_gets_full_refuses_telemetry_then_everything_until_there_is_room() {
    const ROOMY: u64 = 64 << 30;
    const FLOOR: u64 = 256 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("home");
    let outbox = home.join("outbox");
    let disk = Disk::new(&folder.path().join("size"), ROOMY).expect("a file for the size");
    let twin = folder.path().join("twin");
    let cut = PowerCut::prepare(&outbox, &twin, Mode::Strict).expect("a twin").on(&disk);
    let config = Config::default()
        .listener("on_full = \"refuse\"")
        .topic("devices/{device}/alerts", "alerts")
        .set("outbox", &format!("disk_free_min = \"{FLOOR}B\""))
        .set("outbox", "ballast = \"16MiB\"")
        .set("uplink", "enabled = false")
        .environment(cut.environment());
    let gateway = Gateway::start(&home, config).expect("the gateway starts");
    let full = |lanes: &str, expected: u8| {
        let line = format!("penstock_outbox_disk_full{{lanes=\"{lanes}\"}} {expected}");
        let metrics = || gateway.health("/metrics").expect("it answers").expect("with metrics");
        hub::wait_for(&line, || metrics().lines().any(|has| has == line).then_some(()));
    };
    full("ordinary", 0);
    let ballast = std::fs::metadata(outbox.join("ballast")).expect("it is made at the start");
    assert_eq!(ballast.len(), 16 << 20);
    let mut five = Device::connect(gateway.mqtt(), 5, "pump-5");
    assert_eq!(five.ask(1), ACCEPTED);

    // The outbox takes up some of it.
    disk.resize(FLOOR).expect("others can fill the disk");
    full("ordinary", 1);
    assert_eq!(five.ask(2), QUOTA_EXCEEDED);
    let mut siren = Device::connect(gateway.mqtt(), 4, "siren");
    siren.publish("alerts", 1, 1);
    assert_eq!(siren.answer(), (1, ACCEPTED), "three quarters of the floor are for these");

    disk.resize(FLOOR / 8).expect("others can fill the disk");
    full("urgent", 1);
    siren.publish("alerts", 1, 2);
    siren.expect_silence();
    assert!(gateway.health("/readyz").expect("it answers").is_some(), "a full disk is not a failure");

    disk.resize(ROOMY).expect("the disk can be emptied");
    assert_eq!(siren.answer(), (2, ACCEPTED), "what was withheld is taken");
    full("ordinary", 0);
    assert_eq!(five.ask(2), ACCEPTED);
}

/// `five` was just refused; nobody's telemetry is taken from now on, and alerts are.
fn check_full(gateway: &Gateway, five: &mut Device, reading: u16) {
    for _ in 0..3 {
        assert_eq!(five.ask(reading), QUOTA_EXCEEDED);
    }
    five.publish("telemetry", 0, reading);
    five.ping();
    let mut three = Device::connect(gateway.mqtt(), 4, "pump-3");
    three.publish("telemetry", 1, 1);
    three.expect_silence();
    let mut siren = Device::connect(gateway.mqtt(), 4, "siren");
    siren.publish("alerts", 1, 1);
    assert_eq!(siren.answer(), (1, ACCEPTED));
    three.expect_silence();
    assert!(gateway.health("/readyz").expect("it answers").is_some(), "a full outbox is not a failure");

    let said = mosquitto_pub(gateway.mqtt());
    assert!(said.to_lowercase().contains("quota exceeded"), "{said:?}");
    let metrics = gateway.health("/metrics").expect("it answers").expect("with metrics");
    let counted = |line: &str| assert!(metrics.lines().any(|has| has == line), "{line} in {metrics}");
    // The first refusal, three more, and mosquitto's.
    counted("penstock_mqtt_refused_total{reason=\"quota\"} 5");
    counted("penstock_mqtt_shed_total{reason=\"quota\"} 1");
}

/// What mosquitto_pub says about a publish of MQTT 5.
fn mosquitto_pub(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    let output = Command::new("mosquitto_pub")
        .args(["-h", host, "-p", port, "-V", "mqttv5", "-q", "1", "-i", "pump-7"])
        .args(["-t", "devices/pump-7/telemetry", "-m", "{\"reading\":1}"])
        .output()
        .expect("mosquitto_pub is installed (`cargo xtask test` installs it)");
    [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
}

/// A device that speaks either version by hand.
struct Device {
    stream: TcpStream,
    version: u8,
    name: &'static str,
}

impl Device {
    fn connect(address: &str, version: u8, name: &'static str) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout can be set");
        let mut device = Self { stream, version, name };
        let mut body = [sized(b"MQTT"), vec![version, 0b0000_0010, 0, 60]].concat();
        body.extend(device.properties());
        body.extend(sized(name.as_bytes()));
        device.write(0x10, &body);
        let (kind, body) = device.packet();
        assert_eq!((kind, body[1]), (0x20, 0), "accepted");
        device
    }

    /// Publishes a reading whose number is its packet id.
    fn publish(&mut self, kind: &str, qos: u8, reading: u16) {
        let mut body = sized(format!("devices/{}/{kind}", self.name).as_bytes());
        if qos > 0 {
            body.extend(reading.to_be_bytes());
        }
        body.extend(self.properties());
        body.extend(format!("{{\"reading\":{reading},\"padding\":\"{}\"}}", "x".repeat(PADDING)).as_bytes());
        self.write(0x30 | qos << 1, &body);
    }

    /// Publishes a reading at QoS 1 as telemetry; returns the reason of its PUBACK.
    fn ask(&mut self, reading: u16) -> u8 {
        self.publish("telemetry", 1, reading);
        let (id, reason) = self.answer();
        assert_eq!(id, reading);
        reason
    }

    /// The packet id and the reason of the next PUBACK.
    fn answer(&mut self) -> (u16, u8) {
        let (kind, body) = self.packet();
        assert_eq!(kind, 0x40);
        (u16::from_be_bytes([body[0], body[1]]), body.get(2).copied().unwrap_or(ACCEPTED))
    }

    fn ping(&mut self) {
        self.write(0xc0, &[]);
        assert_eq!(self.packet().0, 0xd0);
    }

    fn expect_silence(&mut self) {
        self.stream.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
        let read = self.stream.read(&mut [0]);
        assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout can be set");
    }

    fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header).expect("an answer comes");
        assert!(header[1] < 128, "answers are short");
        let mut body = vec![0; usize::from(header[1])];
        self.stream.read_exact(&mut body).expect("and comes whole");
        (header[0], body)
    }

    fn write(&mut self, kind: u8, body: &[u8]) {
        self.stream.write_all(&packet(kind, body)).expect("the gateway takes it");
    }

    /// No properties, which only MQTT 5 has to say.
    fn properties(&self) -> Vec<u8> {
        if self.version == 5 { vec![0] } else { Vec::new() }
    }
}
