//! What the generator reads: whole packets out of a buffer, and of a delivery just what is needed to count and
//! acknowledge it. MQTT 3.1.1, except where a packet looks the same in 5.

use std::io;

use crate::packets::{push_length, push_text};

/// Quality of service of a publish and of a subscription; 2 is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Qos {
    /// At most once: nobody acknowledges.
    Zero,
    /// At least once.
    One,
}

/// A whole packet at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// First byte: type and flags.
    pub first: u8,
    /// Everything behind the remaining length.
    pub body: &'a [u8],
    /// Bytes of the whole packet.
    pub bytes: usize,
}

/// A message that came to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The packet id to acknowledge; none at QoS 0.
    pub id: Option<[u8; 2]>,
    /// The payload.
    pub payload: &'a [u8],
}

/// First bytes of the packets a subscriber meets.
const CONNACK: u8 = 0x20;
const SUBACK: u8 = 0x90;

/// The packet at the start of the buffer, if all of it is there.
///
/// # Errors
/// Its length is none.
pub fn first(buffer: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let (mut length, mut shift) = (0_usize, 0_u32);
    for (index, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let body = rest.get(index + 1..).unwrap_or_default();
            let bytes = 2 + index + length;
            return Ok(body.get(..length).map(|body| Frame { first, body, bytes }));
        }
    }
    if rest.len() >= 4 {
        return Err(io::Error::other("a packet's length has more than four bytes"));
    }
    Ok(None)
}

impl<'a> Frame<'a> {
    /// The message, if this is a PUBLISH of MQTT 3.1.1.
    ///
    /// # Errors
    /// It is a PUBLISH that is cut short.
    pub fn delivery(&self) -> io::Result<Option<Delivery<'a>>> {
        if self.first >> 4 != 3 {
            return Ok(None);
        }
        let short = || io::Error::other("a PUBLISH is cut short");
        let (topic, rest) = self.body.split_first_chunk::<2>().ok_or_else(short)?;
        let rest = rest.get(usize::from(u16::from_be_bytes(*topic))..).ok_or_else(short)?;
        if self.first & 0b110 == 0 {
            return Ok(Some(Delivery { id: None, payload: rest }));
        }
        let (id, payload) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        Ok(Some(Delivery { id: Some(*id), payload }))
    }

    /// Whether this is a CONNACK that accepts, of either version.
    pub fn accepts(&self) -> bool {
        self.first == CONNACK && self.body.get(1) == Some(&0)
    }

    /// Whether this is a SUBACK, of either version, that grants the one filter asked for.
    pub fn grants(&self) -> bool {
        self.first == SUBACK && self.body.last().is_some_and(|code| *code < 0x80)
    }
}

/// A SUBSCRIBE of one filter with packet id 1; `properties` for MQTT 5.
///
/// # Errors
/// The filter is longer than a packet allows.
pub fn subscribe(filter: &str, qos: Qos, properties: bool) -> io::Result<Vec<u8>> {
    let mut body = vec![0, 1];
    if properties {
        body.push(0);
    }
    push_text(&mut body, filter)?;
    body.push(u8::from(qos == Qos::One));
    let mut packet = vec![0x82];
    push_length(&mut packet, body.len())?;
    packet.extend_from_slice(&body);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_only_when_it_is_whole() {
        let publish = [0x32, 9, 0, 3, b'a', b'/', b'b', 1, 2, b'h', b'i', 0x40];
        for cut in 0..11 {
            assert_eq!(first(&publish[..cut]).unwrap(), None, "{cut} bytes");
        }
        let frame = first(&publish).unwrap().unwrap();
        assert_eq!((frame.first, frame.bytes), (0x32, 11));
        assert_eq!(frame.delivery().unwrap(), Some(Delivery { id: Some([1, 2]), payload: b"hi" }));
    }

    #[test]
    fn long_lengths_are_understood_and_endless_ones_refused() {
        let mut packet = vec![0x30, 0xc1, 0x02];
        packet.resize(3 + 321, 0);
        assert_eq!(first(&packet).unwrap().unwrap().bytes, 324);
        assert!(first(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert_eq!(first(&[0x30, 0xff, 0xff, 0xff]).unwrap(), None);
    }

    #[test]
    fn at_qos_0_there_is_no_packet_id() {
        let frame = Frame { first: 0x30, body: &[0, 1, b'a', 7, 8], bytes: 7 };
        assert_eq!(frame.delivery().unwrap(), Some(Delivery { id: None, payload: &[7, 8] }));
        let short = Frame { first: 0x32, body: &[0, 1, b'a', 7], bytes: 6 };
        assert!(short.delivery().is_err());
        assert_eq!(Frame { first: 0x40, body: &[0, 1], bytes: 4 }.delivery().unwrap(), None);
    }

    #[test]
    fn refusals_are_seen_in_both_versions() {
        let frame = |first, body| Frame { first, body, bytes: 0 };
        assert!(frame(0x20, &[0, 0]).accepts() && frame(0x20, &[0, 0, 3, 0x22, 0, 9]).accepts());
        assert!(!frame(0x20, &[0, 5]).accepts() && !frame(0x40, &[0, 0]).accepts());
        assert!(frame(0x90, &[0, 1, 1]).grants() && frame(0x90, &[0, 1, 0, 0]).grants());
        assert!(!frame(0x90, &[0, 1, 0x80]).grants());
    }

    #[test]
    fn a_subscription_has_the_bytes_of_the_specification() {
        assert_eq!(subscribe("a/+", Qos::One, false).unwrap(), [0x82, 8, 0, 1, 0, 3, b'a', b'/', b'+', 1]);
        assert_eq!(subscribe("a", Qos::Zero, true).unwrap(), [0x82, 7, 0, 1, 0, 0, 1, b'a', 0]);
    }
}
