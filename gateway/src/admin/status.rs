//! The answer of `/api/v1/status`.

use serde::Serialize;

use super::alerts::Alerts;
use super::{Sources, health};
use crate::supervise::clock;
use crate::{azure, commands, dead_letter, mqtt, outbox, uplink};

/// What the gateway is doing, at one moment. Fields are added, never renamed.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    gateway: String,
    version: &'static str,
    /// Why devices should go elsewhere for now.
    not_ready: Option<String>,
    mqtt: Mqtt,
    outbox: Outbox,
    uplink: Option<Uplink>,
    /// The token of Microsoft Entra that the uplink signs in with.
    token: Option<Token>,
    /// Commands out of Service Bus.
    commands: Option<Commands>,
    /// The token of Microsoft Entra that the commands sign in with.
    command_token: Option<Token>,
    /// Rules and what they raised.
    alerts: Option<Alerts>,
    /// The tokens of Microsoft Entra that alerts are sent with.
    alert_tokens: Vec<Token>,
    /// What was refused for good and waits for a decision.
    dead_letter: DeadLetter,
}

#[derive(Debug, Clone, Serialize)]
struct Mqtt {
    connections: usize,
    clients: usize,
}

#[derive(Debug, Clone, Serialize)]
struct Outbox {
    log: String,
    epoch: u32,
    queue_bytes: usize,
    backlog_bytes: u64,
    bytes_max: u64,
    poisoned: Option<String>,
    committer_realtime: bool,
    /// Incidents with missing messages that no operator has acknowledged.
    incidents: usize,
    disk_free_bytes: Option<u64>,
    lanes: Vec<LaneState>,
}

