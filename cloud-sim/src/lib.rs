//! A stand-in for Azure Event Hubs: a small Kafka broker with Event Hubs' limits, in one process; and, if asked
//! for, one for Azure Service Bus and one for Azure Event Grid beside it, see
//! [`servicebus`] and [`eventgrid`].
//!
//! It is a test double. It keeps what it acknowledged, judges idempotent producers, and fails on order; it
//! has no replication, no retention, no consumer groups and no transactions. What it simulates and what it
//! does not is written down in `docs/cloud-sim.md`.
//!
//! ```text
//! client --> server (frames, SASL, TLS) --> broker (logs, producers, counters) --> files under DATA
//!                     protocol (bytes <-> requests)        ^
//!                                     control (HTTP) ------+
//! ```

mod amqp;
mod broker;
mod control;
mod error;
pub mod eventgrid;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod protocol;
mod server;
pub mod servicebus;
mod tokens;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::broker::{Broker, Limits};
pub use crate::broker::{Quota, TopicSpec};
use crate::control::Control;
pub use crate::error::{Error, TopicError};
use crate::eventgrid::EventGrid;
use crate::server::{Identity, Listener, Security};
use crate::servicebus::{Addresses, Service, ServiceBus};
use crate::tokens::{Endpoints, Tokens};
pub use crate::tokens::{OAuth, TOKEN_LIFE_DEFAULT};

/// Azure drops connections that were silent for this long.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(240);
/// The largest batch, by default: 1 MB, the limit of an event.
pub const BATCH_BYTES_MAX_DEFAULT: usize = 1_000_000;
/// Event Hubs answers POLICY_VIOLATION to what it would have to delay longer than clients wait.
pub const POLICY_VIOLATION_DEFAULT: Duration = Duration::from_secs(60);
/// Connections of all Kafka listeners together, by default.
pub const CONNECTIONS_MAX_DEFAULT: usize = 1_024;

/// What to start.
#[derive(Clone)]
pub struct Config {
    /// Where the listener without TLS binds; port 0 takes a free one.
    pub kafka: SocketAddr,
    /// Where the listener with TLS binds, if there is to be one.
    pub kafka_tls: Option<SocketAddr>,
    /// Where the control API binds.
    pub control: SocketAddr,
    /// Where logs and the authority's certificate are kept. One process at a time.
    pub data: PathBuf,
    /// Topics to create if they are not there.
    pub topics: Vec<TopicSpec>,
    /// The connection string clients of the TLS listener must show; `None` lets everyone in.
    pub sasl_key: Option<String>,
    /// Who gets tokens, which clients of the TLS listener may show instead of the key; `None` takes none.
    pub oauth: Option<OAuth>,
    /// Ask clients of the listener without TLS for the key or a token too.
    pub plain_requires_sasl: bool,
    /// The host clients are told to connect to; by default the address they reached.
    pub advertised_host: Option<String>,
    /// Silence after which a connection is closed.
    pub idle: Duration,
    /// Largest batch, in bytes.
    pub batch_bytes_max: usize,
    /// Most connections of all Kafka listeners together.
    pub connections_max: usize,
    /// What may come in per second. Over it, answers are delayed.
    pub quota: Quota,
    /// A longer delay than this is POLICY_VIOLATION instead, and nothing is stored.
    pub policy_violation: Duration,
    /// Whether batches may be compressed with gzip, as on the Premium and Dedicated tiers.
    pub gzip: bool,
    /// The Service Bus side; there is none without this.
    pub service_bus: Option<ServiceBus>,
    /// The Event Grid side; there is none without this.
    pub event_grid: Option<EventGrid>,
}

