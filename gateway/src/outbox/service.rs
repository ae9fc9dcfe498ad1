//! The stage as others see it: opening, the handle, submitting, closing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use penstock_proto::{Epoch, Lane, LogId, Seq};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::completion::{Completion, Ticket};
use super::config::Config;
use super::directory::Directory;
use super::error::{Error, OpenError, Refused};
use super::housekeeping;
use super::metrics::lossy;
use super::reader::Consumer;
use super::record::Encoded;
use super::recovery::{self, ConsumerId, Request};
use super::shared::Shared;
use super::space::{Occasion, Space};
use super::state::{StateOps, StateReader, Urgency};
use super::store::{Engine, RocksEngine};
use super::writer::Writer;
use crate::supervise::{Supervisor, TaskKind, clock};

/// The running outbox: owns the promise to close it. Dropping it leaves the threads at work.
#[derive(Debug)]
pub struct Service(Handle);

/// Access to the outbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

/// Takes entries in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appender(Arc<Shared>);

/// Room for entries, taken before they are read. Gives back what it does not use, also on drop.
#[derive(Debug)]
#[must_use = "room that is reserved and dropped serves nobody"]
pub struct Permit {
    shared: Arc<Shared>,
    bytes: usize,
}

/// The state of the outbox, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The random identity of the directory.
    pub log: LogId,
    /// Counts the openings of the directory.
    pub epoch: Epoch,
    /// One per lane, in order of their numbers.
    pub lanes: [LaneStatus; Lane::COUNT],
    /// Bytes reserved or submitted and not yet durable.
    pub queue_bytes: usize,
    /// Bytes of unconfirmed entries in all lanes.
    pub backlog_bytes: u64,
    /// The quota of unconfirmed entries.
    pub bytes_max: u64,
    /// Why nothing is taken in, if a write failed and the store is not open again yet.
    pub poisoned: Option<String>,
    /// Whether the committer got real-time scheduling.
    pub realtime: bool,
    /// Incidents with missing entries that no operator has acknowledged; up to a second old.
    pub incidents: usize,
    /// Free bytes on the disk, up to a second old; `None` if the file system does not say.
    pub disk_free_bytes: Option<u64>,
}

/// The state of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: Lane,
    /// The position that the next entry gets.
    pub next: Seq,
    /// The first position that some consumer has not confirmed.
    pub low: Seq,
    /// Entries not yet confirmed.
    pub backlog_messages: u64,
    /// Their bytes, uncompressed, counted by whole segments.
    pub backlog_bytes: u64,
    /// When the oldest of them was committed, in Unix milliseconds; up to a second old.
    pub oldest_ms: Option<u64>,
    /// Why nothing is taken in, if so; a queue that is full for a moment does not count.
    pub refusing: Option<Refused>,
}

// === impl Service ===

impl Service {
    /// Opens the log in the configured directory, or creates it, and starts the threads that work
    /// on it. `consumers` hold what they have not confirmed: without one, a lane is never trimmed.
    ///
    /// # Errors
    ///
    /// Whatever makes the directory unusable. In particular it refuses to start when entries that
    /// were acknowledged are missing.
    pub fn open(
        config: Config,
        consumers: &[ConsumerId],
        supervisor: &Supervisor,
    ) -> Result<(Self, Handle), OpenError> {
        Self::open_with(Box::new(RocksEngine), config, consumers, supervisor)
    }

    pub(super) fn open_with(
        engine: Box<dyn Engine>,
        config: Config,
        consumers: &[ConsumerId],
        supervisor: &Supervisor,
    ) -> Result<(Self, Handle), OpenError> {
        let directory = Directory::claim(&config.directory)?;
        let root = config.directory.clone();
        let space = Space::new(engine.disk(directory.root()), &config);
        let started = clock::now();
        let open = || {
            recovery::open(Request {
                directory: &directory,
                engine: engine.as_ref(),
                config: &config,
                consumers,
                published: None,
            })
        };
        let mut recovered = open().or_else(|error| {
            // The ballast is for this: an opening writes, and deletes only afterwards.
            if error.is_no_space() && space.release_ballast() { open() } else { Err(error) }
        })?;
        let took = clock::now().saturating_duration_since(started);
        let shared = Arc::new(Shared::new(config, consumers, space, &mut recovered));
        let writer = Writer::new(Arc::clone(&shared), directory, engine, recovered);
        note_start(&shared, took);
        let failed = |source| OpenError::Io { path: root.clone(), action: "start a thread", source };
        let committer = {
            let shared = Arc::clone(&shared);
            move || {
                ask_for_realtime(&shared);
                writer.run();
                Ok::<(), Error>(())
            }
        };
        supervisor.spawn_thread(TaskKind::Committer, committer).map_err(failed)?;
        let handle = Handle(Arc::clone(&shared));
        let housekeeper = move || {
            housekeeping::run(&shared);
            Ok::<(), Error>(())
        };
        if let Err(source) = supervisor.spawn_thread(TaskKind::Sidecar, housekeeper) {
            handle.0.queue.close();
            return Err(failed(source));
        }
        tracing::info!(log = %handle.log(), epoch = handle.epoch().0, directory = %root.display(), "outbox open");
        Ok((Self(handle.clone()), handle))
    }

