//! One command on its way to a device, and what became of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::topic::CommandTopic;
use crate::mqtt::codec::{OwnProperties, Version};
use crate::mqtt::session::Session;

/// A command as a device gets it. MQTT 5 clients get all of it; 3.1.1 clients the topic, which has the id
/// and perhaps the name, and the payload.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommandMessage<'a> {
    /// Stands in the topic, one level, and as user property `command-id`. What a level cannot hold is
    /// escaped with `%` in the topic.
    pub id: &'a str,
    /// Stands in the topic if that has a place for it, escaped, and as user property `name`.
    pub name: Option<&'a str>,
    /// The body.
    pub payload: &'a [u8],
    /// The content type of the body.
    pub content_type: Option<&'a str>,
    /// The correlation data, which the device sends back with its answer; left out if empty.
    pub correlation: &'a [u8],
    /// How long it is worth delivering from now on, in seconds.
    pub expiry_seconds: Option<u32>,
    /// User properties, behind those two.
    pub user: &'a [(&'a str, &'a str)],
}

/// A command that was handed to a device's session; a future of its [`Fate`].
///
/// Dropping it takes the command back if it is not sent yet. If it is, its acknowledgement comes to
/// nothing.
///
/// # Cancel safety
///
/// Polling it again goes on where it was; what it was ready with it says again.
#[must_use = "dropping it takes the command back"]
#[derive(Debug)]
pub struct Delivery {
    session: Arc<Session>,
    order: u64,
    told: oneshot::Receiver<Fate>,
    fate: Option<Fate>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The device acknowledged it.
    Acknowledged,
    /// The device refused it with this reason of PUBACK, 0x80 or above; MQTT 5 only.
    Refused {
        /// The reason code.
        reason: u8,
    },
    /// Its lifetime ended before it could be sent.
    Expired,
    /// The connection ended before the acknowledgement; whether the device has it is not known. Nothing
    /// of it is kept, and it is not sent again.
    Gone,
}

/// Why a command is not handed to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDelivered {
    /// The device is not connected, or does not subscribe to its commands.
    #[error("the device is not there")]
    Absent,
    /// The packet, or a field of it, is larger than the device, the gateway or MQTT allows.
    #[error("{bytes} bytes, where at most {most} can be sent")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        most: usize,
    },
    /// The session holds as many commands as it may.
    #[error("too many commands wait for the device")]
    Full,
}

/// Longest field of a packet, in bytes.
const FIELD_BYTES_MAX: usize = u16::MAX as usize;

// === impl CommandMessage ===

impl CommandMessage<'_> {
    /// The properties as they stand in a packet of this version.
    pub(super) fn properties(&self, version: Version, topic: &str) -> Result<Vec<u8>, NotDelivered> {
        let mut out = Vec::new();
        if topic.len() > FIELD_BYTES_MAX {
            return Err(NotDelivered::TooLarge { bytes: topic.len(), most: FIELD_BYTES_MAX });
        }
        if version == Version::V3 {
            return Ok(out);
        }
        let response_topic = CommandTopic::answer_to(topic);
        let named = self.name.map(|name| ("name", name));
        let user = [("command-id", self.id)].into_iter().chain(named).chain(self.user.iter().copied());
        let properties = OwnProperties {
            content_type: self.content_type,
            response_topic: Some(&response_topic),
            correlation_data: self.correlation,
        };
        properties
            .encode(user, &mut out)
            .map_err(|bytes| NotDelivered::TooLarge { bytes, most: FIELD_BYTES_MAX })?;
        Ok(out)
    }
}

// === impl Delivery ===

impl Delivery {
    pub(super) const fn new(session: Arc<Session>, order: u64, told: oneshot::Receiver<Fate>) -> Self {
        Self { session, order, told, fate: None }
    }
}

impl Future for Delivery {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fate> {
        if let Some(fate) = self.fate {
            return Poll::Ready(fate);
        }
        // The session tells what becomes of each; were it not to, nobody would know.
        let fate = ready!(Pin::new(&mut self.told).poll(cx)).unwrap_or(Fate::Gone);
        self.fate = Some(fate);
        Poll::Ready(fate)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.fate.is_none() {
            self.session.withdraw(self.order);
        }
    }
}
