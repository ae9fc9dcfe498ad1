//! A message given as JSON, made into the bytes that a client would have sent.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::amqp::{Header, Value, code};
use crate::servicebus::broker::Message;
use crate::servicebus::link::message::read;

/// What to send. Everything may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Order {
    session_id: Option<String>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    subject: Option<String>,
    to: Option<String>,
    reply_to: Option<String>,
    reply_to_session_id: Option<String>,
    content_type: Option<String>,
    /// Text, booleans, whole numbers (long) and others (double).
    properties: BTreeMap<String, serde_json::Value>,
    /// Goes into a data section.
    body: Option<String>,
    /// The same as base64.
    body_base64: Option<String>,
    ttl_seconds: Option<f64>,
    scheduled_in_seconds: Option<f64>,
}

impl Order {
    /// The message, by way of its bytes, so that it is read like one from a client.
    pub(super) fn message(&self, now_ms: u64) -> Result<Message, String> {
        let mut bytes = Vec::new();
        let ttl_ms = self.ttl_seconds.map(|seconds| milliseconds("ttl_seconds", seconds)).transpose()?;
        let ttl_ms = ttl_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
        Header { durable: true, ttl_ms, delivery_count: 0 }.encode(&mut bytes);
        if let Some(seconds) = self.scheduled_in_seconds {
            let due_ms = now_ms.saturating_add(milliseconds("scheduled_in_seconds", seconds)?);
            let due = Value::Timestamp(i64::try_from(due_ms).unwrap_or(i64::MAX));
            let entries = vec![(Value::symbol("x-opt-scheduled-enqueue-time"), due)];
            Value::described(code::MESSAGE_ANNOTATIONS, Value::Map(entries)).encode(&mut bytes);
        }
        self.properties().encode(&mut bytes);
        if !self.properties.is_empty() {
            let entries = self.properties.iter();
            let entries = entries.map(|(name, value)| Ok((Value::string(name), property(name, value)?)));
            let entries = entries.collect::<Result<Vec<_>, String>>()?;
            Value::described(code::APPLICATION_PROPERTIES, Value::Map(entries)).encode(&mut bytes);
        }
        Value::described(code::DATA, Value::Binary(self.body()?.into())).encode(&mut bytes);
        read(&bytes).map_err(|error| format!("{error:?}"))
    }

    /// The properties section (part 3, section 3.2.4).
    fn properties(&self) -> Value {
        let text = |text: &Option<String>| text.as_ref().map_or(Value::Null, Value::string);
        let content_type = self.content_type.as_ref().map_or(Value::Null, Value::symbol);
        let fields = vec![
            text(&self.message_id),
            Value::Null,
            text(&self.to),
            text(&self.subject),
            text(&self.reply_to),
            text(&self.correlation_id),
            content_type,
            Value::Null,
            Value::Null,
            Value::Null,
            text(&self.session_id),
            Value::Null,
            text(&self.reply_to_session_id),
        ];
        Value::composite(code::PROPERTIES, fields)
    }

    fn body(&self) -> Result<Vec<u8>, String> {
        match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => Err("body and body_base64 are both given".to_owned()),
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| format!("body_base64: {error}")),
            (None, None) => Ok(Vec::new()),
        }
    }
}

fn property(name: &str, value: &serde_json::Value) -> Result<Value, String> {
    match value {
        serde_json::Value::String(text) => Ok(Value::string(text)),
        serde_json::Value::Bool(truth) => Ok(Value::Bool(*truth)),
        serde_json::Value::Null => Ok(Value::Null),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Value::Long(whole)),
            (None, Some(number)) => Ok(Value::Double(number)),
            (None, None) => Err(format!("property {name:?}: the number is too large")),
        },
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(format!("property {name:?} is neither text nor number nor boolean"))
        }
    }
}

fn milliseconds(key: &str, seconds: f64) -> Result<u64, String> {
    let duration =
        std::time::Duration::try_from_secs_f64(seconds).map_err(|error| format!("{key}: {error}"))?;
    u64::try_from(duration.as_millis()).map_err(|_large| format!("{key} is too large"))
}
