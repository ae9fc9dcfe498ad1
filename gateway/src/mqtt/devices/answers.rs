//! What devices answer to their commands.

use std::fmt::Debug;
use std::sync::Arc;

use crate::mqtt::codec::PublishProperties;
use crate::outbox::{Encoded, StateOps};

/// A publish of a device to the answer topic of a command: what it says became of it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The device, by the connection that the answer came on.
    pub device: &'a str,
    /// The level of the topic where the command's id stands, as it came.
    pub id: &'a str,
    /// The level where its name stands, if the topic has one.
    pub name: Option<&'a str>,
    /// The whole topic.
    pub topic: &'a str,
    /// What it says; not looked into.
    pub payload: &'a [u8],
    /// The content type that the device gave it; MQTT 5 only.
    pub content_type: Option<&'a str>,
    /// The correlation data that came with it; MQTT 5 only.
    pub correlation: Option<&'a [u8]>,
    /// When it came, in Unix milliseconds by the clock of the gateway.
    pub received_ms: u64,
    pub(in crate::mqtt) properties: PublishProperties<'a>,
}

/// What became of an answer.
#[derive(Debug)]
pub enum Taken {
    /// It belongs to a command that is known. Whoever is named hears when everything is durable that was
    /// put down for it; at once if nothing of this read was.
    Here(Option<Arc<dyn Durable>>),
    /// It cannot be understood: MQTT 5 clients get 0x99, 3.1.1 clients an acknowledgement; it is counted
    /// and not stored.
    Malformed,
    /// It belongs to no command that is known: it is stored in lane status as it came.
    Unknown,
}

/// Takes the answers of devices.
pub trait Answers: Send + Sync + Debug {
    /// Takes one answer, on the device's connection. What it adds to `entries` and `state` is submitted with
    /// everything else of that read and is durable before the device gets its acknowledgement. A few
    /// kilobytes beside the size of the answer are accounted for; more is taken in all the same.
    ///
    /// It must not block. It adds nothing unless it returns [`Taken::Here`].
    fn take(&self, answer: Answer<'_>, entries: &mut Encoded, state: &mut StateOps) -> Taken;
}

/// Waits for what was put down for an answer.
pub trait Durable: Send + Sync + Debug {
    /// Called once. With `true` it is durable; with `false` the commit failed, or the connection ended in a
    /// way that nobody knows. It must not block.
    fn settled(&self, durable: bool);
}

// === impl Answer ===

impl<'a> Answer<'a> {
    /// The user properties that came with it, in order; MQTT 5 only.
    pub fn user(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.properties.user()
    }
}

// === impl Taken ===

impl Taken {
    /// Every value of the label `result`, in order.
    pub(in crate::mqtt) const NAMES: [&str; 3] = ["taken", "malformed", "unknown"];

    /// Its place in [`Self::NAMES`].
    pub(in crate::mqtt) const fn index(&self) -> usize {
        match self {
            Self::Here(_) => 0,
            Self::Malformed => 1,
            Self::Unknown => 2,
        }
    }
}
