//! Cutting a byte stream into packets.

use super::malformed::Malformed;
use super::reader::varint;

/// The packet types that a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketType {
    Connect,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Unsubscribe,
    Pingreq,
    Disconnect,
    Auth,
}

/// One whole packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: PacketType,
    /// The low four bits of the first byte; free only for PUBLISH.
    pub(crate) flags: u8,
    pub(crate) body: &'a [u8],
    /// Size of the packet with its header.
    pub(crate) bytes: usize,
}

/// What the front of a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split<'a> {
    Frame(Frame<'a>),
    /// Not yet a whole packet; its size once the header is complete.
    Incomplete {
        bytes: Option<usize>,
    },
}

/// Looks at the front of `input`. The type, the flags and the size are judged as soon as the header
/// is there, so that a packet above `bytes_max` is refused before its body arrives.
pub(crate) fn split(input: &[u8], bytes_max: usize) -> Result<Split<'_>, Malformed> {
    let Some((&first, after)) = input.split_first() else {
        return Ok(Split::Incomplete { bytes: None });
    };
    let (kind, flags) = header(first)?;
    let Some((remaining, length_bytes)) = varint(after)? else {
        return Ok(Split::Incomplete { bytes: None });
    };
    let bytes = 1 + length_bytes + remaining;
    if bytes > bytes_max {
        return Err(Malformed::TooLarge);
    }
    match input.get(1 + length_bytes..bytes) {
        Some(body) => Ok(Split::Frame(Frame { kind, flags, body, bytes })),
        None => Ok(Split::Incomplete { bytes: Some(bytes) }),
    }
}

/// The type and the flags of a first byte (section 2.1).
fn header(first: u8) -> Result<(PacketType, u8), Malformed> {
    let flags = first & 0x0f;
    let (kind, required) = match first >> 4 {
        1 => (PacketType::Connect, 0),
        3 => return Ok((PacketType::Publish, flags)),
        4 => (PacketType::Puback, 0),
        5 => (PacketType::Pubrec, 0),
        6 => (PacketType::Pubrel, 2),
        7 => (PacketType::Pubcomp, 0),
        8 => (PacketType::Subscribe, 2),
        10 => (PacketType::Unsubscribe, 2),
        12 => (PacketType::Pingreq, 0),
        14 => (PacketType::Disconnect, 0),
        15 => (PacketType::Auth, 0),
        // CONNACK, SUBACK, UNSUBACK and PINGRESP come from servers only.
        2 | 9 | 11 | 13 => return Err(Malformed::Unexpected),
        _ => return Err(Malformed::PacketType),
    };
    if flags == required { Ok((kind, flags)) } else { Err(Malformed::HeaderFlags) }
}
