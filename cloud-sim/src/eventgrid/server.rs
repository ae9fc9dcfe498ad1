//! Answers requests: faults, judgement, log.

use std::future::pending;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, request};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use super::auth::Guard;
use super::config::{EventGrid, Kind};
use super::faults::{After, Before, Fault, Faults};
use super::listener::{Door as Socket, Open, Switch};
use super::log::{Log, Totals};
use super::refusal::Refusal;
use super::request::{BYTES_MAX, Door, Event};
use crate::error::Error;
use crate::tokens::{Tokens, unix_ms};

/// Connections of both listeners together.
const CONNECTIONS_MAX: usize = 1_024;
/// Of a body that is too large as much is read, so that the client sees the answer rather than a cut connection.
const READ_MAX: usize = 8 * BYTES_MAX;

/// Where a running Event Grid side is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub http: SocketAddr,
    /// HTTPS.
    pub https: Option<SocketAddr>,
}

/// Requests by what became of them, since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Requests {
    requests: u64,
    /// Answered with 200.
    answered: u64,
    /// Answered with an error, by status.
    refused: std::collections::BTreeMap<u16, u64>,
    /// Never answered, or cut off.
    unanswered: u64,
    /// Events of requests that were refused after they were read.
    events_refused: u64,
}

/// What the listeners and the control API share.
#[derive(Debug)]
pub(crate) struct Shared {
    kind: Kind,
    topics: Vec<String>,
    guard: Mutex<Guard>,
    faults: Mutex<Faults>,
    log: Mutex<Log>,
    requests: Mutex<Requests>,
    pub(super) open: Open,
}

impl Shared {
    pub(super) fn is_away(&self) -> bool {
        self.faults.lock().is_away()
    }

    pub(super) fn slow_tls(&self) -> Duration {
        self.faults.lock().slow_tls()
    }

    pub(super) fn requests(&self) -> Requests {
        self.requests.lock().clone()
    }

    pub(super) fn totals(&self) -> Totals {
        self.log.lock().totals()
    }

