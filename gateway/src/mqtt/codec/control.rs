//! The small packets: acknowledgements, PINGREQ, DISCONNECT and AUTH.

use super::Version;
use super::malformed::Malformed;
use super::properties::{self, Allowed, Property};
use super::reader::Reader;
use super::reason::allowed;

/// Which acknowledgement is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AckKind {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) id: u16,
    /// The reason code; zero with 3.1.1.
    pub(crate) reason: u8,
}

impl Ack {
    /// Decodes the body of an acknowledgement.
    pub(crate) fn decode(body: &[u8], kind: AckKind, version: Version) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let id = reader.packet_id()?;
        let reason = if version == Version::V5 { read_reason(&mut reader, kind)? } else { 0 };
        reader.end()?;
        Ok(Self { id, reason })
    }
}

fn read_reason(reader: &mut Reader<'_>, kind: AckKind) -> Result<u8, Malformed> {
    let codes: &[u8] = match kind {
        AckKind::Puback | AckKind::Pubrec => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        AckKind::Pubrel | AckKind::Pubcomp => &[0x00, 0x92],
    };
    read_code(reader, codes, Allowed::ACK, |_| {})
}

/// A reason code and its properties, both of which may be left out at the end of a packet.
fn read_code<'a>(
    reader: &mut Reader<'a>,
    codes: &[u8],
    properties: Allowed,
    take: impl FnMut(Property<'a>),
) -> Result<u8, Malformed> {
    if reader.is_empty() {
        return Ok(0);
    }
    let reason = allowed(reader.u8()?, codes)?;
    if !reader.is_empty() {
        properties::read(reader, properties, take)?;
    }
    Ok(reason)
}

/// DISCONNECT from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnect {
    /// The client wants its will published although it leaves in order.
    pub(crate) with_will: bool,
    /// Seconds, if the client changes the session expiry of its CONNECT.
    pub(crate) session_expiry: Option<u32>,
}

impl Disconnect {
    /// Decodes the body of a DISCONNECT.
    pub(crate) fn decode(body: &[u8], version: Version) -> Result<Self, Malformed> {
        const CODES: &[u8] =
            &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
        let mut reader = Reader::new(body);
        let mut session_expiry = None;
        let mut reason = 0;
        if version == Version::V5 {
            reason = read_code(&mut reader, CODES, Allowed::DISCONNECT, |property| {
                if let Property::SessionExpiry(seconds) = property {
                    session_expiry = Some(seconds);
                }
            })?;
        }
        reader.end()?;
        // Every code but "normal" leaves the will in place (section 3.14.2.1).
        Ok(Self { with_will: reason != 0, session_expiry })
    }
}

/// Checks the body of a PINGREQ.
pub(crate) const fn ping(body: &[u8]) -> Result<(), Malformed> {
    Reader::new(body).end()
}

/// Checks an AUTH, whose reason and authentication method a client may not leave out (section 3.15). No
/// authentication exchange exists here, so that a well-formed one is out of place.
pub(crate) fn auth(body: &[u8], version: Version) -> Result<(), Malformed> {
    if version == Version::V3 {
        return Err(Malformed::PacketType);
    }
    let mut reader = Reader::new(body);
    if reader.is_empty() {
        return Err(Malformed::ReasonCode);
    }
    let mut method = false;
    read_code(&mut reader, &[0x18, 0x19], Allowed::AUTH, |property| {
        method |= matches!(property, Property::AuthenticationMethod(_));
    })?;
    reader.end()?;
    if method { Ok(()) } else { Err(Malformed::AuthenticationMethod) }
}
