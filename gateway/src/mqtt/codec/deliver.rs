//! PUBLISH to a subscriber (section 3.3).
//!
//! It is encoded once per delivery, so that one publish to a thousand subscribers is encoded a thousand
//! times: the sizes are computed first, and the rest is a few copies into reserved room.

use super::encode::{header, varint};
use super::reader::{VARINT_MAX, varint_bytes};
use super::{Qos, Version};

/// Bytes of a message expiry and of a topic alias among the properties.
const EXPIRY_BYTES: usize = 5;
const ALIAS_BYTES: usize = 3;

/// A publish to one subscriber.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    /// Empty if the alias stands for a topic that was sent before.
    pub(crate) topic: &'a str,
    /// MQTT 5 only.
    pub(crate) alias: Option<u16>,
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// The packet id; ignored with QoS 0.
    pub(crate) id: u16,
    /// Seconds that are left to the message; MQTT 5 only.
    pub(crate) expiry_seconds: Option<u32>,
    /// Identifiers of the subscriptions that match; MQTT 5 only.
    pub(crate) subscription_ids: &'a [u32],
    /// The block that [`forward`] made, which travels as it is; MQTT 5 only.
    ///
    /// [`forward`]: super::PublishProperties::forward
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What a publish of the gateway's own says beside its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnProperties<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) response_topic: Option<&'a str>,
    /// Left out if it is empty.
    pub(crate) correlation_data: &'a [u8],
}

impl OwnProperties<'_> {
    /// Appends it with user properties, as a block that travels as it is. NUL, which strings of MQTT cannot hold
    /// ([MQTT-1.5.4-2]), becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// The length of a field that is longer than MQTT allows, in bytes.
    pub(crate) fn encode<T: AsRef<str>>(
        &self,
        user: impl Iterator<Item = (T, T)>,
        out: &mut Vec<u8>,
    ) -> Result<(), usize> {
        if let Some(text) = self.content_type {
            out.push(0x03);
            string(out, text)?;
        }
        if let Some(topic) = self.response_topic {
            out.push(0x08);
            string(out, topic)?;
        }
        if !self.correlation_data.is_empty() {
            out.push(0x09);
            field(out, self.correlation_data)?;
        }
        for (name, value) in user {
            out.push(0x26);
            string(out, name.as_ref())?;
            string(out, value.as_ref())?;
        }
        Ok(())
    }
}

fn string(out: &mut Vec<u8>, text: &str) -> Result<(), usize> {
    if text.contains('\0') {
        field(out, text.replace('\0', "\u{fffd}").as_bytes())
    } else {
        field(out, text.as_bytes())
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), usize> {
    let length = u16::try_from(bytes.len()).map_err(|_| bytes.len())?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Sizes of a PUBLISH, in bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// The property block without its length.
    properties: usize,
    /// Everything after the fixed header.
    remaining: usize,
}

impl Sizes {
    #[inline]
    fn of(version: Version, delivery: &Delivery<'_>) -> Self {
        let id = if delivery.qos == Qos::AtMostOnce { 0 } else { 2 };
        let fields = 2 + delivery.topic.len() + id + delivery.payload.len();
        if version == Version::V3 {
            return Self { properties: 0, remaining: fields };
        }
        let ids: usize = delivery.subscription_ids.iter().map(|id| 1 + varint_bytes(number(*id))).sum();
        let properties = delivery.properties.len()
            + ids
            + delivery.expiry_seconds.map_or(0, |_| EXPIRY_BYTES)
            + delivery.alias.map_or(0, |_| ALIAS_BYTES);
        Self { properties, remaining: fields + varint_bytes(properties) + properties }
    }

    /// The whole packet.
    const fn packet(self) -> usize {
        1 + varint_bytes(self.remaining) + self.remaining
    }
}

/// The size of the PUBLISH that [`publish`] would append, in bytes.
pub(crate) fn publish_bytes(version: Version, delivery: &Delivery<'_>) -> usize {
    Sizes::of(version, delivery).packet()
}

/// Appends a PUBLISH, or nothing if the packet would be larger than `bytes_max` or than MQTT allows.
/// Returns whether it was appended.
#[inline]
pub(crate) fn publish(
    out: &mut Vec<u8>,
    version: Version,
    delivery: &Delivery<'_>,
    bytes_max: usize,
) -> bool {
    let sizes = Sizes::of(version, delivery);
    let Ok(topic_bytes) = u16::try_from(delivery.topic.len()) else { return false };
    if sizes.remaining > VARINT_MAX || sizes.packet() > bytes_max {
        return false;
    }
    out.reserve(sizes.packet());
    let flags = u8::from(delivery.dup) << 3 | delivery.qos.number() << 1 | u8::from(delivery.retain);
    header(out, 0x30 | flags, sizes.remaining);
    out.extend_from_slice(&topic_bytes.to_be_bytes());
    out.extend_from_slice(delivery.topic.as_bytes());
    if delivery.qos != Qos::AtMostOnce {
        out.extend_from_slice(&delivery.id.to_be_bytes());
    }
    if version == Version::V5 {
        properties(out, delivery, sizes.properties);
    }
    out.extend_from_slice(delivery.payload);
    true
}

fn properties(out: &mut Vec<u8>, delivery: &Delivery<'_>, bytes: usize) {
    varint(out, bytes);
    if let Some(seconds) = delivery.expiry_seconds {
        let [a, b, c, d] = seconds.to_be_bytes();
        out.extend_from_slice(&[0x02, a, b, c, d]);
    }
    if let Some(alias) = delivery.alias {
        let [high, low] = alias.to_be_bytes();
        out.extend_from_slice(&[0x23, high, low]);
    }
    out.extend_from_slice(delivery.properties);
    // Last, since rumqttc counts one byte too many for each and would end the block before its end.
    for id in delivery.subscription_ids {
        out.push(0x0b);
        varint(out, number(*id));
    }
}

/// A subscription identifier; it came in a packet, so that it fits a variable byte integer.
fn number(id: u32) -> usize {
    usize::try_from(id).unwrap_or(VARINT_MAX).min(VARINT_MAX)
}
