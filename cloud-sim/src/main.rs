//! The command line of cloud-sim.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use cloud_sim::eventgrid::{EventGrid, Kind};
use cloud_sim::servicebus::{Entities, ServiceBus};
use cloud_sim::{
    BATCH_BYTES_MAX_DEFAULT, CONNECTIONS_MAX_DEFAULT, Config, IDLE_DEFAULT, OAuth, POLICY_VIOLATION_DEFAULT,
    Quota, TOKEN_LIFE_DEFAULT, TopicSpec,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A local stand-in for Azure Event Hubs, Azure Service Bus and Azure Event Grid, for tests and demonstrations. It is
/// a test double.
#[derive(Debug, Parser)]
#[command(name = "cloud-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT. Prints one line of JSON to stdout when ready; logs go to stderr.
    Run(Run),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("takes_tokens").args(["kafka_tls", "servicebus", "eventgrid"]).multiple(true)))]
struct Run {
    /// Address of the Kafka listener without TLS; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    kafka: SocketAddr,
    /// Address of the Kafka listener with TLS; there is none without this.
    #[arg(long)]
    kafka_tls: Option<SocketAddr>,
    /// Address of the control API, which has no authentication.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Directory for logs and the test authority's certificate.
    #[arg(long)]
    data: PathBuf,
    /// A topic to create if it is not there, as NAME:PARTITIONS. May be given several times.
    #[arg(long = "topic")]
    topics: Vec<TopicSpec>,
    /// File that holds the connection string which clients of the TLS listener must show.
    #[arg(long)]
    sasl_key_file: Option<PathBuf>,
    #[command(flatten)]
    oauth: OAuthOptions,
    #[command(flatten)]
    service_bus: ServiceBusOptions,
    #[command(flatten)]
    event_grid: EventGridOptions,
    /// Ask clients of the listener without TLS for the key too.
    #[arg(long, requires = "sasl_key_file")]
    plain_requires_sasl: bool,
    /// Host that clients are told to connect to; by default the address they reached.
    #[arg(long)]
    advertised_host: Option<String>,
    /// Seconds of silence after which a Kafka connection is closed, as Azure does.
    #[arg(long, default_value_t = IDLE_DEFAULT.as_secs())]
    idle_seconds: u64,
    /// The same in milliseconds, for tests that cannot wait; goes before --idle-seconds.
    #[arg(long)]
    idle_ms: Option<u64>,
    /// Records per second that the namespace takes over all topics; above it answers are delayed. 0: no limit.
    #[arg(long, default_value_t = 0)]
    event_rate: u64,
    /// Bytes of record batches per second that the namespace takes over all topics. 0: no limit.
    #[arg(long, default_value_t = 0)]
    byte_rate: u64,
    /// Longest delay in milliseconds; what would be delayed longer gets POLICY_VIOLATION and is not stored.
    #[arg(long, default_value_t = u64::try_from(POLICY_VIOLATION_DEFAULT.as_millis()).unwrap_or(u64::MAX))]
    policy_violation_ms: u64,
    /// Whether batches may be compressed with gzip: yes as on Premium and Dedicated, no as on Standard.
    #[arg(long, value_enum, default_value_t = Gzip::Allow)]
    gzip: Gzip,
    /// Largest record batch in bytes; larger ones get MESSAGE_TOO_LARGE.
    #[arg(long, default_value_t = BATCH_BYTES_MAX_DEFAULT)]
    batch_bytes_max: usize,
    /// Most Kafka connections at a time.
    #[arg(long, default_value_t = CONNECTIONS_MAX_DEFAULT)]
    connections_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Gzip {
    Allow,
    Refuse,
}

/// Tokens of Microsoft Entra.
#[derive(Debug, Args)]
struct OAuthOptions {
    /// Let clients of Kafka's TLS listener (OAUTHBEARER), of Service Bus and of Event Grid sign in with tokens, and serve
    /// endpoints that give them.
    #[arg(long, requires = "takes_tokens")]
    oauth: bool,
    /// Address of the token endpoints, plain HTTP.
    #[arg(long, default_value = "127.0.0.1:0", requires = "oauth")]
    tokens: SocketAddr,
    /// How long tokens live, in seconds. Connections end with their token.
    #[arg(long, default_value_t = TOKEN_LIFE_DEFAULT.as_secs(), requires = "oauth")]
    token_seconds: u64,
    /// Host of the namespace that tokens are for.
    #[arg(long, default_value = OAuth::AUDIENCE, requires = "oauth")]
    oauth_audience: String,
    /// The tenant.
    #[arg(long, default_value = OAuth::TENANT, requires = "oauth")]
    oauth_tenant: String,
    /// The only identity that gets tokens.
    #[arg(long, default_value = OAuth::CLIENT_ID, requires = "oauth")]
    oauth_client_id: String,
    /// File with the secret that it may show.
    #[arg(long, requires = "oauth")]
    oauth_secret_file: Option<PathBuf>,
    /// File with the assertion that it may show; read at each request.
    #[arg(long, requires = "oauth")]
    oauth_assertion_file: Option<PathBuf>,
}

impl OAuthOptions {
    fn into_config(self) -> anyhow::Result<Option<OAuth>> {
        if !self.oauth {
            return Ok(None);
        }
        Ok(Some(OAuth {
            listener: self.tokens,
            audience: self.oauth_audience,
            tenant: self.oauth_tenant,
            client_id: self.oauth_client_id,
            secret: self.oauth_secret_file.as_deref().map(read_secret).transpose()?,
            assertion_file: self.oauth_assertion_file,
            life: Duration::from_secs(self.token_seconds),
        }))
    }
}

/// The Service Bus side.
#[derive(Debug, Args)]
struct ServiceBusOptions {
    /// Address of the AMQP listener of Service Bus, without TLS; there is no Service Bus without this.
    #[arg(long)]
    servicebus: Option<SocketAddr>,
    /// Address of its listener with TLS.
    #[arg(long, requires = "servicebus")]
    servicebus_tls: Option<SocketAddr>,
    /// Address of its listener for AMQP in WebSocket messages, with TLS.
    #[arg(long, requires = "servicebus")]
    servicebus_websocket: Option<SocketAddr>,
    /// File with its queues and topics, JSON.
    #[arg(long, requires = "servicebus")]
    servicebus_config: Option<PathBuf>,
    /// File with the key of the rule RootManageSharedAccessKey; by default the key is SAS_KEY_VALUE.
    #[arg(long, requires = "servicebus")]
    servicebus_key_file: Option<PathBuf>,
}

impl ServiceBusOptions {
    fn into_config(self) -> anyhow::Result<Option<ServiceBus>> {
        let Some(listener) = self.servicebus else { return Ok(None) };
        let entities = match &self.servicebus_config {
            None => Entities::default(),
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
                serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?
            }
        };
        let mut config = ServiceBus::new(entities);
        config.listener = listener;
        config.tls = self.servicebus_tls;
        config.websocket = self.servicebus_websocket;
        if let Some(path) = &self.servicebus_key_file {
            config.key = read_secret(path)?;
        }
        Ok(Some(config))
    }
}