    /// Looks at the log.
    pub(super) fn read_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock())
    }

    /// Carries an order out; gives how many connections it met.
    pub(super) fn order(&self, fault: &Fault) -> Result<usize, String> {
        self.faults.lock().set(fault, Instant::now())?;
        match fault {
            Fault::CutConnections {} | Fault::Away { enabled: true } => Ok(self.open.cut()),
            Fault::RotateKey { key } => {
                if let Some(first) = self.guard.lock().keys.first_mut() {
                    key.clone_into(first);
                }
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    /// Judges a request and accepts its events.
    fn publish(&self, parts: &request::Parts, body: &[u8]) -> Result<Door, Refusal> {
        let number = self.requests.lock().requests;
        let door = Door::find(&parts.uri, &self.topics)?;
        if parts.method != Method::POST {
            let message = "The requested resource does not support this method.";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
        }
        let now = i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX);
        self.guard.lock().judge(&door, &parts.uri, &parts.headers, now)?;
        door.check_version(&parts.uri)?;
        let events = door.read(self.kind, &parts.headers, body)?;
        self.accept(number, events)?;
        Ok(door)
    }

    fn accept(&self, request: u64, events: Vec<Event>) -> Result<(), Refusal> {
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let accepted = self.faults.lock().judge(&events, Instant::now()).and_then(|()| {
            self.log.lock().append(request, unix_ms(), events).map_err(|error| {
                tracing::error!(%error, "events not written");
                let status = match error.kind() {
                    ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Refusal::new(status, "NotWritten", error.to_string())
            })
        });
        if accepted.is_err() {
            self.requests.lock().events_refused += count;
        }
        accepted
    }

    fn count(&self, status: Option<StatusCode>) {
        let mut requests = self.requests.lock();
        match status {
            None => requests.unanswered += 1,
            Some(StatusCode::OK) => requests.answered += 1,
            Some(status) => *requests.refused.entry(status.as_u16()).or_default() += 1,
        }
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    shared.requests.lock().requests += 1;
    let body = read(body).await;
    let before = shared.faults.lock().before();
    let answer = match before {
        Before::Silence => {
            shared.count(None);
            // Until the client gives up and the connection ends.
            return pending().await;
        }
        Before::Cut => return cut(&shared, &switch),
        Before::Refuse(refusal) => Err(refusal),
        Before::Go => match body {
            Some(body) => shared.publish(&parts, &body),
            None => Door::find(&parts.uri, &shared.topics)
                .and_then(|door| Err(door.too_large(&format!("more than {READ_MAX} bytes")))),
        },
    };
    let (after, delay) = {
        let mut faults = shared.faults.lock();
        (if answer.is_ok() { faults.after() } else { After::Answer }, faults.delay())
    };
    if !delay.is_zero() {
        sleep(delay).await;
    }
    match (answer, after) {
        (_, After::Cut) => cut(&shared, &switch),
        (Err(refusal), _) | (Ok(_), After::Refuse(refusal)) => {
            tracing::debug!(status = %refusal.status, reason = refusal.message, "request refused");
            shared.count(Some(refusal.status));
            refusal.into_response()
        }
        (Ok(door), After::Answer) => {
            shared.count(Some(StatusCode::OK));
            match door {
                Door::Events => StatusCode::OK.into_response(),
                Door::Namespace(_) => Json(Value::Object(Map::new())).into_response(),
            }
        }
    }
}

/// The body, unless it is far too large.
async fn read(body: Body) -> Option<Bytes> {
    to_bytes(body, READ_MAX).await.ok()
}

/// Cuts a connection. What is returned is not written any more.
fn cut(shared: &Shared, switch: &Switch) -> Response {
    shared.count(None);
    switch.cut();
    Json(json!({})).into_response()
}

/// Bound listeners and what they share.
pub(crate) struct Service {
    shared: Arc<Shared>,
    doors: Vec<Socket>,
    addresses: Addresses,
}

impl Service {
    /// Reads the log and binds the listeners. `acceptor` is there when one of them has TLS.
    pub(crate) async fn bind(
        settings: &EventGrid,
        data: &Path,
        acceptor: Option<&TlsAcceptor>,
        tokens: Option<Arc<Tokens>>,
    ) -> Result<Self, Error> {
        let guard = Guard { keys: settings.keys.clone(), local_auth: settings.local_auth, tokens };
        let shared = Arc::new(Shared {
            kind: settings.kind,
            topics: settings.namespace_topics.clone(),
            guard: Mutex::new(guard),
            faults: Mutex::default(),
            log: Mutex::new(Log::open(data)?),
            requests: Mutex::default(),
            open: Open::default(),
        });
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let bind =
            async |address, tls| Socket::bind(address, tls, Arc::clone(&shared), Arc::clone(&permits)).await;
        let plain = bind(settings.listener, None).await?;
        let mut addresses = Addresses { http: plain.address(), https: None };
        let mut doors = vec![plain];
        if let Some(address) = settings.tls {
            let secured = bind(address, acceptor.cloned()).await?;
            addresses.https = Some(secured.address());
            doors.push(secured);
        }
        Ok(Self { shared, doors, addresses })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// Starts the listeners, until `stop` changes or its sender is gone.
    pub(crate) fn spawn(self, tasks: &mut JoinSet<()>, stop: &watch::Sender<bool>) {
        for door in self.doors {
            let app = any(serve).with_state(Arc::clone(&self.shared));
            let ready = door.open(tasks, stop.subscribe());
            let mut stop = stop.subscribe();
            tasks.spawn(async move {
                let service = app.into_make_service_with_connect_info::<Switch>();
                tokio::select! {
                    served = axum::serve(ready, service) => {
                        if let Err(error) = served {
                            tracing::error!(%error, "Event Grid ended");
                        }
                    }
                    _changed = stop.changed() => {}
                }
            });
        }
    }
}
