//! What can go wrong with a link, and what to do about it.

use std::time::Duration;

use fe2o3_amqp::connection::{self, ConnectionStopReason, OpenError};
use fe2o3_amqp::link::{
    DetachError, IllegalLinkStateError, LinkStateError, ReceiverAttachError, RecvError, SendError,
    SenderAttachError, SessionStopReason,
};
use fe2o3_amqp::session::BeginError;
use fe2o3_amqp_types::definitions::{self, ErrorCondition};
use fe2o3_amqp_types::primitives::Symbol;

/// Why a link was not given, ended, or did not do what was asked. Each carries what Service Bus said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// The session belongs to another receiver. It may be free again soon.
    #[error("the session is locked: {0}")]
    Locked(Cause),
    /// Nothing came in the time given: the normal end of waiting for the next session.
    #[error("timed out: {0}")]
    TimedOut(Cause),
    /// The lock of the session or of the message is over; what was in flight is delivered again.
    #[error("the lock is lost: {0}")]
    LockLost(Cause),
    /// The service asks for a pause.
    #[error("the service is busy: {0}")]
    Busy(Cause),
    /// There is no such entity.
    #[error("not found: {0}")]
    NotFound(Cause),
    /// The service does not allow it: no right to it, or the entity is disabled or of another kind.
    #[error("refused: {0}")]
    Refused(Cause),
    /// A quota of the service is used up, or a bound of ours.
    #[error("no room: {0}")]
    Quota(Cause),
    /// The link or its connection is gone and may be opened again.
    #[error("the link is lost: {0}")]
    Lost(Cause),
    /// Anything else.
    #[error("failed: {0}")]
    Other(Cause),
}

/// What was said about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The condition by AMQP's or Service Bus' name; empty where the failure is not of the service.
    pub(crate) condition: String,
    /// A sentence for people, at most [`TEXT_CHARS_MAX`] characters.
    pub(crate) text: String,
    /// The shortest pause before the next try, if one is known.
    pub(crate) retry_after: Option<Duration>,
}

/// Longest text that is kept of what a service says.
const TEXT_CHARS_MAX: usize = 300;
/// What Azure asks for when it is busy.
const BUSY_PAUSE: Duration = Duration::from_secs(10);
/// A pause for what an operator has to mend.
const OPERATOR_PAUSE: Duration = Duration::from_secs(30);

const LOCKED: &[&str] = &["com.microsoft:session-cannot-be-locked"];
const TIMED_OUT: &[&str] = &["com.microsoft:timeout", "com.microsoft:operation-timeout"];
const LOCK_LOST: &[&str] = &["com.microsoft:session-lock-lost", "com.microsoft:message-lock-lost"];
const BUSY: &[&str] = &["com.microsoft:server-busy"];
const NOT_FOUND: &[&str] =
    &["amqp:not-found", "com.microsoft:entity-not-found", "com.microsoft:messaging-entity-not-found"];
const REFUSED: &[&str] = &[
    UNAUTHORIZED,
    "com.microsoft:auth-failed",
    "com.microsoft:entity-disabled",
    "amqp:not-allowed",
    "amqp:not-implemented",
];
/// Those of them that are said of an entity, or of whoever sends to it, and not of one message.
const ABOUT_THE_ENTITY: &[&str] =
    &[UNAUTHORIZED, "com.microsoft:auth-failed", "com.microsoft:entity-disabled"];
const QUOTA: &[&str] = &["amqp:resource-limit-exceeded", "com.microsoft:quota-exceeded", TOO_LARGE];
const LOST: &[&str] = &[
    "amqp:link:detach-forced",
    "amqp:link:stolen",
    "amqp:connection:forced",
    "amqp:session:errant-link",
    "amqp:internal-error",
    "com.microsoft:connection-lost",
];
/// The condition of a token that is missing, over, or not for this entity.
const UNAUTHORIZED: &str = "amqp:unauthorized-access";
/// The condition of a message with more bytes than the entity takes.
const TOO_LARGE: &str = "amqp:link:message-size-exceeded";

// === impl Cause ===

impl Cause {
    /// A failure that the service did not name.
    pub(super) fn local(text: impl Into<String>) -> Self {
        Self { condition: String::new(), text: shorten(text.into()), retry_after: None }
    }