/// The Event Grid side.
#[derive(Debug, Args)]
struct EventGridOptions {
    /// Address of Event Grid's HTTP listener, without TLS; there is no Event Grid without this.
    #[arg(long)]
    eventgrid: Option<SocketAddr>,
    /// Address of its listener with TLS.
    #[arg(long, requires = "eventgrid")]
    eventgrid_tls: Option<SocketAddr>,
    /// What answers at /api/events.
    #[arg(long, value_enum, default_value_t = EventGridKind::Topic, requires = "eventgrid")]
    eventgrid_kind: EventGridKind,
    /// A topic of the namespace, at /topics/NAME:publish. May be given several times.
    #[arg(long = "eventgrid-topic", requires = "eventgrid")]
    eventgrid_topics: Vec<String>,
    /// File with the first access key, Base64; by default both are known ones.
    #[arg(long, requires = "eventgrid")]
    eventgrid_key_file: Option<PathBuf>,
    /// Take tokens only, neither keys nor signatures.
    #[arg(long, requires = "eventgrid")]
    eventgrid_tokens_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventGridKind {
    Topic,
    Domain,
}

impl EventGridOptions {
    fn into_config(self) -> anyhow::Result<Option<EventGrid>> {
        let Some(listener) = self.eventgrid else { return Ok(None) };
        let mut config = EventGrid::new();
        config.listener = listener;
        config.tls = self.eventgrid_tls;
        config.kind = match self.eventgrid_kind {
            EventGridKind::Topic => Kind::Topic,
            EventGridKind::Domain => Kind::Domain,
        };
        config.namespace_topics = self.eventgrid_topics;
        config.local_auth = !self.eventgrid_tokens_only;
        if let Some(path) = &self.eventgrid_key_file {
            config.keys[0] = read_secret(path)?;
        }
        Ok(Some(config))
    }
}

fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("key file {}", path.display()))?;
    Ok(text.trim().to_owned())
}

impl Run {
    fn into_config(self) -> anyhow::Result<Config> {
        let sasl_key = self.sasl_key_file.as_deref().map(read_secret).transpose()?;
        Ok(Config {
            kafka: self.kafka,
            kafka_tls: self.kafka_tls,
            control: self.control,
            data: self.data,
            topics: self.topics,
            sasl_key,
            oauth: self.oauth.into_config()?,
            plain_requires_sasl: self.plain_requires_sasl,
            advertised_host: self.advertised_host,
            idle: self.idle_ms.map_or_else(|| Duration::from_secs(self.idle_seconds), Duration::from_millis),
            batch_bytes_max: self.batch_bytes_max,
            connections_max: self.connections_max,
            quota: Quota { events: self.event_rate, bytes: self.byte_rate },
            policy_violation: Duration::from_millis(self.policy_violation_ms),
            gzip: self.gzip == Gzip::Allow,
            service_bus: self.service_bus.into_config()?,
            event_grid: self.event_grid.into_config()?,
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
    let Command::Run(run) = Arguments::parse().command;
    // Taken before anyone is told that we are ready, so that an early signal ends us cleanly too.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let running = cloud_sim::start(run.into_config()?).await?;
    let (bus, grid) = (running.service_bus.as_ref(), running.event_grid.as_ref());
    let ready = serde_json::json!({
        "ready": true,
        "kafka": running.kafka.to_string(),
        "kafka_tls": running.kafka_tls.map(|address| address.to_string()),
        "control": running.control.to_string(),
        "tokens": running.tokens.map(|address| address.to_string()),
        "servicebus": bus.map(|bus| bus.amqp.to_string()),
        "servicebus_tls": bus.and_then(|bus| Some(bus.amqp_tls?.to_string())),
        "servicebus_websocket": bus.and_then(|bus| Some(bus.websocket?.to_string())),
        "servicebus_connection_string": bus.map(|bus| bus.connection_string.clone()),
        "eventgrid": grid.map(|grid| grid.http.to_string()),
        "eventgrid_tls": grid.and_then(|grid| Some(grid.https?.to_string())),
        "ca_file": running.ca_file,
    });
    tracing::info!(kafka = %running.kafka, control = %running.control, "ready");
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).context("stdout")?;
    drop(stdout);
    tokio::select! {
        _signal = terminate.recv() => {}
        _signal = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}
