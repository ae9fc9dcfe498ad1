//! The executions of all devices: where a link's task and the device's own connection meet.
//!
//! A task that drives a device holds its [`Seat`]; an answer that comes in between finds the same execution here, or the
//! record of the command if nobody drives the device now. An execution is kept while somebody has to do with it; what is
//! to outlive that is in the device's record.
//!
//! Locks: that of an execution is taken before that of the table, never the other way round.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Arrival, Batch, Event, Execution, Heard, Heeding, News, Now, Standing, Step, Timing};
use crate::commands::contract::{Identity, Letter, Record, Records, Status, Voice};
use crate::commands::metrics::Metrics;
use crate::mqtt::{self, Taken};
use crate::outbox::{self, Encoded, Error, StateOps};

/// The executions of all devices. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Table(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    voice: Voice,
    timing: Timing,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    records: Records,
    active: HashMap<Box<str>, Active>,
}

/// An entry, and how many holds there are on it.
#[derive(Debug)]
struct Active {
    entry: Arc<Entry>,
    holds: usize,
}

/// One device with something in flight, or a task that drives it.
#[derive(Debug)]
struct Entry {
    device: Box<str>,
    execution: Mutex<Execution>,
    /// Whether a task drives it; changed under the table's lock.
    driven: AtomicBool,
    /// Tells the driver that somebody else moved the execution.
    moved: Notify,
}

/// The right to drive one device. There is one at a time.
#[derive(Debug)]
pub(crate) struct Seat(Hold);

/// Keeps an execution in the table.
#[derive(Debug)]
struct Hold {
    table: Table,
    entry: Arc<Entry>,
    drives: bool,
}

/// Waits for what was put down for an answer.
#[derive(Debug)]
struct Pending {
    hold: Hold,
    told: Mutex<bool>,
}

// === impl Table ===

impl Table {
    /// A table over what is remembered.
    pub(crate) fn new(voice: Voice, timing: Timing, records: Records) -> Self {
        let known = Mutex::new(Known { records, active: HashMap::new() });
        Self(Arc::new(Shared { voice, timing, known }))
    }

    /// The seat of a device; `None` while somebody else has it.
    pub(crate) fn seat(&self, device: &str) -> Option<Seat> {
        let mut known = self.0.known.lock();
        let entry = self.entry(&mut known, device);
        // Who did not get it gives the hold back, which locks the table.
        let drives = !entry.driven.swap(true, Ordering::AcqRel);
        drop(known);
        let hold = Hold { table: self.clone(), entry, drives };
        drives.then(|| Seat(hold))
    }

    /// The record of a device.
    pub(crate) fn record(&self, device: &str) -> Option<Record> {
        self.0.known.lock().records.get(device)
    }

    /// How a command stands whose message is in the dead-letter queue.
    pub(crate) fn standing(&self, letter: &Letter, now_ms: u64) -> Standing {
        let (device, identity) = (&*letter.about.device, &letter.about.identity);
        let (entry, record, in_doubt) = {
            let known = self.0.known.lock();
            let entry = known.active.get(device).map(|active| Arc::clone(&active.entry));
            (entry, known.records.get(device), known.records.is_in_doubt(device))
        };
        let idle = Execution::new(self.0.timing);
        let standing =
            |execution: &Execution| execution.standing(identity, record.as_ref(), in_doubt, now_ms);
        entry.map_or_else(|| standing(&idle), |entry| standing(&entry.execution.lock()))
    }

    /// Puts down the end of a command that is [`Standing::Left`], unless that has changed or somebody drives its
    /// device now. `submit` hands it to the outbox and does nothing else; when the write is durable, or has failed, the
    /// seat is due [`Event::Committed`].
    pub(crate) fn bury<T>(
        &self,
        letter: &Letter,
        now_ms: u64,
        submit: impl FnOnce(&Encoded, &mut StateOps) -> T,
    ) -> Option<(Seat, Status, T)> {
        let device = &*letter.about.device;
        let seat = self.seat(device)?;
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let mut batch = Batch { voice: &self.0.voice, entries: &mut entries, state: &mut state };
        let mut execution = seat.0.entry.execution.lock();
        let (known, in_doubt) = {
            let known = self.0.known.lock();
            (known.records.get(device), known.records.is_in_doubt(device))
        };
        let standing = execution.standing(&letter.about.identity, known.as_ref(), in_doubt, now_ms);
        let known = known.filter(|_| standing == Standing::Left)?;
        let outcome = execution.bury(letter, &known, &mut batch, now_ms);
        let submitted = submit(&entries, &mut state);
        drop(execution);
        Some((seat, outcome.status, submitted))
    }

