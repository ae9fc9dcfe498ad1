//! Reason codes of MQTT 5 and return codes of MQTT 3.1.1.

use super::malformed::Malformed;

/// A reason code of MQTT 5 (section 2.4); only those a server of this kind sends or understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    Success = 0x00,
    NoSubscriptionExisted = 0x11,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    Implementation = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    RetainNotSupported = 0x9A,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    SubscriptionIdentifiersNotSupported = 0xA1,
}

impl Reason {
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
            Self::NotAuthorized => 5,
            _ => 3,
        }
    }
}

/// Checks a reason code that a client sent against the codes its packet allows.
pub(super) fn allowed(code: u8, codes: &[u8]) -> Result<u8, Malformed> {
    if codes.contains(&code) { Ok(code) } else { Err(Malformed::ReasonCode) }
}
