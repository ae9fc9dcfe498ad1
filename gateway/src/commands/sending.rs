//! Messages to entities of the namespace, for other stages: one link per entity, and a plain word for what became of each
//! message.
//!
//! A connection of its own, apart from those that commands are received on: neither slows the other down.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::StartError;
use super::amqp::{LinkError, Namespace, Sender, Taking};
use super::config::Config;
use super::message::Outgoing;
use crate::supervise::{Supervisor, TaskKind};

/// A way to send messages to queues and topics. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Sending {
    namespace: Namespace,
    host: String,
}

/// A link to one queue or topic.
#[derive(Debug)]
pub(crate) struct Line(Sender);

/// Whether a message was taken, in time.
#[must_use = "whether it was taken is not known before"]
pub(crate) struct Answer(Taking);

/// A message was not taken, or there is no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotTaken {
    /// What may help.
    pub(crate) why: Why,
    /// What the service said, in at most 300 characters and its condition.
    pub(crate) text: String,
    /// The shortest pause before the next try, if one is known.
    pub(crate) after: Option<Duration>,
}

/// What a refusal is about, and so what may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The link or the connection is gone, or there was no answer: the message may have been taken all the same.
    Lost,
    /// The service asks for a pause.
    Busy,
    /// The entity has no room.
    Full,
    /// There is no such entity.
    NoEntity,
    /// Nobody may send to it, or not with this credential.
    NotAllowed,
    /// This message has too many bytes.
    TooLarge,
    /// This message is refused as it is.
    Refused,
}

// === impl Sending ===

impl Sending {
    /// Prepares it; connects when it is needed. Reads the certificates to trust: blocks on the disk.
    ///
    /// # Errors
    ///
    /// When a setting of the connection cannot work.
    pub fn new(config: &Config, supervisor: &Supervisor) -> Result<Self, StartError> {
        let namespace =
            Namespace::of_kind(TaskKind::ServiceBus, &config.connection, config.tokens.clone(), supervisor)
                .map_err(|error| StartError::Connection(Box::new(error)))?;
        Ok(Self { namespace, host: config.connection.host().to_owned() })
    }

    /// The host of the namespace.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// A link to a queue or topic.
    ///
    /// # Errors
    ///
    /// Why there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn open(&self, entity: &str) -> Result<Line, NotTaken> {
        self.namespace.sender(entity).await.map(Line).map_err(|error| NotTaken::of_link(&error))
    }
}

// === impl Line ===

impl Line {
    /// Sends a message. Others can be sent before the answer is there; they arrive in the order of the calls.
    ///
    /// # Errors
    ///
    /// Why it was not sent. After [`Why::Lost`] it may have been.
    ///
    /// # Cancel safety
    ///
    /// Whether the message is sent is not known then, and the link is good for nothing any more.
    pub(crate) async fn send(&mut self, message: Outgoing) -> Result<Answer, NotTaken> {
        self.0.send(message).await.map(Answer).map_err(|error| NotTaken::of_message(&error))
    }

    /// Ends the link.
    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

// === impl Answer ===

impl Future for Answer {
    type Output = Result<(), NotTaken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.0).poll(cx);
        polled.map(|taken| taken.map_err(|error| NotTaken::of_message(&error)))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

// === impl NotTaken ===

impl NotTaken {
    /// Whether the link is good for more, after a pause.
    pub(crate) const fn is_mild(&self) -> bool {
        matches!(self.why, Why::Busy | Why::Full)
    }

    fn of_link(error: &LinkError) -> Self {
        let why = match error {
            LinkError::NotFound(_) => Why::NoEntity,
            LinkError::Refused(_) => Why::NotAllowed,
            LinkError::Busy(_) => Why::Busy,
            LinkError::Quota(_) => Why::Full,
            LinkError::Locked(_)
            | LinkError::LockLost(_)
            | LinkError::TimedOut(_)
            | LinkError::Lost(_)
            | LinkError::Other(_) => Why::Lost,
        };
        Self::new(why, error)
    }

    fn of_message(error: &LinkError) -> Self {
        let why = match error {
            LinkError::NotFound(_) => Why::NoEntity,
            LinkError::Refused(_) if error.is_about_the_entity() => Why::NotAllowed,
            LinkError::Refused(_) | LinkError::Other(_) => Why::Refused,
            LinkError::Quota(_) if error.is_too_large() => Why::TooLarge,
            LinkError::Quota(_) => Why::Full,
            LinkError::Busy(_) => Why::Busy,
            LinkError::Locked(_) | LinkError::LockLost(_) | LinkError::TimedOut(_) | LinkError::Lost(_) => {
                Why::Lost
            }
        };
        Self::new(why, error)
    }

    fn new(why: Why, error: &LinkError) -> Self {
        Self { why, text: error.to_string(), after: error.retry_after() }
    }
}

// === impl Why ===

impl Why {
    /// Every reason.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] =
        [Self::Lost, Self::Busy, Self::Full, Self::NoEntity, Self::NotAllowed, Self::TooLarge, Self::Refused];

    /// Its word, as metrics have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::NoEntity => "no-entity",
            Self::NotAllowed => "not-allowed",
            Self::TooLarge => "too-large",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::amqp::Cause;

    fn said(condition: &str) -> Cause {
        Cause { condition: condition.to_owned(), text: "said so".to_owned(), retry_after: None }
    }

    #[test]
    fn what_is_said_of_one_message_is_told_from_what_is_said_of_the_entity() {
        let check = |error: LinkError, link, message| {
            assert_eq!(NotTaken::of_link(&error).why, link, "{error:?}");
            assert_eq!(NotTaken::of_message(&error).why, message, "{error:?}");
        };
        check(LinkError::NotFound(said("amqp:not-found")), Why::NoEntity, Why::NoEntity);
        check(LinkError::Refused(said("amqp:unauthorized-access")), Why::NotAllowed, Why::NotAllowed);
        check(LinkError::Refused(said("com.microsoft:entity-disabled")), Why::NotAllowed, Why::NotAllowed);
        check(LinkError::Refused(said("amqp:not-allowed")), Why::NotAllowed, Why::Refused);
        check(LinkError::Other(said("com.microsoft:argument-error")), Why::Lost, Why::Refused);
        check(LinkError::Quota(said("amqp:resource-limit-exceeded")), Why::Full, Why::Full);
        check(LinkError::Quota(said("amqp:link:message-size-exceeded")), Why::Full, Why::TooLarge);
        check(LinkError::Busy(said("com.microsoft:server-busy")), Why::Busy, Why::Busy);
        check(LinkError::Lost(said("amqp:link:detach-forced")), Why::Lost, Why::Lost);
        check(LinkError::TimedOut(said("com.microsoft:timeout")), Why::Lost, Why::Lost);
    }

    #[test]
    fn what_the_service_said_and_asked_for_is_kept() {
        let busy = NotTaken::of_message(&LinkError::Busy(said("com.microsoft:server-busy")));
        assert_eq!(busy.text, "the service is busy: said so (com.microsoft:server-busy)");
        assert_eq!(busy.after, Some(Duration::from_secs(10)));
    }
}
