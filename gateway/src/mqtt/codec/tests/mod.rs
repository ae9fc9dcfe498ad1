//! The codec against a table of broken packets, against junk, and against rumqttc's codecs.
#![expect(clippy::indexing_slicing, reason = "only decoders must not")]

mod agreement;
mod cases;
mod corpus;
mod differential;
mod junk;
mod seen;
mod strategies;
mod table;

use super::{
    Ack, AckKind, Connect, Disconnect, Frame, Malformed, PacketType, Publish, Reason, Split, Subscribe,
    Unsubscribe, Version, auth, ping, split,
};

/// What random packets are made of: packets, bodies of CONNECT, or property blocks.
pub(super) fn seeds(decoder: &str) -> Vec<Vec<u8>> {
    let of = |version: Version| {
        let broken = cases::cases().into_iter().filter(move |case| case.version == version);
        corpus::packets(version).into_iter().chain(broken.map(|case| case.bytes))
    };
    let both = || of(Version::V3).chain(of(Version::V5));
    match decoder {
        "mqtt_3" => of(Version::V3).collect(),
        "mqtt_5" => of(Version::V5).collect(),
        "mqtt_connect" => {
            let connects = both().filter(|packet| packet.first() == Some(&0x10));
            connects.map(|packet| frame_body(&packet).to_vec()).filter(|body| !body.is_empty()).collect()
        }
        "mqtt_properties" => property_blocks(),
        _ => Vec::new(),
    }
}

fn frame_body(packet: &[u8]) -> &[u8] {
    match split(packet, BYTES_MAX) {
        Ok(Split::Frame(frame)) => frame.body,
        _ => &[],
    }
}

/// The blocks of publishes and wills, and one of every property there is.
fn property_blocks() -> Vec<Vec<u8>> {
    let mut blocks = vec![
        b"\x11\0\0\0\x09\x21\0\x0a\x27\0\x01\0\0\x22\0\x08\x19\x01\x17\0\x15\0\x01m\x16\0\x01d".to_vec(),
        b"\x18\0\0\0\x05\x01\x01\x02\0\0\0\x3c\x03\0\x01t\x08\0\x01r\x09\0\x02id\x26\0\x01n\0\x01v".to_vec(),
        b"\x1f\0\x01r\x26\0\0\0\0".to_vec(),
        b"\x0b\xff\xff\xff\x7f".to_vec(),
        b"\x12\0\x01d\x13\0\x01\x1a\0\0\x1c\0\0\x24\0\x25\0\x28\0\x29\0\x2a\0".to_vec(),
    ];
    for packet in corpus::packets(Version::V5) {
        if let Ok(Split::Frame(frame)) = split(&packet, BYTES_MAX)
            && let Ok(publish) = Publish::decode(&frame, Version::V5)
        {
            blocks.push(publish.properties.block.to_vec());
        }
    }
    blocks
}

const BYTES_MAX: usize = 1 << 20;

/// Decodes one whole packet of any type; nothing if it is not whole.
fn decode(bytes: &[u8], version: Version) -> Result<Option<usize>, Malformed> {
    let Split::Frame(frame) = split(bytes, BYTES_MAX)? else { return Ok(None) };
    let Frame { kind, body, bytes, .. } = frame;
    match kind {
        PacketType::Connect => assert!(Connect::decode(body)?.client_id.len() <= body.len()),
        PacketType::Publish => {
            let publish = Publish::decode(&frame, version)?;
            assert!(publish.properties.user().count() <= body.len());
        }
        PacketType::Puback => assert_ne!(Ack::decode(body, AckKind::Puback, version)?.id, 0),
        PacketType::Pubrec => assert_ne!(Ack::decode(body, AckKind::Pubrec, version)?.id, 0),
        PacketType::Pubrel => assert_ne!(Ack::decode(body, AckKind::Pubrel, version)?.id, 0),
        PacketType::Pubcomp => assert_ne!(Ack::decode(body, AckKind::Pubcomp, version)?.id, 0),
        PacketType::Subscribe => assert!(Subscribe::decode(body, version)?.requests().count() > 0),
        PacketType::Unsubscribe => assert!(Unsubscribe::decode(body, version)?.filters().count() > 0),
        PacketType::Pingreq => ping(body)?,
        PacketType::Disconnect => assert!(Disconnect::decode(body, version).map(|_| true)?),
        PacketType::Auth => auth(body, version)?,
    }
    Ok(Some(bytes))
}
