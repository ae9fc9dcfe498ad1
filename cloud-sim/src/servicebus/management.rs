//! `$management`: requests about an entity, as messages with an operation and a map, and their answers.

use std::collections::HashMap;

use super::broker::{Broker, Delivery, LinkId, Lock, Outcome, Refusal};
use super::link::message::{self, swap_guid, timestamp};
use crate::amqp::{DecodeError, Sections, Value, code};

/// Messages, numbers or locks in one request.
const ITEMS_MAX: usize = 10_000;
/// Bytes of messages in one answer. Azure sends fewer than asked for, too.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const PREFIX: &str = "com.microsoft:";

/// A request to the node of an entity.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) entity: &'a str,
    pub(super) sections: &'a Sections<'a>,
    /// The connection's receiving links, by name.
    pub(super) names: &'a HashMap<String, LinkId>,
}

/// What an operation gives: null is "nothing there", 204.
type Given = Result<Value, Refusal>;

/// Carries out a request and returns the message to answer with.
pub(super) fn answer(broker: &Broker, request: &Request<'_>) -> Vec<u8> {
    let (code, description, condition, body) = match carry_out(broker, request) {
        Ok(Value::Null) => (204, "No Content".to_owned(), None, Value::Null),
        Ok(body) => (200, "OK".to_owned(), None, body),
        Err(refusal) => {
            (status(refusal.condition), refusal.description, Some(refusal.condition), Value::Null)
        }
    };
    let mut properties = vec![
        (Value::string("statusCode"), Value::Int(code)),
        (Value::string("statusDescription"), Value::String(description)),
    ];
    if let Some(condition) = condition {
        properties.push((Value::string("errorCondition"), Value::symbol(condition)));
    }
    encode(request.sections, properties, body)
}

/// The answer of `$cbs`, whose fields have other names.
pub(super) fn put_token_answer(request: &Sections<'_>, code: i32, description: &str) -> Vec<u8> {
    let properties = vec![
        (Value::string("status-code"), Value::Int(code)),
        (Value::string("status-description"), Value::string(description)),
    ];
    encode(request, properties, Value::Null)
}

/// An answer: it refers to the request by its message id.
fn encode(request: &Sections<'_>, application: Vec<(Value, Value)>, body: Value) -> Vec<u8> {
    let mut properties = vec![Value::Null; 13];
    if let Some(to) = properties.get_mut(2) {
        *to = request.properties.reply_to.clone().map_or(Value::Null, Value::String);
    }
    // A request may ask for another id by its own correlation id; without one it is the message id.
    let correlation =
        request.properties.message_id.clone().or_else(|| request.properties.correlation_id.clone());
    if let Some(place) = properties.get_mut(5) {
        *place = correlation.unwrap_or(Value::Null);
    }
    let mut output = Vec::with_capacity(256);
    Value::composite(code::PROPERTIES, properties).encode(&mut output);
    Value::described(code::APPLICATION_PROPERTIES, Value::Map(application)).encode(&mut output);
    Value::described(code::VALUE, body).encode(&mut output);
    output
}

fn status(condition: &str) -> i32 {
    match condition {
        Refusal::ARGUMENT => 400,
        Refusal::UNAUTHORIZED => 401,
        Refusal::QUOTA | Refusal::NOT_ALLOWED | Refusal::ENTITY_DISABLED => 403,
        Refusal::NOT_FOUND | Refusal::MESSAGE_NOT_FOUND => 404,
        Refusal::TIMEOUT => 408,
        Refusal::SESSION_LOCK_LOST | Refusal::MESSAGE_LOCK_LOST => 410,
        Refusal::TOO_LARGE => 413,
        Refusal::SERVER_BUSY => 503,
        _ => 500,
    }
}