    /// What the service said.
    pub(super) fn remote(condition: &str, text: &str) -> Self {
        Self { condition: condition.to_owned(), text: shorten(text.to_owned()), retry_after: None }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.condition.is_empty(), self.text.is_empty()) {
            (true, _) => f.write_str(&self.text),
            (false, true) => f.write_str(&self.condition),
            (false, false) => write!(f, "{} ({})", self.text, self.condition),
        }
    }
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text,
        Some((end, _)) => text.split_at(end).0.to_owned(),
    }
}

// === impl LinkError ===

impl LinkError {
    /// What the service said and the pause it asked for.
    #[must_use]
    pub(crate) const fn cause(&self) -> &Cause {
        match self {
            Self::Locked(cause)
            | Self::TimedOut(cause)
            | Self::LockLost(cause)
            | Self::Busy(cause)
            | Self::NotFound(cause)
            | Self::Refused(cause)
            | Self::Quota(cause)
            | Self::Lost(cause)
            | Self::Other(cause) => cause,
        }
    }

    /// Its word, as metrics have it; from a closed list.
    #[must_use]
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Locked(_) => "locked",
            Self::TimedOut(_) => "timed-out",
            Self::LockLost(_) => "lock-lost",
            Self::Busy(_) => "busy",
            Self::NotFound(_) => "not-found",
            Self::Refused(_) => "refused",
            Self::Quota(_) => "quota",
            Self::Lost(_) => "lost",
            Self::Other(_) => "other",
        }
    }

    /// The shortest pause before the next try, if this failure has one of its own.
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let own = match self {
            Self::Busy(_) => Some(BUSY_PAUSE),
            Self::NotFound(_) | Self::Refused(_) | Self::Quota(_) => Some(OPERATOR_PAUSE),
            _ => None,
        };
        own.max(self.cause().retry_after)
    }

    /// Whether another token may help.
    pub(super) fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused(cause) if cause.condition == UNAUTHORIZED)
    }

    /// Whether a message has more bytes than the entity takes.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Quota(cause) if cause.condition == TOO_LARGE)
    }

    /// Whether it is refused for what the entity is, or for who sends to it: all messages meet with the same.
    pub(crate) fn is_about_the_entity(&self) -> bool {
        matches!(self, Self::Refused(cause) if ABOUT_THE_ENTITY.contains(&cause.condition.as_str()))
    }

    /// By the condition that the service named.
    pub(super) fn from_condition(condition: &str, text: &str) -> Self {
        let cause = Cause::remote(condition, text);
        let is = |list: &[&str]| list.contains(&condition);
        if is(LOCKED) {
            Self::Locked(cause)
        } else if is(TIMED_OUT) {
            Self::TimedOut(cause)
        } else if is(LOCK_LOST) {
            Self::LockLost(cause)
        } else if is(BUSY) {
            Self::Busy(cause)
        } else if is(NOT_FOUND) {
            Self::NotFound(cause)
        } else if is(REFUSED) {
            Self::Refused(cause)
        } else if is(QUOTA) {
            Self::Quota(cause)
        } else if is(LOST) {
            Self::Lost(cause)
        } else {
            Self::Other(cause)
        }
    }

    /// By the status of a response of `$management` or `$cbs`, whose condition says more where there is one.
    pub(super) fn from_status(status: i64, condition: Option<&str>, text: &str) -> Self {
        if let Some(condition) = condition {
            let named = Self::from_condition(condition, text);
            if !matches!(named, Self::Other(_)) {
                return named;
            }
        }
        let cause = Cause::remote(condition.unwrap_or_default(), &format!("{text} (status {status})"));
        match status {
            401 => Self::Refused(Cause { condition: UNAUTHORIZED.to_owned(), ..cause }),
            403 => Self::Refused(cause),
            404 => Self::NotFound(cause),
            408 => Self::TimedOut(cause),
            410 => Self::LockLost(cause),
            429 | 503 => Self::Busy(cause),
            _ => Self::Other(cause),
        }
    }

    pub(super) fn lost(text: impl Into<String>) -> Self {
        Self::Lost(Cause::local(text))
    }

    /// By what the service said when it ended something.
    pub(super) fn from_remote(error: &definitions::Error) -> Self {
        let condition = match &error.condition {
            ErrorCondition::AmqpError(error) => Symbol::from(error),
            ErrorCondition::ConnectionError(error) => Symbol::from(error),
            ErrorCondition::SessionError(error) => Symbol::from(error),
            ErrorCondition::LinkError(error) => Symbol::from(error),
            ErrorCondition::Custom(symbol) => symbol.clone(),
        };
        Self::from_condition(condition.as_str(), error.description.as_deref().unwrap_or_default())
    }
}

