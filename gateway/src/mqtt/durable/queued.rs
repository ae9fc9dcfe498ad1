//! Places in the queues of sessions, both ways.

use super::VALUE_VERSION;
use super::wire::Input;

/// The value of [`super::StateKey::Received`]: the key says it all.
pub(in crate::mqtt) const RECEIVED_VALUE: &[u8] = &[VALUE_VERSION];

/// Whether a value is [`RECEIVED_VALUE`], perhaps with more of a later version behind it.
pub(in crate::mqtt) fn is_received(value: &[u8]) -> bool {
    Input::value(value).is_some()
}

/// How far a message has come on its way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Stage {
    /// It waits to be sent, or was sent and waits for PUBACK or PUBREC: a new connection gets it
    /// again, with DUP if it has a packet id.
    Waiting,
    /// QoS 2, PUBREC has come: a new connection gets PUBREL.
    Released,
}

/// A place in the queue to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct QueuedRecord {
    /// The packet id it was sent with; 0 if it was not.
    pub(in crate::mqtt) packet_id: u16,
    /// How far it has come.
    pub(in crate::mqtt) stage: Stage,
    /// Which [`super::StateKey::Message`] it is. There may be none when it is released.
    pub(in crate::mqtt) message: u64,
    /// With which QoS it goes to this client: 1 or 2.
    pub(in crate::mqtt) qos: u8,
    /// Whether it goes with RETAIN.
    pub(in crate::mqtt) retain: bool,
    /// The subscription identifiers that it goes with.
    pub(in crate::mqtt) subscription_ids: Vec<u32>,
}

const QOS: u8 = 0b011;
const RETAIN: u8 = 0b100;
const RELEASED: u8 = 0b1000;

impl QueuedRecord {
    /// Appends the value.
    pub(in crate::mqtt) fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let released = flag(self.stage == Stage::Released, RELEASED);
        out.extend_from_slice(&[VALUE_VERSION, (self.qos & QOS) | flag(self.retain, RETAIN) | released]);
        out.extend_from_slice(&self.packet_id.to_le_bytes());
        out.extend_from_slice(&self.message.to_le_bytes());
        for id in &self.subscription_ids {
            out.extend_from_slice(&id.to_le_bytes());
        }
    }

    /// The place in a value; `None` if it is none of this version.
    pub(in crate::mqtt) fn decode(value: &[u8]) -> Option<Self> {
        let mut input = Input::value(value)?;
        let flags = input.u8()?;
        let qos = flags & QOS;
        if qos > 2 || flags & !(QOS | RETAIN | RELEASED) != 0 {
            return None;
        }
        let (packet_id, message) = (input.u16()?, input.u64()?);
        let mut subscription_ids = Vec::new();
        while !input.is_empty() {
            subscription_ids.push(input.u32()?);
        }
        let stage = if flags & RELEASED == 0 { Stage::Waiting } else { Stage::Released };
        Some(Self { packet_id, stage, message, qos, retain: flags & RETAIN != 0, subscription_ids })
    }
}
