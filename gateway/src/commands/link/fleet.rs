//! The devices as links see them, so that tests can do without connections.

use std::future::Future;

use crate::commands::contract::{Command, Poison};
use crate::mqtt::{CommandMessage, Delivery, Devices, Fate, NotDelivered};

/// Devices that take commands. Clones are the same.
pub(crate) trait Fleet: Clone + Send + Sync + 'static {
    /// A command on its way. Dropping it takes it back.
    type Delivery: Future<Output = Fate> + Send + Unpin + 'static;

    /// Devices that may have come or gone since the last call. Cancel safe; for one caller.
    fn changed(&self) -> impl Future<Output = Vec<Box<str>>> + Send;
    /// Whether a device would get a command now.
    fn is_present(&self, device: &str) -> bool;
    /// How many would.
    fn present(&self) -> usize;
    /// Looks at a command before anything is done about it; who is told more than bytes finds out whether it makes sense.
    fn examine(&self, command: Command) -> Result<Command, Box<Poison>> {
        Ok(command)
    }
    /// Hands a command to a device.
    fn deliver(&self, device: &str, message: &CommandMessage<'_>) -> Result<Self::Delivery, NotDelivered>;
}

impl Fleet for Devices {
    type Delivery = Delivery;

    async fn changed(&self) -> Vec<Box<str>> {
        Self::changed(self).await
    }

    fn is_present(&self, device: &str) -> bool {
        Self::is_present(self, device)
    }

    fn present(&self) -> usize {
        Self::present(self)
    }

    fn deliver(&self, device: &str, message: &CommandMessage<'_>) -> Result<Delivery, NotDelivered> {
        Self::deliver(self, device, message)
    }
}
