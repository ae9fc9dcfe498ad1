//! MQTT 5 property blocks (section 2.2.2).

use super::malformed::Malformed;
use super::reader::Reader;

/// A property that a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property<'a> {
    PayloadFormat(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblem(bool),
    WillDelay(u32),
    RequestResponse(bool),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    User(&'a str, &'a str),
    PacketBytesMax(u32),
}

/// The set of property identifiers that a packet allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    ids: u64,
    /// Those that the packet may hold if a server sends it.
    of_servers: u64,
}

const USER: u8 = 0x26;
/// Properties that are not forwarded as they came: expiry, will delay, topic alias.
const OF_ONE_HOP: Allowed = Allowed::new(&[0x02, 0x18, 0x23]);
/// Every identifier that MQTT 5 defines, those of servers included.
const KNOWN: Allowed = Allowed::new(&[
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1c, 0x1f,
    0x21, 0x22, 0x23, 0x24, 0x25, USER, 0x27, 0x28, 0x29, 0x2a,
]);

impl Allowed {
    pub(super) const CONNECT: Self = Self::new(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, USER, 0x27]);
    pub(super) const WILL: Self = Self::new(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, USER]);
    pub(super) const PUBLISH: Self =
        Self::new(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, USER]).or_of_servers(&[0x0b]);
    pub(super) const ACK: Self = Self::new(&[0x1f, USER]);
    pub(super) const SUBSCRIBE: Self = Self::new(&[0x0b, USER]);
    pub(super) const UNSUBSCRIBE: Self = Self::new(&[USER]);
    pub(super) const DISCONNECT: Self = Self::new(&[0x11, 0x1f, USER]).or_of_servers(&[0x1c]);
    pub(super) const AUTH: Self = Self::new(&[0x15, 0x16, 0x1f, USER]);

    const fn new(mut ids: &[u8]) -> Self {
        let mut bits = 0;
        while let Some((id, rest)) = ids.split_first() {
            bits |= 1 << *id;
            ids = rest;
        }
        Self { ids: bits, of_servers: 0 }
    }

    const fn or_of_servers(self, ids: &[u8]) -> Self {
        Self { ids: self.ids, of_servers: Self::new(ids).ids }
    }

    const fn bit(self, id: u8) -> u64 {
        if id < 64 { self.ids & (1 << id) } else { 0 }
    }

    /// Why an identifier outside the set is refused.
    const fn refusal(self, id: u8) -> Malformed {
        if id < 64 && self.of_servers & (1 << id) != 0 {
            Malformed::PropertyOfServers
        } else if KNOWN.bit(id) != 0 {
            Malformed::PropertyNotAllowed
        } else {
            Malformed::PropertyUnknown
        }
    }
}

/// Reads one property block and hands each property to `take`. Returns the block without its
/// length. Nothing but a user property may appear twice.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    allowed: Allowed,
    mut take: impl FnMut(Property<'a>),
) -> Result<&'a [u8], Malformed> {
    let length = reader.varint()?;
    let block = reader.bytes(length)?;
    each(Reader::new(block), allowed, &mut take)?;
    Ok(block)
}

/// Reads a block without its length.
pub(super) fn each<'a>(
    mut block: Reader<'a>,
    allowed: Allowed,
    take: &mut impl FnMut(Property<'a>),
) -> Result<(), Malformed> {
    let mut seen = 0;
    while !block.is_empty() {
        let id = block.u8()?;
        let bit = allowed.bit(id);
        if bit == 0 {
            return Err(allowed.refusal(id));
        }
        if seen & bit != 0 && id != USER {
            return Err(Malformed::PropertyRepeated);
        }
        seen |= bit;
        take(value(id, &mut block)?);
    }
    Ok(())
}

fn value<'a>(id: u8, reader: &mut Reader<'a>) -> Result<Property<'a>, Malformed> {
    Ok(match id {
        0x01 => Property::PayloadFormat(flag(reader)?),
        0x02 => Property::MessageExpiry(reader.u32()?),
        0x03 => Property::ContentType(reader.string()?),
        0x08 => Property::ResponseTopic(reader.string()?),
        0x09 => Property::CorrelationData(reader.binary()?),
        0x0b => Property::SubscriptionId(
            u32::try_from(reader.varint()?).ok().filter(|id| *id != 0).ok_or(Malformed::PropertyValue)?,
        ),
        0x11 => Property::SessionExpiry(reader.u32()?),
        0x15 => Property::AuthenticationMethod(reader.string()?),
        0x16 => Property::AuthenticationData(reader.binary()?),
        0x17 => Property::RequestProblem(flag(reader)?),
        0x18 => Property::WillDelay(reader.u32()?),
        0x19 => Property::RequestResponse(flag(reader)?),
        0x1f => Property::ReasonString(reader.string()?),
        0x21 => match reader.u16()? {
            0 => return Err(Malformed::PropertyValue),
            count => Property::ReceiveMaximum(count),
        },
        0x22 => Property::TopicAliasMaximum(reader.u16()?),
        0x23 => match reader.u16()? {
            0 => return Err(Malformed::TopicAlias),
            alias => Property::TopicAlias(alias),
        },
        USER => Property::User(reader.string()?, reader.string()?),
        0x27 => Property::PacketBytesMax(not_zero(reader.u32()?)?),
        _ => return Err(Malformed::PropertyUnknown),
    })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::PropertyValue),
    }
}

const fn not_zero(value: u32) -> Result<u32, Malformed> {
    if value == 0 { Err(Malformed::PropertyValue) } else { Ok(value) }
}

/// Appends the properties of a block that was read before, without those that belong to one hop only.
pub(super) fn forward(block: &[u8], out: &mut Vec<u8>) {
    let mut reader = Reader::new(block);
    while let Some(&id) = reader.rest().first() {
        let before = reader.rest();
        if reader.u8().and_then(|id| value(id, &mut reader)).is_err() {
            return;
        }
        let bytes = before.len() - reader.rest().len();
        if OF_ONE_HOP.bit(id) == 0 {
            out.extend_from_slice(before.get(..bytes).unwrap_or_default());
        }
    }
}

/// The user properties of a block that was read before, in order.
pub(super) fn user_properties(block: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut reader = Reader::new(block);
    std::iter::from_fn(move || {
        while !reader.is_empty() {
            let id = reader.u8().ok()?;
            if let Property::User(name, text) = value(id, &mut reader).ok()? {
                return Some((name, text));
            }
        }
        None
    })
}
