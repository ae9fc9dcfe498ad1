//! The loop of a device that keeps its session itself, and may change its connection all the time.
//!
//! Where [`crate::runner`] drops everything with a connection, this one goes on: exchanges of a session
//! that lasts are resumed on the next connection from the device's own window. Connections end
//! abruptly, some in the middle of a packet; in a take-over the next one is opened while the last one
//! is still open and nobody reads it.
//!
//! A device that takes commands subscribes to them on each connection, executes them ([`crate::execute`]) and
//! stays until the fleet has settled them all. With several gateways it begins with one of them, and goes to
//! any of them when it changes its connection or loses it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::bare::{Accepted, Link};
use crate::device::{Answer, Device, PKID_MAX, Send};
use crate::execute::{Act, Executor};
use crate::fleet::{Phase, unix_ms};
use crate::instruments::Instruments;
use crate::link::Signal;
use crate::pace::Pace;
use crate::plan::{Change, DevicePlan, Temper};
use crate::runner::{Finished, Shared, take_due};
use crate::truth::Witness;

/// A moment that never comes during a run.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// One device at work.
#[derive(Debug)]
pub(crate) struct Runner {
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    index: usize,
    plan: DevicePlan,
    topic: String,
    device: Device,
    /// What executes commands, if it takes any.
    executor: Option<Executor>,
    instruments: Instruments,
    witness: Witness,
    temper: Temper,
    pace: Pace,
    /// Which of the gateways it connects to.
    place: usize,
    /// When and how the connection is given up.
    next_change: Option<(Instant, Change)>,
    ever_connected: bool,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The device has nothing left to do, or must stop now.
    Finished,
    /// It gives the connection up.
    Changed(Change),
    /// The connection was lost.
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
        let commands = profile.commands;
        let executor = commands.subscribe.then(|| Executor::new(&plan.id, plan.seed, plan.v5, commands));
        Self {
            phase,
            index,
            topic: format!("devices/{}/telemetry", plan.id),
            device: Device::new(plan.qos, profile.window),
            executor,
            instruments: Instruments::new(&plan, profile.signal),
            witness: Witness::new(&plan, shared.truth.clone()),
            temper: Temper::new(plan.seed),
            pace,
            place: index % shared.target.places.len().max(1),
            next_change: None,
            plan,
            shared,
            ever_connected: false,
        }
    }

    /// Runs the device until it is drained or told to stop.
    pub(crate) async fn run(mut self) -> Finished {
        let mut wake = self.shared.start + self.plan.connect_after;
        // The connection that is to be taken over.
        let mut open: Option<Link> = None;
        while !self.rest_until(wake).await {
            let DevicePlan { id, v5, lasting, .. } = &self.plan;
            let opened = Link::open(&self.shared.target, self.place, id, *v5, *lasting).await;
            let taken_over = open.take().is_some();
            let (mut link, accepted) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.failed(&error);
                    self.move_on();
                    wake = Instant::now() + self.temper.backoff();
                    continue;
                }
            };
            self.connected(accepted, taken_over);
            let end = match self.subscribe(&mut link, accepted) {
                Ok(()) => self.session(&mut link).await,
                Err(error) => End::Lost(error),
            };
            self.shared.stats.connected.fetch_sub(1, Relaxed);
            self.ended();
            wake = Instant::now();
            match end {
                End::Finished => {
                    link.close().await;
                    break;
                }
                End::Changed(Change::Close) => drop(link),
                End::Changed(Change::Reset) => link.reset(),
                End::Changed(Change::TakeOver) => open = Some(link),
                End::Lost(error) => {
                    self.failed(&error);
                    wake += self.temper.backoff();
                }
            }
            self.move_on();
        }
        let ledger = self.device.into_ledger();
        self.witness.settle(&ledger);
        Finished {
            id: self.plan.id,
            ledger,
            commands: self.executor.map(Executor::into_account),
            ever_connected: self.ever_connected,
        }
    }

    /// Chooses the gateway of the next connection.
    fn move_on(&mut self) {
        self.place = self.temper.next_place(self.shared.target.places.len());
    }

    /// Waits for a moment; true when the device is finished before it.
    async fn rest_until(&mut self, wake: Instant) -> bool {
        loop {
            if self.finished() {
                return true;
            }
            if wake <= Instant::now() {
                return false;
            }
            tokio::select! {
                () = sleep_until(wake) => return false,
                changed = self.phase.changed() => if changed.is_err() { return true },
            }
        }
    }

    /// Whether nothing is left to do.
    fn finished(&self) -> bool {
        let executor = self.executor.as_ref();
        match *self.phase.borrow() {
            Phase::Publish if executor.is_none() => self.pace.due().is_none() && self.device.is_idle(),
            Phase::Execute if executor.is_none() => self.device.is_idle(),
            Phase::Publish | Phase::Execute => false,
            Phase::Drain => self.device.is_idle() && executor.is_none_or(Executor::is_idle),
            Phase::Stop => true,
        }
    }

    /// A session that is there already has its subscription.
    fn subscribe(&mut self, link: &mut Link, accepted: Accepted) -> Result<(), String> {
        let Some(executor) = &mut self.executor else { return Ok(()) };
        executor.connected(self.place);
        if accepted.session_present { Ok(()) } else { link.subscribe(&executor.filter()) }
    }

    fn connected(&mut self, accepted: Accepted, taken_over: bool) {
        let stats = &self.shared.stats;
        stats.connected.fetch_add(1, Relaxed);
        stats.takeovers.fetch_add(u64::from(taken_over), Relaxed);
        let present = accepted.session_present;
        if self.ever_connected {
            stats.reconnects.fetch_add(1, Relaxed);
            stats.resumed.fetch_add(u64::from(present && self.plan.lasting), Relaxed);
            stats.sessions_lost.fetch_add(u64::from(!present && self.plan.lasting), Relaxed);
        }
        let trusting = self.ever_connected && self.plan.lasting && self.shared.profile.sessions.trusting;
        self.ever_connected = true;
        self.device.connected(accepted.receive_max);
        self.device.resumed(present || trusting);
        let change = if self.plan.churns { self.temper.next_change(self.shared.profile.churn) } else { None };
        self.next_change = change.map(|(kept, change)| (Instant::now() + kept, change));
    }

    /// One connection, from CONNACK to its end.
    async fn session(&mut self, link: &mut Link) -> End {
        loop {
            if self.finished() {
                return End::Finished;
            }
            match self.step(link) {
                Err(error) => return End::Lost(error),
                Ok(Some(change)) => return End::Changed(change),
                Ok(None) => {}
            }
            let wake = self.wake().min(link.ping_due());
            tokio::select! {
                signal = link.next() => {
                    if let Err(error) = signal.and_then(|signal| self.signal(signal)) {
                        return End::Lost(error);
                    }
                }
                () = sleep_until(wake) => {}
                changed = self.phase.changed() => if changed.is_err() { return End::Finished },
            }
        }
    }

    /// Takes what is due and writes what fits; says when it is time to change the connection.
    fn step(&mut self, link: &mut Link) -> Result<Option<Change>, String> {
        let now = Instant::now();
        if *self.phase.borrow() == Phase::Publish {
            let said = (&mut self.instruments, &mut self.witness);
            take_due(&self.shared, &mut self.device, said, &mut self.pace, now);
        }
        while let Some(send) = self.device.next_send(now).map_err(|fault| fault.to_string())? {
            match send {
                Send::Publish { publish, pkid, again } => {
                    let reading = publish.reading;
                    link.publish(&self.topic, publish, pkid, again)?;
                    self.witness.sent(reading, unix_ms);
                    self.shared.stats.sent.fetch_add(1, Relaxed);
                }
                Send::Release(pkid) => link.release(pkid)?,
            }
        }
        if self.execute(link, now)? {
            return Ok(Some(Change::Reset));
        }
        if link.ping_due() <= now {
            link.ping()?;
        }
        // After the packets of this moment were put down, so that some are cut in the middle.
        Ok(self.next_change.filter(|(at, _)| *at <= now).map(|(_, change)| change))
    }

    /// Acknowledges and answers what is due; true when the device crashes.
    fn execute(&mut self, link: &mut Link, now: Instant) -> Result<bool, String> {
        let Some(executor) = &mut self.executor else { return Ok(false) };
        while let Some(act) = executor.next(now, unix_ms()) {
            match act {
                Act::Acknowledge { pkid, refused } => link.acknowledge(pkid, refused),
                Act::Answer { pkid, topic, payload, correlation } => {
                    link.answer(&topic, payload, correlation, pkid)?;
                }
                Act::Crash => return Ok(true),
            }
        }
        Ok(false)
    }

    /// When the device has to act next although nothing happens on its connection.
    fn wake(&self) -> Instant {
        let never = Instant::now() + NEVER;
        let publishing = *self.phase.borrow() == Phase::Publish && self.device.has_room();
        let due = self.pace.due().filter(|_| publishing).unwrap_or(never);
        let executes = self.executor.as_ref().and_then(Executor::due).unwrap_or(never);
        due.min(executes).min(self.next_change.map_or(never, |(at, _)| at))
    }

    fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let now = Instant::now();
        let answer = match signal {
            Signal::Acked { pkid, accepted } if pkid > PKID_MAX => return self.answer_acked(pkid, accepted),
            Signal::Command(command) => {
                let executor = self.executor.as_mut().ok_or("a publish that nobody subscribed to")?;
                self.shared.stats.commands.fetch_add(1, Relaxed);
                return executor
                    .received(*command, now, unix_ms())
                    .map_err(|error| self.shared.stats.wrong(error));
            }
            Signal::Subscribed { accepted: false } => return Err("the subscription was refused".to_owned()),
            Signal::Acked { pkid, accepted } => self.device.puback(pkid, accepted, now),
            Signal::Received { pkid, accepted } => {
                let answer = self.device.pubrec(pkid, accepted, now);
                answer.and_then(|answer| {
                    if accepted { self.device.release(pkid).map(|()| answer) } else { Ok(answer) }
                })
            }
            Signal::Completed(pkid) => self.device.pubcomp(pkid),
            Signal::Connected { .. }
            | Signal::Subscribed { .. }
            | Signal::Sent(_)
            | Signal::Disconnected
            | Signal::Other => return Ok(()),
        };
        if let Answer::Acked(time) = answer.map_err(|fault| fault.to_string())? {
            self.temper.settled();
            self.shared.stats.ack(self.index, time);
        }
        Ok(())
    }

    /// A refused answer is given up as an acknowledged one: the same again would be refused again.
    fn answer_acked(&mut self, pkid: u16, accepted: bool) -> Result<(), String> {
        let executor = self.executor.as_mut().ok_or("an answer was acknowledged that nobody gave")?;
        executor.answer_acked(pkid);
        self.shared.stats.answers_refused.fetch_add(u64::from(!accepted), Relaxed);
        Ok(())
    }

    /// The connection is over; the session, if it lasts, is not.
    fn ended(&mut self) {
        if let Some(executor) = &mut self.executor {
            executor.disconnected(unix_ms());
        }
        if self.plan.lasting {
            self.device.interrupted();
        } else {
            self.device.disconnected();
        }
    }

    fn failed(&self, error: &str) {
        self.shared.stats.error(format!("{}: {error}", self.plan.id));
    }
}
