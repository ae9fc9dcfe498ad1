//! The fleet: starts its devices, ends their publishing in time, and collects their accounts.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::alerts::Run;
use testkit::commands::account::Account;
use testkit::ledger::{Ledger, LedgerError};
use testkit::report::AckMs;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::churn;
use crate::commander::{self, CommanderError, Dispatched, Mission};
use crate::link::Target;
use crate::plan::DevicePlan;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::runner::{Finished, Runner, Shared};
use crate::stats::{AckTimes, Stats};
use crate::truth::TruthFile;

/// What devices do; it only moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Take readings and publish them.
    Publish,
    /// Take no more readings, but execute the commands that are on their way.
    Execute,
    /// Wait for what is outstanding.
    Drain,
    /// Stop at once.
    Stop,
}

/// What a fleet is to do.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) target: Target,
    pub(crate) profile: Profile,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) publish_for: Duration,
    pub(crate) drain_wait: Duration,
    /// The commands to send meanwhile, if any.
    pub(crate) mission: Option<Mission>,
    /// The seed of the fleet.
    pub(crate) seed: u64,
    /// Where it is written down which faults were sent.
    pub(crate) truth: Option<Arc<TruthFile>>,
}

/// What a fleet did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ledger: Ledger,
    /// The wall clock when it started, in Unix milliseconds.
    pub(crate) start_ms: u64,
    /// How long it published.
    pub(crate) published_for: Duration,
    pub(crate) reconnects: u64,
    pub(crate) skipped: u64,
    pub(crate) resumed: u64,
    pub(crate) sessions_lost: u64,
    pub(crate) takeovers: u64,
    pub(crate) never_connected: usize,
    pub(crate) ack_ms: AckMs,
    pub(crate) last_error: Option<String>,
    /// What the devices that take commands did with them.
    pub(crate) accounts: HashMap<String, Account>,
    /// What was sent to them, and what Service Bus saw of it.
    pub(crate) dispatched: Dispatched,
    pub(crate) answers_refused: u64,
    pub(crate) wrong_commands: u64,
}

/// Runs a fleet to its end. `asked` is the phase that the user asks for, by signals.
///
/// # Errors
/// When a device panicked or two devices share a name; neither happens.
pub(crate) async fn run(
    orders: Orders,
    mut asked: watch::Receiver<Phase>,
    mut progress: Progress,
) -> Result<Outcome, FleetError> {
    let Orders { target, profile, devices, publish_for, drain_wait, mission, seed, truth } = orders;
    let start = Instant::now();
    let (start_ms, end) = (unix_ms(), start + publish_for);
    let mut told =
        Run { seed, devices: devices.len().try_into().unwrap_or(u64::MAX), start_ms, end_ms: None };
    let tell = |run| truth.iter().for_each(|truth| truth.run(run));
    tell(told);
    let shared =
        Arc::new(Shared { target, profile, stats: Stats::new(), start, start_ms, end, truth: truth.clone() });
    let (phase, phases) = watch::channel(Phase::Publish);
    let mut tasks = start_devices(&shared, &phases, devices);
    let mut commander = pin!(command(mission, &shared.stats, phases));
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut home = Home::default();
    let (mut times, mut dispatched) = (AckTimes::new(), None);
    let (mut deadline, mut published_for) = (end, publish_for);
    loop {
        tokio::select! {
            finished = tasks.join_next() => {
                let Some(finished) = finished else { break };
                home.take(finished?)?;
            }
            done = &mut commander, if dispatched.is_none() => {
                dispatched = Some(done?);
                if *phase.borrow() == Phase::Execute {
                    phase.send_replace(Phase::Drain);
                    deadline = Instant::now() + drain_wait;
                }
            }
            _ = ticks.tick() => progress.show(start.elapsed(), &shared.stats, &mut times),
            // The commander knows by itself when to give up.
            () = sleep_until(deadline), if *phase.borrow() != Phase::Execute => {
                let next = after(*phase.borrow(), dispatched.is_some());
                phase.send_replace(next);
                deadline = Instant::now() + drain_wait;
            }
            changed = asked.changed() => {
                let wanted = if changed.is_ok() { *asked.borrow_and_update() } else { Phase::Stop };
                if wanted > *phase.borrow() {
                    published_for = published_for.min(start.elapsed());
                    let next = after(*phase.borrow(), dispatched.is_some());
                    phase.send_replace(if wanted == Phase::Drain { next } else { wanted });
                    deadline = Instant::now() + drain_wait;
                }
            }
        }
    }
    progress.finish(start.elapsed(), &shared.stats, &mut times);
    told.end_ms = Some(start_ms + u64::try_from(published_for.as_millis()).unwrap_or_default());
    tell(told);
    let stats = &shared.stats;
    Ok(Outcome {
        ledger: home.ledger,
        start_ms,
        published_for,
        reconnects: stats.reconnects.load(Relaxed),
        skipped: stats.skipped.load(Relaxed),
        resumed: stats.resumed.load(Relaxed),
        sessions_lost: stats.sessions_lost.load(Relaxed),
        takeovers: stats.takeovers.load(Relaxed),
        never_connected: home.never_connected,
        ack_ms: times.quantiles(),
        last_error: stats.last_error(),
        accounts: home.accounts,
        dispatched: dispatched.unwrap_or_default(),
        answers_refused: stats.answers_refused.load(Relaxed),
        wrong_commands: stats.wrong_commands.load(Relaxed),
    })
}

fn start_devices(
    shared: &Arc<Shared>,
    phases: &watch::Receiver<Phase>,
    devices: Vec<DevicePlan>,
) -> JoinSet<Finished> {
    let mut tasks = JoinSet::new();
    for (index, plan) in devices.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        if shared.profile.is_bare() {
            tasks.spawn(churn::Runner::new(shared, phases.clone(), index, plan).run());
        } else {
            tasks.spawn(Runner::new(shared, phases.clone(), index, plan).run());
        }
    }
    tasks
}

/// Sends the commands of a mission; done at once without one.
async fn command(
    mission: Option<Mission>,
    stats: &Stats,
    phases: watch::Receiver<Phase>,
) -> Result<Dispatched, CommanderError> {
    match mission {
        Some(mission) => commander::run(mission, stats, phases).await,
        None => Ok(Dispatched::default()),
    }
}

/// The phase after this one; `settled`: the commander has nothing left to wait for.
const fn after(phase: Phase, settled: bool) -> Phase {
    match phase {
        Phase::Publish if !settled => Phase::Execute,
        Phase::Publish | Phase::Execute => Phase::Drain,
        Phase::Drain | Phase::Stop => Phase::Stop,
    }
}

/// The devices that are done.
#[derive(Debug, Default)]
struct Home {
    ledger: Ledger,
    accounts: HashMap<String, Account>,
    never_connected: usize,
}

impl Home {
    fn take(&mut self, finished: Finished) -> Result<(), LedgerError> {
        let Finished { id, ledger, commands, ever_connected } = finished;
        self.never_connected += usize::from(!ever_connected);
        self.accounts.extend(commands.map(|account| (id.clone(), account)));
        self.ledger.insert(id, ledger)
    }
}

/// Why a fleet could not be brought home.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error("a device failed: {0}")]
    Device(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("commands: {0}")]
    Commands(#[from] CommanderError),
}

/// The wall clock in Unix milliseconds, which every process of this machine shares.
#[expect(clippy::disallowed_methods, reason = "the rule is about the gateway; readings carry the wall clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
