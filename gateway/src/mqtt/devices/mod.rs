//! Commands to devices: which devices take some now, the way there, and their answers.
//!
//! **Enters:** commands, from whoever has some for a device that is *present*, and answers, from devices.
//! **Leaves:** a PUBLISH at QoS 1 to the device and what became of it; answers, to who takes them.
//!
//! A device is present when it is connected and a subscription of its session matches the topic of all
//! its commands at QoS 1 or 2: at QoS 0 nobody would know whether a command arrived. Shared subscriptions
//! do not count. If several clients are one device, the one whose client id is the device's gets the
//! commands, and else the one that came last.
//!
//! A command goes to that one session through its queue: behind what waits there already, under a packet
//! id of the same sequence, within the client's Receive Maximum. It is bound to the connection. Nothing of
//! it is stored with a session that lasts, and when the connection ends, it leaves the queue, however far
//! it was ([`Fate::Gone`]): whoever sent it has it safe, and a device that comes back does not get it from
//! two sides.
//!
//! Nobody publishes to the topic of a command; to the topic of its answer only the device itself. What
//! [`Answers`] puts down for an answer is in one batch with everything else of the same read, so that the
//! acknowledgement of an answer means that what follows from it is durable.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | commands of one session | 16, sent ones without an acknowledgement included | [`NotDelivered::Full`] |
//! | commands on their way | the client's Receive Maximum, `outgoing_inflight_max` | they wait |
//! | a command's packet | `packet_bytes_max`, what the client takes | [`NotDelivered::TooLarge`] |
//! | news of presence | twice `connections_max` | devices that are gone are left out |

mod answers;
mod delivery;
mod presence;
mod topic;

use std::sync::Arc;

pub use self::answers::{Answer, Answers, Durable, Taken};
pub use self::delivery::{CommandMessage, Delivery, Fate, NotDelivered};
pub(super) use self::presence::Presence;
pub(super) use self::topic::AnswerTo;
pub use self::topic::{CommandTopic, CommandTopicError};
use super::codec::Qos;
use super::message::Parts;
use super::metrics::Tally;
use super::session::Session;
use super::shared::Shared;

/// The devices as commands see them. Clones are the same.
///
/// Without a topic of commands in the configuration no device is ever present.
#[derive(Debug, Clone)]
pub struct Devices {
    shared: Arc<Shared>,
}

// === impl Devices ===

impl Devices {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Devices whose presence may have changed since the last call; waits until there is one. A device that
    /// went and came back is among them. For one caller.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost.
    pub async fn changed(&self) -> Vec<Box<str>> {
        self.shared.presence.changed().await
    }

    /// Whether a device would get a command now.
    #[must_use]
    pub fn is_present(&self, device: &str) -> bool {
        self.shared.presence.contains(device)
    }

    /// How many devices are present.
    #[must_use]
    pub fn present(&self) -> usize {
        self.shared.presence.len()
    }

    /// Hands a command to a device. It is sent as soon as what was queued before has been, and the client
    /// takes more.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent; nothing happened then.
    pub fn deliver(&self, device: &str, message: &CommandMessage<'_>) -> Result<Delivery, NotDelivered> {
        let shared = &*self.shared;
        let topic = shared.templates.commands().ok_or(NotDelivered::Absent)?;
        let session = shared.presence.session(device).ok_or(NotDelivered::Absent)?;
        let (link, version) = session.line().ok_or(NotDelivered::Absent)?;
        let topic = topic.of(device, message.id, message.name);
        let properties = message.properties(version, &topic)?;
        let now_ms = shared.now_ms();
        let expires_ms =
            message.expiry_seconds.map(|seconds| now_ms.saturating_add(u64::from(seconds) * 1000));
        let made = shared.message(Parts {
            topic: &topic,
            publisher: "",
            qos: Qos::AtLeastOnce,
            retain: false,
            received_ms: now_ms,
            expires_ms,
            properties: &properties,
            payload: message.payload,
        });
        let bytes_max = shared.limits.packet_bytes_max;
        let (order, told) = session.command(&link, Arc::new(made), bytes_max, now_ms)?;
        shared.metrics.add(&mut Tally::one_delivered());
        Ok(Delivery::new(session, order, told))
    }

    /// Says who takes the answers of devices. Before the listeners run, and once: later ones are not heard.
    pub fn answers(&self, taker: Arc<dyn Answers>) {
        let known = self.shared.answers.set(taker).is_err();
        debug_assert!(!known, "answers have one taker");
    }
}

// === impl Shared ===

impl Shared {
    /// Notes whether a session takes the commands of its device now.
    pub(super) fn note_presence(&self, session: &Arc<Session>) {
        if let Some(topic) = self.templates.commands() {
            self.presence.set(session, session.takes_commands(topic));
        }
    }
}
