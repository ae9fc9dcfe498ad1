//! The Service Bus side of cloud-sim: what to start it with, and its control API.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Control, ControlError};
use crate::process::ProcessError;

/// The queues and topics of a namespace.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entities {
    /// The queues.
    pub queues: Vec<Queue>,
    /// The topics.
    pub topics: Vec<Topic>,
}

/// A queue, or a subscription of a topic.
#[derive(Debug, Clone, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Whether every message belongs to a session.
    pub sessions: bool,
    /// How long messages and sessions stay locked, in seconds, 0.05 to 300.
    pub lock_seconds: f64,
    /// Failed deliveries after which a message is dead-lettered.
    pub max_delivery_count: u32,
    /// Time to live of messages that have none or a longer one, in seconds.
    pub ttl_seconds: Option<f64>,
    /// Whether messages that expire are dead-lettered; otherwise they are gone.
    pub dead_letter_on_expiry: bool,
    /// How long message ids are remembered, in seconds; `None`: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_window_seconds: Option<f64>,
    /// A subscription's correlation filter, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
}

/// A topic.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Who gets its messages.
    pub subscriptions: Vec<Queue>,
}

/// A message to send by the control API. Everything may be left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Message {
    /// The session it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// `subject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `correlation-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// `reply-to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// `reply-to-group-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to_session_id: Option<String>,
    /// `content-type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Application properties: text, numbers, booleans.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Value>,
    /// The body, in a data section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Time to live in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<f64>,
    /// Seconds after which it is enqueued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_in_seconds: Option<f64>,
}

/// What can be seen of an entity.
#[derive(Debug, Clone, Deserialize)]
pub struct View {
    /// Messages that are neither scheduled nor deferred; locked ones count.
    pub active: u64,
    /// Messages that somebody holds.
    pub locked: u64,
    /// Messages that are received by their number only.
    pub deferred: u64,
    /// Messages that are not yet enqueued.
    pub scheduled: u64,
    /// Messages in its dead-letter queue.
    pub dead: u64,
    /// Sessions with a message, a state or a holder.
    pub sessions: u64,
    /// Sessions that somebody holds.
    pub sessions_locked: u64,
    /// Receivers, waiting ones too.
    pub receivers: u64,
    /// Receivers that wait for a session.
    pub receivers_waiting: u64,
    /// What became of messages: `completed`, `abandoned`, `released`, `deferred`, `dead_lettered`, `expired`,
    /// `lock_expired`, `returned`, `duplicates`.
    pub settled: BTreeMap<String, u64>,
    /// What is in it, by number; at most 10,000.
    pub messages: Vec<Seen>,
}

/// What can be seen of a message.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// Its sequence number.
    pub sequence: i64,
    /// Its id.
    pub message_id: Option<String>,
    /// Its session.
    pub session_id: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// `active`, `deferred` or `scheduled`.
    pub state: String,
    /// Whether somebody holds it.
    pub locked: bool,
    /// Unix time in milliseconds.
    pub enqueued_ms: u64,
    /// Failed deliveries.
    pub delivery_count: u32,
    /// Why it was dead-lettered.
    #[serde(default)]
    pub reason: Option<String>,
    /// More about why.
    #[serde(default)]
    pub description: Option<String>,
    /// The entity it was dead-lettered from.
    #[serde(default)]
    pub source: Option<String>,
}

/// A part of the log of deliveries and settlements.
#[derive(Debug, Clone, Deserialize)]
pub struct LogPage {
    /// The oldest entry that is still kept. Above what was read last plus one, there is a gap.
    pub first: u64,
    /// What the next entry will be numbered.
    pub next: u64,
    /// The entries, at most 10,000.
    pub entries: Vec<LogEntry>,
}

/// Something that happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogEntry {
    /// 1, 2, 3 and so on.
    pub id: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// `delivered`, `completed`, `abandoned`, `released`, `deferred`, `dead-lettered`, `expired`,
    /// `lock-expired` or `returned`.
    pub event: String,
    /// Where the message is.
    pub entity: String,
    /// Who held it.
    pub link: Option<u64>,
    /// Its session.
    pub session: Option<String>,
    /// Its sequence number.
    pub sequence: i64,
    /// Its id.
    pub message_id: Option<String>,
    /// Failed deliveries, after the event.
    pub delivery_count: u32,
    /// Why it was dead-lettered.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The part of the control API that is about Service Bus.
#[derive(Debug, Clone, Copy)]
pub struct ServiceBus<'a> {
    control: &'a Control,
}

/// Writes the file that cloud-sim reads its entities from.
pub(super) fn write(directory: &Path, entities: &Entities) -> Result<PathBuf, ProcessError> {
    let path = directory.join("servicebus.json");
    let text = json!(entities).to_string();
    let failed = |source| ProcessError::Io { name: "cloud-sim".to_owned(), doing: "servicebus.json", source };
    fs::write(&path, text).map_err(failed)?;
    Ok(path)
}

// === impl Entities ===

impl Entities {
    /// These queues and no topics.
    #[must_use]
    pub fn queues(queues: impl IntoIterator<Item = Queue>) -> Self {
        Self { queues: queues.into_iter().collect(), topics: Vec::new() }
    }
}

// === impl Queue ===

