//! The part of the control API that is about Service Bus: entities, messages, the log, faults.

mod message;
#[cfg(test)]
mod tests;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use self::message::Order;
use super::broker::{Broker, Counters, Fault, Page, Refusal as Refused};
use super::config::Entities;
use crate::control::{Refusal, order};

/// Largest body: a list of messages.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Path of an entity's dead-letter queue.
const DEAD: &str = "/$DeadLetterQueue";

type Answer<T> = Result<Json<T>, Refusal>;

/// The orders, to be merged into the control API.
pub(crate) fn router(broker: Broker) -> Router {
    Router::new()
        .route("/servicebus/entities", get(entities).post(create))
        .route("/servicebus/entities/{*path}", get(view).delete(delete).post(send))
        .route("/servicebus/wire-log", get(log))
        .route("/servicebus/counters", get(counters))
        .route("/servicebus/faults", post(fault))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(broker)
}

async fn entities(State(broker): State<Broker>) -> Json<Value> {
    Json(json!({ "entities": broker.entities() }))
}

async fn create(State(broker): State<Broker>, body: Bytes) -> Answer<Value> {
    let entities: Entities = order(&body)?;
    broker.create(&entities).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(json!({ "created": entities.count() })))
}

/// `NAME` or `NAME/dead`.
async fn view(State(broker): State<Broker>, Path(path): Path<String>) -> Answer<Value> {
    let entity = match path.strip_suffix("/dead") {
        Some(name) => format!("{name}{DEAD}"),
        None => path,
    };
    let view = broker.view(&entity).map_err(refusal)?;
    serde_json::to_value(view)
        .map(Json)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn delete(State(broker): State<Broker>, Path(name): Path<String>) -> Answer<Value> {
    if broker.delete(&name) {
        return Ok(Json(json!({ "deleted": true })));
    }
    Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no queue or topic {name:?}")))
}

/// `NAME/messages`.
async fn send(State(broker): State<Broker>, Path(path): Path<String>, body: Bytes) -> Answer<Value> {
    let Some(name) = path.strip_suffix("/messages") else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no such path; see docs/cloud-sim.md".to_owned()));
    };
    let orders: Vec<Order> = order(&body)?;
    let now_ms = crate::tokens::unix_ms();
    let messages = orders.iter().map(|order| order.message(now_ms));
    let messages = messages.collect::<Result<Vec<_>, String>>();
    let messages = messages.map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
    Ok(Json(json!({ "sequence_numbers": broker.send(name, messages).map_err(refusal)? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn log(State(broker): State<Broker>, Query(query): Query<After>) -> Json<Page> {
    Json(broker.log_after(query.after))
}

async fn counters(State(broker): State<Broker>) -> Json<Counters> {
    Json(broker.counters())
}

async fn fault(State(broker): State<Broker>, body: Bytes) -> Answer<Value> {
    let fault: Fault = order(&body)?;
    Ok(Json(json!({ "met": broker.order(fault).map_err(refusal)? })))
}

fn refusal(refused: Refused) -> Refusal {
    let status = match refused.condition {
        Refused::NOT_FOUND => StatusCode::NOT_FOUND,
        Refused::SESSION_LOCK_LOST | Refused::MESSAGE_LOCK_LOST => StatusCode::GONE,
        Refused::SERVER_BUSY => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, format!("{}: {}", refused.condition, refused.description))
}