    /// How many devices have a task that drives them, or a write on its way.
    #[cfg(test)]
    pub(crate) fn active(&self) -> usize {
        self.0.known.lock().active.len()
    }

    /// How many devices are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.0.known.lock().records.len()
    }

    /// Forgets what is old, some of it at each call. `submit` hands what is put down to the outbox, and nothing else:
    /// the table is locked meanwhile, so that no device begins a command between the decision and the write.
    pub(crate) fn prune(&self, now_ms: u64, submit: impl FnOnce(&StateOps)) {
        let mut ops = StateOps::default();
        let mut known = self.0.known.lock();
        let Known { records, active } = &mut *known;
        records.prune(now_ms, |device| active.contains_key(device), &mut ops);
        if !ops.is_empty() {
            submit(&ops);
        }
    }

    /// Looks into the store for every device of which a write failed. Nothing is in doubt nearly always, and then this
    /// costs a lock; else it blocks on the disk. To be called every second or so, off the async workers.
    ///
    /// # Errors
    ///
    /// When the store cannot be read; what was not looked at is in doubt until the next call.
    pub(crate) fn look(&self, outbox: &outbox::Handle) -> Result<(), Error> {
        let doubts = self.0.known.lock().records.doubts();
        // While the store is poisoned what it shows is from before it was opened again.
        if doubts.is_empty() || outbox.status().poisoned.is_some() {
            return Ok(());
        }
        let reader = outbox.appender().state();
        doubts.iter().try_for_each(|device| self.look_at(device, || Records::read(&reader, device)))
    }

    pub(super) fn look_at(
        &self,
        device: &str,
        read: impl FnOnce() -> Result<Option<Record>, Error>,
    ) -> Result<(), Error> {
        let hold = self.hold(device);
        // Locked while the store is read: nothing is submitted in between.
        let mut execution = hold.entry.execution.lock();
        if execution.is_writing() {
            return Ok(());
        }
        let found = read()?;
        self.0.known.lock().records.resolve(device, found.as_ref());
        tell(&mut execution, Event::Looked(found), Now::from(0));
        drop(execution);
        hold.entry.moved.notify_one();
        Ok(())
    }

    fn hold(&self, device: &str) -> Hold {
        let entry = self.entry(&mut self.0.known.lock(), device);
        Hold { table: self.clone(), entry, drives: false }
    }

    /// The entry of a device; whoever gets it makes a [`Hold`] of it.
    fn entry(&self, known: &mut Known, device: &str) -> Arc<Entry> {
        if let Some(active) = known.active.get_mut(device) {
            active.holds += 1;
            return Arc::clone(&active.entry);
        }
        let execution = Mutex::new(Execution::new(self.0.timing));
        let (driven, moved) = (AtomicBool::new(false), Notify::new());
        let entry = Arc::new(Entry { device: device.into(), execution, driven, moved });
        known.active.insert(device.into(), Active { entry: Arc::clone(&entry), holds: 1 });
        entry
    }
}

impl mqtt::Answers for Table {
    fn take(&self, answer: mqtt::Answer<'_>, entries: &mut Encoded, state: &mut StateOps) -> Taken {
        let said = Said { id: answer.id, payload: answer.payload, now_ms: answer.received_ms };
        self.heed(answer.device, said, entries, state)
    }
}

/// What a device said about a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) id: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) now_ms: u64,
}

impl Table {
    /// Takes what a device, or the gateway in its own session, said. What follows from it is put down, and belongs into
    /// one submission.
    pub(crate) fn heed(
        &self,
        device: &str,
        said: Said<'_>,
        entries: &mut Encoded,
        state: &mut StateOps,
    ) -> Taken {
        let (hold, record, in_doubt) = {
            let mut known = self.0.known.lock();
            let record = known.records.get(device);
            if record.is_none() && !known.active.contains_key(device) {
                return Taken::Unknown;
            }
            let in_doubt = known.records.is_in_doubt(device);
            let entry = self.entry(&mut known, device);
            (Hold { table: self.clone(), entry, drives: false }, record, in_doubt)
        };
        let Said { id, payload, now_ms } = said;
        let heeding = Heeding { device, id, payload, known: record.as_ref(), in_doubt };
        let mut batch = Batch { voice: &self.0.voice, entries, state };
        let heard = hold.entry.execution.lock().answer(&heeding, &mut batch, now_ms);
        match heard {
            Heard::Written => {
                hold.entry.moved.notify_one();
                Taken::Here(Some(Arc::new(Pending { hold, told: Mutex::new(false) })))
            }
            Heard::Repeated => Taken::Here(None),
            Heard::Malformed => Taken::Malformed,
            Heard::Unknown => Taken::Unknown,
        }
    }
}

