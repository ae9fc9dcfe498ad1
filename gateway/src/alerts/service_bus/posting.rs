//! A reaction as a message of Service Bus.

use std::time::Duration;

use crate::alerts::burial::Reason;
use crate::alerts::reaction::{Reaction, Target};
use crate::commands::{Outgoing, Value};
use crate::outbox::Record;

/// A command that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Posting {
    /// The device key, by which order is kept.
    pub(super) device: Box<str>,
    /// When it was decided, in Unix milliseconds.
    pub(super) decided_ms: u64,
    /// From then on nobody wants it any more, in Unix milliseconds.
    pub(super) expires_ms: u64,
    /// All but its time to live.
    pub(super) message: Outgoing,
}

/// What an entry of the lane is for one destination.
#[derive(Debug)]
pub(super) enum Letter {
    /// Something for others.
    NotOurs,
    /// A command.
    Posting(Box<Posting>),
    /// A command that is no message of Service Bus, and when nobody wants it any more.
    Unsendable(Reason, u64),
    /// A command that nobody sends, for this reason.
    Nobodys(&'static str),
}

/// Whose a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    Others,
    /// Of no destination in the configuration.
    Nobodys,
}

/// The word for commands that are never sent.
pub(super) const UNSENDABLE: &str = "unsendable";
/// The word for commands to queues that are not in the configuration.
pub(super) const UNLISTED: &str = "unlisted";
/// The word for entries that only say they are reactions.
pub(super) const MALFORMED: &str = "malformed";
/// The telemetry identity that a command answers.
const ORIGIN: &str = "penstock-origin";
const TRACEPARENT: &str = "traceparent";
/// Longest session id and message id, in characters ("Service Bus quotas").
const ID_CHARS_MAX: usize = 128;
/// The shortest time to live there is.
const LIFE_MIN: Duration = Duration::from_millis(1);

// === impl Letter ===

impl Letter {
    /// What an entry of lane alerts is for the destination that `whose` knows by its queue.
    pub(super) fn open(record: &Record<'_>, whose: impl Fn(&str) -> Whose) -> Self {
        let reaction = match Reaction::of(record) {
            None => return Self::NotOurs,
            Some(Err(_)) => return Self::Nobodys(MALFORMED),
            Some(Ok(reaction)) => reaction,
        };
        let Target::ServiceBus { queue, .. } = &reaction.target else { return Self::NotOurs };
        match whose(queue) {
            Whose::Ours => Self::of(reaction),
            Whose::Others => Self::NotOurs,
            Whose::Nobodys => Self::Nobodys(UNLISTED),
        }
    }

    fn of(reaction: Reaction<'_>) -> Self {
        let Target::ServiceBus { payload, subject, content_type, .. } = reaction.target else {
            return Self::NotOurs;
        };
        let device = reaction.device;
        for (what, id) in [("device key", &device), ("id", &reaction.id)] {
            if id.chars().count() > ID_CHARS_MAX {
                let text =
                    format!("its {what} has more than the {ID_CHARS_MAX} characters that an id may have");
                let reason = Reason { name: UNSENDABLE, code: String::new(), text };
                return Self::Unsendable(reason, reaction.expires_ms);
            }
        }
        let properties = [(ORIGIN, reaction.origin), (TRACEPARENT, reaction.traceparent)];
        let properties = properties.into_iter().filter_map(|(name, value)| {
            value.map(|value| (name.to_owned(), Value::Text(value.into_owned())))
        });
        Self::Posting(Box::new(Posting {
            device: device.as_ref().into(),
            decided_ms: reaction.decided_ms,
            expires_ms: reaction.expires_ms,
            message: Outgoing {
                message_id: Some(reaction.id.into_owned()),
                session_id: Some(device.into_owned()),
                subject: Some(subject.unwrap_or(reaction.action).into_owned()),
                content_type: Some(content_type.into_owned()),
                correlation_id: Some(reaction.alert.into_owned()),
                properties: properties.collect(),
                body: payload.into_owned().into_bytes(),
                ..Outgoing::default()
            },
        }))
    }
}

// === impl Posting ===

impl Posting {
    /// The message, sent at `now_ms`: it may wait for as long as somebody wants it.
    pub(super) fn message(&self, now_ms: u64) -> Outgoing {
        let life = Duration::from_millis(self.expires_ms.saturating_sub(now_ms)).max(LIFE_MIN);
        Outgoing { time_to_live: Some(life), ..self.message.clone() }
    }

    /// How much memory it holds, near enough.
    pub(super) fn bytes(&self) -> usize {
        let Outgoing { message_id, session_id, subject, content_type, correlation_id, body, .. } =
            &self.message;
        let texts = [message_id, session_id, subject, content_type, correlation_id];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        size_of::<Self>() + self.device.len() + texts + body.len()
    }

    #[cfg(test)]
    pub(super) fn for_tests(device: &str, id: &str, bytes: usize) -> Self {
        let message =
            Outgoing { message_id: Some(id.to_owned()), body: vec![0; bytes], ..Outgoing::default() };
        Self { device: device.into(), decided_ms: 0, expires_ms: u64::MAX, message }
    }
}
