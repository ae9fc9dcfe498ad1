//! Why a packet is refused.

use super::reason::Reason;

/// A packet that breaks the protocol; the connection it came on is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("reserved packet type")]
    PacketType,
    #[error("wrong flags in the fixed header")]
    HeaderFlags,
    #[error("bad variable byte integer")]
    Varint,
    #[error("packet larger than the limit")]
    TooLarge,
    #[error("packet ends inside a field")]
    Truncated,
    #[error("bytes left over after the last field")]
    TrailingBytes,
    #[error("string is not valid utf-8 or holds nul")]
    Utf8,
    #[error("quality of service 3")]
    Qos,
    #[error("dup set on quality of service 0")]
    Dup,
    #[error("packet id zero")]
    PacketId,
    #[error("unknown property")]
    PropertyUnknown,
    #[error("property not allowed in this packet")]
    PropertyNotAllowed,
    #[error("property that only servers send")]
    PropertyOfServers,
    #[error("property given twice")]
    PropertyRepeated,
    #[error("property value out of range")]
    PropertyValue,
    #[error("reason code not allowed in this packet")]
    ReasonCode,
    #[error("authentication data without a method")]
    AuthenticationMethod,
    #[error("not a valid topic name")]
    TopicName,
    #[error("neither topic nor topic alias")]
    NoTopic,
    #[error("not a valid topic filter")]
    TopicFilter,
    #[error("reserved bits in subscription options")]
    SubscriptionOptions,
    #[error("subscription option out of range")]
    SubscriptionValue,
    #[error("no local on a shared subscription")]
    SharedNoLocal,
    #[error("no topic filter")]
    NoFilter,
    #[error("unknown protocol name")]
    ProtocolName,
    #[error("unsupported protocol level {0}")]
    ProtocolLevel(u8),
    #[error("reserved or contradictory connect flags")]
    ConnectFlags,
    #[error("first packet is not connect")]
    NotConnect,
    #[error("packet not allowed here")]
    Unexpected,
    #[error("topic alias zero or not offered")]
    TopicAlias,
}

impl Malformed {
    /// Every reason once.
    #[cfg(test)]
    pub(super) const ALL: &[Self] = &[
        Self::PacketType,
        Self::HeaderFlags,
        Self::Varint,
        Self::TooLarge,
        Self::Truncated,
        Self::TrailingBytes,
        Self::Utf8,
        Self::Qos,
        Self::Dup,
        Self::PacketId,
        Self::PropertyUnknown,
        Self::PropertyNotAllowed,
        Self::PropertyOfServers,
        Self::PropertyRepeated,
        Self::PropertyValue,
        Self::ReasonCode,
        Self::AuthenticationMethod,
        Self::TopicName,
        Self::NoTopic,
        Self::TopicFilter,
        Self::SubscriptionOptions,
        Self::SubscriptionValue,
        Self::SharedNoLocal,
        Self::NoFilter,
        Self::ProtocolName,
        Self::ProtocolLevel(7),
        Self::ConnectFlags,
        Self::NotConnect,
        Self::Unexpected,
        Self::TopicAlias,
    ];

    /// The MQTT 5 reason code told to the client: what cannot be parsed is malformed, what is out of
    /// place is a protocol error (sections 1.2 and 4.13).
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::PacketType
            | Self::HeaderFlags
            | Self::Varint
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Utf8
            | Self::Qos
            | Self::Dup
            | Self::PropertyUnknown
            | Self::PropertyNotAllowed
            | Self::TopicName
            | Self::TopicFilter
            | Self::SubscriptionOptions
            | Self::ConnectFlags => Reason::MalformedPacket,
            Self::TooLarge => Reason::PacketTooLarge,
            Self::PacketId
            | Self::PropertyOfServers
            | Self::PropertyRepeated
            | Self::PropertyValue
            | Self::ReasonCode
            | Self::AuthenticationMethod
            | Self::NoTopic
            | Self::SubscriptionValue
            | Self::SharedNoLocal
            | Self::NoFilter
            | Self::NotConnect
            | Self::Unexpected => Reason::ProtocolError,
            Self::ProtocolName | Self::ProtocolLevel(_) => Reason::UnsupportedProtocolVersion,
            Self::TopicAlias => Reason::TopicAliasInvalid,
        }
    }
}
