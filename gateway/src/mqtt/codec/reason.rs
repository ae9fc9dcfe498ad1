//! Reason codes of MQTT 5 and return codes of MQTT 3.1.1.

use super::malformed::Malformed;

/// A reason code of MQTT 5 (section 2.4): what a server may send. The granted levels of a SUBACK are no
/// reasons, and this server knows no other to use.
#[cfg_attr(not(test), expect(dead_code, reason = "the list is the specification's"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    Success = 0x00,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    Implementation = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdInUse = 0x91,
    PacketIdNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    DisconnectedAdministratively = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QosNotSupported = 0x9B,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    ConnectTimeExceeded = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardsNotSupported = 0xA2,
}

impl Reason {
    /// Those that a DISCONNECT of a server may give (section 3.14.2.1).
    #[cfg(test)]
    pub(super) const OF_DISCONNECT: &[Self] = &[
        Self::Success,
        Self::UnspecifiedError,
        Self::MalformedPacket,
        Self::ProtocolError,
        Self::Implementation,
        Self::NotAuthorized,
        Self::ServerBusy,
        Self::ServerShuttingDown,
        Self::KeepAliveTimeout,
        Self::SessionTakenOver,
        Self::TopicFilterInvalid,
        Self::TopicNameInvalid,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::PacketTooLarge,
        Self::MessageRateTooHigh,
        Self::QuotaExceeded,
        Self::DisconnectedAdministratively,
        Self::PayloadFormatInvalid,
        Self::RetainNotSupported,
        Self::QosNotSupported,
        Self::SharedSubscriptionsNotSupported,
        Self::ConnectionRateExceeded,
        Self::ConnectTimeExceeded,
        Self::SubscriptionIdentifiersNotSupported,
        Self::WildcardsNotSupported,
    ];

    /// The code on the wire.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The CONNACK return code of MQTT 3.1.1 for this reason.
    pub(crate) const fn connect_return_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned => 5,
            _ => 3,
        }
    }
}

/// Checks a reason code that a client sent against the codes its packet allows.
pub(super) fn allowed(code: u8, codes: &[u8]) -> Result<u8, Malformed> {
    if codes.contains(&code) { Ok(code) } else { Err(Malformed::ReasonCode) }
}
