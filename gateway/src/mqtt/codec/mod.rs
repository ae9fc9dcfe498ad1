//! The MQTT 3.1.1 and MQTT 5 wire format, as a server sees it.
//!
//! Bytes in, borrowed packets out, and bytes out again: no I/O, no clock and no allocation while
//! decoding. What a packet borrows lives as long as the read buffer it was decoded from.
//!
//! The decoder is strict. It refuses wrong fixed header flags, reserved bits, properties that are
//! repeated or belong to another packet, packet id zero, strings that are not UTF-8 or hold NUL,
//! topic names with wildcards and filters that break the rules of section 4.7. A packet above the
//! limit is refused from its header, before its body is buffered. Every refusal is one
//! [`Malformed`], which knows its MQTT 5 reason code.
//!
//! | File | Holds |
//! |---|---|
//! | `frame` | cutting a byte stream into packets |
//! | `reader`, `properties` | the primitive types of section 1.5 and the MQTT 5 property blocks |
//! | `connect`, `publish`, `subscribe`, `control` | the bodies |
//! | `topic` | rules and matching of topic names and filters |
//! | `encode`, `deliver` | what a server sends |
//! | `malformed`, `reason` | why a packet is refused, and the codes of both versions |
#![warn(clippy::indexing_slicing)]

mod connect;
mod control;
mod deliver;
mod encode;
mod frame;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod malformed;
mod properties;
mod publish;
mod reader;
mod reason;
mod subscribe;
#[cfg(test)]
mod tests;
mod topic;

pub(super) use connect::{Connect, Will, version_of};
pub(super) use control::{Ack, AckKind, Disconnect, auth, ping};
pub(super) use deliver::{Delivery, OwnProperties, publish as publish_to, publish_bytes};
pub(super) use encode::{
    Connack, connack, disconnect, pingresp, puback, pubcomp, pubrec, pubrel, suback, unsuback,
};
pub(super) use frame::{Frame, PacketType, Split, split};
pub(super) use malformed::Malformed;
pub(super) use publish::{Publish, PublishProperties, publish_topic};
pub(super) use reason::Reason;
pub(super) use subscribe::{Request, RetainHandling, Subscribe, Unsubscribe};
pub(super) use topic::{filter_matches, is_name as is_topic_name};

/// Valid and broken packets, to make others of.
#[cfg(test)]
pub(super) fn seeds(decoder: &str) -> Vec<Vec<u8>> {
    tests::seeds(decoder)
}

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5, protocol level 5.
    V5,
}

/// Quality of service of a publish.
#[expect(clippy::enum_variant_names, reason = "these are the specification's words")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Qos {
    /// No acknowledgement.
    AtMostOnce = 0,
    /// PUBACK.
    AtLeastOnce = 1,
    /// PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level of two bits, or an error for the reserved value 3.
    fn from_bits(bits: u8) -> Result<Self, Malformed> {
        match bits & 3 {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(Malformed::Qos),
        }
    }

    /// The level with a number that was checked before; the highest for any other.
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            _ => Self::ExactlyOnce,
        }
    }

    /// The level's number, as on the wire.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }
}
