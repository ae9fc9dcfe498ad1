//! What a link is told, and what it tells: the two ways between the service and the tasks of its links.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::commands::dispatch::{Ended, EntityNo, LinkNo, Refusal};

/// What a link is to do. A later one in this order is never taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Hold the session without receiving.
    Hold,
    /// Receive and deliver.
    Serve,
    /// Close once the command in hand is settled.
    Finish,
    /// Close at once without settling.
    Close,
    /// The same because the gateway stops.
    Stop,
}

/// Tells one link what to do.
#[derive(Debug)]
pub(crate) struct Control {
    order: AtomicU8,
    changed: Notify,
}

/// What the tasks of links tell. A link has at most a few reports on their way, so links bound the queue.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    queue: Mutex<VecDeque<Report>>,
    arrived: Notify,
}

/// What a link tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) link: LinkNo,
    pub(crate) entity: EntityNo,
    pub(crate) news: News,
    /// What went wrong, in words, for operators.
    pub(crate) error: Option<String>,
}

/// What happened. Devices are named by their keys, which are sessions' ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The session is ours.
    Accepted { device: Arc<str> },
    /// It is not to be had; the link is over.
    Refused { device: Arc<str>, refusal: Refusal },
    /// A receiver that waited for any session got one; it holds it until it is told more.
    Found { session: Arc<str> },
    /// It got none; it is over.
    FoundNone { refusal: Option<Refusal> },
    /// The link worked for its device.
    Touched { device: Arc<str> },
    /// The link is over.
    Ended { device: Arc<str>, why: Ended },
}

// === impl Control ===

impl Control {
    /// A link that begins with `order`.
    pub(crate) fn new(order: Order) -> Self {
        Self { order: AtomicU8::new(order.number()), changed: Notify::new() }
    }

    /// What it is to do now.
    pub(crate) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Hold,
            1 => Order::Serve,
            2 => Order::Finish,
            3 => Order::Close,
            _ => Order::Stop,
        }
    }

    /// Tells it to do something else. What was told later in the order of [`Order`] stays.
    pub(crate) fn tell(&self, order: Order) {
        self.order.fetch_max(order.number(), Ordering::AcqRel);
        // The permit stays until somebody waits: there is one that does.
        self.changed.notify_one();
    }

    /// Waits until it is to do something else than `known`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the order stays.
    pub(crate) async fn other_than(&self, known: Order) -> Order {
        loop {
            let order = self.order();
            if order != known {
                return order;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until it is to close at once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the order stays.
    pub(crate) async fn closed(&self) -> Order {
        loop {
            let order = self.order();
            if order >= Order::Close {
                return order;
            }
            self.changed.notified().await;
        }
    }
}

impl Order {
    const fn number(self) -> u8 {
        match self {
            Self::Hold => 0,
            Self::Serve => 1,
            Self::Finish => 2,
            Self::Close => 3,
            Self::Stop => 4,
        }
    }
}

// === impl Reports ===

impl Reports {
    pub(crate) fn push(&self, report: Report) {
        self.queue.lock().push_back(report);
        self.arrived.notify_one();
    }

    /// The oldest one; waits until there is one. For one caller.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost.
    pub(crate) async fn next(&self) -> Report {
        loop {
            if let Some(report) = self.try_next() {
                return report;
            }
            self.arrived.notified().await;
        }
    }

    /// The oldest one, if there is one.
    pub(crate) fn try_next(&self) -> Option<Report> {
        self.queue.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_that_was_told_to_close_is_not_told_otherwise() {
        let control = Control::new(Order::Hold);
        control.tell(Order::Serve);
        assert_eq!(control.other_than(Order::Hold).await, Order::Serve);
        control.tell(Order::Close);
        control.tell(Order::Serve);
        assert_eq!(control.closed().await, Order::Close);
        control.tell(Order::Stop);
        assert_eq!(control.other_than(Order::Close).await, Order::Stop);
    }
}
