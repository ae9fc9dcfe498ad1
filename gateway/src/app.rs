//! The wiring: builds each stage once, in the order of the data flow, and stops them in that order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{ConfigError, Settings};
use crate::observe::{self, Metric, Renderer};
use crate::site::Site;
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind, clock};
use crate::{admin, alerts, azure, commands, dead_letter, mqtt, outbox, uplink};

/// Every metric of the gateway, by stage.
pub const METRICS: &[(&str, &[Metric])] = &[
    ("mqtt", mqtt::METRICS),
    ("outbox", outbox::METRICS),
    ("uplink", uplink::METRICS),
    ("commands", commands::METRICS),
    ("alerts", alerts::METRICS),
    ("alerts", alerts::EVENT_GRID_METRICS),
    ("alerts", alerts::SERVICE_BUS_METRICS),
    ("alerts", alerts::REACTION_METRICS),
    ("azure", azure::METRICS),
    ("dead_letter", dead_letter::METRICS),
];

/// Where the gateway listens, told once every listener is bound.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Always true; lets a reader of mixed output recognise the line.
    pub ready: bool,
    /// The devices' listeners, in the order of the configuration.
    pub mqtt: Vec<ReadyListener>,
    /// Health and metrics.
    pub health: SocketAddr,
    /// The operators' API.
    pub admin: SocketAddr,
}

/// One listener for devices.
#[derive(Debug, Clone, Serialize)]
pub struct ReadyListener {
    /// The address, with the port that was taken.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether it speaks MQTT over WebSocket.
    pub websocket: bool,
}

