//! PUBLISH (section 3.3).

use super::frame::Frame;
use super::malformed::Malformed;
use super::properties::{self, Allowed, Property};
use super::reader::{Reader, varint};
use super::{Qos, Version, topic};

/// One PUBLISH from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) topic: &'a str,
    /// The packet id; zero with QoS 0, which has none.
    pub(crate) id: u16,
    pub(crate) properties: PublishProperties<'a>,
    pub(crate) payload: &'a [u8],
}

/// The properties of a PUBLISH or a will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PublishProperties<'a> {
    /// The payload is declared to be UTF-8 text.
    pub(crate) text: bool,
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) response_topic: Option<&'a str>,
    pub(crate) correlation_data: Option<&'a [u8]>,
    /// There is at least one user property.
    pub(crate) has_user: bool,
    /// The block as it came; [`PublishProperties::user`] reads it again.
    pub(crate) block: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Decodes the body of a PUBLISH.
    #[inline]
    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, Malformed> {
        let qos = Qos::from_bits(frame.flags >> 1)?;
        let dup = frame.flags & 8 != 0;
        if dup && qos == Qos::AtMostOnce {
            return Err(Malformed::Dup);
        }
        let mut reader = Reader::new(frame.body);
        let topic = topic::read_name(&mut reader)?;
        let id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
        let properties = match version {
            Version::V3 => PublishProperties::default(),
            Version::V5 => PublishProperties::read(&mut reader, Allowed::PUBLISH)?,
        };
        // An empty topic stands for an alias, and none is ever offered.
        if topic.is_empty() {
            return Err(Malformed::TopicName);
        }
        Ok(Self { dup, qos, retain: frame.flags & 1 != 0, topic, id, properties, payload: reader.rest() })
    }
}

/// The topic in the front of a PUBLISH, if it is there and is text.
pub(crate) fn publish_topic(front: &[u8]) -> Option<&str> {
    let after = front.get(1..)?;
    let (_, length_bytes) = varint(after).ok()??;
    let topic = Reader::new(after.get(length_bytes..)?).binary().ok()?;
    std::str::from_utf8(topic).ok()
}

impl<'a> PublishProperties<'a> {
    /// Reads a block.
    pub(super) fn read(reader: &mut Reader<'a>, allowed: Allowed) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut alias = false;
        found.block = properties::read(reader, allowed, |property| {
            alias |= matches!(property, Property::TopicAlias(_));
            found.keep(property);
        })?;
        if alias {
            return Err(Malformed::TopicAlias);
        }
        if found.response_topic.is_some_and(|name| !topic::is_name(name)) {
            return Err(Malformed::TopicName);
        }
        Ok(found)
    }

    fn keep(&mut self, property: Property<'a>) {
        match property {
            Property::PayloadFormat(text) => self.text = text,
            Property::MessageExpiry(seconds) => self.expiry_seconds = Some(seconds),
            Property::ContentType(text) => self.content_type = Some(text),
            Property::ResponseTopic(name) => self.response_topic = Some(name),
            Property::CorrelationData(bytes) => self.correlation_data = Some(bytes),
            Property::User(..) => self.has_user = true,
            _ => {}
        }
    }

    /// Reads the block of a will again, which was checked when it came.
    pub(crate) fn of_will(block: &'a [u8]) -> Self {
        let mut found = Self::default();
        // An error cannot occur, and would leave out what follows it.
        let _checked =
            properties::each(Reader::new(block), Allowed::WILL, &mut |property| found.keep(property));
        found.block = block;
        found
    }

    /// The user properties, in order.
    pub(crate) fn user(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        properties::user_properties(if self.has_user { self.block } else { &[] })
    }
}
