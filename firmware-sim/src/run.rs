//! One run: fleet, read-back, judgement, report.

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use testkit::cloud::Control;
use testkit::judge::{Conditions, Judge};
use testkit::process::Usage;
use testkit::report::Report;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::{Allow, CommandArguments, RunArguments};
use crate::command_report;
use crate::commander::Mission;
use crate::fleet::{self, Orders, Outcome, Phase};
use crate::link::{Access, Target};
use crate::plan::{self, DevicePlan};
use crate::profile::Profile;
use crate::progress::{Progress, float};
use crate::readback::{self, Source};
use crate::table::table;
use crate::truth::TruthFile;

/// More workers than this do not help: the gateway under test needs the cores.
const WORKERS_MAX: usize = 4;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The arguments, the profile or a file named by them is wrong.
    #[error("{0:#}")]
    Arguments(anyhow::Error),
    /// The run could not be made.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// The way to end a run early: first publishing, then everything.
#[derive(Debug, Clone)]
pub struct Cancel {
    phase: Arc<watch::Sender<Phase>>,
    on_signals: bool,
}

impl Cancel {
    /// Ends a run by [`Cancel::advance`] only.
    #[must_use]
    pub fn by_hand() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Publish)), on_signals: false }
    }

    /// SIGINT or SIGTERM stops publishing, a second one the waiting for answers and the read-back.
    #[must_use]
    pub fn on_signals() -> Self {
        Self { on_signals: true, ..Self::by_hand() }
    }

    /// Moves on: from publishing to draining, from draining to the end.
    pub fn advance(&self) {
        self.phase.send_modify(|phase| {
            *phase = if *phase == Phase::Publish { Phase::Drain } else { Phase::Stop };
        });
    }

    /// Whether everything is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.phase.borrow() == Phase::Stop
    }
}

/// What was checked before anything starts.
struct Checked {
    orders: Orders,
    source: Option<Source>,
    /// Where status events arrive, if commands are sent.
    statuses: Option<Source>,
    seed: u64,
}

/// Runs the fleet, judges, prints the verdict to stdout and writes the report.
///
/// # Errors
/// When the arguments are wrong or the run cannot be made. A broken promise is no error: the report says it.
pub fn run(arguments: &RunArguments, cancel: &Cancel) -> Result<Report, RunError> {
    let checked = check(arguments).map_err(RunError::Arguments)?;
    let report = make(arguments, checked, cancel).map_err(RunError::Failed)?;
    if let Some(path) = &arguments.report {
        let written = report.write(path).with_context(|| path.display().to_string());
        written.map_err(RunError::Failed)?;
    }
    // A closed stdout takes nothing from the report.
    drop(stdout().lock().write_all(table(&report).as_bytes()));
    Ok(report)
}

