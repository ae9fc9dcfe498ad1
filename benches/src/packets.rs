//! The few MQTT 3.1.1 bytes the generator needs. It writes packets itself, since a client library would cost
//! more processor time than the server under test.

use std::io;

use crate::frames::Qos;

/// Bytes of CONNACK and of PUBACK in MQTT 3.1.1.
pub const ACK_BYTES: usize = 4;

/// Different payloads; enough that a compressor finds no repetition inside one group.
const PAYLOADS: usize = 4096;

/// Shortest payload that holds the JSON around the filler.
pub const PAYLOAD_BYTES_MIN: usize = 96;

/// A CONNECT with clean session, keep alive of half an hour and this client id.
///
/// # Errors
/// The client id is longer than a packet allows.
pub fn connect(client_id: &str) -> io::Result<Vec<u8>> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b10];
    body.extend_from_slice(&1800_u16.to_be_bytes());
    push_text(&mut body, client_id)?;
    let mut packet = vec![0x10];
    push_length(&mut packet, body.len())?;
    packet.extend_from_slice(&body);
    Ok(packet)
}

/// A CONNECT of MQTT 5 whose session outlives the connection by half an hour.
///
/// # Errors
/// The client id is longer than a packet allows.
pub fn connect_lasting(client_id: &str) -> io::Result<Vec<u8>> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0b10];
    body.extend_from_slice(&1800_u16.to_be_bytes());
    body.extend_from_slice(&[5, 0x11]);
    body.extend_from_slice(&1800_u32.to_be_bytes());
    push_text(&mut body, client_id)?;
    let mut packet = vec![0x10];
    push_length(&mut packet, body.len())?;
    packet.extend_from_slice(&body);
    Ok(packet)
}

/// The packet id of a PUBACK.
///
/// # Errors
/// The bytes are no PUBACK.
pub fn acknowledged(puback: [u8; ACK_BYTES]) -> io::Result<u16> {
    match puback {
        [0x40, 2, high, low] => Ok(u16::from_be_bytes([high, low])),
        other => Err(io::Error::other(format!("expected PUBACK, got {other:02x?}"))),
    }
}

/// Writes publishes of one device: the head is made once, the packet id and the payload vary.
#[derive(Debug)]
pub struct Publisher {
    head: Vec<u8>,
    qos: Qos,
}

impl Publisher {
    /// A publisher at QoS 1 for one topic and payload size.
    ///
    /// # Errors
    /// The topic or the packet is longer than MQTT allows.
    pub fn new(topic: &str, payload_bytes: usize) -> io::Result<Self> {
        Self::at(Qos::One, topic, payload_bytes)
    }

    /// A publisher for one topic and payload size.
    ///
    /// # Errors
    /// The topic or the packet is longer than MQTT allows.
    pub fn at(qos: Qos, topic: &str, payload_bytes: usize) -> io::Result<Self> {
        let (first, id_bytes) = match qos {
            Qos::Zero => (0x30, 0),
            Qos::One => (0x32, 2),
        };
        let mut head = vec![first];
        push_length(&mut head, 2 + topic.len() + id_bytes + payload_bytes)?;
        push_text(&mut head, topic)?;
        Ok(Self { head, qos })
    }

    /// Appends one PUBLISH; at QoS 0 the packet id is left out.
    pub fn push(&self, out: &mut Vec<u8>, packet_id: u16, payload: &[u8]) {
        out.extend_from_slice(&self.head);
        if self.qos == Qos::One {
            out.extend_from_slice(&packet_id.to_be_bytes());
        }
        out.extend_from_slice(payload);
    }

    /// Bytes of one PUBLISH with a payload of this size, at most.
    pub fn packet_bytes(&self, payload_bytes: usize) -> usize {
        self.head.len() + 2 + payload_bytes
    }
}

/// Payloads of one size that look like telemetry: JSON with changing numbers and an incompressible field.
#[derive(Debug)]
pub struct Payloads {
    bytes: Vec<u8>,
    size: usize,
    count: usize,
}

