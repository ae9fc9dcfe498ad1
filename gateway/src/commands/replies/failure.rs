//! Why a reply was not sent, and whether it is tried again.

use std::time::Duration;

use crate::commands::amqp::LinkError;

/// Why a reply was given up: the label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The configuration has no replies.
    Off,
    /// It is no name of an entity, or no session id.
    Malformed,
    /// It is in another namespace.
    Foreign,
    /// The configuration does not allow it.
    NotAllowed,
    /// There is no such entity.
    NotFound,
    /// The service does not take it: no right to send, disabled, a session id that is missing.
    Refused,
    /// The entity is full.
    Full,
    /// The service asks for a pause.
    Busy,
    /// It took too long.
    TimedOut,
    /// The link was lost, again and again.
    Lost,
    /// Anything else.
    Other,
}

/// A reply that was given up, with a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) text: String,
}

/// A try that failed.
#[derive(Debug)]
pub(super) enum Tried {
    /// The outlet ended meanwhile.
    Gone,
    /// The time was over.
    TooLong,
    /// There is no link to the entity.
    Link(LinkError),
    /// The entity did not take the message, or the link was lost before it said so.
    Message(LinkError),
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another try.
    Again { after: Duration },
    /// None; nor for replies of others to the same entity, for this long.
    GiveUp { pause: Option<Duration> },
}

/// Most tries for one reply.
pub(super) const TRIES: u32 = 3;
/// How long nobody waits for an entity that did not answer in time.
const PAUSE: Duration = Duration::from_secs(10);
/// The same after a lost link: the connection opens again by itself.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// Between two tries. The first comes at once: an idle link may have been ended.
const AGAIN: Duration = Duration::from_millis(200);

impl Failure {
    /// Its word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::NotAllowed => "not-allowed",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::TimedOut => "timed-out",
            Self::Lost => "lost",
            Self::Other => "other",
        }
    }

    /// What it means, for the log, where nobody else says it.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "no name of a queue or topic, or a session id of more than 128 characters",
            Self::Foreign => "in another namespace",
            Self::NotAllowed => "commands.replies.to does not allow it",
            Self::TimedOut => "not taken within commands.replies.timeout",
            Self::Lost => "the link was lost",
            _ => "",
        }
    }

    const fn of(error: &LinkError) -> Self {
        match error {
            LinkError::NotFound(_) => Self::NotFound,
            LinkError::Refused(_) => Self::Refused,
            LinkError::Quota(_) => Self::Full,
            LinkError::Busy(_) => Self::Busy,
            LinkError::TimedOut(_) => Self::TimedOut,
            LinkError::Lost(_) => Self::Lost,
            LinkError::Locked(_) | LinkError::LockLost(_) | LinkError::Other(_) => Self::Other,
        }
    }
}

impl Tried {
    pub(super) fn failed(&self) -> Failed {
        let own = |failure: Failure| Failed { failure, text: failure.sentence().to_owned() };
        match self {
            Self::Gone => own(Failure::Lost),
            Self::TooLong => own(Failure::TimedOut),
            Self::Link(error) | Self::Message(error) => {
                Failed { failure: Failure::of(error), text: error.to_string() }
            }
        }
    }

    /// What follows from the last of so many tries.
    pub(super) fn next(&self, tries: u32) -> Next {
        let asked = match self {
            Self::Link(error) | Self::Message(error) => error.retry_after(),
            Self::Gone | Self::TooLong => None,
        };
        match self {
            Self::TooLong => Next::GiveUp { pause: Some(PAUSE) },
            Self::Message(LinkError::Busy(_)) | Self::Link(LinkError::Busy(_)) if tries < TRIES => {
                Next::Again { after: asked.unwrap_or(PAUSE) }
            }
            Self::Gone | Self::Link(LinkError::Lost(_)) | Self::Message(LinkError::Lost(_)) => {
                if tries < TRIES {
                    Next::Again { after: asked.unwrap_or_else(|| AGAIN.saturating_mul(tries - 1)) }
                } else {
                    Next::GiveUp { pause: Some(asked.unwrap_or(SHORT_PAUSE)) }
                }
            }
            // What the entity says of one message holds for that one.
            Self::Message(LinkError::NotFound(_) | LinkError::Refused(_) | LinkError::Other(_)) => {
                Next::GiveUp { pause: None }
            }
            Self::Link(_) | Self::Message(_) => Next::GiveUp { pause: Some(asked.unwrap_or(PAUSE)) },
        }
    }
}