    /// As [`Handle::close`].
    #[must_use]
    pub fn close(self, deadline: Instant) -> bool {
        self.0.close(deadline)
    }
}

fn note_start(shared: &Shared, took: Duration) {
    shared.metrics.recovery.set(took.as_secs_f64());
    for lane in Lane::ALL {
        let found = shared.lane(lane).backlog_messages();
        shared.metrics.lane(lane).recovered.set(lossy(found));
    }
    shared.space.look(&shared.gate, &shared.metrics);
    shared.space.keep_ballast(Occasion::Opening);
}

/// On a busy machine the scheduler decides how long a sync takes: a thread that waits for a disk
/// gets the processor back only when its turn comes, unless it goes first.
fn ask_for_realtime(shared: &Shared) {
    const PRIORITY: u8 = 1;
    let granted = shared.config.realtime
        && ThreadPriority::try_from(PRIORITY).is_ok_and(|priority| {
            let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
            set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
        });
    shared.realtime.store(granted, Ordering::Release);
    shared.metrics.realtime.set(if granted { 1.0 } else { 0.0 });
    if shared.config.realtime && !granted {
        tracing::info!(
            "no right to real-time scheduling (CAP_SYS_NICE or LimitRTPRIO=1): commits compete for the processor"
        );
    }
}

// === impl Handle ===

impl Handle {
    /// Something to append with.
    #[must_use]
    pub fn appender(&self) -> Appender {
        Appender(Arc::clone(&self.0))
    }

    /// The consumer `name` of `lane`.
    ///
    /// # Errors
    ///
    /// When it is not among those that [`Service::open`] was given, or is in use.
    pub fn consumer(&self, name: &str, lane: Lane) -> Result<Consumer, Error> {
        Consumer::claim(&self.0, name, lane)
    }

    /// Blocks until the commit counter differs from `seen`, at most for `timeout`, and returns it.
    /// Read the counter before looking for segments, and nothing is missed.
    #[must_use]
    pub fn wait_commit(&self, seen: u64, timeout: Duration) -> u64 {
        self.0.commits.wait(seen, clock::now().checked_add(timeout))
    }

    /// The same for a consumer of one lane, which sleeps through commits without entries of it. What concerns every
    /// lane, such as a request to let go of the oldest, wakes it too. Its counter is another than that of
    /// [`Self::wait_commit`].
    #[must_use]
    pub fn wait_commit_in(&self, lane: Lane, seen: u64, timeout: Duration) -> u64 {
        self.0.commits.wait_in(lane, seen, clock::now().checked_add(timeout))
    }

    /// Lets [`Self::wait_commit`] and [`Self::wait_commit_in`] return.
    pub fn wake(&self) {
        self.0.commits.wake();
    }