impl From<&SessionStopReason> for LinkError {
    fn from(reason: &SessionStopReason) -> Self {
        match reason {
            SessionStopReason::RemoteEndedWithError(error)
            | SessionStopReason::ConnectionStopped(
                ConnectionStopReason::RemoteClosedWithError(error)
                | ConnectionStopReason::ClosedWithError(error),
            )
            | SessionStopReason::EndedWithError(error) => match Self::from_remote(error) {
                Self::Other(cause) => Self::Lost(cause),
                named => named,
            },
            SessionStopReason::Ended | SessionStopReason::RemoteEnded => Self::lost("the AMQP session ended"),
            SessionStopReason::ConnectionStopped(_) => Self::lost("the connection ended"),
        }
    }
}

impl From<ReceiverAttachError> for LinkError {
    fn from(error: ReceiverAttachError) -> Self {
        match error {
            ReceiverAttachError::RemoteClosedWithError(error) => Self::from_remote(&error),
            ReceiverAttachError::SessionStopped(reason) => Self::from(&reason),
            ReceiverAttachError::SessionNotMapped => Self::lost("the AMQP session ended"),
            other => Self::Other(Cause::local(other.to_string())),
        }
    }
}

impl From<SenderAttachError> for LinkError {
    fn from(error: SenderAttachError) -> Self {
        match error {
            SenderAttachError::RemoteClosedWithError(error) => Self::from_remote(&error),
            SenderAttachError::SessionStopped(reason) => Self::from(&reason),
            SenderAttachError::SessionNotMapped => Self::lost("the AMQP session ended"),
            other => Self::Other(Cause::local(other.to_string())),
        }
    }
}

impl From<LinkStateError> for LinkError {
    fn from(error: LinkStateError) -> Self {
        match error {
            LinkStateError::RemoteClosedWithError(error) | LinkStateError::RemoteDetachedWithError(error) => {
                Self::from_remote(&error)
            }
            LinkStateError::SessionStopped(reason) => Self::from(&reason),
            LinkStateError::RemoteClosed | LinkStateError::RemoteDetached => {
                Self::lost("the service ended the link")
            }
            other => Self::lost(other.to_string()),
        }
    }
}

impl From<RecvError> for LinkError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::LinkStateError(error) => error.into(),
            other => Self::Other(Cause::local(other.to_string())),
        }
    }
}

impl From<IllegalLinkStateError> for LinkError {
    fn from(error: IllegalLinkStateError) -> Self {
        LinkStateError::from(error).into()
    }
}

impl From<DetachError> for LinkError {
    fn from(error: DetachError) -> Self {
        LinkStateError::from(error).into()
    }
}

impl From<SendError> for LinkError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::LinkStateError(error) => error.into(),
            SendError::Detached(error) => error.into(),
            SendError::MessageSizeExceeded(error) => {
                Self::Quota(Cause::remote(TOO_LARGE, &error.to_string()))
            }
            other => Self::Other(Cause::local(other.to_string())),
        }
    }
}

impl From<BeginError> for LinkError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::ConnectionStopped(reason) => {
                Self::from(&SessionStopReason::ConnectionStopped(reason))
            }
            BeginError::RemoteEndedWithError(error) => Self::from_remote(&error),
            BeginError::LocalChannelMaxReached => {
                Self::Quota(Cause::local("the connection has no channel left"))
            }
            other => Self::lost(other.to_string()),
        }
    }
}

impl From<OpenError> for LinkError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::RemoteClosedWithError(error) => match Self::from_remote(&error) {
                Self::Other(cause) => Self::Lost(cause),
                named => named,
            },
            OpenError::SaslError { code, .. } => {
                Self::Refused(Cause::local(format!("signing in to the connection was refused ({code:?})")))
            }
            other => Self::lost(format!("the AMQP connection did not open: {other}")),
        }
    }
}