impl Payloads {
    /// Makes the payloads; the same size gives the same bytes.
    ///
    /// # Errors
    /// The size is below [`PAYLOAD_BYTES_MIN`].
    pub fn new(size: usize) -> io::Result<Self> {
        Self::few(size, PAYLOADS)
    }

    /// Makes so many payloads, for sizes that would fill the memory.
    ///
    /// # Errors
    /// The size is below [`PAYLOAD_BYTES_MIN`] or none is wanted.
    pub fn few(size: usize, count: usize) -> io::Result<Self> {
        if count == 0 {
            return Err(io::Error::other("at least one payload is needed"));
        }
        if size < PAYLOAD_BYTES_MIN {
            return Err(io::Error::other(format!("a payload has at least {PAYLOAD_BYTES_MIN} bytes")));
        }
        let mut bytes = Vec::with_capacity(size * count);
        let mut state = 0x5eed_u64;
        for sequence in 0..count {
            let end = bytes.len() + size;
            let celsius = random(&mut state) % 9000;
            let start = format!(
                "{{\"sequence\":{sequence},\"temperature\":{}.{:02},\"trace\":\"",
                celsius / 100,
                celsius % 100
            );
            bytes.extend_from_slice(start.as_bytes());
            while bytes.len() < end - 2 {
                let letter = u8::try_from(random(&mut state) % 26).unwrap_or_default();
                bytes.push(b'a' + letter);
            }
            bytes.extend_from_slice(b"\"}");
        }
        Ok(Self { bytes, size, count })
    }

    /// The payload with this number; numbers beyond the last start again.
    pub fn get(&self, number: usize) -> &[u8] {
        let start = (number % self.count) * self.size;
        self.bytes.get(start..start + self.size).unwrap_or_default()
    }

    /// Bytes of each payload.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// splitmix64: a few lines are enough for filler.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| io::Error::other("a text has at most 65535 bytes"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// MQTT's remaining length: seven bits a byte, the lowest first.
pub(crate) fn push_length(out: &mut Vec<u8>, length: usize) -> io::Result<()> {
    if length >= 1 << 28 {
        return Err(io::Error::other("a packet has at most 256 MiB"));
    }
    let mut left = length;
    loop {
        let low = u8::try_from(left & 0x7f).unwrap_or_default();
        left >>= 7;
        out.push(if left == 0 { low } else { low | 0x80 });
        if left == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_has_the_bytes_of_the_specification() {
        let expected = [0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 7, 8, 0, 3, b'd', b'-', b'1'];
        assert_eq!(connect("d-1").unwrap(), expected);
    }

    #[test]
    fn publish_has_the_bytes_of_the_specification() {
        let mut out = Vec::new();
        let publisher = Publisher::new("a/b", 2).unwrap();
        publisher.push(&mut out, 0x0102, b"hi");
        assert_eq!(out, [0x32, 9, 0, 3, b'a', b'/', b'b', 1, 2, b'h', b'i']);
        assert_eq!(publisher.packet_bytes(2), out.len());
    }

    #[test]
    fn long_packets_have_long_lengths() {
        let mut out = Vec::new();
        push_length(&mut out, 321).unwrap();
        assert_eq!(out, [0xc1, 0x02]);
        assert!(push_length(&mut out, 1 << 28).is_err());
    }

    #[test]
    fn payloads_have_their_size_and_differ() {
        let payloads = Payloads::new(200).unwrap();
        assert!((0..PAYLOADS).all(|number| payloads.get(number).len() == 200));
        assert_ne!(payloads.get(0), payloads.get(1));
        assert_eq!(payloads.get(0), payloads.get(PAYLOADS));
        let text = std::str::from_utf8(payloads.get(4095)).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }

    #[test]
    fn foreign_packets_are_errors() {
        assert_eq!(acknowledged([0x40, 2, 1, 0]).unwrap(), 256);
        assert!(acknowledged([0x50, 2, 1, 0]).is_err());
    }
}
