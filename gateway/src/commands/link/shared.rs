//! What all links share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use penstock_proto::GatewayId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cloud::Cloud;
use super::control::Reports;
use super::fleet::Fleet;
use super::renewal::Lasting;
use crate::commands::Handle;
use crate::commands::config::Config;
use crate::commands::contract::{Completion, Limits, Records, Voice};
use crate::commands::dispatch::{Entities, EntityNo};
use crate::commands::execution::{Seat, Table, Timing};
use crate::commands::message::Received;
use crate::commands::metrics::{Left, Metrics, lossy};
use crate::commands::replies::Replies;
use crate::outbox::{self, Appender, StateOps, Urgency};
use crate::supervise::{Supervisor, clock};

/// What all links share.
pub(crate) struct Shared<C: Cloud, F: Fleet> {
    pub(crate) cloud: C,
    pub(crate) fleet: F,
    pub(crate) reports: Reports,
    pub(crate) entities: Arc<Entities>,
    pub(crate) table: Table,
    pub(crate) metrics: Metrics,
    pub(crate) replies: Replies<C>,
    pub(super) appender: Appender,
    /// One permit for each command on its way to a device.
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) in_flight_max: usize,
    /// One permit for each KiB of messages in memory.
    memory: Arc<Semaphore>,
    memory_kib: u32,
    /// When a command is done that does not say it itself.
    pub(super) completion: Completion,
    /// Whether the state of sessions tells other gateways of what is done.
    pub(super) replicas: bool,
    /// By entity.
    lasting: Box<[Lasting]>,
    outbox: outbox::Handle,
    handle: Handle,
    /// Commands whose link was lost while their device has them: the next link goes on with them.
    kept: Mutex<HashMap<Arc<str>, Keeping<F::Delivery>>>,
    done: Arc<outbox::Completion>,
}

/// A command that outlives its link.
pub(super) struct Kept<D> {
    pub(super) seat: Seat,
    pub(super) delivery: Option<D>,
    /// What it is counted by while the device has it.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// The same with the memory of its message.
struct Keeping<D> {
    kept: Kept<D>,
    memory: Option<OwnedSemaphorePermit>,
}

/// A message in hand. However its hand ends, it is counted out: settled, or left for a reason.
pub(super) struct Pending<'a> {
    metrics: &'a Metrics,
    handle: &'a Handle,
    /// Why it is left if it is not settled.
    pub(super) reason: Left,
    settled: bool,
}

/// Records in memory and in the store, whatever their age.
const RECORDS_MAX: usize = 1_000_000;

impl<C: Cloud, F: Fleet> Shared<C, F> {
    /// Reads the records of earlier commands. Blocks on the disk.
    pub(crate) fn open(
        config: &Config,
        gateway: &GatewayId,
        outbox: &outbox::Handle,
        cloud: C,
        fleet: F,
        handle: Handle,
        supervisor: &Supervisor,
    ) -> Result<Self, outbox::Error> {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let limits = Limits { kept_ms: ms(config.completed_kept), count_max: RECORDS_MAX };
        let appender = outbox.appender();
        let (mut junk, done) = (StateOps::default(), Arc::default());
        let records = Records::load(&appender.state(), limits, &mut junk)?;
        appender.submit_state(&junk, Urgency::Relaxed, &done);
        let voice = Voice::of(gateway, &config.type_prefix);
        let timing =
            Timing { ack_timeout_ms: ms(config.ack_timeout), answer_timeout_ms: ms(config.answer_timeout) };
        let lasting = config.entities.names().iter().map(|_| Lasting::default()).collect();
        let replies = Replies::new(config, voice.clone(), cloud.clone(), supervisor);
        Ok(Self {
            cloud,
            fleet,
            reports: Reports::default(),
            entities: Arc::new(config.entities.clone()),
            table: Table::new(voice, timing, records),
            metrics: Metrics::new(),
            replies,
            appender,
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            in_flight_max: config.in_flight_max,
            memory: Arc::new(Semaphore::new(config.memory_kib as usize)),
            memory_kib: config.memory_kib,
            completion: config.completion,
            replicas: config.replicas,
            lasting,
            outbox: outbox.clone(),
            handle,
            kept: Mutex::default(),
            done,
        })
    }

