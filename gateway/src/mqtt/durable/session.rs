//! Sessions that outlive their connections.

use super::VALUE_VERSION;
use super::message::MessageRecord;
use super::wire::{Input, put_sized};

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct SessionRecord<'a> {
    /// The client id.
    pub(in crate::mqtt) client: &'a str,
    /// The device that the client is.
    pub(in crate::mqtt) device: &'a str,
    /// As whom it logged in, if it had to.
    pub(in crate::mqtt) user: Option<&'a str>,
    /// How long it lasts without a connection, in seconds; `u32::MAX`: for ever.
    pub(in crate::mqtt) expiry_seconds: u32,
    /// When it ends, in Unix milliseconds; `None` while it is connected.
    pub(in crate::mqtt) ends_at_ms: Option<u64>,
    /// In the order in which they were made.
    pub(in crate::mqtt) subscriptions: Vec<SubscriptionRecord<'a>>,
    /// What is published if the client does not come back.
    pub(in crate::mqtt) will: Option<WillRecord<'a>>,
}

/// A subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct SubscriptionRecord<'a> {
    /// As the client gave it, `$share/…` included.
    pub(in crate::mqtt) filter: &'a str,
    /// The most that was granted: 0, 1 or 2.
    pub(in crate::mqtt) qos: u8,
    /// Whether what the client itself publishes is left out.
    pub(in crate::mqtt) no_local: bool,
    /// Whether RETAIN goes along as it was published.
    pub(in crate::mqtt) retain_as_published: bool,
    /// The subscription identifier; 0 if there is none.
    pub(in crate::mqtt) id: u32,
}

/// A will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct WillRecord<'a> {
    /// When it is to be published, in Unix milliseconds; 0 while the client is connected.
    pub(in crate::mqtt) due_ms: u64,
    /// What is to be published.
    pub(in crate::mqtt) message: MessageRecord<'a>,
}

// Flags of a session.
const USER: u8 = 0b001;
const ENDS: u8 = 0b010;
const WILL: u8 = 0b100;
// Flags of a subscription.
const QOS: u8 = 0b0011;
const NO_LOCAL: u8 = 0b0100;
const RETAIN_AS_PUBLISHED: u8 = 0b1000;

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

impl<'a> SessionRecord<'a> {
    /// Appends the value.
    pub(in crate::mqtt) fn encode(&self, out: &mut Vec<u8>) {
        let (user, ends) = (flag(self.user.is_some(), USER), flag(self.ends_at_ms.is_some(), ENDS));
        out.extend_from_slice(&[VALUE_VERSION, user | ends | flag(self.will.is_some(), WILL)]);
        out.extend_from_slice(&self.expiry_seconds.to_le_bytes());
        if let Some(ends) = self.ends_at_ms {
            out.extend_from_slice(&ends.to_le_bytes());
        }
        put_sized(out, self.client.as_bytes());
        put_sized(out, self.device.as_bytes());
        if let Some(user) = self.user {
            put_sized(out, user.as_bytes());
        }
        // A client has at most as many as its limit, which is far below this.
        let count = u32::try_from(self.subscriptions.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        self.subscriptions.iter().for_each(|subscription| subscription.encode(out));
        if let Some(will) = &self.will {
            out.extend_from_slice(&will.due_ms.to_le_bytes());
            will.message.encode_body(out);
        }
    }

    /// The session in a value; `None` if it is none of this version.
    pub(in crate::mqtt) fn decode(value: &'a [u8]) -> Option<Self> {
        let mut input = Input::value(value)?;
        let flags = input.u8()?;
        if flags & !(USER | ENDS | WILL) != 0 {
            return None;
        }
        let expiry_seconds = input.u32()?;
        let ends_at_ms = if flags & ENDS == 0 { None } else { Some(input.u64()?) };
        let (client, device) = (input.text()?, input.text()?);
        let user = if flags & USER == 0 { None } else { Some(input.text()?) };
        // Not taken for its word: junk must not reserve memory.
        let count = input.u32()?;
        let mut subscriptions = Vec::new();
        for _ in 0..count {
            subscriptions.push(SubscriptionRecord::read(&mut input)?);
        }
        let will = if flags & WILL == 0 { None } else { Some(WillRecord::read(&mut input)?) };
        Some(Self { client, device, user, expiry_seconds, ends_at_ms, subscriptions, will })
    }
}

impl<'a> SubscriptionRecord<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let (no_local, as_published) =
            (flag(self.no_local, NO_LOCAL), flag(self.retain_as_published, RETAIN_AS_PUBLISHED));
        out.push((self.qos & QOS) | no_local | as_published);
        out.extend_from_slice(&self.id.to_le_bytes());
        put_sized(out, self.filter.as_bytes());
    }

    fn read(input: &mut Input<'a>) -> Option<Self> {
        let flags = input.u8()?;
        let qos = flags & QOS;
        if qos > 2 || flags & !(QOS | NO_LOCAL | RETAIN_AS_PUBLISHED) != 0 {
            return None;
        }
        let (id, filter) = (input.u32()?, input.text()?);
        let (no_local, retain_as_published) = (flags & NO_LOCAL != 0, flags & RETAIN_AS_PUBLISHED != 0);
        Some(Self { filter, qos, no_local, retain_as_published, id })
    }
}

impl<'a> WillRecord<'a> {
    fn read(input: &mut Input<'a>) -> Option<Self> {
        Some(Self { due_ms: input.u64()?, message: MessageRecord::read(input)? })
    }
}
