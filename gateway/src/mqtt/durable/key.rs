//! The keys: one per thing that has to survive, big-endian so that they sort as their numbers do.

use super::wire::Input;

/// A key of the front end's state. A byte once used for a kind is never used for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) enum StateKey {
    /// `1, session` → [`super::SessionRecord`]. From the session's beginning to its end.
    Session(u64),
    /// `2, session, packet id` → [`super::RECEIVED_VALUE`]. A QoS 2 publish of the client that was
    /// received and not released: put with its entry, deleted with its PUBREL.
    Received(u64, u16),
    /// `3, session, order` → [`super::QueuedRecord`]. On its way to the client: from the publish to
    /// its last acknowledgement.
    Queued(u64, u64),
    /// `4, message` → [`super::MessageRecord`]. As long as a queue refers to it.
    Message(u64),
    /// `5, topic` → [`super::MessageRecord`]. The retained message of a topic.
    Retained(String),
}

const SESSION: u8 = 1;
const RECEIVED: u8 = 2;
const QUEUED: u8 = 3;
const MESSAGE: u8 = 4;
const RETAINED: u8 = 5;

impl StateKey {
    /// First bytes of the keys, in order. Other stages keep other kinds in the same family.
    pub(in crate::mqtt) const KINDS: [u8; 5] = [SESSION, RECEIVED, QUEUED, MESSAGE, RETAINED];

    /// Prefix of what a session has received and not released.
    pub(in crate::mqtt) fn received_of(session: u64) -> [u8; 9] {
        with_number(RECEIVED, session)
    }

    /// The key's bytes.
    pub(in crate::mqtt) fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(17);
        self.encode_to(&mut key);
        key
    }

    /// Appends the key's bytes.
    pub(in crate::mqtt) fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Session(session) => out.extend_from_slice(&with_number(SESSION, *session)),
            Self::Received(session, id) => {
                out.extend_from_slice(&with_number(RECEIVED, *session));
                out.extend_from_slice(&id.to_be_bytes());
            }
            Self::Queued(session, order) => {
                out.extend_from_slice(&with_number(QUEUED, *session));
                out.extend_from_slice(&order.to_be_bytes());
            }
            Self::Message(message) => out.extend_from_slice(&with_number(MESSAGE, *message)),
            Self::Retained(topic) => {
                out.push(RETAINED);
                out.extend_from_slice(topic.as_bytes());
            }
        }
    }

    /// The key that these bytes are; `None` if they are none of this version.
    pub(in crate::mqtt) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        let key = match input.u8()? {
            SESSION => Self::Session(input.be_u64()?),
            RECEIVED => Self::Received(input.be_u64()?, input.be_u16()?),
            QUEUED => Self::Queued(input.be_u64()?, input.be_u64()?),
            MESSAGE => Self::Message(input.be_u64()?),
            RETAINED => return std::str::from_utf8(input.rest()).ok().map(str::to_owned).map(Self::Retained),
            _ => return None,
        };
        input.is_empty().then_some(key)
    }
}

fn with_number(kind: u8, number: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [kind, a, b, c, d, e, f, g, h]
}