impl From<connection::Error> for LinkError {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::RemoteClosedWithError(error) => match Self::from_remote(&error) {
                Self::Other(cause) => Self::Lost(cause),
                named => named,
            },
            other => Self::lost(format!("the connection ended: {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::definitions::{AmqpError, ConnectionError, LinkError as AmqpLinkError};

    use super::*;

    fn check(condition: ErrorCondition, expected: fn(Cause) -> LinkError) {
        let error = definitions::Error::new(condition, "said so".to_owned(), None);
        let seen = LinkError::from(ReceiverAttachError::RemoteClosedWithError(error));
        assert_eq!(seen, expected(seen.cause().clone()));
        assert_eq!(seen.cause().text, "said so");
    }

    #[test]
    fn conditions_tell_what_to_do() {
        let custom = |name: &str| ErrorCondition::Custom(Symbol::from(name));
        check(custom("com.microsoft:session-cannot-be-locked"), LinkError::Locked);
        check(custom("com.microsoft:timeout"), LinkError::TimedOut);
        check(custom("com.microsoft:session-lock-lost"), LinkError::LockLost);
        check(custom("com.microsoft:message-lock-lost"), LinkError::LockLost);
        check(custom("com.microsoft:server-busy"), LinkError::Busy);
        check(custom("com.microsoft:entity-disabled"), LinkError::Refused);
        check(custom("com.microsoft:of-tomorrow"), LinkError::Other);
        check(AmqpLinkError::DetachForced.into(), LinkError::Lost);
        check(ConnectionError::ConnectionForced.into(), LinkError::Lost);
        check(AmqpError::NotFound.into(), LinkError::NotFound);
        check(AmqpError::NotAllowed.into(), LinkError::Refused);
        check(AmqpError::UnauthorizedAccess.into(), LinkError::Refused);
        check(AmqpError::ResourceLimitExceeded.into(), LinkError::Quota);
    }

    #[test]
    fn pauses_fit_what_happened() {
        let error = |condition: &str| LinkError::from_condition(condition, "");
        assert_eq!(error("com.microsoft:server-busy").retry_after(), Some(Duration::from_secs(10)));
        assert_eq!(error("amqp:not-found").retry_after(), Some(Duration::from_secs(30)));
        assert_eq!(error("com.microsoft:session-cannot-be-locked").retry_after(), None);
        let cause = Cause { retry_after: Some(Duration::from_secs(60)), ..Cause::local("later") };
        assert_eq!(LinkError::Busy(cause.clone()).retry_after(), Some(Duration::from_secs(60)));
        assert_eq!(LinkError::Lost(cause).retry_after(), Some(Duration::from_secs(60)));
        assert!(error("amqp:unauthorized-access").is_unauthorized());
        assert!(!error("com.microsoft:entity-disabled").is_unauthorized());
    }

    #[test]
    fn a_condition_says_more_than_a_status() {
        let check = |status, condition, expected: fn(Cause) -> LinkError| {
            let seen = LinkError::from_status(status, condition, "text");
            assert_eq!(seen, expected(seen.cause().clone()), "{status} {condition:?}");
        };
        check(410, None, LinkError::LockLost);
        check(410, Some("com.microsoft:session-lock-lost"), LinkError::LockLost);
        check(400, Some("com.microsoft:server-busy"), LinkError::Busy);
        check(410, Some("com.microsoft:of-tomorrow"), LinkError::LockLost);
        check(401, None, LinkError::Refused);
        check(404, None, LinkError::NotFound);
        check(503, None, LinkError::Busy);
        check(500, None, LinkError::Other);
        assert!(LinkError::from_status(401, None, "").is_unauthorized());
    }

    #[test]
    fn a_connection_that_ends_takes_its_links_along() {
        let forced = definitions::Error::new(ConnectionError::ConnectionForced, "idle".to_owned(), None);
        let reason = ConnectionStopReason::RemoteClosedWithError(forced);
        let seen = LinkError::from(RecvError::LinkStateError(LinkStateError::SessionStopped(
            SessionStopReason::ConnectionStopped(reason),
        )));
        assert_eq!(seen.to_string(), "the link is lost: idle (amqp:connection:forced)");
        let strange = definitions::Error::new(AmqpError::IllegalState, None, None);
        let seen = LinkError::from(&SessionStopReason::RemoteEndedWithError(strange));
        assert!(matches!(seen, LinkError::Lost(_)), "{seen}");
    }

    #[test]
    fn what_a_service_says_is_cut() {
        let cause = Cause::remote("x", &"é".repeat(1000));
        assert_eq!(cause.text.chars().count(), TEXT_CHARS_MAX);
    }
}