    /// What is known of the locks of an entity.
    pub(super) fn lasting(&self, entity: EntityNo) -> &Lasting {
        // Every link is of one of the entities.
        static UNKNOWN: Lasting = Lasting::new();
        self.lasting.get(entity.0).unwrap_or(&UNKNOWN)
    }

    /// A message was received.
    pub(super) fn pending(&self) -> Pending<'_> {
        self.metrics.received.increment(1);
        self.metrics.pending.increment(1.0);
        self.handle.pending().fetch_add(1, Ordering::Relaxed);
        Pending { metrics: &self.metrics, handle: &self.handle, reason: Left::Failed, settled: false }
    }

    /// Room in memory for a message of `device` that came. Without it the message is left at once: its session is
    /// closed, which does not count as a failed delivery, and accepted again after a pause.
    pub(super) fn memory(&self, device: &str, received: &Received) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(received.bytes().div_ceil(1024)).unwrap_or(u32::MAX);
        // One that is larger than all of it passes when nothing else is there.
        let kib = kib.min(self.memory_kib);
        // A command that is kept is nearly always the one that comes again: it must not be in its own way.
        let kept = self.kept.lock().get_mut(device).and_then(|keeping| keeping.memory.take());
        if let Some(memory) = kept
            && memory.num_permits() >= kib as usize
        {
            return Some(memory);
        }
        let room = Arc::clone(&self.memory).try_acquire_many_owned(kib).ok();
        if room.is_none() {
            let mut pending = self.pending();
            pending.reason = Left::NoRoom;
        }
        room
    }

    /// Keeps a command whose link was lost.
    pub(super) fn keep(&self, device: &Arc<str>, kept: Kept<F::Delivery>) {
        self.kept.lock().insert(Arc::clone(device), Keeping { kept, memory: None });
    }

    /// The memory of a message that was in hand when its link ended: it is held as long as its command is kept.
    pub(super) fn keep_memory(&self, device: &str, memory: OwnedSemaphorePermit) {
        if let Some(keeping) = self.kept.lock().get_mut(device) {
            keeping.memory = Some(memory);
        }
    }

    /// Whether something is kept for a device.
    pub(super) fn keeps(&self, device: &str) -> bool {
        self.kept.lock().contains_key(device)
    }

    /// Takes back what [`Self::keep`] got.
    pub(super) fn kept(&self, device: &str) -> Option<Kept<F::Delivery>> {
        self.kept.lock().remove(device).map(|keeping| keeping.kept)
    }

    /// The device is gone, and with it what it had in hand.
    pub(crate) fn forget(&self, device: &str) {
        drop(self.kept(device));
    }

    /// Every second or so: what of the metrics is a picture, not a count.
    pub(crate) fn look(&self) {
        let free = self.in_flight.available_permits();
        self.metrics.in_flight.set(lossy(self.in_flight_max.saturating_sub(free)));
        let kib = (self.memory_kib as usize).saturating_sub(self.memory.available_permits());
        self.metrics.memory.set(lossy(kib * 1024));
    }

    /// Every second or so, off the async workers: settles doubts about what is in the store, and forgets what is old.
    pub(crate) fn keep_house(&self) {
        if let Err(error) = self.table.look(&self.outbox) {
            tracing::debug!(error = crate::supervise::chain(&error), "commands: the store was not read");
        }
        self.table.prune(clock::unix_ms(), |ops| {
            self.appender.submit_state(ops, Urgency::Relaxed, &self.done);
        });
    }
}

impl Pending<'_> {
    /// It was settled; how is counted elsewhere.
    pub(super) const fn settled(&mut self) {
        self.settled = true;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.settled {
            Metrics::left(self.reason);
        }
        self.metrics.pending.decrement(1.0);
        self.handle.pending().fetch_sub(1, Ordering::Relaxed);
    }
}
