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
    /// Empty only with MQTT 5, where the alias stands for it.
    pub(crate) topic: &'a str,
    /// The packet id; zero with QoS 0, which has none.
    pub(crate) id: u16,
    /// The topic alias, never zero; whether it is in the range that was offered is the caller's to say.
    pub(crate) alias: Option<u16>,
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
    /// Seconds from the end of the connection until the will is due; of wills only.
    pub(super) will_delay: Option<u32>,
    /// Of publishes only.
    pub(super) alias: Option<u16>,
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
        let alias = properties.alias;
        if topic.is_empty() && alias.is_none() {
            return Err(Malformed::NoTopic);
        }
        let retain = frame.flags & 1 != 0;
        Ok(Self { dup, qos, retain, topic, id, alias, properties, payload: reader.rest() })
    }
}

/// The topic in the front of a PUBLISH, if it is there and is text; empty beside a topic alias.
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
        found.block = properties::read(reader, allowed, |property| found.keep(property))?;
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
            Property::WillDelay(seconds) => self.will_delay = Some(seconds),
            Property::TopicAlias(alias) => self.alias = Some(alias),
            _ => {}
        }
    }

    /// Reads the block of a will, or one that [`PublishProperties::forward`] made, again; it was checked
    /// when it came.
    pub(crate) fn of_will(block: &'a [u8]) -> Self {
        let mut found = Self::default();
        // An error cannot occur, and would leave out what follows it.
        let _checked =
            properties::each(Reader::new(block), Allowed::WILL, &mut |property| found.keep(property));
        found.block = block;
        found
    }

    /// Appends what goes to subscribers unaltered: payload format, content type, response topic,
    /// correlation data, user properties, in the order they came. The block has no length in front.
    pub(crate) fn forward(&self, out: &mut Vec<u8>) {
        if self.expiry_seconds.is_none() && self.alias.is_none() && self.will_delay.is_none() {
            out.extend_from_slice(self.block);
        } else {
            properties::forward(self.block, out);
        }
    }

    /// The user properties, in order.
    pub(crate) fn user(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        properties::user_properties(if self.has_user { self.block } else { &[] })
    }
}