fn check(arguments: &RunArguments) -> anyhow::Result<Checked> {
    let mut profile = match &arguments.profile {
        Some(path) => Profile::read(path)?,
        None => Profile::default(),
    };
    let RunArguments { qos0, qos1, qos2, v5, .. } = *arguments;
    if qos0.or(qos1).or(qos2).is_some() {
        // Shares that are not given make up the rest, QoS 1 first.
        let given = qos0.unwrap_or(0).saturating_add(qos2.unwrap_or(0));
        profile.qos0_percent = qos0.unwrap_or(0);
        profile.qos1_percent = qos1.unwrap_or_else(|| 100_u8.saturating_sub(given));
        profile.qos2_percent = qos2.unwrap_or(0);
    }
    profile.v5_percent = v5.unwrap_or(profile.v5_percent);
    profile.commands.subscribe |= arguments.commands.commands > 0;
    profile.check()?;
    let publish_for = Duration::try_from_secs_f64(arguments.seconds).context("--seconds")?;
    if !(arguments.rate.is_finite() && arguments.rate > 0.0 && arguments.rate <= 10_000_000.0) {
        bail!("--rate is {}, allowed is above 0 to 10000000", arguments.rate);
    }
    if publish_for > Duration::from_secs(30 * 86_400) {
        bail!("--seconds is {}, allowed is 0 to 2592000", arguments.seconds);
    }
    let access = Access {
        username_prefix: arguments.username_prefix.clone(),
        password: first_line(arguments.password_file.as_deref())?.unwrap_or_default(),
        keep_alive: Duration::from_secs(u64::from(profile.keep_alive_seconds)),
        window: profile.window,
        payload_bytes: profile.payload_bytes,
    };
    let target = Target::new(&arguments.target, arguments.ca_file.as_deref(), access)?;
    if profile.is_bare() && target.is_secured() {
        bail!("devices whose sessions last, that change their connections or take commands speak no TLS");
    }
    if target.places.len() > 1 && (!profile.is_bare() || profile.sessions.lasting_percent > 0) {
        bail!(
            "only devices that change their connections or take commands, and whose sessions do not last, move between targets"
        );
    }
    let connection_string = first_line(arguments.readback_connection_string_file.as_deref())?;
    let ca_file = arguments.readback_ca_file.as_deref();
    let source = arguments.readback.as_ref().map(|url| Source::new(url, connection_string, ca_file));
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let devices = plan::devices(seed, arguments.devices, arguments.rate, &profile);
    let mission = mission(&arguments.commands, seed, publish_for, &devices);
    let statuses = arguments.commands.command_status.as_ref().filter(|_| mission.is_some());
    let statuses = statuses.map(|url| Source::new(url, None, None)).transpose()?;
    let orders = Orders {
        target,
        profile,
        devices,
        publish_for,
        drain_wait: arguments.drain_wait,
        mission,
        seed,
        truth: None,
    };
    Ok(Checked { orders, source: source.transpose()?, statuses, seed })
}

/// What is sent to the devices as commands. The last fifth of the run is left for what comes late.
fn mission(
    arguments: &CommandArguments,
    seed: u64,
    publish_for: Duration,
    devices: &[DevicePlan],
) -> Option<Mission> {
    let control = arguments.command_control.as_ref().filter(|_| arguments.commands > 0)?;
    Some(Mission {
        control: Control::new(control),
        entity: arguments.command_entity.clone(),
        count: arguments.commands,
        over: publish_for.mul_f64(0.8),
        devices: devices.iter().map(|device| device.id.clone()).collect(),
        seed,
        wait: arguments.command_wait,
        faults: arguments.command_fault.clone(),
    })
}

fn first_line(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
    line.map(|line| Some(line.to_owned()))
        .ok_or_else(|| anyhow!("{}: the first line is empty", path.display()))
}