    /// The state, without touching the disk.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.0;
        let lanes = Lane::ALL.map(|lane| {
            let view = shared.lane(lane);
            LaneStatus {
                lane,
                next: view.next(),
                low: view.low(),
                backlog_messages: view.backlog_messages(),
                backlog_bytes: view.backlog_bytes(),
                oldest_ms: view.oldest_ms(),
                refusing: shared.gate.refusing(lane),
            }
        });
        Status {
            log: shared.log,
            epoch: shared.epoch(),
            lanes,
            queue_bytes: shared.gate.queue_bytes(),
            backlog_bytes: shared.gate.backlog_bytes(),
            bytes_max: shared.config.bytes_max,
            poisoned: shared.poisoned.lock().clone(),
            realtime: shared.realtime.load(Ordering::Acquire),
            incidents: shared.incidents.load(Ordering::Acquire),
            disk_free_bytes: shared.space.free(),
        }
    }

    /// The random identity of the directory.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.0.log
    }

    /// Counts the openings of the directory; grows when a failed store is opened again.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    /// Takes nothing in from now on, commits what was submitted, makes the consumers' progress
    /// durable and closes the store. Blocks until then or until `deadline`; returns whether it is
    /// closed. Calling it again is harmless.
    #[must_use]
    pub fn close(&self, deadline: Instant) -> bool {
        self.0.gate.set_state(super::gate::State::Closed);
        self.0.queue.close();
        self.0.ended.wait(deadline)
    }

    /// Fails what was submitted and is not being committed yet, as a failed write does.
    #[cfg(test)]
    pub(crate) fn fail_waiting(&self) {
        let mut waiting = super::arena::Arena::default();
        self.0.queue.set_mode(super::arena::Mode::Poisoned, &mut waiting);
        waiting.submissions().for_each(|submission| submission.done.fail());
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

// === impl Appender ===

impl Appender {
    /// Takes room for `bytes` encoded bytes, an upper bound of what the caller is about to read.
    ///
    /// # Errors
    ///
    /// Why nothing can be taken in now. Wait with [`Self::room`], and do not read meanwhile.
    pub fn reserve(&self, lane: Lane, bytes: usize) -> Result<Permit, Refused> {
        match self.0.gate.reserve(lane, bytes) {
            Ok(()) => Ok(Permit { shared: Arc::clone(&self.0), bytes }),
            Err(reason) => {
                self.0.metrics.refused(reason);
                Err(reason)
            }
        }
    }

    /// Waits until [`Self::reserve`] may succeed for `lane`, or the outbox is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it holds nothing but its place among the waiters.
    pub async fn room(&self, lane: Lane) {
        self.0.gate.room(lane).await;
    }

    /// Submits entries, and changes of state that go with them: one batch, all or nothing. Positions
    /// follow the order of submissions, and so do changes of one key. The ticket becomes durable
    /// or fails on `done`. More than `permit` has room for is taken in and counted all the same.
    /// With neither, nothing happens and the ticket is the default, which counts as durable.
    ///
    /// After a failure nobody knows whether the changes of state are there: whoever goes on writes
    /// them again, or reads what is there with [`Self::state`].
    pub fn submit(
        &self,
        permit: Permit,
        entries: &Encoded,
        state: &StateOps,
        done: &Arc<Completion>,
    ) -> Ticket {
        let mut permit = permit;
        if entries.is_empty() && state.is_empty() {
            return Ticket::default();
        }
        let reserved = std::mem::take(&mut permit.bytes);
        self.submit_counted(reserved, entries, state, Urgency::Prompt, done)
    }

    /// Submits changes of state alone, without a permit and beyond the quota: the caller bounds
    /// them. They count to the queue's bytes, so that reading slows. The ticket becomes durable or
    /// fails on `done`; that of a [`Urgency::Relaxed`] one as soon as it is written, which may be
    /// before a sync. Tickets of one completion are consecutive over both ways to submit.
    pub fn submit_state(&self, state: &StateOps, urgency: Urgency, done: &Arc<Completion>) -> Ticket {
        if state.is_empty() {
            return Ticket::default();
        }
        self.submit_counted(0, &Encoded::default(), state, urgency, done)
    }

    /// Something to read committed state with.
    #[must_use]
    pub fn state(&self) -> StateReader {
        StateReader::new(Arc::clone(&self.0))
    }

    fn submit_counted(
        &self,
        reserved: usize,
        entries: &Encoded,
        state: &StateOps,
        urgency: Urgency,
        done: &Arc<Completion>,
    ) -> Ticket {
        let used = entries.bytes() + state.bytes();
        // Counted before the entries are visible to the committer, which counts them out.
        self.0.gate.settle(reserved, used);
        let (taken, ticket) = self.0.queue.submit(entries, state, urgency, done);
        if !taken {
            self.0.gate.release(used);
        }
        ticket
    }
}

// === impl Permit ===

impl Permit {
    /// How many bytes it has room for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shared.gate.release(self.bytes);
        }
    }
}