impl Queue {
    /// A queue with the service's defaults: locks of 60 s, ten deliveries, no time to live.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sessions: false,
            lock_seconds: 60.0,
            max_delivery_count: 10,
            ttl_seconds: None,
            dead_letter_on_expiry: false,
            duplicate_window_seconds: None,
            filter: None,
        }
    }

    /// The same with sessions.
    #[must_use]
    pub fn with_sessions(name: &str) -> Self {
        Self { sessions: true, ..Self::new(name) }
    }
}

// === impl Message ===

impl Message {
    /// A message of a session.
    #[must_use]
    pub fn new(session_id: &str, message_id: &str, body: &str) -> Self {
        Self {
            session_id: Some(session_id.to_owned()),
            message_id: Some(message_id.to_owned()),
            body: Some(body.to_owned()),
            ..Self::default()
        }
    }
}

// === impl ServiceBus ===

impl<'a> ServiceBus<'a> {
    pub(super) fn new(control: &'a Control) -> Self {
        Self { control }
    }

    /// Creates entities; those that are there already are deleted first, with what is in them.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn create(self, entities: &Entities) -> Result<(), ControlError> {
        self.control.post("/servicebus/entities", &json!(entities))
    }

    /// Deletes a queue or topic. Receivers are detached; made again, it starts its sequence numbers again.
    ///
    /// # Errors
    /// When it does not answer, or there is no such entity.
    pub fn delete(self, name: &str) -> Result<(), ControlError> {
        self.control.delete(&format!("/servicebus/entities/{name}"))
    }

    /// What can be seen of a queue, a topic, or a subscription (`TOPIC/Subscriptions/NAME`).
    ///
    /// # Errors
    /// When it does not answer, or there is no such entity.
    pub fn entity(self, name: &str) -> Result<View, ControlError> {
        self.control.read(&format!("/servicebus/entities/{name}"))
    }

    /// What can be seen of its dead-letter queue.
    ///
    /// # Errors
    /// When it does not answer, or there is no such entity.
    pub fn dead(self, name: &str) -> Result<View, ControlError> {
        self.control.read(&format!("/servicebus/entities/{name}/dead"))
    }

    /// Sends messages; all or nothing. Gives their sequence numbers.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn send(self, name: &str, messages: &[Message]) -> Result<Vec<i64>, ControlError> {
        let answer = self.control.ask(&format!("/servicebus/entities/{name}/messages"), &messages)?;
        let numbers = answer["sequence_numbers"].as_array();
        Ok(numbers.into_iter().flatten().filter_map(Value::as_i64).collect())
    }

    /// Entries of the log with a number above `after`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn log_after(self, after: u64) -> Result<LogPage, ControlError> {
        self.control.read(&format!("/servicebus/wire-log?after={after}"))
    }

    /// Counts of connections, links, refusals and more.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counters(self) -> Result<Value, ControlError> {
        self.control.get("/servicebus/counters")
    }

    /// Any fault, such as `{"fault": "busy", "operations": 3}`. Gives how many connections, links or sessions it met.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn fault(self, order: &Value) -> Result<u64, ControlError> {
        Ok(self.control.ask("/servicebus/faults", order)?["met"].as_u64().unwrap_or(0))
    }

    /// Cuts every AMQP connection.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn cut_connections(self) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "cut-connections" }))
    }

    /// Leaves every AMQP connection half-open: nothing is read or written any more.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn freeze_connections(self) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "freeze-connections" }))
    }

    /// Detaches every receiver with a condition such as `amqp:link:detach-forced`.
    ///
    /// # Errors
    /// When it does not answer, or does not know the condition.
    pub fn detach_all(self, condition: &str) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "detach-all", "condition": condition }))
    }

    /// Lets the lock of a session expire now.
    ///
    /// # Errors
    /// When it does not answer, or nobody holds the session.
    pub fn expire_lock(self, entity: &str, session: &str) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "expire-lock", "entity": entity, "session": session }))
    }

    /// Refuses the next operations with `server-busy`; 0 ends that.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn busy(self, operations: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "busy", "operations": operations }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Entities, LogPage, Message, Queue};

    #[test]
    fn entities_and_messages_have_the_keys_that_cloud_sim_reads() {
        let queue = Queue { ttl_seconds: Some(1.5), ..Queue::with_sessions("q") };
        let expected = json!({
            "queues": [{
                "name": "q", "sessions": true, "lock_seconds": 60.0, "max_delivery_count": 10,
                "ttl_seconds": 1.5, "dead_letter_on_expiry": false
            }],
            "topics": []
        });
        assert_eq!(json!(Entities::queues([queue])), expected);
        let message = json!({ "session_id": "d-1", "message_id": "m", "body": "{}" });
        assert_eq!(json!(Message::new("d-1", "m", "{}")), message);
    }

    #[test]
    fn the_log_is_read() {
        let page = json!({ "first": 4, "next": 6, "entries": [{
            "id": 5, "at_ms": 1, "event": "completed", "entity": "q", "link": 7, "session": "d-1",
            "sequence": 9, "message_id": null, "delivery_count": 1
        }]});
        let page: LogPage = serde_json::from_value(page).unwrap();
        assert_eq!((page.first, page.entries[0].event.as_str()), (4, "completed"));
    }
}
