//! A gateway that has no file descriptor left: who is connected does not notice, and who is not waits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use testkit::gateway::{Config, Gateway};

use crate::client::Device;

/// Descriptors left to the gateway when the test begins.
const LEFT: usize = 6;
/// Who is not accepted hears nothing for so long: several times the gateway's pause.
const SILENCE: Duration = Duration::from_millis(700);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// CONNECT of MQTT 3.1.1 with the client id "late".
const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04late";

#[test]
fn without_descriptors_those_connected_are_served_and_the_others_wait_for_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config::default().set("uplink", "enabled = false").set("mqtt", "connect_timeout = \"60s\"");
    let mut gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
    let mut device = Device::connect(gateway.mqtt(), "pump-7");
    device.pump(8, 50, |_| ());
    let mut health = Health::connect(&gateway.ready().health);
    assert!(health.metrics().contains("penstock_mqtt_accept_errors_total 0"));

    let pid = gateway.process().pid();
    limit(pid, open_descriptors(pid) + LEFT);
    // The kernel accepts more than the gateway can.
    let greedy: Vec<TcpStream> = (0..LEFT + 4).map(|_| connect(gateway.mqtt())).collect();
    let mut late = connect(gateway.mqtt());
    late.write_all(CONNECT).expect("the kernel takes it");
    late.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
    let early = late.read(&mut [0]);
    assert!(matches!(&early, Err(error) if error.kind() == ErrorKind::WouldBlock), "{early:?}");
    assert_eq!(device.pump(8, 100, |_| ()), 100, "who is connected is acknowledged");
    let errors = accept_errors(&health.metrics());
    assert!(errors > 0, "the descriptors were not used up");
    assert!(errors < 50, "{errors} failed accepts: the listener does not wait between them");

    drop(greedy);
    late.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout can be set");
    let mut connack = [0; 4];
    late.read_exact(&mut connack).expect("accepted when there is a descriptor");
    assert_eq!(connack, [0x20, 2, 0, 0]);
    assert_eq!(device.pump(8, 150, |_| ()), 150);
    assert!(gateway.stop().expect("it stops").success());
}

fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).expect("the kernel queues it")
}

fn open_descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count()
}

/// Sets the number of descriptors that a process may have.
fn limit(pid: u32, descriptors: usize) {
    let nofile = format!("--nofile={descriptors}:{descriptors}");
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &nofile]).status();
    assert!(status.expect("prlimit is part of util-linux").success());
}

fn accept_errors(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("penstock_mqtt_accept_errors_total "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

/// A connection to the health listener that stays open: no new one could be accepted.
struct Health {
    stream: TcpStream,
}

impl Health {
    fn connect(address: &str) -> Self {
        let stream = connect(address);
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout can be set");
        Self { stream }
    }

    fn metrics(&mut self) -> String {
        self.stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n").expect("it listens");
        let mut answer = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(body) = whole_body(&answer) {
                return body;
            }
            let count = self.stream.read(&mut piece).expect("it answers");
            assert!(count > 0, "closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..count]);
        }
    }
}

/// The body of an answer with a length, once it is all there.
fn whole_body(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (body.len() >= length.parse().ok()?).then(|| body.to_owned())
}
