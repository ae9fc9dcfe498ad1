//! The loop of one device: connects the state machine, the schedule and the connection.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use testkit::commands::account::Account;
use testkit::ledger::DeviceLedger;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::device::{Answer, Device, Fault};
use crate::fleet::{Phase, unix_ms};
use crate::instruments::Instruments;
use crate::link::{Client, Events, Signal, Target};
use crate::pace::Pace;
use crate::plan::{DevicePlan, Temper};
use crate::profile::Profile;
use crate::stats::Stats;
use crate::truth::{TruthFile, Witness};

/// Longest wait for our DISCONNECT to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// A moment that never comes during a run.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// What all devices of a fleet share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) target: Target,
    pub(crate) profile: Profile,
    pub(crate) stats: Stats,
    pub(crate) start: Instant,
    /// The wall clock at `start`, in Unix milliseconds.
    pub(crate) start_ms: u64,
    pub(crate) end: Instant,
    /// Where it is written down which faults were sent.
    pub(crate) truth: Option<Arc<TruthFile>>,
}

/// One device at work.
#[derive(Debug)]
pub(crate) struct Runner {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    index: usize,
    plan: DevicePlan,
    topic: String,
    device: Device,
    instruments: Instruments,
    witness: Witness,
    temper: Temper,
    pace: Pace,
    next_drop: Instant,
    ever_connected: bool,
}

/// What became of a device.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) id: String,
    pub(crate) ledger: DeviceLedger,
    /// What it did with commands, if it took any.
    pub(crate) commands: Option<Account>,
    pub(crate) ever_connected: bool,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The device has nothing left to do, or must stop now.
    Finished,
    /// The connection was lost, or dropped on purpose.
    Lost(String),
}

impl Runner {
    pub(crate) fn new(
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        index: usize,
        plan: DevicePlan,
    ) -> Self {
        let profile = &shared.profile;
        let begin = shared.start + plan.connect_after;
        let behind_max = Duration::from_secs(u64::from(profile.behind_seconds_max));
        let pace = Pace::new(begin, shared.end, plan.phase, plan.period, profile.duty, behind_max);
        let mut temper = Temper::new(plan.seed);
        let first_drop = temper.next_drop(plan.connect_after, profile.storm).unwrap_or(NEVER);
        Self {
            phase,
            index,
            topic: format!("devices/{}/telemetry", plan.id),
            device: Device::new(plan.qos, profile.window),
            instruments: Instruments::new(&plan, profile.signal),
            witness: Witness::new(&plan, shared.truth.clone()),
            temper,
            pace,
            next_drop: shared.start + first_drop,
            plan,
            shared,
            ever_connected: false,
        }
    }

    /// Runs the device until it is drained or told to stop.
    pub(crate) async fn run(mut self) -> Finished {
        let mut wake = self.shared.start + self.plan.connect_after;
        while !self.rest_until(wake).await {
            let (client, mut events) = self.shared.target.open(&self.plan.id, self.plan.v5);
            let end = self.session(&client, &mut events).await;
            if end == End::Finished {
                farewell(&client, &mut events).await;
                break;
            }
            self.lost(&mut events, end);
            wake = Instant::now() + self.temper.backoff();
        }
        let (ledger, ever_connected) = (self.device.into_ledger(), self.ever_connected);
        self.witness.settle(&ledger);
        Finished { id: self.plan.id, ledger, commands: None, ever_connected }
    }

    /// Waits for a moment; true when the device is finished before it.
    async fn rest_until(&mut self, wake: Instant) -> bool {
        loop {
            if self.finished() {
                return true;
            }
            tokio::select! {
                () = sleep_until(wake) => return false,
                changed = self.phase.changed() => if changed.is_err() { return true },
            }
        }
    }

    /// Whether nothing is left to do.
    fn finished(&self) -> bool {
        match *self.phase.borrow() {
            Phase::Publish => self.pace.due().is_none() && self.device.is_idle(),
            Phase::Execute | Phase::Drain => self.device.is_idle(),
            Phase::Stop => true,
        }
    }

    /// One session, from connecting to its end.
    async fn session(&mut self, client: &Client, events: &mut Events) -> End {
        let mut connected = false;
        let end = loop {
            // Kept pinned until it is ready: a poll that is cancelled may leave half a packet behind.
            let mut poll = pin!(events.next());
            let signal = loop {
                if self.finished() {
                    break None;
                }
                if let Err(error) = self.step(client) {
                    break Some(Err(error));
                }
                tokio::select! {
                    signal = &mut poll => break Some(signal),
                    () = sleep_until(self.wake()) => {}
                    changed = self.phase.changed() => if changed.is_err() { break None },
                }
            };
            match signal {
                None => break End::Finished,
                Some(Err(error)) => break End::Lost(error),
                Some(Ok(Signal::Connected { receive_max })) => {
                    connected = true;
                    self.connected(receive_max);
                }
                Some(Ok(signal)) => {
                    if let Err(fault) = self.signal(signal) {
                        break End::Lost(fault.to_string());
                    }
                }
            }
        };
        if connected {
            self.shared.stats.connected.fetch_sub(1, Relaxed);
        }
        end
    }

