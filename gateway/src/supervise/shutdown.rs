//! The phases of a graceful stop.

use tokio::sync::watch;

/// How far a graceful stop has come. Phases follow the data flow, so that what was taken in is
/// finished before the stage behind it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal work.
    Run,
    /// Listeners close: no new connection.
    StopAccepting,
    /// Connections stop reading, wait for what they submitted, write its acks and close.
    FinishPublishes,
    /// The uplink sends what the grace allows and saves its progress.
    DrainUplink,
    /// The outbox closes; the operators' listeners end last.
    Close,
}

/// A view of the phases that any task can wait on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

impl Shutdown {
    pub(super) const fn new(phase: watch::Receiver<Phase>) -> Self {
        Self(phase)
    }

    /// The phase reached so far.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` or a later one is reached; at once if the supervisor is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it holds no state.
    pub async fn reached(&self, phase: Phase) {
        let mut watched = self.0.clone();
        // An error means that the supervisor is gone, which is the end of the last phase.
        drop(watched.wait_for(|current| *current >= phase).await);
    }
}
