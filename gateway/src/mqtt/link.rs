//! The handle of one connection, through which everything outside its task reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Everything outside a connection's task that can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Signal {
    /// Its keep alive, or another deadline, may have passed.
    Deadline = 1,
    /// Another connection has its client id.
    TakenOver = 2,
    /// The gateway stops.
    Stop = 4,
    /// Something waits to be delivered.
    Delivery = 8,
}

/// The handle of one connection.
#[derive(Debug)]
pub(super) struct Link {
    client: Arc<str>,
    signals: AtomicU8,
    /// Tick at which [`Signal::Deadline`] is due.
    deadline: AtomicU32,
    waker: Mutex<Option<Waker>>,
    /// Set when the connection is over: what it submitted is durable, failed or given up.
    gone: AtomicBool,
    left: Notify,
}

impl Link {
    /// No deadline.
    pub(super) const NEVER: u32 = u32::MAX;

    pub(super) fn new(client: Arc<str>) -> Self {
        Self {
            client,
            signals: AtomicU8::new(0),
            deadline: AtomicU32::new(Self::NEVER),
            waker: Mutex::new(None),
            gone: AtomicBool::new(false),
            left: Notify::new(),
        }
    }

    pub(super) const fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Remembers whom to wake; cheap if it is the same task as before.
    pub(super) fn register(&self, waker: &Waker) {
        let known = &mut *self.waker.lock();
        match known {
            Some(known) => known.clone_from(waker),
            None => *known = Some(waker.clone()),
        }
    }

    /// Raises a signal and wakes the connection, unless it is raised already.
    pub(super) fn raise(&self, signal: Signal) {
        if self.signals.fetch_or(signal as u8, Ordering::AcqRel) & signal as u8 == 0 {
            let waker = self.waker.lock().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The raised signals as bits; lowers them.
    pub(super) fn take_signals(&self) -> u8 {
        if self.signals.load(Ordering::Acquire) == 0 { 0 } else { self.signals.swap(0, Ordering::AcqRel) }
    }

    /// Whether a signal is raised; leaves it raised.
    pub(super) fn is_raised(&self, signal: Signal) -> bool {
        self.signals.load(Ordering::Acquire) & signal as u8 != 0
    }

    /// Sets the tick of the next [`Signal::Deadline`].
    pub(super) fn set_deadline(&self, tick: u32) {
        self.deadline.store(tick, Ordering::Relaxed);
    }

    pub(super) fn deadline(&self) -> u32 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// The connection is over.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
        self.left.notify_waiters();
    }

    /// Waits until the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it holds no state.
    pub(super) async fn gone(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.gone.load(Ordering::Acquire) {
                return;
            }
            left.await;
        }
    }
}
