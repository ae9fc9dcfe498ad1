//! Tasks and threads: who runs, what their end means, and in which order they stop.
//!
//! Every task and thread starts here with a [`TaskKind`], which says what its failure does.
//! Shutdown walks through [`Phase`]s in the direction of the data flow; each stage waits for the
//! phase it ends in, and [`crate::app`] gives each phase a deadline.

pub mod clock;
mod park;
mod shutdown;
mod task_kind;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::sync::{Notify, watch};

pub(crate) use park::wait_for;
pub use shutdown::{Phase, Shutdown};
pub use task_kind::{OnFailure, TaskKind};

type Cause = Box<dyn Error + Send + Sync>;

/// Starts tasks and threads and knows how many of each kind live. Clones share the same state.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    phase: watch::Sender<Phase>,
    live: [AtomicUsize; TaskKind::COUNT],
    ended: Notify,
    failure: watch::Sender<Option<String>>,
}

/// Counts a task out when it ends, however it ends.
struct Guard {
    inner: Arc<Inner>,
    kind: TaskKind,
    finished: bool,
}

pin_project! {
    /// A task and what counts it out. An `async` block that awaits what it captured would keep room for it twice, and some
    /// tasks live by the thousand.
    struct Guarded<F> {
        #[pin]
        future: F,
        guard: Guard,
    }
}

// === impl Supervisor ===

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live: Vec<_> = TaskKind::ALL.iter().map(|kind| (kind.name(), self.live(*kind))).collect();
        f.debug_struct("Supervisor").field("phase", &self.shutdown().phase()).field("live", &live).finish()
    }
}

impl Supervisor {
    /// A supervisor in [`Phase::Run`] with nothing running.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            phase: watch::Sender::new(Phase::Run),
            live: Default::default(),
            ended: Notify::new(),
            failure: watch::Sender::new(None),
        }))
    }

    /// A view of the shutdown phases.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown::new(self.0.phase.subscribe())
    }

    /// Moves on to `phase`; moving back is ignored.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
    }

    /// Starts a task on the current tokio runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts tasks")]
    pub fn spawn<F, E>(&self, kind: TaskKind, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Cause> + 'static,
    {
        drop(tokio::spawn(Guarded { future, guard: self.guard(kind) }));
    }

    /// Starts a thread named after its kind.
    ///
    /// # Errors
    ///
    /// The operating system's refusal to start a thread.
    pub fn spawn_thread<F, E>(&self, kind: TaskKind, body: F) -> io::Result<()>
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Into<Cause>,
    {
        let mut guard = self.guard(kind);
        let builder = std::thread::Builder::new().name(kind.name().to_owned());
        builder.spawn(move || guard.finish(body().map_err(Into::into))).map(drop)
    }

    /// How many tasks and threads of this kind live.
    #[must_use]
    pub fn live(&self, kind: TaskKind) -> usize {
        self.0.live[kind.index()].load(Ordering::Acquire)
    }

    /// Waits until none of this kind lives.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it holds no state.
    pub async fn idle(&self, kind: TaskKind) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.live(kind) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Waits until a task fails whose kind stops the gateway, and says which and why.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the failure stays readable.
    pub async fn failed(&self) -> String {
        let mut failure = self.0.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives in `self`, so it cannot be gone.
            Err(_) => std::future::pending().await,
        }
    }

    fn guard(&self, kind: TaskKind) -> Guard {
        self.0.live[kind.index()].fetch_add(1, Ordering::AcqRel);
        Guard { inner: Arc::clone(&self.0), kind, finished: false }
    }
}

// === impl Guarded ===

impl<F, E> Future for Guarded<F>
where
    F: Future<Output = Result<(), E>>,
    E: Into<Cause>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let ended = ready!(this.future.poll(cx));
        this.guard.finish(ended.map_err(Into::into));
        Poll::Ready(())
    }
}

// === impl Guard ===

impl Guard {
    fn finish(&mut self, result: Result<(), Cause>) {
        self.finished = true;
        if let Err(cause) = result {
            self.report(&chain(cause.as_ref()));
        }
    }

    fn report(&self, reason: &str) {
        let kind = self.kind.name();
        match self.kind.on_failure() {
            OnFailure::Log => tracing::debug!(task = kind, error = reason, "task ended with an error"),
            OnFailure::StopGateway => {
                tracing::error!(task = kind, error = reason, "task failed; the gateway stops");
                self.inner.failure.send_replace(Some(format!("{kind}: {reason}")));
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.finished && std::thread::panicking() {
            tracing::error!(task = self.kind.name(), "task panicked");
            self.report("panicked");
        }
        self.inner.live[self.kind.index()].fetch_sub(1, Ordering::AcqRel);
        self.inner.ended.notify_waiters();
    }
}

/// An error with everything that caused it, in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        text.push_str(": ");
        text.push_str(&current.to_string());
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_stage_stops_the_gateway_and_a_failed_connection_does_not() {
        let supervisor = Supervisor::new();
        supervisor.spawn(TaskKind::Connection, async { Err::<(), _>("peer reset") });
        supervisor.idle(TaskKind::Connection).await;
        assert!(supervisor.0.failure.borrow().is_none());

        supervisor.spawn(TaskKind::Listener, async { Err::<(), _>("address gone") });
        assert_eq!(supervisor.failed().await, "listener: address gone");
    }

    #[tokio::test]
    async fn a_panicking_connection_is_counted_out_and_hurts_nobody() {
        let supervisor = Supervisor::new();
        supervisor.spawn(TaskKind::Connection, async {
            if true {
                panic!("on purpose");
            }
            Ok::<(), io::Error>(())
        });
        supervisor.idle(TaskKind::Connection).await;
        assert_eq!(supervisor.live(TaskKind::Connection), 0);
        assert!(supervisor.0.failure.borrow().is_none());
    }

    #[tokio::test]
    async fn a_panicking_thread_of_a_stage_stops_the_gateway() {
        let supervisor = Supervisor::new();
        supervisor
            .spawn_thread(TaskKind::Committer, || -> io::Result<()> { panic!("on purpose") })
            .expect("threads can be started");
        assert_eq!(supervisor.failed().await, "committer: panicked");
    }

    #[tokio::test]
    async fn phases_only_move_forward() {
        let supervisor = Supervisor::new();
        let shutdown = supervisor.shutdown();
        supervisor.enter(Phase::DrainUplink);
        supervisor.enter(Phase::StopAccepting);
        assert_eq!(shutdown.phase(), Phase::DrainUplink);
        shutdown.reached(Phase::FinishPublishes).await;
    }
}
