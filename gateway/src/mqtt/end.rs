//! Why a connection is refused or ends, and what the client is told.

use super::codec::{Malformed, Reason};

/// Why a CONNECT does not lead to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("malformed connect: {0}")]
    Malformed(#[from] Malformed),
    #[error("the tls handshake failed")]
    Handshake,
    #[error("the upgrade to websocket failed")]
    Upgrade,
    #[error("no connect in time")]
    Timeout,
    #[error("closed before connect")]
    Closed,
    #[error("wrong user name or password")]
    Credentials,
    #[error("a user name is needed")]
    Anonymous,
    #[error("the client id cannot be used here")]
    ClientId,
    #[error("enhanced authentication is not supported")]
    AuthenticationMethod,
    #[error("the client id belongs to another user")]
    ForeignClientId,
    #[error("a will to a topic that the client may not publish to")]
    WillTopic,
    #[error("the client takes no packet as large as its acceptance")]
    PacketBytes,
    #[error("too many sessions")]
    Sessions,
    #[error("an earlier connection of the client is not settled yet")]
    Busy,
    #[error("too many connections")]
    TooMany,
    #[error("the gateway stops")]
    Stopping,
    #[error("taken over while it connected")]
    TakenOver,
}

impl Refusal {
    /// Every value of the label `result`.
    pub(super) const RESULTS: &[&str] = &[
        "accepted",
        "malformed",
        "handshake",
        "upgrade",
        "timeout",
        "closed",
        "credentials",
        "anonymous",
        "client_id",
        "authentication_method",
        "foreign_client_id",
        "will_topic",
        "packet_bytes",
        "sessions",
        "busy",
        "too_many",
        "stopping",
        "taken_over",
    ];

    /// The value of the label `result`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Handshake => "handshake",
            Self::Upgrade => "upgrade",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Credentials => "credentials",
            Self::Anonymous => "anonymous",
            Self::ClientId => "client_id",
            Self::AuthenticationMethod => "authentication_method",
            Self::ForeignClientId => "foreign_client_id",
            Self::WillTopic => "will_topic",
            Self::PacketBytes => "packet_bytes",
            Self::Sessions => "sessions",
            Self::Busy => "busy",
            Self::TooMany => "too_many",
            Self::Stopping => "stopping",
            Self::TakenOver => "taken_over",
        }
    }

    /// What CONNACK says, or nothing if the connection just closes.
    pub(super) const fn reason(self) -> Option<Reason> {
        match self {
            Self::Malformed(malformed) => Some(malformed.reason()),
            Self::Handshake | Self::Upgrade | Self::Timeout | Self::Closed => None,
            Self::Credentials => Some(Reason::BadUserNameOrPassword),
            Self::Anonymous | Self::WillTopic | Self::ForeignClientId => Some(Reason::NotAuthorized),
            Self::ClientId => Some(Reason::ClientIdentifierNotValid),
            Self::AuthenticationMethod => Some(Reason::BadAuthenticationMethod),
            Self::PacketBytes => Some(Reason::PacketTooLarge),
            Self::Sessions => Some(Reason::QuotaExceeded),
            Self::Busy => Some(Reason::ServerBusy),
            Self::TooMany => Some(Reason::ConnectionRateExceeded),
            Self::Stopping => Some(Reason::ServerUnavailable),
            Self::TakenOver => Some(Reason::SessionTakenOver),
        }
    }
}

/// Why an accepted connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    /// The client said goodbye.
    #[error("the client disconnected")]
    Client,
    /// The client said goodbye and wants its will published.
    #[error("the client disconnected and asked for its will")]
    ClientWithWill,
    /// The socket ended without a goodbye.
    #[error("the connection was lost")]
    Lost,
    #[error("keep alive expired")]
    KeepAlive,
    #[error("the client does not take what is sent to it")]
    Stalled,
    #[error("malformed packet: {0}")]
    Malformed(Malformed),
    #[error("a publish to a topic that the client may not publish to")]
    UnknownTopic,
    #[error("a publish to a topic of another device or of the gateway")]
    Foreign,
    #[error("more publishes in flight than allowed")]
    ReceiveMaximum,
    #[error("the answer is larger than the packets that the client takes")]
    AnswerTooLarge,
    #[error("the session was taken over")]
    TakenOver,
    #[error("the gateway stops")]
    Stopping,
    /// A commit failed; nothing that waited for it is acknowledged.
    #[error("the outbox could not store what was submitted")]
    CommitFailed,
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl End {
    /// Every value of the label `reason`.
    pub(super) const REASONS: &[&str] = &[
        "client",
        "client_with_will",
        "lost",
        "keep_alive",
        "stalled",
        "malformed",
        "unknown_topic",
        "foreign",
        "receive_maximum",
        "answer_too_large",
        "taken_over",
        "stopping",
        "commit_failed",
    ];

    /// The value of the label `reason`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ClientWithWill => "client_with_will",
            Self::Lost => "lost",
            Self::KeepAlive => "keep_alive",
            Self::Stalled => "stalled",
            Self::Malformed(_) => "malformed",
            Self::UnknownTopic => "unknown_topic",
            Self::Foreign => "foreign",
            Self::ReceiveMaximum => "receive_maximum",
            Self::AnswerTooLarge => "answer_too_large",
            Self::TakenOver => "taken_over",
            Self::Stopping => "stopping",
            Self::CommitFailed => "commit_failed",
        }
    }

    /// What DISCONNECT says, or nothing if there is nobody to tell.
    pub(super) const fn reason(self) -> Option<Reason> {
        match self {
            Self::Client | Self::ClientWithWill | Self::Lost | Self::Stalled => None,
            Self::KeepAlive => Some(Reason::KeepAliveTimeout),
            Self::Malformed(malformed) => Some(malformed.reason()),
            Self::UnknownTopic => Some(Reason::TopicNameInvalid),
            Self::Foreign => Some(Reason::NotAuthorized),
            Self::ReceiveMaximum => Some(Reason::ReceiveMaximumExceeded),
            Self::AnswerTooLarge => Some(Reason::PacketTooLarge),
            Self::TakenOver => Some(Reason::SessionTakenOver),
            Self::Stopping => Some(Reason::ServerShuttingDown),
            Self::CommitFailed => Some(Reason::Implementation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_declared_label_value() {
        let malformed = Malformed::Qos;
        for refusal in [
            Refusal::Malformed(malformed),
            Refusal::Handshake,
            Refusal::Upgrade,
            Refusal::Timeout,
            Refusal::Closed,
            Refusal::Credentials,
            Refusal::Anonymous,
            Refusal::ClientId,
            Refusal::AuthenticationMethod,
            Refusal::ForeignClientId,
            Refusal::WillTopic,
            Refusal::PacketBytes,
            Refusal::Sessions,
            Refusal::Busy,
            Refusal::TooMany,
            Refusal::Stopping,
            Refusal::TakenOver,
        ] {
            assert!(Refusal::RESULTS.contains(&refusal.name()), "{refusal}");
        }
        for end in [
            End::Client,
            End::ClientWithWill,
            End::Lost,
            End::KeepAlive,
            End::Stalled,
            End::Malformed(malformed),
            End::UnknownTopic,
            End::Foreign,
            End::ReceiveMaximum,
            End::AnswerTooLarge,
            End::TakenOver,
            End::Stopping,
            End::CommitFailed,
        ] {
            assert!(End::REASONS.contains(&end.name()), "{end}");
        }
    }
}
