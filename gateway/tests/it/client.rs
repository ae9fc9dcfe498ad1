//! A device in twenty bytes: MQTT 3.1.1 written by hand, so that a test knows exactly what was acknowledged.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for an answer of the gateway.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connected device that numbers its readings from 1.
pub(crate) struct Device {
    stream: TcpStream,
    name: String,
    sent: u16,
    acked: u16,
    /// Bytes that fill up each reading.
    padding: usize,
}

impl Device {
    /// Connects with a clean session and the device's name as client id.
    pub(crate) fn connect(address: &str, name: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a timeout can be set");
        let mut device = Self { stream, name: name.to_owned(), sent: 0, acked: 0, padding: 0 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b0000_0010, 0, 60];
        body.extend(sized(name.as_bytes()));
        device.write(0x10, &body).expect("CONNECT is taken");
        let mut answer = [0; 4];
        device.stream.read_exact(&mut answer).expect("CONNACK comes");
        assert_eq!(answer, [0x20, 2, 0, 0], "accepted, no session");
        device
    }

    /// Makes its readings larger by so many bytes.
    pub(crate) fn padded(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Publishes the next reading at QoS 1 to the device's telemetry topic.
    pub(crate) fn publish(&mut self) -> std::io::Result<()> {
        self.sent += 1;
        let mut body = sized(format!("devices/{}/telemetry", self.name).as_bytes());
        body.extend(self.sent.to_be_bytes());
        body.extend(format!("{{\"reading\":{}{}}}", self.sent, " ".repeat(self.padding)).as_bytes());
        self.write(0x32, &body)
    }

    /// Waits for the next PUBACK, which must be for the next reading in order.
    pub(crate) fn acknowledged(&mut self) -> std::io::Result<u16> {
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer)?;
        self.acked += 1;
        let [high, low] = self.acked.to_be_bytes();
        assert_eq!(answer, [0x40, 2, high, low], "acknowledgements come in the order of the publishes");
        Ok(self.acked)
    }

    /// Publishes with `window` readings in flight until `limit` are acknowledged or the gateway is gone.
    /// Returns how many were acknowledged; `on_ack` hears of each.
    pub(crate) fn pump(&mut self, window: u16, limit: u16, mut on_ack: impl FnMut(u16)) -> u16 {
        while self.acked < limit {
            while self.sent < limit && self.sent - self.acked < window {
                if self.publish().is_err() {
                    return self.drain(on_ack);
                }
            }
            match self.acknowledged() {
                Ok(reading) => on_ack(reading),
                Err(_) => return self.acked,
            }
        }
        self.acked
    }

    /// Reads the acknowledgements that arrived before the gateway went.
    fn drain(&mut self, mut on_ack: impl FnMut(u16)) -> u16 {
        while let Ok(reading) = self.acknowledged() {
            on_ack(reading);
        }
        self.acked
    }

    fn write(&mut self, kind: u8, body: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&packet(kind, body))
    }
}

/// A packet with its fixed header.
pub(crate) fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut rest = body.len();
    while rest > 127 {
        packet.push(u8::try_from(rest & 0x7f | 0x80).expect("eight bits"));
        rest >>= 7;
    }
    packet.push(u8::try_from(rest).expect("seven bits"));
    packet.extend(body);
    packet
}

/// Text as packets carry it.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("test names are short");
    [&length.to_be_bytes(), bytes].concat()
}