/// Why the gateway did not start, or ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime or the signal handlers could not be set up.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The metrics recorder could not be installed.
    #[error("cannot install metrics")]
    Metrics(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The outbox could not be opened.
    #[error("outbox")]
    Outbox(#[from] outbox::OpenError),
    /// The devices' listeners could not be set up.
    #[error("mqtt")]
    Mqtt(#[from] mqtt::Error),
    /// The uplink could not be set up.
    #[error("uplink")]
    Uplink(#[from] uplink::StartError),
    /// The commands could not be set up.
    #[error("commands")]
    Commands(#[from] commands::StartError),
    /// The alerts could not be set up.
    #[error("alerts")]
    Alerts(#[from] alerts::StartError),
    /// The rules file cannot be used.
    #[error("alerts")]
    Rules(#[from] alerts::RulesError),
    /// The dead letters cannot be looked after.
    #[error("dead letters")]
    DeadLetter(#[source] outbox::Error),
    /// The operators' listeners could not be set up.
    #[error("admin")]
    Admin(#[from] admin::Error),
    /// A task that the gateway cannot do without failed.
    #[error("{0}")]
    Failed(String),
}

/// Runs the gateway until a signal asks it to stop; blocks.
///
/// SIGHUP reads `file`, from which the settings came, again for the access rules, and with it the users
/// file and the certificates; other settings need a new start. `announce` is called once, when every
/// listener is bound.
///
/// # Errors
///
/// When a stage cannot be set up, or fails for good while running.
pub fn run(settings: Settings, file: PathBuf, announce: impl FnOnce(&Ready)) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.gateway.workers)
        .thread_name("device-worker")
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let renderer = observe::install(METRICS.iter().flat_map(|(_, metrics)| metrics.iter().copied()))
        .map_err(|error| Error::Metrics(error.into()))?;
    let ended = runtime.block_on(serve(settings, file, renderer, announce));
    // Whatever still runs has had its deadline; a stop never hangs on it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn serve(
    settings: Settings,
    file: PathBuf,
    renderer: Renderer,
    announce: impl FnOnce(&Ready),
) -> Result<(), Error> {
    let supervisor = Supervisor::new();
    let mut stop = StopSignals::new().map_err(Error::Start)?;
    let hangup = signal(SignalKind::hangup()).map_err(Error::Start)?;
    let Settings { gateway, outbox, azure, mqtt, uplink, commands, alerts, admin, .. } = settings;

    // Read first: whoever starts a gateway with a file that cannot be used is told before anything runs.
    let rules = alerts.as_ref().map(|alerts| alerts.rules().load()).transpose()?;
    let consumers = consumers(uplink.is_some(), alerts.as_ref());
    let outbox = outbox::Config { gateway: gateway.id.to_string(), ..outbox };
    let (_, outbox) = outbox::Service::open(outbox, &consumers, &supervisor)?;
    let (devices, mqtt) = mqtt::Service::bind(&mqtt, outbox.appender(), &supervisor)?;
    let tokens = uplink.as_ref().and_then(|uplink| uplink.connection.tokens().cloned());
    let command_tokens = commands.as_ref().and_then(|commands| commands.tokens().cloned());
    let alert_tokens: Vec<_> = alerts.iter().flat_map(|alerts| alerts.tokens().cloned()).collect();
    if let Some(source) = &azure.source {
        let all = tokens.iter().chain(&command_tokens).chain(&alert_tokens);
        all.for_each(|tokens| azure::start(source, tokens, &supervisor));
    }
    let uplink =
        uplink.map(|uplink| uplink::Service::prepare(&uplink, gateway.id.clone(), &outbox, &supervisor));
    let uplink = uplink.transpose()?;
    // Connections of their own: commands of rules go out while those for devices have ended.
    let sending = commands.as_ref().filter(|_| alerts.as_ref().is_some_and(alerts::Config::sends_commands));
    let sending = sending.map(|commands| commands::Sending::new(commands, &supervisor)).transpose()?;
    let commands = commands.map(|commands| {
        let handle = uplink.as_ref().map(|uplink| uplink.handle().clone());
        let site = Arc::new(Site { outbox: outbox.clone(), mqtt: mqtt.clone(), uplink: handle });
        commands::Service::start(&commands, &gateway.id, &outbox, mqtt.devices(), site, &supervisor)
    });
    let commands = commands.transpose()?;
    // After the commands, which know what limits it was under.
    let uplink = uplink.map(|uplink| uplink.start(&supervisor)).transpose()?;
    let alerts = alerts.zip(rules).map(|(alerts, rules)| {
        let ways = (Some(mqtt.publisher()), sending);
        alerts::Service::start(&alerts, rules, &gateway.id, &outbox, ways, &supervisor)
            .map(|handle| (handle, alerts.rules()))
    });
    let (alerts, rules_file) = alerts.transpose()?.unzip();
    let dead_letters = dead_letter::Handle::open(gateway.id.clone(), &outbox).map_err(Error::DeadLetter)?;
    let sources = admin::Sources {
        gateway: gateway.id.clone(),
        mqtt: mqtt.clone(),
        dead_letters,
        outbox: outbox.clone(),
        uplink,
        commands,
        alerts: alerts.clone(),
        tokens,
        command_tokens,
        alert_tokens,
        metrics: renderer,
        shutdown: supervisor.shutdown(),
    };
    let operators = admin::Service::bind(&admin, sources).await?;
    let (health, admin) = operators.addresses().map_err(Error::Start)?;
    operators.start(&supervisor);
    supervisor.spawn(TaskKind::Mqtt, devices.run());
    let again = Reloaded { file, mqtt: mqtt.clone(), alerts: alerts.zip(rules_file) };
    supervisor.spawn(TaskKind::Reload, reload(hangup, again, supervisor.shutdown()));

    tracing::info!(gateway = %gateway.id, log = %outbox.log(), epoch = %outbox.epoch(), "ready");
    announce(&Ready { ready: true, mqtt: listeners(&mqtt), health, admin });

    let failure = tokio::select! {
        () = stop.asked() => None,
        reason = supervisor.failed() => Some(reason),
    };
    shut_down(&supervisor, &outbox, gateway.grace).await;
    failure.map_or(Ok(()), |reason| Err(Error::Failed(reason)))
}

/// What may change while running, and where it stands.
#[derive(Clone)]
struct Reloaded {
    file: PathBuf,
    mqtt: mqtt::Handle,
    alerts: Option<(alerts::Handle, alerts::RulesFile)>,
}

/// Reads again what may change while running, each time SIGHUP asks for it.
async fn reload(mut asked: Signal, what: Reloaded, shutdown: Shutdown) -> io::Result<()> {
    loop {
        tokio::select! {
            biased;
            () = shutdown.reached(Phase::StopAccepting) => return Ok(()),
            asked = asked.recv() => if asked.is_none() { return Ok(()) },
        }
        let Reloaded { file, mqtt, alerts } = what.clone();
        let read = move || {
            match Settings::load(&file, std::env::vars()) {
                Ok(settings) => mqtt.reload(Ok::<_, ConfigError>(&settings.mqtt.access.rules)),
                Err(error) => mqtt.reload(Err(error)),
            };
            if let Some((alerts, rules_file)) = alerts {
                alerts.reload(rules_file.load());
            }
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
    }
}

/// Who reads the outbox. Dead letters wait for an operator, also while nothing is sent: a consumer
/// that is left out loses its place.
#[must_use]
pub fn consumers(uplink: bool, alerts: Option<&alerts::Config>) -> Vec<outbox::ConsumerId> {
    let sending = if uplink { uplink::consumers() } else { Vec::new() };
    let watching = alerts.map(alerts::consumers).unwrap_or_default();
    sending.into_iter().chain(watching).chain([dead_letter::consumer()]).collect()
}

fn listeners(mqtt: &mqtt::Handle) -> Vec<ReadyListener> {
    let addresses = mqtt.addresses().iter();
    let told = |&mqtt::Address { address, tls, websocket }| ReadyListener { address, tls, websocket };
    addresses.map(told).collect()
}

/// Walks through the phases, giving each its share of the grace.
async fn shut_down(supervisor: &Supervisor, outbox: &outbox::Handle, grace: Duration) {
    let started = clock::now();
    tracing::info!(grace_seconds = grace.as_secs(), "stopping");
    supervisor.enter(Phase::StopAccepting);
    within(grace / 10, "listeners", supervisor.idle(TaskKind::Listener)).await;
    supervisor.enter(Phase::FinishPublishes);
    within(grace / 3, "connections", async {
        supervisor.idle(TaskKind::Connection).await;
        supervisor.idle(TaskKind::Commands).await;
        supervisor.idle(TaskKind::CommandLink).await;
    })
    .await;
    supervisor.enter(Phase::DrainUplink);
    outbox.wake();
    within(grace / 2, "uplink and alerts", async {
        supervisor.idle(TaskKind::Uplink).await;
        supervisor.idle(TaskKind::Alerts).await;
        supervisor.idle(TaskKind::EventGrid).await;
        supervisor.idle(TaskKind::AlertCommands).await;
        supervisor.idle(TaskKind::Reactions).await;
    })
    .await;
    close_outbox(outbox, started + grace).await;
    supervisor.enter(Phase::Close);
    within(Duration::from_secs(1), "admin", supervisor.idle(TaskKind::Admin)).await;
    tracing::info!(seconds = (clock::now() - started).as_secs_f64(), "stopped");
}

/// Closing syncs to disk, so it stays off the workers.
async fn close_outbox(outbox: &outbox::Handle, deadline: Instant) {
    let outbox = outbox.clone();
    let closed = tokio::task::spawn_blocking(move || outbox.close(deadline)).await;
    if !matches!(closed, Ok(true)) {
        tracing::warn!("the outbox did not close in its share of the grace; the next start recovers it");
    }
}

async fn within(limit: Duration, what: &'static str, end: impl Future<Output = ()>) {
    if tokio::time::timeout(limit, end).await.is_err() {
        tracing::warn!(what, limit_ms = limit.as_millis(), "did not end in its share of the grace");
    }
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

impl Error {
    /// Whether the configuration, and not the world, has to change.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        match self {
            Self::Rules(_) => true,
            Self::Mqtt(error) => !matches!(error, mqtt::Error::Listen { .. }),
            Self::Uplink(error) => matches!(error, uplink::StartError::Client(_)),
            _ => false,
        }
    }
}