// === impl Seat ===

impl Seat {
    /// The device.
    pub(crate) fn device(&self) -> &str {
        &self.0.entry.device
    }

    /// A message came over the link; `remote` is what another replica left in the session's state.
    pub(crate) fn received(&self, mut arrival: Arrival, remote: Option<Record>, now: impl Into<Now>) {
        if let Err(poison) = &mut arrival.message
            && *poison.about.device != *self.device()
        {
            // One that cannot be decoded does not say whose it is; the session that it came over does.
            Arc::make_mut(poison).about.device = self.device().into();
        }
        let mut execution = self.0.entry.execution.lock();
        let (known, in_doubt) = {
            let known = self.0.table.0.known.lock();
            (known.records.get(self.device()), known.records.is_in_doubt(self.device()))
        };
        let about = match &arrival.message {
            Ok(command) => &command.about,
            Err(poison) => &poison.about,
        };
        // What is done elsewhere is done.
        let remote = remote.filter(|record| record.identity == about.identity);
        execution.on(Event::Received { known: remote.or(known), arrival, in_doubt }, now);
    }

    /// Something else happened.
    pub(crate) fn on(&self, event: Event, now: impl Into<Now>) {
        self.0.on(event, now.into());
    }

    /// What is to be done next.
    pub(crate) fn step(&self, now: impl Into<Now>) -> Step {
        self.0.entry.execution.lock().step(now)
    }

    /// Puts down what [`Step::Commit`] asked for and hands it to `submit`, which submits it to the outbox and does
    /// nothing else: the execution is locked meanwhile. `None` if there is nothing to write any more. When the write is
    /// durable, or has failed, [`Event::Committed`] is due.
    pub(crate) fn commit<T>(&self, now_ms: u64, submit: impl FnOnce(&Encoded, &StateOps) -> T) -> Option<T> {
        let (mut entries, mut state) = (Encoded::default(), StateOps::default());
        let mut batch = Batch { voice: &self.0.table.0.voice, entries: &mut entries, state: &mut state };
        let mut execution = self.0.entry.execution.lock();
        execution.commit(&mut batch, now_ms).then(|| submit(&entries, &state))
    }

    /// Waits until somebody else moved the execution: an answer came, or became durable.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn moved(&self) {
        self.0.entry.moved.notified().await;
    }

    /// Whether this command is in flight.
    pub(crate) fn has_in_flight(&self, identity: &Identity) -> bool {
        let execution = self.0.entry.execution.lock();
        execution.in_flight().is_some_and(|(current, _)| current == identity)
    }

    /// The command id in flight and the word for where it stands, for operators.
    pub(crate) fn standing(&self) -> Option<(String, &'static str)> {
        let execution = self.0.entry.execution.lock();
        execution.in_flight().map(|(identity, word)| (identity.command_id(), word))
    }
}

/// Tells an execution what happened, and counts the command if its end is durable with that.
fn tell(execution: &mut Execution, event: Event, now: Now) {
    let ending = execution.ending();
    execution.on(event, now);
    if let (Some(status), None) = (ending, execution.ending()) {
        Metrics::ended(status.word());
    }
}

// === impl Hold ===

impl Hold {
    fn on(&self, event: Event, now: Now) {
        let mut execution = self.entry.execution.lock();
        tell(&mut execution, event, now);
        let device = &*self.entry.device;
        match execution.take_news() {
            None => {}
            Some(News::Durable(record)) => self.table.0.known.lock().records.set(device, &record),
            Some(News::Doubt) => self.table.0.known.lock().records.doubt(device),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.drives {
            // Of a write on its way nobody will hear.
            self.on(Event::Committed(false), Now::from(0));
            self.entry.execution.lock().leave();
        }
        let mut known = self.table.0.known.lock();
        if self.drives {
            self.entry.driven.store(false, Ordering::Release);
        }
        let device = &*self.entry.device;
        let Some(active) = known.active.get_mut(device) else { return };
        active.holds -= 1;
        if active.holds == 0 {
            known.active.remove(device);
        }
    }
}

// === impl Pending ===

impl mqtt::Durable for Pending {
    fn settled(&self, durable: bool) {
        if !std::mem::replace(&mut *self.told.lock(), true) {
            self.hold.on(Event::AnswerCommitted(durable), Now::from(0));
            self.hold.entry.moved.notify_one();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Nobody said: so nobody knows.
        mqtt::Durable::settled(self, false);
    }
}