fn carry_out(broker: &Broker, request: &Request<'_>) -> Given {
    let operation = request.sections.application_property("operation").and_then(Value::text);
    let operation = operation.ok_or_else(|| argument("operation is missing"))?;
    let body = request.sections.body_value().map_err(unreadable)?;
    let entity = request.entity;
    match operation.strip_prefix(PREFIX).unwrap_or_default() {
        "renew-session-lock" => renew_session(broker, request, &body),
        "renew-lock" => {
            let until = broker.renew_lock(entity, &locks(&body)?)?;
            Ok(map([("expirations", Value::Array(until.into_iter().map(timestamp).collect()))]))
        }
        "get-session-state" => {
            let state = broker.session_state(entity, session(&body)?)?;
            Ok(map([("session-state", state.map_or(Value::Null, Value::Binary))]))
        }
        "set-session-state" => {
            let state = match body.entry("session-state") {
                None => None,
                Some(Value::Binary(state)) => Some(state.clone()),
                Some(_) => return Err(argument("session-state is not binary")),
            };
            broker.set_session_state(entity, session(&body)?, state)?;
            Ok(map([]))
        }
        "peek-message" => peek(broker, entity, &body),
        "receive-by-sequence-number" => receive(broker, entity, &body),
        "update-disposition" => {
            broker.update_disposition(entity, &locks(&body)?, &outcome(&body)?)?;
            Ok(map([]))
        }
        "schedule-message" => schedule(broker, entity, &body),
        "cancel-scheduled-message" => {
            broker.cancel(entity, &numbers(&body)?)?;
            Ok(map([]))
        }
        "get-message-sessions" => sessions(broker, entity, &body),
        _ => Err(Refusal::new("amqp:not-implemented", format!("operation {operation} is not known"))),
    }
}

fn renew_session(broker: &Broker, request: &Request<'_>, body: &Value) -> Given {
    let name = request.sections.application_property("associated-link-name").and_then(Value::text);
    let link = name.and_then(|name| request.names.get(name)).copied();
    let until = broker.renew_session(request.entity, session(body)?, link)?;
    Ok(map([("expiration", timestamp(until))]))
}

fn peek(broker: &Broker, entity: &str, body: &Value) -> Given {
    let from = body.entry("from-sequence-number").and_then(Value::integer);
    let from = from.ok_or_else(|| argument("from-sequence-number is missing"))?;
    let count = count(body, "message-count")?;
    let session = body.entry("session-id").and_then(Value::text);
    let found = broker.peek(entity, from, count, session)?;
    let mut bytes = 0;
    let mut messages = Vec::new();
    for delivery in &found {
        let encoded = message::write(delivery).map_err(unreadable)?;
        bytes += encoded.len();
        if bytes > ANSWER_BYTES_MAX && !messages.is_empty() {
            break;
        }
        messages.push(map([("message", Value::Binary(encoded.into()))]));
    }
    Ok(listed(messages))
}

fn receive(broker: &Broker, entity: &str, body: &Value) -> Given {
    let settled = body.entry("receiver-settle-mode").and_then(Value::uint) == Some(0);
    let session = body.entry("session-id").and_then(Value::text);
    let found = broker.receive_by_sequence(entity, &numbers(body)?, session, settled)?;
    let entry = |delivery: &Delivery| {
        let encoded = message::write(delivery).map_err(unreadable)?;
        let lock = Value::Uuid(swap_guid(delivery.lock));
        Ok(map([("message", Value::Binary(encoded.into())), ("lock-token", lock)]))
    };
    Ok(listed(found.iter().map(entry).collect::<Result<_, Refusal>>()?))
}

fn schedule(broker: &Broker, entity: &str, body: &Value) -> Given {
    let messages = body.entry("messages").map(Value::items).unwrap_or_default();
    if messages.is_empty() || messages.len() > ITEMS_MAX {
        return Err(argument("messages: at least one is needed"));
    }
    let read = |entry: &Value| match entry.entry("message") {
        Some(Value::Binary(bytes)) => message::read(bytes).map_err(unreadable),
        _ => Err(argument("message is not binary")),
    };
    let messages = messages.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if messages.iter().any(|message| message.scheduled_ms.is_none()) {
        return Err(argument("a message lacks x-opt-scheduled-enqueue-time"));
    }
    let numbers = broker.schedule(entity, messages)?;
    Ok(map([("sequence-numbers", Value::Array(numbers.into_iter().map(Value::Long).collect()))]))
}

