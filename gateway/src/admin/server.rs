//! The two HTTP listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::{Config, Status, dead_letters, health};
use crate::observe::Renderer;
use crate::supervise::{Phase, Shutdown, Supervisor, TaskKind};
use crate::{alerts, azure, commands, dead_letter, mqtt, outbox, uplink};

/// How often histogram samples are sorted into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The stages whose state is shown.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Who this gateway is.
    pub gateway: penstock_proto::GatewayId,
    /// Devices in.
    pub mqtt: mqtt::Handle,
    /// The durable outbox.
    pub outbox: outbox::Handle,
    /// What Event Hubs refused.
    pub dead_letters: dead_letter::Handle,
    /// Event Hubs out; `None` when it is switched off.
    pub uplink: Option<uplink::Handle>,
    /// Commands out of Service Bus; `None` when there are none.
    pub commands: Option<commands::Handle>,
    /// Rules and alerts; `None` when there are none.
    pub alerts: Option<alerts::Handle>,
    /// The token of Microsoft Entra that the uplink signs in with.
    pub tokens: Option<azure::TokenHandle>,
    /// The one that the commands sign in with.
    pub command_tokens: Option<azure::TokenHandle>,
    /// Those that alerts are sent with, one for each destination that takes them.
    pub alert_tokens: Vec<azure::TokenHandle>,
    /// The metrics.
    pub metrics: Renderer,
    /// How far a stop has come.
    pub shutdown: Shutdown,
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{name} listener: cannot bind {address}")]
pub struct Error {
    name: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// The bound listeners, ready to run.
#[derive(Debug)]
pub struct Service {
    health: TcpListener,
    admin: TcpListener,
    sources: Arc<Sources>,
}

impl Service {
    /// Binds both listeners.
    ///
    /// # Errors
    ///
    /// When an address is taken or not of this box.
    pub async fn bind(config: &Config, sources: Sources) -> Result<Self, Error> {
        Ok(Self {
            health: bind("health", config.health_address).await?,
            admin: bind("admin", config.admin_address).await?,
            sources: Arc::new(sources),
        })
    }

    /// Where health and the API are answered, in this order.
    ///
    /// # Errors
    ///
    /// When the operating system does not say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.health.local_addr()?, self.admin.local_addr()?))
    }

    /// Answers until the last phase of a stop.
    pub fn start(self, supervisor: &Supervisor) {
        let health_metrics = self.sources.metrics.clone();
        let health = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Arc::clone(&self.sources));
        let admin = Router::new()
            .route("/api/v1/status", get(status))
            .route("/api/v1/dead-letter/retry", post(dead_letters::retry))
            .route("/api/v1/dead-letter/discard", post(dead_letters::discard))
            .with_state(self.sources);
        supervisor.spawn(TaskKind::Admin, upkeep(health_metrics, supervisor.shutdown()));
        for (listener, router) in [(self.health, health), (self.admin, admin)] {
            let shutdown = supervisor.shutdown();
            supervisor.spawn(TaskKind::Admin, async move {
                // What is being answered at the end is cut: a stop never waits for an operator.
                tokio::select! {
                    ended = axum::serve(listener, router).into_future() => ended,
                    () = shutdown.reached(Phase::Close) => Ok(()),
                }
            });
        }
    }
}

/// Keeps the histograms' memory bounded while nobody asks for metrics.
async fn upkeep(metrics: Renderer, shutdown: Shutdown) -> Result<(), io::Error> {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => metrics.upkeep(),
            () = shutdown.reached(Phase::Close) => return Ok(()),
        }
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error { name, address, source })
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(sources): State<Arc<Sources>>) -> impl IntoResponse {
    match health::not_ready(&sources) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(sources): State<Arc<Sources>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], sources.metrics.render())
}

async fn status(State(sources): State<Arc<Sources>>) -> impl IntoResponse {
    Json(Status::of(&sources))
}