    /// Takes what is due, hands over what fits, and drops the connection when a storm says so.
    fn step(&mut self, client: &Client) -> Result<(), String> {
        let now = Instant::now();
        if now >= self.next_drop {
            let since_start = now.saturating_duration_since(self.shared.start);
            let next = self.temper.next_drop(since_start, self.shared.profile.storm);
            self.next_drop = self.shared.start + next.unwrap_or(NEVER);
            return Err("dropped on purpose".to_owned());
        }
        if *self.phase.borrow() == Phase::Publish {
            let said = (&mut self.instruments, &mut self.witness);
            take_due(&self.shared, &mut self.device, said, &mut self.pace, now);
        }
        while let Some(publish) = self.device.next_publish(now).map_err(|fault| fault.to_string())? {
            let reading = publish.reading;
            if !client.publish(&self.topic, publish) {
                return Err("the client takes no requests".to_owned());
            }
            self.witness.sent(reading, unix_ms);
            self.shared.stats.sent.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// When the device has to act next although nothing happens on its connection.
    fn wake(&self) -> Instant {
        let publishing = *self.phase.borrow() == Phase::Publish && self.device.has_room();
        let due = self.pace.due().filter(|_| publishing);
        // The end of the schedule may finish the device.
        due.unwrap_or_else(|| Instant::now() + NEVER).min(self.next_drop)
    }

    fn connected(&mut self, receive_max: Option<u16>) {
        let stats = &self.shared.stats;
        stats.connected.fetch_add(1, Relaxed);
        if self.ever_connected {
            stats.reconnects.fetch_add(1, Relaxed);
        }
        self.ever_connected = true;
        self.device.connected(receive_max);
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        let now = Instant::now();
        let answer = match signal {
            Signal::Sent(pkid) => return self.device.sent(pkid),
            Signal::Acked { pkid, accepted } => self.device.puback(pkid, accepted, now)?,
            Signal::Received { pkid, accepted } => self.device.pubrec(pkid, accepted, now)?,
            Signal::Completed(pkid) => self.device.pubcomp(pkid)?,
            Signal::Connected { .. }
            | Signal::Subscribed { .. }
            | Signal::Command(_)
            | Signal::Disconnected
            | Signal::Other => return Ok(()),
        };
        if let Answer::Acked(time) = answer {
            self.temper.settled();
            self.shared.stats.ack(self.index, time);
        }
        Ok(())
    }

    /// The session is over: nothing of it is kept but the acknowledgements already read.
    fn lost(&mut self, events: &mut Events, end: End) {
        for signal in events.rest() {
            if self.signal(signal).is_err() {
                break;
            }
        }
        self.device.disconnected();
        if let End::Lost(error) = end {
            self.shared.stats.error(format!("{}: {error}", self.plan.id));
        }
    }
}

/// Takes the readings that are due, as far as the window has room. Each says that it was taken when it was due, also where
/// the device looks late: what measures has a clock of its own.
pub(crate) fn take_due(
    shared: &Shared,
    device: &mut Device,
    (instruments, witness): (&mut Instruments, &mut Witness),
    pace: &mut Pace,
    now: Instant,
) {
    let skipped = pace.catch_up(now);
    if skipped > 0 {
        shared.stats.skipped.fetch_add(skipped, Relaxed);
    }
    while let Some(due) = pace.due().filter(|due| device.has_room() && *due <= now) {
        let after = due.saturating_duration_since(shared.start).as_millis();
        let taken_ms = shared.start_ms + u64::try_from(after).unwrap_or_default();
        if !instruments.is_silent() {
            let bytes = shared.profile.payload_bytes;
            device.take(|reading| {
                witness.taken(reading, taken_ms);
                instruments.payload(reading, taken_ms, bytes)
            });
        }
        pace.advance();
    }
}

/// Says goodbye, so that the gateway sees no broken connection.
async fn farewell(client: &Client, events: &mut Events) {
    if !client.disconnect() {
        return;
    }
    let deadline = Instant::now() + FAREWELL;
    while let Ok(Ok(signal)) = timeout_at(deadline, events.next()).await {
        if signal == Signal::Disconnected {
            return;
        }
    }
}