fn sessions(broker: &Broker, entity: &str, body: &Value) -> Given {
    // A time far in the future means: sessions with messages.
    let since = match body.entry("last-updated-time") {
        Some(&Value::Timestamp(ms)) => u64::try_from(ms).ok().filter(|ms| *ms < ACTIVE_ONLY_MS),
        _ => None,
    };
    let found = broker.sessions(entity, since, count(body, "skip").unwrap_or(0), count(body, "top")?)?;
    if found.is_empty() {
        return Ok(Value::Null);
    }
    let skip = i32::try_from(found.len()).unwrap_or(i32::MAX);
    let ids = found.into_iter().map(Value::String).collect();
    Ok(map([("skip", Value::Int(skip)), ("sessions-ids", Value::Array(ids))]))
}

/// The year 9999 and a little less: .NET's largest time.
const ACTIVE_ONLY_MS: u64 = 253_000_000_000_000;

// === fields ===

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (Value::string(name), value)).collect())
}

/// Messages in an answer; none of them is no content.
fn listed(messages: Vec<Value>) -> Value {
    if messages.is_empty() { Value::Null } else { map([("messages", Value::List(messages))]) }
}

fn session(body: &Value) -> Result<&str, Refusal> {
    body.entry("session-id").and_then(Value::text).ok_or_else(|| argument("session-id is missing"))
}

fn count(body: &Value, name: &str) -> Result<usize, Refusal> {
    let count = body.entry(name).and_then(Value::integer).and_then(|count| usize::try_from(count).ok());
    count.map(|count| count.min(ITEMS_MAX)).ok_or_else(|| argument(format!("{name} is missing or wrong")))
}

fn locks(body: &Value) -> Result<Vec<Lock>, Refusal> {
    let locks = body.entry("lock-tokens").map(Value::items).unwrap_or_default();
    let lock = |token: &Value| match token {
        Value::Uuid(uuid) => Ok(swap_guid(*uuid)),
        _ => Err(argument("lock-tokens: uuids are needed")),
    };
    some(locks.iter().map(lock).collect::<Result<Vec<_>, _>>()?, "lock-tokens")
}

fn numbers(body: &Value) -> Result<Vec<i64>, Refusal> {
    let numbers = body.entry("sequence-numbers").map(Value::items).unwrap_or_default();
    let number =
        |number: &Value| number.integer().ok_or_else(|| argument("sequence-numbers: longs are needed"));
    some(numbers.iter().map(number).collect::<Result<Vec<_>, _>>()?, "sequence-numbers")
}

fn some<T>(items: Vec<T>, name: &str) -> Result<Vec<T>, Refusal> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(argument(format!("{name}: one to {ITEMS_MAX} are needed")));
    }
    Ok(items)
}

fn outcome(body: &Value) -> Result<Outcome, Refusal> {
    let text = |name| body.entry(name).and_then(Value::text);
    match text("disposition-status") {
        Some("completed") => Ok(Outcome::Accepted),
        Some("abandoned") => Ok(Outcome::Modified { failed: true, undeliverable: false }),
        // The misspelling is the protocol's.
        Some("defered" | "deferred") => Ok(Outcome::Modified { failed: false, undeliverable: true }),
        Some("suspended") => Ok(Outcome::Rejected {
            reason: text("deadletter-reason").map(str::to_owned),
            description: text("deadletter-description").map(str::to_owned),
        }),
        _ => Err(argument("disposition-status is missing or not known")),
    }
}

fn argument(description: impl Into<String>) -> Refusal {
    Refusal::new(Refusal::ARGUMENT, description)
}

fn unreadable(error: DecodeError) -> Refusal {
    argument(error.to_string())
}
