//! The fleet: starts its devices, ends their publishing in time, and collects their accounts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::ledger::{Ledger, LedgerError};
use testkit::report::AckMs;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::churn;
use crate::link::Target;
use crate::plan::DevicePlan;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::runner::{Runner, Shared};
use crate::stats::{AckTimes, Stats};

/// What devices do; it only moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Take readings and publish them.
    Publish,
    /// Take no more; wait for what is outstanding.
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
    let Orders { target, profile, devices, publish_for, drain_wait } = orders;
    let start = Instant::now();
    let (start_ms, end) = (unix_ms(), start + publish_for);
    let shared = Arc::new(Shared { target, profile, stats: Stats::new(), start, start_ms, end });
    let (phase, phases) = watch::channel(Phase::Publish);
    let mut tasks = JoinSet::new();
    for (index, plan) in devices.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        if shared.profile.is_bare() {
            tasks.spawn(churn::Runner::new(shared, phases.clone(), index, plan).run());
        } else {
            tasks.spawn(Runner::new(shared, phases.clone(), index, plan).run());
        }
    }
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ledger, mut times, mut never_connected) = (Ledger::default(), AckTimes::new(), 0);
    let (mut deadline, mut published_for) = (end, publish_for);
    loop {
        tokio::select! {
            finished = tasks.join_next() => {
                let Some(finished) = finished else { break };
                let finished = finished?;
                never_connected += usize::from(!finished.ever_connected);
                ledger.insert(finished.id, finished.ledger)?;
            }
            _ = ticks.tick() => progress.show(start.elapsed(), &shared.stats, &mut times),
            () = sleep_until(deadline) => {
                let next = if *phase.borrow() == Phase::Publish { Phase::Drain } else { Phase::Stop };
                phase.send_replace(next);
                deadline = Instant::now() + drain_wait;
            }
            changed = asked.changed() => {
                let wanted = if changed.is_ok() { *asked.borrow_and_update() } else { Phase::Stop };
                if wanted > *phase.borrow() {
                    published_for = published_for.min(start.elapsed());
                    phase.send_replace(wanted);
                    deadline = Instant::now() + drain_wait;
                }
            }
        }
    }
    progress.finish(start.elapsed(), &shared.stats, &mut times);
    let stats = &shared.stats;
    Ok(Outcome {
        ledger,
        start_ms,
        published_for,
        reconnects: stats.reconnects.load(Relaxed),
        skipped: stats.skipped.load(Relaxed),
        resumed: stats.resumed.load(Relaxed),
        sessions_lost: stats.sessions_lost.load(Relaxed),
        takeovers: stats.takeovers.load(Relaxed),
        never_connected,
        ack_ms: times.quantiles(),
        last_error: stats.last_error(),
    })
}

/// Why a fleet could not be brought home.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error("a device failed: {0}")]
    Device(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[expect(clippy::disallowed_methods, reason = "the rule is about the gateway; readings carry the wall clock")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
