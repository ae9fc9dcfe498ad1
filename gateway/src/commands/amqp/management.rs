//! What `$management` of an entity is asked (Azure: "AMQP request/response-based operations").

use std::time::Duration;

use fe2o3_amqp_types::messaging::{Body, Message, message::DecodeIntoMessage as _};
use fe2o3_amqp_types::primitives::{Binary, OrderedMap, SimpleValue, Value};
use serde_amqp::read::SliceReader;

use super::error::{Cause, LinkError};
use super::exchange::{Exchange, Request, Response};
use super::message::{NO_LOCK, received, unix_ms, unknown};
use crate::commands::message::Received;
use crate::commands::metrics::Metrics;

/// How long one operation may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Renews the lock of a session; until when it holds, in Unix milliseconds.
pub(super) async fn renew_session_lock(node: &Exchange, session: &str, link: &str) -> Result<u64, LinkError> {
    let body = map([("session-id", Value::String(session.to_owned()))]);
    let response = call(node, "com.microsoft:renew-session-lock", Some(link), body).await?;
    match field(&response, "expiration") {
        Some(Value::Timestamp(time)) => Ok(unix_ms(time.milliseconds())),
        _ => Err(strange("renew-session-lock")),
    }
}

/// What was kept with the session.
pub(super) async fn session_state(
    node: &Exchange,
    session: &str,
    link: &str,
) -> Result<Option<Vec<u8>>, LinkError> {
    let body = map([("session-id", Value::String(session.to_owned()))]);
    let response = call(node, "com.microsoft:get-session-state", Some(link), body).await?;
    match field(&response, "session-state") {
        Some(Value::Binary(state)) => Ok(Some(state.into_vec())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(strange("get-session-state")),
    }
}

/// Keeps something with the session, or nothing any more.
pub(super) async fn set_session_state(
    node: &Exchange,
    session: &str,
    link: &str,
    state: Option<&[u8]>,
) -> Result<(), LinkError> {
    let state = state.map_or(Value::Null, |state| Value::Binary(Binary::from(state.to_vec())));
    let body = map([("session-id", Value::String(session.to_owned())), ("session-state", state)]);
    call(node, "com.microsoft:set-session-state", Some(link), body).await.map(drop)
}

/// Messages from `from` on, at most `count`, without any lock. One that is not AMQP is there with nothing of it known.
pub(super) async fn peek(node: &Exchange, from: i64, count: u32) -> Result<Vec<Received>, LinkError> {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let body = map([("from-sequence-number", Value::Long(from)), ("message-count", Value::Int(count))]);
    let response = call(node, "com.microsoft:peek-message", None, body).await?;
    if response.status == 204 {
        return Ok(Vec::new());
    }
    match field(&response, "messages") {
        Some(Value::List(messages)) => messages.into_iter().map(peeked).collect(),
        _ => Err(strange("peek-message")),
    }
}

async fn call(
    node: &Exchange,
    operation: &'static str,
    link: Option<&str>,
    body: Value,
) -> Result<Response, LinkError> {
    let limit_ms = u32::try_from(TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let mut properties = vec![("com.microsoft:server-timeout", SimpleValue::Uint(limit_ms))];
    properties.extend(link.map(|link| ("associated-link-name", SimpleValue::String(link.to_owned()))));
    let answered = node.call(Request { operation, properties, body }, TIMEOUT).await;
    if let Err(error) = &answered {
        Metrics::management_failed(error.word());
    }
    answered
}

fn peeked(entry: Value) -> Result<Received, LinkError> {
    let encoded = match entry {
        Value::Map(fields) => fields.get(&Value::String("message".to_owned())).cloned(),
        _ => None,
    };
    let Some(Value::Binary(encoded)) = encoded else { return Err(strange("peek-message")) };
    let message: Result<Message<Body<Value>>, _> =
        Body::decode_message_from_reader(SliceReader::new(&encoded));
    Ok(message.map_or_else(|_| unknown(NO_LOCK), |message| received(NO_LOCK, message)))
}

fn map(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (Value::String(name.to_owned()), value));
    Value::Map(fields.collect::<OrderedMap<_, _>>())
}

fn field(response: &Response, name: &str) -> Option<Value> {
    match &response.body {
        Value::Map(fields) => fields.get(&Value::String(name.to_owned())).cloned(),
        _ => None,
    }
}

fn strange(operation: &str) -> LinkError {
    LinkError::Other(Cause::local(format!("the answer to {operation} is not what it should be")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_in_an_answer_is_an_error() {
        let other = crate::commands::message::Body::Other;
        let junk = map([("message", Value::Binary(Binary::from(vec![0xff; 9])))]);
        // One bad message hides no other one.
        assert_eq!(peeked(junk).unwrap().body, other(crate::commands::message::Body::UNDECODABLE));
        assert!(matches!(peeked(Value::Null), Err(LinkError::Other(_))));
        assert!(matches!(peeked(map([])), Err(LinkError::Other(_))));
    }
}