fn make(arguments: &RunArguments, checked: Checked, cancel: &Cancel) -> anyhow::Result<Report> {
    let Checked { mut orders, source, statuses, seed } = checked;
    orders.truth = open_truth(arguments)?;
    let truth = orders.truth.clone();
    let wrong_clocks = orders.profile.has_wrong_clocks();
    let runtime = runtime()?;
    if cancel.on_signals {
        watch_signals(&runtime, cancel)?;
    }
    let progress = Progress::new(arguments.progress, orders.devices.len(), orders.publish_for);
    let usage_before = arguments.gateway_pid.map(Usage::of).transpose().context("--gateway-pid")?;
    let outcome = runtime.block_on(fleet::run(orders, cancel.phase.subscribe(), progress))?;
    let usage = arguments.gateway_pid.zip(usage_before);
    let mut report = account(arguments, seed, &outcome);
    measure(&mut report, usage);
    let mut reasons = complaints(&outcome);
    let unwritten = truth.and_then(|truth| truth.error());
    reasons.extend(unwritten.map(|error| format!("the faults could not be written down: {error}")));
    let mut judge = Judge::new(&outcome.ledger);
    if let Some(source) = &source {
        // Readings whose clock is wrong do not tell to which run they belong.
        let start_ms = if wrong_clocks { 0 } else { outcome.start_ms };
        let read = readback::read(source, start_ms, arguments.readback_wait, &mut judge, cancel);
        match read {
            Ok(earlier) => report.earlier = Some(earlier),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let allows = |what| arguments.allow.contains(&what);
    let verdict = judge.verdict(Conditions {
        reconnects: outcome.reconnects,
        allow_duplicated: allows(Allow::Duplicated),
        allow_resent: allows(Allow::Resent),
        allow_unacked: allows(Allow::Unacked),
        allow_moved: allows(Allow::Moved),
    });
    if source.is_some() {
        report.set_counts(verdict.counts);
        reasons.extend(verdict.reasons);
    } else if report.unacked > 0 && !allows(Allow::Unacked) {
        reasons.push(format!("{} readings were never acknowledged", report.unacked));
    }
    if let Some(statuses) = &statuses {
        let (found, broken) = command_report::report(&outcome, statuses, arguments.readback_wait, cancel);
        report.commands = Some(found);
        reasons.extend(broken);
    }
    report.set_reasons(reasons);
    // Devices are gone; nothing in the runtime is worth waiting for.
    runtime.shutdown_background();
    Ok(report)
}

fn open_truth(arguments: &RunArguments) -> anyhow::Result<Option<Arc<TruthFile>>> {
    let Some(path) = &arguments.truth else { return Ok(None) };
    let file = TruthFile::create(path).with_context(|| path.display().to_string())?;
    Ok(Some(Arc::new(file)))
}

fn runtime() -> anyhow::Result<Runtime> {
    let cores = available_parallelism().map_or(1, usize::from);
    let workers = cores.clamp(1, WORKERS_MAX);
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().context("start the runtime")
}

fn watch_signals(runtime: &Runtime, cancel: &Cancel) -> anyhow::Result<()> {
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let cancel = cancel.clone();
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => cancel.advance(),
                _ = terminate.recv() => cancel.advance(),
            }
        }
    });
    Ok(())
}

/// What the fleet itself knows.
fn account(arguments: &RunArguments, seed: u64, outcome: &Outcome) -> Report {
    let totals = outcome.ledger.totals();
    let seconds = outcome.published_for.as_secs_f64();
    let mut report = Report {
        seed,
        devices: u64::from(arguments.devices),
        seconds,
        kills: arguments.kills,
        reconnects: outcome.reconnects,
        skipped: outcome.skipped,
        sessions_resumed: outcome.resumed,
        sessions_lost: outcome.sessions_lost,
        takeovers: outcome.takeovers,
        acked_per_second: if seconds > 0.0 { float(totals.acked) / seconds } else { 0.0 },
        ack_ms: outcome.ack_ms,
        ..Report::default()
    };
    report.set_totals(totals);
    report
}

/// CPU per message the gateway accepted, and its memory; nothing when it is gone.
fn measure(report: &mut Report, usage: Option<(u32, Usage)>) {
    let Some((pid, before)) = usage else { return };
    let Ok(after) = Usage::of(pid) else { return };
    let messages = report.acked + report.qos0_sent;
    if messages > 0 {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
        report.gateway_cpu_us_per_message = Some(cpu / float(messages));
    }
    report.gateway_rss_bytes = Some(after.rss_bytes);
}

/// What makes a run worthless whatever the judge says.
fn complaints(outcome: &Outcome) -> Vec<String> {
    let mut complaints = Vec::new();
    let last_error = outcome.last_error.as_deref().unwrap_or("none");
    if outcome.never_connected > 0 {
        complaints
            .push(format!("{} devices never connected; last error: {last_error}", outcome.never_connected));
    }
    if outcome.sessions_lost > 0 {
        complaints.push(format!(
            "{} times the gateway did not have a session that was to last",
            outcome.sessions_lost
        ));
    }
    if outcome.ledger.totals().sent == 0 {
        complaints.push("nothing was sent".to_owned());
    }
    complaints
}