#[derive(Debug, Clone, Serialize)]
struct LaneState {
    lane: &'static str,
    next: u64,
    low: u64,
    backlog_messages: u64,
    backlog_bytes: u64,
    oldest_age_seconds: Option<f64>,
    /// Why nothing is taken in.
    refusing: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Uplink {
    connected: bool,
    in_flight: usize,
    in_flight_bytes: usize,
    acked: u64,
    rebuilds: u64,
    held: Vec<Held>,
    /// Why nothing is sent for good.
    fenced: Option<String>,
    /// Until everything that waits is sent; none while that is not known.
    drain_seconds: Option<f64>,
    last_error: Option<String>,
    /// What telemetry and bulk may use for now, as an operator said.
    cap_bytes_per_second: Option<u64>,
    /// Topics that get no telemetry and no bulk for now, as an operator said.
    paused: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Commands {
    /// Messages received and neither settled nor given back.
    pending: usize,
    entities: Vec<CommandEntity>,
    connection: CommandConnection,
    /// The dead-letter queues that are watched.
    dead_letters: Vec<CommandDeadLetters>,
    /// What the gateway itself was told, if it takes commands.
    control: Option<Control>,
}

#[derive(Debug, Clone, Serialize)]
struct CommandConnection {
    open: usize,
    links: usize,
    /// Why the last one ended or did not open, if none opened since.
    last_error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Control {
    session: String,
    limits: Vec<commands::LimitStatus>,
}

#[derive(Debug, Clone, Serialize)]
struct CommandEntity {
    entity: String,
    links: usize,
    accepting: usize,
    /// Connected devices that wait for their session.
    waiting: usize,
    /// Connected devices beyond the budget of links.
    passive: usize,
    parked: usize,
    /// For how much longer nothing is accepted.
    down_seconds: Option<f64>,
    last_error: Option<String>,
    last_error_age_seconds: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct CommandDeadLetters {
    entity: String,
    /// Whether there was a look since the start.
    looked: bool,
    told: u64,
    /// Given up by gateways.
    own: u64,
    /// Still in hand here.
    open: u64,
    /// Not told of, since too many are remembered.
    held: u64,
    unreadable: u64,
    failing: bool,
    last_error: Option<String>,
    last_error_age_seconds: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Token {
    audience: String,
    /// How long it lives; none before the first one, and after one that could not be renewed.
    life_seconds: Option<f64>,
    fetched: u64,
    failures: u32,
    last_error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct DeadLetter {
    entries: u64,
    bytes: u64,
    oldest_age_seconds: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Held {
    topic: String,
    reason: String,
}

impl Status {
    pub(super) fn of(sources: &Sources) -> Self {
        Self {
            gateway: sources.gateway.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            not_ready: health::not_ready(sources),
            mqtt: sources.mqtt.status().into(),
            outbox: sources.outbox.status().into(),
            uplink: sources.uplink.as_ref().map(|uplink| uplink.status().into()),
            token: sources.tokens.as_ref().map(|tokens| tokens.status().into()),
            commands: sources.commands.as_ref().map(|commands| commands.status().into()),
            command_token: sources.command_tokens.as_ref().map(|tokens| tokens.status().into()),
            alerts: sources.alerts.as_ref().map(Alerts::of),
            alert_tokens: sources.alert_tokens.iter().map(|tokens| tokens.status().into()).collect(),
            dead_letter: sources.dead_letters.status().into(),
        }
    }
}

impl From<mqtt::Status> for Mqtt {
    fn from(status: mqtt::Status) -> Self {
        Self { connections: status.connections, clients: status.clients }
    }
}

impl From<outbox::Status> for Outbox {
    fn from(status: outbox::Status) -> Self {
        Self {
            log: status.log.to_string(),
            epoch: status.epoch.0,
            queue_bytes: status.queue_bytes,
            backlog_bytes: status.backlog_bytes,
            bytes_max: status.bytes_max,
            poisoned: status.poisoned,
            committer_realtime: status.realtime,
            incidents: status.incidents,
            disk_free_bytes: status.disk_free_bytes,
            lanes: status.lanes.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<outbox::LaneStatus> for LaneState {
    fn from(status: outbox::LaneStatus) -> Self {
        Self {
            lane: status.lane.name(),
            next: status.next.0,
            low: status.low.0,
            backlog_messages: status.backlog_messages,
            backlog_bytes: status.backlog_bytes,
            oldest_age_seconds: status.oldest_ms.map(age_seconds),
            refusing: status.refusing.map(|reason| reason.to_string()),
        }
    }
}

pub(super) fn age_seconds(committed_ms: u64) -> f64 {
    let age_ms = clock::unix_ms().saturating_sub(committed_ms);
    std::time::Duration::from_millis(age_ms).as_secs_f64()
}

impl From<dead_letter::Status> for DeadLetter {
    fn from(status: dead_letter::Status) -> Self {
        let oldest_age_seconds = status.oldest_ms.map(age_seconds);
        Self { entries: status.entries, bytes: status.bytes, oldest_age_seconds }
    }
}

impl From<uplink::Status> for Uplink {
    fn from(status: uplink::Status) -> Self {
        let held = status.held.into_iter().map(|held| Held { topic: held.topic, reason: held.reason });
        Self {
            connected: status.connected,
            in_flight: status.in_flight,
            in_flight_bytes: status.in_flight_bytes,
            acked: status.acked,
            rebuilds: status.rebuilds,
            held: held.collect(),
            fenced: status.fenced,
            drain_seconds: status.drain.map(|left| left.as_secs_f64()),
            last_error: status.last_error,
            cap_bytes_per_second: status.wishes.cap_bytes_per_second,
            paused: status.wishes.paused_topics,
        }
    }
}

impl From<commands::Status> for Commands {
    fn from(status: commands::Status) -> Self {
        let entities = status.entities.into_iter().map(|entity| CommandEntity {
            entity: entity.entity,
            links: entity.links,
            accepting: entity.accepting,
            waiting: entity.waiting,
            passive: entity.passive,
            parked: entity.parked,
            down_seconds: entity.down_ms.map(|ms| std::time::Duration::from_millis(ms).as_secs_f64()),
            last_error: entity.last_error,
            last_error_age_seconds: entity.last_error_ms.map(age_seconds),
        });
        let control =
            status.control.map(|control| Control { session: control.session, limits: control.limits });
        let commands::ConnectionStatus { open, links, last_error } = status.connection;
        let dead_letters = status.dead_letters.into_iter().map(|letters| CommandDeadLetters {
            entity: letters.entity,
            looked: letters.looked,
            told: letters.told,
            own: letters.own,
            open: letters.open,
            held: letters.held,
            unreadable: letters.unreadable,
            failing: letters.failing,
            last_error: letters.last_error,
            last_error_age_seconds: letters.last_error_ms.map(age_seconds),
        });
        Self {
            pending: status.pending,
            entities: entities.collect(),
            connection: CommandConnection { open, links, last_error },
            dead_letters: dead_letters.collect(),
            control,
        }
    }
}

impl From<azure::TokenStatus> for Token {
    fn from(status: azure::TokenStatus) -> Self {
        let azure::TokenStatus { audience, life, fetched, failures, last_error } = status;
        let life_seconds = life.map(|life| life.as_secs_f64());
        Self { audience, life_seconds, fetched, failures, last_error }
    }
}