/// Everything but the key.
impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Config")
            .field("kafka", &self.kafka)
            .field("kafka_tls", &self.kafka_tls)
            .field("control", &self.control)
            .field("data", &self.data)
            .field("topics", &self.topics)
            .field("service_bus", &self.service_bus)
            .field("event_grid", &self.event_grid)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Free ports on 127.0.0.1, no TLS, no key, no topics.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            kafka: any,
            kafka_tls: None,
            control: any,
            data: data.into(),
            topics: Vec::new(),
            sasl_key: None,
            oauth: None,
            plain_requires_sasl: false,
            advertised_host: None,
            idle: IDLE_DEFAULT,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            quota: Quota::default(),
            policy_violation: POLICY_VIOLATION_DEFAULT,
            gzip: true,
            service_bus: None,
            event_grid: None,
        }
    }

    /// Adds a topic.
    #[must_use]
    pub fn with_topic(mut self, topic: TopicSpec) -> Self {
        self.topics.push(topic);
        self
    }

    /// Adds a TLS listener on a free port of 127.0.0.1 whose clients must show `key`.
    #[must_use]
    pub fn with_tls(mut self, key: impl Into<String>) -> Self {
        self.kafka_tls = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        self.sasl_key = Some(key.into());
        self
    }

    /// Adds a TLS listener on a free port of 127.0.0.1 whose clients must show a token, and endpoints that give them.
    #[must_use]
    pub fn with_oauth(mut self, oauth: OAuth) -> Self {
        self.kafka_tls = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        self.oauth = Some(oauth);
        self
    }

    /// Adds a Service Bus side.
    #[must_use]
    pub fn with_service_bus(mut self, service_bus: ServiceBus) -> Self {
        self.service_bus = Some(service_bus);
        self
    }

    /// Adds an Event Grid side.
    #[must_use]
    pub fn with_event_grid(mut self, event_grid: EventGrid) -> Self {
        self.event_grid = Some(event_grid);
        self
    }

    /// Where the first listener with TLS binds, if there is any.
    fn first_tls(&self) -> Option<SocketAddr> {
        let service_bus = self.service_bus.as_ref();
        let event_grid = self.event_grid.as_ref();
        let amqp = || service_bus?.tls.or(service_bus?.websocket);
        self.kafka_tls.or_else(amqp).or_else(|| event_grid?.tls)
    }
}

