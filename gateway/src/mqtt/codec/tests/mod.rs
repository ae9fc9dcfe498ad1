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
