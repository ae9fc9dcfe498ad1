//! The devices, and the gateway itself as one of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use super::operation::Operation;
use crate::commands::contract::{Command, Completion, Poison};
use crate::commands::link::Fleet;
use crate::mqtt::{CommandMessage, Fate, NotDelivered};

/// Who takes commands. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Everybody<F> {
    devices: F,
    own: Option<Own>,
}

/// The gateway as one who takes commands. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    session: Arc<str>,
    announced: Arc<AtomicBool>,
    orders: mpsc::Sender<Order>,
}

/// A command on its way to whom it is for.
#[derive(Debug)]
pub(crate) enum Sent<D> {
    /// To a device.
    Device(D),
    /// To the gateway itself.
    Own(oneshot::Receiver<Fate>),
}

/// A command for the gateway.
#[derive(Debug)]
pub(crate) struct Order {
    /// The command id, as its answer names it.
    pub(super) id: Box<str>,
    pub(super) operation: Operation,
    /// Told when it is done; closed when nobody waits for it any more.
    pub(super) fate: oneshot::Sender<Fate>,
}

/// Orders on their way: there is one command at a time, and one that was withdrawn may still lie before it.
const ORDERS_MAX: usize = 4;

// === impl Own ===

impl Own {
    /// The gateway under this session id, which no device can have, and where its commands come out.
    pub(crate) fn new(session: &str) -> (Self, mpsc::Receiver<Order>) {
        let (orders, arriving) = mpsc::channel(ORDERS_MAX);
        (Self { session: session.into(), announced: Arc::default(), orders }, arriving)
    }

    pub(super) fn session(&self) -> &Arc<str> {
        &self.session
    }

    fn deliver(&self, message: &CommandMessage<'_>) -> Result<oneshot::Receiver<Fate>, NotDelivered> {
        // Looked at before: see `examine`.
        let operation = Operation::parse(message.name, message.payload).map_err(|_| NotDelivered::Absent)?;
        let (fate, told) = oneshot::channel();
        let order = Order { id: message.id.into(), operation, fate };
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotDelivered::Full,
            mpsc::error::TrySendError::Closed(_) => NotDelivered::Absent,
        })?;
        Ok(told)
    }
}

// === impl Everybody ===

impl<F> Everybody<F> {
    /// `devices`, and the gateway if it takes commands.
    pub(crate) const fn new(devices: F, own: Option<Own>) -> Self {
        Self { devices, own }
    }

    fn own(&self, device: &str) -> Option<&Own> {
        self.own.as_ref().filter(|own| *own.session == *device)
    }
}

impl<F: Fleet> Fleet for Everybody<F> {
    type Delivery = Sent<F::Delivery>;

    async fn changed(&self) -> Vec<Box<str>> {
        if let Some(own) = &self.own
            && !own.announced.swap(true, Ordering::AcqRel)
        {
            return vec![(&*own.session).into()];
        }
        self.devices.changed().await
    }

    fn is_present(&self, device: &str) -> bool {
        self.own(device).is_some() || self.devices.is_present(device)
    }

    fn present(&self) -> usize {
        self.devices.present()
    }

    fn examine(&self, mut command: Command) -> Result<Command, Box<Poison>> {
        if self.own(&command.about.device).is_none() {
            return self.devices.examine(command);
        }
        match Operation::parse(command.about.name.as_deref(), command.payload()) {
            Ok(_) => {
                // The gateway always says what came of it.
                command.completion = Completion::Answered;
                Ok(command)
            }
            Err(why) => Err(Box::new(Poison { about: command.about, why: why.into() })),
        }
    }

    fn deliver(&self, device: &str, message: &CommandMessage<'_>) -> Result<Self::Delivery, NotDelivered> {
        match self.own(device) {
            Some(own) => own.deliver(message).map(Sent::Own),
            None => self.devices.deliver(device, message).map(Sent::Device),
        }
    }
}

impl<D: Future<Output = Fate> + Unpin> Future for Sent<D> {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fate> {
        match &mut *self {
            Self::Device(delivery) => Pin::new(delivery).poll(cx),
            Self::Own(told) => Pin::new(told).poll(cx).map(|told| told.unwrap_or(Fate::Gone)),
        }
    }
}
