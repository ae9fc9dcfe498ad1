//! Packets as clients write them, independent of the codec under test.

pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(super) const PINGRESP: [u8; 2] = [0xd0, 0];

/// A packet with its first byte and body.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        out.push(if rest == 0 { byte } else { byte | 0x80 });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub(super) fn string(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub(super) fn binary(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// What a CONNECT says.
pub(super) struct Connect<'a> {
    pub(super) version: u8,
    pub(super) id: &'a str,
    pub(super) flags: u8,
    pub(super) keep_alive: u16,
    pub(super) properties: &'a [u8],
    /// Will, user name and password as bytes.
    pub(super) rest: Vec<u8>,
}

impl Connect<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut body = [string("MQTT"), vec![self.version, self.flags]].concat();
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.version == 5 {
            body.push(u8::try_from(self.properties.len()).unwrap());
            body.extend_from_slice(self.properties);
        }
        body.extend(string(self.id));
        body.extend_from_slice(&self.rest);
        packet(0x10, &body)
    }
}

pub(super) fn plain<'a>(version: u8, id: &'a str) -> Connect<'a> {
    Connect { version, id, flags: 0x02, keep_alive: 60, properties: &[], rest: Vec::new() }
}

pub(super) fn connect(version: u8, id: &str) -> Vec<u8> {
    plain(version, id).bytes()
}

/// A PUBLISH; `id` is left out at QoS 0.
pub(super) fn publish(version: u8, qos: u8, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    publish_with(version, qos << 1, id, topic, &[], payload)
}

pub(super) fn publish_with(
    version: u8,
    flags: u8,
    id: u16,
    topic: &str,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = string(topic);
    if flags & 6 != 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if version == 5 {
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

/// PUBACK and its kind: four bytes, or five with a reason.
pub(super) fn ack(first: u8, id: u16, reason: u8) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    if reason == 0 { vec![first, 2, high, low] } else { vec![first, 3, high, low, reason] }
}

pub(super) fn puback(id: u16) -> Vec<u8> {
    ack(0x40, id, 0)
}

pub(super) fn pubrec(id: u16) -> Vec<u8> {
    ack(0x50, id, 0)
}

pub(super) fn pubrel(id: u16) -> Vec<u8> {
    ack(0x62, id, 0)
}

pub(super) fn pubcomp(id: u16) -> Vec<u8> {
    ack(0x70, id, 0)
}

pub(super) fn subscribe(version: u8, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(super) fn unsubscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(string(filter));
    }
    packet(0xa2, &body)
}

/// A DISCONNECT of the server: MQTT 5 only.
pub(super) fn disconnect(reason: u8) -> Vec<u8> {
    vec![0xe0, 2, reason, 0]
}

/// The size of the packet at the front of `bytes`, if its header is whole.
pub(super) fn packet_len(bytes: &[u8]) -> Option<usize> {
    let mut value = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(2 + place + value);
        }
    }
    None
}

/// A CONNACK that refuses or a DISCONNECT without the sentence that is there for people; any other
/// packet as it is.
pub(super) fn without_reason_string(packet: Vec<u8>) -> Vec<u8> {
    let fixed = match packet.first() {
        Some(0x20) => 2,
        Some(0xe0) => 1,
        _ => return packet,
    };
    // Both are short: one byte each for the lengths of the packet and of the properties.
    match packet.get(2 + fixed..) {
        Some([length, 0x1f, high, low, text @ ..])
            if usize::from(*length) == text.len() + 3
                && usize::from(u16::from_be_bytes([*high, *low])) == text.len() =>
        {
            let mut plain = packet.get(..2 + fixed).unwrap_or_default().to_vec();
            plain[1] = u8::try_from(fixed + 1).unwrap_or(0);
            plain.push(0);
            plain
        }
        _ => packet,
    }
}
