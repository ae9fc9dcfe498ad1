//! Links: what is at their other end, their credit, and what is on its way over them.

pub(crate) mod message;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::amqp::{Attach, ErrorInfo, State, Value};
use crate::servicebus::broker::{LinkId, Outcome, Refusal};

/// Credit given to senders, and topped up when half of it is used.
pub(super) const CREDIT: u32 = 1_000;
/// Largest message in bytes, as on the Premium tier without large messages.
pub(super) const MESSAGE_BYTES_MAX: usize = 1_048_576;
/// A batch and the frame around it may be a little larger than its messages.
pub(super) const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64 * 1024;
/// Answers of `$cbs` and `$management` that wait for credit, per link.
pub(super) const REPLIES_MAX: usize = 1_024;

/// .NET ticks, of a tenth of a microsecond, from the year 1 to 1970.
const TICKS_TO_1970: i64 = 621_355_968_000_000_000;
const TICKS_PER_MS: i64 = 10_000;

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Tokens are put here.
    Cbs,
    /// Requests about an entity.
    Management(String),
    /// A queue, a topic, a subscription or a dead-letter queue.
    Entity(String),
}

impl Node {
    /// Reads an address: a path, or a URI whose scheme and host do not matter.
    pub(super) fn parse(address: &str) -> Self {
        let path = entity_path(address);
        if path.eq_ignore_ascii_case("$cbs") {
            return Self::Cbs;
        }
        match path.rsplit_once('/') {
            Some((entity, last)) if last.eq_ignore_ascii_case("$management") => {
                Self::Management(entity.to_owned())
            }
            _ => Self::Entity(path.to_owned()),
        }
    }

    /// The path that a token must be for, or one above it; none is needed to put tokens.
    pub(super) fn path(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Cbs => None,
            Self::Management(entity) => Some(Cow::Owned(format!("{entity}/$management"))),
            Self::Entity(entity) => Some(Cow::Borrowed(entity)),
        }
    }
}

/// An address without scheme, host and slashes around it.
pub(super) fn entity_path(address: &str) -> &str {
    let path = match address.split_once("://") {
        None => address,
        Some((_scheme, rest)) => rest.split_once('/').map_or("", |(_host, path)| path),
    };
    path.trim_matches('/')
}

/// One link of a session.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) node: Node,
    pub(super) end: LinkEnd,
    /// Our detach is out; theirs is awaited, and all else is ignored.
    pub(super) closing: bool,
}

#[derive(Debug)]
pub(super) enum LinkEnd {
    /// The client sends.
    In(Incoming),
    /// The client receives.
    Out(Outgoing),
}

/// A link that messages come in on.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) credit: u32,
    pub(super) delivery_count: u32,
    /// The message of which some frames are here.
    pub(super) partial: Option<Partial>,
    /// The attach that is held back by order of the control API.
    pub(super) held: Option<Box<Attach>>,
}

#[derive(Debug)]
pub(super) struct Partial {
    pub(super) delivery_id: u32,
    pub(super) format: u32,
    pub(super) settled: bool,
    pub(super) bytes: Vec<u8>,
}

/// A link that messages go out on.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) id: LinkId,
    /// The client's own address for what it receives: requests name it in `reply-to`.
    pub(super) target: Option<String>,
    /// Everything is sent settled: receive and delete.
    pub(super) settled: bool,
    /// The attach that is not answered yet.
    pub(super) held: Option<Box<Attach>>,
    pub(super) credit: u32,
    pub(super) delivery_count: u32,
    pub(super) drain: bool,
    /// It is in the line of links to be served.
    pub(super) queued: bool,
    pub(super) replies: VecDeque<Vec<u8>>,
}

impl Outgoing {
    pub(super) fn new(id: LinkId, attach: &Attach) -> Self {
        Self {
            id,
            target: attach.target.as_ref().and_then(|target| target.address()).map(str::to_owned),
            settled: attach.sender_settles == crate::amqp::SettleMode::SETTLED,
            held: None,
            credit: 0,
            delivery_count: 0,
            drain: false,
            queued: false,
            replies: VecDeque::new(),
        }
    }
}

impl From<Refusal> for ErrorInfo {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.condition, refusal.description)
    }
}

/// What a client's delivery state orders, if it is an outcome.
pub(super) fn outcome(state: Option<&State>) -> Option<Outcome> {
    match state? {
        State::Accepted => Some(Outcome::Accepted),
        State::Released => Some(Outcome::Released),
        &State::Modified { failed, undeliverable } => Some(Outcome::Modified { failed, undeliverable }),
        State::Rejected(error) => {
            let info = error.as_ref().map(|error| error.info.as_slice()).unwrap_or_default();
            let text = |name| crate::amqp::entry(info, name).and_then(Value::text).map(str::to_owned);
            Some(Outcome::Rejected {
                reason: text("DeadLetterReason"),
                description: text("DeadLetterErrorDescription"),
            })
        }
        State::Other => None,
    }
}

/// The same outcome back. Dead-lettering that worked is a rejection without an error.
pub(super) fn echo(outcome: &Outcome) -> State {
    match *outcome {
        Outcome::Accepted => State::Accepted,
        Outcome::Released => State::Released,
        Outcome::Modified { failed, undeliverable } => State::Modified { failed, undeliverable },
        Outcome::Rejected { .. } => State::Rejected(None),
    }
}

/// Unix milliseconds in .NET ticks.
pub(super) fn ticks(unix_ms: u64) -> i64 {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    ms.saturating_mul(TICKS_PER_MS).saturating_add(TICKS_TO_1970)
}
