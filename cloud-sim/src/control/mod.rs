//! The control API: HTTP with JSON, for tests that want to see counts and cause faults.
//!
//! Every order is checked before anything changes; what is wrong with it is said in
//! `{"error": "..."}` with status 400. It has no authentication: bind it to loopback.

mod orders;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::broker::{Broker, ProduceErrors, Quota, Snapshot, TopicSpec, Topics, Unauthorized};
use crate::error::Error;
use crate::eventgrid;
use crate::servicebus;
use crate::tokens::{self, Tokens};

/// Largest body of an order.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The bound listener of the control API.
pub(crate) struct Control {
    socket: TcpListener,
    address: SocketAddr,
    broker: Arc<Broker>,
    tokens: Option<Arc<Tokens>>,
    service_bus: Option<servicebus::broker::Broker>,
    event_grid: Option<Arc<eventgrid::Shared>>,
}

impl Control {
    pub(crate) async fn bind(
        address: SocketAddr,
        broker: Arc<Broker>,
        tokens: Option<Arc<Tokens>>,
        service_bus: Option<servicebus::broker::Broker>,
        event_grid: Option<Arc<eventgrid::Shared>>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, broker, tokens, service_bus, event_grid })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` changes or its sender is gone.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let app = Router::new()
            .route("/v1/counters", get(counters))
            .route("/v1/topics", get(topics).post(create_topic))
            .route("/v1/topics/{name}", get(topic))
            .route("/v1/faults/cut", post(cut))
            .route("/v1/faults/lose-ack", post(lose_ack))
            .route("/v1/faults/swallow", post(swallow))
            .route("/v1/faults/accepting", post(accepting))
            .route("/v1/faults/produce-error", post(produce_error))
            .route("/v1/faults/throttle", post(throttle))
            .route("/v1/faults/quota", post(quota))
            .route("/v1/faults/listen", post(listen))
            .route("/v1/faults/authorize", post(authorize))
            .route("/v1/faults/forget-producers", post(forget_producers))
            .fallback(async || {
                Refusal(StatusCode::NOT_FOUND, "no such path; see docs/cloud-sim.md".to_owned())
            })
            .method_not_allowed_fallback(async || {
                Refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "not with this method; see docs/cloud-sim.md".to_owned(),
                )
            })
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self.broker);
        let app = match self.tokens {
            Some(tokens) => app.merge(tokens::control(tokens)),
            None => app,
        };
        let app = match self.service_bus {
            Some(broker) => app.merge(servicebus::control::router(broker)),
            None => app,
        };
        let app = match self.event_grid {
            Some(shared) => app.merge(eventgrid::control::router(shared)),
            None => app,
        };
        // A client that keeps its connection open must not keep the process alive, so the end of `stop`
        // drops the server instead of asking it to finish.
        tokio::select! {
            served = axum::serve(self.socket, app) => {
                if let Err(error) = served {
                    tracing::error!(%error, "control API ended");
                }
            }
            _changed = stop.changed() => {}
        }
    }
}

/// An order that was not carried out, and why.
#[derive(Debug)]
pub(crate) struct Refusal(StatusCode, String);

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: String) -> Self {
        Self(status, reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

fn bad(reason: impl ToString) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, reason.to_string())
}

type Answer<T> = Result<Json<T>, Refusal>;

/// Reads an order. An empty body counts as `{}`.
pub(crate) fn order<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body.as_ref() };
    serde_json::from_slice(body).map_err(|error| bad(format!("body: {error}")))
}

async fn counters(State(broker): State<Arc<Broker>>) -> Json<Snapshot> {
    Json(broker.counters.snapshot())
}

#[derive(Debug, Serialize)]
struct TopicState {
    partitions: Vec<PartitionState>,
}

#[derive(Debug, Serialize)]
struct PartitionState {
    /// The offset the next record will get.
    high_watermark: i64,
    bytes: u64,
}

fn topic_state(topics: &Topics, name: &str) -> Option<TopicState> {
    let topic = topics.get(name)?;
    let partitions = topic.partitions().iter();
    let partitions = partitions
        .map(|log| PartitionState { high_watermark: log.high_watermark(), bytes: log.bytes() })
        .collect();
    Some(TopicState { partitions })
}

async fn topics(State(broker): State<Arc<Broker>>) -> Json<BTreeMap<String, TopicState>> {
    let all = broker.topics.all().into_iter();
    Json(all.filter_map(|(name, _)| topic_state(&broker.topics, &name).map(|state| (name, state))).collect())
}

async fn topic(State(broker): State<Arc<Broker>>, Path(name): Path<String>) -> Answer<TopicState> {
    let state = topic_state(&broker.topics, &name);
    state.map(Json).ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("topic {name:?} does not exist")))
}

async fn create_topic(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<serde_json::Value> {
    let order: orders::CreateTopic = order(&body)?;
    let spec = TopicSpec::new(&order.name, order.partitions).map_err(bad)?;
    let created = spawn_blocking(move || broker.topics.create(&spec)).await;
    match created {
        Ok(Ok(created)) => Ok(Json(json!({ "created": created }))),
        Ok(Err(Error::Topic(refused))) => Err(bad(refused)),
        Ok(Err(error)) => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(error) => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn cut(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<serde_json::Value> {
    let orders::Nothing {} = order(&body)?;
    Ok(Json(json!({ "connections": broker.faults.cut() })))
}

async fn lose_ack(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::LoseAck> {
    let order: orders::LoseAck = order(&body)?;
    broker.faults.set_lose_ack(order.every);
    Ok(Json(order))
}

async fn swallow(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::Swallow> {
    let order: orders::Swallow = order(&body)?;
    broker.faults.set_swallow(order.batches);
    Ok(Json(order))
}

async fn accepting(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::Accepting> {
    let order: orders::Accepting = order(&body)?;
    broker.faults.set_accepting(order.enabled);
    Ok(Json(order))
}

async fn produce_error(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::ProduceError> {
    let order: orders::ProduceError = order(&body)?;
    if let Some(topic) = &order.topic {
        known(&broker, topic)?;
    }
    let code = order.error_code().map_err(bad)?;
    broker.faults.set_produce_errors(ProduceErrors { code, times: order.times, topic: order.topic.clone() });
    Ok(Json(order))
}

async fn throttle(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::Throttle> {
    let order: orders::Throttle = order(&body)?;
    broker.faults.set_throttle_ms(order.checked_ms().map_err(bad)?);
    Ok(Json(order))
}

async fn forget_producers(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<serde_json::Value> {
    let order: orders::ForgetProducers = order(&body)?;
    let unknown = order.error_code().map_err(bad)?;
    let (mut partitions, mut producers) = (0, 0);
    for (_name, topic) in broker.topics.all() {
        partitions += topic.partitions().len();
        producers += topic.partitions().iter().map(|log| log.forget_producers(unknown)).sum::<usize>();
    }
    broker.counters.producers_forgotten.add(u64::try_from(producers).unwrap_or(u64::MAX));
    Ok(Json(json!({ "partitions": partitions, "producers": producers })))
}

async fn quota(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::SetQuota> {
    let order: orders::SetQuota = order(&body)?;
    let quota = Quota { events: order.events, bytes: order.bytes };
    broker.meter.set(quota, order.policy_violation_ms.map(Duration::from_millis));
    Ok(Json(order))
}

async fn listen(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::Listen> {
    let order: orders::Listen = order(&body)?;
    broker.faults.set_listening(order.enabled);
    // A fetch that waits is answered now.
    broker.appended.notify_waiters();
    Ok(Json(order))
}

async fn authorize(State(broker): State<Arc<Broker>>, body: Bytes) -> Answer<orders::Authorize> {
    let order: orders::Authorize = order(&body)?;
    known(&broker, &order.topic)?;
    let refused = (!order.enabled).then_some(Unauthorized { metadata: order.metadata });
    broker.faults.set_unauthorized(&order.topic, refused);
    Ok(Json(order))
}

fn known(broker: &Broker, topic: &str) -> Result<(), Refusal> {
    let found = broker.topics.get(topic).map(drop);
    found.ok_or_else(|| bad(format!("topic {topic:?} does not exist")))
}
