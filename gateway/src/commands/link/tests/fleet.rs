//! Devices in memory, which take commands and say what became of them when the test wants it.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::commands::link::Fleet;
use crate::mqtt::{CommandMessage, Fate, NotDelivered};

/// Devices. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryFleet(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    sent: Notify,
}

#[derive(Debug, Default)]
struct State {
    present: BTreeSet<String>,
    news: Vec<Box<str>>,
    sent: VecDeque<Sent>,
    /// Devices whose session is full, and how often one was.
    full: BTreeSet<String>,
    refused: usize,
}

/// A command that a device got.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) device: Box<str>,
    pub(super) id: Box<str>,
    pub(super) redelivered: bool,
    fate: oneshot::Sender<Fate>,
}

/// A command on its way.
#[derive(Debug)]
pub(super) struct MemoryDelivery(oneshot::Receiver<Fate>);

impl MemoryFleet {
    /// A device connects and wants commands.
    pub(super) fn come(&self, device: &str) {
        let mut state = self.0.state.lock();
        state.present.insert(device.to_owned());
        state.news.push(device.into());
        self.0.changed.notify_one();
    }

    /// A device goes.
    pub(super) fn go(&self, device: &str) {
        let mut state = self.0.state.lock();
        state.present.remove(device);
        state.news.push(device.into());
        self.0.changed.notify_one();
    }

    /// A device goes, and that is no news.
    pub(super) fn go_unheard(&self, device: &str) {
        self.0.state.lock().present.remove(device);
    }

    /// The session of a device has no room, or it has again.
    pub(super) fn fill(&self, device: &str, full: bool) {
        let mut state = self.0.state.lock();
        if full {
            state.full.insert(device.to_owned());
        } else {
            state.full.remove(device);
        }
    }

    /// How often a session had no room.
    pub(super) fn refused(&self) -> usize {
        self.0.state.lock().refused
    }

    /// The next command that some device got.
    pub(super) async fn sent(&self) -> Sent {
        loop {
            if let Some(sent) = self.try_sent() {
                return sent;
            }
            self.0.sent.notified().await;
        }
    }

    /// The same if there is one now.
    pub(super) fn try_sent(&self) -> Option<Sent> {
        self.0.state.lock().sent.pop_front()
    }
}

impl Sent {
    /// What becomes of it.
    pub(super) fn end(self, fate: Fate) {
        // The gateway may have let go of it.
        let _gone = self.fate.send(fate);
    }
}

impl Future for MemoryDelivery {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fate> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or(Fate::Gone))
    }
}

impl Fleet for MemoryFleet {
    type Delivery = MemoryDelivery;

    async fn changed(&self) -> Vec<Box<str>> {
        loop {
            let news = std::mem::take(&mut self.0.state.lock().news);
            if !news.is_empty() {
                return news;
            }
            self.0.changed.notified().await;
        }
    }

    fn is_present(&self, device: &str) -> bool {
        self.0.state.lock().present.contains(device)
    }

    fn present(&self) -> usize {
        self.0.state.lock().present.len()
    }

    fn deliver(&self, device: &str, message: &CommandMessage<'_>) -> Result<MemoryDelivery, NotDelivered> {
        let mut state = self.0.state.lock();
        if !state.present.contains(device) {
            return Err(NotDelivered::Absent);
        }
        if state.full.contains(device) {
            state.refused += 1;
            return Err(NotDelivered::Full);
        }
        let (fate, told) = oneshot::channel();
        let redelivered = message.user.contains(&("redelivered", "true"));
        state.sent.push_back(Sent { device: device.into(), id: message.id.into(), redelivered, fate });
        self.0.sent.notify_one();
        Ok(MemoryDelivery(told))
    }
}
