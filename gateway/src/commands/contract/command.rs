//! A message as a command: what the device gets of it, and how it comes to its end.

use super::about::About;
use super::{id, properties};
use crate::commands::message::{Body, Received};
use crate::mqtt::CommandMessage;
use crate::outbox::rfc3339;
use crate::supervise::clock;

/// A command for a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Command {
    pub(crate) about: About,
    pub(crate) completion: Completion,
    /// The sender's deadline, in Unix milliseconds: for its delivery, and for its answer if there is to be one.
    pub(crate) deadline_ms: Option<u64>,
    /// When the broker lets it expire, in Unix milliseconds.
    pub(crate) expires_ms: Option<u64>,
    content_type: Option<Box<str>>,
    payload: Box<[u8]>,
    user: Vec<(Box<str>, Box<str>)>,
}

/// A message that is no command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Poison {
    pub(crate) about: About,
    /// Why, in a sentence.
    pub(crate) why: Box<str>,
}

/// When a command is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Completion {
    /// With the device's acknowledgement.
    Delivered,
    /// With the device's answer, or without it at the deadline.
    Answered,
}

/// What holds where a message says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults<'a> {
    pub(crate) completion: Completion,
    /// The tenant of the device.
    pub(crate) tenant: Option<&'a str>,
}

/// What is delivered to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnedMessage<'a> {
    command: &'a Command,
    redelivered: bool,
    expiry_seconds: Option<u32>,
}

/// Longest name and content type, in bytes.
const TEXT_BYTES_MAX: usize = 256;

// === impl Command ===

impl Command {
    /// Reads a message of `entity`.
    ///
    /// # Errors
    ///
    /// [`Poison`] when it is no command: it belongs into the dead-letter queue.
    pub(crate) fn read(
        received: &Received,
        entity: &str,
        defaults: &Defaults<'_>,
    ) -> Result<Self, Box<Poison>> {
        let mut about = About::of(received, entity, defaults.tenant);
        // Read in any case: what can be said about a bad message is said.
        let read = properties::read(received, &mut about);
        match read.and_then(|read| check(received, &about).map(|payload| (read, payload))) {
            Err(why) => Err(Box::new(Poison { about, why: why.into() })),
            Ok((read, payload)) => Ok(Self {
                about,
                completion: read.completion.unwrap_or(defaults.completion),
                deadline_ms: read.deadline_ms,
                expires_ms: received.expires_ms,
                content_type: received
                    .content_type
                    .as_deref()
                    .filter(|text| !text.is_empty())
                    .map(Into::into),
                payload: payload.into(),
                user: read.user,
            }),
        }
    }

    /// The body.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The moment after which it is not worth delivering, in Unix milliseconds.
    pub(crate) fn deliver_by_ms(&self) -> Option<u64> {
        [self.deadline_ms, self.expires_ms].into_iter().flatten().min()
    }

    /// Whether it is too late to deliver it. A clock that was never set cannot tell.
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        clock::plausible(now_ms) && self.deliver_by_ms().is_some_and(|by| now_ms >= by)
    }

    /// What the device gets. `redelivered`: it may have got it before.
    pub(crate) fn message(&self, redelivered: bool, now_ms: u64) -> OwnedMessage<'_> {
        let left_ms = self.deliver_by_ms().filter(|_| clock::plausible(now_ms));
        let left_ms = left_ms.map(|by| by.saturating_sub(now_ms));
        let seconds = |ms: u64| u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX);
        OwnedMessage { command: self, redelivered, expiry_seconds: left_ms.map(seconds) }
    }
}

/// The payload of a message that has everything a command needs.
fn check<'a>(received: &'a Received, about: &About) -> Result<&'a [u8], String> {
    if about.device.is_empty() {
        return Err("no session id: which device is it for?".to_owned());
    }
    let level = about.identity.command_id().len();
    if level > id::BYTES_MAX {
        return Err(format!("the message id takes {level} bytes of a topic; at most {}", id::BYTES_MAX));
    }
    for (what, text) in [("subject", &received.subject), ("content type", &received.content_type)] {
        let text = text.as_deref().unwrap_or_default();
        if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
            return Err(format!("a {what} has at most {TEXT_BYTES_MAX} bytes and no control characters"));
        }
    }
    match &received.body {
        Body::Data(bytes) => Ok(bytes),
        Body::Text(text) => Ok(text.as_bytes()),
        Body::Other(kind) => Err(format!("the body is neither bytes nor text but {kind}")),
    }
}

// === impl Completion ===

impl Completion {
    /// Its word, in properties and in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Answered => "answered",
        }
    }

    /// What a word stands for.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Delivered, Self::Answered].into_iter().find(|known| known.word() == word)
    }
}

// === impl OwnedMessage ===

impl OwnedMessage<'_> {
    /// Hands it to somebody, as the front end takes it. The gateway's own properties stand before the sender's.
    pub(crate) fn with<T>(&self, take: impl FnOnce(&CommandMessage<'_>) -> T) -> T {
        let Command { about, completion, deadline_ms, content_type, payload, user: sent, .. } = self.command;
        let deadline = deadline_ms.map(rfc3339);
        let own = [
            ("redelivered", self.redelivered.then_some("true")),
            ("completion", Some(completion.word())),
            ("deadline", deadline.as_deref()),
            ("origin", about.origin.as_deref()),
            ("traceparent", about.traceparent.as_deref()),
            ("tracestate", about.tracestate.as_deref()),
        ];
        let own = own.into_iter().filter_map(|(name, text)| Some((name, text?)));
        let user: Vec<_> = own.chain(sent.iter().map(|(name, value)| (&**name, &**value))).collect();
        take(&CommandMessage {
            id: &about.id,
            name: about.name.as_deref(),
            payload,
            content_type: content_type.as_deref(),
            correlation: about.id.as_bytes(),
            expiry_seconds: self.expiry_seconds,
            user: &user,
        })
    }
}
