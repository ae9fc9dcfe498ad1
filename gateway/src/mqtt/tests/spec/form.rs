//! The form of what a server sends: header flags, lengths, properties and reasons, by the tables of the
//! specifications and independent of the codec under test.

use super::super::wire;

/// Reasons of MQTT 5 that each packet of a server may hold.
const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99,
    0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
];
const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL: &[u8] = &[0x00, 0x92];
const SUBACK: &[u8] = &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
const DISCONNECT: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];

/// Properties that each packet of a server may hold; the authentication method and its data are not
/// among them, since no method is supported.
const OF_CONNACK: &[u8] =
    &[0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1f, 0x26, 0x28, 0x29, 0x2a, 0x13, 0x1a, 0x1c];
const OF_PUBLISH: &[u8] = &[0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0b, 0x03];
const OF_ACK: &[u8] = &[0x1f, 0x26];
const OF_DISCONNECT: &[u8] = &[0x1f, 0x26, 0x1c];

/// Asserts that a packet of the gateway has the form that its version demands.
#[track_caller]
pub(super) fn check(version: u8, packet: &[u8]) {
    let (first, body) = split(packet);
    let mut body = Reader(body);
    match first {
        0x30..=0x3f => publish(version, first, &mut body),
        0x20 => {
            let flags = body.byte();
            let code = body.byte();
            assert!(flags <= 1 && (code == 0 || flags == 0), "{packet:02x?}");
            if version == 5 {
                assert!(CONNACK.contains(&code), "{packet:02x?}");
                body.check_properties(OF_CONNACK);
            } else {
                assert!(code <= 5, "{packet:02x?}");
            }
        }
        0x40 => acknowledgement(version, PUBACK, &mut body),
        0x50 => acknowledgement(version, PUBACK, &mut body),
        0x62 | 0x70 => acknowledgement(version, PUBREL, &mut body),
        0x90 | 0xb0 => {
            body.id();
            if version == 5 {
                body.check_properties(OF_ACK);
            }
            let v3: &[u8] = if first == 0x90 { &[0, 1, 2, 0x80] } else { &[] };
            let v5 = if first == 0x90 { SUBACK } else { UNSUBACK };
            for code in body.rest() {
                assert!(if version == 5 { v5 } else { v3 }.contains(code), "{packet:02x?}");
            }
        }
        0xd0 => {}
        0xe0 => {
            assert_eq!(version, 5, "3.1.1 has no DISCONNECT of a server");
            if !body.0.is_empty() {
                assert!(DISCONNECT.contains(&body.byte()), "{packet:02x?}");
            }
            if !body.0.is_empty() {
                body.check_properties(OF_DISCONNECT);
            }
        }
        _ => panic!("no server sends {packet:02x?}"),
    }
    assert!(body.0.is_empty(), "something is left of {packet:02x?}");
}

fn publish(version: u8, first: u8, body: &mut Reader<'_>) {
    let qos = first >> 1 & 3;
    assert!(qos < 3 && (qos > 0 || first & 8 == 0), "{first:02x}");
    let topic = body.string();
    assert!(!topic.contains(['#', '+', '\0']), "{topic}");
    if qos > 0 {
        body.id();
    }
    if version == 5 {
        body.check_properties(OF_PUBLISH);
    } else {
        assert!(!topic.is_empty());
    }
    body.0 = &[];
}

fn acknowledgement(version: u8, reasons: &[u8], body: &mut Reader<'_>) {
    body.id();
    if version == 5 && !body.0.is_empty() {
        let reason = body.byte();
        assert!(reasons.contains(&reason), "{reason:02x}");
        if !body.0.is_empty() {
            body.check_properties(OF_ACK);
        }
    }
}

/// The first byte of a packet, and what follows its remaining length.
#[track_caller]
pub(super) fn split(packet: &[u8]) -> (u8, &[u8]) {
    let mut rest = Reader(&packet[1..]);
    let length = rest.varint();
    assert_eq!(rest.0.len(), length, "{packet:02x?}");
    // The fewest bytes: our own encoding of the same body is as long.
    assert_eq!(wire::packet(packet[0], rest.0), packet);
    (packet[0], rest.0)
}

/// Reads what it expects, and panics otherwise.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.take(self.0.len())
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub(super) fn id(&mut self) -> u16 {
        let id = u16::from_be_bytes(self.take(2).try_into().unwrap());
        assert_ne!(id, 0, "a packet id");
        id
    }

    fn binary(&mut self) -> &'a [u8] {
        let length = u16::from_be_bytes(self.take(2).try_into().unwrap());
        self.take(length.into())
    }

    pub(super) fn string(&mut self) -> &'a str {
        let text = std::str::from_utf8(self.binary()).expect("UTF-8");
        assert!(!text.contains('\0'));
        text
    }

    pub(super) fn varint(&mut self) -> usize {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                assert!(place == 0 || byte != 0, "more bytes than it needs");
                return value;
            }
        }
        panic!("a variable byte integer of five bytes");
    }

    /// Every property with its value as it stands.
    pub(super) fn properties(&mut self) -> Vec<(u8, Vec<u8>)> {
        let length = self.varint();
        let mut block = Reader(self.take(length));
        let mut all = Vec::new();
        while !block.0.is_empty() {
            let before = block.0;
            let name = block.byte();
            match name {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => _ = block.byte(),
                0x13 | 0x21 | 0x22 | 0x23 => _ = block.take(2),
                0x02 | 0x11 | 0x18 | 0x27 => _ = block.take(4),
                0x0b => _ = block.varint(),
                0x09 | 0x16 => _ = block.binary(),
                0x26 => _ = (block.string(), block.string()),
                0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => _ = block.string(),
                _ => panic!("property {name:02x}"),
            }
            all.push((name, before[1..before.len() - block.0.len()].to_vec()));
        }
        all
    }

    fn check_properties(&mut self, allowed: &[u8]) {
        let properties = self.properties();
        for (place, (name, _)) in properties.iter().enumerate() {
            assert!(allowed.contains(name), "property {name:02x} is of another packet");
            let repeated = properties[..place].iter().any(|(earlier, _)| earlier == name);
            assert!(!repeated || [0x26, 0x0b].contains(name), "property {name:02x} twice");
        }
    }
}

/// The properties of a CONNACK of MQTT 5.
pub(super) fn told(connack: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut body = Reader(split(connack).1);
    body.take(2);
    body.properties()
}