/// A cloud-sim that was started. Dropping it ends it without waiting.
#[derive(Debug)]
pub struct Running {
    /// The listener without TLS.
    pub kafka: SocketAddr,
    /// The listener with TLS.
    pub kafka_tls: Option<SocketAddr>,
    /// The control API.
    pub control: SocketAddr,
    /// The token endpoints, plain HTTP.
    pub tokens: Option<SocketAddr>,
    /// The Service Bus side.
    pub service_bus: Option<Addresses>,
    /// The Event Grid side.
    pub event_grid: Option<eventgrid::Addresses>,
    /// The certificate that clients of the TLS listeners have to trust.
    pub ca_pem: Option<String>,
    /// The file it was written to.
    pub ca_file: Option<PathBuf>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Closes listeners and connections and waits until that is done. The data directory is free then.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts on the current tokio runtime and returns when every listener is bound.
///
/// Reads and checks all logs in the data directory first, on the calling thread.
///
/// # Errors
/// When an address, the data directory, a topic or the key cannot be used.
pub async fn start(config: Config) -> Result<Running, Error> {
    let key = match config.sasl_key.as_deref() {
        Some("") => return Err(Error::EmptyKey),
        key => key.map(Arc::<str>::from),
    };
    if config.plain_requires_sasl && key.is_none() && config.oauth.is_none() {
        return Err(Error::NoKey);
    }
    let limits = Limits {
        batch_bytes_max: config.batch_bytes_max,
        gzip: config.gzip,
        quota: config.quota,
        quota_delay_max: config.policy_violation,
    };
    let broker = Arc::new(Broker::open(&config.data, &config.topics, limits)?);
    let ca = identity(&config)?;
    let permits = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
    let bind = async |address, security| -> Result<Listener, Error> {
        let listener = Listener::bind(address, security, Arc::clone(&broker), Arc::clone(&permits)).await?;
        Ok(listener.advertise(config.advertised_host.as_deref()).close_idle_after(config.idle))
    };
    let plain_key = key.clone().filter(|_key| config.plain_requires_sasl);
    let tokens = match config.oauth {
        None => None,
        Some(oauth) => Some(Arc::new(Tokens::open(oauth, &config.data, Arc::clone(&broker))?)),
    };
    let plain_tokens = tokens.clone().filter(|_tokens| config.plain_requires_sasl);
    let plain = bind(config.kafka, Security { tls: None, key: plain_key, tokens: plain_tokens }).await?;
    let acceptor = ca.as_ref().map(|(identity, _path)| identity.acceptor.clone());
    let tls = match config.kafka_tls {
        None => None,
        Some(address) => {
            let security = Security { tls: acceptor.clone(), key, tokens: tokens.clone() };
            Some(bind(address, security).await?)
        }
    };
    let endpoints = match &tokens {
        None => None,
        Some(tokens) => Some(Endpoints::bind(Arc::clone(tokens)).await?),
    };
    let service_bus = match &config.service_bus {
        None => None,
        Some(settings) => {
            Some(Service::bind(settings, acceptor.as_ref(), tokens.clone(), config.idle).await?)
        }
    };
    let buses = service_bus.as_ref().map(Service::broker);
    let event_grid = match &config.event_grid {
        None => None,
        Some(settings) => {
            Some(eventgrid::Service::bind(settings, &config.data, acceptor.as_ref(), tokens.clone()).await?)
        }
    };
    let grid = event_grid.as_ref().map(eventgrid::Service::shared);
    let control = Control::bind(config.control, broker, tokens, buses, grid).await?;
    let ca = ca.map(|(identity, path)| (identity.ca_pem, path));
    Ok(run(Parts { plain, tls, control, endpoints, service_bus, event_grid, ca }))
}

/// Makes the identity of the listeners with TLS, if there are any, and writes its authority down.
fn identity(config: &Config) -> Result<Option<(Identity, PathBuf)>, Error> {
    let Some(address) = config.first_tls() else { return Ok(None) };
    let identity = Identity::generate(config.advertised_host.as_deref(), address.ip())?;
    let path = config.data.join("ca.pem");
    fs::write(&path, &identity.ca_pem).map_err(|source| Error::Data { path: path.clone(), source })?;
    Ok(Some((identity, path)))
}

/// Everything that was bound.
struct Parts {
    plain: Listener,
    tls: Option<Listener>,
    control: Control,
    endpoints: Option<Endpoints>,
    service_bus: Option<Service>,
    event_grid: Option<eventgrid::Service>,
    ca: Option<(String, PathBuf)>,
}

fn run(parts: Parts) -> Running {
    let Parts { plain, tls, control, endpoints, service_bus, event_grid, ca } = parts;
    let (ca_pem, ca_file) = ca.unzip();
    let (kafka, control_address) = (plain.address(), control.address());
    let kafka_tls = tls.as_ref().map(Listener::address);
    let token_address = endpoints.as_ref().map(Endpoints::address);
    let service_bus_addresses = service_bus.as_ref().map(Service::addresses);
    let event_grid_addresses = event_grid.as_ref().map(eventgrid::Service::addresses);
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(plain.run(stop.subscribe()));
    if let Some(tls) = tls {
        tasks.spawn(tls.run(stop.subscribe()));
    }
    tasks.spawn(control.run(stop.subscribe()));
    if let Some(endpoints) = endpoints {
        tasks.spawn(endpoints.run(stop.subscribe()));
    }
    if let Some(service_bus) = service_bus {
        service_bus.spawn(&mut tasks, &stop);
    }
    if let Some(event_grid) = event_grid {
        event_grid.spawn(&mut tasks, &stop);
    }
    Running {
        kafka,
        kafka_tls,
        control: control_address,
        tokens: token_address,
        service_bus: service_bus_addresses,
        event_grid: event_grid_addresses,
        ca_pem,
        ca_file,
        stop,
        tasks,
    }
}
